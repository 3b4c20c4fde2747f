import ModelGraph
import Support
import Tensors

extension Graph {
    /// Scores patches by the rows x that their keys are projected from, so that the projection can be quantized while the
    /// scores, which decide what is kept, come from its weights as they are.
    ///
    /// For a head with query q, q · (W x + b) = (Wᵀ q) · x + q · b, and the last term, the same for all patches, has no part
    /// in a softmax over them.
    func scoringBySources() throws -> Graph {
        var graph = self
        for id in try topologicalOrder().map(\.id) {
            guard let node = graph.node(id), var op = node.op as? PatchSelection, op.guidance != .random, !op.sharesKeys,
                let query = node.input(2),
                let projection = node.input(1).flatMap(producer(of:)), projection.op is Linear, let source = projection.input(0),
                let weight = projection.input(1).flatMap(constant(of:)), weight.shape.count == 2, weight.shape[0] % op.heads == 0
            else { continue }
            let (headSize, width) = (weight.shape[0] / op.heads, weight.shape[1])
            func shape(_ sizes: [Int]) throws -> ValueID {
                try graph.addKnown(
                    .dimensions(sizes.map { Dimension($0) }), ValueType(.int64, [Dimension(sizes.count)]),
                    name: "\(node.name).shape")
            }
            let byHead = try graph.addConstant(
                weight.reshaped([op.heads, headSize, width]), name: "\(name(of: projection.output)).by_head")
            let heads = try graph.add(Reshape(), [query, shape([-1, op.heads, 1, headSize])], name: "\(node.name).heads")[0]
            let projected = try graph.add(MatMul(), [heads, byHead], name: "\(node.name).query_over_sources")[0]
            let queries = try graph.add(Reshape(), [projected, shape([-1, op.heads * width])], name: "\(node.name).queries")[0]
            op.sharesKeys = true
            let inputs = [node.input(0), source, queries] + node.inputs.dropFirst(3)
            for (old, new) in zip(node.outputs, try graph.add(op, inputs, name: node.name)) { graph.replace(old, with: new) }
        }
        graph.prune()
        try graph.tidyNames()
        return graph
    }
}
