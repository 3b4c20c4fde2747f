/// Reads little-endian fields one after the other, and never beyond the end.
package struct ByteCursor: Sendable {
    private let bytes: ArraySlice<UInt8>
    private var position: Int

    package init(_ bytes: some Sequence<UInt8>) {
        self.bytes = ArraySlice(bytes)
        position = self.bytes.startIndex
    }

    /// Bytes that were taken.
    package var taken: Int { position - bytes.startIndex }

    /// Bytes that are left.
    package var remaining: Int { bytes.endIndex - position }

    /// The next `count` bytes.
    /// - Throws: `data` where fewer are left.
    package mutating func take(_ count: Int) throws -> ArraySlice<UInt8> {
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
    package mutating func integer<Value: FixedWidthInteger & UnsignedInteger>(_: Value.Type = Value.self) throws -> Value {
        try take(Value.bitWidth / 8).reversed().reduce(0) { $0 << 8 | Value($1) }
    }
}

extension [UInt8] {
    /// Appends an integer in little-endian order.
    package mutating func append<Value: FixedWidthInteger & UnsignedInteger>(littleEndian value: Value) {
        for shift in stride(from: 0, to: Value.bitWidth, by: 8) { append(UInt8(truncatingIfNeeded: value >> shift)) }
    }
}
