import ModelGraph
import Support
import Tensors

/// A BERT (Devlin et al. 2019) under one prefix: embeddings and post-norm layers, some with cross-attention.
struct BERT {
    /// `text_encoder.` or `text_encoder.bert.`
    let prefix: String
    let width: Int
    let vocabulary: Int
    let positions: Int
    let tokenTypes: Int
    let layers: Int
    let heads: Int
    let epsilon: Float

    func layer(_ index: Int) -> String { "\(prefix)encoder.layer.\(index)" }

    /// The sizes that the embeddings and layers state.
    /// - Throws: `data` where the embeddings are missing or odd.
    init(_ prefix: String, _ weights: Weights, heads: Int, epsilon: Float) throws {
        self.prefix = prefix
        self.heads = heads
        self.epsilon = epsilon
        func table(_ name: String) throws -> [Int] {
            guard let shape = weights.shape("\(prefix)embeddings.\(name).weight"), shape.count == 2, shape.allSatisfy({ $0 > 0 })
            else {
                throw TripsError.data(
                    "an embedding", found: weights.shape("\(prefix)embeddings.\(name).weight").map { "\($0)" } ?? "none",
                    expected: "\(prefix)embeddings.\(name).weight [rows, width]")
            }
            return shape
        }
        let positions = try table("position_embeddings")
        (self.positions, width) = (positions[0], positions[1])
        tokenTypes = try table("token_type_embeddings")[0]
        vocabulary = try BERT.wordTables(prefix).compactMap(weights.shape).first?.first ?? table("word_embeddings")[0]
        layers = try weights.layerCount("\(prefix)encoder.layer.")
        guard layers > 0, width % heads == 0 else {
            throw TripsError.data(
                "layers and heads", at: prefix, found: "\(layers) layers, \(heads) heads",
                expected: "1 layer or more, heads that divide \(width)")
        }
    }

    /// Where the word embeddings may be. A language model's head is tied to them; the head's copy, loaded last, counts.
    static func wordTables(_ prefix: String) -> [String] {
        let head = prefix.hasSuffix("bert.") ? ["\(prefix.dropLast(5))cls.predictions.decoder.weight"] : []
        return head + ["\(prefix)embeddings.word_embeddings.weight"]
    }
}

/// Masks that let padding weigh nothing: BERT's for self-attention, and that of ALBEF and mPLUG for cross-attention.
enum MaskedValue {
    static let selfAttention = Float(Attention.maskedScore)
    static let crossAttention: Float = -1e9
}

extension GraphBuilder {
    /// Ids [B, L] to states [B, L, D]: words, positions from 0 on, token type 0, then LayerNorm.
    mutating func embeddings(_ ids: ValueID, _ bert: BERT, isHeadTied: Bool = false) throws -> ValueID {
        let prefix = "\(bert.prefix)embeddings"
        let words = isHeadTied ? wordTable(bert) : weights.take("\(prefix).word_embeddings.weight", [bert.vocabulary, bert.width])
        let positions = try weights.take("\(prefix).position_embeddings.weight", [bert.positions, bert.width]).reshaped([
            1, bert.positions, bert.width,
        ])
        let types = try weights.take("\(prefix).token_type_embeddings.weight", [bert.tokenTypes, bert.width]).rows(0..<1).reshaped([
            1, 1, bert.width,
        ])
        let table = try constant(positions, "\(prefix).position_embeddings.weight")
        let length = try size(of: ids, axis: 1, "\(prefix).length")
        let used = try slice(table, from: integers([0], "\(prefix).start"), to: length, "\(prefix).positions")
        let sum = try node(
            Embedding(),
            [
                ids, constant(words, "\(prefix).word_embeddings.weight"), used,
                constant(types, "\(prefix).token_type_embeddings.weight"),
            ], prefix)
        return try layerNorm(sum, "\(prefix).LayerNorm", width: bert.width, epsilon: bert.epsilon)
    }

    private func wordTable(_ bert: BERT) -> Constant {
        let names = BERT.wordTables(bert.prefix)
        let name = names.first(where: weights.contains) ?? names[0]
        return weights.take(name, [bert.vocabulary, bert.width])
    }

    /// Query states attend to `source`; then LayerNorm of the sum.
    mutating func attentionLayer(
        _ x: ValueID, to source: ValueID, sourceWidth: Int, mask: ValueID?, _ prefix: String, _ bert: BERT, causal: Bool = false
    ) throws -> ValueID {
        let q = try linear(x, "\(prefix).self.query", outputs: bert.width, inputs: bert.width)
        let k = try linear(source, "\(prefix).self.key", outputs: bert.width, inputs: sourceWidth)
        let v = try linear(source, "\(prefix).self.value", outputs: bert.width, inputs: sourceWidth)
        let inputs = [q, k, v] + (mask.map { [$0] } ?? [])
        let attended = try node(Attention(heads: bert.heads, causal: causal), inputs, "\(prefix).self")
        let output = try linear(attended, "\(prefix).output.dense", outputs: bert.width, inputs: bert.width)
        let sum = try add(output, x, "\(prefix).output.residual")
        return try layerNorm(sum, "\(prefix).output.LayerNorm", width: bert.width, epsilon: bert.epsilon)
    }

    mutating func feedForward(_ x: ValueID, _ prefix: String, _ bert: BERT) throws -> ValueID {
        let hiddenWidth = weights.shape("\(prefix).intermediate.dense.weight")?.first ?? 4 * bert.width
        let hidden = try linear(x, "\(prefix).intermediate.dense", outputs: hiddenWidth, inputs: bert.width)
        let activated = try node(GELU(.erf), [hidden], "\(prefix).intermediate.gelu")
        let output = try linear(activated, "\(prefix).output.dense", outputs: bert.width, inputs: hiddenWidth)
        let sum = try add(output, x, "\(prefix).output.residual")
        return try layerNorm(sum, "\(prefix).output.LayerNorm", width: bert.width, epsilon: bert.epsilon)
    }

    /// One layer; `source` nil leaves the cross-attention out.
    mutating func bertLayer(
        _ input: ValueID, _ index: Int, _ bert: BERT, mask: ValueID?, source: (states: ValueID, mask: ValueID?, width: Int)? = nil,
        causal: Bool = false
    ) throws -> ValueID {
        let prefix = bert.layer(index)
        var x = try attentionLayer(
            input, to: input, sourceWidth: bert.width, mask: mask, "\(prefix).attention", bert, causal: causal)
        if let source {
            x = try attentionLayer(
                x, to: source.states, sourceWidth: source.width, mask: source.mask, "\(prefix).crossattention", bert)
        }
        return try feedForward(x, prefix, bert)
    }

    /// Embeddings and the first layers, over text alone.
    mutating func textEncoder(_ ids: ValueID, mask: ValueID, _ bert: BERT, layers: Int) throws -> ValueID {
        var x = try embeddings(ids, bert)
        graph.addTrace("text.0", x)
        for layer in 0..<layers {
            x = try bertLayer(x, layer, bert, mask: mask)
            graph.addTrace("text.\(layer + 1)", x)
        }
        return x
    }

    /// A decoder with its language-model head: ids [B, T] to logits [B, T, V]. Every layer attends to `source`.
    ///
    /// - Parameter mask: additive and causal; nil where all ids count, the attention being causal by itself.
    mutating func decoder(
        _ ids: ValueID, mask: ValueID?, source: (states: ValueID, mask: ValueID?, width: Int), _ bert: BERT
    ) throws -> ValueID {
        var x = try embeddings(ids, bert, isHeadTied: true)
        graph.addTrace("decoder.0", x)
        for layer in 0..<bert.layers {
            x = try bertLayer(x, layer, bert, mask: mask, source: source, causal: mask == nil)
            graph.addTrace("decoder.\(layer + 1)", x)
        }
        let head = "\(bert.prefix.dropLast("bert.".count))cls.predictions"
        let hidden = try linear(x, "\(head).transform.dense", outputs: bert.width, inputs: bert.width)
        let activated = try node(GELU(.erf), [hidden], "\(head).transform.gelu")
        let normed = try layerNorm(activated, "\(head).transform.LayerNorm", width: bert.width, epsilon: bert.epsilon)
        let bias = ["\(head).decoder.bias", "\(head).bias"].first(where: weights.contains) ?? "\(head).decoder.bias"
        return try linear(normed, "\(head).decoder", wordTable(bert), weights.take(bias, [bert.vocabulary]))
    }
}
