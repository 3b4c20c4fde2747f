import Kernels
import ModelGraph
import Operators
import Support
import Tensors

/// Patch selection by a guide, in fp32: `PatchSelection`'s computation by kernels, with rows moved by all threads.
struct SelectionInstruction: Instruction {
    let node: Node
    let op: PatchSelection
    let multiplyAccumulates: Int
    let reads: [ValueID]
    let batch: Int
    /// Image tokens, without [CLS].
    let count: Int
    let width: Int

    var label: String { node.name }
    var kind: String { PatchSelection.name }
    var writes: [ValueID] { node.outputs }

    /// Groups of heads that are scored together, always the same ones, so that sums do not depend on the number of threads.
    fileprivate var groups: Int { op.heads % 2 == 0 ? 2 : 1 }
    /// For each group its scores, and those of each of its heads.
    fileprivate var groupFloats: Int { (1 + op.heads / groups) * (count + 1) }

    func scratchBytes(threads: Int) -> Int { batch * groups * groupFloats * MemoryLayout<Float>.size }

    func bind(_ memory: PlanMemory) throws -> @Sendable (ThreadPool) throws -> Void {
        let stream = try SelectionStream(self, memory)
        return { pool in
            pool.run(batch * stream.groups) { stream.score($0 / stream.groups, group: $0 % stream.groups) }
            let choices = (0..<batch).map { stream.choose($0) }
            let parts = batch < pool.threads ? pool.threads : 1
            pool.run(batch * parts) { stream.move($0 / parts, choices[$0 / parts], part: $0 % parts, of: parts) }
        }
    }
}

/// Where a selection reads and writes.
private struct SelectionStream: @unchecked Sendable {
    private let op: PatchSelection
    let groups: Int
    private let groupFloats: Int
    private let count, width, keyWidth, kept, total: Int
    private let tokens, keys, query: UnsafePointer<Float>
    private let oldPositions: UnsafePointer<Int64>?
    private let output, scores, scratch: UnsafeMutablePointer<Float>
    private let indices, positions: UnsafeMutablePointer<Int64>

    init(_ selection: SelectionInstruction, _ memory: PlanMemory) throws {
        let node = selection.node
        func input(_ index: Int) throws -> UnsafePointer<Float> {
            guard let value = node.input(index) else { throw TripsError.data("input \(index) is missing", at: node.name) }
            return try memory.view(value).pointer(Float.self)
        }
        op = selection.op
        (groups, groupFloats) = (selection.groups, selection.groupFloats)
        (count, width) = (selection.count, selection.width)
        (kept, total) = (op.keptCount(of: count), op.streamCount(of: count))
        (tokens, keys, query) = (try input(0), try input(1), try input(2))
        keyWidth = try node.input(1).map { try memory.view($0).shape[2] } ?? width
        oldPositions = try node.input(3).map { try memory.view($0).pointer(Int64.self) }
        output = try memory.mutableView(node.outputs[0]).pointer(Float.self)
        indices = try memory.mutableView(node.outputs[1]).pointer(Int64.self)
        scores = try memory.mutableView(node.outputs[2]).pointer(Float.self)
        positions = try memory.mutableView(node.outputs[3]).pointer(Int64.self)
        scratch = memory.scratch.assumingMemoryBound(to: Float.self)
    }

    /// The mean over a group's heads. Image guidance lets [CLS] take part in the softmax.
    func score(_ example: Int, group: Int) {
        let (headSize, heads) = (width / op.heads, op.heads / groups)
        let length = op.sharesKeys ? keyWidth : headSize
        let (column, distance) = (group * heads * length, op.sharesKeys ? 0 : headSize)
        trips_selection_scores(
            groupScores(example, group), query + example * op.heads * length + column,
            keys + (example * (count + 1) + skipped) * keyWidth + group * heads * distance, keyWidth, count + 1 - skipped,
            heads, length, distance, op.scale ?? 1 / Float(headSize).squareRoot(), groupScores(example, group) + count + 1)
    }

    /// Rows in front of the first that is scored.
    private var skipped: Int { op.guidance == .imageCLS ? 0 : 1 }

    private func groupScores(_ example: Int, _ group: Int) -> UnsafeMutablePointer<Float> {
        scratch + (example * groups + group) * groupFloats
    }

    func choose(_ example: Int) -> PatchSelection.Choice {
        for index in 0..<count {
            let sum = (0..<groups).reduce(Float(0)) { $0 + groupScores(example, $1)[index + 1 - skipped] }
            scores[example * count + index] = sum / Float(groups)
        }
        let choice = op.choose(UnsafeBufferPointer(start: scores + example * count, count: count))
        for (place, index) in choice.kept.enumerated() { indices[example * kept + place] = Int64(index) }
        for (place, index) in choice.stream.enumerated() {
            positions[example * total + place] = oldPositions?[example * count + index] ?? Int64(index)
        }
        if total > kept { positions[example * total + kept] = -1 }
        return choice
    }

    /// A part of the kept rows, and of the columns of the fused one.
    func move(_ example: Int, _ choice: PatchSelection.Choice, part: Int, of parts: Int) {
        let x = tokens + example * (count + 1) * width
        let y = output + example * (total + 1) * width
        if part == 0 { y.update(from: x, count: width) }
        for place in kept * part / parts..<kept * (part + 1) / parts {
            (y + (place + 1) * width).update(from: x + (choice.stream[place] + 1) * width, count: width)
        }
        guard total > kept else { return }
        let weights = op.fusionWeights(choice.dropped.map { scores[example * count + $0] })
        let columns = width * part / parts..<width * (part + 1) / parts
        let fused = y + (kept + 1) * width
        (fused + columns.lowerBound).update(repeating: 0, count: columns.count)
        for (token, weight) in zip(choice.dropped, weights) {
            let (row, weight) = (x + (token + 1) * width, Float(weight))
            for column in columns { fused[column] += weight * row[column] }
        }
    }
}
