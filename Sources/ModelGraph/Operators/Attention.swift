import Support
import Tensors

/// Multi-head attention over projected rows: softmax(q · kᵀ · scale + mask) · v for each head (Vaswani et al. 2017).
///
/// Inputs: q [B, L, D]; k [B, M, D]; v [B, M, E]; optional additive mask that broadcasts to [B, heads, L, M]. Heads lie
/// side by side in the last axis. Output [B, L, E]. A batch of 1 in k, v and mask serves every q of the batch.
package struct Attention: Operator {
    package static let maximalInputs: Int? = 4
    /// The result for a query whose keys are all masked by -∞.
    package enum FullyMasked: String, Sendable, Hashable, NamedChoice {
        case zero
        /// Zero, and also for a query whose weights are NaN because one of its scores is NaN or ∞.
        case zeroForNaN
    }

    /// A divisor of both widths, D and E.
    package var heads: Int
    /// nil: 1 / sqrt(D / heads).
    package var scale: Float?
    /// Query i attends to keys 0 ... i only.
    package var causal: Bool
    /// How both products are computed: `int8` quantizes queries and keys, and weights and values, as the model runs.
    package var activations: ActivationPrecision
    /// nil: NaN, as plain softmax gives.
    package var fullyMasked: FullyMasked?

    /// What BERT adds to the scores of hidden keys; the exponential of this and of anything less is 0 in fp32.
    package static let maskedScore = -10000.0

    package init(
        heads: Int, scale: Float? = nil, causal: Bool = false, activations: ActivationPrecision = .float32,
        fullyMasked: FullyMasked? = nil
    ) {
        self.heads = heads
        self.scale = scale
        self.causal = causal
        self.activations = activations
        self.fullyMasked = fullyMasked
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let q = try inputs.required(0, "q").floating("q").ranked(3, "q").type
        let k = try inputs.required(1, "k").typed(q.dataType, "k").ranked(3, "k").type
        let v = try inputs.required(2, "v").typed(q.dataType, "v").ranked(3, "v").type
        guard heads > 0, let width = q.shape[2].constant, let valueWidth = v.shape[2].constant,
            width % heads == 0, valueWidth % heads == 0
        else { throw TripsError.data("heads", found: heads, expected: "a divisor of \(q.shape[2]) and \(v.shape[2])") }
        try inputs.required(1, "k").shaped([k.shape[0], k.shape[1], q.shape[2]], "k")
        try inputs.required(2, "v").shaped([k.shape[0], k.shape[1], v.shape[2]], "v")
        let batch = try broadcast(q.shape[0], k.shape[0])
        try inputs.optional(3)?.typed(q.dataType, "mask").broadcasting(
            to: [batch, Dimension(heads), q.shape[1], k.shape[1]], "mask")
        return [ValueType(q.dataType, [batch, q.shape[1], v.shape[2]])]
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard let q = inputs[0], let k = inputs[1], let v = inputs[2], let y = outputs.first else { return nil }
        let pairs = try y.shape[0].multiplied(by: q.shape[1]).multiplied(by: k.shape[1])
        return try pairs.multiplied(by: q.shape[2].adding(v.shape[2]))
    }
}

extension Attention {
    private enum Key: String, CodingKey { case heads, scale, causal, activations, fullyMasked }

    /// Products in floating point are not written.
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(heads, forKey: .heads)
        try container.encodeIfPresent(scale, forKey: .scale)
        try container.encode(causal, forKey: .causal)
        if activations != .float32 { try container.encode(activations, forKey: .activations) }
        try container.encodeIfPresent(fullyMasked, forKey: .fullyMasked)
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: Key.self)
        self.init(
            heads: try container.decode(Int.self, forKey: .heads),
            scale: try container.decodeIfPresent(Float.self, forKey: .scale),
            causal: try container.decode(Bool.self, forKey: .causal),
            activations: try container.decodeIfPresent(ActivationPrecision.self, forKey: .activations) ?? .float32,
            fullyMasked: try container.decodeIfPresent(FullyMasked.self, forKey: .fullyMasked))
    }
}
