import ModelGraph
import Tensors

/// Products of x, rounded to integers as the model runs, with integer weights, as ONNX Runtime's dynamic quantization writes them,
/// become products of x itself with the numbers that the weight's integers represent. The layer then decides how x is rounded: see
/// `readScaledIntegers`.
struct LiftDynamicQuantization: Rewrite {
    let name = "dynamic quantization"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let output = node.outputs.first, let parts = parts(of: output, graph), let x = parts.quantizing.input(0),
            let weight = parts.product.input(1), let integers = graph.constant(of: weight)
        else { return nil }
        let (isConvolution, rank) = (parts.product.op is ConvInteger, integers.shape.count)
        guard rank >= 2, let count = isConvolution ? integers.shape.first : integers.shape.last,
            let scale = try factors(parts.scale, count, of: isConvolution ? rank - 2 : 0, graph)
        else { return nil }
        var patch = Patch(for: graph)
        var operands: [ValueID?] = [weight, patch.add(scale, name: graph.name(of: parts.scale))]
        if let zero = parts.product.input(3) {
            guard let zeros = try factors(zero, count, of: 0, graph), zeros.shape == scale.shape else { return nil }
            operands.append(patch.add(zeros, name: graph.name(of: zero)))
        }
        let dequantize = DequantizeLinear(axis: isConvolution ? 0 : -1)
        let numbers = patch.add(dequantize, operands, name: "\(parts.product.name).weight", outputName: graph.name(of: weight))
        let op: any Operator = (parts.product.op as? ConvInteger)?.convolution ?? MatMul()
        patch.replace(node, in: graph, with: op, [x, numbers], name: parts.product.name)
        return patch
    }

    /// The integer product, what makes the integers of x, and the scales of the weight.
    private func parts(of value: ValueID, _ graph: Graph) -> (product: Node, quantizing: Node, scale: ValueID)? {
        var factors = self.factors(of: value, graph)
        guard factors.count == 3, let sums = factors.firstIndex(where: { graph.producer(of: $0, Cast.self)?.op.to == .float32 }),
            let product = graph.producer(of: factors.remove(at: sums), Cast.self)?.node.input(0).flatMap(graph.producer(of:)),
            product.op is MatMulInteger || product.op is ConvInteger,
            let (quantizing, _) = graph.producer(of: product.input(0), DynamicQuantizeLinear.self),
            product.input(0) == quantizing.outputs[0], product.input(2) == quantizing.outputs[2],
            let own = factors.firstIndex(of: quantizing.outputs[1])
        else { return nil }
        factors.remove(at: own)
        return (product, quantizing, factors[0])
    }

    /// The factors of a product of products.
    private func factors(of value: ValueID, _ graph: Graph, depth: Int = 2) -> [ValueID] {
        guard depth > 0, let (a, b) = graph.operands(of: value, .mul) else { return [value] }
        return factors(of: a, graph, depth: depth - 1) + factors(of: b, graph, depth: depth - 1)
    }

    /// Constants, one or `count` of them, of rank 0 or 1.
    /// - Parameter axes: axes of size 1 after those that differ.
    private func factors(_ value: ValueID, _ count: Int, of axes: Int, _ graph: Graph) throws -> Constant? {
        guard let constant = graph.constant(of: value) else { return nil }
        if try elementCount(of: constant.shape) == 1 { return try constant.reshaped([]) }
        let axis = constant.shape.count - 1 - axes
        guard constant.shape.indices.allSatisfy({ constant.shape[$0] == ($0 == axis ? count : 1) }) else { return nil }
        return try constant.reshaped([count])
    }
}
