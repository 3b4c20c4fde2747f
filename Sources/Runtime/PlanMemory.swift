import ModelGraph
import Operators
import Support
import Tensors

/// The memory of a plan: one arena for what is computed, and the constants that it reads.
final class PlanMemory {
    /// The model's constants in the kernels' form.
    let weights: WeightStore
    /// Threads that divide a step.
    let threads: Int
    private let graph: Graph
    private let storage: ValueStorage
    private let arena: AlignedMemory
    private let offsets: [ValueID: Int]
    private let scratchOffsets: [Int]
    private var constants: [ValueID: Tensor] = [:]

    /// The working memory of the instruction of this index.
    func scratch(of step: Int) -> UnsafeMutableRawPointer { arena.base + scratchOffsets[step] }

    /// Loads the weights, and lays out everything else.
    /// - Parameter graph: with sizes that are all numbers.
    init(_ graph: Graph, _ lowering: Lowering, weights: WeightStore, threads: Int) throws {
        self.graph = graph
        self.weights = weights
        self.threads = threads
        storage = ValueStorage(graph, lowering)
        let products = lowering.instructions.flatMap(\.products)
        let packed = Set(products.flatMap { [$0.weight.identity, $0.scales?.identity] })
        try weights.prepare(
            products,
            graph.nodes.flatMap(\.inputs).compactMap { $0.flatMap(graph.constant) }.filter { !packed.contains($0.identity) })
        let (buffers, indices) = try storage.buffers(lowering.instructions, firstRepeated: lowering.firstRepeated)
        let scratch = lowering.instructions.enumerated().map { step, instruction in
            ArenaLayout.Buffer(byteCount: instruction.scratchBytes(threads: threads), first: step, last: step)
        }
        let layout = ArenaLayout(buffers + scratch)
        arena = try AlignedMemory(byteCount: layout.byteCount)
        offsets = indices.mapValues { layout.offsets[$0] }
        scratchOffsets = Array(layout.offsets[buffers.count...])
    }

    func view(_ value: ValueID) throws -> TensorView {
        if let content = graph.content(of: value) { return try constant(value, content).view }
        return try mutableView(value).readOnly
    }

    func mutableView(_ value: ValueID) throws -> MutableTensorView {
        guard let offset = offsets[storage.root(of: value)], let shape = graph.type(of: value).constantShape else {
            throw TripsError.data("a value has no place in the plan", found: graph.name(of: value))
        }
        return MutableTensorView(dataType: graph.type(of: value).dataType, shape: shape, bytes: arena.base + offset)
    }

    /// Elements from one row of a value to the next; its width, but for values of `Lowering.spacedValues`.
    func rowDistance(_ value: ValueID) -> Int { (graph.type(of: value).constantShape?.last ?? 0) + storage.space(of: value) }

    /// The rows of a value of fp32, which for one of `Lowering.chosenRows` lie among another's.
    func rows(_ value: ValueID) throws -> ChosenRows {
        let source = storage.chosen[value] ?? value
        return ChosenRows(
            first: try view(source).source(), distance: rowDistance(source),
            order: try choice(value).map { Source(base: $0.order.base) })
    }

    /// Where to write the row order of a value of `Lowering.chosenRows`; nil for the others.
    func choice(_ value: ValueID) throws -> RowChoice? {
        guard let source = storage.chosen[value] else { return nil }
        let rows = try mutableView(source)
        return RowChoice(
            order: try mutableView(value).target(), spare: Target(base: rows.target().base + rows.count),
            firstSpare: rows.shape[0] * rows.shape[1])
    }

    /// Where a value of `Lowering.byteValues` is; nil for the others.
    func headBytes(_ value: ValueID) throws -> HeadBytes? {
        try storage.headSizes[value].map { HeadBytes(try mutableView(value), headSize: $0) }
    }

    private func constant(_ value: ValueID, _ content: Content) throws -> Tensor {
        if let tensor = constants[value] { return tensor }
        let found: Tensor? =
            if case .tensor(let constant) = content { try weights.tensor(constant) } else { try graph.operand(value).tensor() }
        guard let tensor = found else { throw TripsError.data("a constant has no numbers", found: graph.name(of: value)) }
        constants[value] = tensor
        return tensor
    }
}
