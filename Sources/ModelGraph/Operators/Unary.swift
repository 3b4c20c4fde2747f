import Support
import Tensors

/// A function of each element.
///
/// Input: x. Output: as x; booleans for the predicates.
package struct Unary: Operator {
    package enum Kind: String, Sendable, Hashable, NamedChoice {
        case abs, neg, sign, reciprocal, sqrt, exp, log, erf
        case floor, ceil
        /// Halves go to the even neighbour.
        case round
        case sin, cos, tan, asin, acos, atan, sinh, cosh, tanh, asinh, acosh, atanh
        case sigmoid, relu, softplus, softsign, mish, hardSwish
        /// x · sigmoid(alpha x), alpha 1.
        case swish
        /// alpha 0.01
        case leakyRelu
        /// alpha 1
        case elu
        /// alpha 1
        case celu
        /// alpha 1.67326319217681884765625, beta (gamma) 1.05070102214813232421875
        case selu
        /// max(0, min(1, alpha x + beta)), alpha 0.2, beta 0.5
        case hardSigmoid
        /// alpha 1
        case thresholdedRelu
        /// alpha (lambda) 0.5, beta (bias) 0
        case shrink
        case not, bitwiseNot
        case isNaN, isInf, isPositiveInf, isNegativeInf
    }

    package var kind: Kind
    /// nil: the default of the kind.
    package var alpha: Float?
    /// nil: the default of the kind.
    package var beta: Float?

    package init(_ kind: Kind, alpha: Float? = nil, beta: Float? = nil) {
        self.kind = kind
        self.alpha = alpha
        self.beta = beta
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let accepted: Bool
        switch kind {
        case .not: accepted = x.dataType == .bool
        case .bitwiseNot: accepted = x.dataType.isInteger
        case .abs, .neg, .sign, .relu, .shrink: accepted = x.dataType != .bool
        default: accepted = x.dataType.isFloatingPoint
        }
        guard accepted else { throw TripsError.data("data type of x", found: x, expected: "one that \(kind) takes") }
        switch kind {
        case .isNaN, .isInf, .isPositiveInf, .isNegativeInf: return [ValueType(.bool, x.shape)]
        default: return [x]
        }
    }
}
