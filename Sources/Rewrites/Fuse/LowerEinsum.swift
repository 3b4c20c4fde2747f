import ModelGraph

/// A sum of products of two operands over one axis becomes a product of matrices, the form in which attention is recognised.
struct LowerEinsum: Rewrite {
    let name = "einsum"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let op = node.op as? Einsum, node.inputs.count == 2, let a = node.input(0), let b = node.input(1),
            graph.type(of: a).dataType.isFloatingPoint
        else { return nil }
        let plan = try op.plan(ranks: [a, b].map { graph.type(of: $0).rank })
        let (left, right) = (plan.terms[0], plan.terms[1])
        let shared = left.filter(right.contains)
        let (batch, summed) = (plan.output.filter(shared.contains), shared.filter { !plan.output.contains($0) })
        let (rows, columns) = (left.filter { !right.contains($0) }, right.filter { !left.contains($0) })
        guard Set(left).count == left.count, Set(right).count == right.count, summed.count == 1, rows.count == 1,
            columns.count == 1,
            (rows + columns).allSatisfy(plan.output.contains),
            size(of: shared, left, graph.shape(of: a)) == size(of: shared, right, graph.shape(of: b))
        else { return nil }
        var patch = Patch(for: graph)
        let first = patch.transpose(a, left, to: batch + rows + summed, node.name)
        let second = patch.transpose(b, right, to: batch + summed + columns, node.name)
        let product = patch.add(MatMul(), [first, second], name: node.name)
        patch.replace(node.output, with: patch.transpose(product, batch + rows + columns, to: plan.output, node.name))
        return patch
    }

    private func size(of axes: [Int], _ term: [Int], _ shape: [Dimension]) -> [Dimension] {
        axes.compactMap { term.firstIndex(of: $0).map { shape[$0] } }
    }
}

extension Patch {
    /// A value whose axes have these names, with them in another order.
    fileprivate mutating func transpose(_ value: ValueID, _ axes: [Int], to order: [Int], _ name: String) -> ValueID {
        axes == order ? value : add(Transpose(permutation: order.compactMap(axes.firstIndex)), [value], name: name)
    }
}
