import Support

/// The models whose checkpoints are understood. The raw values are the names of the command line.
public enum Architecture: String, Sendable, Hashable, Codable, CaseIterable {
    /// Image-text contrasting and matching.
    case albefPretrain = "albef-pretrain"
    /// The same, fine-tuned for retrieval.
    case albefRetrieval = "albef-retrieval"
    /// Answers ranked by a decoder.
    case albefVQA = "albef-vqa"
    /// A statement about two images.
    case albefNLVR2 = "albef-nlvr2"
    /// Visual entailment: three classes as released; any more for other answers that one pass tells apart.
    case albefVE = "albef-ve"
    /// Answers generated.
    case mplugVQA = "mplug-vqa"
    /// Captions generated from the image alone.
    case mplugCaption = "mplug-caption"
    /// Image-text contrasting and matching.
    case mplugRetrieval = "mplug-retrieval"
    /// A box, generated as four coordinate tokens.
    case mplugGrounding = "mplug-grounding"

    /// Whether the vision tower is CLIP's, as in mPLUG (Li et al. 2022), or ALBEF's ViT (Li et al. 2021).
    var isMPLUG: Bool { rawValue.hasPrefix("mplug") }

    /// Tells the architecture from the tensors' names and shapes.
    ///
    /// Captioning and question answering of mPLUG have the same tensors. Momentum twins, or settings of the fusion layers in
    /// the metadata, mark question answering: released captioning files have neither, and captioning runs no fusion layers.
    /// - Throws: `data` where it is none of those known.
    init(recognizing weights: Weights, names: [String], metadata: [String: String]) throws {
        func has(_ prefix: String) -> Bool { names.contains { $0.hasPrefix(prefix) } }
        guard !has("ta_head.") else {
            throw TripsError.data(
                "albef_pretrain_nlvr2 (NLVR2's pre-training stage, whose head ta_head assigns texts to image pairs) is not supported",
                found: "ta_head", expected: Architecture.list)
        }
        if has("visual_encoder.visual.") {
            if has("bbox_prob_mask") || has("target_ids") {
                self = .mplugGrounding
            } else if has("text_decoder.") {
                let runsFusion = has("fusion_encoder_m.") || metadata["fusion_layers"] != nil || metadata["stride_layer"] != nil
                self = runsFusion ? .mplugVQA : .mplugCaption
            } else if has("itm_head.") {
                self = .mplugRetrieval
            } else {
                throw Architecture.unknown(names)
            }
        } else if has("visual_encoder.blocks.") {
            if has("text_decoder.") {
                self = .albefVQA
            } else if let classes = weights.shape("cls_head.2.weight")?.first, classes >= 2 {
                self = classes == 2 ? .albefNLVR2 : .albefVE
            } else if has("itm_head.") {
                self = has("text_encoder.bert.") ? .albefPretrain : .albefRetrieval
            } else {
                throw Architecture.unknown(names)
            }
        } else {
            throw Architecture.unknown(names)
        }
    }

    private static func unknown(_ names: [String]) -> TripsError {
        var roots: [String] = []
        for name in names {
            let root = String(name.prefix { $0 != "." }.prefix(40))
            if !roots.contains(root), roots.count < 12 { roots.append(root) }
        }
        return .data("the architecture is not recognised", found: "tensors of \(roots.joined(separator: ", "))", expected: list)
    }

    private static let list = "one of \(Architecture.allCases.map(\.rawValue).joined(separator: ", "))"
}

/// Why a tensor of a checkpoint has no place in the graphs; nil where it should not be in the file.
func reasonToLeaveOut(_ name: String, _ architecture: Architecture, runsFusionFrom firstFusionLayer: Int) -> String? {
    let root = name.prefix { $0 != "." }
    if root.hasSuffix("_m") { return "momentum twins" }
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
    guard architecture.isMPLUG else { return nil }
    if root == "visual_encoder", !name.hasPrefix("visual_encoder.visual.") || name == "visual_encoder.visual.proj" {
        return "CLIP's text tower and projections"
    }
    if architecture == .mplugCaption, root == "text_encoder" || root == "fusion_encoder" {
        return "text and fusion encoders, which captioning does not run (--architecture mplug-vqa does)"
    }
    if architecture == .mplugGrounding, root == "vision_proj" || root == "text_proj" { return "projections of pre-training" }
    guard name.hasPrefix("fusion_encoder.") else { return nil }
    if name.hasPrefix("fusion_encoder.embeddings.") { return "unused embeddings" }
    let layer = name.dropFirst("fusion_encoder.encoder.layer.".count).prefix { $0 != "." }
    if let layer = Int(layer), layer < firstFusionLayer { return "fusion layers that do not run" }
    return name.contains(".crossattention.") ? "cross-attention of connected layers" : nil
}
