import ModelGraph
import Support
import Tensors

extension OnnxAttention: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            // Single precision for all but float64.
            if inputs.compactMap({ $0 }).contains(where: { $0.dataType == .float64 }) {
                try attend(Double.self, .float64, inputs, outputs, pool)
            } else {
                try attend(Float.self, .float32, inputs, outputs, pool)
            }
        }
    }

    private func attend<T: Real & Number>(
        _: T.Type, _ dataType: DataType, _ inputs: [TensorView?], _ outputs: [MutableTensorView], _ pool: ThreadPool
    ) throws {
        let q = try headed(inputs.required(0), queryHeads, dataType, pool)
        let newKeys = try headed(inputs.required(1), keyHeads, dataType, pool)
        let newValues = try headed(inputs.required(2), keyHeads, dataType, pool)
        let k = try inputs.optional(4).map { try joined($0, newKeys, pool) } ?? newKeys
        let v = try inputs.optional(5).map { try joined($0, newValues, pool) } ?? newValues
        let (batch, heads, length, width) = (q.shape[0], q.shape[1], q.shape[2], q.shape[3])
        let (keyHeads, keys, valueWidth) = (k.shape[1], k.shape[2], v.shape[3])
        guard keyHeads > 0 || heads == 0, k.shape[0] == batch, v.shape[0] == batch, k.shape[3] == width else {
            throw TripsError.data("shapes of q, k and v", found: "\(q.shape), \(k.shape), \(v.shape)")
        }
        let shape = [batch, heads, length, keys]
        let bias = try additiveMask(inputs.optional(3), shape, dataType, pool)
        let valid = try inputs.optional(6)?.integers().map { min(max($0, 0), keys) }
        let scores = try Scratch<T>(elementCount(of: shape))
        let y = try Tensor.zeroed(dataType, [batch, heads, length, valueWidth]) { y in
            try scores.withTarget { scores in
                let work = HeadWork<T>(
                    op: self, query: q.view.source(), key: k.view.source(), value: v.view.source(), bias: bias?.view.source(),
                    scores: scores, shown: outputs.count > 3 ? outputs[3].target() : nil, result: y.target(),
                    heads: heads, keyHeads: keyHeads, length: length, keys: keys, width: width, valueWidth: valueWidth,
                    past: keys - newKeys.shape[2], valid: valid)
                try pool.tryRun(batch * heads) { try work.attend($0, on: pool) }
            }
        }
        try put(y, into: outputs[0], pool)
        if outputs.count > 1 { withExtendedLifetime(k) { convert(k.view, into: outputs[1]) } }
        if outputs.count > 2 { withExtendedLifetime(v) { convert(v.view, into: outputs[2]) } }
    }

    /// [B, heads, L, D] from that, or from [B, L, heads · D].
    private func headed(_ x: TensorView, _ heads: Int?, _ dataType: DataType, _ pool: ThreadPool) throws -> Tensor {
        let tensor = try x.tensor().converted(to: dataType)
        guard x.shape.count == 3, let heads, heads > 0 else { return tensor }
        let split = try tensor.reshaped([x.shape[0], x.shape[1], heads, x.shape[2] / heads])
        return try evaluate(Transpose(permutation: [0, 2, 1, 3]), [split], on: pool)[0]
    }

    private func joined(_ past: TensorView, _ new: Tensor, _ pool: ThreadPool) throws -> Tensor {
        try evaluate(Concat(axis: 2), [past.tensor().converted(to: new.dataType), new], on: pool)[0]
    }

    /// The mask as addends for all scores; keys beyond the end of a shorter mask are hidden.
    private func additiveMask(_ mask: TensorView?, _ shape: [Int], _ dataType: DataType, _ pool: ThreadPool) throws -> Tensor? {
        guard let mask else { return nil }
        var tensor = try mask.tensor()
        if mask.dataType == .bool {
            let (zero, lowest) = (try Tensor(scalar: Float(0)), try Tensor(scalar: -Float.infinity))
            tensor = try evaluate(Where(), [tensor, zero, lowest], on: pool)[0]
        }
        tensor = try tensor.converted(to: dataType)
        if let last = tensor.shape.last, last < shape[3], last != 1 {
            let pads = Array(repeating: Int64(0), count: 2 * tensor.shape.count - 1) + [Int64(shape[3] - last)]
            let lowest = try Tensor(scalar: -Float.infinity).converted(to: dataType)
            tensor = try evaluate(Pad(), [tensor, Tensor(pads, shape: [pads.count]), lowest], on: pool)[0]
        }
        return try evaluate(Expand(), [tensor, Tensor(shape.map { Int64($0) }, shape: [4])], on: pool)[0]
    }

    private func put(_ y: Tensor, into output: MutableTensorView, _ pool: ThreadPool) throws {
        if output.shape.count == 4 { return withExtendedLifetime(y) { convert(y.view, into: output) } }
        let moved = try evaluate(Transpose(permutation: [0, 2, 1, 3]), [y], on: pool)[0]
        withExtendedLifetime(moved) { convert(moved.view, into: output) }
    }
}

/// What is computed for each head of each example, all arrays as [B, heads, L, D].
private struct HeadWork<T: Real & Number>: Sendable {
    let op: OnnxAttention
    let query, key, value: Source<T>
    /// Added to the scores.
    let bias: Source<T>?
    let scores: Target<T>
    /// The operator's output for scores.
    let shown: Target<T>?
    let result: Target<T>
    let heads, keyHeads, length, keys, width, valueWidth: Int
    /// Keys from earlier runs.
    let past: Int
    /// For each example the number of keys that are not padding.
    let valid: [Int]?

    func attend(_ head: Int, on pool: ThreadPool) throws {
        let (b, h) = head.quotientAndRemainder(dividingBy: heads)
        let kv = b * keyHeads + h / (heads / keyHeads)
        let block = scores + head * length * keys
        try multiply(
            length, keys, width, alpha: T(op.scale ?? 1 / Float(width).squareRoot()),
            Matrix(elements: query + head * length * width, stride: width),
            Matrix(elements: key + kv * keys * width, stride: width, transposed: true), block, stride: max(1, keys), on: pool)
        func show(_ stage: OnnxAttention.Scores) {
            guard stage == op.scores, let shown else { return }
            (shown + head * length * keys).base.update(from: block.base, count: length * keys)
        }
        show(.products)
        if op.softcap != 0 {
            let cap = T(op.softcap)
            for index in 0..<length * keys { block[index] = cap * T.tanh(block[index] / cap) }
        }
        show(.capped)
        mask(block, bias.map { $0 + head * length * keys }, valid: valid?[b])
        show(.masked)
        for row in 0..<length {
            let line = block + row * keys
            softmaxRow(line.source, line, count: keys, fullyMasked: .zero)
        }
        show(.softmax)
        try multiply(
            length, valueWidth, keys, Matrix(elements: block.source, stride: max(1, keys)),
            Matrix(elements: value + kv * keys * valueWidth, stride: valueWidth), result + head * length * valueWidth,
            stride: valueWidth, on: pool)
    }

    /// Adds a bias to the scores of one head, and hides later keys and, from `valid` on, padded ones.
    private func mask(_ scores: Target<T>, _ bias: Source<T>?, valid: Int?) {
        for row in 0..<length {
            // With padded keys the causal edge lies at the end of what is valid.
            let edge = valid.map { row + $0 - length } ?? row + past
            for column in 0..<keys {
                let place = row * keys + column
                if let bias { scores[place] += bias[place] }
                if op.causal && column > edge || column >= valid ?? keys { scores[place] = -.infinity }
            }
        }
    }
}
