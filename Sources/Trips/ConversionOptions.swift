import Importers
import ModelGraph
import PackageFormat
import Rewrites

/// How a model file is converted.
public struct ConversionOptions: Sendable {
    /// What the tensors of a checkpoint do not determine.
    public var checkpoint = CheckpointOptions()
    /// Pack a checkpoint's tensors as they are, without a graph.
    public var tensorsOnly = false
    /// Follow links out of an ONNX model's folder to external data.
    public var followsLinks = false
    /// The selection layers to insert; nil: none.
    public var selection: SelectionRequest?
    /// Path of a `vocab.txt` to keep in the package.
    public var vocabulary: String?
    /// How the package is written.
    public var writing = PackageWriter.Options()

    /// All as the source has it, without selection.
    public init() {}
}

/// A stage on the way from a source to a package.
public enum ConversionStage: String, Sendable, CaseIterable {
    /// What depends on constants and sizes alone is computed.
    case fold
    /// Primitive operators that form a block become that block.
    case fuse
    /// Selection layers are inserted where the options ask for them.
    case select
}
