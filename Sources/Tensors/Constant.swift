import Support
import Synchronization

/// A tensor that stays where it is until someone needs its numbers: type, shape, and how to get the bytes.
public struct Constant: Sendable {
    /// The type of the numbers that loading gives.
    public let dataType: DataType
    /// Sizes, the slowest first.
    public let shape: [Int]
    /// The narrowest type that holds the numbers without loss: that in which the source stores them, or `dataType`.
    public let storedType: DataType
    /// Names the content: constants of equal identity hold the same bytes (used to store tied weights once).
    public let identity: String
    /// Computations that loading takes, nested ones included.
    package internal(set) var computations = 0
    let source: any ConstantSource

    /// - Parameters:
    ///   - identity: unique to this content among all of a conversion.
    ///   - storedType: where the numbers were widened from it, or rounded to it; nil: `dataType`.
    package init(
        _ dataType: DataType, _ shape: [Int], storedAs storedType: DataType? = nil, identity: String, source: any ConstantSource
    ) {
        self.dataType = dataType
        self.shape = shape
        self.storedType = storedType ?? dataType
        self.identity = identity
        self.source = source
    }

    /// A constant whose numbers are in memory already.
    /// - Parameter identity: nil: that of all equal tensors for a small one; else one that no other constant of the process has.
    public init(_ tensor: Tensor, identity: String? = nil) {
        self.init(
            tensor.dataType, tensor.shape, identity: identity ?? Constant.identity(of: tensor), source: MemorySource(tensor: tensor)
        )
    }

    private static func identity(of tensor: Tensor) -> String {
        // Small constants repeat a lot.
        guard tensor.byteCount <= 64 else { return "in memory \(made.wrappingAdd(1, ordering: .relaxed).newValue)" }
        return "\(tensor.dataType.rawValue)\(tensor.shape):"
            + tensor.withBytes { $0.map { String($0, radix: 16) }.joined(separator: ".") }
    }

    /// Integers that no file holds. Those of equal numbers and shape have one identity.
    /// - Throws: `data` where their number is not the shape's.
    package init(integers: [Int], shape: [Int]) throws {
        self.init(try Tensor(integers.map { Int64($0) }, shape: shape), identity: "int64 \(shape) \(integers)")
    }

    /// Identities that were generated.
    private static let made = Atomic<Int>(0)

    /// A constant at a place in a file. The region must have been checked to lie inside the file.
    /// - Parameter verify: is called before each reading, and throws where the file is damaged.
    package init(
        _ dataType: DataType, _ shape: [Int], in file: ReadableFile, at offset: Int, verify: (@Sendable () throws -> Void)? = nil
    ) {
        self.init(
            dataType, shape, identity: "\(file.path)@\(offset):\(dataType.rawValue)\(shape)",
            source: FileSource(file: file, offset: offset, verify: verify))
    }

    /// Bytes of all elements.
    public var byteCount: Int { get throws { try Tensors.byteCount(of: dataType, shape) } }

    /// Reads and computes the numbers.
    /// - Throws: `data` or `inputOutput` where the source cannot give them.
    public func load() throws -> Tensor { try source.load(dataType, shape) }

    /// The numbers as the kernels read them, not checked yet, where the source has them so; else nil.
    /// - Throws: `inputOutput` where they cannot be mapped.
    package func panels() throws -> Panels? { try source.panels() }
}

/// Gives the bytes of a constant.
package protocol ConstantSource: Sendable {
    /// The tensor of the type and shape that the constant states.
    func load(_ dataType: DataType, _ shape: [Int]) throws -> Tensor
    /// Hands out the tensor's bytes in parts, each with its offset, in parallel and in any order.
    func readParts(
        _ dataType: DataType, _ shape: [Int], _ body: @Sendable (Int, UnsafeRawBufferPointer) throws -> Void) throws
    /// As `Constant.panels`.
    func panels() throws -> Panels?
}

extension ConstantSource {
    package func panels() throws -> Panels? { nil }
}

private struct MemorySource: ConstantSource {
    let tensor: Tensor
    func load(_: DataType, _: [Int]) -> Tensor { tensor }
}

private struct FileSource: ConstantSource {
    let file: ReadableFile
    let offset: Int
    let verify: (@Sendable () throws -> Void)?

    func load(_ dataType: DataType, _ shape: [Int]) throws -> Tensor {
        try verify?()
        return try Tensor(dataType, shape) { try file.read(into: $0, at: offset) }
    }
}

/// A constant computed from others when it is loaded.
private struct DerivedSource: ConstantSource {
    let inputs: [Constant]
    let derive: @Sendable ([Tensor]) throws -> Tensor

    func load(_ dataType: DataType, _ shape: [Int]) throws -> Tensor {
        let tensor = try derive(inputs.map { try $0.load() })
        guard tensor.dataType == dataType, tensor.shape == shape else {
            throw TripsError.data(
                "a derived constant came out wrong", found: "\(tensor.dataType) \(tensor.shape)", expected: "\(dataType) \(shape)")
        }
        return tensor
    }
}

extension Constant {
    /// A constant computed from others when it is loaded.
    /// - Parameter operation: names the computation, in the identity.
    package static func derived(
        _ operation: String, from inputs: [Constant], _ dataType: DataType, _ shape: [Int], storedAs storedType: DataType? = nil,
        _ derive: @escaping @Sendable ([Tensor]) throws -> Tensor
    ) -> Constant {
        var constant = Constant(
            dataType, shape, storedAs: storedType, identity: "\(operation)(\(inputs.map(\.identity).joined(separator: ",")))",
            source: DerivedSource(inputs: inputs, derive: derive))
        constant.computations = inputs.reduce(1) { $0 + $1.computations }
        return constant
    }

    /// The same numbers under another shape of as many elements.
    package func reshaped(_ newShape: [Int]) throws -> Constant {
        guard try elementCount(of: newShape) == elementCount(of: shape) else {
            throw TripsError.data("elements do not fill the shape", found: "\(shape)", expected: "\(newShape)")
        }
        if newShape == shape { return self }
        return .derived("reshape\(newShape)", from: [self], dataType, newShape, storedAs: storedType) {
            try $0[0].reshaped(newShape)
        }
    }

    /// Rows [range.count, ...].
    /// - Throws: `data` where the tensor has no such rows.
    package func rows(_ range: Range<Int>) throws -> Constant {
        guard let first = shape.first, range.lowerBound >= 0, range.upperBound <= first else {
            throw TripsError.data("rows beyond the tensor", found: "\(range)", expected: "within \(shape)")
        }
        var rowShape = shape
        rowShape[0] = range.count
        if let source = source as? ScaledSource { return try source.rows(range) }
        if let source = source as? FileSource {
            let start = try Tensors.byteCount(of: dataType, [range.lowerBound] + shape.dropFirst())
            return Constant(dataType, rowShape, in: source.file, at: source.offset + start, verify: source.verify)
        }
        return .derived("rows\(range)", from: [self], dataType, rowShape, storedAs: storedType) { try $0[0].rows(range) }
    }

    /// A matrix with its two dimensions exchanged. Transposing twice gives the first constant back.
    package func transposed() throws -> Constant {
        guard shape.count == 2 else { throw TripsError.data("transposing", found: "rank \(shape.count)", expected: "rank 2") }
        if let transpose = source as? TransposedSource { return transpose.original }
        if let source = source as? ScaledSource { return try source.transposed() }
        var constant = Constant(
            dataType, [shape[1], shape[0]], storedAs: storedType, identity: "transpose(\(identity))",
            source: TransposedSource(original: self))
        constant.computations = computations + 1
        return constant
    }

    /// The same numbers in another type.
    package func converted(to newType: DataType) -> Constant {
        if newType == dataType { return self }
        let isWidening = newType.isFloatingPoint && dataType.isFloatingPoint && newType.byteWidth > dataType.byteWidth
        return .derived("as \(newType)", from: [self], newType, shape, storedAs: isWidening ? storedType : newType) {
            try $0[0].converted(to: newType)
        }
    }

    /// The numbers rounded to a narrower floating-point type, and seen as before. Loading throws where one is out of its range.
    package func rounded(to narrowType: DataType) -> Constant {
        guard dataType.isFloatingPoint, narrowType.byteWidth < storedType.byteWidth else { return self }
        return .derived("rounded to \(narrowType)", from: [self], dataType, shape, storedAs: narrowType) { [dataType] in
            try $0[0].rounded(to: narrowType).converted(to: dataType)
        }
    }
}

private struct TransposedSource: ConstantSource {
    let original: Constant

    func load(_: DataType, _: [Int]) throws -> Tensor { try original.load().transposed() }
}
