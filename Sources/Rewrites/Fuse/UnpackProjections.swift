import ModelGraph

/// Makes an attention whose operands are slices of a packed projection read projections of their own. FuseAttention makes
/// them itself, unless there was a view between projection and heads that a later rewrite removed.
struct UnpackProjections: Rewrite {
    let name = "packed projections"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard node.op is Attention else { return nil }
        for (operand, suffix) in zip(node.inputs, ["query", "key", "value"]) {
            guard let operand, let slice = graph.producer(of: operand, Slice.self)?.node, let packed = slice.input(0),
                let ranges = try graph.sliceRanges(slice), ranges.count == 1, ranges[0].axis == graph.type(of: packed).rank - 1,
                let start = ranges[0].start.constant, let count = ranges[0].count.constant
            else { continue }
            var patch = Patch(for: graph)
            guard let projection = try patch.addProjection(start..<start + count, of: packed, suffix: suffix, in: graph) else {
                continue
            }
            patch.replace(operand, with: projection)
            return patch
        }
        return nil
    }
}
