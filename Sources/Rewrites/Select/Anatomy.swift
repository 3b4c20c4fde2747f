import ModelGraph

/// The towers of a vision-language model.
struct Anatomy {
    /// Pre-norm layers fed by a patch embedding.
    var vision: [Tower] = []
    /// Layers fed by word embeddings that do not see an image.
    var texts: [Tower] = []
    /// Layers after the text tower that see an image, or (without an image in the graph) something else.
    var fusion: [TransformerBlock] = []
    /// Layers whose tokens see no later ones.
    var decoder: Tower?

    init(of graph: Graph) throws {
        let towers = try graph.towers()
        let images = graph.nodes.filter { $0.op is PatchEmbedding }.map(\.output)
        let seesImage = graph.dependents(of: images)
        for tower in towers {
            if tower.blocks[0].form == .preNorm, graph.stem(of: tower.input, PatchEmbedding.self) != nil {
                vision.append(tower)
            } else if graph.stem(of: tower.input, Embedding.self) != nil {
                if try graph.isCausal(tower.blocks[0].selfAttention) {
                    decoder = tower
                } else {
                    let split = tower.blocks.firstIndex { seesImage.contains($0.output) } ?? tower.blocks.count
                    if split > 0 { texts.append(Tower(blocks: Array(tower.blocks[..<split]))) }
                    fusion = Array(tower.blocks[split...])
                }
            } else if tower.blocks[0].form == .postNorm, seesImage.contains(tower.output) {
                fusion += tower.blocks
            }
        }
    }
}

extension Graph {
    fileprivate func isCausal(_ attention: Node) throws -> Bool {
        if (attention.op as? Attention)?.causal == true { return true }
        guard let mask = attention.input(3), shape(of: mask).count == 4, shape(of: mask)[2] != 1 else { return false }
        guard shape(of: mask)[1] != 1 else { return true }
        // A mask that differs by head is a term for the distance of places. It hides nothing unless a causal rule is part of it.
        var (reached, index) = ([mask], 0)
        while index < reached.count, reached.count < 128 {
            let value = reached[index]
            index += 1
            if try type(of: value).dataType.isFloatingPoint ? hidesLaterKeys(value) : isCausal(value) { return true }
            guard content(of: value) == nil, let node = producer(of: value) else { continue }
            if let padding = node.op as? PaddingMask, padding.causal { return true }
            reached += node.inputs.compactMap { $0 }.filter { !reached.contains($0) }
        }
        return false
    }
}
