import ModelGraph
import PackageFormat
import Rewrites

/// How a model file is converted.
public struct ConversionOptions: Sendable {
    /// The architecture of a checkpoint; nil: recognised. `tensors` packs the tensors without a graph.
    public var architecture: String?
    public var visionHeads: Int?
    public var textHeads: Int?
    public var fusionLayers: Int?
    public var strideLayer: Int?
    /// Path of a `bert_config.json`.
    public var configuration: String?
    /// Pixels for which position embeddings are resampled.
    public var imageSize: Int?
    /// Follow links out of an ONNX model's folder to external data.
    public var followsLinks = false
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
