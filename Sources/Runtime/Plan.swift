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

    /// The message of the error where sizes are not known before the model runs.
    static let openSize = "a size depends on the inputs' numbers, which is not supported"

    struct Step {
        let label: String
        let kind: String
        let multiplyAccumulates: Int
        let run: @Sendable (ThreadPool) throws -> Void
    }

    /// - Parameters:
    ///   - graph: with the wanted outputs only, for these shapes.
    ///   - shapes: of all inputs that the graph reads.
    ///   - known: inputs that this plan takes as constants, because sizes depend on their numbers.
    /// - Throws: `usage` where the shapes do not suit the graph; `data` where sizes depend on other inputs' numbers.
    init(_ graph: Graph, shapes: [String: [Int]], known: [String: Tensor] = [:], weights: Weights, threads: Int) throws {
        var graph = graph
        for input in graph.inputs {
            let name = graph.name(of: input)
            if let tensor = known[name] { graph.setContent(.tensor(Constant(tensor, identity: "input \(name)")), of: input) }
        }
        try graph.specialize(to: shapes)
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

extension Graph {
    /// Replaces all symbols by numbers and folds what became constant.
    package mutating func specialize(to shapes: [String: [Int]]) throws {
        for input in inputs {
            guard let shape = shapes[name(of: input)] else { throw TripsError.usage("an input is missing", found: name(of: input)) }
            guard shape.count == type(of: input).rank else {
                throw TripsError.usage("shape of input \(name(of: input))", found: "\(shape)", expected: type(of: input))
            }
        }
        try bind(symbols(for: shapes))
        for input in inputs {
            let (shape, type) = (shapes[name(of: input)] ?? [], type(of: input))
            guard type.constantShape == shape else {
                throw TripsError.usage("shape of input \(name(of: input))", found: "\(shape)", expected: type)
            }
        }
        try fold(&self, lookups: true)
        prune()
        for node in nodes {
            for value in node.inputs.compactMap({ $0 }) + node.outputs {
                let type = type(of: value)
                guard let shape = type.constantShape else { throw TripsError.data(Plan.openSize, at: node.name, found: type) }
                try AlignedMemory.check(byteCount(of: type.dataType, shape))
            }
        }
    }

    /// What the symbols of the inputs' types stand for where the inputs have these shapes.
    package func symbols(for shapes: [String: [Int]]) -> [String: Int] {
        var symbols: [String: Int] = [:]
        for input in inputs {
            for (size, dimension) in zip(shapes[name(of: input)] ?? [], shape(of: input)) {
                guard let symbol = dimension.symbols.first, dimension == Dimension(symbol: symbol) else { continue }
                symbols[symbol] = symbols[symbol] ?? size
            }
        }
        return symbols
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
    private let chosen: [ValueID: ValueID]

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
        let chosen = lowering.chosenRows
        self.chosen = chosen
        let selected = Set(chosen.values)
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
            // A spare row for each example.
            if selected.contains(value) { shape[1] += 1 }
            var size = try byteCount(of: graph.type(of: value).dataType, shape)
            if chosen[value] != nil { size = shape.dropLast().reduce(1, *) * MemoryLayout<Int32>.size }
            if let headSize = bytes[value], let width = shape.last {
                size = HeadBytes.byteCount(rows: shape.dropLast().reduce(1, *), width: width, headSize: headSize)
            }
            indices[value] = buffers.count
            buffers.append(.init(byteCount: size, first: step, last: step))
        }
        for input in graph.inputs { try begin(input, at: -1) }
        for (step, instruction) in instructions.enumerated() {
            for value in instruction.writes { try begin(value, at: step) }
            for value in instruction.reads.map(root) {
                for value in [value, chosen[value]].compactMap({ $0 }) { if let index = indices[value] { buffers[index].last = step } }
            }
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

    func rows(_ value: ValueID) throws -> ChosenRows {
        guard let source = chosen[value] else { return ChosenRows(base: try view(value).pointer(Float.self), order: nil) }
        return ChosenRows(base: try view(source).pointer(Float.self), order: try choice(value).map { UnsafePointer($0.order) })
    }

    func choice(_ value: ValueID) throws -> RowChoice? {
        guard let source = chosen[value] else { return nil }
        let rows = try mutableView(source)
        return RowChoice(
            order: try mutableView(value).bytes.assumingMemoryBound(to: Int32.self), spare: rows.pointer(Float.self) + rows.count,
            firstSpare: rows.shape[0] * rows.shape[1])
    }

    func headBytes(_ value: ValueID) throws -> HeadBytes? {
        try bytes[value].map { HeadBytes(try mutableView(value), headSize: $0) }
    }

    /// Elements between the rows of spaced values: a cache line.
    private static let space = 16

    private func constant(_ value: ValueID, _ content: Content) throws -> Tensor {
        if let tensor = constants[value] { return tensor }
        let found: Tensor? = if case .tensor(let constant) = content { try weights.tensor(constant) } else { try graph.operand(value).tensor() }
        guard let tensor = found else { throw TripsError.data(Plan.openSize, found: graph.name(of: value)) }
        constants[value] = tensor
        return tensor
    }
}
