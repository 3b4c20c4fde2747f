import Support
import Tensors

/// A function of each element.
///
/// Input: x. Output: as x; booleans for the predicates.
public struct Unary: Operator {
    public enum Kind: String, Sendable, Hashable, Codable, CaseIterable {
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

    public var kind: Kind
    /// nil: the default of the kind.
    public var alpha: Float?
    /// nil: the default of the kind.
    public var beta: Float?

    public init(_ kind: Kind, alpha: Float? = nil, beta: Float? = nil) {
        self.kind = kind
        self.alpha = alpha
        self.beta = beta
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
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

/// A function of pairs of elements, with broadcasting.
///
/// Inputs: a; b, of one type (the exponent of a power may have another). Output: as a; booleans for comparisons.
public struct Binary: Operator {
    public enum Kind: String, Sendable, Hashable, Codable, CaseIterable {
        case add, sub, mul
        /// Integers are divided towards zero.
        case div
        case pow
        /// The rest has the divisor's sign (integers).
        case mod
        /// The rest has the dividend's sign.
        case fmod
        case min, max
        /// a where it is not negative, else a · b.
        case prelu
        case and, or, xor
        case bitwiseAnd, bitwiseOr, bitwiseXor, shiftLeft, shiftRight
        case equal, less, lessOrEqual, greater, greaterOrEqual

        public var isComparison: Bool {
            switch self {
            case .equal, .less, .lessOrEqual, .greater, .greaterOrEqual: true
            default: false
            }
        }
    }

    public var kind: Kind

    public init(_ kind: Kind) { self.kind = kind }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let (a, b) = (try inputs.required(0, "a").type, try inputs.required(1, "b").type)
        guard a.dataType == b.dataType || kind == .pow else {
            throw TripsError.data("data types of a and b", found: "\(a) and \(b)", expected: "one type")
        }
        let accepted: Bool
        switch kind {
        case .and, .or, .xor: accepted = a.dataType == .bool
        case .bitwiseAnd, .bitwiseOr, .bitwiseXor, .shiftLeft, .shiftRight: accepted = a.dataType.isInteger
        case .equal: accepted = true
        case .mod: accepted = a.dataType.isInteger
        default: accepted = a.dataType != .bool && b.dataType != .bool
        }
        guard accepted else { throw TripsError.data("data type of a", found: a, expected: "one that \(kind) takes") }
        let shape = try broadcastShape([a.shape, b.shape])
        return [ValueType(kind.isComparison ? .bool : a.dataType, shape)]
    }
}

/// Inputs: condition, booleans; x; y, of one type. All are broadcast. Output: x where the condition holds, else y.
public struct Where: Operator {
    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let condition = try inputs.required(0, "condition").typed(.bool, "condition").type
        let x = try inputs.required(1, "x").type
        let y = try inputs.required(2, "y").typed(x.dataType, "y").type
        return [ValueType(x.dataType, try broadcastShape([condition.shape, x.shape, y.shape]))]
    }
}

/// Inputs: x; optional min; optional max, both scalars. Output: min(max(x, min), max).
public struct Clip: Operator {
    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        guard x.dataType != .bool else { throw TripsError.data("data type of x", found: x, expected: "numbers") }
        for (index, name) in [(1, "min"), (2, "max")] {
            try inputs.optional(index)?.typed(x.dataType, name).single(name)
        }
        return [x]
    }
}

/// Another element type for the same numbers. Input: x.
public struct Cast: Operator {
    public var to: DataType

    public init(to: DataType) { self.to = to }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] { [ValueType(to, try inputs.required(0, "x").type.shape)] }
}

/// Input: x. Output: x.
public struct Identity: Operator {
    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] { [try inputs.required(0, "x").type] }
}
