import ModelGraph
import Support
import Tensors

/// (x - mean) / sqrt(variance + epsilon) · weight over the last axis, and ONNX's LayerNormalization, become LayerNorm.
struct FuseLayerNorm: Rewrite {
    let name = "layer norm"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        var patch = Patch(for: graph)
        guard let norm = try stated(node, graph) ?? weighted(node, graph, &patch) ?? shifted(node, graph, &patch) else {
            return nil
        }
        patch.replace(node, in: graph, with: norm.op, norm.operands)
        return patch
    }

    private typealias Norm = (op: LayerNorm, operands: [ValueID?])

    /// ONNX's own operator.
    private func stated(_ node: Node, _ graph: Graph) throws -> Norm? {
        guard let op = node.op as? LayerNormalization, let x = node.input(0), let scale = node.input(1),
            let width = graph.shape(of: x).last,
            try resolveAxis(op.axis, rank: graph.type(of: x).rank) == graph.type(of: x).rank - 1,
            graph.shape(of: scale) == [width], node.input(2).map({ graph.shape(of: $0) == [width] }) ?? true,
            node.outputs.dropFirst().allSatisfy({ graph.consumers(of: $0).isEmpty && !graph.isOutput($0) })
        else { return nil }
        return (LayerNorm(epsilon: op.epsilon), [x, scale] + (node.input(2).map { [$0] } ?? []))
    }

    /// What is normalised, times a row.
    private func weighted(_ node: Node, _ graph: Graph, _ patch: inout Patch) throws -> Norm? {
        for (value, scale) in graph.operandsInEitherOrder(of: node.outputs.first, .mul) {
            guard let (x, epsilon) = try normalized(value, graph), let width = graph.shape(of: x).last,
                graph.type(of: node.output) == graph.type(of: x), let weight = try graph.row(scale, width: width)
            else { continue }
            return (LayerNorm(epsilon: Float(epsilon)), [x, patch.add(weight, name: graph.name(of: scale))])
        }
        return nil
    }

    /// LayerNorm + constant row.
    private func shifted(_ node: Node, _ graph: Graph, _ patch: inout Patch) throws -> Norm? {
        for (value, shift) in graph.operandsInEitherOrder(of: node.outputs.first, .add) {
            guard let (norm, op) = graph.producer(of: value, LayerNorm.self), norm.input(2) == nil, graph.hasOneUse(value),
                let width = graph.shape(of: value).last, graph.type(of: node.output) == graph.type(of: value),
                let bias = try graph.row(shift, width: width)
            else { continue }
            return (op, [norm.input(0), norm.input(1), patch.add(bias, name: graph.name(of: shift))])
        }
        return nil
    }

    /// x and epsilon where a value is (x - mean x) / sqrt(variance of x + epsilon).
    private func normalized(_ value: ValueID, _ graph: Graph) throws -> (ValueID, Double)? {
        guard let (difference, variance) = try quotient(value, graph), let x = try centered(difference, graph) else { return nil }
        for (mean, constant) in graph.operandsInEitherOrder(of: variance, .add) {
            guard let number = try graph.number(constant), let (reduction, op) = graph.producer(of: mean, Reduce.self),
                op.kind == .mean, op.keepDimensions, let square = reduction.input(0),
                try graph.reducesLastAxis(reduction, of: square),
                let root = try squared(square, graph), try root == difference || centered(root, graph) == x
            else { continue }
            return (x, number)
        }
        return nil
    }

    /// a and b where a value is a / sqrt(b), in any of the forms that exporters write.
    private func quotient(_ value: ValueID, _ graph: Graph) throws -> (ValueID, ValueID)? {
        func root(_ value: ValueID) throws -> ValueID? {
            if let inner = graph.operand(of: value, .sqrt) { return inner }
            if let (base, exponent) = graph.operands(of: value, .pow), try graph.number(exponent) == 0.5 { return base }
            return nil
        }
        if let (a, b) = graph.operands(of: value, .div), let inner = try root(b) { return (a, inner) }
        for (a, b) in graph.operandsInEitherOrder(of: value, .mul) {
            if let inner = try graph.operand(of: b, .reciprocal).flatMap(root) { return (a, inner) }
            if let (one, divisor) = graph.operands(of: b, .div), try graph.number(one) == 1, let inner = try root(divisor) {
                return (a, inner)
            }
            if let (base, exponent) = graph.operands(of: b, .pow), try graph.number(exponent) == -0.5 { return (a, base) }
        }
        return nil
    }

    /// x where a value is x - mean of x's last axis.
    private func centered(_ value: ValueID, _ graph: Graph) throws -> ValueID? {
        guard let (x, mean) = graph.operands(of: value, .sub), let (reduction, op) = graph.producer(of: mean, Reduce.self),
            op.kind == .mean, op.keepDimensions, reduction.input(0) == x, try graph.reducesLastAxis(reduction, of: x)
        else { return nil }
        return x
    }

    private func squared(_ value: ValueID, _ graph: Graph) throws -> ValueID? {
        if let (base, exponent) = graph.operands(of: value, .pow), try graph.number(exponent) == 2 { return base }
        if let (a, b) = graph.operands(of: value, .mul), a == b { return a }
        return nil
    }
}
