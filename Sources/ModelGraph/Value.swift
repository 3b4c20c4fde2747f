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
    /// The type of the elements.
    public var dataType: DataType
    /// A size for each axis, the slowest first.
    public var shape: [Dimension]

    /// A type with a size for each axis, the slowest first.
    public init(_ dataType: DataType, _ shape: [Dimension]) {
        self.dataType = dataType
        self.shape = shape
    }

    /// The number of axes.
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

extension Content {
    /// Integers made of sizes, int64 of rank 1 or 0: a constant where all are numbers.
    package init(sizes: [Dimension], scalar: Bool) throws {
        try self.init(sizes: sizes, ValueType(.int64, scalar ? [] : [Dimension(sizes.count)]))
    }

    /// Integers made of sizes, for a value of this type: a constant where all are numbers.
    package init(sizes: [Dimension], _ type: ValueType) throws {
        let numbers = sizes.compactMap(\.constant)
        if numbers.count == sizes.count, let shape = type.constantShape {
            let integers = try Constant(integers: numbers, shape: shape)
            self = .tensor(
                type.dataType == .int64
                    ? integers
                    : Constant(try integers.load().converted(to: type.dataType), identity: "\(type.dataType) \(shape) \(numbers)"))
        } else {
            self = .dimensions(sizes)
        }
    }
}

/// A value as a shape rule sees it.
public struct Operand: Sendable {
    /// Data type and shape.
    public let type: ValueType
    /// What is known of the value before the model runs; nil where nothing is.
    public let content: Content?

    /// Elements of an operand that states sizes, axes or paddings: more than any real one has.
    package static let maximalCount = 4096

    package init(_ type: ValueType, content: Content? = nil) {
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
            return try scalar.integers().flatMap { Array(repeating: Dimension($0), count: count) }
        case .tensor(let constant):
            _ = try smallCount(constant.shape)
            return try constant.load().integers().map { Dimension($0) }
        }
    }

    /// As `integers()`, where all are constant.
    public func constantIntegers() throws -> [Int]? {
        guard let dimensions = try integers() else { return nil }
        let constants = dimensions.compactMap(\.constant)
        return constants.count == dimensions.count ? constants : nil
    }

    /// The numbers of a small operand, nil where they are known only when the model runs.
    /// - Throws: `data` where it is larger than any such operand can be.
    package func constantNumbers() throws -> [Double]? {
        if type.dataType.isInteger || type.dataType == .bool { return try constantIntegers()?.map { Double($0) } }
        switch content {
        case .tensor(let constant):
            _ = try smallCount(constant.shape)
            return try constant.load().numbers()
        case .splat(let scalar):
            guard let shape = type.constantShape else { return nil }
            let count = try smallCount(shape)
            return try scalar.numbers().flatMap { Array(repeating: $0, count: count) }
        case .dimensions, nil: return nil
        }
    }

    /// All numbers; nil where they are known only when the model runs, or a symbol is left in them or in the shape.
    /// - Throws: what loading a constant throws.
    package func tensor() throws -> Tensor? {
        guard let content, let shape = type.constantShape else { return nil }
        switch content {
        case .tensor(let constant): return try constant.load()
        case .splat(let scalar): return try Tensor(repeating: scalar, shape: shape)
        case .dimensions(let sizes):
            let numbers = sizes.compactMap(\.constant)
            guard numbers.count == sizes.count else { return nil }
            return try Tensor(numbers.map { Int64($0) }, shape: shape).converted(to: type.dataType)
        }
    }

    private func smallCount(_ shape: [Int]) throws -> Int {
        let count = try elementCount(of: shape)
        guard count <= Operand.maximalCount else {
            throw TripsError.data(
                "an operand that states sizes", found: "\(count) elements", expected: "at most \(Operand.maximalCount)")
        }
        return count
    }
}
