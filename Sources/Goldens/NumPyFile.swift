import Importers
import Support
import Tensors

/// Reads a NumPy archive (.npz) with keys `in.NAME`, `out.NAME`, `mid.NAME`.
/// - Throws: `data` also where what is needed inflates to more than `inflatedLimit`.
func loadNPZGolden(path: String, name: String, needing needs: (GoldenKey) -> Bool) throws -> GoldenSet {
    let archive = try ZipArchive(ReadableFile(path: path))
    let parts = archive.entries.filter { $0.name.hasSuffix(".npy") }.map { (key: String($0.name.dropLast(4)), part: $0) }
    let limit = inflatedLimit(fileSize: archive.file.size)
    var room = limit
    return try GoldenSet(name: name, keyed: parts, metadata: GoldenMetadata(), needing: needs) { entry in
        guard entry.size <= room else {
            throw TripsError.data(
                "the archive inflates out of proportion", at: "\(name): \(entry.name)", found: "\(entry.size) bytes",
                expected: "\(limit) at most for all arrays of a file of \(archive.file.size)")
        }
        room -= entry.size
        let bytes = try archive.bytes(of: entry)
        return try locating("\(name): \(entry.name)") { try readNPY(bytes) }
    }
}

/// Bytes that the arrays of an archive may take: numbers of a model hardly compress, but an image of one colour does.
private func inflatedLimit(fileSize: Int) -> Int { (32 << 20) + min(fileSize, 1 << 50) * 16 }

/// Reads one array in NumPy's format (NEP 1), versions 1.0 to 3.0, in C or Fortran order and either byte order.
/// - Throws: `data` for what is malformed, and for types that tensors do not have (objects, text, complex numbers).
package func readNPY(_ bytes: [UInt8]) throws -> Tensor {
    let magic: [UInt8] = [0x93] + Array("NUMPY".utf8)
    guard bytes.count >= 10, bytes.starts(with: magic) else { throw TripsError.data("no NumPy array", expected: "\\x93NUMPY") }
    guard (1...3).contains(bytes[6]) else {
        throw TripsError.data("NumPy format version", at: "byte 6", found: bytes[6], expected: "1 to 3")
    }
    let lengthBytes = bytes[6] == 1 ? 2 : 4
    guard bytes.count >= 8 + lengthBytes else { throw TripsError.data("the header ends too early", found: "\(bytes.count) bytes") }
    let length = bytes[8..<8 + lengthBytes].reversed().reduce(0) { $0 << 8 | Int($1) }
    let start = 8 + lengthBytes
    guard length <= bytes.count - start, length <= 65536 else {
        throw TripsError.data("header length", at: "byte 8", found: length, expected: "at most \(min(65536, bytes.count - start))")
    }
    let header = try NPYHeader(Array(bytes[start..<start + length]))
    let needed = try byteCount(of: header.dataType, header.shape)
    let found = bytes.count - start - length
    guard found == needed else {
        throw TripsError.data("bytes of the array", found: found, expected: "\(needed) for \(header.dataType) \(header.shape)")
    }
    let stored = header.isFortranOrder ? Array(header.shape.reversed()) : header.shape
    let tensor = try Tensor(header.dataType, stored) { target in
        bytes[(start + length)...].withUnsafeBytes { target.copyMemory(from: $0) }
        if header.isBigEndian { reverseElements(target, width: header.dataType.byteWidth) }
    }
    return header.isFortranOrder ? try tensor.gathered(header.shape, strides: denseStrides(stored).reversed()) : tensor
}

/// The header's Python literal, such as `{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }`.
private struct NPYHeader {
    let dataType: DataType
    let isBigEndian: Bool
    let isFortranOrder: Bool
    let shape: [Int]

    init(_ text: [UInt8]) throws {
        var literal = PythonLiteral(text)
        let (type, order, shape) = try literal.header()
        guard let first = type.first, "<>|=".contains(first), let dataType = NPYHeader.types[String(type.dropFirst())] else {
            throw TripsError.data("data type of a NumPy array", found: type, expected: "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1")
        }
        guard shape.count <= 32 else { throw TripsError.data("shape", found: "\(shape.count) dimensions", expected: "at most 32") }
        self.dataType = dataType
        isBigEndian = first == ">"
        isFortranOrder = order
        self.shape = shape
    }

    static let types: [String: DataType] = [
        "f2": .float16, "f4": .float32, "f8": .float64, "i1": .int8, "i2": .int16, "i4": .int32, "i8": .int64,
        "u1": .uint8, "u2": .uint16, "u4": .uint32, "u8": .uint64, "b1": .bool,
    ]
}

/// A reader for the one form of literal that NumPy writes.
private struct PythonLiteral {
    let text: [UInt8]
    var position = 0

    init(_ text: [UInt8]) { self.text = text }

    mutating func header() throws -> (type: String, isFortranOrder: Bool, shape: [Int]) {
        var (type, order, shape): (String?, Bool?, [Int]?)
        try expect("{")
        while !take("}") {
            let key = try quoted()
            try expect(":")
            switch key {
            case "descr" where type == nil: type = try quoted()
            case "fortran_order" where order == nil: order = try boolean()
            case "shape" where shape == nil: shape = try tuple()
            default: throw error("the keys descr, fortran_order and shape, each once")
            }
            if !take(",") {
                try expect("}")
                break
            }
        }
        skipSpace()
        guard position == text.count else { throw error("the end of the header") }
        guard let type, let order, let shape else { throw error("the keys descr, fortran_order and shape") }
        return (type, order, shape)
    }

    private func error(_ expected: String) -> TripsError {
        let found = position < text.count ? "byte 0x" + String(text[position], radix: 16) : "the end"
        return .data("malformed NumPy header", at: "byte \(position) of the header", found: found, expected: expected)
    }

    private mutating func skipSpace() {
        while position < text.count, text[position] == 0x20 || text[position] == 0x0A { position += 1 }
    }

    private mutating func take(_ word: String) -> Bool {
        skipSpace()
        guard text[position...].starts(with: word.utf8) else { return false }
        position += word.utf8.count
        return true
    }

    private mutating func expect(_ word: String) throws {
        guard take(word) else { throw error("'\(word)'") }
    }

    private mutating func quoted() throws -> String {
        skipSpace()
        guard position < text.count, text[position] == UInt8(ascii: "'") || text[position] == UInt8(ascii: "\"") else {
            throw error("a quoted text")
        }
        let quote = text[position]
        guard let end = text[(position + 1)...].firstIndex(of: quote) else { throw error("a closing quote") }
        defer { position = end + 1 }
        return String(decoding: text[position + 1..<end], as: UTF8.self)
    }

    private mutating func boolean() throws -> Bool {
        if take("True") { return true }
        if take("False") { return false }
        throw error("True or False")
    }

    private mutating func tuple() throws -> [Int] {
        try expect("(")
        var numbers: [Int] = []
        while !take(")") {
            skipSpace()
            let digits = text[position...].prefix { $0 >= 0x30 && $0 <= 0x39 }
            guard let number = Int(String(decoding: digits, as: UTF8.self)) else { throw error("a size") }
            position += digits.count
            // Python 2 wrote long integers with an L.
            _ = take("L")
            numbers.append(number)
            if !take(",") {
                try expect(")")
                break
            }
        }
        return numbers
    }
}

private func reverseElements(_ bytes: UnsafeMutableRawBufferPointer, width: Int) {
    for start in stride(from: 0, to: bytes.count, by: width) {
        bytes[start..<start + width].reverse()
    }
}
