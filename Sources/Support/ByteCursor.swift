/// Reads little-endian fields one behind the other, and never beyond the end.
public struct ByteCursor: Sendable {
    private let bytes: ArraySlice<UInt8>
    private var position: Int

    public init(_ bytes: some Sequence<UInt8>) {
        self.bytes = ArraySlice(bytes)
        position = self.bytes.startIndex
    }

    /// Bytes that were taken.
    public var taken: Int { position - bytes.startIndex }

    /// Bytes that are left.
    public var remaining: Int { bytes.endIndex - position }

    /// The next `count` bytes.
    /// - Throws: `data` where fewer are left.
    public mutating func take(_ count: Int) throws -> ArraySlice<UInt8> {
        guard count >= 0, count <= remaining else {
            throw TripsError.data(
                "a field reaches beyond the end", at: "byte \(taken)", found: "\(remaining) bytes",
                expected: count)
        }
        defer { position += count }
        return bytes[position..<position + count]
    }

    /// The next integer.
    /// - Throws: `data` where too few bytes are left.
    public mutating func integer<Value: FixedWidthInteger & UnsignedInteger>(_: Value.Type = Value.self) throws -> Value {
        try take(Value.bitWidth / 8).reversed().reduce(0) { $0 << 8 | Value($1) }
    }
}

extension [UInt8] {
    /// Appends an integer in little-endian order.
    public mutating func append<Value: FixedWidthInteger & UnsignedInteger>(littleEndian value: Value) {
        for shift in stride(from: 0, to: Value.bitWidth, by: 8) { append(UInt8(truncatingIfNeeded: value >> shift)) }
    }
}
