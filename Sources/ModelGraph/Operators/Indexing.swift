import Support
import Tensors

/// Inputs: x; indices, negative ones from the end. Output: the slices of x along the axis that the indices name.
package struct Gather: Operator {
    package static let maximalInputs: Int? = 2
    /// Negative: counted from the last.
    package var axis: Int

    package init(axis: Int = 0) { self.axis = axis }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let indices = try inputs.required(1, "indices").indexing("indices").type
        let axis = try resolveAxis(axis, rank: x.rank)
        return [ValueType(x.dataType, x.shape[..<axis] + indices.shape + x.shape[(axis + 1)...])]
    }
}

/// Inputs: x; indices of x's rank. Output: for each index the element at the index's own place, but on the axis.
package struct GatherElements: Operator {
    package static let maximalInputs: Int? = 2
    /// Negative: counted from the last.
    package var axis: Int

    package init(axis: Int = 0) { self.axis = axis }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let indices = try inputs.required(1, "indices").indexing("indices").ranked(x.rank, "indices").type
        try checkWithin(indices, x, except: resolveAxis(axis, rank: x.rank))
        return [ValueType(x.dataType, indices.shape)]
    }
}

/// Elementwise indices must not reach over the sides of what they index.
private func checkWithin(_ indices: ValueType, _ x: ValueType, except axis: Int) throws {
    for other in x.shape.indices where other != axis {
        if let size = x.shape[other].constant, let count = indices.shape[other].constant, count > size {
            throw TripsError.data("size of indices along axis \(other)", found: indices, expected: "at most as \(x)")
        }
    }
}

/// Inputs: x; indices [..., K], int64: places in the first K axes after the batch. Output: what is there.
package struct GatherND: Operator {
    package static let maximalInputs: Int? = 2
    /// Leading axes that x and indices share.
    package var batchDimensions: Int

    package init(batchDimensions: Int = 0) { self.batchDimensions = batchDimensions }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let indices = try inputs.required(1, "indices").indexing("indices").type
        guard batchDimensions >= 0, batchDimensions < min(x.rank, indices.rank) else {
            throw TripsError.data(
                "batch dimensions", found: batchDimensions, expected: "fewer than the ranks of \(x) and \(indices)")
        }
        let depth = try indexDepth(indices, in: x.rank - batchDimensions)
        for (left, right) in zip(x.shape, indices.shape).prefix(batchDimensions) where !mayBeEqual(left, right) {
            throw TripsError.data("batch of indices", found: indices, expected: "that of \(x)")
        }
        return [ValueType(x.dataType, indices.shape.dropLast() + x.shape[(batchDimensions + depth)...])]
    }
}

/// How many axes index tuples address.
private func indexDepth(_ indices: ValueType, in rank: Int) throws -> Int {
    guard let depth = indices.shape.last?.constant, depth >= 0, depth <= rank else {
        throw TripsError.data("last dimension of indices", found: indices, expected: "0 ... \(rank)")
    }
    return depth
}

/// How an update is combined with what is there.
package enum ScatterReduction: String, Sendable, Hashable, NamedChoice {
    case none, add, mul, min, max
}

/// Inputs: x; indices of x's rank; updates, as indices. Output: x with the updates at the places that GatherElements reads.
package struct ScatterElements: Operator {
    package static let maximalInputs: Int? = 3
    /// Negative: counted from the last.
    package var axis: Int
    package var reduction: ScatterReduction

    package init(axis: Int = 0, reduction: ScatterReduction = .none) {
        self.axis = axis
        self.reduction = reduction
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let indices = try inputs.required(1, "indices").indexing("indices").ranked(x.rank, "indices").type
        try inputs.required(2, "updates").typed(x.dataType, "updates").shaped(indices.shape, "updates")
        try checkWithin(indices, x, except: resolveAxis(axis, rank: x.rank))
        return [x]
    }
}

/// Inputs: x; indices [..., K], int64: places in x's first K axes; updates for each. Output: x with the updates.
package struct ScatterND: Operator {
    package static let maximalInputs: Int? = 3
    package var reduction: ScatterReduction

    package init(reduction: ScatterReduction = .none) { self.reduction = reduction }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let indices = try inputs.required(1, "indices").indexing("indices").type
        let depth = try indexDepth(indices, in: x.rank)
        try inputs.required(2, "updates").typed(x.dataType, "updates")
            .shaped(indices.shape.dropLast() + x.shape[depth...], "updates")
        return [x]
    }
}

/// Inputs: x; k, one integer. Outputs: the k largest (or smallest) values along the axis, the most extreme first; their
/// indices, int64. Among equal values the lower index comes first.
package struct TopK: Operator {
    package static let maximalInputs: Int? = 2
    /// Negative: counted from the last.
    package var axis: Int
    /// False: the smallest values.
    package var largest: Bool

    package init(axis: Int = -1, largest: Bool = true) {
        self.axis = axis
        self.largest = largest
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let k = try inputs.required(1, "k")
        guard x.dataType != .bool, try k.length("k") == 1 else {
            throw TripsError.data("x and k", found: "\(x) and \(k.type)", expected: "numbers and one integer")
        }
        var shape = x.shape
        let axis = try resolveAxis(axis, rank: x.rank)
        let count = try k.integers()?[0] ?? .unknown
        if let count = count.constant, count < 0 || count > x.shape[axis].constant ?? count {
            throw TripsError.data("k", found: count, expected: "0 ... \(x.shape[axis])")
        }
        shape[axis] = count
        return [ValueType(x.dataType, shape), ValueType(.int64, shape)]
    }
}

/// Inputs: indices; depth, one number; values, the off and the on value. Output: indices with a new axis of size depth: on
/// at the index, off elsewhere; all off where the index lies outside.
package struct OneHot: Operator {
    package static let maximalInputs: Int? = 3
    /// Of the output; negative: counted from its end.
    package var axis: Int

    package init(axis: Int = -1) { self.axis = axis }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let indices = try inputs.required(0, "indices").type
        let depth = try inputs.required(1, "depth")
        let values = try inputs.required(2, "values").shaped([2], "values").type
        guard indices.dataType != .bool, try depth.length("depth") == 1 else {
            throw TripsError.data("indices and depth", found: "\(indices) and \(depth.type)", expected: "numbers and one number")
        }
        let axis = try resolveAxis(axis, rank: indices.rank + 1)
        var size = Dimension.unknown
        if depth.type.dataType.isInteger {
            size = try checkedSize(depth.integers()?[0] ?? .unknown, "depth")
        } else if let number = try depth.constantNumbers()?.first {
            guard number >= 0, number < 0x1p62 else { throw TripsError.data("depth", found: number, expected: "0 or more") }
            size = Dimension(Int(number))
        }
        var shape = indices.shape
        shape.insert(size, at: axis)
        return [ValueType(values.dataType, shape)]
    }
}

/// Input: x. Output: int64 [rank, count], the indices of the elements that are not zero, in order.
package struct NonZero: Operator {
    /// Elements of a constant up to which it is loaded to count those that are not zero: each inference does so again.
    private static let largestCounted = 1 << 22

    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x")
        var count = Dimension.unknown
        if case .tensor(let constant) = x.content, try elementCount(of: constant.shape) <= NonZero.largestCounted {
            count = Dimension(try constant.load().converted(to: .bool).elements(Bool.self).count { $0 })
        }
        return [ValueType(.int64, [Dimension(x.type.rank), count])]
    }
}

/// Inputs: x, matrices; optional k, the diagonal (absent: 0). Output: x above (or below) the diagonal, 0 elsewhere.
package struct Trilu: Operator {
    package static let maximalInputs: Int? = 2
    /// False: what is below the diagonal stays.
    package var upper: Bool

    package init(upper: Bool = true) { self.upper = upper }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        guard x.rank >= 2 else { throw TripsError.data("rank of x", found: x, expected: "2 or more") }
        if let k = inputs.optional(1), try k.length("k") != 1 || !k.type.dataType.isInteger {
            throw TripsError.data("k", found: k.type, expected: "one integer")
        }
        return [x]
    }
}
