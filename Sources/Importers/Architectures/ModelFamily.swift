import ModelGraph

/// Models that share their towers, built from a checkpoint's tensors.
protocol ModelFamily {
    /// - Throws: `data` or `usage` where tensors, settings or options are none of the family's.
    init(_ architecture: Architecture, _ weights: Weights, _ options: CheckpointOptions, _ settings: inout Settings) throws

    /// The graphs, in the order in which they run.
    func graphs() throws -> [Graph]

    /// How the graph `decode` is run, as released; nil where nothing is generated.
    func generation() throws -> Generation?

    /// Why a tensor of the checkpoint has no place in the graphs; nil where it should not be in the file.
    func reasonToLeaveOut(_ name: String) -> String?
}

extension Architecture {
    var family: any ModelFamily.Type {
        switch self {
        case .albefPretrain, .albefRetrieval, .albefVQA, .albefNLVR2, .albefVE: ALBEF.self
        case .mplugVQA, .mplugCaption, .mplugRetrieval, .mplugGrounding: MPLUG.self
        }
    }
}

/// What checkpoints of both families hold beside the model: see `ModelFamily.reasonToLeaveOut`.
func commonReasonToLeaveOut(_ name: String) -> String? {
    if name.prefix(while: { $0 != "." }).hasSuffix("_m") { return "momentum twins" }
    switch name {
    case "image_queue", "text_queue", "idx_queue", "queue_ptr": return "queues"
    case "temp": return "temperature"
    default: break
    }
    if name.hasSuffix("embeddings.position_ids") { return "position indices" }
    if name.hasPrefix("text_encoder.cls.") { return "masked-language-modelling head" }
    if name.hasPrefix("text_encoder.pooler.") || name.hasPrefix("text_encoder.bert.pooler.") { return "poolers" }
    if name.hasSuffix("embeddings.word_embeddings.weight") && name.hasPrefix("text_decoder.")
        || name.hasPrefix("text_decoder.cls.predictions")
    {
        return "copies of tied tensors"
    }
    return nil
}
