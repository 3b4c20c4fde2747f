import Support
import Tensors

/// Inputs: x; shape, where one size may be -1: what is left. Output: the same elements in that shape.
public struct Reshape: Operator {
    /// Zeros mean size 0; otherwise the size of the same axis of x.
    public var allowZero: Bool

    public init(allowZero: Bool = false) { self.allowZero = allowZero }

    /// A reshape to sizes of which some are 0, or may turn out to be.
    package init(to sizes: [Dimension]) { self.init(allowZero: sizes.contains { $0.constant ?? 0 == 0 }) }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let stated = try inputs.required(1, "shape")
        guard let sizes = try stated.integers() else {
            return [ValueType(x.dataType, Array(repeating: .unknown, count: try stated.length("shape")))]
        }
        return [ValueType(x.dataType, try shape(of: x, sizes))]
    }

    private func shape(of x: ValueType, _ sizes: [Dimension]) throws -> [Dimension] {
        func mismatch() -> TripsError {
            .data("reshaping \(x)", found: "[\(sizes.map(\.description).joined(separator: ", "))]", expected: "as many elements")
        }
        var shape = sizes
        if !allowZero {
            for index in shape.indices where shape[index] == 0 {
                guard index < x.rank else { throw mismatch() }
                shape[index] = x.shape[index]
            }
        }
        let open = shape.indices.filter { shape[$0] == -1 }
        guard open.count <= 1, !shape.contains(where: { ($0.constant ?? 0) < -1 }) else { throw mismatch() }
        guard let open = open.first else {
            guard mayBeEqual(try product(shape), try product(x.shape)) else { throw mismatch() }
            return shape
        }
        // Equal sizes cancel, also zeros and sums, which division alone could not handle.
        var (rest, divisors) = (x.shape, [Dimension]())
        for (index, size) in shape.enumerated() where index != open {
            if let match = rest.firstIndex(of: size) { rest.remove(at: match) } else { divisors.append(size) }
        }
        let (dividend, divisor) = (try product(rest), try product(divisors))
        guard divisor != 0 else { throw mismatch() }
        if let quotient = dividend.divided(exactlyBy: divisor) {
            shape[open] = quotient
        } else {
            guard dividend.constant == nil || divisor.constant == nil else { throw mismatch() }
            shape[open] = .unknown
        }
        return shape
    }
}

/// Input: x. Output: a matrix; axes before `axis` are its rows, the others its columns.
public struct Flatten: Operator {
    public var axis: Int

    public init(axis: Int = 1) { self.axis = axis }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        // The axis may also stand behind the last.
        let axis = try axis == x.rank ? x.rank : resolveAxis(axis, rank: x.rank)
        return [ValueType(x.dataType, [try product(x.shape[..<axis]), try product(x.shape[axis...])])]
    }
}

/// Inputs: x; optional axes of size 1 (absent: all such). Output: x without them.
public struct Squeeze: Operator {
    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        guard let stated = inputs.optional(1) else {
            guard x.constantShape != nil else {
                throw TripsError.data("squeezing all axes of a shape with symbols", found: x, expected: "axes")
            }
            return [ValueType(x.dataType, x.shape.filter { $0 != 1 })]
        }
        let rank = try x.rank - stated.length("axes")
        guard rank >= 0 else { throw TripsError.data("squeezed axes", found: stated.type, expected: "at most \(x.rank)") }
        guard try stated.constantIntegers() != nil else {
            return [ValueType(x.dataType, Array(repeating: .unknown, count: rank))]
        }
        let axes = try stated.constantAxes(rank: x.rank)
        for axis in axes where !mayBeEqual(x.shape[axis], 1) {
            throw TripsError.data("squeezed axis \(axis)", found: x, expected: "size 1")
        }
        return [ValueType(x.dataType, x.shape.indices.filter { !axes.contains($0) }.map { x.shape[$0] })]
    }
}

/// Inputs: x; axes of the output. Output: x with new axes of size 1.
public struct Unsqueeze: Operator {
    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let stated = try inputs.required(1, "axes")
        let rank = try x.rank + stated.length("axes")
        guard try stated.constantIntegers() != nil else {
            return [ValueType(x.dataType, Array(repeating: .unknown, count: rank))]
        }
        let axes = try stated.constantAxes(rank: rank)
        var sizes = x.shape.makeIterator()
        return [ValueType(x.dataType, (0..<rank).map { axes.contains($0) ? 1 : sizes.next() ?? 1 })]
    }
}

/// Input: x. Output: x with its axes in another order: output axis i is input axis permutation[i].
public struct Transpose: Operator {
    /// nil: the axes in reverse order.
    public var permutation: [Int]?

    public init(permutation: [Int]? = nil) { self.permutation = permutation }

    /// The permutation for an operand of this rank.
    /// - Throws: `data` where it is none.
    package func resolved(rank: Int) throws -> [Int] {
        guard let permutation else { return (0..<rank).reversed() }
        let axes = try resolveAxes(permutation, rank: rank)
        guard axes.count == rank else {
            throw TripsError.data("permutation", found: "\(permutation)", expected: "each of \(rank) axes once")
        }
        return axes
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        return [ValueType(x.dataType, try resolved(rank: x.rank).map { x.shape[$0] })]
    }
}
