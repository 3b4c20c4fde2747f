/// A JSON document (RFC 8259), read strictly: valid UTF-8, unique keys, bounded depth, nothing after the end.
package enum JSON: Sendable, Equatable {
    case null
    case bool(Bool)
    /// A number without fraction and exponent that fits.
    case integer(Int)
    /// Any other number; always finite.
    case number(Double)
    case string(String)
    case array([JSON])
    /// Members in the order of the document.
    case object([Member])

    package struct Member: Sendable, Equatable {
        package let key: String
        package let value: JSON

        package init(_ key: String, _ value: JSON) {
            self.key = key
            self.value = value
        }
    }

    /// Parses a document.
    /// - Parameter maximalDepth: how deep arrays and objects may be nested.
    /// - Throws: `data` with the byte offset as the place.
    package init(parsing bytes: [UInt8], maximalDepth: Int = 64) throws {
        var parser = JSONParser(bytes: bytes, maximalDepth: maximalDepth)
        self = try parser.document()
    }

    /// Parses a whole file.
    /// - Throws: as parsing its bytes does; `data` where there are more than `maximalSize`.
    package init(_ file: ReadableFile, maximalSize: Int, maximalDepth: Int = 64) throws {
        guard file.size <= maximalSize else {
            throw TripsError.data("size of a JSON file", found: "\(file.size) bytes", expected: "at most \(maximalSize)")
        }
        try self.init(parsing: file.bytes(at: 0, count: file.size), maximalDepth: maximalDepth)
    }

    /// The member of an object with this key.
    package subscript(key: String) -> JSON? {
        if case .object(let members) = self { return members.first { $0.key == key }?.value }
        return nil
    }

    package var string: String? { if case .string(let text) = self { text } else { nil } }
    package var integer: Int? { if case .integer(let number) = self { number } else { nil } }
    package var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var array: [JSON]? { if case .array(let elements) = self { elements } else { nil } }
    package var members: [Member]? { if case .object(let members) = self { members } else { nil } }
    /// Any number.
    package var double: Double? {
        switch self {
        case .integer(let number): Double(number)
        case .number(let number): number
        default: nil
        }
    }
}

extension JSON: CustomStringConvertible {
    /// The document as JSON text.
    package var description: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .integer(let number): "\(number)"
        case .number(let number): "\(number)"
        case .string(let text): JSON.quoted(text)
        case .array(let elements): "[" + elements.map(\.description).joined(separator: ", ") + "]"
        case .object(let members):
            "{" + members.map { "\(JSON.quoted($0.key)): \($0.value)" }.joined(separator: ", ") + "}"
        }
    }

    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": quoted += "\\\(scalar)"
            case ..<" ": quoted += "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}

private struct JSONParser {
    let bytes: [UInt8]
    let maximalDepth: Int
    var position = 0

    init(bytes: [UInt8], maximalDepth: Int) {
        self.bytes = bytes
        self.maximalDepth = maximalDepth
    }

    mutating func document() throws -> JSON {
        let value = try value(depth: 0)
        skipSpace()
        guard position == bytes.count else { throw error("the end") }
        return value
    }

    private func error(_ expected: String) -> TripsError {
        let found = position < bytes.count ? "byte 0x" + String(bytes[position], radix: 16) : "the end"
        return .data("malformed JSON", at: "byte \(position)", found: found, expected: expected)
    }

    private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard next == byte else { return false }
        position += 1
        return true
    }

    private mutating func value(depth: Int) throws -> JSON {
        skipSpace()
        if depth == maximalDepth, next == UInt8(ascii: "{") || next == UInt8(ascii: "[") {
            throw error("at most \(maximalDepth) levels")
        }
        switch next {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try literal("true", .bool(true))
        case UInt8(ascii: "f"): return try literal("false", .bool(false))
        case UInt8(ascii: "n"): return try literal("null", .null)
        default: return try number()
        }
    }

    private mutating func literal(_ text: String, _ value: JSON) throws -> JSON {
        guard bytes[position...].starts(with: text.utf8) else { throw error(text) }
        position += text.utf8.count
        return value
    }

    private mutating func object(depth: Int) throws -> JSON {
        position += 1
        var members: [JSON.Member] = []
        var keys = Set<String>()
        skipSpace()
        if take(UInt8(ascii: "}")) { return .object([]) }
        repeat {
            skipSpace()
            guard next == UInt8(ascii: "\"") else { throw error("a key") }
            let place = position
            let key = try string()
            guard keys.insert(key).inserted else {
                throw TripsError.data(
                    "malformed JSON", at: "byte \(place)", found: "key \"\(key.prefix(80))\" twice", expected: "unique keys")
            }
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw error("':'") }
            members.append(.init(key, try value(depth: depth + 1)))
            skipSpace()
        } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "}")) else { throw error("',' or '}'") }
        return .object(members)
    }

    private mutating func array(depth: Int) throws -> JSON {
        position += 1
        var elements: [JSON] = []
        skipSpace()
        if take(UInt8(ascii: "]")) { return .array([]) }
        repeat {
            elements.append(try value(depth: depth + 1))
            skipSpace()
        } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "]")) else { throw error("',' or ']'") }
        return .array(elements)
    }

    private mutating func string() throws -> String {
        position += 1
        var text: [UInt8] = []
        while let byte = next {
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let string = String(untrusted: text) else { throw error(String.untrustedForm) }
                return string
            case UInt8(ascii: "\\"): text += try escape()
            case 0..<0x20:
                position -= 1
                throw error("no control characters in a string")
            default: text.append(byte)
            }
        }
        throw error("'\"'")
    }

    private mutating func escape() throws -> [UInt8] {
        guard let byte = next else { throw error("an escape") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
        case UInt8(ascii: "b"): return [0x08]
        case UInt8(ascii: "f"): return [0x0C]
        case UInt8(ascii: "n"): return [0x0A]
        case UInt8(ascii: "r"): return [0x0D]
        case UInt8(ascii: "t"): return [0x09]
        case UInt8(ascii: "u"): return Array(String(try unicodeEscape()).utf8)
        default:
            position -= 1
            throw error("an escape")
        }
    }

    private mutating func unicodeEscape() throws -> Character {
        var code = try hexadecimal()
        if code & 0xFC00 == 0xD800 {
            guard take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else { throw error("the second half of a surrogate pair") }
            let low = try hexadecimal()
            guard low & 0xFC00 == 0xDC00 else { throw error("the second half of a surrogate pair") }
            code = 0x10000 + ((code & 0x3FF) << 10) + (low & 0x3FF)
        }
        guard let scalar = Unicode.Scalar(code) else { throw error("a Unicode scalar") }
        return Character(scalar)
    }

    private mutating func hexadecimal() throws -> UInt32 {
        guard bytes.count - position >= 4, bytes[position..<position + 4].allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
            let code = UInt32(String(decoding: bytes[position..<position + 4], as: UTF8.self), radix: 16)
        else { throw error("four hexadecimal digits") }
        position += 4
        return code
    }

    private mutating func number() throws -> JSON {
        let start = position
        _ = take(UInt8(ascii: "-"))
        let first = next
        guard try digits() == 1 || first != UInt8(ascii: "0") else {
            position = start
            throw error("no leading zeros")
        }
        var isInteger = true
        if take(UInt8(ascii: ".")) {
            isInteger = false
            _ = try digits()
        }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            isInteger = false
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            _ = try digits()
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger, let integer = Int(text) { return .integer(integer) }
        guard let number = Double(text), number.isFinite else {
            position = start
            throw error("a number in range")
        }
        return .number(number)
    }

    /// Skips digits, at least one, and returns how many.
    private mutating func digits() throws -> Int {
        let start = position
        while let byte = next, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") { position += 1 }
        guard position > start else { throw error("a value") }
        return position - start
    }
}
