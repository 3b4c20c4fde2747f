// What operators have in common, for code that need not tell them apart.

extension Operator {
    /// True where the shape alone changes, neither the elements nor their order.
    package var isReshape: Bool {
        self is Reshape || self is Squeeze || self is Unsqueeze || self is Flatten || self is Identity
    }

    /// True where each element of the result comes from those at the same place, and nothing else changes.
    package var isElementwise: Bool { self is Cast || self is Unary || self is Binary || self is Where }

    /// True where each row of the last axis, or each element, is computed from its own row of the inputs alone.
    package var isRowwise: Bool {
        isLinear || self is LayerNorm || self is GELU || self is L2Normalize || self is Embedding || self is QuantizedEmbedding
            || self is Unary || self is Binary
    }

    /// True for a product of rows and a weight, whatever the type of the weight.
    package var isLinear: Bool { self is Linear || self is QuantizedLinear }

    /// True where the weights are integers with scales.
    package var isQuantized: Bool { self is QuantizedLinear || self is QuantizedEmbedding }
}
