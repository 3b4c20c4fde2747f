import Support
import Tensors

/// Inputs: x; optional axes (absent or empty: all). Output: x with these axes reduced to one number.
package struct Reduce: Operator {
    package static let maximalInputs: Int? = 2
    package enum Kind: String, Sendable, Hashable, NamedChoice {
        case sum, mean, max, min, prod, l1, l2, logSum, logSumExp, sumSquare
    }
    package var kind: Kind
    /// Reduced axes stay, with size 1.
    package var keepDimensions: Bool
    /// Without axes nothing is reduced.
    package var noopWithEmptyAxes: Bool

    package init(_ kind: Kind, keepDimensions: Bool = true, noopWithEmptyAxes: Bool = false) {
        self.kind = kind
        self.keepDimensions = keepDimensions
        self.noopWithEmptyAxes = noopWithEmptyAxes
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        guard x.dataType != .bool || kind == .max || kind == .min else {
            throw TripsError.data("data type of x", found: x, expected: "numbers")
        }
        let stated = inputs.optional(1)
        if let stated, case let count = try stated.length("axes"), count > 0, try stated.constantIntegers() == nil {
            guard count <= x.rank else { throw TripsError.data("reduced axes", found: stated.type, expected: "at most \(x.rank)") }
            return [ValueType(x.dataType, Array(repeating: .unknown, count: keepDimensions ? x.rank : x.rank - count))]
        }
        let axes = Set(try self.axes(stated, rank: x.rank))
        let shape = x.shape.indices.compactMap { axes.contains($0) ? (keepDimensions ? 1 : nil) : x.shape[$0] }
        return [ValueType(x.dataType, shape)]
    }

    /// The axes that are reduced.
    package func axes(_ stated: Operand?, rank: Int) throws -> [Int] {
        let axes = try stated.map { try $0.length("axes") == 0 ? [] : $0.constantAxes(rank: rank) } ?? []
        return axes.isEmpty && !noopWithEmptyAxes ? Array(0..<rank) : axes
    }
}

/// The index of the largest or smallest element along an axis, int64. Input: x.
package struct ArgReduce: Operator {
    package enum Kind: String, Sendable, Hashable, NamedChoice { case max, min }
    package var kind: Kind
    /// Negative: counted from the last.
    package var axis: Int
    /// The axis stays, with size 1.
    package var keepDimensions: Bool
    /// Of equal elements the last counts.
    package var selectLastIndex: Bool

    package init(_ kind: Kind, axis: Int = 0, keepDimensions: Bool = true, selectLastIndex: Bool = false) {
        self.kind = kind
        self.axis = axis
        self.keepDimensions = keepDimensions
        self.selectLastIndex = selectLastIndex
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let axis = try resolveAxis(axis, rank: x.rank)
        guard x.shape[axis] != 0, x.dataType != .bool else {
            throw TripsError.data("x", found: x, expected: "numbers, and some along axis \(axis)")
        }
        var shape = x.shape
        if keepDimensions { shape[axis] = 1 } else { shape.remove(at: axis) }
        return [ValueType(.int64, shape)]
    }
}

/// Inputs: x; axis, one integer. Output: the sums of the elements up to each place along the axis.
package struct CumSum: Operator {
    package static let maximalInputs: Int? = 2
    /// The element itself does not count.
    package var exclusive: Bool
    /// From the end.
    package var reverse: Bool

    package init(exclusive: Bool = false, reverse: Bool = false) {
        self.exclusive = exclusive
        self.reverse = reverse
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let axis = try inputs.required(1, "axis")
        guard x.dataType != .bool, try axis.length("axis") == 1 else {
            throw TripsError.data("x and axis", found: "\(x) and \(axis.type)", expected: "numbers and one integer")
        }
        if let axis = try axis.constantIntegers() { _ = try resolveAxis(axis[0], rank: x.rank) }
        return [x]
    }
}

/// exp(x) / Σ exp(x) along the axis. Input: x.
package struct Softmax: Operator {
    /// Negative: counted from the last.
    package var axis: Int

    package init(axis: Int = -1) { self.axis = axis }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        _ = try resolveAxis(axis, rank: x.rank)
        return [x]
    }
}

/// x - log Σ exp(x) along the axis. Input: x.
package struct LogSoftmax: Operator {
    /// Negative: counted from the last.
    package var axis: Int

    package init(axis: Int = -1) { self.axis = axis }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] { try Softmax(axis: axis).infer(inputs) }
}
