import Support
import Tensors

/// Inputs: x; optional axes (absent or empty: all). Output: x with these axes reduced to one number.
public struct Reduce: Operator {
    public enum Kind: String, Sendable, Hashable, Codable, CaseIterable {
        case sum, mean, max, min, prod, l1, l2, logSum, logSumExp, sumSquare
    }
    public var kind: Kind
    /// Reduced axes stay, with size 1.
    public var keepDimensions: Bool
    /// Without axes nothing is reduced.
    public var noopWithEmptyAxes: Bool

    public init(_ kind: Kind, keepDimensions: Bool = true, noopWithEmptyAxes: Bool = false) {
        self.kind = kind
        self.keepDimensions = keepDimensions
        self.noopWithEmptyAxes = noopWithEmptyAxes
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
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
public struct ArgReduce: Operator {
    public enum Kind: String, Sendable, Hashable, Codable, CaseIterable { case max, min }
    public var kind: Kind
    public var axis: Int
    public var keepDimensions: Bool
    /// Of equal elements the last counts.
    public var selectLastIndex: Bool

    public init(_ kind: Kind, axis: Int = 0, keepDimensions: Bool = true, selectLastIndex: Bool = false) {
        self.kind = kind
        self.axis = axis
        self.keepDimensions = keepDimensions
        self.selectLastIndex = selectLastIndex
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
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
public struct CumSum: Operator {
    /// The element itself does not count.
    public var exclusive: Bool
    /// From the end.
    public var reverse: Bool

    public init(exclusive: Bool = false, reverse: Bool = false) {
        self.exclusive = exclusive
        self.reverse = reverse
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
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
public struct Softmax: Operator {
    public var axis: Int

    public init(axis: Int = -1) { self.axis = axis }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        _ = try resolveAxis(axis, rank: x.rank)
        return [x]
    }
}

/// x - log Σ exp(x) along the axis. Input: x.
public struct LogSoftmax: Operator {
    public var axis: Int

    public init(axis: Int = -1) { self.axis = axis }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] { try Softmax(axis: axis).infer(inputs) }
}

/// Inputs: x [B, C, ...]; scale [C]; bias [C]; mean [C]; variance [C]. Output: as x, normalised by the stated statistics.
public struct BatchNormalization: Operator {
    public var epsilon: Float

    public init(epsilon: Float = 1e-5) { self.epsilon = epsilon }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        let channels = x.rank > 1 ? x.shape[1] : 1
        for (index, name) in ["scale", "bias", "mean", "variance"].enumerated() {
            try inputs.required(index + 1, name).floating(name).shaped([channels], name)
        }
        return [x]
    }
}

/// Normalises over the axes from `axis` on to mean 0 and variance 1, then scales and shifts.
///
/// Inputs: x; scale; optional bias, which broadcast to x. Outputs: as x; with statistics also the mean and the inverse
/// standard deviation, float32.
public struct LayerNormalization: Operator {
    public var axis: Int
    public var epsilon: Float
    public var statistics: Bool

    public init(axis: Int = -1, epsilon: Float = 1e-5, statistics: Bool = false) {
        self.axis = axis
        self.epsilon = epsilon
        self.statistics = statistics
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
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
public struct RMSNormalization: Operator {
    public var axis: Int
    public var epsilon: Float

    public init(axis: Int = -1, epsilon: Float = 1e-5) {
        self.axis = axis
        self.epsilon = epsilon
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        _ = try resolveAxis(axis, rank: x.rank)
        try inputs.required(1, "scale").floating("scale").broadcasting(to: x.shape, "scale")
        return [ValueType(try inputs.required(1, "scale").type.dataType, x.shape)]
    }
}

/// Normalises each group of channels of each example (Wu and He 2018).
///
/// Inputs: x [B, C, ...]; scale; bias, a number for each channel, or for each group. Output: as x.
public struct GroupNormalization: Operator {
    public var groups: Int
    public var epsilon: Float

    public init(groups: Int, epsilon: Float = 1e-5) {
        self.groups = groups
        self.epsilon = epsilon
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
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
public struct InstanceNormalization: Operator {
    public var epsilon: Float

    public init(epsilon: Float = 1e-5) { self.epsilon = epsilon }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        guard x.rank >= 2 else { throw TripsError.data("rank of x", found: x, expected: "2 or more") }
        try inputs.required(1, "scale").typed(x.dataType, "scale").shaped([x.shape[1]], "scale")
        try inputs.required(2, "bias").typed(x.dataType, "bias").shaped([x.shape[1]], "bias")
        return [x]
    }
}

/// Divides by the p-norm along the axis; where that is 0 the result is 0. Input: x.
public struct LpNormalization: Operator {
    public var axis: Int
    /// 1 or 2.
    public var p: Int

    public init(axis: Int = -1, p: Int = 2) {
        self.axis = axis
        self.p = p
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x").type
        _ = try resolveAxis(axis, rank: x.rank)
        guard p == 1 || p == 2 else { throw TripsError.data("p", found: p, expected: "1 or 2") }
        return [x]
    }
}
