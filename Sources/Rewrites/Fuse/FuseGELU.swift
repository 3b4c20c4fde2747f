import ModelGraph
import Support

/// The exact GELU by erf, its approximation by tanh, and the quick one by sigmoid, in whatever order their factors come.
struct FuseGELU: Rewrite {
    let isClose: Closeness
    let name = "gelu"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let output = node.outputs.first, let (x, form) = try gelu(output, graph), graph.type(of: x) == graph.type(of: output)
        else { return nil }
        var patch = Patch(for: graph)
        patch.replace(node, in: graph, with: GELU(form), [x])
        return patch
    }

    private func gelu(_ value: ValueID, _ graph: Graph) throws -> (ValueID, GELU.Form)? {
        if let (node, op) = graph.producer(of: value, Unary.self), op.kind == .swish, let x = node.input(0) {
            return isClose(Double(op.alpha ?? 1), 1.702) ? (x, .quick) : nil
        }
        guard graph.producer(of: value, Binary.self) != nil else { return nil }
        var (factors, scale) = ([ValueID](), 1.0)
        try collectFactors(value, graph, &factors, &scale, depth: 6)
        guard factors.count == 2 else { return nil }
        for (x, gate) in [(factors[0], factors[1]), (factors[1], factors[0])] {
            if let argument = graph.operand(of: gate, .sigmoid), isClose(scale, 1),
                try isPolynomial(argument, of: x, [1: 1.702], graph)
            {
                return (x, .quick)
            }
            for (one, function) in graph.operandsInEitherOrder(of: gate, .add) {
                // The gate is 1 + f or, where the factor was multiplied in, 0.5 + 0.5 f.
                guard let offset = try graph.number(one), isClose(scale * offset, 0.5) else { continue }
                let (inner, factor) = try graph.scaled(function).map { ($0.value, $0.by) } ?? (function, 1)
                guard isClose(factor, offset) else { continue }
                if let argument = graph.operand(of: inner, .erf), try isPolynomial(argument, of: x, [1: 0.5.squareRoot()], graph) {
                    return (x, .erf)
                }
                let root = (2 / Double.pi).squareRoot()
                if let argument = graph.operand(of: inner, .tanh),
                    try isPolynomial(argument, of: x, [1: root, 3: 0.044715 * root], graph)
                {
                    return (x, .tanh)
                }
            }
        }
        return nil
    }

    private func collectFactors(_ value: ValueID, _ graph: Graph, _ factors: inout [ValueID], _ scale: inout Double, depth: Int)
        throws
    {
        if depth > 0, let (inner, factor) = try graph.scaled(value) {
            scale *= factor
            try collectFactors(inner, graph, &factors, &scale, depth: depth - 1)
        } else if depth > 0, factors.count < 3, let (a, b) = graph.operands(of: value, .mul) {
            try collectFactors(a, graph, &factors, &scale, depth: depth - 1)
            try collectFactors(b, graph, &factors, &scale, depth: depth - 1)
        } else {
            factors.append(value)
        }
    }

    private func isPolynomial(_ value: ValueID, of x: ValueID, _ expected: [Int: Double], _ graph: Graph) throws -> Bool {
        guard let found = try polynomial(value, of: x, graph, depth: 8)?.filter({ $0.value != 0 }), found.keys == expected.keys
        else { return false }
        return expected.allSatisfy { power, coefficient in isClose(found[power] ?? 0, coefficient) }
    }

    /// The coefficients of a value as a polynomial of x, by power.
    private func polynomial(_ value: ValueID, of x: ValueID, _ graph: Graph, depth: Int) throws -> [Int: Double]? {
        if value == x { return [1: 1] }
        if let number = try graph.number(value) { return [0: number] }
        guard depth > 0 else { return nil }
        func operands(_ kind: Binary.Kind) throws -> ([Int: Double], [Int: Double])? {
            guard let (a, b) = graph.operands(of: value, kind), let left = try polynomial(a, of: x, graph, depth: depth - 1),
                let right = try polynomial(b, of: x, graph, depth: depth - 1)
            else { return nil }
            return (left, right)
        }
        func product(_ left: [Int: Double], _ right: [Int: Double]) -> [Int: Double] {
            var result: [Int: Double] = [:]
            for (power, coefficient) in left {
                for (other, factor) in right { result[power + other, default: 0] += coefficient * factor }
            }
            return result
        }
        if let (left, right) = try operands(.add) { return left.merging(right, uniquingKeysWith: +) }
        if let (left, right) = try operands(.mul) { return product(left, right) }
        if let (left, right) = try operands(.div), right.keys.elementsEqual([0]), let divisor = right[0], divisor != 0 {
            return left.mapValues { $0 / divisor }
        }
        if let (left, right) = try operands(.pow), right.keys.elementsEqual([0]), let exponent = right[0],
            exponent == 2 || exponent == 3
        {
            return exponent == 2 ? product(left, left) : product(left, product(left, left))
        }
        return nil
    }
}
