import ModelGraph

/// Numbers that become integers as the model runs and numbers again are taken as they are, as `LiftDynamicQuantization` does where
/// the product between is one of integers.
struct DropDynamicRounding: Rewrite {
    let name = "dynamic roundings of activations"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard node.op is DequantizeLinear, let (rounding, _) = graph.producer(of: node.input(0), DynamicQuantizeLinear.self),
            node.inputs == rounding.outputs, let x = rounding.input(0)
        else { return nil }
        var patch = Patch(for: graph)
        patch.replace(node.output, with: x)
        return patch
    }
}
