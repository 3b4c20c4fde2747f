import ModelGraph

/// What a source computes in 8 bits, besides having weights as integers.
package struct SourceArithmetic: Sendable {
    /// How linear layers treat what they read.
    package var layers: ActivationPrecision
    /// How attention computes its products.
    package var attention: ActivationPrecision

    package init(layers: ActivationPrecision = .float32, attention: ActivationPrecision = .float32) {
        self.layers = layers
        self.attention = attention
    }

    /// - Parameter graph: as imported, folded but not fused.
    package init(of graph: Graph) {
        self.init()
        func isRounded(_ value: ValueID?) -> Bool {
            guard let (node, _) = graph.producer(of: value, DequantizeLinear.self) else { return false }
            return graph.producer(of: node.input(0), QuantizeLinear.self) != nil
        }
        if graph.nodes.contains(where: { $0.op is DynamicQuantizeLinear || $0.op is QuantizeLinear }) { layers = .int8 }
        if graph.nodes.contains(where: { $0.op is MatMul && isRounded($0.input(0)) && isRounded($0.input(1)) }) {
            attention = .int8
        }
    }
}
