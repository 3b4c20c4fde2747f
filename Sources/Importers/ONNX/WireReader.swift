import Support

/// Reads protobuf's wire format from a file, front to back, through a buffer of bounded size.
struct WireReader {
    private let file: ReadableFile
    private(set) var position = 0
    private var window: [UInt8] = []
    private var windowStart = 0
    private static let windowSize = 1 << 16

    init(_ file: ReadableFile) { self.file = file }

    /// A key: field number and wire type.
    mutating func key(end: Int) throws -> (field: Int, type: WireType) {
        let start = position
        let key = try varint(end: end)
        guard key >> 3 > 0, key >> 3 < 1 << 29, let type = WireType(rawValue: UInt8(key & 7)) else {
            throw TripsError.data(
                "malformed protobuf", at: "byte \(start)", found: "key \(key)",
                expected: "a field number and wire type 0, 1, 2 or 5")
        }
        return (Int(key >> 3), type)
    }

    mutating func varint(end: Int) throws -> UInt64 {
        let start = position
        var value: UInt64 = 0
        for index in 0..<10 {
            let byte = try byte(end: end)
            // The tenth byte holds the last of 64 bits.
            if index == 9 && byte > 1 { break }
            value |= UInt64(byte & 0x7F) << UInt64(7 * index)
            if byte & 0x80 == 0 { return value }
        }
        throw TripsError.data("malformed protobuf", at: "byte \(start)", found: "a varint of more than 64 bits")
    }

    /// The end of a length-delimited field that starts here: its length is read and checked.
    mutating func delimitedEnd(end: Int) throws -> Int {
        let start = position
        let length = try varint(end: end)
        guard let count = Int(exactly: length), count <= end - position else {
            throw TripsError.data(
                "malformed protobuf (as of a file that was cut short)", at: "byte \(start)", found: "a field of \(length) bytes",
                expected: "at most \(end - position)")
        }
        return position + count
    }

    mutating func bytes(_ count: Int, end: Int) throws -> [UInt8] {
        try check(count, end: end)
        let available = position - windowStart
        defer { position += count }
        if position >= windowStart, available <= window.count, count <= window.count - available {
            return Array(window[available..<available + count])
        }
        return try file.bytes(at: position, count: count)
    }

    /// Skips `count` bytes.
    mutating func skip(_ count: Int, end: Int) throws {
        try check(count, end: end)
        position += count
    }

    private func check(_ count: Int, end: Int) throws {
        guard count <= end - position else {
            throw TripsError.data(
                "malformed protobuf (as of a file that was cut short)", at: "byte \(position)", found: "the end of the message",
                expected: "\(count) bytes more")
        }
    }

    private mutating func byte(end: Int) throws -> UInt8 {
        try check(1, end: end)
        if position < windowStart || position >= windowStart + window.count {
            window = try file.bytes(at: position, count: min(WireReader.windowSize, file.size - position))
            windowStart = position
        }
        defer { position += 1 }
        return window[position - windowStart]
    }
}

/// How a field's value is written. Groups (3 and 4) are not part of ONNX.
enum WireType: UInt8 {
    case varint = 0
    case fixed64 = 1
    case delimited = 2
    case fixed32 = 5
}

extension [UInt8] {
    mutating func appendVarint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        append(UInt8(rest))
    }

    mutating func appendKey(_ field: Int, _ type: WireType) {
        appendVarint(UInt64(field) << 3 | UInt64(type.rawValue))
    }

    mutating func appendDelimited(_ field: Int, _ bytes: [UInt8]) {
        appendKey(field, .delimited)
        appendVarint(UInt64(bytes.count))
        append(contentsOf: bytes)
    }
}
