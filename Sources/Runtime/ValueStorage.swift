import Kernels
import ModelGraph
import Operators
import Support
import Tensors

/// The memory form of each value of a plan.
struct ValueStorage {
    private let graph: Graph
    private let aliases: [ValueID: ValueID]
    private let spaced: Set<ValueID>
    /// Of the values that are stored as bytes.
    let headSizes: [ValueID: Int]
    /// For values that are stored as row indices into another value, that value.
    let chosen: [ValueID: ValueID]
    /// Those other values, which have space for one more row per example.
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
    func root(of value: ValueID) -> ValueID { aliases.root(of: value) }

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

    /// A buffer for each input and each computed value, alive from the step that writes it to the last that reads it; and its index,
    /// by value.
    /// - Parameter firstRepeated: of runs that continue each other, the first step that is not only part of the first run. What it
    ///   or a later one reads of the steps before it stays alive, and so do the inputs.
    func buffers(
        _ instructions: [any Instruction], firstRepeated: Int? = nil
    ) throws -> (buffers: [ArenaLayout.Buffer], indices: [ValueID: Int]) {
        var buffers: [ArenaLayout.Buffer] = []
        var indices: [ValueID: Int] = [:]
        func begin(_ values: [ValueID], at step: Int) throws {
            for value in values where aliases[value] == nil {
                indices[value] = buffers.count
                buffers.append(.init(byteCount: try byteCount(of: value), first: step, last: step))
            }
        }
        func extend(_ values: [ValueID], to step: Int) {
            for root in values.map(root) {
                for value in [root, chosen[root]].compactMap({ $0 }) {
                    guard let index = indices[value] else { continue }
                    let stays = firstRepeated.map { buffers[index].first < $0 && $0 <= step } ?? false
                    buffers[index].last = stays ? instructions.count : step
                }
            }
        }
        try begin(graph.inputs, at: -1)
        for (step, instruction) in instructions.enumerated() {
            try begin(instruction.writes, at: step)
            extend(instruction.reads, to: step)
        }
        extend(graph.outputs.map(\.value), to: instructions.count)
        if firstRepeated != nil { extend(graph.inputs, to: instructions.count) }
        return (buffers, indices)
    }
}

extension [ValueID: ValueID] {
    /// Where a chain of values ends, each the memory of the one before.
    func root(of value: ValueID) -> ValueID {
        var root = value
        while let source = self[root] { root = source }
        return root
    }
}

extension Lowering {
    /// Values that fp32 products read and whose rows would lie a multiple of half a page apart. Such rows evict each other from the
    /// first cache; they get some space in between, where their writer and all readers allow for it.
    var spacedValues: Set<ValueID> {
        let products = instructions.compactMap { $0 as? LinearInstruction }.filter { !$0.quantizesRows }
        return Set(products.map(\.input)).filter { value in
            let width = graph.type(of: value).constantShape?.last ?? 0
            return width * MemoryLayout<Float>.size % 2048 == 0 && !isSeenWhole(value)
                && instructions.contains { writesSpaced($0, value) }
                && instructions.allSatisfy { !$0.reads.contains(value) || readsSpaced($0, value) }
        }
    }

    private func writesSpaced(_ instruction: any Instruction, _ value: ValueID) -> Bool {
        switch instruction {
        case let linear as LinearInstruction: linear.members.contains { $0.output == value }
        case is LayerNormInstruction, is AttentionInstruction: instruction.writes == [value]
        default: false
        }
    }

    private func readsSpaced(_ instruction: any Instruction, _ value: ValueID) -> Bool {
        switch instruction {
        case let linear as LinearInstruction: linear.norm == nil && (linear.input != value || !linear.quantizesRows)
        case let norm as LayerNormInstruction: norm.node.inputs.dropFirst().allSatisfy { $0 != value }
        default: false
        }
    }

    /// Values that int8 products write and only int8 attentions read, with the size of their heads. They are bytes in memory: a
    /// head's rows come from the caches of all cores, and bytes are a quarter of the cache lines.
    var byteValues: [ValueID: Int] {
        let read = readCounts
        let attentions = instructions.compactMap { $0 as? AttentionInstruction }.filter {
            $0.inBytes && HeadBytes.holds(headSize: $0.headSize)
        }
        let readers = Dictionary(
            attentions.flatMap { attention in attention.node.inputs.prefix(3).compactMap { $0 }.map { ($0, [attention.headSize]) }
            },
            uniquingKeysWith: +)
        let written = instructions.compactMap { $0 as? LinearInstruction }.flatMap(\.members).filter(\.mayWriteBytes).map(\.output)
        var result: [ValueID: Int] = [:]
        for value in written {
            guard let sizes = readers[value], Set(sizes).count == 1, sizes.count == read[value], !isSeenWhole(value) else {
                continue
            }
            result[value] = sizes[0]
        }
        return result
    }

    /// Values that a patch selection writes as row indices into another value, and that value. All their readers must look rows up:
    /// layer norms, and products that add them to their output.
    var chosenRows: [ValueID: ValueID] {
        var result: [ValueID: ValueID] = [:]
        for selection in instructions.compactMap({ $0 as? SelectionInstruction }) {
            guard let source = selection.node.input(0), !result.values.contains(source), hasOwnMemory(source),
                !isSeenWhole(selection.node.output), selection.rowCount < Int32.max
            else { continue }
            let readers = instructions.filter { $0.reads.contains(selection.node.output) }
            if readers.allSatisfy({ looksRowsUp($0, of: selection.node.output) }) { result[selection.node.output] = source }
        }
        return result
    }

    private func looksRowsUp(_ instruction: any Instruction, of value: ValueID) -> Bool {
        switch instruction {
        case let norm as LayerNormInstruction: norm.node.inputs.dropFirst().allSatisfy { $0 != value }
        case let linear as LinearInstruction: linear.norm.map { looksRowsUp($0, of: value) } ?? (linear.input != value)
        default: false
        }
    }

    /// How often instructions read each value.
    private var readCounts: [ValueID: Int] { Dictionary(instructions.flatMap { $0.reads.map { ($0, 1) } }, uniquingKeysWith: +) }

    /// Whether a value is read other than by instructions, or in another shape: its rows must then lie densely.
    private func isSeenWhole(_ value: ValueID) -> Bool { graph.isOutput(value) || aliases.values.contains(value) }

    /// Whether a value has memory of its own in the plan.
    private func hasOwnMemory(_ value: ValueID) -> Bool { graph.content(of: value) == nil && aliases[value] == nil }
}
