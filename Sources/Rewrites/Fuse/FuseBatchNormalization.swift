import ModelGraph
import Tensors

/// A convolution that is normalised by stated statistics becomes one with other weights.
struct FuseBatchNormalization: Rewrite {
    let name = "batch normalization"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let op = node.op as? BatchNormalization, let x = node.input(0), let (conv, convOp) = graph.producer(of: x, Conv.self),
            graph.hasOneUse(x), let weight = conv.input(1), let outputs = graph.shape(of: weight).first,
            let scale = node.input(1), let shift = node.input(2), let mean = node.input(3), let variance = node.input(4),
            ([weight, scale, shift, mean, variance] + [conv.input(2)].compactMap { $0 }).allSatisfy({ isWeight($0, graph) })
        else { return nil }
        var patch = Patch(for: graph)
        func binary(_ kind: Binary.Kind, _ a: ValueID, _ b: ValueID) -> ValueID {
            patch.add(Binary(kind), [a, b], name: node.name)
        }
        let number = Constant(try Tensor(scalar: op.epsilon), identity: "float32 \(op.epsilon)")
        let epsilon = patch.add(number, name: "\(node.name).epsilon")
        let deviation = patch.add(Unary(.sqrt), [binary(.add, variance, epsilon)], name: node.name)
        let factor = binary(.div, scale, deviation)
        let ones = Array(repeating: Dimension(1), count: graph.shape(of: weight).count - 1)
        let rows = try patch.reshape(factor, to: [outputs] + ones, name: node.name)
        let start = conv.input(2).map { binary(.sub, $0, mean) } ?? patch.add(Unary(.neg), [mean], name: node.name)
        let bias = binary(.add, binary(.mul, start, factor), shift)
        let scaled = binary(.mul, weight, rows)
        patch.replace(node, in: graph, with: convOp, [conv.input(0), scaled, bias], name: conv.name)
        return patch
    }

    private func isWeight(_ value: ValueID, _ graph: Graph) -> Bool {
        graph.content(of: value) != nil && graph.type(of: value).dataType == .float32 && graph.type(of: value).constantShape != nil
    }
}
