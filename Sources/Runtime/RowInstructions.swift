import Kernels
import ModelGraph
import Support
import Tensors

/// Multi-head attention, a task for each example and head.
struct AttentionInstruction: Instruction {
    let node: Node
    let op: Attention
    let multiplyAccumulates: Int
    let reads: [ValueID]
    let batch: Int
    let queries: Int
    let keys: Int
    let width: Int

    var label: String { node.name }
    var kind: String { Attention.name }
    var writes: [ValueID] { node.outputs }
    private var headSize: Int { width / op.heads }
    /// The int8 kernel's sums hold for such heads.
    private var inBytes: Bool { op.activations == .int8 && headSize <= 65536 }
    private var threadScratch: Int {
        let bytes = inBytes
            ? trips_iattention_scratch(keys, headSize) : trips_attention_scratch(keys, headSize) * MemoryLayout<Float>.size
        return bytes.inWholeCacheLines
    }

    func scratchBytes(threads: Int) -> Int { threads * threadScratch }

    func bind(_ memory: PlanMemory) throws -> @Sendable (ThreadPool) throws -> Void {
        let (q, k, v) = (try rows(0, memory), try rows(1, memory), try rows(2, memory))
        let mask = try node.input(3).map { try MaskRows(memory.view($0)) }
        let output = FloatPointer(try memory.mutableView(node.output).pointer(Float.self))
        let scratch = FloatPointer(memory.scratch.assumingMemoryBound(to: Float.self))
        let (heads, headSize, width, threadScratch) = (op.heads, headSize, width, threadScratch)
        let (batch, queries, keys, inBytes) = (batch, queries, keys, inBytes)
        // A sum over no keys is 0.
        let (causal, zeroMasked) = (op.causal, op.fullyMasked == .zero || keys == 0)
        let scale = op.scale ?? 1 / Float(headSize).squareRoot()
        return { pool in
            pool.run(batch * heads) { index, thread in
                let (example, head) = (index / heads, index % heads)
                let column = head * headSize
                let (query, key, value) = (q.row(example, queries) + column, k.row(example, keys) + column, v.row(example, keys) + column)
                let target = output.pointer + example * queries * width + column
                let (addends, distance) = (mask?.address(example, head), mask?.rowStride ?? 0)
                let scratch = UnsafeMutableRawPointer(scratch.pointer) + thread * threadScratch
                if inBytes {
                    trips_iattention(
                        query, width, key, width, value, width, target, width, keys, headSize, 0, queries, scale, addends,
                        distance, causal, zeroMasked, scratch)
                } else {
                    trips_attention(
                        query, width, key, width, value, width, target, width, keys, headSize, 0, queries, scale, addends,
                        distance, causal, zeroMasked, scratch.assumingMemoryBound(to: Float.self))
                }
            }
        }
    }

    private func rows(_ index: Int, _ memory: PlanMemory) throws -> BatchedRows {
        guard let value = node.input(index) else { throw TripsError.data("input \(index) is missing", at: node.name) }
        return BatchedRows(try memory.view(value))
    }
}

/// Rows [B or 1, L, D]: a batch of one serves every example.
private struct BatchedRows: @unchecked Sendable {
    let base: UnsafePointer<Float>
    let width: Int
    let isShared: Bool

    init(_ view: TensorView) {
        base = view.pointer(Float.self)
        width = view.shape[2]
        isShared = view.shape[0] == 1
    }

    func row(_ example: Int, _ rows: Int) -> UnsafePointer<Float> { base + (isShared ? 0 : example * rows * width) }
}

/// An additive mask that broadcasts to [B, heads, L, M], with its last axis whole.
private struct MaskRows: @unchecked Sendable {
    let base: UnsafePointer<Float>
    let batchStride: Int
    let headStride: Int
    let rowStride: Int

    init(_ view: TensorView) {
        let shape = Array(repeating: 1, count: 4 - view.shape.count) + view.shape
        base = view.pointer(Float.self)
        rowStride = shape[2] == 1 ? 0 : shape[3]
        headStride = shape[1] == 1 ? 0 : shape[2] * shape[3]
        batchStride = shape[0] == 1 ? 0 : shape[1] * shape[2] * shape[3]
    }

    func address(_ example: Int, _ head: Int) -> UnsafePointer<Float> { base + example * batchStride + head * headStride }
}

/// Layer normalisation.
struct LayerNormInstruction: Instruction {
    let node: Node
    let op: LayerNorm
    let reads: [ValueID]
    let rows: Int
    let width: Int

    var label: String { node.name }
    var kind: String { LayerNorm.name }
    var multiplyAccumulates: Int { 0 }
    var writes: [ValueID] { node.outputs }

    func bind(_ memory: PlanMemory) throws -> @Sendable (ThreadPool) throws -> Void {
        let (work, rows, width) = (try rowWork(memory), rows, width)
        let target = FloatPointer(try memory.mutableView(node.output).pointer(Float.self))
        return { pool in
            let step = 32
            pool.run(rows.dividedRoundingUp(by: step)) { work($0 * step..<min(rows, ($0 + 1) * step), target.pointer + $0 * step * width) }
        }
    }

    /// Normalises a range of rows, and writes them to an address.
    func rowWork(_ memory: PlanMemory) throws -> @Sendable (Range<Int>, UnsafeMutablePointer<Float>) -> Void {
        guard let x = node.input(0) else { throw TripsError.data("input 0 is missing", at: node.name) }
        let source = SharedRows(try memory.view(x))
        let weight = try node.input(1).map { SharedRows(try memory.view($0)) }
        let bias = try node.input(2).map { SharedRows(try memory.view($0)) }
        let (width, epsilon) = (width, op.epsilon)
        return { rows, target in
            trips_layernorm_rows(
                target, width, source.pointer + rows.lowerBound * width, width, rows.count, width, weight?.pointer, bias?.pointer, epsilon)
        }
    }
}
