import Support

// Facts about a model that its graphs do not hold: importers find them, packages keep them.

/// A number that does not follow from the tensors' shapes.
public struct Setting: Sendable, Hashable, Codable {
    /// Where the number came from.
    public enum Source: String, Sendable, Hashable, NamedChoice {
        case option
        case configuration = "config file"
        case metadata = "checkpoint metadata"
        case released = "released default"
        /// From the names and shapes of the tensors.
        case tensors
    }

    /// Such as `text_heads`.
    public var name: String
    /// The number as text.
    public var value: String
    /// Where it came from.
    public var source: Source

    package init(_ name: String, _ value: String, from source: Source) {
        self.name = name
        self.value = value
        self.source = source
    }
}

/// Tensors that were left out for one reason.
public struct SkippedTensors: Sendable, Hashable, Codable {
    /// Such as `momentum twins`.
    public var reason: String
    /// Number of tensors.
    public var count: Int
    /// Bytes of all of them.
    public var bytes: Int

    package init(reason: String, count: Int, bytes: Int) {
        self.reason = reason
        self.count = count
        self.bytes = bytes
    }
}

/// How the graphs `encode` and `decode` produce an answer.
public struct Generation: Sendable, Hashable, Codable {
    /// How an answer is found.
    public enum Method: String, Sendable, Hashable, NamedChoice {
        /// Beam search with a length penalty (mPLUG's generator).
        case beam
        /// The likeliest token at each step; grounding adds its mask to the logits.
        case greedy
        /// Given answers are ranked by their likelihood (ALBEF's visual question answering).
        case ranking
    }

    /// How the answer is found.
    public var method: Method
    /// The token that starts a sequence.
    public var startID: Int
    /// The token that ends it.
    public var endID: Int
    /// Hypotheses kept at each step: 1 (greedy) to 32.
    public var beam: Int
    /// Tokens before which the end token is suppressed.
    public var minimalLength: Int
    /// Tokens at which generation stops: as many as the decoder has positions at most.
    public var maximalLength: Int
    /// Exponent of the length penalty ((5 + length) / 6)^alpha.
    public var alpha: Double
    /// Grounding: the first of the ids that are coordinates; nil elsewhere.
    public var firstTargetID: Int?
    /// Grounding: how many ids there are for coordinates 0 ... 1.
    public var targetCount: Int?

    /// One hypothesis, BERT's [CLS] and [SEP] as start and end, and no coordinates, unless it is said otherwise.
    public init(
        method: Method, startID: Int = classID, endID: Int = separatorID, beam: Int = 1, minimalLength: Int = 1, maximalLength: Int,
        alpha: Double = 0.6, firstTargetID: Int? = nil, targetCount: Int? = nil
    ) {
        self.method = method
        self.startID = startID
        self.endID = endID
        self.beam = beam
        self.minimalLength = minimalLength
        self.maximalLength = maximalLength
        self.alpha = alpha
        self.firstTargetID = firstTargetID
        self.targetCount = targetCount
    }

    /// The id of [CLS] in BERT's released vocabulary.
    public static let classID = 101
    /// The id of [SEP] there.
    public static let separatorID = 102

    /// As mPLUG's released models answer questions.
    public static let released = Generation(method: .beam, beam: 5, maximalLength: 10)

    /// Memory follows the beam, and files state it.
    private static let largestBeam = 32
    /// Of tokens in a sequence, and of ids for coordinates.
    package static let largestCount = 65_536

    /// - Parameters:
    ///   - kind: of the error.
    ///   - positions: those of the decoder, as far as they are known.
    /// - Throws: an error of this kind where a number is out of range.
    package func check(_ kind: TripsError.Kind = .data, positions: Int = largestCount) throws {
        var limits = [
            ("beam", beam, 1...Generation.largestBeam), ("minimalLength", minimalLength, 0...Generation.largestCount),
            ("maximalLength", maximalLength, 1...max(1, positions)),
        ]
        if let targetCount { limits.append(("targetCount", targetCount, 2...Generation.largestCount)) }
        for (name, number, range) in limits where !range.contains(number) {
            throw TripsError(
                kind, name, at: "generation", found: number, expected: "\(range.lowerBound) to \(range.upperBound)")
        }
        guard alpha.isFinite else {
            throw TripsError(kind, "alpha", at: "generation", found: alpha, expected: "a finite number")
        }
    }
}
