import ModelGraph

/// What an importer makes of a source, whatever its format: graphs over constants whose numbers are still in the source.
public struct ImportedModel: Sendable {
    /// The graphs, in the order in which they run: `main` alone, or `encode` and then `decode`.
    public var graphs: [Graph]
    /// The form of the source.
    public var format: SourceFormat
    /// The architecture that was recognised or asked for; nil for ONNX, whose graph states itself.
    public var architecture: Architecture?
    /// What does not follow from the shapes, each with where it was taken from.
    public var settings: [Setting]
    /// Tensors of the source that no graph reads, summed up by reason.
    public var leftOut: [SkippedTensors]
    /// What the source says of itself, such as its producer and its operator set, in the source's order.
    public var producer: [(name: String, value: String)]
    /// How the `decode` graph is meant to be run; nil where nothing is generated.
    public var generation: Generation?
    /// Paths of the files beside the source that hold its weights, such as an index's shards.
    public var weightFiles: [String]

    package init(
        graphs: [Graph], format: SourceFormat, architecture: Architecture? = nil, settings: [Setting] = [],
        leftOut: [SkippedTensors] = [], producer: [(name: String, value: String)] = [], generation: Generation? = nil,
        weightFiles: [String] = []
    ) {
        self.graphs = graphs
        self.format = format
        self.architecture = architecture
        self.settings = settings
        self.leftOut = leftOut
        self.producer = producer
        self.generation = generation
        self.weightFiles = weightFiles
    }
}

/// Forms of model files.
public enum SourceFormat: String, Sendable, Hashable, Codable {
    case onnx
    case safetensors
    /// Several files under one `model.safetensors.index.json`.
    case shardedSafetensors = "sharded safetensors"
    /// Several files of PyTorch under one `pytorch_model.bin.index.json`.
    case shardedTorch = "sharded torch"
    /// PyTorch's zip archives, from 1.6 on.
    case torchZip = "torch zip"
    /// PyTorch's sequence of pickles, before 1.6.
    case torchLegacy = "torch legacy"
}
