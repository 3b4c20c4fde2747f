import Kernels
import ModelGraph
import Operators
import Support
import Tensors

/// Patch selection by a guide, in fp32: `PatchSelection`'s computation by kernels. Where the readers can look rows up, kept ones
/// stay where they are.
struct SelectionInstruction: Instruction {
    let node: Node
    let op: PatchSelection
    let multiplyAccumulates: Int
    let reads: [ValueID]
    let batch: Int
    /// Image tokens, without the leading ones.
    let count: Int
    let width: Int

    var label: String { node.name }
    var kind: String { PatchSelection.name }
    var writes: [ValueID] { node.outputs }

    /// Of all examples, and a fused one for each.
    var rowCount: Int { batch * (op.leadingCount + count + 1) }

    /// For each head the products of its query with all rows, and their mean.
    fileprivate var scoreFloats: Int { (1 + op.heads) * (count + op.leadingCount) }

    func scratchBytes(threads: Int) -> Int { batch * scoreFloats * MemoryLayout<Float>.size }

    func bind(_ memory: PlanMemory) throws -> @Sendable (ThreadPool) throws -> Void {
        let stream = try SelectionStream(self, memory)
        return { pool in
            let parts = batch < pool.threads ? pool.threads : 1
            pool.run(batch * parts) { stream.score($0 / parts, part: $0 % parts, of: parts) }
            let choices = (0..<batch).map { stream.choose($0) }
            pool.run(batch * parts) { stream.finish($0 / parts, choices[$0 / parts], part: $0 % parts, of: parts) }
        }
    }
}

/// Where a selection reads and writes.
private struct SelectionStream: @unchecked Sendable {
    private let op: PatchSelection
    private let scoreFloats: Int
    private let leading, count, width, keyWidth, kept, total: Int
    private let tokens, keys, query: UnsafePointer<Float>
    private let oldPositions: UnsafePointer<Int64>?
    private let scores, scratch: UnsafeMutablePointer<Float>
    private let target: Target
    private let indices, positions: UnsafeMutablePointer<Int64>

    /// What goes on: the rows, or which they are.
    private enum Target {
        case rows(UnsafeMutablePointer<Float>)
        case choice(RowChoice)
    }

    init(_ selection: SelectionInstruction, _ memory: PlanMemory) throws {
        let node = selection.node
        func input(_ index: Int) throws -> UnsafePointer<Float> { try memory.view(node.requiredInput(index)).pointer(Float.self) }
        op = selection.op
        scoreFloats = selection.scoreFloats
        (leading, count, width) = (op.leadingCount, selection.count, selection.width)
        (kept, total) = (op.keptCount(of: count), op.streamCount(of: count))
        (tokens, keys, query) = (try input(0), try input(1), try input(2))
        keyWidth = try node.input(1).map { try memory.view($0).shape[2] } ?? width
        oldPositions = try node.input(3).map { try memory.view($0).pointer(Int64.self) }
        target = try memory.choice(node.outputs[0]).map { .choice($0) } ?? .rows(memory.mutableView(node.outputs[0]).pointer(Float.self))
        indices = try memory.mutableView(node.outputs[1]).pointer(Int64.self)
        scores = try memory.mutableView(node.outputs[2]).pointer(Float.self)
        positions = try memory.mutableView(node.outputs[3]).pointer(Int64.self)
        scratch = memory.scratch.assumingMemoryBound(to: Float.self)
    }

    /// The products of the query with a part of the rows. Image guidance lets leading ones take part in the softmax.
    func score(_ example: Int, part: Int, of parts: Int) {
        let (length, rows) = (op.sharesKeys ? keyWidth : headSize, leading + count - skipped)
        trips_selection_dots(
            scratch + example * scoreFloats, query + example * op.heads * length,
            keys + (example * (leading + count) + skipped) * keyWidth, keyWidth,
            rows, rows * part / parts, rows * (part + 1) / parts, op.heads, length, op.sharesKeys ? 0 : headSize)
    }

    private var headSize: Int { width / op.heads }

    /// Rows in front of the first that is scored.
    private var skipped: Int { op.guidance == .imageCLS ? 0 : leading }

    func choose(_ example: Int) -> PatchSelection.Choice {
        let dots = scratch + example * scoreFloats, means = dots + op.heads * (leading + count)
        trips_selection_scores(means, dots, leading + count - skipped, op.heads, op.scale ?? 1 / Float(headSize).squareRoot())
        (scores + example * count).update(from: means + leading - skipped, count: count)
        let choice = op.choose(UnsafeBufferPointer(start: scores + example * count, count: count))
        for (place, index) in choice.kept.enumerated() { indices[example * kept + place] = Int64(index) }
        for (place, index) in choice.stream.enumerated() {
            positions[example * total + place] = oldPositions?[example * count + index] ?? Int64(index)
        }
        if total > kept { positions[example * total + kept] = -1 }
        if case .choice(let target) = target { tell(target, example, choice) }
        return choice
    }

    private func tell(_ target: RowChoice, _ example: Int, _ choice: PatchSelection.Choice) {
        let (first, order) = (example * (leading + count), target.order + example * (leading + total))
        for place in 0..<leading { order[place] = Int32(first + place) }
        for (place, index) in choice.stream.enumerated() { order[leading + place] = Int32(first + leading + index) }
        if total > kept { order[leading + kept] = Int32(target.firstSpare + example) }
    }

    /// A part of the kept rows, where they are moved, and of the columns of the fused one.
    func finish(_ example: Int, _ choice: PatchSelection.Choice, part: Int, of parts: Int) {
        let x = tokens + (example * (leading + count) + leading) * width
        let fused: UnsafeMutablePointer<Float>
        switch target {
        case .rows(let rows):
            let y = rows + (example * (leading + total) + leading) * width
            if part == 0 { (y - leading * width).update(from: x - leading * width, count: leading * width) }
            for place in kept * part / parts..<kept * (part + 1) / parts {
                (y + place * width).update(from: x + choice.stream[place] * width, count: width)
            }
            fused = y + kept * width
        case .choice(let target): fused = target.spare + example * width
        }
        if total > kept { fuse(example, choice.dropped, from: x, to: fused, columns: width * part / parts..<width * (part + 1) / parts) }
    }

    private func fuse(
        _ example: Int, _ dropped: [Int], from x: UnsafePointer<Float>, to fused: UnsafeMutablePointer<Float>, columns: Range<Int>
    ) {
        let weights = op.fusionWeights(dropped.map { scores[example * count + $0] })
        (fused + columns.lowerBound).update(repeating: 0, count: columns.count)
        for (token, weight) in zip(dropped, weights) {
            let (row, weight) = (x + token * width, Float(weight))
            for column in columns { fused[column] += weight * row[column] }
        }
    }
}
