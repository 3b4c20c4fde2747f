import Foundation
import Support

/// A dense row-major array that does not change after it is made. Copies share their memory.
public struct Tensor: Sendable {
    /// The type of the elements.
    public let dataType: DataType
    /// Sizes, the slowest first.
    public let shape: [Int]
    private let storage: AlignedMemory

    /// Bytes of all elements.
    public var byteCount: Int { storage.byteCount }
    /// Number of elements.
    public var count: Int { storage.byteCount / dataType.byteWidth }

    /// A tensor whose bytes `fill` writes; memory is zeroed before. A Boolean is true where its byte is not 0.
    /// - Throws: `data` where the shape overflows or memory is refused, and what `fill` throws.
    public init(_ dataType: DataType, _ shape: [Int], fill: (UnsafeMutableRawBufferPointer) throws -> Void) throws {
        self.dataType = dataType
        self.shape = shape
        storage = try AlignedMemory(byteCount: Tensors.byteCount(of: dataType, shape))
        try fill(storage.bytes)
        makeBooleans()
    }

    /// Bytes of Booleans become 0 or 1, as Swift and the operators have them.
    private func makeBooleans() {
        guard dataType == .bool else { return }
        for index in storage.bytes.indices where storage.bytes[index] > 1 { storage.bytes[index] = 1 }
    }

    /// A tensor whose elements `fill` writes through a view; memory is zeroed before.
    /// - Throws: `data` where the shape overflows or memory is refused, and what `fill` throws.
    package static func zeroed(_ dataType: DataType, _ shape: [Int], _ fill: (MutableTensorView) throws -> Void) throws -> Tensor {
        try zeroed([(dataType, shape)]) { try fill($0[0]) }[0]
    }

    /// As above, for several tensors.
    package static func zeroed(
        _ types: [(dataType: DataType, shape: [Int])], _ fill: ([MutableTensorView]) throws -> Void
    ) throws -> [Tensor] {
        let tensors = try types.map { type in
            Tensor(
                dataType: type.dataType, shape: type.shape,
                storage: try AlignedMemory(byteCount: Tensors.byteCount(of: type.dataType, type.shape)))
        }
        try fill(tensors.map { MutableTensorView(dataType: $0.dataType, shape: $0.shape, bytes: $0.storage.base) })
        return tensors
    }

    /// A tensor whose bytes `fill` writes. Memory is uninitialised; `fill` must write every byte.
    package static func uninitialized(_ dataType: DataType, _ shape: [Int], _ fill: (AlignedMemory) throws -> Void) throws -> Tensor
    {
        let storage = try AlignedMemory(byteCount: Tensors.byteCount(of: dataType, shape), zeroed: false)
        try fill(storage)
        let tensor = Tensor(dataType: dataType, shape: shape, storage: storage)
        tensor.makeBooleans()
        return tensor
    }

    /// A tensor whose bytes lie in other memory, at a 64-byte boundary with 64 spare bytes after its end; they do not change while
    /// `owner` lives.
    /// - Throws: `data` where their number is not the shape's.
    package init(_ dataType: DataType, _ shape: [Int], mapped bytes: UnsafeRawBufferPointer, owner: any Sendable) throws {
        guard try Tensors.byteCount(of: dataType, shape) == bytes.count else {
            throw TripsError.data("bytes of a tensor", found: bytes.count, expected: "\(dataType)\(shape)")
        }
        guard dataType != .bool else {
            // Their bytes may be neither 0 nor 1.
            try self.init(dataType, shape) { $0.copyMemory(from: bytes) }
            return
        }
        self.init(dataType: dataType, shape: shape, storage: try AlignedMemory(reading: bytes, owner: owner))
    }

    /// The one element of `scalar` everywhere.
    package init(repeating scalar: Tensor, shape: [Int]) throws {
        let width = scalar.dataType.byteWidth
        try self.init(scalar.dataType, shape) { bytes in
            scalar.withBytes { element in
                for offset in stride(from: 0, to: bytes.count, by: width) {
                    for byte in 0..<width { bytes[offset + byte] = element[byte] }
                }
            }
        }
    }

    /// A tensor of the given elements.
    /// - Throws: `data` where their number is not the shape's.
    public init<Element: TensorElement>(_ elements: [Element], shape: [Int]) throws {
        guard try elementCount(of: shape) == elements.count else {
            throw TripsError.data("elements do not fill the shape", found: elements.count, expected: "\(shape)")
        }
        try self.init(Element.dataType, shape) { bytes in
            elements.withUnsafeBytes { bytes.copyMemory(from: $0) }
        }
    }

    /// A tensor of rank 0.
    public init<Element: TensorElement>(scalar: Element) throws {
        try self.init([scalar], shape: [])
    }

    /// The same elements under another shape of as many elements.
    public func reshaped(_ shape: [Int]) throws -> Tensor {
        guard try elementCount(of: shape) == count else {
            throw TripsError.data("elements do not fill the shape", found: count, expected: "\(shape)")
        }
        return Tensor(dataType: dataType, shape: shape, storage: storage)
    }

    /// The elements that strides (in elements, none negative) reach from the first one, in row-major order; all must lie within.
    package func gathered(_ shape: [Int], strides: [Int]) throws -> Tensor {
        let width = dataType.byteWidth
        // Nothing is ever one stride along an axis of one element: the file may state any number.
        let strides = zip(shape, strides).map { $0 == 1 ? 0 : $1 }
        return try Tensor(dataType, shape) { target in
            withBytes { source in
                var index = [Int](repeating: 0, count: shape.count)
                var from = 0
                for to in 0..<target.count / width {
                    for byte in 0..<width { target[to * width + byte] = source[from * width + byte] }
                    for axis in shape.indices.reversed() {
                        index[axis] += 1
                        from += strides[axis]
                        if index[axis] < shape[axis] { break }
                        from -= strides[axis] * shape[axis]
                        index[axis] = 0
                    }
                }
            }
        }
    }

    private init(dataType: DataType, shape: [Int], storage: AlignedMemory) {
        self.dataType = dataType
        self.shape = shape
        self.storage = storage
    }

    /// Calls `body` with the elements' bytes.
    public func withBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        try withExtendedLifetime(storage) { try body(UnsafeRawBufferPointer(storage.bytes)) }
    }

    /// The elements as a Swift array.
    /// - Throws: `data` where they are of another type; `converted(to:)` changes types.
    public func elements<Element: TensorElement>(_: Element.Type = Element.self) throws -> [Element] {
        guard dataType == Element.dataType else {
            throw TripsError.data("data type", found: dataType, expected: Element.dataType)
        }
        return withBytes { Array($0.bindMemory(to: Element.self)) }
    }

    /// A view for operators. It is valid while this tensor lives.
    package var view: TensorView {
        TensorView(dataType: dataType, shape: shape, bytes: UnsafeRawPointer(storage.base))
    }
}

/// The strides of a dense row-major array, in elements.
package func denseStrides(_ shape: [Int]) -> [Int] {
    var strides = Array(repeating: 1, count: shape.count)
    for axis in shape.indices.dropLast().reversed() { strides[axis] = strides[axis + 1] &* shape[axis + 1] }
    return strides
}

/// The index along each axis of the element at `offset` in row-major order.
package func coordinates(of offset: Int, in shape: [Int]) -> [Int] {
    var rest = offset
    var result: [Int] = []
    for size in shape.reversed() where size > 0 {
        result.append(rest % size)
        rest /= size
    }
    return result.reversed()
}

/// Swift types that are elements of tensors. Booleans are bytes that hold 0 or 1.
public protocol TensorElement: Sendable {
    static var dataType: DataType { get }
}

extension Double: TensorElement { public static var dataType: DataType { .float64 } }
extension Float: TensorElement { public static var dataType: DataType { .float32 } }
extension Int64: TensorElement { public static var dataType: DataType { .int64 } }
extension Int32: TensorElement { public static var dataType: DataType { .int32 } }
extension Int16: TensorElement { public static var dataType: DataType { .int16 } }
extension Int8: TensorElement { public static var dataType: DataType { .int8 } }
extension UInt64: TensorElement { public static var dataType: DataType { .uint64 } }
extension UInt32: TensorElement { public static var dataType: DataType { .uint32 } }
extension UInt16: TensorElement { public static var dataType: DataType { .uint16 } }
extension UInt8: TensorElement { public static var dataType: DataType { .uint8 } }
extension Bool: TensorElement { public static var dataType: DataType { .bool } }

/// Where a tensor's elements are read: a pointer with type and shape, valid only while its owner lives.
package struct TensorView: @unchecked Sendable {
    package let dataType: DataType
    package let shape: [Int]
    package let bytes: UnsafeRawPointer

    package init(dataType: DataType, shape: [Int], bytes: UnsafeRawPointer) {
        self.dataType = dataType
        self.shape = shape
        self.bytes = bytes
    }

    package var count: Int { shape.reduce(1, *) }

    /// A copy that owns its memory.
    package func tensor() throws -> Tensor {
        try Tensor.uninitialized(dataType, shape) { $0.base.copyMemory(from: bytes, byteCount: $0.byteCount) }
    }

    /// The elements as `Element`, whose width must be the data type's.
    package func elements<Element: TensorElement>(_: Element.Type = Element.self) -> UnsafeBufferPointer<Element> {
        UnsafeBufferPointer(start: bytes.assumingMemoryBound(to: Element.self), count: count)
    }
}

/// Where a tensor's elements are written; otherwise as `TensorView`.
package struct MutableTensorView: @unchecked Sendable {
    package let dataType: DataType
    package let shape: [Int]
    package let bytes: UnsafeMutableRawPointer

    package init(dataType: DataType, shape: [Int], bytes: UnsafeMutableRawPointer) {
        self.dataType = dataType
        self.shape = shape
        self.bytes = bytes
    }

    package var count: Int { shape.reduce(1, *) }

    package func elements<Element: TensorElement>(_: Element.Type = Element.self) -> UnsafeMutableBufferPointer<Element> {
        UnsafeMutableBufferPointer(start: bytes.assumingMemoryBound(to: Element.self), count: count)
    }

    package var readOnly: TensorView { TensorView(dataType: dataType, shape: shape, bytes: bytes) }
}
