import Support
import Tensors

/// The product of matrices, with broadcast batches (NumPy's matmul). Inputs: a [..., M, K]; b [..., K, N].
package struct MatMul: Operator {
    package static let maximalInputs: Int? = 2
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let a = try inputs.required(0, "a").type
        let b = try inputs.required(1, "b").typed(a.dataType, "b").type
        guard a.dataType != .bool, let inner = a.shape.last, b.rank > 0 else {
            throw TripsError.data("factors", found: "\(a) and \(b)", expected: "numbers of rank 1 or more")
        }
        guard mayBeEqual(inner, b.shape[max(0, b.rank - 2)]) else {
            throw TripsError.data("inner sizes of a product", found: "\(a) and \(b)", expected: "equal")
        }
        var shape = try broadcastShape([a.shape.dropLast(2), b.shape.dropLast(2)].map { Array($0) })
        if a.rank > 1 { shape.append(a.shape[a.rank - 2]) }
        if b.rank > 1 { shape.append(b.shape[b.rank - 1]) }
        return [ValueType(a.dataType, shape)]
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard let inner = inputs[0]?.shape.last, let y = outputs.first else { return nil }
        return try product(y.shape).multiplied(by: inner)
    }
}

/// alpha · a' · b' + beta · c. Inputs: matrices a; b; optional c, which broadcasts to the output.
package struct Gemm: Operator {
    package static let maximalInputs: Int? = 3
    package var alpha: Float
    package var beta: Float
    /// a' is the transpose of a.
    package var transposeA: Bool
    /// b' is the transpose of b.
    package var transposeB: Bool

    package init(alpha: Float = 1, beta: Float = 1, transposeA: Bool = false, transposeB: Bool = false) {
        self.alpha = alpha
        self.beta = beta
        self.transposeA = transposeA
        self.transposeB = transposeB
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let a = try inputs.required(0, "a").ranked(2, "a").type
        let b = try inputs.required(1, "b").ranked(2, "b").typed(a.dataType, "b").type
        guard a.dataType != .bool, mayBeEqual(a.shape[transposeA ? 0 : 1], b.shape[transposeB ? 1 : 0]) else {
            throw TripsError.data("inner sizes of a product", found: "\(a) and \(b)", expected: "equal")
        }
        let shape = [a.shape[transposeA ? 1 : 0], b.shape[transposeB ? 0 : 1]]
        try inputs.optional(2)?.typed(a.dataType, "c").broadcasting(to: shape, "c")
        return [ValueType(a.dataType, shape)]
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard let a = inputs[0], let y = outputs.first else { return nil }
        return try product(y.shape).multiplied(by: a.shape[transposeA ? 0 : 1])
    }
}
