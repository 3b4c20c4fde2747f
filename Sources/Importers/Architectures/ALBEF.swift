import ModelGraph
import Support
import Tensors

/// ALBEF (Li et al. 2021, arXiv 2107.07651): a ViT, a BERT whose first layers read text alone and whose other layers also
/// attend to the image, and a head for each task.
struct ALBEF: ModelFamily {
    let architecture: Architecture
    let weights: Weights
    private let vision: VisionSizes
    private let visionHeads: Int
    private let text: BERT
    /// Layers of the text encoder that have no cross-attention.
    private let textLayers: Int

    init(_ architecture: Architecture, _ weights: Weights, _ options: CheckpointOptions, _ settings: inout Settings) throws {
        self.architecture = architecture
        self.weights = weights
        vision = try VisionSizes(.albef, weights, imageSize: options.imageSize)
        let prefix =
            weights.contains("text_encoder.bert.embeddings.position_embeddings.weight") ? "text_encoder.bert." : "text_encoder."
        visionHeads = try settings.heads("vision_heads", option: options.visionHeads, width: vision.width)
        let textHeads = try settings.heads(
            "text_heads", option: options.textHeads, configurationKey: "num_attention_heads", width: weights.textWidth(prefix))
        settings.note("vision_layer_norm_epsilon", "1e-06", from: .released)
        let bert = try BERT(prefix, weights, heads: textHeads, epsilon: settings.textEpsilon())
        text = bert
        textLayers =
            (0..<bert.layers).first { weights.contains("\(bert.layer($0)).crossattention.self.query.weight") } ?? bert.layers
        let fusionLayers = bert.layers - textLayers
        guard textLayers > 0, fusionLayers > 0 else {
            throw TripsError.data(
                "layers of the text encoder", found: "\(textLayers) without and \(fusionLayers) with cross-attention",
                expected: "both kinds")
        }
        if let stated = options.fusionLayers, stated != fusionLayers {
            throw TripsError.usage(
                "fusion layers", found: stated, expected: "\(fusionLayers): the layers with cross-attention, all of which run")
        }
        if let stride = options.strideLayer {
            throw TripsError.usage("stride_layer", found: stride, expected: "none: ALBEF has no connected layers")
        }
        guard architecture != .albefNLVR2 || fusionLayers % 2 == 0 else {
            throw TripsError.data("fusion layers", found: fusionLayers, expected: "an even number: each image has its own")
        }
    }

    func graphs() throws -> [Graph] {
        switch architecture {
        case .albefVQA: [try encodeQuestion(), try decodeAnswer()]
        case .albefNLVR2: [try compareImages()]
        case .albefVE: [try entailment()]
        default: [try matching()]
        }
    }

    func generation() -> Generation? {
        guard architecture == .albefVQA else { return nil }
        return Generation(method: .ranking, maximalLength: 1)
    }

    func reasonToLeaveOut(_ name: String) -> String? { commonReasonToLeaveOut(name) }

    // MARK: Graphs

    private func matching() throws -> Graph {
        var builder = GraphBuilder("main", weights)
        let states = try encodePair(&builder)
        try builder.matchingOutputs(
            image: states.image, imageWidth: vision.width, text: states.text, fused: states.fused, textWidth: text.width)
        return builder.graph
    }

    private func entailment() throws -> Graph {
        var builder = GraphBuilder("main", weights)
        let states = try encodePair(&builder)
        let classes = weights.shape("cls_head.2.weight")?.first ?? 3
        try builder.graph.addOutput("prediction", classify(&builder, states.fused, classes: classes))
        return builder.graph
    }

    /// Both images go through the vision tower as one batch, image 0 first, so that each may select patches for itself.
    private func compareImages() throws -> Graph {
        var builder = GraphBuilder("main", weights)
        let images = [try builder.imageInput("image0", vision), try builder.imageInput("image1", vision)]
        let input = try textInput(&builder)
        let both = try builder.node(Concat(axis: 0), images, "images")
        let states = try builder.vision(both, .albef, vision, heads: visionHeads)
        let textStates = try builder.textEncoder(input.ids, mask: input.mask, text, layers: textLayers)
        let parts = try builder.graph.add(Split(axis: 0, outputs: 2), [states], name: "image_states")
        let fused = try fuse(&builder, textStates, mask: input.mask, sources: parts)
        try builder.graph.addOutput("prediction", classify(&builder, fused, classes: 2))
        return builder.graph
    }

    private func encodeQuestion() throws -> Graph {
        var builder = GraphBuilder("encode", weights)
        try builder.graph.addOutput("question_states", encodePair(&builder).fused)
        return builder.graph
    }

    private func decodeAnswer() throws -> Graph {
        var builder = GraphBuilder("decode", weights)
        let batch = GraphBuilder.batch, answerLength = Dimension(symbol: "answer_length")
        let states = try builder.graph.addInput(
            "question_states", ValueType(.float32, [batch, GraphBuilder.textLength, Dimension(text.width)]))
        let mask = try builder.tokenInput("attention_mask", GraphBuilder.textLength)
        let ids = try builder.tokenInput("answer_ids", answerLength)
        let answerMask = try builder.tokenInput("answer_mask", answerLength)
        let decoder = try BERT("text_decoder.bert.", weights, heads: text.heads, epsilon: text.epsilon)
        let causal = try builder.node(
            PaddingMask(maskedValue: MaskedValue.selfAttention, causal: true), [answerMask], "text_decoder.mask")
        let crossMask = try builder.node(PaddingMask(maskedValue: MaskedValue.crossAttention), [mask], "text_decoder.encoder_mask")
        let logits = try builder.decoder(ids, mask: causal, source: (states, crossMask, text.width), decoder)
        try builder.graph.addOutput("answer_logits", logits)
        return builder.graph
    }

    // MARK: Parts

    private func textInput(_ builder: inout GraphBuilder) throws -> (ids: ValueID, mask: ValueID) {
        let ids = try builder.tokenInput("input_ids", GraphBuilder.textLength)
        let attentionMask = try builder.tokenInput("attention_mask", GraphBuilder.textLength)
        return (ids, try builder.node(PaddingMask(maskedValue: MaskedValue.selfAttention), [attentionMask], "text_encoder.mask"))
    }

    private func encodePair(_ builder: inout GraphBuilder) throws -> (image: ValueID, text: ValueID, fused: ValueID) {
        let image = try builder.imageInput("image", vision)
        let input = try textInput(&builder)
        let states = try builder.vision(image, .albef, vision, heads: visionHeads)
        let textStates = try builder.textEncoder(input.ids, mask: input.mask, text, layers: textLayers)
        return (states, textStates, try fuse(&builder, textStates, mask: input.mask, sources: [states]))
    }

    /// The layers with cross-attention, each to the next of the sources in turn.
    private func fuse(_ builder: inout GraphBuilder, _ textStates: ValueID, mask: ValueID, sources: [ValueID]) throws -> ValueID {
        var x = textStates
        builder.graph.addTrace("fusion.0", x)
        for layer in textLayers..<text.layers {
            let source = sources[(layer - textLayers) % sources.count]
            x = try builder.bertLayer(x, layer, text, mask: mask, source: (source, nil, vision.width))
            builder.graph.addTrace("fusion.\(layer - textLayers + 1)", x)
        }
        return x
    }

    private func classify(_ builder: inout GraphBuilder, _ fused: ValueID, classes: Int) throws -> ValueID {
        let first = try builder.position(0, of: fused, "cls_head.input")
        let hidden = try builder.linear(first, "cls_head.0", outputs: text.width, inputs: text.width)
        let activated = try builder.node(Unary(.relu), [hidden], "cls_head.1")
        return try builder.linear(activated, "cls_head.2", outputs: classes, inputs: text.width)
    }
}

extension GraphBuilder {
    /// The outputs of pre-training and retrieval: matching logits, and features for contrasting, L2-normalised.
    mutating func matchingOutputs(image: ValueID, imageWidth: Int, text: ValueID, fused: ValueID, textWidth: Int) throws {
        let logits = try linear(position(0, of: fused, "itm_head.input"), "itm_head", outputs: 2, inputs: textWidth)
        let imageFeature = try feature(of: image, "vision_proj", width: imageWidth)
        let textFeature = try feature(of: text, "text_proj", width: textWidth)
        try graph.addOutput("itm_logits", logits)
        try graph.addOutput("image_feat", imageFeature)
        try graph.addOutput("text_feat", textFeature)
        try graph.addOutput("image_embeds", image)
        try graph.addOutput("text_embeds", text)
    }

    private mutating func feature(of states: ValueID, _ prefix: String, width: Int) throws -> ValueID {
        let outputs = weights.shape("\(prefix).weight")?.first ?? 256
        let projected = try linear(position(0, of: states, "\(prefix).input"), prefix, outputs: outputs, inputs: width)
        return try node(L2Normalize(epsilon: 1e-12), [projected], "\(prefix).normalize")
    }
}
