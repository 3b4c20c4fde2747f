import ModelGraph

/// Makes elementwise operators work on what an expansion expands, and attention on a mask that is not expanded. Where
/// broadcasting makes the expansion anyway, it goes away; elsewhere it moves after the operator, so that a mask that was
/// written out for each query is seen to be one row for all of them.
struct SinkExpansions: Rewrite {
    let name = "sink expansions"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard node.isElementwise || node.op is Attention else { return nil }
        var inputs = node.inputs
        for index in node.isElementwise ? Array(inputs.indices) : [3] where inputs.indices.contains(index) {
            if let inner = graph.producer(of: inputs[index], Expand.self)?.node.input(0) { inputs[index] = inner }
        }
        guard inputs != node.inputs else { return nil }
        let shape = graph.shape(of: node.output)
        var patch = Patch(for: graph)
        if try !node.isElementwise || broadcastShape(inputs.compactMap { $0 }.map(graph.shape(of:))) == shape {
            patch.replace(node, in: graph, with: node.op, inputs)
            return patch
        }
        guard graph.tellsSizes(of: node.output, by: inputs.compactMap { $0 }) else { return nil }
        let result = patch.add(node.op, inputs, name: node.name)
        patch.replace(
            node.output, with: try patch.expand(result, to: shape, name: node.name, outputName: graph.name(of: node.output)))
        return patch
    }
}
