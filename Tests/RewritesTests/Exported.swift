import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// Builds small graphs of primitives, as exporters write them, with numbers that do not repeat.
struct Exported {
    var graph = Graph(name: "main")
    var inputs: [String: Tensor] = [:]
    private var seed: UInt64 = 42

    mutating func numbers(_ shape: [Int], scale: Double = 1) throws -> Tensor {
        let values = try (0..<elementCount(of: shape)).map { _ -> Float in
            seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Float((Double(seed >> 40) / Double(1 << 24) - 0.5) * 2 * scale)
        }
        return try Tensor(values, shape: shape)
    }

    mutating func input(_ name: String, _ shape: [Int], dimensions: [Dimension]? = nil) throws -> ValueID {
        inputs[name] = try numbers(shape)
        return try graph.addInput(name, ValueType(.float32, dimensions ?? shape.map { Dimension($0) }))
    }

    mutating func mask(_ name: String, _ rows: [[Int64]], dimensions: [Dimension]? = nil) throws -> ValueID {
        let shape = [rows.count, rows.first?.count ?? 0]
        inputs[name] = try Tensor(rows.flatMap { $0 }, shape: shape)
        return try graph.addInput(name, ValueType(.int64, dimensions ?? shape.map { Dimension($0) }))
    }

    mutating func constant(_ shape: [Int], scale: Double = 0.5) throws -> ValueID {
        let tensor = try numbers(shape, scale: scale)
        return try graph.addConstant(Constant(tensor, identity: "constant \(seed)"), name: "constant")
    }

    mutating func scalar(_ number: Float) throws -> ValueID {
        try graph.addConstant(Constant(Tensor(scalar: number), identity: "float \(number)"), name: "scalar")
    }

    mutating func integers(_ numbers: [Int], scalar: Bool = false) throws -> ValueID {
        let tensor = try Tensor(numbers.map { Int64($0) }, shape: scalar ? [] : [numbers.count])
        return try graph.addConstant(Constant(tensor, identity: "integers \(numbers) \(scalar)"), name: "integers")
    }

    mutating func node(_ op: any Operator, _ inputs: [ValueID?]) throws -> ValueID {
        try graph.add(op, inputs, name: "\(type(of: op))")[0]
    }

    mutating func binary(_ kind: Binary.Kind, _ a: ValueID, _ b: ValueID) throws -> ValueID { try node(Binary(kind), [a, b]) }
    mutating func unary(_ kind: Unary.Kind, _ x: ValueID) throws -> ValueID { try node(Unary(kind), [x]) }
    mutating func reshape(_ x: ValueID, _ shape: [Int]) throws -> ValueID { try node(Reshape(), [x, integers(shape)]) }
    mutating func transpose(_ x: ValueID, _ permutation: [Int]) throws -> ValueID {
        try node(Transpose(permutation: permutation), [x])
    }

    /// start, start + 1, … up to the size of an axis of `x`, of rank 1
    mutating func places(_ x: ValueID, axis: Int, from start: Int = 0) throws -> ValueID {
        let size = try node(Gather(axis: 0), [node(Shape(), [x]), integers([axis], scalar: true)])
        let limit = try start == 0 ? size : binary(.add, size, integers([start], scalar: true))
        return try node(Arange(), [integers([start], scalar: true), limit, integers([1], scalar: true)])
    }

    /// x · W + b
    mutating func linear(_ x: ValueID, _ from: Int, _ to: Int) throws -> ValueID {
        try binary(.add, constant([to]), node(MatMul(), [x, constant([from, to])]))
    }

    mutating func output(_ value: ValueID) throws { try graph.addOutput("y\(graph.outputs.count)", value) }

    /// The operators that fold and fuse leave, sorted; the numbers must have stayed.
    func fused(tolerance: Double = 1e-5) throws -> [String] {
        let before = try outputs(graph, inputs, folding: false)
        var graph = graph
        try graph.fold()
        try graph.fuse(validating: true)
        let after = try outputs(graph, inputs)
        for (name, expected) in before {
            let beyond = try excess(after[name], expected, tolerance, tolerance)
            #expect(beyond <= 0, "\(name) by \(beyond)")
        }
        return graph.nodes.map { "\(type(of: $0.op))" }.sorted()
    }

    /// softmax(q · kᵀ) · v over heads [B, H, L, d], and back to [B, L, D].
    /// - Parameter guard: what weights that are NaN (inverted: that are not) are replaced by.
    mutating func attend(
        _ q: ValueID, _ k: ValueID, _ v: ValueID, guard: (number: Float, inverted: Bool)? = nil,
        length: Int = 5, scores: (inout Exported, ValueID) throws -> ValueID
    ) throws -> ValueID {
        let turned = try transpose(k, [0, 1, 3, 2])
        var weights = try node(Softmax(axis: -1), [scores(&self, node(MatMul(), [q, turned]))])
        if let (number, inverted) = `guard` {
            let (isNaN, replaced) = (try unary(.isNaN, weights), try scalar(number))
            weights = try node(Where(), inverted ? [isNaN, weights, replaced] : [isNaN, replaced, weights])
        }
        return try reshape(transpose(node(MatMul(), [weights, v]), [0, 2, 1, 3]), [2, length, 8])
    }

    mutating func heads(_ x: ValueID, _ length: Int = 5) throws -> ValueID {
        try transpose(reshape(linear(x, 8, 8), [2, length, 2, 4]), [0, 2, 1, 3])
    }
}
