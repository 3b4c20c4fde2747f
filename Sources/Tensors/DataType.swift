import Support

/// Element types. The raw value is the name that safetensors files use.
public enum DataType: String, Sendable, NamedChoice, CustomStringConvertible {
    case float64 = "F64"
    case float32 = "F32"
    case float16 = "F16"
    case bfloat16 = "BF16"
    case int64 = "I64"
    case int32 = "I32"
    case int16 = "I16"
    case int8 = "I8"
    case uint64 = "U64"
    case uint32 = "U32"
    case uint16 = "U16"
    case uint8 = "U8"
    case bool = "BOOL"

    /// Bytes per element.
    public var byteWidth: Int {
        switch self {
        case .float64, .int64, .uint64: 8
        case .float32, .int32, .uint32: 4
        case .float16, .bfloat16, .int16, .uint16: 2
        case .int8, .uint8, .bool: 1
        }
    }

    /// True for the floating-point types.
    public var isFloatingPoint: Bool {
        switch self {
        case .float64, .float32, .float16, .bfloat16: true
        default: false
        }
    }

    /// True for the floating-point types of 16 bits.
    package var isHalf: Bool { self == .float16 || self == .bfloat16 }

    /// Whether another type of the same kind has all its numbers. Booleans are the integers 0 and 1.
    package func isExact(in other: DataType) -> Bool {
        if self == other { return true }
        guard isFloatingPoint == other.isFloatingPoint, other != .bool else { return false }
        if self == .bool { return true }
        return byteWidth < other.byteWidth && (isFloatingPoint || isUnsigned || !other.isUnsigned)
    }

    private var isUnsigned: Bool { [.uint64, .uint32, .uint16, .uint8].contains(self) }

    /// Signed or unsigned integers, without booleans.
    public var isInteger: Bool { !isFloatingPoint && self != .bool }

    /// The name as Swift and the printed graphs write it, such as `float32`.
    public var description: String {
        switch self {
        case .float64: "float64"
        case .float32: "float32"
        case .float16: "float16"
        case .bfloat16: "bfloat16"
        case .int64: "int64"
        case .int32: "int32"
        case .int16: "int16"
        case .int8: "int8"
        case .uint64: "uint64"
        case .uint32: "uint32"
        case .uint16: "uint16"
        case .uint8: "uint8"
        case .bool: "bool"
        }
    }
}

/// The number of elements of a shape.
/// - Throws: `data` where a dimension is negative or the product does not fit. Where it is 0, the other dimensions must
///   have a product of at most 2^24: loops run over rows without elements, too.
public func elementCount(of shape: [Int]) throws -> Int {
    var count = 1
    for dimension in shape where dimension != 0 {
        guard dimension > 0 else { throw TripsError.data("negative dimension", found: "\(shape)") }
        let (product, overflow) = count.multipliedReportingOverflow(by: dimension)
        guard !overflow else { throw TripsError.data("the number of elements overflows", found: "shape \(shape)") }
        count = product
    }
    guard shape.contains(0) else { return count }
    guard count <= 1 << 24 else { throw TripsError.data("a dimension of 0 beside large ones", found: "shape \(shape)") }
    return 0
}

/// The number of bytes that a tensor of this type and shape takes.
/// - Throws: as `elementCount(of:)`.
public func byteCount(of dataType: DataType, _ shape: [Int]) throws -> Int {
    let (bytes, overflow) = try elementCount(of: shape).multipliedReportingOverflow(by: dataType.byteWidth)
    guard !overflow else { throw TripsError.data("the number of bytes overflows", found: "shape \(shape)") }
    return bytes
}
