import Support
import Tensors

/// The sizes of axes start ..< end of x, as int64. Input: x.
public struct Shape: Operator {
    /// Negative: from the end; beyond the ends: clamped.
    public var start: Int
    /// nil: the rank.
    public var end: Int?

    public init(start: Int = 0, end: Int? = nil) {
        self.start = start
        self.end = end
    }

    /// The axes of an operand of this rank that the shape takes.
    package func axes(rank: Int) -> Range<Int> {
        func clamped(_ axis: Int) -> Int { min(max(axis < 0 ? axis.addingReportingOverflow(rank).partialValue : axis, 0), rank) }
        let (first, last) = (clamped(start), clamped(end ?? rank))
        return first..<max(first, last)
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        [ValueType(.int64, [Dimension(axes(rank: try inputs.required(0, "x").type.rank).count)])]
    }
}

/// The number of elements of x, an int64 scalar. Input: x.
public struct Size: Operator {
    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        _ = try inputs.required(0, "x")
        return [ValueType(.int64, [])]
    }
}

/// Inputs: shape; optional value, one element (absent: float32 0). Output: a tensor of that shape, the value everywhere.
public struct ConstantOfShape: Operator {
    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let shape = try inputs.required(0, "shape")
        let value = try inputs.optional(1)?.single("value")
        return [ValueType(value?.type.dataType ?? .float32, try shape.statedSizes("shape"))]
    }
}

extension Operand {
    /// The sizes that an operand of rank 1 states; unknown ones where only their number is known.
    fileprivate func statedSizes(_ name: String) throws -> [Dimension] {
        guard let sizes = try integers() else { return Array(repeating: .unknown, count: try length(name)) }
        guard type.rank == 1 else { throw TripsError.data("rank of \(name)", found: type, expected: "rank 1") }
        return try sizes.map { try checkedSize($0, "a size in \(name)") }
    }
}

/// Inputs: start; limit; delta, scalars of one type. Output: start, start + delta, … as long as the limit is not reached.
public struct Arange: Operator {
    public static let name = "Range"

    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let start = try inputs.required(0, "start").single("start")
        let limit = try inputs.required(1, "limit").typed(start.type.dataType, "limit").single("limit")
        let delta = try inputs.required(2, "delta").typed(start.type.dataType, "delta").single("delta")
        return [ValueType(start.type.dataType, [try count(start, limit, delta)])]
    }

    private func count(_ start: Operand, _ limit: Operand, _ delta: Operand) throws -> Dimension {
        if start.type.dataType.isFloatingPoint {
            guard let start = try start.constantNumbers()?.first, let limit = try limit.constantNumbers()?.first,
                let delta = try delta.constantNumbers()?.first
            else { return .unknown }
            let count = ((limit - start) / delta).rounded(.up)
            guard delta != 0, count.isFinite, count < 0x1p62 else {
                throw TripsError.data("range", found: "\(start) to \(limit) by \(delta)", expected: "finitely many steps")
            }
            return Dimension(Int(max(0, count)))
        }
        guard let start = try start.integers()?.first, let limit = try limit.integers()?.first,
            let delta = try delta.constantIntegers()?.first
        else { return .unknown }
        guard delta != 0 else { throw TripsError.data("step of a range", found: 0, expected: "another number") }
        let distance = try limit.subtracting(start)
        if let distance = distance.constant {
            if distance == 0 || (distance < 0) != (delta < 0) { return 0 }
            let (quotient, rest) = distance.magnitude.quotientAndRemainder(dividingBy: delta.magnitude)
            return Dimension(Int(clamping: quotient + (rest == 0 ? 0 : 1)))
        }
        return delta == 1 && (distance.lowerBound ?? -1) >= 0 ? distance : .unknown
    }
}

/// Inputs: x; shape. Output: x broadcast with the shape.
public struct Expand: Operator {
    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let sizes = try inputs.required(1, "shape").statedSizes("shape")
        return [ValueType(x.dataType, try broadcastShape([x.shape, sizes]))]
    }
}

/// Inputs: x; repeats, one for each axis. Output: x, laid side by side.
public struct Tile: Operator {
    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let repeats = try inputs.required(1, "repeats").statedSizes("repeats")
        guard repeats.count == x.rank else {
            throw TripsError.data("number of repeats", found: repeats.count, expected: "the rank of \(x)")
        }
        let shape = try zip(x.shape, repeats).map { $1 == .unknown ? $1 : try $0.multiplied(by: $1) }
        return [ValueType(x.dataType, shape)]
    }
}
