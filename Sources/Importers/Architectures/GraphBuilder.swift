import ModelGraph
import Support
import Tensors

/// Builds a graph of block operators over the tensors of a checkpoint. Nodes are named after the layers.
struct GraphBuilder {
    var graph: Graph
    let weights: Weights

    init(_ name: String, _ weights: Weights) {
        graph = Graph(name: name)
        self.weights = weights
    }

    static let batch = Dimension(symbol: "batch")
    static let textLength = Dimension(symbol: "text_length")

    mutating func constant(_ constant: Constant, _ name: String) throws -> ValueID {
        try graph.addConstant(constant, name: name)
    }

    /// Integers that operators take as operands.
    mutating func integers(_ numbers: [Int], _ name: String) throws -> ValueID {
        try graph.addConstant(Constant(integers: numbers, shape: [numbers.count]), name: name)
    }

    mutating func node(_ op: any Operator, _ inputs: [ValueID?], _ name: String) throws -> ValueID {
        try graph.add(op, inputs, name: name)[0]
    }

    mutating func add(_ left: ValueID, _ right: ValueID, _ name: String) throws -> ValueID {
        try node(Binary(.add), [left, right], name)
    }

    /// y = x · Wᵀ + b with the tensors PREFIX.weight and PREFIX.bias.
    mutating func linear(_ x: ValueID, _ prefix: String, outputs: Int, inputs: Int) throws -> ValueID {
        try linear(x, prefix, weights.take("\(prefix).weight", [outputs, inputs]), weights.take("\(prefix).bias", [outputs]))
    }

    mutating func linear(_ x: ValueID, _ name: String, _ weight: Constant, _ bias: Constant) throws -> ValueID {
        let inputs = [x, try constant(weight, "\(name).weight"), try constant(bias, "\(name).bias")]
        return try node(Linear(), inputs, name)
    }

    mutating func layerNorm(_ x: ValueID, _ prefix: String, width: Int, epsilon: Float) throws -> ValueID {
        let weight = try constant(weights.take("\(prefix).weight", [width]), "\(prefix).weight")
        let bias = try constant(weights.take("\(prefix).bias", [width]), "\(prefix).bias")
        return try node(LayerNorm(epsilon: epsilon), [x, weight, bias], prefix)
    }

    /// The states at one position: x[:, index].
    mutating func position(_ index: Int, of x: ValueID, _ name: String) throws -> ValueID {
        try node(Gather(axis: 1), [x, constant(Constant(integers: [index], shape: []), "\(name).index")], name)
    }

    /// The size of an axis, as an operand of rank 1.
    mutating func size(of x: ValueID, axis: Int, _ name: String) throws -> ValueID {
        try node(Shape(start: axis, end: axis + 1), [x], name)
    }

    /// x[:, start ..< end] along axis 1.
    mutating func slice(_ x: ValueID, from start: ValueID, to end: ValueID, _ name: String) throws -> ValueID {
        try node(Slice(), [x, start, end, integers([1], "\(name).axes")], name)
    }

    /// A mask [B, N] of ones for states [B, N, D].
    mutating func ones(for states: ValueID, _ name: String) throws -> ValueID {
        let shape = try node(Shape(start: 0, end: 2), [states], "\(name).shape")
        return try node(ConstantOfShape(), [shape, integers([1], "\(name).value")], name)
    }

    /// Ids or a mask: int64 [batch, length].
    mutating func tokenInput(_ name: String, _ length: Dimension) throws -> ValueID {
        try graph.addInput(name, ValueType(.int64, [GraphBuilder.batch, length]))
    }
}
