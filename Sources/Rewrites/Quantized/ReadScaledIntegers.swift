import ModelGraph
import Tensors

extension Graph {
    /// Makes linear layers and embeddings whose weights a source has as integers read those. It comes last: other rewrites
    /// recognise and change layers with floating-point weights.
    /// - Returns: how often that was done.
    @discardableResult
    package mutating func readScaledIntegers(arithmetic: SourceArithmetic) throws -> AuditTrail {
        var trail = AuditTrail()
        trail.add(try rewrite([ReadScaledIntegers(activations: arithmetic.layers)]))
        if arithmetic.attention == .int8 { try quantizeAttention() }
        prune()
        try tidyNames()
        return trail
    }
}

private struct ReadScaledIntegers: Rewrite {
    let activations: ActivationPrecision
    let name = "weights as integers"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard node.op is Linear || node.op is Embedding, let weight = node.input(1),
            let found = graph.constant(of: weight)?.scaledIntegers, found.integers.shape[1] > 0
        else { return nil }
        let centred = try found.aroundZero()
        // In a linear layer the zero point would add a multiple of the sum over x, which depends on the input; in a table it
        // adds one number.
        guard let parts = centred ?? (node.op is Embedding && found.scales.shape == [1] ? found : nil),
            let scales = try parts.rowScales()
        else { return nil }
        let (outputs, inputs, name) = (parts.integers.shape[0], parts.integers.shape[1], graph.name(of: weight))
        var patch = Patch(for: graph)
        let integers = patch.add(parts.integers, name: "\(name).int8")
        if node.op is Linear {
            let factors = patch.add(try scales.reshaped([outputs, 1]), name: "\(name).scales")
            let op = QuantizedLinear(groupSize: inputs, activations: activations)
            patch.replace(node, in: graph, with: op, [node.input(0), integers, factors, node.input(2)])
            return patch
        }
        let operands = [node.input(0), integers, patch.add(scales, name: "\(name).scales")] + node.inputs.dropFirst(2)
        guard parts.zero != 0 else {
            patch.replace(node, in: graph, with: QuantizedEmbedding(), operands)
            return patch
        }
        let rows = patch.add(QuantizedEmbedding(), operands, name: node.name)
        let offset = Constant.derived("times \(-parts.zero)", from: [parts.scales], .float32, []) { tensors in
            try Tensor(scalar: Float(-parts.zero) * tensors[0].elements(Float.self)[0])
        }
        patch.replace(node, in: graph, with: Binary(.add), [rows, patch.add(offset, name: "\(name).offset")])
        return patch
    }
}
