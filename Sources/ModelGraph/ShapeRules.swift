import Support
import Tensors

// What the shape rules of many operators check and compute alike.

extension [Operand?] {
    /// The operand at `index`.
    /// - Throws: `data` where it is absent.
    package func required(_ index: Int, _ name: String) throws -> Operand {
        guard index < count, let operand = self[index] else { throw TripsError.data("input \(index) (\(name)) is missing") }
        return operand
    }

    /// The operand at `index`, nil where it is absent.
    package func optional(_ index: Int) -> Operand? { index < count ? self[index] : nil }
}

extension Operand {
    /// Checks the element type.
    @discardableResult
    func typed(_ dataType: DataType, _ name: String) throws -> Operand {
        guard type.dataType == dataType else {
            throw TripsError.data("data type of \(name)", found: type, expected: "\(dataType)")
        }
        return self
    }

    /// Checks that the element type is floating-point.
    @discardableResult
    package func floating(_ name: String) throws -> Operand {
        guard type.dataType.isFloatingPoint else {
            throw TripsError.data("data type of \(name)", found: type, expected: "floating point")
        }
        return self
    }

    /// Checks that the element type is an integer that indexes.
    @discardableResult
    package func indexing(_ name: String) throws -> Operand {
        guard type.dataType == .int64 || type.dataType == .int32 else {
            throw TripsError.data("data type of \(name)", found: type, expected: "int64 or int32")
        }
        return self
    }

    /// Checks the rank.
    @discardableResult
    package func ranked(_ rank: Int, _ name: String) throws -> Operand {
        guard type.rank == rank else { throw TripsError.data("rank of \(name)", found: type, expected: "rank \(rank)") }
        return self
    }

    /// Checks the shape. Sizes with symbols pass where they may turn out right.
    @discardableResult
    package func shaped(_ shape: [Dimension], _ name: String) throws -> Operand {
        guard type.rank == shape.count, zip(type.shape, shape).allSatisfy({ mayBeEqual($0, $1) }) else {
            throw TripsError.data(
                "shape of \(name)", found: type, expected: "[\(shape.map(\.description).joined(separator: ", "))]")
        }
        return self
    }

    /// Checks that there is one element. Sizes with symbols pass where they may turn out as 1.
    @discardableResult
    func single(_ name: String) throws -> Operand {
        guard mayBeEqual(try product(type.shape), 1) else {
            throw TripsError.data("shape of \(name)", found: type, expected: "one element")
        }
        return self
    }

    /// Checks that broadcasting with `shape` leaves that as it is.
    func broadcasting(to shape: [Dimension], _ name: String) throws {
        guard let joint = try? broadcastShape([shape, type.shape]), joint.count == shape.count,
            zip(joint, shape).allSatisfy({ mayBeEqual($0, $1) })
        else {
            throw TripsError.data("shape of \(name)", found: type, expected: "broadcasting to \(shape)")
        }
    }

    /// How many elements an operand of rank 1 (or a scalar: one) has.
    /// - Throws: `data` where that is unknown; the rank of an output would be, too.
    package func length(_ name: String) throws -> Int {
        guard type.rank <= 1, let count = try product(type.shape).constant, 0...Operand.maximalCount ~= count else {
            throw TripsError.data(
                "length of \(name)", found: type, expected: "rank 1 and a constant size of at most \(Operand.maximalCount)")
        }
        return count
    }

    /// The axes that an operand states.
    /// - Throws: `data` where they are known only when the model runs, or are no axes.
    func constantAxes(rank: Int) throws -> [Int] {
        guard let axes = try constantIntegers() else {
            throw TripsError.data("axes are known only when the model runs", found: type, expected: "constant axes")
        }
        return try resolveAxes(axes, rank: rank)
    }
}

/// False where two sizes are certainly different.
package func mayBeEqual(_ left: Dimension, _ right: Dimension) -> Bool {
    guard let difference = try? left.subtracting(right).constant else { return true }
    return difference == 0
}

/// The size of an axis along which two operands are broadcast (ONNX and NumPy rules).
package func broadcast(_ left: Dimension, _ right: Dimension) throws -> Dimension {
    if left == right || right == 1 { return left }
    if left == 1 { return right }
    if left.constant != nil && right.constant != nil {
        throw TripsError.data("shapes do not broadcast", found: "\(left) and \(right)", expected: "equal sizes or 1")
    }
    // One of the two is a symbol that must turn out as 1 or as the other's size.
    if left.constant != nil { return left }
    return right.constant != nil ? right : .unknown
}

/// The shape to which all shapes broadcast.
package func broadcastShape(_ shapes: [[Dimension]]) throws -> [Dimension] {
    let rank = shapes.map(\.count).max() ?? 0
    return try (0..<rank).map { axis in
        try shapes.reduce(Dimension(1)) { size, shape in
            let index = axis - (rank - shape.count)
            return index < 0 ? size : try broadcast(size, shape[index])
        }
    }
}

/// The index of an axis that may be counted from the end.
/// - Throws: `data` where it is out of range.
package func resolveAxis(_ axis: Int, rank: Int) throws -> Int {
    guard axis >= -rank, axis < rank else {
        throw TripsError.data(
            "axis out of range", found: axis, expected: rank == 0 ? "none: it is a scalar" : "-\(rank) ..< \(rank)")
    }
    return axis < 0 ? axis + rank : axis
}

/// The indices of distinct axes, in the order given.
/// - Throws: `data` where one is out of range or given twice.
package func resolveAxes(_ axes: [Int], rank: Int) throws -> [Int] {
    let resolved = try axes.map { try resolveAxis($0, rank: rank) }
    guard Set(resolved).count == resolved.count else { throw TripsError.data("an axis is given twice", found: "\(axes)") }
    return resolved
}

/// A size that must not be negative.
func checkedSize(_ size: Dimension, _ name: String) throws -> Dimension {
    if let constant = size.constant, constant < 0 { throw TripsError.data(name, found: constant, expected: "0 or more") }
    return size
}
