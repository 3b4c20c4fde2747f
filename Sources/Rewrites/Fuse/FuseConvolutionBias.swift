import ModelGraph
import Tensors

/// Convolution + constant number for each channel becomes a convolution with bias.
struct FuseConvolutionBias: Rewrite {
    let name = "convolution's bias"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let (a, b) = graph.operands(of: node.outputs.first, .add) else { return nil }
        for (sum, numbers) in [(a, b), (b, a)] {
            guard let (conv, op) = graph.producer(of: sum, Conv.self), conv.input(2) == nil, graph.hasOneUse(sum),
                let bias = try channels(numbers, like: graph.shape(of: sum), graph)
            else { continue }
            var patch = Patch(for: graph)
            let operands = [conv.input(0), conv.input(1), patch.add(bias, name: graph.name(of: numbers))]
            patch.replace(node.output, with: patch.add(op, operands, name: conv.name, outputName: graph.name(of: node.output)))
            return patch
        }
        return nil
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
