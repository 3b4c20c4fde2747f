import ModelGraph

extension Graph {
    /// Makes attention over the results of int8 layers run in 8 bits, too.
    package mutating func quantizeAttention() throws {
        for node in nodes {
            guard var op = node.op as? Attention, let values = node.input(2).flatMap(producer(of:)),
                (values.op as? QuantizedLinear)?.activations == .int8
            else { continue }
            op.activations = .int8
            let results = try add(op, node.inputs, name: node.name, outputNames: [name(of: node.output)])
            replace(node.output, with: results[0])
        }
    }
}
