import ModelGraph

/// A layer of a transformer, as it is found in a block graph.
struct TransformerBlock {
    enum Form { case preNorm, postNorm }

    let form: Form
    /// The state that enters the layer, and the one that leaves it.
    let input: ValueID
    let output: ValueID
    let selfAttention: Node
    /// The self-attention's residual sum (not yet normalised).
    let residual: ValueID
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
            // A selection may be between the two halves.
            let selections = consumers(of: residual).filter { $0.op is PatchSelection && $0.input(0) == residual }
            for state in [residual] + selections.map(\.output) {
                let norms = consumers(of: state).filter { $0.op is LayerNorm }
                guard let output = norms.lazy.compactMap({ sums(from: $0.output, with: state).first }).first else { continue }
                return TransformerBlock(
                    form: .preNorm, input: input, output: output, selfAttention: attention, residual: residual)
            }
        }
        return nil
    }

    /// norm(x + attention x), perhaps norm(y + cross-attention y), norm(z + f z).
    private func postNormBlock(_ attention: Node) -> TransformerBlock? {
        guard let input = projected(attention, 0), input == projected(attention, 1), input == projected(attention, 2) else {
            return nil
        }
        for residual in sums(from: attention.output, with: input) {
            guard let norm = consumers(of: residual).first(where: { $0.op is LayerNorm }) else { continue }
            var state = norm.output
            if let cross = crossAttention(from: state) {
                guard let sum = sums(from: cross.output, with: state).first,
                    let norm = consumers(of: sum).first(where: { $0.op is LayerNorm })
                else { continue }
                state = norm.output
            }
            guard let sum = sums(from: state, with: state).first, let last = consumers(of: sum).first(where: { $0.op is LayerNorm })
            else { continue }
            return TransformerBlock(
                form: .postNorm, input: input, output: last.output, selfAttention: attention, residual: residual)
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
    func isRowwise(_ node: Node, of values: [ValueID]) -> Bool {
        if node.op is Binary { return node.inputs.allSatisfy { $0.map { values.contains($0) || content(of: $0) != nil } == true } }
        guard let x = node.input(0), values.contains(x) else { return false }
        if node.op is Slice || node.op is Split {
            return node.outputs.allSatisfy { shape(of: $0).dropLast() == shape(of: x).dropLast() }
        }
        return node.op.isLinear || node.op is GELU || node.op is Unary
    }
}
