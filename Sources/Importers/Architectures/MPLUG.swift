import ModelGraph
import Support
import Tensors

/// mPLUG (Li et al. 2022, arXiv 2205.12005): CLIP's vision tower, a text encoder, a fusion encoder in which now and then
/// image and text states pass one layer side by side ("connected"), and a decoder.
struct MPLUG: ModelFamily {
    let architecture: Architecture
    let weights: Weights
    private let vision: VisionSizes
    private let visionHeads: Int
    private let textHeads: Int
    private let epsilon: Float
    /// Width of image states as the text towers see them.
    private let width: Int
    /// Of the fusion layers that are stored, the last ones run, from here on.
    private let firstFusionLayer: Int
    private let fusionLayers: Int
    private let stride: Int

    init(_ architecture: Architecture, _ weights: Weights, _ options: CheckpointOptions, _ settings: inout Settings) throws {
        self.architecture = architecture
        self.weights = weights
        vision = try VisionSizes(.mplug, weights, imageSize: options.imageSize)
        visionHeads = try settings.heads("vision_heads", option: options.visionHeads, width: vision.width)
        width = try weights.textWidth(architecture == .mplugCaption ? "text_decoder.bert." : "text_encoder.")
        textHeads = try settings.heads(
            "text_heads", option: options.textHeads, configurationKey: "num_attention_heads", width: width)
        settings.note("vision_layer_norm_epsilon", "1e-05", from: .released)
        epsilon = try settings.textEpsilon()

        guard architecture != .mplugCaption else {
            (firstFusionLayer, fusionLayers, stride) = (0, 0, 1)
            for (name, value) in [("fusion_layers", options.fusionLayers), ("stride_layer", options.strideLayer)] where value != nil
            {
                throw TripsError.usage(
                    name, found: value, expected: "none, as mplug-caption runs no fusion layers; the architecture mplug-vqa does")
            }
            return
        }
        let stored = try weights.layerCount("fusion_encoder.encoder.layer.")
        guard stored > 0 else {
            throw TripsError.data("fusion layers", found: "none", expected: "fusion_encoder.encoder.layer.0 and more")
        }
        fusionLayers = try settings.integer(
            "fusion_layers", option: options.fusionLayers, configurationKey: "fusion_layers", metadataKeys: ["fusion_layers"],
            released: min(6, stored), expected: "1 to \(stored), the layers that are stored"
        ) { (1...stored).contains($0) }
        firstFusionLayer = stored - fusionLayers
        // The released base configurations of question answering name 3, all others 6: never connected.
        let isBaseVQA = architecture == .mplugVQA && vision.width == width
        stride = try settings.integer(
            "stride_layer", option: options.strideLayer, configurationKey: "stride_layer", metadataKeys: ["stride_layer"],
            released: isBaseVQA ? 3 : 6, expected: "1 or more"
        ) { $0 >= 1 }
    }

    func graphs() throws -> [Graph] {
        switch architecture {
        case .mplugRetrieval: [try matching()]
        case .mplugCaption: [try encodeImage(), try decodeCaption()]
        default: [try encodeQuestion(), try decodeAnswer()]
        }
    }

    /// How the decoder is run: the released defaults, within the decoder's positions.
    /// - Throws: `data` where the ids of a grounding model are missing or no run.
    func generation() throws -> Generation? {
        let positions = weights.shape("text_decoder.bert.embeddings.position_embeddings.weight")?.first ?? .max
        switch architecture {
        case .mplugRetrieval: return nil
        case .mplugGrounding:
            let start = try weights.integers("prefix_ids", maximalCount: 1)
            let targets = try weights.integers("target_ids", maximalCount: 65536)
            guard let first = targets.first, let startID = start.first, targets.count > 1 else { return nil }
            guard zip(targets, targets.dropFirst()).allSatisfy({ $1 == $0 &+ 1 }) else {
                throw TripsError.data("target_ids", found: "\(targets.prefix(4))…", expected: "consecutive ids")
            }
            return Generation(
                method: .greedy, startID: startID, maximalLength: 4, firstTargetID: first, targetCount: targets.count)
        case .mplugCaption:
            return Generation(method: .beam, beam: 5, minimalLength: 8, maximalLength: min(25, positions))
        default:
            return Generation(method: .beam, beam: 5, maximalLength: min(10, positions))
        }
    }

    func reasonToLeaveOut(_ name: String) -> String? {
        if let reason = commonReasonToLeaveOut(name) { return reason }
        let root = name.prefix { $0 != "." }
        if root == "visual_encoder", !name.hasPrefix("visual_encoder.visual.") || name == "visual_encoder.visual.proj" {
            return "CLIP's text tower and projections"
        }
        if architecture == .mplugCaption, root == "text_encoder" || root == "fusion_encoder" {
            return "text and fusion encoders, which captioning does not run (the architecture mplug-vqa does)"
        }
        if architecture == .mplugGrounding, root == "vision_proj" || root == "text_proj" { return "projections of pre-training" }
        guard name.hasPrefix("fusion_encoder.") else { return nil }
        if name.hasPrefix("fusion_encoder.embeddings.") { return "unused embeddings" }
        let layer = name.dropFirst("fusion_encoder.encoder.layer.".count).prefix { $0 != "." }
        if let layer = Int(layer), layer < firstFusionLayer { return "fusion layers that do not run" }
        return name.contains(".crossattention.") ? "cross-attention of connected layers" : nil
    }

    // MARK: Graphs

    private func matching() throws -> Graph {
        var builder = GraphBuilder("main", weights)
        let states = try encodePair(&builder)
        try builder.matchingOutputs(
            image: states.image, imageWidth: width, text: states.text, fused: states.fusedText, textWidth: width)
        return builder.graph
    }

    private func encodeQuestion() throws -> Graph {
        var builder = GraphBuilder("encode", weights)
        let states = try encodePair(&builder)
        let output = try builder.node(Concat(axis: 1), [states.fusedImage, states.fusedText], "question_output")
        let ones = try builder.ones(for: states.image, "image_atts")
        let mask = try builder.node(Concat(axis: 1), [ones, states.mask], "question_atts")
        try builder.graph.addOutput("question_output", output)
        try builder.graph.addOutput("question_atts", mask)
        try builder.graph.addOutput("image_embeds", states.image)
        try builder.graph.addOutput("text_embeds", states.text)
        return builder.graph
    }

    private func decodeAnswer() throws -> Graph {
        var builder = GraphBuilder("decode", weights)
        let states = Dimension(symbol: "states")
        let ids = try builder.tokenInput("decoder_ids", Dimension(symbol: "tokens"))
        let question = try builder.graph.addInput(
            "question_output", ValueType(.float32, [GraphBuilder.batch, states, Dimension(width)]))
        let mask = try builder.tokenInput("question_atts", states)
        let crossMask = try builder.node(PaddingMask(maskedValue: MaskedValue.crossAttention), [mask], "text_decoder.encoder_mask")
        try decode(&builder, ids, source: (question, crossMask, width))
        return builder.graph
    }

    private func encodeImage() throws -> Graph {
        var builder = GraphBuilder("encode", weights)
        let image = try builder.imageInput("image", vision)
        try builder.graph.addOutput("image_embeds", visionStates(&builder, image))
        return builder.graph
    }

    private func decodeCaption() throws -> Graph {
        var builder = GraphBuilder("decode", weights)
        let ids = try builder.tokenInput("decoder_ids", Dimension(symbol: "tokens"))
        let image = try builder.graph.addInput(
            "image_embeds", ValueType(.float32, [GraphBuilder.batch, Dimension(symbol: "image_tokens"), Dimension(width)]))
        try decode(&builder, ids, source: (image, nil, width))
        return builder.graph
    }

    // MARK: Parts

    private func bert(_ prefix: String) throws -> BERT { try BERT(prefix, weights, heads: textHeads, epsilon: epsilon) }

    /// Image to states of the text towers' width.
    private func visionStates(_ builder: inout GraphBuilder, _ image: ValueID) throws -> ValueID {
        let states = try builder.vision(image, .mplug, vision, heads: visionHeads)
        guard weights.contains("visn_fc.weight") || vision.width != width else { return states }
        let projected = try builder.linear(states, "visn_fc", outputs: width, inputs: vision.width)
        return try builder.layerNorm(projected, "visn_layer_norm", width: width, epsilon: epsilon)
    }

    private func encodePair(
        _ builder: inout GraphBuilder
    ) throws -> (image: ValueID, fusedImage: ValueID, text: ValueID, fusedText: ValueID, mask: ValueID) {
        let image = try builder.imageInput("image", vision)
        let ids = try builder.tokenInput("input_ids", GraphBuilder.textLength)
        let attentionMask = try builder.tokenInput("attention_mask", GraphBuilder.textLength)
        let mask = try builder.node(PaddingMask(maskedValue: MaskedValue.selfAttention), [attentionMask], "text_encoder.mask")
        let imageStates = try visionStates(&builder, image)
        let encoder = try bert("text_encoder.")
        let textStates = try builder.textEncoder(ids, mask: mask, encoder, layers: encoder.layers)
        let fused = try fuse(&builder, image: imageStates, text: textStates, mask: mask)
        return (imageStates, fused.image, textStates, fused.text, attentionMask)
    }

    private func fuse(_ builder: inout GraphBuilder, image: ValueID, text: ValueID, mask: ValueID) throws -> (
        image: ValueID, text: ValueID
    ) {
        let fusion = try bert("fusion_encoder.")
        var (image, text) = (image, text)
        var connectedMask: ValueID?
        builder.graph.addTrace("fusion.0", text)
        for step in 0..<fusionLayers {
            let layer = firstFusionLayer + step
            if step > 0 && step % stride == 0 {
                let joinedMask = try connectedMask ?? maskOfBoth(&builder, image: image, textMask: mask)
                connectedMask = joinedMask
                (image, text) = try connected(&builder, layer, fusion, image: image, text: text, mask: joinedMask)
                builder.graph.addTrace("fusion.\(step + 1).image", image)
            } else {
                text = try builder.bertLayer(text, layer, fusion, mask: mask, source: (image, nil, width))
            }
            builder.graph.addTrace("fusion.\(step + 1)", text)
        }
        return (image, text)
    }

    /// The additive mask of image states, all of which count, and text states.
    private func maskOfBoth(_ builder: inout GraphBuilder, image: ValueID, textMask: ValueID) throws -> ValueID {
        let ones = try builder.ones(for: image, "fusion_encoder.image_atts")
        let imageMask = try builder.node(PaddingMask(maskedValue: MaskedValue.crossAttention), [ones], "fusion_encoder.image_mask")
        return try builder.node(Concat(axis: 3), [imageMask, textMask], "fusion_encoder.connected_mask")
    }

    /// A layer over image and text states side by side; the image states are added to what they were.
    private func connected(
        _ builder: inout GraphBuilder, _ layer: Int, _ bert: BERT, image: ValueID, text: ValueID, mask: ValueID
    ) throws -> (image: ValueID, text: ValueID) {
        let prefix = bert.layer(layer)
        let joined = try builder.node(Concat(axis: 1), [image, text], "\(prefix).connected")
        let states = try builder.bertLayer(joined, layer, bert, mask: mask)
        let split = try builder.size(of: image, axis: 1, "\(prefix).image_length")
        let end = try builder.size(of: joined, axis: 1, "\(prefix).length")
        let imagePart = try builder.slice(states, from: builder.integers([0], "\(prefix).start"), to: split, "\(prefix).image_part")
        let textPart = try builder.slice(states, from: split, to: end, "\(prefix).text_part")
        return (try builder.add(image, imagePart, "\(prefix).image_residual"), textPart)
    }

    /// Adds the outputs `logits` and `next_logits`, those of the last position.
    private func decode(_ builder: inout GraphBuilder, _ ids: ValueID, source: (states: ValueID, mask: ValueID?, width: Int)) throws
    {
        let decoder = try bert("text_decoder.bert.")
        var logits = try builder.decoder(ids, mask: nil, source: source, decoder)
        if architecture == .mplugGrounding {
            let coordinates = try builder.constant(weights.take("bbox_prob_mask", [decoder.vocabulary]), "bbox_prob_mask")
            logits = try builder.add(logits, coordinates, "coordinate_logits")
        }
        try builder.graph.addOutput("logits", logits)
        try builder.graph.addOutput("next_logits", builder.position(-1, of: logits, "next_logits"))
    }
}
