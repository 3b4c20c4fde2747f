import Foundation
import ModelGraph
import Rewrites
import Support
import Tensors

/// A graph made ready for one set of input shapes: all memory laid out, all weights packed, nothing left to decide.
///
/// A plan owns its memory and is used by one thread at a time.
final class Plan {
    /// What was wanted, under the names it was asked for.
    private let outputs: [(name: String, value: ValueID)]
    private let inputs: [(name: String, view: MutableTensorView)]
    private let steps: [Step]
    private let memory: BoundMemory

    struct Step {
        let label: String
        let kind: String
        let multiplyAccumulates: Int
        let run: @Sendable (ThreadPool) throws -> Void
    }

    /// - Parameter graph: specialized, with the wanted outputs only.
    /// - Throws: `data` where a size is left open, or memory is refused.
    init(_ graph: Graph, weights: Weights, threads: Int) throws {
        try graph.checkSizes()
        var graph = graph
        try narrowRows(&graph)
        let lowering = try Lowering(graph)
        let memory = try BoundMemory(graph, lowering, weights: weights, threads: threads)
        self.memory = memory
        outputs = graph.outputs
        inputs = try graph.inputs.map { (graph.name(of: $0), try memory.mutableView($0)) }
        steps = try lowering.instructions.enumerated().map { index, instruction in
            memory.current = index
            return Step(
                label: instruction.label, kind: instruction.kind, multiplyAccumulates: instruction.multiplyAccumulates,
                run: try instruction.bind(memory))
        }
    }

    /// Is told of each step, its index, and the time that it took.
    typealias Observer = (Int, Step, Duration) -> Void

    /// Runs all steps.
    /// - Parameter tensors: for each input, of the planned type and shape.
    /// - Throws: `CancellationError` in front of a step, where the task that calls was cancelled.
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

/// The memory of a plan: one arena for what is computed, and the constants that it reads.
private final class BoundMemory: PlanMemory {
    let weights: Weights
    let threads: Int
    var current = 0
    private let graph: Graph
    private let arena: AlignedMemory
    private let aliases: [ValueID: ValueID]
    private var offsets: [ValueID: Int] = [:]
    private var scratchOffsets: [Int] = []
    private var constants: [ValueID: Tensor] = [:]
    private let spaced: Set<ValueID>
    private let bytes: [ValueID: Int]

    var scratch: UnsafeMutableRawPointer { arena.base + scratchOffsets[current] }

    init(_ graph: Graph, _ lowering: Lowering, weights: Weights, threads: Int) throws {
        self.graph = graph
        self.weights = weights
        self.threads = threads
        let products = lowering.instructions.flatMap(\.products)
        let packed = Set(products.flatMap { [$0.weight.identity, $0.scales?.identity] })
        try weights.prepare(
            products, graph.nodes.flatMap(\.inputs).compactMap { $0.flatMap(graph.constant) }.filter { !packed.contains($0.identity) })
        aliases = lowering.aliases
        let spaced = lowering.spacedValues
        self.spaced = spaced
        let bytes = lowering.byteValues
        self.bytes = bytes
        func root(_ value: ValueID) -> ValueID {
            var value = value
            while let source = lowering.aliases[value] { value = source }
            return value
        }
        let instructions = lowering.instructions
        var buffers: [ArenaLayout.Buffer] = []
        var indices: [ValueID: Int] = [:]
        func begin(_ value: ValueID, at step: Int) throws {
            guard var shape = graph.type(of: value).constantShape else { return }
            if spaced.contains(value) { shape[shape.count - 1] += BoundMemory.space }
            var size = try byteCount(of: graph.type(of: value).dataType, shape)
            if let headSize = bytes[value], let width = shape.last {
                size = HeadBytes.byteCount(rows: shape.dropLast().reduce(1, *), width: width, headSize: headSize)
            }
            indices[value] = buffers.count
            buffers.append(.init(byteCount: size, first: step, last: step))
        }
        for input in graph.inputs { try begin(input, at: -1) }
        for (step, instruction) in instructions.enumerated() {
            for value in instruction.writes { try begin(value, at: step) }
            for value in instruction.reads { if let index = indices[root(value)] { buffers[index].last = step } }
        }
        for (_, value) in graph.outputs { if let index = indices[root(value)] { buffers[index].last = instructions.count } }
        let scratchStart = buffers.count
        for (step, instruction) in instructions.enumerated() {
            buffers.append(.init(byteCount: instruction.scratchBytes(threads: threads), first: step, last: step))
        }
        let layout = ArenaLayout(buffers)
        arena = try AlignedMemory(byteCount: layout.byteCount)
        offsets = indices.mapValues { layout.offsets[$0] }
        scratchOffsets = Array(layout.offsets[scratchStart...])
    }

    func view(_ value: ValueID) throws -> TensorView {
        if let content = graph.content(of: value) { return try constant(value, content).view }
        return try mutableView(value).readOnly
    }

    func mutableView(_ value: ValueID) throws -> MutableTensorView {
        var root = value
        while let source = aliases[root] { root = source }
        guard let offset = offsets[root], let shape = graph.type(of: value).constantShape else {
            throw TripsError.data("a value has no place in the plan", found: graph.name(of: value))
        }
        return MutableTensorView(dataType: graph.type(of: value).dataType, shape: shape, bytes: arena.base + offset)
    }

    func rowDistance(_ value: ValueID) -> Int {
        (graph.type(of: value).constantShape?.last ?? 0) + (spaced.contains(value) ? BoundMemory.space : 0)
    }

    func headBytes(_ value: ValueID) throws -> HeadBytes? {
        try bytes[value].map { HeadBytes(try mutableView(value), headSize: $0) }
    }

    /// Elements between the rows of spaced values: a cache line.
    private static let space = 16

    private func constant(_ value: ValueID, _ content: Content) throws -> Tensor {
        if let tensor = constants[value] { return tensor }
        let found: Tensor? = if case .tensor(let constant) = content { try weights.tensor(constant) } else { try graph.operand(value).tensor() }
        guard let tensor = found else { throw TripsError.data("a constant has no numbers", found: graph.name(of: value)) }
        constants[value] = tensor
        return tensor
    }
}
