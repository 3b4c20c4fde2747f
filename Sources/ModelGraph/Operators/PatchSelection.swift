import Support
import Tensors

/// Keeps the patches that matter and fuses the others into one token (TRIPS, arXiv 2403.07883).
///
/// Inputs: tokens [B, P + N, D], the P leading ones ([CLS], registers) first, after the attention residual; keys [B, P + N, D]
/// of the block's attention; query [B, D], the guide's feature through the block's query projection (absent for `random`);
/// optional positions int64 [B, N], the original patch of each image token (absent: 0 ..< N). With `sharesKeys`,
/// keys [B, P + N, W] serve every head whole, and query is [B, heads · W].
/// Outputs: tokens [B, P + K (+ 1), D]; indices int64 [B, K], ascending; scores float32 [B, N]; positions int64
/// [B, K (+ 1)], -1 for the fused token. K = ceil(keepRate · N - 1e-9); for K = N nothing is fused.
public struct PatchSelection: Operator {
    /// Tokens, keys, query and positions.
    public static let maximalInputs: Int? = 4
    /// What scores the image tokens.
    public enum Guidance: String, Sendable, Hashable, NamedChoice {
        /// Text [CLS], softmax over the image tokens.
        case text
        /// Image [CLS], softmax over all tokens, the leading ones among them (EViT).
        case imageCLS = "image-cls"
        /// Seeded random scores, for ablations.
        case random
    }
    /// What becomes of the tokens that are dropped.
    public enum Fusion: String, Sendable, Hashable, NamedChoice {
        /// Σ score · x / Σ score over the dropped tokens.
        case normalized
        /// Σ score · x (EViT).
        case weighted
        /// Dropped tokens are lost.
        case none
    }
    /// How the tokens that stay are ordered.
    public enum Order: String, Sendable, Hashable, NamedChoice {
        case original
        /// Highest score first (EViT).
        case score
    }

    /// Of the block's attention; scores are means over them.
    public var heads: Int
    /// nil: 1 / sqrt(D / heads).
    public var scale: Float?
    /// In (0, 1].
    public var keepRate: Double
    /// What scores the image tokens.
    public var guidance: Guidance
    /// What becomes of the tokens that are dropped.
    public var fusion: Fusion
    /// How the tokens that stay are ordered.
    public var order: Order
    /// For random guidance.
    public var seed: Int
    /// Heads differ in their queries only.
    public var sharesKeys: Bool
    /// Tokens in front, [CLS] the first, that always stay and are not scored.
    public var leading: Int

    package init(
        heads: Int, scale: Float? = nil, keepRate: Double, guidance: Guidance = .text, fusion: Fusion = .normalized,
        order: Order = .original, seed: Int = 0, sharesKeys: Bool = false, leading: Int = 1
    ) {
        self.heads = heads
        self.scale = scale
        self.keepRate = keepRate
        self.guidance = guidance
        self.fusion = fusion
        self.order = order
        self.seed = seed
        self.sharesKeys = sharesKeys
        self.leading = leading
    }

    /// How many of `count` image tokens stay.
    public func keptCount(of count: Int) -> Int {
        let kept = (keepRate * Double(count) - 1e-9).rounded(.up)
        return kept >= Double(count) ? count : max(0, Int(kept))
    }

    /// The image tokens after the selection, the fused one counted, leading ones not.
    public func streamCount(of count: Int) -> Int {
        let kept = keptCount(of: count)
        return kept == count || fusion == .none ? kept : kept + 1
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let tokens = try inputs.required(0, "tokens").floating("tokens").ranked(3, "tokens").type
        guard leading > 0, leading <= 1 << 20 else {
            throw TripsError.data("leading tokens", found: leading, expected: "1 or more, at most 2^20")
        }
        let (batch, count, width) = (tokens.shape[0], try tokens.shape[1].subtracting(Dimension(leading)), tokens.shape[2])
        guard keepRate > 0, keepRate <= 1 else { throw TripsError.data("keep rate", found: keepRate, expected: "in (0, 1]") }
        guard heads > 0, let constantWidth = width.constant, constantWidth % heads == 0 else {
            throw TripsError.data("heads", found: heads, expected: "a divisor of \(width)")
        }
        let keys = try inputs.required(1, "keys").typed(tokens.dataType, "keys").ranked(3, "keys").type
        let keyWidth = sharesKeys ? keys.shape[2] : width
        try inputs.required(1, "keys").shaped([batch, tokens.shape[1], keyWidth], "keys")
        if guidance != .random {
            let queryWidth = sharesKeys ? try keyWidth.multiplied(by: Dimension(heads)) : width
            try inputs.required(2, "query").typed(tokens.dataType, "query").shaped([batch, queryWidth], "query")
        }
        try inputs.optional(3)?.typed(.int64, "positions").shaped([batch, count], "positions")
        var (kept, stream) = (Dimension.unknown, Dimension.unknown)
        if let constant = count.constant {
            guard constant > 0, constant <= Int32.max else {
                throw TripsError.data("image tokens", found: constant, expected: "1 or more, fewer than 2^31")
            }
            (kept, stream) = (Dimension(keptCount(of: constant)), Dimension(streamCount(of: constant)))
        }
        return [
            ValueType(tokens.dataType, [batch, stream == .unknown ? .unknown : try stream.adding(Dimension(leading)), width]),
            ValueType(.int64, [batch, kept]),
            ValueType(.float32, [batch, count]),
            ValueType(.int64, [batch, stream]),
        ]
    }

    public func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard guidance == .text, let tokens = inputs[0], inputs.count > 2, let query = inputs[2] else { return nil }
        let patches = try tokens.shape[1].subtracting(Dimension(leading))
        return try tokens.shape[0].multiplied(by: patches).multiplied(by: query.shape[1])
    }
}

extension [Graph] {
    /// How many tokens in front of the patches selections always keep.
    package var leadingTokens: Int { lazy.flatMap(\.nodes).compactMap { ($0.op as? PatchSelection)?.leading }.first ?? 1 }
}
