import Foundation
import ModelGraph
import Rewrites
import Support
import Tensors

/// How the runs of a plan continue each other, as the steps of a decoder do.
package struct Continuation: Hashable {
    /// Inputs that stay the same: what depends on them alone is computed by the first run.
    package let fixed: Set<String>
    /// Inputs that are zeros in the first run, and then what the operators left there.
    package let states: Set<String>

    package init(fixed: Set<String>, states: Set<String>) {
        self.fixed = fixed
        self.states = states
    }
}

/// A graph made ready for one set of input shapes: all memory laid out, all weights packed, nothing left to decide.
///
/// A plan owns its memory and is used by one thread at a time.
package final class Plan {
    /// The requested outputs.
    private let outputs: [(name: String, value: ValueID)]
    private let inputs: [(name: String, view: MutableTensorView)]
    private let steps: [Step]
    private let memory: PlanMemory
    let continuation: Continuation?
    /// The first step that is part of every run.
    private let firstRepeated: Int

    struct Step {
        let label: String
        let kind: String
        let multiplyAccumulates: Int
        let run: @Sendable (ThreadPool) throws -> Void
    }

    /// - Parameter graph: specialized, with the wanted outputs only.
    /// - Throws: `data` where a size is left open, or memory is refused.
    init(_ graph: Graph, weights: WeightStore, threads: Int, _ continuation: Continuation? = nil) throws {
        try graph.checkSizes()
        var graph = graph
        try graph.narrowRows()
        var lowering = try Lowering(graph)
        if let continuation { lowering.continueRuns(fixed: continuation.fixed) }
        self.continuation = continuation
        firstRepeated = lowering.firstRepeated ?? 0
        let memory = try PlanMemory(graph, lowering, weights: weights, threads: threads)
        self.memory = memory
        outputs = graph.outputs
        inputs = try graph.inputs.map { (graph.name(of: $0), try memory.mutableView($0)) }
        steps = try lowering.instructions.enumerated().map { index, instruction in
            Step(
                label: instruction.label, kind: instruction.kind, multiplyAccumulates: instruction.multiplyAccumulates,
                run: try instruction.bind(memory, scratch: memory.scratch(of: index)))
        }
    }

    /// Called after each step with its index and its duration.
    typealias Observer = (Int, Step, Duration) -> Void

    /// Runs all steps.
    /// - Parameters:
    ///   - tensors: for each input but states, of the planned type and shape.
    ///   - continuing: whether this run continues the last one, as the plan's `continuation` says.
    /// - Throws: `CancellationError` before the next step, once the calling task was cancelled.
    func run(
        _ tensors: [String: Tensor], on pool: ThreadPool, continuing: Bool = false, observe: Observer? = nil
    ) throws -> [String: Tensor] {
        for (name, view) in inputs {
            let isState = continuation?.states.contains(name) ?? false
            if continuing, isState || continuation?.fixed.contains(name) ?? false { continue }
            if isState {
                memset(view.bytes, 0, view.count * view.dataType.byteWidth)
                continue
            }
            guard let tensor = tensors[name], tensor.dataType == view.dataType, tensor.shape == view.shape else {
                throw TripsError.usage("input does not fit the plan", found: name)
            }
            tensor.withBytes { bytes in
                if let base = bytes.baseAddress { view.bytes.copyMemory(from: base, byteCount: bytes.count) }
            }
        }
        let clock = ContinuousClock()
        for (index, step) in steps.enumerated().dropFirst(continuing ? firstRepeated : 0) {
            try Task.checkCancellation()
            if let observe { observe(index, step, try clock.measure { try step.run(pool) }) } else { try step.run(pool) }
        }
        var results: [String: Tensor] = [:]
        for (name, value) in outputs { results[name] = try memory.view(value).tensor() }
        return results
    }
}
