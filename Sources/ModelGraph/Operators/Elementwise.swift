import Support
import Tensors

/// Inputs: condition, booleans; x; y, of one type. All are broadcast. Output: x where the condition holds, else y.
package struct Where: Operator {
    package static let maximalInputs: Int? = 3
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let condition = try inputs.required(0, "condition").typed(.bool, "condition").type
        let x = try inputs.required(1, "x").type
        let y = try inputs.required(2, "y").typed(x.dataType, "y").type
        return [ValueType(x.dataType, try broadcastShape([condition.shape, x.shape, y.shape]))]
    }
}

/// Inputs: x; optional min; optional max, both scalars. Output: min(max(x, min), max).
package struct Clip: Operator {
    package static let maximalInputs: Int? = 3
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        guard x.dataType != .bool else { throw TripsError.data("data type of x", found: x, expected: "numbers") }
        for (index, name) in [(1, "min"), (2, "max")] {
            try inputs.optional(index)?.typed(x.dataType, name).single(name)
        }
        return [x]
    }
}

/// Another element type for the same numbers. Input: x.
package struct Cast: Operator {
    package var to: DataType

    package init(to: DataType) { self.to = to }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] { [ValueType(to, try inputs.required(0, "x").type.shape)] }
}

/// Input: x. Output: x.
package struct Identity: Operator {
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] { [try inputs.required(0, "x").type] }
}
