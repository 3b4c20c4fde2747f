import ModelGraph

/// x / max(|x|, epsilon) over the last axis becomes L2Normalize.
struct FuseL2Normalize: Rewrite {
    let isClose: Closeness
    let name = "L2 normalisation"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let (x, divisor) = graph.operands(of: node.outputs.first, .div), graph.type(of: x) == graph.type(of: node.output)
        else { return nil }
        var length = divisor
        if let (expand, _) = graph.producer(of: length, Expand.self), let inner = expand.input(0) { length = inner }
        var epsilon = 0.0
        if let (clip, _) = graph.producer(of: length, Clip.self), clip.input(2) == nil, let inner = clip.input(0),
            let bound = try graph.number(clip.input(1))
        {
            (length, epsilon) = (inner, bound)
        } else if let (inner, bound) = try graph.operandsInEitherOrder(of: length, .max).first(where: {
            try graph.number($0.0) == nil
        }),
            let number = try graph.number(bound)
        {
            (length, epsilon) = (inner, number)
        }
        // The usual epsilon is 0 in 16 bits.
        if isClose.isNarrow, epsilon < 1e-12 { epsilon = 1e-12 }
        guard epsilon >= 0, try isLength(length, of: x, graph) else { return nil }
        var patch = Patch(for: graph)
        patch.replace(node, in: graph, with: L2Normalize(epsilon: Float(epsilon)), [x])
        return patch
    }

    private func isLength(_ value: ValueID, of x: ValueID, _ graph: Graph) throws -> Bool {
        if let (reduce, op) = graph.producer(of: value, Reduce.self), op.kind == .l2, op.keepDimensions, reduce.input(0) == x {
            return try graph.reducesLastAxis(reduce, of: x)
        }
        guard let sum = try graph.operand(of: value, .sqrt) ?? power(value, 0.5, graph),
            let (reduce, op) = graph.producer(of: sum, Reduce.self),
            op.keepDimensions, let summand = reduce.input(0), try graph.reducesLastAxis(reduce, of: summand)
        else { return false }
        if op.kind == .sumSquare { return summand == x }
        guard op.kind == .sum else { return false }
        if let (a, b) = graph.operands(of: summand, .mul) { return a == x && b == x }
        return try power(summand, 2, graph) == x
    }

    private func power(_ value: ValueID, _ exponent: Double, _ graph: Graph) throws -> ValueID? {
        guard let (base, found) = graph.operands(of: value, .pow), try graph.number(found) == exponent else { return nil }
        return base
    }
}
