import ModelGraph
import Support
import Tensors

extension PatchEmbedding: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            if outputs[0].dataType == .float64 {
                try Patching<Double>(inputs, outputs[0]).run(on: pool)
            } else {
                try Patching<Float>(inputs, outputs[0]).run(on: pool)
            }
            if let positions = inputs.optional(4) { try add([positions], to: outputs[0], on: pool) }
        }
    }
}

/// The operands of a patch embedding, without the positions.
private struct Patching<T: Number & Real>: Sendable {
    let source, factors: Source<T>
    let bias, token: Source<T>?
    let target: Target<T>
    let examples, channels, height, columns: Int
    /// The patch's lines and columns.
    let p, q: Int
    let tokens, width: Int

    init(_ inputs: [TensorView?], _ y: MutableTensorView) throws {
        let (image, weight) = (try inputs.required(0), try inputs.required(1))
        (source, factors, target) = (image.source(), weight.source(), y.target())
        (bias, token) = (inputs.optional(2)?.source(), inputs.optional(3)?.source())
        (examples, channels, height, columns) = (y.shape[0], image.shape[1], image.shape[2], image.shape[3])
        (width, p, q, tokens) = (weight.shape[0], weight.shape[2], weight.shape[3], y.shape[1])
        guard weight.shape[1] == channels, patches == height / max(1, p) * across, y.shape[2] == width else {
            throw TripsError.data("image and weight", found: "\(image.type) and \(weight.type)", expected: "\(patches) patches")
        }
    }

    /// Tokens in front of the patches.
    var first: Int { token == nil ? 0 : 1 }
    var patches: Int { tokens - first }
    /// Patches side by side.
    var across: Int { columns / max(1, q) }
    var patchSize: Int { channels * p * q }

    func run(on pool: ThreadPool) throws {
        try pool.tryRun(examples) { example in
            let rows = try Scratch<T>(elementCount(of: [patches, patchSize]))
            let result = target + example * tokens * width
            if let token { result.base.update(from: token.base, count: width) }
            try rows.withTarget { rows in
                cut(example, into: rows)
                try multiply(
                    patches, width, patchSize, Matrix(elements: rows.source, stride: max(1, patchSize)),
                    Matrix(elements: factors, stride: max(1, patchSize), transposed: true), result + first * width, stride: width,
                    on: pool)
            }
            guard let bias else { return }
            for row in first..<tokens {
                for index in 0..<width { result[row * width + index] += bias[index] }
            }
        }
    }

    /// Lays out an example's patches as rows.
    private func cut(_ example: Int, into rows: Target<T>) {
        for patch in 0..<patches {
            let (row, column) = patch.quotientAndRemainder(dividingBy: across)
            for channel in 0..<channels {
                for line in 0..<p {
                    let from = source + ((example * channels + channel) * height + row * p + line) * columns + column * q
                    (rows + patch * patchSize + (channel * p + line) * q).base.update(from: from.base, count: q)
                }
            }
        }
    }
}
