import Kernels
import ModelGraph
import Operators
import Support
import Tensors

/// Guided patch selection in fp32, as `PatchSelection` computes it, by kernels. Kept rows are not moved where all readers can look
/// rows up.
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

    /// Scratch of an example: for each head the products of its query with all rows, and their mean; the image tokens' order, and
    /// the weights of the dropped ones.
    fileprivate var scratchNumbers: Int { (1 + op.heads) * (count + op.leadingCount) + 2 * count }

    func scratchBytes(threads: Int) -> Int { batch * scratchNumbers * MemoryLayout<Float>.size }

    func bind(_ memory: PlanMemory) throws -> @Sendable (ThreadPool) throws -> Void {
        let streams = try (0..<batch).map { try SelectionStream(self, memory, example: $0) }
        return { pool in
            let parts = streams.count < pool.threads ? pool.threads : 1
            pool.run(streams.count * parts) { streams[$0 / parts].score(part: $0 % parts, of: parts) }
            for stream in streams { stream.choose() }
            pool.run(streams.count * parts) { streams[$0 / parts].finish(part: $0 % parts, of: parts) }
        }
    }
}

/// The addresses of the selection of one example.
private struct SelectionStream: @unchecked Sendable {
    private let op: PatchSelection
    private let leading, count, width, keyWidth, kept, total: Int
    private let tokens, keys, query: UnsafePointer<Float>
    private let oldPositions: UnsafePointer<Int64>?
    private let scores, dots, means, weights: UnsafeMutablePointer<Float>
    /// Indices of image tokens, the kept ones first.
    private let order: UnsafeMutablePointer<Int32>
    private let target: Target
    /// The token that replaces the dropped ones.
    private let fused: UnsafeMutablePointer<Float>
    private let indices, positions: UnsafeMutablePointer<Int64>

    /// The kept rows, or their indices among those of all examples. There the example's own begin at `first`, and the fused one is
    /// at `fused`.
    private enum Target {
        case rows(UnsafeMutablePointer<Float>)
        case numbers(UnsafeMutablePointer<Int32>, first: Int, fused: Int)
    }

    init(_ selection: SelectionInstruction, _ memory: PlanMemory, example: Int) throws {
        let node = selection.node
        func input(_ index: Int) throws -> UnsafePointer<Float> { try memory.view(node.requiredInput(index)).pointer(Float.self) }
        op = selection.op
        (leading, count, width) = (op.leadingCount, selection.count, selection.width)
        (kept, total) = (op.keptCount(of: count), op.streamCount(of: count))
        keyWidth = try node.input(1).map { try memory.view($0).shape[2] } ?? width
        tokens = try input(0) + example * (leading + count) * width
        keys = try input(1) + example * (leading + count) * keyWidth
        query = try input(2) + example * op.heads * (op.sharesKeys ? keyWidth : width / op.heads)
        oldPositions = try node.input(3).map { try memory.view($0).pointer(Int64.self) + example * selection.count }
        if let choice = try memory.choice(node.outputs[0]) {
            target = .numbers(
                choice.order + example * (leading + total), first: example * (leading + count), fused: choice.firstSpare + example)
            fused = choice.spare + example * width
        } else {
            let rows = try memory.mutableView(node.outputs[0]).pointer(Float.self) + example * (leading + total) * width
            target = .rows(rows)
            fused = rows + (leading + kept) * width
        }
        indices = try memory.mutableView(node.outputs[1]).pointer(Int64.self) + example * kept
        scores = try memory.mutableView(node.outputs[2]).pointer(Float.self) + example * count
        positions = try memory.mutableView(node.outputs[3]).pointer(Int64.self) + example * total
        dots = memory.scratch.assumingMemoryBound(to: Float.self) + example * selection.scratchNumbers
        means = dots + op.heads * (leading + count)
        weights = means + leading + count
        order = UnsafeMutableRawPointer(weights + count).assumingMemoryBound(to: Int32.self)
    }

    /// The products of the query with a part of the rows. Image guidance lets leading ones take part in the softmax.
    func score(part: Int, of parts: Int) {
        let rows = (0..<scored).part(part, of: parts)
        trips_selection_dots(
            dots, query, keys + skipped * keyWidth, keyWidth, scored, rows.lowerBound, rows.upperBound, op.heads,
            op.sharesKeys ? keyWidth : headSize, op.sharesKeys)
    }

    private var headSize: Int { width / op.heads }

    /// Rows in front of the first that is scored.
    private var skipped: Int { op.guidance == .imageCLS ? 0 : leading }

    private var scored: Int { leading + count - skipped }

    func choose() {
        trips_selection_scores(means, dots, scored, op.heads, op.scale ?? 1 / Float(headSize).squareRoot())
        scores.update(from: means + leading - skipped, count: count)
        let scores = UnsafeBufferPointer(start: scores, count: count)
        op.choose(scores, into: UnsafeMutableBufferPointer(start: order, count: count))
        for place in 0..<kept { indices[place] = Int64(order[place]) }
        op.sort(UnsafeMutableBufferPointer(start: order, count: kept), by: scores)
        for place in 0..<kept { positions[place] = oldPositions?[Int(order[place])] ?? Int64(order[place]) }
        weigh()
        writeRowNumbers()
    }

    /// Writes the weights of the dropped tokens in the fused one.
    private func weigh() {
        guard total > kept else { return }
        positions[kept] = -1
        let sum = (kept..<count).reduce(0.0) { $0 + Double(scores[Int(order[$1])]) }
        for place in kept..<count {
            weights[place] = Float(op.fusionWeight(scores[Int(order[place])], of: sum, count: count - kept))
        }
    }

    /// Writes the indices of the kept rows, where the rows are not moved.
    private func writeRowNumbers() {
        guard case .numbers(let numbers, let first, let fused) = target else { return }
        for place in 0..<leading { numbers[place] = Int32(first + place) }
        for place in 0..<kept { numbers[leading + place] = Int32(first + leading) + order[place] }
        if total > kept { numbers[leading + kept] = Int32(fused) }
    }

    /// A part of the kept rows, where they are moved, and of the columns of the fused one.
    func finish(part: Int, of parts: Int) {
        let x = tokens + leading * width
        if case .rows(let rows) = target {
            if part == 0 { rows.update(from: tokens, count: leading * width) }
            for place in (0..<kept).part(part, of: parts) {
                (rows + (leading + place) * width).update(from: x + Int(order[place]) * width, count: width)
            }
        }
        guard total > kept else { return }
        let columns = (0..<width).part(part, of: parts)
        trips_weighted_rows(
            fused + columns.lowerBound, x + columns.lowerBound, width, order + kept, weights + kept, count - kept, columns.count)
    }
}
