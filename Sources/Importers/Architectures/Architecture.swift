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
    /// Visual entailment: three classes as released; models that were trained for other answers may have more.
    case albefVE = "albef-ve"
    /// Answers generated.
    case mplugVQA = "mplug-vqa"
    /// Captions generated from the image alone.
    case mplugCaption = "mplug-caption"
    /// Image-text contrasting and matching.
    case mplugRetrieval = "mplug-retrieval"
    /// A box, generated as four coordinate tokens.
    case mplugGrounding = "mplug-grounding"

    /// Recognises the architecture by the tensors' names and shapes.
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
