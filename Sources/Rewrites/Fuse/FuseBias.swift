import ModelGraph

/// Linear + constant row becomes Linear with bias.
struct FuseBias: Rewrite {
    let name = "bias"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let (a, b) = graph.operands(of: node.outputs.first, .add) else { return nil }
        for (sum, row) in [(a, b), (b, a)] {
            guard let (linear, op) = graph.producer(of: sum, Linear.self), linear.input(2) == nil, graph.hasOneUse(sum),
                let width = graph.shape(of: sum).last, let bias = try graph.row(row, width: width),
                graph.shape(of: node.output).count == graph.shape(of: sum).count
            else { continue }
            var patch = Patch(for: graph)
            let biasValue = patch.add(bias, name: graph.name(of: row))
            patch.replace(node, in: graph, with: op, [linear.input(0), linear.input(1), biasValue], name: linear.name)
            return patch
        }
        return nil
    }
}
