import Support
import Tensors

/// A function of pairs of elements, with broadcasting.
///
/// Inputs: a; b, of one type (the exponent of a power may have another). Output: as a; booleans for comparisons.
package struct Binary: Operator {
    package static let maximalInputs: Int? = 2
    /// Which function; a and b are the operands.
    package enum Kind: String, Sendable, Hashable, NamedChoice {
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

        /// True where the results are booleans that compare two numbers.
        package var isComparison: Bool {
            switch self {
            case .equal, .less, .lessOrEqual, .greater, .greaterOrEqual: true
            default: false
            }
        }
    }

    package var kind: Kind

    package init(_ kind: Kind) { self.kind = kind }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
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
