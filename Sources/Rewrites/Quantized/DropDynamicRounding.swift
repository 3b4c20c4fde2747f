import ModelGraph

/// A rounding to integers and back as the model runs is dropped, as `LiftDynamicQuantization` drops it around a product of
/// integers.
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
