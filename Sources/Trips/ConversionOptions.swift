import ModelGraph
import PackageFormat
import Rewrites

/// How a model file is converted.
public struct ConversionOptions: Sendable {
    /// The architecture of a checkpoint; nil: recognised. `tensors` packs the tensors without a graph.
    public var architecture: String?
    /// Attention heads of the vision tower; nil, here and below: the config file, the metadata or the released value decides.
    public var visionHeads: Int?
    /// Attention heads of the text layers.
    public var textHeads: Int?
    /// How many of the stored fusion layers run (mPLUG).
    public var fusionLayers: Int?
    /// Every how many fusion layers one is connected (mPLUG).
    public var strideLayer: Int?
    /// Path of a `bert_config.json`.
    public var configuration: String?
    /// Pixels for which position embeddings are resampled.
    public var imageSize: Int?
    /// Patterns (`*` stands for any characters) of a checkpoint's tensors that the architecture does not know and that may
    /// stay behind.
    public var leftOut: [String] = []
    /// Follow links out of an ONNX model's folder to external data.
    public var followsLinks = false
    /// The selection layers to insert; nil: none.
    public var selection: SelectionRequest?
    /// Path of a `vocab.txt` to keep in the package.
    public var vocabulary: String?
    /// How the package is written.
    public var writing = PackageWriter.Options()

    public init() {}
}

/// Selection layers to insert.
public typealias SelectionRequest = Rewrites.SelectionOptions

/// A stage of the road from a source to a package.
public enum ConversionStage: String, Sendable, CaseIterable {
    case fold, fuse, select
}
