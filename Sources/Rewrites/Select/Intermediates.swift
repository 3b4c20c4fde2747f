import ModelGraph

extension Graph {
    /// Gives intermediates their canonical names: `vision.L`, `text.L`, `fusion.L` (and `.image`), `decoder.L`, `selection.L.…`.
    /// - Throws: `data` where the graph has a cycle.
    package mutating func nameIntermediates() throws {
        let anatomy = try Anatomy(of: self)
        // The names of selections have no place for a tower's number: they are given where one tower alone selects.
        let namesSelections = anatomy.vision.count { $0.blocks.contains { selection(in: $0) != nil } } == 1
        for (index, tower) in anatomy.vision.enumerated() {
            nameStates(of: tower.blocks, anatomy.vision.count == 1 ? "vision" : "vision\(index)")
            if namesSelections { nameSelections(of: tower.blocks) }
        }
        nameStates(of: anatomy.texts.last?.blocks ?? [], "text")
        nameStates(of: anatomy.decoder?.blocks ?? [], "decoder")
        nameFusion(anatomy.fusion)
    }

    /// A state may be an output too; a trace that exists stays, and so does an output of that name.
    private mutating func nameTrace(_ name: String, _ value: ValueID) {
        if !(outputs + traces).contains(where: { $0.name == name }) { addTrace(name, value) }
    }

    private mutating func nameStates(of blocks: [TransformerBlock], _ prefix: String) {
        guard let first = blocks.first else { return }
        nameTrace("\(prefix).0", first.input)
        for (layer, block) in blocks.enumerated() { nameTrace("\(prefix).\(layer + 1)", block.output) }
    }

    private mutating func nameSelections(of blocks: [TransformerBlock]) {
        for (layer, block) in blocks.enumerated() {
            for (part, output) in zip(SelectionTrace.Part.allCases, selection(in: block)?.outputs.dropFirst() ?? []) {
                nameTrace(SelectionTrace(layer: layer + 1, part).name, output)
            }
        }
    }

    /// The selection that reads the state after a block's attention.
    func selection(in block: TransformerBlock) -> Node? {
        consumers(of: block.residual).first { $0.op is PatchSelection && $0.input(0) == block.residual }
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
