import Support
import Tensors

/// Names a value of one graph.
public struct ValueID: Hashable, Sendable, Comparable {
    package let index: Int
    package init(_ index: Int) { self.index = index }
    public static func < (left: ValueID, right: ValueID) -> Bool { left.index < right.index }
}

/// Names a node of one graph.
public struct NodeID: Hashable, Sendable, Comparable {
    package let index: Int
    package init(_ index: Int) { self.index = index }
    public static func < (left: NodeID, right: NodeID) -> Bool { left.index < right.index }
}

/// Data type and shape of a value.
public struct ValueType: Hashable, Sendable, CustomStringConvertible, Codable {
    public var dataType: DataType
    public var shape: [Dimension]

    public init(_ dataType: DataType, _ shape: [Dimension]) {
        self.dataType = dataType
        self.shape = shape
    }

    public var rank: Int { shape.count }

    /// The shape, where no symbol is left in it.
    public var constantShape: [Int]? {
        let constants = shape.compactMap(\.constant)
        return constants.count == shape.count ? constants : nil
    }

    public var description: String { "\(dataType)[\(shape.map(\.description).joined(separator: ", "))]" }
}

/// What is known of a value before the model runs.
public enum Content: Sendable {
    /// All of it.
    case tensor(Constant)
    /// Integers computed from sizes: one dimension for each element, row-major. Such values have a constant shape.
    case dimensions([Dimension])
    /// The same number everywhere; a tensor of rank 0 and of the value's data type. The shape may hold symbols.
    case splat(Tensor)
}

/// A value as a shape rule sees it.
public struct Operand: Sendable {
    public let type: ValueType
    public let content: Content?

    public init(_ type: ValueType, content: Content? = nil) {
        self.type = type
        self.content = content
    }

    /// The integers of a small operand (shapes, axes, paddings), nil where they are known only when the model runs.
    /// - Throws: `data` where it is no integer tensor, or larger than any such operand can be.
    public func integers() throws -> [Dimension]? {
        guard type.dataType.isInteger || type.dataType == .bool else {
            throw TripsError.data("an integer operand", found: type, expected: "int64")
        }
        guard let content else { return nil }
        switch content {
        case .dimensions(let dimensions): return dimensions
        case .splat(let scalar):
            guard let shape = type.constantShape else { return nil }
            let count = try smallCount(shape)
            return try scalar.converted(to: .int64).elements(Int64.self).flatMap { Array(repeating: Dimension(Int($0)), count: count) }
        case .tensor(let constant):
            _ = try smallCount(constant.shape)
            return try constant.load().converted(to: .int64).elements(Int64.self).map { Dimension(Int($0)) }
        }
    }

    /// As `integers()`, where all are constant.
    public func constantIntegers() throws -> [Int]? {
        guard let dimensions = try integers() else { return nil }
        let constants = dimensions.compactMap(\.constant)
        return constants.count == dimensions.count ? constants : nil
    }

    private func smallCount(_ shape: [Int]) throws -> Int {
        let count = try elementCount(of: shape)
        guard count <= 4096 else {
            throw TripsError.data("an operand that states sizes", found: "\(count) elements", expected: "at most 4096")
        }
        return count
    }
}
