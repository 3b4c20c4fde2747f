import ModelGraph
import Rewrites
import Support
import Tensors

/// A graph made ready for one set of input shapes: all memory laid out, all weights packed, nothing left to decide.
///
/// A plan owns its memory and is used by one thread at a time.
final class Plan {
    /// The requested outputs.
    private let outputs: [(name: String, value: ValueID)]
    private let inputs: [(name: String, view: MutableTensorView)]
    private let steps: [Step]
    private let memory: PlanMemory

    struct Step {
        let label: String
        let kind: String
        let multiplyAccumulates: Int
        let run: @Sendable (ThreadPool) throws -> Void
    }

    /// - Parameter graph: specialized, with the wanted outputs only.
    /// - Throws: `data` where a size is left open, or memory is refused.
    init(_ graph: Graph, weights: WeightStore, threads: Int) throws {
        try graph.checkSizes()
        var graph = graph
        try graph.narrowRows()
        let lowering = try Lowering(graph)
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
    /// - Parameter tensors: for each input, of the planned type and shape.
    /// - Throws: `CancellationError` before the next step, once the calling task was cancelled.
    func run(_ tensors: [String: Tensor], on pool: ThreadPool, observe: Observer? = nil) throws -> [String: Tensor] {
        for (name, view) in inputs {
            guard let tensor = tensors[name], tensor.dataType == view.dataType, tensor.shape == view.shape else {
                throw TripsError.usage("input does not fit the plan", found: name)
            }
            tensor.withBytes { bytes in
                if let base = bytes.baseAddress { view.bytes.copyMemory(from: base, byteCount: bytes.count) }
            }
        }
        let clock = ContinuousClock()
        for (index, step) in steps.enumerated() {
            try Task.checkCancellation()
            if let observe { observe(index, step, try clock.measure { try step.run(pool) }) } else { try step.run(pool) }
        }
        var results: [String: Tensor] = [:]
        for (name, value) in outputs { results[name] = try memory.view(value).tensor() }
        return results
    }
}
