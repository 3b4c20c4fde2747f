import ModelGraph

/// x · sigmoid(x)
struct FuseSwish: Rewrite {
    let name = "swish"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        let orders = graph.operandsInEitherOrder(of: node.outputs.first, .mul)
        guard let (x, gate) = orders.first(where: { graph.operand(of: $0.0, .sigmoid) == nil }),
            graph.operand(of: gate, .sigmoid) == x, graph.hasOneUse(gate)
        else { return nil }
        var patch = Patch(for: graph)
        patch.replace(node, in: graph, with: Unary(.swish), [x])
        return patch
    }
}
