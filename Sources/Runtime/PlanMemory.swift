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
    /// The index of the instruction that is being bound.
    var step = 0
    private let graph: Graph
    private let storage: ValueStorage
    private let arena: AlignedMemory
    private let offsets: [ValueID: Int]
    private let scratchOffsets: [Int]
    private var constants: [ValueID: Tensor] = [:]

    /// The working memory of the instruction that is being bound.
    var scratch: UnsafeMutableRawPointer { arena.base + scratchOffsets[step] }

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
        let (buffers, indices) = try storage.buffers(lowering.instructions)
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
        guard let source = storage.chosen[value] else { return ChosenRows(first: try view(value).source(), order: nil) }
        return ChosenRows(first: try view(source).source(), order: try choice(value).map { Source(base: $0.order.base) })
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

/// The memory form of each value of a plan.
private struct ValueStorage {
    private let graph: Graph
    private let aliases: [ValueID: ValueID]
    private let spaced: Set<ValueID>
    /// Of values that are bytes.
    let headSizes: [ValueID: Int]
    /// Of values that are a choice of another's rows, that other.
    let chosen: [ValueID: ValueID]
    /// Those others, which have room for one more row for each example.
    private let chosenFrom: Set<ValueID>

    init(_ graph: Graph, _ lowering: Lowering) {
        self.graph = graph
        aliases = lowering.aliases
        spaced = lowering.spacedValues
        headSizes = lowering.byteValues
        chosen = lowering.chosenRows
        chosenFrom = Set(chosen.values)
    }

    /// The value whose memory this one takes.
    func root(of value: ValueID) -> ValueID {
        var root = value
        while let source = aliases[root] { root = source }
        return root
    }

    /// Elements between the rows of a value: a cache line, or none.
    func space(of value: ValueID) -> Int { spaced.contains(value) ? 16 : 0 }

    private func byteCount(of value: ValueID) throws -> Int {
        let type = graph.type(of: value)
        guard var shape = type.constantShape else {
            throw TripsError.data("size of a value", at: graph.name(of: value), found: type)
        }
        if let headSize = headSizes[value], let width = shape.last {
            return HeadBytes.byteCount(rows: shape.dropLast().reduce(1, *), width: width, headSize: headSize)
        }
        if chosen[value] != nil { return shape.dropLast().reduce(1, *) * MemoryLayout<Int32>.size }
        if chosenFrom.contains(value) { shape[1] += 1 }
        if spaced.contains(value) { shape[shape.count - 1] += space(of: value) }
        return try Tensors.byteCount(of: type.dataType, shape)
    }

    /// A buffer for each value that is given or computed, from the step that writes it to the last that reads it; and which it is.
    func buffers(_ instructions: [any Instruction]) throws -> (buffers: [ArenaLayout.Buffer], indices: [ValueID: Int]) {
        var buffers: [ArenaLayout.Buffer] = []
        var indices: [ValueID: Int] = [:]
        func begin(_ values: [ValueID], at step: Int) throws {
            for value in values {
                indices[value] = buffers.count
                buffers.append(.init(byteCount: try byteCount(of: value), first: step, last: step))
            }
        }
        func extend(_ values: [ValueID], to step: Int) {
            for root in values.map(root) {
                for value in [root, chosen[root]].compactMap({ $0 }) {
                    if let index = indices[value] { buffers[index].last = step }
                }
            }
        }
        try begin(graph.inputs, at: -1)
        for (step, instruction) in instructions.enumerated() {
            try begin(instruction.writes, at: step)
            extend(instruction.reads, to: step)
        }
        extend(graph.outputs.map(\.value), to: instructions.count)
        return (buffers, indices)
    }
}
