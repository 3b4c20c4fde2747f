import ModelGraph
import Support
import Tensors

extension Attention: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            if outputs[0].dataType == .float64 {
                try Attending<Double>(self, inputs, outputs[0]).run(on: pool)
            } else {
                try Attending<Float>(self, inputs, outputs[0]).run(on: pool)
            }
        }
    }
}

/// The operands of an attention.
private struct Attending<T: Number & Real>: Sendable {
    let op: Attention
    let query, key, value: Source<T>
    let target: Target<T>
    let mask: Source<T>?
    /// Over [B, heads, L, M].
    let maskStrides: [Int]
    /// Whether one example serves all.
    let sharedQuery, sharedKey, sharedValue: Bool
    let batch, length, keys, width, valueWidth: Int

    init(_ op: Attention, _ inputs: [TensorView?], _ y: MutableTensorView) throws {
        let (q, k, v, mask) = (try inputs.required(0), try inputs.required(1), try inputs.required(2), inputs.optional(3))
        self.op = op
        (query, key, value, target) = (q.source(), k.source(), v.source(), y.target())
        (sharedQuery, sharedKey, sharedValue) = (q.shape[0] == 1, k.shape[0] == 1, v.shape[0] == 1)
        let (batch, length, keys) = (y.shape[0], q.shape[1], k.shape[1])
        (self.batch, self.length, self.keys, width, valueWidth) = (batch, length, keys, q.shape[2], v.shape[2])
        self.mask = mask?.source()
        maskStrides = try mask.map { try broadcastStrides($0.shape, to: [batch, op.heads, length, keys]) } ?? []
        guard op.heads > 0, width % op.heads == 0, valueWidth % op.heads == 0, k.shape[2] == width, v.shape[1] == keys,
            [q, k, v].allSatisfy({ $0.shape[0] == batch || $0.shape[0] == 1 })
        else { throw TripsError.data("shapes of q, k and v", found: "\(q.type), \(k.type), \(v.type)") }
    }

    func run(on pool: ThreadPool) throws {
        try pool.tryRun(batch * op.heads) { task in
            let (example, head) = task.quotientAndRemainder(dividingBy: op.heads)
            let scores = try Scratch<T>(elementCount(of: [length, keys]))
            try scores.withTarget { try attend(example, head, $0, on: pool) }
        }
    }

    private func attend(_ example: Int, _ head: Int, _ scores: Target<T>, on pool: ThreadPool) throws {
        let (size, valueSize) = (width / op.heads, valueWidth / op.heads)
        let scale = T(op.scale.map { Double($0) } ?? 1 / Double(size).squareRoot())
        try multiply(
            length, keys, size, alpha: scale,
            Matrix(elements: query + (sharedQuery ? 0 : example) * length * width + head * size, stride: width),
            Matrix(elements: key + (sharedKey ? 0 : example) * keys * width + head * size, stride: width, transposed: true),
            scores, stride: max(1, keys), on: pool)
        for row in 0..<length {
            let line = scores + row * keys
            hide(line, example, head, row)
            softmaxRow(line.source, line, count: keys, fullyMasked: op.fullyMasked)
        }
        try multiply(
            length, valueSize, keys, Matrix(elements: scores.source, stride: max(1, keys)),
            Matrix(elements: value + (sharedValue ? 0 : example) * keys * valueWidth + head * valueSize, stride: valueWidth),
            target + example * length * valueWidth + head * valueSize, stride: valueWidth, on: pool)
    }

    /// Adds the mask to the scores of a query, and hides the keys after it where attention is causal.
    private func hide(_ scores: Target<T>, _ example: Int, _ head: Int, _ row: Int) {
        if let mask {
            let start = example * maskStrides[0] + head * maskStrides[1] + row * maskStrides[2]
            for column in 0..<keys { scores[column] += mask[start + column * maskStrides[3]] }
        }
        if op.causal, row + 1 < keys { for column in (row + 1)..<keys { scores[column] = -.infinity } }
    }
}
