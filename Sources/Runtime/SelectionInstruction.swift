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
    var rowCount: Int { batch * (op.leading + count + 1) }

    /// Scratch of an example: for each head the products of its query with all rows, and their mean; the image tokens' order, and
    /// the weights of the dropped ones.
    fileprivate var scratchNumbers: Int { (1 + op.heads) * (count + op.leading) + 2 * count }

    func scratchBytes(threads: Int) -> Int { batch * scratchNumbers * MemoryLayout<Float>.size }

    func bind(_ memory: PlanMemory, scratch: UnsafeMutableRawPointer) throws -> @Sendable (ThreadPool) throws -> Void {
        let streams = try (0..<batch).map { try SelectionStream(self, memory, scratch, example: $0) }
        return { pool in
            let parts = streams.count < pool.threads ? pool.threads : 1
            pool.run(streams.count * parts) { streams[$0 / parts].score(part: $0 % parts, of: parts) }
            for stream in streams { stream.choose() }
            pool.run(streams.count * parts) { streams[$0 / parts].finish(part: $0 % parts, of: parts) }
        }
    }
}

/// The addresses of the selection of one example.
private struct SelectionStream: Sendable {
    private let op: PatchSelection
    private let leading, count, width, keyWidth, kept, total: Int
    private let tokens, keys, query: Source<Float>
    private let oldPositions: Source<Int64>?
    private let scores, dots, means, weights: Target<Float>
    /// Indices of image tokens, the kept ones first.
    private let order: Target<Int32>
    private let keeping: Keeping
    /// The token that replaces the dropped ones.
    private let fused: Target<Float>
    private let indices, positions: Target<Int64>

    /// The kept rows, or their indices among those of all examples. There the example's own begin at `first`, and the fused one is
    /// at `fused`.
    private enum Keeping {
        case rows(Target<Float>)
        case numbers(Target<Int32>, first: Int, fused: Int)
    }

    init(_ selection: SelectionInstruction, _ memory: PlanMemory, _ scratch: UnsafeMutableRawPointer, example: Int) throws {
        let node = selection.node
        func input(_ index: Int, _ offset: Int) throws -> Source<Float> {
            Source(base: try memory.view(node.requiredInput(index)).source().base + offset)
        }
        func output<Element>(_ index: Int, _ offset: Int) throws -> Target<Element> {
            Target(base: try memory.mutableView(node.outputs[index]).target().base + offset)
        }
        op = selection.op
        (leading, count, width) = (op.leading, selection.count, selection.width)
        (kept, total) = (op.keptCount(of: count), op.streamCount(of: count))
        keyWidth = try node.input(1).map { try memory.view($0).shape[2] } ?? width
        tokens = try input(0, example * (leading + count) * width)
        keys = try input(1, example * (leading + count) * keyWidth)
        query = try input(2, example * op.heads * (op.sharesKeys ? keyWidth : width / op.heads))
        oldPositions = try node.input(3).map { Source(base: try memory.view($0).source().base + example * selection.count) }
        if let choice = try memory.choice(node.outputs[0]) {
            keeping = .numbers(
                Target(base: choice.order.base + example * (leading + total)), first: example * (leading + count),
                fused: choice.firstSpare + example)
            fused = Target(base: choice.spare.base + example * width)
        } else {
            let rows: Target<Float> = try output(0, example * (leading + total) * width)
            keeping = .rows(rows)
            fused = Target(base: rows.base + (leading + kept) * width)
        }
        indices = try output(1, example * kept)
        scores = try output(2, example * count)
        positions = try output(3, example * total)
        dots = Target(base: scratch.assumingMemoryBound(to: Float.self) + example * selection.scratchNumbers)
        means = Target(base: dots.base + op.heads * (leading + count))
        weights = Target(base: means.base + leading + count)
        order = Target(base: UnsafeMutableRawPointer(weights.base + count).assumingMemoryBound(to: Int32.self))
    }

    /// The products of the query with a part of the rows. Image guidance lets leading ones take part in the softmax.
    func score(part: Int, of parts: Int) {
        let rows = (0..<scored).part(part, of: parts)
        trips_selection_dots(
            dots.base, query.base, keys.base + skipped * keyWidth, keyWidth, scored, rows.lowerBound, rows.upperBound, op.heads,
            op.sharesKeys ? keyWidth : headSize, op.sharesKeys)
    }

    private var headSize: Int { width / op.heads }

    /// Rows before the first that is scored.
    private var skipped: Int { op.guidance == .imageCLS ? 0 : leading }

    private var scored: Int { leading + count - skipped }

    func choose() {
        trips_selection_scores(means.base, dots.base, scored, op.heads, op.scale ?? 1 / Float(headSize).squareRoot())
        scores.base.update(from: means.base + leading - skipped, count: count)
        let scores = UnsafeBufferPointer(start: scores.base, count: count)
        op.choose(scores, into: UnsafeMutableBufferPointer(start: order.base, count: count))
        for place in 0..<kept { indices.base[place] = Int64(order.base[place]) }
        op.sort(UnsafeMutableBufferPointer(start: order.base, count: kept), by: scores)
        for place in 0..<kept {
            let index = order.base[place]
            positions.base[place] = oldPositions.map { $0.base[Int(index)] } ?? Int64(index)
        }
        weigh()
        writeRowNumbers()
    }

    /// Writes the weights of the dropped tokens in the fused one.
    private func weigh() {
        guard total > kept else { return }
        positions.base[kept] = -1
        let sum = (kept..<count).reduce(0.0) { $0 + Double(scores.base[Int(order.base[$1])]) }
        for place in kept..<count {
            let score = scores.base[Int(order.base[place])]
            weights.base[place] = Float(op.fusionWeight(score, of: sum, count: count - kept))
        }
    }

    /// Writes the indices of the kept rows, where the rows are not moved.
    private func writeRowNumbers() {
        guard case .numbers(let numbers, let first, let fused) = keeping else { return }
        for place in 0..<leading { numbers.base[place] = Int32(first + place) }
        for place in 0..<kept { numbers.base[leading + place] = Int32(first + leading) + order.base[place] }
        if total > kept { numbers.base[leading + kept] = Int32(fused) }
    }

    /// A part of the kept rows, where they are moved, and of the columns of the fused one.
    func finish(part: Int, of parts: Int) {
        let x = tokens.base + leading * width
        if case .rows(let rows) = keeping {
            if part == 0 { rows.base.update(from: tokens.base, count: leading * width) }
            for place in (0..<kept).part(part, of: parts) {
                (rows.base + (leading + place) * width).update(from: x + Int(order.base[place]) * width, count: width)
            }
        }
        guard total > kept else { return }
        let columns = (0..<width).part(part, of: parts)
        trips_weighted_rows(
            fused.base + columns.lowerBound, x + columns.lowerBound, width, order.base + kept, weights.base + kept, count - kept,
            columns.count)
    }
}
