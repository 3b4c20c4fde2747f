import ModelGraph

extension Graph {
    /// Gives intermediates their canonical names: `vision.L`, `text.L`, `fusion.L` (and `.image`), `decoder.L`, `selection.L.…`.
    /// - Throws: `data` where the graph has a cycle.
    public mutating func nameIntermediates() throws {
        let anatomy = try Anatomy(of: self)
        for (index, tower) in anatomy.vision.enumerated() {
            let number = anatomy.vision.count == 1 ? "" : "\(index)"
            nameStates(of: tower.blocks, "vision\(number)", selections: "selection\(number)")
        }
        nameStates(of: anatomy.text?.blocks ?? [], "text")
        nameStates(of: anatomy.decoder?.blocks ?? [], "decoder")
        nameFusion(anatomy.fusion)
    }

    /// A state may be an output too; a trace that exists stays.
    private mutating func nameTrace(_ name: String, _ value: ValueID) {
        if !traces.contains(where: { $0.name == name }) { addTrace(name, value) }
    }

    /// - Parameter selections: the prefix for what a selection behind a block's attention puts out; nil: there is none.
    private mutating func nameStates(of blocks: [TransformerBlock], _ prefix: String, selections: String? = nil) {
        guard let first = blocks.first else { return }
        nameTrace("\(prefix).0", first.input)
        for (layer, block) in blocks.enumerated() {
            nameTrace("\(prefix).\(layer + 1)", block.output)
            let selection = consumers(of: block.residual).first { $0.op is PatchSelection && $0.input(0) == block.residual }
            guard let selections, let selection else { continue }
            for (part, output) in zip(SelectionTrace.Part.allCases, selection.outputs.dropFirst()) {
                nameTrace("\(selections).\(layer + 1).\(part)", output)
            }
        }
    }

    /// Of layers over image and text side by side, the state of each.
    private mutating func nameFusion(_ blocks: [TransformerBlock]) {
        guard let first = blocks.first else { return }
        nameTrace("fusion.0", first.input)
        for (layer, block) in blocks.enumerated() {
            guard let (concat, _) = producer(of: block.input, Concat.self), concat.inputs.count == 2, let image = concat.input(0),
                let parts = parts(of: block.output, like: concat)
            else {
                nameTrace("fusion.\(layer + 1)", block.output)
                continue
            }
            nameTrace("fusion.\(layer + 1)", parts.text)
            let sum = consumers(of: parts.image).first { ($0.op as? Binary)?.kind == .add && $0.inputs.contains(image) }
            nameTrace("fusion.\(layer + 1).image", sum?.output ?? parts.image)
        }
    }

    /// The slices of a joint state that hold the image's and the text's tokens.
    private func parts(of state: ValueID, like concat: Node) -> (image: ValueID, text: ValueID)? {
        let slices = consumers(of: state).filter { $0.op is Slice || $0.op is Split }.flatMap(\.outputs)
        guard let imageTokens = concat.inputs[0].map({ shape(of: $0) }), let textTokens = concat.inputs[1].map({ shape(of: $0) }),
            let image = slices.first(where: { shape(of: $0) == imageTokens }),
            let text = slices.last(where: { shape(of: $0) == textTokens }), image != text
        else { return nil }
        return (image, text)
    }
}
