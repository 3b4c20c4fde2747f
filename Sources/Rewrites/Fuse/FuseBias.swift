import ModelGraph
import Tensors

/// Linear + constant row becomes Linear with bias, and convolution + constant number for each channel a convolution with bias.
struct FuseBias: Rewrite {
    let name = "bias"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        for (sum, numbers) in graph.operandsInEitherOrder(of: node.outputs.first, .add) {
            guard graph.content(of: sum) == nil, let layer = graph.producer(of: sum), layer.input(2) == nil, graph.hasOneUse(sum),
                graph.shape(of: node.output).count == graph.shape(of: sum).count, let bias = try bias(numbers, of: layer, graph)
            else { continue }
            var patch = Patch(for: graph)
            let operands = [layer.input(0), layer.input(1), patch.add(bias, name: graph.name(of: numbers))]
            patch.replace(node, in: graph, with: layer.op, operands, name: layer.name)
            return patch
        }
        return nil
    }

    /// What is added to a layer's result, as its bias; nil where that is none.
    private func bias(_ numbers: ValueID, of layer: Node, _ graph: Graph) throws -> Constant? {
        let shape = graph.shape(of: layer.output)
        switch layer.op {
        case is Linear: return try shape.last.flatMap { try graph.row(numbers, width: $0) }
        case is Conv: return try channels(numbers, like: shape, graph)
        default: return nil
        }
    }

    /// A constant [1, C, 1, ...], the first axis or not, as [C].
    private func channels(_ value: ValueID, like shape: [Dimension], _ graph: Graph) throws -> Constant? {
        guard let constant = graph.constant(of: value), constant.shape.count <= shape.count, let count = shape[1].constant,
            constant.shape.count >= shape.count - 1
        else { return nil }
        let axis = constant.shape.count - shape.count + 1
        guard constant.shape.indices.allSatisfy({ constant.shape[$0] == ($0 == axis ? count : 1) }) else { return nil }
        return try constant.reshaped([count])
    }
}
