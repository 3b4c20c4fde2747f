import ModelGraph

/// A layer of a transformer, as it is found in a block graph.
struct TransformerBlock {
    enum Form { case preNorm, postNorm }

    let form: Form
    /// The state that enters, and the one behind the layer.
    let input: ValueID
    let output: ValueID
    let selfAttention: Node
    /// The state behind the self-attention's residual sum (not yet normalised).
    let residual: ValueID
    let crossAttention: Node?
}

/// Layers each of which reads what the one before puts out.
struct Tower {
    var blocks: [TransformerBlock]
    var input: ValueID { blocks[0].input }
    var output: ValueID { blocks[blocks.count - 1].output }
}

extension Graph {
    /// All runs of transformer layers, in topological order.
    func towers() throws -> [Tower] {
        var blocks: [TransformerBlock] = []
        for node in try topologicalOrder() where node.op is Attention {
            if let block = preNormBlock(node) ?? postNormBlock(node) { blocks.append(block) }
        }
        var towers: [Tower] = []
        for block in blocks {
            if let index = towers.lastIndex(where: { $0.output == block.input && $0.blocks[0].form == block.form }) {
                towers[index].blocks.append(block)
            } else {
                towers.append(Tower(blocks: [block]))
            }
        }
        return towers
    }

    /// x + f(attention(norm x)), then y + g(norm y).
    private func preNormBlock(_ attention: Node) -> TransformerBlock? {
        guard let normed = projected(attention, 0), normed == projected(attention, 1), normed == projected(attention, 2),
            let (norm, _) = producer(of: normed, LayerNorm.self), let input = norm.input(0)
        else { return nil }
        for residual in sums(from: attention.output, with: input) {
            for hidden in consumers(of: residual) where hidden.op is LayerNorm {
                if let output = sums(from: hidden.output, with: residual).first {
                    return TransformerBlock(
                        form: .preNorm, input: input, output: output, selfAttention: attention, residual: residual, crossAttention: nil)
                }
            }
            // A selection stands between the two halves.
            for selection in consumers(of: residual) where selection.op is PatchSelection && selection.input(0) == residual {
                for hidden in consumers(of: selection.output) where hidden.op is LayerNorm {
                    if let output = sums(from: hidden.output, with: selection.output).first {
                        return TransformerBlock(
                            form: .preNorm, input: input, output: output, selfAttention: attention, residual: residual, crossAttention: nil)
                    }
                }
            }
        }
        return nil
    }

    /// norm(x + attention x), perhaps norm(y + cross-attention y), norm(z + f z).
    private func postNormBlock(_ attention: Node) -> TransformerBlock? {
        guard let input = projected(attention, 0), input == projected(attention, 1), input == projected(attention, 2) else { return nil }
        for residual in sums(from: attention.output, with: input) {
            guard let norm = consumers(of: residual).first(where: { $0.op is LayerNorm }) else { continue }
            var state = norm.output
            let cross = crossAttention(from: state)
            if let cross {
                guard let sum = sums(from: cross.output, with: state).first, let norm = consumers(of: sum).first(where: { $0.op is LayerNorm })
                else { continue }
                state = norm.output
            }
            guard let sum = sums(from: state, with: state).first, let last = consumers(of: sum).first(where: { $0.op is LayerNorm }) else { continue }
            return TransformerBlock(
                form: .postNorm, input: input, output: last.output, selfAttention: attention, residual: residual, crossAttention: cross)
        }
        return nil
    }

    /// True for a norm that begins a pre-norm layer: what self-attention makes of it is added to what it normalises.
    func beginsLayer(_ norm: Node) -> Bool {
        guard let state = norm.input(0) else { return false }
        let linears = consumers(of: norm.output).filter { $0.op is Linear }
        return linears.flatMap { consumers(of: $0.output) }.contains { attention in
            attention.op is Attention && (0..<3).allSatisfy { projected(attention, $0) == norm.output }
                && !sums(from: attention.output, with: state).isEmpty
        }
    }

    /// The attention whose queries, and nothing else, come from `state`.
    private func crossAttention(from state: ValueID) -> Node? {
        for linear in consumers(of: state) where linear.op is Linear {
            for attention in consumers(of: linear.output) where attention.op is Attention && attention.input(0) == linear.output {
                if projected(attention, 1) != state && projected(attention, 1) == projected(attention, 2) { return attention }
            }
        }
        return nil
    }

    /// What an operand of an attention is a projection of.
    func projected(_ attention: Node, _ index: Int) -> ValueID? {
        guard let operand = attention.input(index), let (linear, _) = producer(of: operand, Linear.self) else { return nil }
        return linear.input(0)
    }

    /// The sums of `base` and what row-wise operators make of `start`, the nearest first.
    private func sums(from start: ValueID, with base: ValueID) -> [ValueID] {
        var found: [ValueID] = []
        var reached: [ValueID] = [start]
        var index = 0
        while index < reached.count, reached.count < 24 {
            let value = reached[index]
            index += 1
            for node in consumers(of: value) {
                if let binary = node.op as? Binary, binary.kind == .add, node.inputs.contains(base), value != base {
                    if node.inputs.contains(value) { found.append(node.output) }
                } else if !reached.contains(node.output), isRowwise(node, of: reached) {
                    reached += node.outputs
                }
            }
        }
        return found
    }

    /// True where a node computes each row from the same row of these values, and from nothing else that is computed. A gate
    /// multiplies two of them, which may be halves of one.
    private func isRowwise(_ node: Node, of values: [ValueID]) -> Bool {
        if node.op is Binary { return node.inputs.allSatisfy { $0.map { values.contains($0) || content(of: $0) != nil } == true } }
        guard let x = node.input(0), values.contains(x) else { return false }
        if node.op is Slice || node.op is Split { return node.outputs.allSatisfy { shape(of: $0).dropLast() == shape(of: x).dropLast() } }
        return node.op is Linear || node.op is QuantizedLinear || node.op is GELU || node.op is Unary
    }

    /// The node of this type that a value comes from through operators that keep the tokens apart, sums of them included.
    func stem(of value: ValueID, _ kind: any Operator.Type, depth: Int = 8) -> Node? {
        guard depth > 0, content(of: value) == nil, let node = producer(of: value) else { return nil }
        if Swift.type(of: node.op) == kind { return node }
        if (node.op as? Binary)?.kind == .add {
            // All addends must lead there, or residual sums would lead through whole layers. Positions that are resized in the
            // graph do not count.
            let addends = node.inputs.compactMap { $0 }.filter(readsInputs)
            let stems = addends.compactMap { stem(of: $0, kind, depth: depth - 1) }
            return stems.count == addends.count ? stems.first : nil
        }
        if kind == PatchEmbedding.self, let leading = try? leadingParts(of: node) {
            return stem(of: leading.patches, kind, depth: depth - 1)
        }
        guard node.op is LayerNorm || node.op is Linear || isRowwise(node, of: [node.input(0) ?? value]), let inner = node.input(0) else { return nil }
        return stem(of: inner, kind, depth: depth - 1)
    }

    /// How many tokens stand in front of the patches that a value [B, T, D] comes from: a class token, others that models learn
    /// beside it for distillation or as registers. 0 where it comes from none.
    func leadingTokens(of value: ValueID, depth: Int = 8) throws -> Int {
        guard depth > 0, content(of: value) == nil, let node = producer(of: value) else { return 0 }
        if node.op is PatchEmbedding { return node.input(3) == nil ? 0 : 1 }
        if let parts = try leadingParts(of: node) { return try parts.change + leadingTokens(of: parts.patches, depth: depth - 1) }
        let inner = (node.op as? Binary)?.kind == .add ? node.inputs.compactMap { $0 }.first(where: readsInputs) : node.input(0)
        return try inner.map { try leadingTokens(of: $0, depth: depth - 1) } ?? 0
    }

    /// Where a node puts tokens that are the same for all pictures in front of patches, or cuts leading ones off: how many more
    /// there are then, and what patches come from.
    private func leadingParts(of node: Node) throws -> (patches: ValueID, change: Int)? {
        guard type(of: node.output).rank == 3 else { return nil }
        if let concat = node.op as? Concat, concat.axis == 1 || concat.axis == -2, let patches = node.inputs.last ?? nil {
            var count = 0
            for case let part? in node.inputs.dropLast() {
                guard let size = shape(of: part)[1].constant, try !readsInputs(part) || isLeading(part) else { return nil }
                count += size
            }
            return (patches, count)
        }
        guard node.op is Slice, let tokens = node.input(0), let range = try sliceRanges(node), range.count == 1, range[0].axis == 1,
            let start = range[0].start.constant, try 0...leadingTokens(of: tokens) ~= start,
            try range[0].start.adding(range[0].count) == shape(of: tokens)[1]
        else { return nil }
        return (tokens, -start)
    }

    /// True for the first of leading tokens, however they are cut off.
    private func isLeading(_ value: ValueID) throws -> Bool {
        guard let count = shape(of: value)[1].constant else { return false }
        return try views(of: value).contains { view in
            let whole = shape(of: view.source)
            guard whole.count == 3, try ViewLayout(of: whole).sliced(1, from: 0, count: Dimension(count)) == view.layout
            else { return false }
            return try count <= leadingTokens(of: view.source)
        }
    }
}

extension Graph {
    /// False for a value that is known, or computed of such values and of sizes alone.
    private func readsInputs(_ value: ValueID) -> Bool {
        var (pending, seen) = ([value], Set<ValueID>())
        while let value = pending.popLast() {
            guard content(of: value) == nil, seen.insert(value).inserted else { continue }
            guard let node = producer(of: value) else { return true }
            pending += node.inputs.compactMap { $0 }
        }
        return false
    }
}

/// The towers of a vision-language model.
struct Anatomy {
    /// Pre-norm layers fed by a patch embedding.
    var vision: [Tower] = []
    /// Layers fed by word embeddings that do not see an image.
    var texts: [Tower] = []
    var text: Tower? { texts.last }
    /// Layers behind the text tower that see an image, or (without an image in the graph) something else.
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
                if graph.isCausal(tower.blocks[0].selfAttention) {
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
    fileprivate func isCausal(_ attention: Node) -> Bool {
        if (attention.op as? Attention)?.causal == true { return true }
        guard let mask = attention.input(3), shape(of: mask).count == 4, shape(of: mask)[2] != 1 else { return false }
        guard shape(of: mask)[1] != 1 else { return true }
        // A mask that differs by head is a term for the distance of places. It hides nothing unless a causal rule is part of it.
        var (reached, index) = ([mask], 0)
        while index < reached.count, reached.count < 128 {
            let value = reached[index]
            index += 1
            if type(of: value).dataType.isFloatingPoint ? (try? hidesLaterKeys(value)) == true : (try? isCausal(value)) == true { return true }
            guard content(of: value) == nil, let node = producer(of: value) else { continue }
            if let padding = node.op as? PaddingMask, padding.causal { return true }
            reached += node.inputs.compactMap { $0 }.filter { !reached.contains($0) }
        }
        return false
    }

    /// Gives intermediates their canonical names: `vision.L`, `text.L`, `fusion.L` (and `.image`), `decoder.L`, `selection.L.…`.
    /// - Throws: `data` where the graph has a cycle.
    public mutating func nameIntermediates() throws {
        let anatomy = try Anatomy(of: self)
        func trace(_ name: String, _ value: ValueID) {
            // A state may be an output too; a trace that exists stays.
            if !traces.contains(where: { $0.name == name }) { addTrace(name, value) }
        }
        for (index, tower) in anatomy.vision.enumerated() {
            let prefix = anatomy.vision.count == 1 ? "vision" : "vision\(index)"
            trace("\(prefix).0", tower.input)
            for (layer, block) in tower.blocks.enumerated() {
                trace("\(prefix).\(layer + 1)", block.output)
                if let selection = consumers(of: block.residual).first(where: { $0.op is PatchSelection && $0.input(0) == block.residual }) {
                    let prefix = anatomy.vision.count == 1 ? "selection" : "selection\(index)"
                    for (part, output) in zip(SelectionTrace.Part.allCases, selection.outputs.dropFirst()) {
                        trace("\(prefix).\(layer + 1).\(part)", output)
                    }
                }
            }
        }
        for (prefix, blocks) in [("text", anatomy.text?.blocks ?? []), ("decoder", anatomy.decoder?.blocks ?? [])] {
            guard let first = blocks.first else { continue }
            trace("\(prefix).0", first.input)
            for (layer, block) in blocks.enumerated() { trace("\(prefix).\(layer + 1)", block.output) }
        }
        guard let first = anatomy.fusion.first else { return }
        trace("fusion.0", first.input)
        for (layer, block) in anatomy.fusion.enumerated() {
            guard let (concat, _) = producer(of: block.input, Concat.self), concat.inputs.count == 2, let image = concat.input(0),
                let parts = parts(of: block.output, like: concat)
            else {
                trace("fusion.\(layer + 1)", block.output)
                continue
            }
            trace("fusion.\(layer + 1)", parts.text)
            let sum = consumers(of: parts.image).first { ($0.op as? Binary)?.kind == .add && $0.inputs.contains(image) }
            trace("fusion.\(layer + 1).image", sum?.output ?? parts.image)
        }
    }

    /// The slices of a joint state that hold the image's and the text's tokens.
    private func parts(of state: ValueID, like concat: Node) -> (image: ValueID, text: ValueID)? {
        let slices = consumers(of: state).filter { $0.op is Slice || $0.op is Split }.flatMap(\.outputs)
        guard let imageTokens = concat.inputs[0].map({ shape(of: $0) }), let textTokens = concat.inputs[1].map({ shape(of: $0) }),
            let image = slices.first(where: { shape(of: $0) == imageTokens }), let text = slices.last(where: { shape(of: $0) == textTokens }), image != text
        else { return nil }
        return (image, text)
    }
}
