import ModelGraph
import Tensors

/// softmax(q · kᵀ · scale + mask) · v becomes Attention, whatever reshapes, transposes, slices and splits cut the heads
/// out of the projections, wherever the scale is applied, and whether the projections are packed or not.
///
/// The parts of a packed projection become a Linear each, over rows of its weight. Operands that are no projections, such as
/// queries that were rotated by their positions or are known, are laid out as one. A mask that adds the same to all keys
/// of a query is dropped: the softmax does not see it. Where NaN among the weights is replaced by 0, as PyTorch's exporters do for
/// queries whose keys are all masked, the operator does so too.
struct FuseAttention: Rewrite {
    let isClose: Closeness
    let name = "attention"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let pattern = try graph.attentionPattern(at: node), let output = node.outputs.first,
            let (q, k, v) = try graph.headedOperands(of: pattern), v.scale == 1
        else { return nil }
        var patch = Patch(for: graph)
        let scores = AttentionScores(batch: q.batch, heads: q.heads, queries: q.length, keys: k.length)
        guard let mask = try AttentionMask(pattern, scores, at: node, in: graph, &patch) else { return nil }
        let operands = try [(q, "query"), (k, "key"), (v, "value")].map { try $0.laidOut(suffix: $1, in: graph, &patch) }
        let scale = pattern.scale * q.scale * k.scale
        let hidesNone = mask.addend == nil && pattern.fullyMasked == .zero
        let attention = Attention(
            heads: q.heads, scale: isClose(scale * Double(q.headSize).squareRoot(), 1) ? nil : Float(scale),
            causal: pattern.causal || mask.isCausal, fullyMasked: hidesNone ? nil : pattern.fullyMasked)
        let attended = patch.add(attention, operands + (mask.addend.map { [$0] } ?? []), name: node.name)
        // [B, L, H · E] back into the place of [B, H, L, E].
        let cut = try patch.reshape(attended, to: [q.batch, q.length, Dimension(v.heads), Dimension(v.headSize)], name: node.name)
        var placed = patch.add(Transpose(permutation: [0, 2, 1, 3]), [cut], name: node.name)
        let shape = graph.shape(of: output)
        if shape != [q.batch, Dimension(v.heads), q.length, Dimension(v.headSize)] {
            placed = try patch.reshape(placed, to: shape, name: node.name)
        }
        patch.replace(output, with: placed)
        return patch
    }
}

extension Patch {
    /// Adds a Linear for some columns of a projection, over rows of its weight and bias; nil where `value` is no projection, or one
    /// whose weight or bias is not constant.
    mutating func addProjection(_ rows: Range<Int>, of value: ValueID, suffix: String, in graph: Graph) throws -> ValueID? {
        guard let (linear, op) = graph.producer(of: value, Linear.self), let weight = linear.input(1),
            let matrix = graph.constant(of: weight),
            linear.input(2).map({ graph.constant(of: $0) != nil }) ?? true
        else { return nil }
        var operands = [linear.input(0), add(try matrix.rows(rows), name: "\(graph.name(of: weight)).\(suffix)")]
        if let bias = linear.input(2), let row = graph.constant(of: bias) {
            operands.append(add(try row.rows(rows), name: "\(graph.name(of: bias)).\(suffix)"))
        }
        return add(op, operands, name: "\(linear.name).\(suffix)")
    }
}
