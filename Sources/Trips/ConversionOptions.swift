import ModelGraph
import PackageFormat

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
public struct SelectionRequest: Sendable, Equatable {
    /// 1-based vision blocks, ascending.
    public var blocks: [Int]
    /// One for each block, in (0, 1].
    public var keepRates: [Double]
    public var guidance: PatchSelection.Guidance
    public var fusion: PatchSelection.Fusion
    public var order: PatchSelection.Order
    /// For random guidance.
    public var seed: Int
    /// Names where recognition needs help: a value of the vision tower, and the guide's hidden state.
    public var visionTower: String?
    public var textGuide: String?

    public init(
        blocks: [Int], keepRates: [Double], guidance: PatchSelection.Guidance = .text, fusion: PatchSelection.Fusion = .normalized,
        order: PatchSelection.Order = .original, seed: Int = 0, visionTower: String? = nil, textGuide: String? = nil
    ) {
        self.blocks = blocks
        self.keepRates = keepRates
        self.guidance = guidance
        self.fusion = fusion
        self.order = order
        self.seed = seed
        self.visionTower = visionTower
        self.textGuide = textGuide
    }
}

/// A stage of the road from a source to a package.
public enum ConversionStage: String, Sendable, CaseIterable {
    case fold, fuse, select
}
