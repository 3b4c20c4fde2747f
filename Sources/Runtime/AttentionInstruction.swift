import Kernels
import ModelGraph
import Operators
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
    /// Whether the queries are those of several examples, one each.
    let joinsExamples: Bool

    var label: String { node.name }
    var kind: String { Attention.name }
    var writes: [ValueID] { node.outputs }
    var headSize: Int { width / op.heads }
    /// The sums of the int8 kernel are exact up to this size.
    var inBytes: Bool { op.activations == .int8 && headSize <= Int(TRIPS_MOST_INPUTS) }
    private var kernelScratch: Int {
        let bytes =
            inBytes
            ? trips_iattention_scratch(keys, headSize) : trips_attention_scratch(keys, headSize) * MemoryLayout<Float>.size
        return bytes.inWholeCacheLines
    }
    private var threadScratch: Int {
        guard inBytes else { return kernelScratch }
        return [queries, keys, keys].reduce(kernelScratch) { $0 + QuantizedRows.byteCount(rows: $1, inputs: headSize) }
    }

    func scratchBytes(threads: Int) -> Int { threads * threadScratch }

    func bind(_ memory: PlanMemory, scratch: UnsafeMutableRawPointer) throws -> @Sendable (ThreadPool) throws -> Void {
        let attend = inBytes ? try byteWork(memory) : try floatWork(memory)
        let (heads, headSize, threadScratch) = (op.heads, headSize, threadScratch)
        let (batch, queries) = (batch, queries)
        let mask = try node.input(3).map { try MaskRows(memory.view($0), joinsExamples: joinsExamples) }
        let output = try memory.mutableView(node.output).target(Float.self)
        let distance = memory.rowDistance(node.output)
        let scratch = Target(base: scratch.assumingMemoryBound(to: UInt8.self))
        return { pool in
            pool.run(batch * heads) { index, thread in
                let (example, head) = (index / heads, index % heads)
                attend(
                    Head(
                        example: example, index: head, output: output.base + example * queries * distance + head * headSize,
                        distance: distance, mask: mask?.address(example, head), maskDistance: mask?.rowStride ?? 0,
                        scratch: UnsafeMutableRawPointer(scratch.base + thread * threadScratch)))
            }
        }
    }

    /// A head of an example, with its addresses.
    private struct Head {
        let example: Int
        let index: Int
        let output: UnsafeMutablePointer<Float>
        /// Elements from one row of the output to the next.
        let distance: Int
        let mask: UnsafePointer<Float>?
        let maskDistance: Int
        let scratch: UnsafeMutableRawPointer
    }

    private var scale: Float { op.scale ?? 1 / Float(headSize).squareRoot() }
    private var fullyMasked: trips_fully_masked {
        switch op.fullyMasked {
        // A sum over no keys is 0.
        case nil: keys == 0 ? TRIPS_FULLY_MASKED_ZERO : TRIPS_FULLY_MASKED_NAN
        case .zero: TRIPS_FULLY_MASKED_ZERO
        case .zeroForNaN: TRIPS_FULLY_MASKED_ZERO_FOR_NAN
        }
    }

    private func floatWork(_ memory: PlanMemory) throws -> @Sendable (Head) -> Void {
        let (q, k, v) = (try floats(0, memory), try floats(1, memory), try floats(2, memory))
        let (queries, keys, headSize, width, scale) = (queries, keys, headSize, width, scale)
        let (causal, fullyMasked) = (op.causal, fullyMasked)
        return { head in
            let column = head.index * headSize
            trips_attention(
                q.row(head.example, queries) + column, width, k.row(head.example, keys) + column, width,
                v.row(head.example, keys) + column, width, head.output, head.distance, queries, keys, headSize, scale, head.mask,
                head.maskDistance, causal, fullyMasked, head.scratch.assumingMemoryBound(to: Float.self))
        }
    }

    private func byteWork(_ memory: PlanMemory) throws -> @Sendable (Head) -> Void {
        let q = try byteRows(0, memory, rows: queries), k = try byteRows(1, memory, rows: keys),
            v = try byteRows(2, memory, rows: keys)
        let (queries, keys, headSize, scale) = (queries, keys, headSize, scale)
        let (causal, fullyMasked, kernelScratch) = (op.causal, fullyMasked, kernelScratch)
        return { head in
            var scratch = head.scratch + kernelScratch
            let (query, key, value) = (q.rows(of: head, &scratch), k.rows(of: head, &scratch), v.rows(of: head, &scratch))
            trips_iattention(
                query, key, value, head.output, head.distance, queries, keys, headSize, scale, head.mask, head.maskDistance, causal,
                fullyMasked, head.scratch)
        }
    }

    private func floats(_ index: Int, _ memory: PlanMemory) throws -> BatchedRows {
        BatchedRows(try memory.view(node.requiredInput(index)))
    }

    private func byteRows(_ index: Int, _ memory: PlanMemory, rows: Int) throws -> ByteSource {
        if let bytes = try memory.headBytes(node.requiredInput(index)) { return ByteSource(form: .bytes(bytes), rows: rows) }
        return ByteSource(form: .floats(try floats(index, memory), headSize: headSize), rows: rows)
    }

    /// Queries, keys or values as bytes: written by a product in this form, or quantized here.
    private struct ByteSource: Sendable {
        enum Form {
            case bytes(HeadBytes)
            case floats(BatchedRows, headSize: Int)
        }
        let form: Form
        /// Of one example.
        let rows: Int

        /// - Parameter scratch: the first free byte; advanced past what is used.
        func rows(of head: Head, _ scratch: inout UnsafeMutableRawPointer) -> trips_byte_rows {
            switch form {
            case .bytes(let bytes): return bytes.head(head.index, from: bytes.rows == rows ? 0 : head.example * rows)
            case .floats(let floats, let headSize):
                let quantized = QuantizedRows(scratch, rows: rows, inputs: headSize)
                scratch += QuantizedRows.byteCount(rows: rows, inputs: headSize)
                trips_quantize_rows(
                    quantized.bytes.base, quantized.rowBytes, quantized.scales.base,
                    floats.row(head.example, rows) + head.index * headSize, floats.width, headSize, rows, nil)
                return trips_byte_rows(bytes: quantized.bytes.base, ld: quantized.rowBytes, scales: quantized.scales.base)
            }
        }
    }
}

/// Rows [B or 1, L, D]: a batch of one serves every example.
private struct BatchedRows: Sendable {
    private let first: Source<Float>
    let width: Int
    private let isShared: Bool

    init(_ view: TensorView) {
        first = view.source()
        width = view.shape[2]
        isShared = view.shape[0] == 1
    }

    func row(_ example: Int, _ rows: Int) -> UnsafePointer<Float> { first.base + (isShared ? 0 : example * rows * width) }
}

/// An additive mask that broadcasts to [B, heads, L, M], with its last axis whole.
private struct MaskRows: Sendable {
    private let first: Source<Float>
    private let batchStride, headStride: Int
    let rowStride: Int

    /// - Parameter joinsExamples: whether a row is an example's only one.
    init(_ view: TensorView, joinsExamples: Bool) {
        let shape = Array(repeating: 1, count: 4 - view.shape.count) + view.shape
        first = view.source()
        headStride = shape[1] == 1 ? 0 : shape[2] * shape[3]
        batchStride = shape[0] == 1 ? 0 : shape[1] * shape[2] * shape[3]
        rowStride = joinsExamples ? batchStride : shape[2] == 1 ? 0 : shape[3]
    }

    func address(_ example: Int, _ head: Int) -> UnsafePointer<Float> { first.base + example * batchStride + head * headStride }
}
