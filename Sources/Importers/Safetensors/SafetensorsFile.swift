import Support
import Tensors

/// A safetensors file: a JSON header, then the tensors' bytes without gaps (format: huggingface/safetensors, README).
///
/// Opening reads the header alone. Everything that the format promises is checked then: a later read stays in the file.
public struct SafetensorsFile: Sendable {
    /// In the order of the header.
    public let tensors: [(name: String, constant: Constant)]
    /// The header's `__metadata__`.
    public let metadata: [String: String]

    /// The longest header that the format allows, in bytes.
    public static let maximalHeaderLength = 100_000_000

    /// Opens a file and checks its header.
    /// - Throws: `cannotOpen`, `inputOutput`, or `data` where the header breaks the format.
    public init(path: String) throws {
        let file = try ReadableFile(path: path)
        try self.init(file)
    }

    package init(_ file: ReadableFile) throws {
        (tensors, metadata) = try locating(file.name) { try readHeader(of: file) }
    }
}

/// What is easily taken for a safetensors file, by its first bytes.
private func otherFormat(_ start: [UInt8]) -> String? {
    let formats: [(start: [UInt8], name: String)] = [
        ([0x50, 0x4B, 3, 4], "a zip archive, as torch.save and numpy.savez write"),
        ([0x80, 2, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46], "a pickle, as torch.save wrote"),
    ]
    return formats.first { start.starts(with: $0.start) }?.name
}

private func readHeader(of file: ReadableFile) throws -> (tensors: [(name: String, constant: Constant)], metadata: [String: String])
{
    guard file.size >= 8 else {
        throw TripsError.data("too short for safetensors", found: "\(file.size) bytes", expected: "8 or more")
    }
    let start = try file.bytes(at: 0, count: 8)
    let stated = start.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    let room = file.size - 8
    guard let length = Int(exactly: stated), length <= room, length <= SafetensorsFile.maximalHeaderLength else {
        if let other = otherFormat(start) { throw TripsError.data("no safetensors file", found: other) }
        throw TripsError.data(
            "header length (of a file that is cut short, or no safetensors file)", at: "byte 0", found: stated,
            expected: "at most \(min(room, SafetensorsFile.maximalHeaderLength))")
    }
    let bytes = try file.bytes(at: 8, count: length)
    guard bytes.first == UInt8(ascii: "{") else {
        throw TripsError.data(
            "the header is no JSON object", at: "byte 8", found: bytes.first.map { "byte 0x" + String($0, radix: 16) } ?? "nothing",
            expected: "'{'")
    }
    let header = try locating("header") { try JSON(parsing: bytes, maximalDepth: 8) }
    guard let members = header.members else { throw TripsError.data("the header is no JSON object") }

    var metadata: [String: String] = [:]
    var entries: [Entry] = []
    for member in members {
        try locating("\"\(member.key.prefix(120))\"") {
            if member.key == "__metadata__" {
                metadata = try readMetadata(member.value)
            } else {
                entries.append(try Entry(name: member.key, member.value, room: room - length))
            }
        }
    }
    try checkLayout(of: entries, room: room - length)
    return (entries.map { ($0.name, Constant($0.dataType, $0.shape, in: file, at: 8 + length + $0.begin)) }, metadata)
}

private func readMetadata(_ value: JSON) throws -> [String: String] {
    guard let members = value.members else { throw TripsError.data("metadata", expected: "an object of strings") }
    return try Dictionary(
        uniqueKeysWithValues: members.map { member in
            guard let text = member.value.string else {
                throw TripsError.data("metadata", at: "\"\(member.key.prefix(120))\"", expected: "a string")
            }
            return (member.key, text)
        })
}

/// A tensor as the header states it; offsets count from the end of the header.
private struct Entry {
    let name: String
    let dataType: DataType
    let shape: [Int]
    let begin: Int
    let end: Int

    init(name: String, _ value: JSON, room: Int) throws {
        self.name = name
        guard let members = value.members, Set(members.map(\.key)) == ["dtype", "shape", "data_offsets"] else {
            throw TripsError.data(
                "tensor entry", found: value.members.map { "\($0.map(\.key))" } ?? "no object",
                expected: "dtype, shape, data_offsets")
        }
        guard let typeName = value["dtype"]?.string, let dataType = DataType(rawValue: typeName) else {
            throw TripsError.data(
                "dtype", found: value["dtype"]?.string.map { String($0.prefix(40)) } ?? "no string",
                expected: "one of \(DataType.allCases.map(\.rawValue).joined(separator: " "))")
        }
        self.dataType = dataType
        shape = try value["shape"].map(naturals) ?? []
        let offsets = try value["data_offsets"].map(naturals) ?? []
        guard shape.count <= 32 else { throw TripsError.data("shape", found: "\(shape.count) dimensions", expected: "at most 32") }
        guard offsets.count == 2, offsets[0] <= offsets[1], offsets[1] <= room else {
            throw TripsError.data(
                "data_offsets", found: "\(offsets.prefix(4))", expected: "begin <= end <= \(room), where the file ends")
        }
        (begin, end) = (offsets[0], offsets[1])
        let needed = try byteCount(of: dataType, shape)
        guard end - begin == needed else {
            throw TripsError.data("data_offsets", found: "\(end - begin) bytes", expected: "\(needed) for \(dataType) \(shape)")
        }
    }
}

private func naturals(_ value: JSON) throws -> [Int] {
    guard let array = value.array else { throw TripsError.data("a list of sizes", expected: "an array of integers") }
    return try array.map { element in
        guard let number = element.integer, number >= 0 else {
            throw TripsError.data(
                "a list of sizes", found: element.double.map { "\($0)" } ?? "no number", expected: "integers, 0 or more")
        }
        return number
    }
}

/// The tensors must fill the file, without overlap and without holes.
private func checkLayout(of entries: [Entry], room: Int) throws {
    var end = 0
    for entry in entries.sorted(by: { ($0.begin, $0.end) < ($1.begin, $1.end) }) {
        guard entry.begin == end else {
            throw TripsError.data(
                entry.begin < end ? "tensors overlap" : "a hole between tensors", at: "\"\(entry.name.prefix(120))\"",
                found: "begins at \(entry.begin)", expected: end)
        }
        end = entry.end
    }
    guard end == room else { throw TripsError.data("bytes behind the last tensor", found: "\(room) bytes of data", expected: end) }
}
