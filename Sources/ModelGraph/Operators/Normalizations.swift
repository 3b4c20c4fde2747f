import Support
import Tensors

/// Normalises over the axes from `axis` on to mean 0 and variance 1, then scales and shifts.
///
/// Inputs: x; scale; optional bias, which broadcast to x. Outputs: as x; with statistics also the mean and the inverse
/// standard deviation, float32.
package struct LayerNormalization: Operator {
    package static let maximalInputs: Int? = 3
    /// Negative: counted from the last.
    package var axis: Int
    /// Added to the variance.
    package var epsilon: Float
    /// Mean and inverse standard deviation are outputs, too.
    package var statistics: Bool

    package init(axis: Int = -1, epsilon: Float = 1e-5, statistics: Bool = false) {
        self.axis = axis
        self.epsilon = epsilon
        self.statistics = statistics
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        let axis = try resolveAxis(axis, rank: x.rank)
        try inputs.required(1, "scale").typed(x.dataType, "scale").broadcasting(to: x.shape, "scale")
        try inputs.optional(2)?.typed(x.dataType, "bias").broadcasting(to: x.shape, "bias")
        let reduced = ValueType(.float32, x.shape[..<axis] + Array(repeating: 1, count: x.rank - axis))
        return statistics ? [x, reduced, reduced] : [x]
    }
}

/// Divides by the root of the mean square over the axes from `axis` on, then scales (Zhang and Sennrich 2019).
///
/// Inputs: x; scale, which broadcasts to x. Output: as x.
package struct RMSNormalization: Operator {
    package static let maximalInputs: Int? = 2
    /// Negative: counted from the last.
    package var axis: Int
    /// Added to the mean square.
    package var epsilon: Float

    package init(axis: Int = -1, epsilon: Float = 1e-5) {
        self.axis = axis
        self.epsilon = epsilon
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        _ = try resolveAxis(axis, rank: x.rank)
        try inputs.required(1, "scale").floating("scale").broadcasting(to: x.shape, "scale")
        return [ValueType(try inputs.required(1, "scale").type.dataType, x.shape)]
    }
}

/// Normalises each group of channels of each example (Wu and He 2018).
///
/// Inputs: x [B, C, ...]; scale; bias, a number for each channel, or for each group. Output: as x.
package struct GroupNormalization: Operator {
    package static let maximalInputs: Int? = 3
    /// Groups of neighbouring channels, of equal size.
    package var groups: Int
    /// Added to the variance.
    package var epsilon: Float

    package init(groups: Int, epsilon: Float = 1e-5) {
        self.groups = groups
        self.epsilon = epsilon
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        guard x.rank >= 2, groups > 0, x.shape[1].constant.map({ $0 % groups == 0 }) ?? true else {
            throw TripsError.data("channels of x", found: x, expected: "a multiple of \(groups)")
        }
        for (index, name) in [(1, "scale"), (2, "bias")] {
            let operand = try inputs.required(index, name).typed(x.dataType, name).ranked(1, name).type
            guard mayBeEqual(operand.shape[0], x.shape[1]) || mayBeEqual(operand.shape[0], Dimension(groups)) else {
                throw TripsError.data("shape of \(name)", found: operand, expected: "\(x.shape[1]) or \(groups) elements")
            }
        }
        return [x]
    }
}

/// Normalises each channel of each example. Inputs: x [B, C, ...]; scale [C]; bias [C]. Output: as x.
package struct InstanceNormalization: Operator {
    package static let maximalInputs: Int? = 3
    /// Added to the variance.
    package var epsilon: Float

    package init(epsilon: Float = 1e-5) { self.epsilon = epsilon }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        guard x.rank >= 2 else { throw TripsError.data("rank of x", found: x, expected: "2 or more") }
        try inputs.required(1, "scale").typed(x.dataType, "scale").shaped([x.shape[1]], "scale")
        try inputs.required(2, "bias").typed(x.dataType, "bias").shaped([x.shape[1]], "bias")
        return [x]
    }
}

/// Inputs: x [B, C, ...]; scale [C]; bias [C]; mean [C]; variance [C]. Output: as x, normalised by the stated statistics.
package struct BatchNormalization: Operator {
    package static let maximalInputs: Int? = 5
    /// Added to the variance.
    package var epsilon: Float

    package init(epsilon: Float = 1e-5) { self.epsilon = epsilon }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        let channels = x.rank > 1 ? x.shape[1] : 1
        for (index, name) in ["scale", "bias", "mean", "variance"].enumerated() {
            try inputs.required(index + 1, name).floating(name).shaped([channels], name)
        }
        return [x]
    }
}

/// Divides by the p-norm along the axis; where that is 0 the result is 0. Input: x.
package struct LpNormalization: Operator {
    /// Negative: counted from the last.
    package var axis: Int
    /// 1 or 2.
    package var p: Int

    package init(axis: Int = -1, p: Int = 2) {
        self.axis = axis
        self.p = p
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        _ = try resolveAxis(axis, rank: x.rank)
        guard p == 1 || p == 2 else { throw TripsError.data("p", found: p, expected: "1 or 2") }
        return [x]
    }
}
