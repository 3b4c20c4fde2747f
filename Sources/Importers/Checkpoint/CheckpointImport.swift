import Foundation
import ModelGraph
import Support
import Tensors

/// What does not follow from shapes, where the caller knows it; nil: the config file, the metadata or the released value decides.
public struct CheckpointOptions: Sendable {
    /// nil: recognised from names and shapes.
    public var architecture: Architecture?
    /// Attention heads of the vision tower.
    public var visionHeads: Int?
    /// Attention heads of the text towers.
    public var textHeads: Int?
    /// mPLUG: how many of the stored fusion layers run, the last ones.
    public var fusionLayers: Int?
    /// mPLUG: every how many fusion layers image and text states pass one side by side.
    public var strideLayer: Int?
    /// Path of a `bert_config.json`.
    public var configurationPath: String?
    /// Pixels along a side; position embeddings are resampled for it.
    public var imageSize: Int?
    /// Patterns (`*` stands for any characters) of tensors that the architecture does not know and that may be left out.
    public var leftOut: [String]

    /// What is not stated is taken from the checkpoint, or is as released.
    public init(
        architecture: Architecture? = nil, visionHeads: Int? = nil, textHeads: Int? = nil, fusionLayers: Int? = nil,
        strideLayer: Int? = nil, configurationPath: String? = nil, imageSize: Int? = nil, leftOut: [String] = []
    ) {
        self.architecture = architecture
        self.visionHeads = visionHeads
        self.textHeads = textHeads
        self.fusionLayers = fusionLayers
        self.strideLayer = strideLayer
        self.configurationPath = configurationPath
        self.imageSize = imageSize
        self.leftOut = leftOut
    }
}

/// Opens a checkpoint of ALBEF or mPLUG and builds its graphs.
/// - Throws: `cannotOpen`; `data` where the file is malformed, the model is not known, or tensors are missing, unexpected
///   or misshapen (all of them are named); `usage` where an option does not suit the model, or leaves nothing out.
public func importCheckpoint(path: String, options: CheckpointOptions = .init()) throws -> ImportedModel {
    let (checkpoint, configuration) = (try Checkpoint.open(path: path), try options.configurationPath.map(Configuration.init))
    return try locating(fileName(of: path)) { try importCheckpoint(checkpoint, configuration, options) }
}

/// As `importCheckpoint(path:options:)`, for tensors from anywhere.
public func importCheckpoint(_ checkpoint: Checkpoint, options: CheckpointOptions = .init()) throws -> ImportedModel {
    try importCheckpoint(checkpoint, options.configurationPath.map(Configuration.init), options)
}

private func importCheckpoint(
    _ checkpoint: Checkpoint, _ configuration: Configuration?, _ options: CheckpointOptions
) throws -> ImportedModel {
    let tensors = unwrapped(checkpoint.tensors, leavingOut: options.leftOut)
    let weights = Weights(tensors)
    var settings = Settings(configuration: configuration, metadata: checkpoint.metadata)
    let (architecture, recognized) = try chooseArchitecture(options, weights, tensors.map(\.name), &settings)
    let others = recognized.map { $0 == architecture ? "" : " (the tensors look like \($0.rawValue))" } ?? ""

    return try locating(architecture.rawValue + others) {
        let model = try architecture.family.init(architecture, weights, options, &settings)
        let (graphs, generation) = (try model.graphs(), try model.generation())
        let leftOut = try weights.finish(tensors, leavingOut: options.leftOut, reason: model.reasonToLeaveOut)
        return ImportedModel(
            graphs: graphs, format: checkpoint.format, architecture: architecture, settings: settings.list,
            leftOut: leftOut + checkpoint.others, generation: generation, weightFiles: checkpoint.shards)
    }
}

/// The tensors under the model's own names: what wrappers (of PyTorch, Lightning and their like, perhaps one in the other) put
/// before all names is taken off. Tensors that are left out need not have it.
private func unwrapped(
    _ tensors: [(name: String, constant: Constant)], leavingOut patterns: [String]
) -> [(name: String, constant: Constant)] {
    var tensors = tensors
    for _ in 0..<4 {
        let names = tensors.map(\.name).filter { name in !patterns.contains { matches(name, pattern: $0) } }
        guard let wrapper = names.first.flatMap(wrapper(of:)), names.allSatisfy({ $0.hasPrefix(wrapper) }) else { break }
        let inner = tensors.map { ($0.name.hasPrefix(wrapper) ? String($0.name.dropFirst(wrapper.count)) : $0.name, $0.constant) }
        guard Set(inner.map(\.0)).count == tensors.count else { break }
        tensors = inner
    }
    return tensors
}

/// What a name has before its first dot, with the dot; nil where that is a part of the models themselves.
private func wrapper(of name: String) -> String? {
    guard let dot = name.firstIndex(of: "."), !name.hasPrefix("visual_encoder.") else { return nil }
    return String(name[...dot])
}

/// The architecture that is asked for, or stated, or recognised; and the one that is recognised in any case, nil where none is.
private func chooseArchitecture(
    _ options: CheckpointOptions, _ weights: Weights, _ names: [String], _ settings: inout Settings
) throws -> (chosen: Architecture, recognized: Architecture?) {
    let metadata = settings.metadata
    let recognized = Result { try Architecture(recognizing: weights, names: names, metadata: metadata) }
    let (chosen, source): (Architecture, Setting.Source)
    if let option = options.architecture {
        (chosen, source) = (option, .option)
    } else if let stated = metadata["architecture"].flatMap(Architecture.init(rawValue:)) {
        (chosen, source) = (stated, .metadata)
    } else {
        // Other programs write names of their own under this key.
        (chosen, source) = (try recognized.get(), .tensors)
    }
    settings.note("architecture", chosen.rawValue, from: source)
    return (chosen, try? recognized.get())
}
