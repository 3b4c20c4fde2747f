import Support
import Tensors

/// What a node computes: attributes, shape rule and cost. How it computes lives in the module `Operators`.
///
/// An operator is a small struct; its stored properties are its attributes, in the package as in print.
public protocol Operator: Sendable, Hashable, Codable {
    /// The name in packages and in print; the type's own unless stated.
    static var name: String { get }

    /// The types of the outputs.
    /// - Parameter inputs: nil stands for an optional input that is absent.
    /// - Throws: `data` where the operator cannot take these inputs. Unknown sizes are `Dimension.unknown`.
    func infer(_ inputs: [Operand?]) throws -> [ValueType]

    /// Multiply-accumulate operations of one run; nil where the operator multiplies no matrices.
    func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension?
}

extension Operator {
    public static var name: String { String(describing: Self.self) }
    public func multiplyAccumulates(_: [ValueType?], _: [ValueType]) throws -> Dimension? { nil }

    package func isEqual(to other: any Operator) -> Bool { (other as? Self) == self }
}

/// Checks that shape rules share.
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
    /// Checks the rank.
    @discardableResult
    package func ranked(_ rank: Int, _ name: String) throws -> Operand {
        guard type.rank == rank else { throw TripsError.data("rank of \(name)", found: type, expected: "rank \(rank)") }
        return self
    }

    /// Checks the shape, sizes with symbols aside where `self` cannot tell.
    @discardableResult
    package func shaped(_ shape: [Dimension], _ name: String) throws -> Operand {
        guard type.rank == shape.count, zip(type.shape, shape).allSatisfy({ mayBeEqual($0, $1) }) else {
            throw TripsError.data("shape of \(name)", found: type, expected: "[\(shape.map(\.description).joined(separator: ", "))]")
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
