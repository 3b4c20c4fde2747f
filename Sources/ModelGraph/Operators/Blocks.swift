import Support
import Tensors

// The operators that the field thinks in. Importers of checkpoints build them directly; the fusions lift what ONNX
// exporters write into them. Notation of shapes: B batch, N image tokens, L text tokens, D width.

/// y = x · Wᵀ + b over the last axis.
///
/// Inputs: x [..., K]; weight [N, K], a row for each output; optional bias [N]. Output [..., N].
package struct Linear: Operator {
    package static let maximalInputs: Int? = 3
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        let weight = try inputs.required(1, "weight").typed(x.dataType, "weight").ranked(2, "weight").type
        return [try linearType(x, outputs: weight.shape[0], inputs: weight.shape[1], bias: inputs.optional(2))]
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard let weight = inputs[1], let y = outputs.first else { return nil }
        return try product(y.shape).multiplied(by: weight.shape[1])
    }
}

private func linearType(_ x: ValueType, outputs: Dimension, inputs: Dimension, bias: Operand?) throws -> ValueType {
    guard let width = x.shape.last, mayBeEqual(width, inputs) else {
        throw TripsError.data("width of x", found: x, expected: "last dimension \(inputs)")
    }
    try bias?.typed(x.dataType, "bias").shaped([outputs], "bias")
    return ValueType(x.dataType, x.shape.dropLast() + [outputs])
}

/// How a quantized layer treats its activations.
package enum ActivationPrecision: String, Sendable, Hashable, NamedChoice {
    /// Rows are quantized to int8 as the model runs; products are summed up in 32-bit integers.
    case int8
    /// Weights, where there are any, are widened when they are loaded; all arithmetic is fp32.
    case float32
}

/// `Linear` with int8 weights: y = (x ⊙ s) · (scale ⊙ W)ᵀ + b.
///
/// Inputs: x [..., K]; weight int8 [N, K]; scales [N, G], one for each output and group of K/G inputs (the last group may be
/// shorter: group g starts at g · groupSize); optional bias [N]; optional input scale s [K]. All but the weight are float32.
package struct QuantizedLinear: Operator {
    package static let maximalInputs: Int? = 5
    /// Inputs that share a scale.
    package var groupSize: Int
    /// How x is multiplied: rounded to int8 by rows, or in float32 by the widened weights.
    package var activations: ActivationPrecision

    package init(groupSize: Int, activations: ActivationPrecision) {
        self.groupSize = groupSize
        self.activations = activations
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").typed(.float32, "x").type
        let weight = try inputs.required(1, "weight").ranked(2, "weight").type
        guard weight.dataType == .int8, let width = weight.shape[1].constant, groupSize > 0 else {
            throw TripsError.data(
                "quantized weight", found: "\(weight), groups of \(groupSize)", expected: "int8, groups of 1 or more")
        }
        let groups = Dimension(width.dividedRoundingUp(by: groupSize))
        try inputs.required(2, "scales").typed(.float32, "scales").shaped([weight.shape[0], groups], "scales")
        try inputs.optional(4)?.typed(.float32, "input scale").shaped([weight.shape[1]], "input scale")
        return [try linearType(x, outputs: weight.shape[0], inputs: weight.shape[1], bias: inputs.optional(3))]
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        try Linear().multiplyAccumulates(inputs, outputs)
    }
}

/// Normalises the last axis to mean 0 and variance 1, then scales and shifts (Ba et al. 2016).
///
/// Inputs: x [..., D]; weight [D]; optional bias [D]. Output as x.
package struct LayerNorm: Operator {
    package static let maximalInputs: Int? = 3
    /// Added to the variance.
    package var epsilon: Float

    package init(epsilon: Float) { self.epsilon = epsilon }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        guard let width = x.shape.last else { throw TripsError.data("rank of x", found: x, expected: "1 or more") }
        try inputs.required(1, "weight").typed(x.dataType, "weight").shaped([width], "weight")
        try inputs.optional(2)?.typed(x.dataType, "bias").shaped([width], "bias")
        return [x]
    }
}

/// Gaussian error linear units (Hendrycks and Gimpel 2016).
package struct GELU: Operator {
    /// How Φ, the distribution function of the normal distribution, is computed.
    package enum Form: String, Sendable, Hashable, NamedChoice {
        /// x · Φ(x), by the error function.
        case erf
        /// 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))
        case tanh
        /// x · sigmoid(1.702 x)
        case quick
    }
    package var form: Form

    package init(_ form: Form) { self.form = form }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] { [try inputs.required(0, "x").floating("x").type] }
}

/// Divides the rows of the last axis by their Euclidean length, or by epsilon where that is longer.
package struct L2Normalize: Operator {
    /// The least length that is divided by.
    package var epsilon: Float

    package init(epsilon: Float) { self.epsilon = epsilon }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] { [try inputs.required(0, "x").floating("x").type] }
}

/// Looks up rows of tables and adds them: words, positions and token types of BERT.
///
/// Inputs: ids [B, L], integers; table [V, D]; optional positions that broadcast to [B, L, D]; optional token types, the
/// same. Output [B, L, D].
package struct Embedding: Operator {
    package static let maximalInputs: Int? = 4
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let table = try inputs.required(1, "table").floating("table").ranked(2, "table").type
        return [try embeddingType(inputs.required(0, "ids"), table.shape[1], table.dataType, inputs.dropFirst(2))]
    }
}

/// `Embedding` with an int8 table and a scale for each row.
///
/// Inputs: ids [B, L]; table int8 [V, D]; scales float32 [V]; optional positions; optional token types. Output float32.
package struct QuantizedEmbedding: Operator {
    package static let maximalInputs: Int? = 5
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let table = try inputs.required(1, "table").ranked(2, "table").type
        guard table.dataType == .int8 else { throw TripsError.data("quantized table", found: table, expected: "int8") }
        try inputs.required(2, "scales").typed(.float32, "scales").shaped([table.shape[0]], "scales")
        return [try embeddingType(inputs.required(0, "ids"), table.shape[1], .float32, inputs.dropFirst(3))]
    }
}

private func embeddingType(
    _ ids: Operand, _ width: Dimension, _ dataType: DataType, _ addends: ArraySlice<Operand?>
) throws -> ValueType {
    guard ids.type.dataType.isInteger else { throw TripsError.data("ids", found: ids.type, expected: "integers") }
    let shape = ids.type.shape + [width]
    for case (let name, let addend?) in zip(["positions", "token types"], addends) {
        try addend.typed(dataType, name)
        if let tokens = shape.dropLast().last?.constant, let rows = addend.type.shape.dropLast().last?.constant, rows > 1,
            tokens > rows
        {
            throw TripsError.data("more tokens than \(name)", found: tokens, expected: "at most \(rows)")
        }
        try addend.broadcasting(to: shape, "\(name) beside the ids")
    }
    return ValueType(dataType, shape)
}

/// Turns a mask of ones and zeros into addends for attention scores: (1 - m) · maskedValue.
///
/// Input: mask [B, L], integers, booleans or floating point. Output float32: [B, 1, 1, L], or [B, 1, L, L] where causal:
/// 1 where m holds and the key is not after the query, as BERT's decoder mode makes it.
package struct PaddingMask: Operator {
    /// Addend for a key that no query may see.
    package var maskedValue: Float
    /// Queries see no later keys either.
    package var causal: Bool

    package init(maskedValue: Float, causal: Bool = false) {
        self.maskedValue = maskedValue
        self.causal = causal
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let mask = try inputs.required(0, "mask").ranked(2, "mask").type
        return [ValueType(.float32, [mask.shape[0], 1, causal ? mask.shape[1] : 1, mask.shape[1]])]
    }
}
