import ModelGraph

/// What an importer makes of a source, whatever its format: graphs over constants that still lie in the source.
public struct ImportedModel: Sendable {
    /// The graphs, in the order in which they run: `main` alone, or `encode` and then `decode`.
    public var graphs: [Graph]
    /// The form of the source.
    public var format: SourceFormat
    /// The name of the architecture that was recognised or asked for; nil for ONNX, whose graph states itself.
    public var architecture: String?
    /// What the shapes cannot tell, each with where it was taken from.
    public var settings: [Setting]
    /// Tensors of the source that no graph reads, summed up by reason.
    public var leftOut: [LeftOut]
    /// What the source says of itself, such as its producer and its operator set, in the source's order.
    public var producer: [(name: String, value: String)]
    /// How the `decode` graph is meant to be run; nil where nothing is generated.
    public var generation: Generation?

    public init(
        graphs: [Graph], format: SourceFormat, architecture: String? = nil, settings: [Setting] = [],
        leftOut: [LeftOut] = [], producer: [(name: String, value: String)] = [], generation: Generation? = nil
    ) {
        self.graphs = graphs
        self.format = format
        self.architecture = architecture
        self.settings = settings
        self.leftOut = leftOut
        self.producer = producer
        self.generation = generation
    }
}

/// Forms of model files.
public enum SourceFormat: String, Sendable, Hashable, Codable {
    case onnx
    case safetensors
    /// Several safetensors files under one `model.safetensors.index.json`.
    case shardedSafetensors = "sharded safetensors"
    /// PyTorch's zip archives, from 1.6 on.
    case torchZip = "torch zip"
    /// PyTorch's sequence of pickles, before 1.6.
    case torchLegacy = "torch legacy"
}

/// A number that the tensors' shapes cannot tell.
public struct Setting: Sendable, Hashable, Codable {
    public enum Source: String, Sendable, Hashable, Codable {
        case option
        case configuration = "config file"
        case metadata = "checkpoint metadata"
        case released = "released default"
        /// Told by the names and shapes of the tensors.
        case tensors
    }

    public var name: String
    public var value: String
    public var source: Source

    public init(_ name: String, _ value: String, from source: Source) {
        self.name = name
        self.value = value
        self.source = source
    }
}

/// Tensors that were left out for one reason.
public struct LeftOut: Sendable, Hashable, Codable {
    /// Such as `momentum twins`.
    public var reason: String
    /// Number of tensors.
    public var count: Int
    /// Bytes of all of them.
    public var bytes: Int

    public init(reason: String, count: Int, bytes: Int) {
        self.reason = reason
        self.count = count
        self.bytes = bytes
    }
}

/// How the graphs `encode` and `decode` produce an answer.
public struct Generation: Sendable, Hashable, Codable {
    public enum Method: String, Sendable, Hashable, Codable {
        /// Beam search with a length penalty (mPLUG's generator).
        case beam
        /// The likeliest token at each step; grounding adds its mask to the logits.
        case greedy
        /// Given answers are ranked by their likelihood (ALBEF's visual question answering).
        case ranking
    }

    public var method: Method
    public var startID: Int
    public var endID: Int
    /// Hypotheses kept at each step.
    public var beam: Int
    /// Tokens before which the end token is suppressed.
    public var minimalLength: Int
    /// Tokens at which generation stops.
    public var maximalLength: Int
    /// Exponent of the length penalty ((5 + length) / 6)^alpha.
    public var alpha: Double
    /// Grounding: the first of the ids that stand for coordinates; nil elsewhere.
    public var firstTargetID: Int?
    /// Grounding: how many ids stand for coordinates 0 ... 1.
    public var targetCount: Int?

    public init(
        method: Method, startID: Int, endID: Int, beam: Int = 1, minimalLength: Int = 1, maximalLength: Int,
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
}
