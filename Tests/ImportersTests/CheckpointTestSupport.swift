import Support
import Testing

/// Expects an error of this kind whose text holds all of the words.
func expectFailure<Result>(
    _ kind: TripsError.Kind = .data, _ words: String..., sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () throws -> Result
) {
    do {
        _ = try body()
        Issue.record("nothing was thrown", sourceLocation: sourceLocation)
    } catch let error as TripsError {
        #expect(error.kind == kind, "\(error)", sourceLocation: sourceLocation)
        for word in words { #expect(error.description.contains(word), "\(error)", sourceLocation: sourceLocation) }
    } catch {
        Issue.record("\(error)", sourceLocation: sourceLocation)
    }
}

func littleEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }

/// A safetensors file: header text, then data.
func safetensors(_ header: String, _ data: [UInt8] = []) -> [UInt8] {
    littleEndian(UInt64(header.utf8.count)) + Array(header.utf8) + data
}

/// Writes pickles of protocol 2, opcode by opcode.
struct Pickle {
    var bytes: [UInt8] = [0x80, 2]

    static func ascii(_ text: String) -> [UInt8] { Array(text.utf8) }
    static func string(_ text: String) -> [UInt8] { [0x58] + littleEndian(UInt32(text.utf8.count)) + ascii(text) }
    static func integer(_ number: Int32) -> [UInt8] { [0x4A] + littleEndian(number) }
    static func global(_ module: String, _ name: String) -> [UInt8] { ascii("c\(module)\n\(name)\n") }
    static func tuple(_ elements: [UInt8]...) -> [UInt8] { ascii("(") + elements.joined() + ascii("t") }
    static func storage(_ type: String, key: String, count: Int32) -> [UInt8] {
        tuple(string("storage"), global("torch", type), string(key), string("cpu"), integer(count)) + ascii("Q")
    }
    static func tensor(_ storage: [UInt8], offset: Int32 = 0, _ shape: [Int32], _ strides: [Int32]) -> [UInt8] {
        let arguments = tuple(
            storage, integer(offset), tuple(shape.flatMap(integer)), tuple(strides.flatMap(integer)), [0x89], [0x7D])
        return global("torch._utils", "_rebuild_tensor_v2") + arguments + ascii("R")
    }
    static func dictionary(_ members: (String, [UInt8])...) -> [UInt8] {
        ascii("}(") + members.flatMap { string($0.0) + $0.1 } + ascii("u")
    }
    static func whole(_ body: [UInt8]) -> [UInt8] { [0x80, 2] + body + ascii(".") }
}

/// A zip archive of stored entries, whose sizes and places are what the test says.
struct ZipWriter {
    struct Entry {
        var name: String
        var data: [UInt8]
        var method: UInt16 = 0
        var flags: UInt16 = 0
        var checksum: UInt32 = 0
        /// What the directory says; nil: the truth.
        var statedSize: UInt32?
        var statedStoredSize: UInt32?
        var statedOffset: UInt32?
    }

    static func archive(_ entries: [Entry]) -> [UInt8] {
        var file: [UInt8] = []
        var directory: [UInt8] = []
        for entry in entries {
            let offset = entry.statedOffset ?? UInt32(file.count)
            let size = entry.statedSize ?? UInt32(entry.data.count), stored = entry.statedStoredSize ?? UInt32(entry.data.count)
            let shared: [UInt8] =
                littleEndian(entry.flags) + littleEndian(entry.method) + littleEndian(UInt32(0)) + littleEndian(entry.checksum)
                + littleEndian(stored) + littleEndian(size) + littleEndian(UInt16(entry.name.utf8.count)) + littleEndian(UInt16(0))
            directory += littleEndian(UInt32(0x0201_4B50)) + littleEndian(UInt16(20)) + littleEndian(UInt16(20)) + shared
            directory += littleEndian(UInt16(0)) + littleEndian(UInt16(0)) + littleEndian(UInt16(0)) + littleEndian(UInt32(0))
            directory += littleEndian(offset) + Array(entry.name.utf8)
            file += littleEndian(UInt32(0x0403_4B50)) + littleEndian(UInt16(20)) + shared + Array(entry.name.utf8) + entry.data
        }
        let end =
            littleEndian(UInt32(0x0605_4B50)) + littleEndian(UInt32(0)) + littleEndian(UInt16(entries.count))
            + littleEndian(UInt16(entries.count))
            + littleEndian(UInt32(directory.count)) + littleEndian(UInt32(file.count)) + littleEndian(UInt16(0))
        return file + directory + end
    }

    /// An archive whose sizes and places do not fit 32 bits, as those of large checkpoints: they stand in extra fields, and in
    /// an end record of their own. `alter` may change fields of that record and of its locator.
    static func zip64(_ entries: [Entry], alter: (inout Zip64) -> Void = { _ in }) -> [UInt8] {
        var file: [UInt8] = []
        var directory: [UInt8] = []
        for entry in entries {
            let offset = file.count
            let name = littleEndian(UInt16(entry.name.utf8.count))
            let head =
                littleEndian(UInt16(45)) + littleEndian(UInt32(0)) + littleEndian(UInt32(0)) + littleEndian(entry.checksum)
                + [UInt8](repeating: 0xFF, count: 8) + name
            // Another program's field goes first.
            let extra =
                littleEndian(UInt16(0x5455)) + littleEndian(UInt16(8)) + [UInt8](repeating: 7, count: 8)
                + littleEndian(UInt16(1)) + littleEndian(UInt16(24)) + littleEndian(UInt64(entry.data.count))
                + littleEndian(UInt64(entry.data.count)) + littleEndian(UInt64(offset))
            file += littleEndian(UInt32(0x0403_4B50)) + head + littleEndian(UInt16(0)) + Array(entry.name.utf8) + entry.data
            directory += littleEndian(UInt32(0x0201_4B50)) + littleEndian(UInt16(45)) + head + littleEndian(UInt16(extra.count))
            directory +=
                littleEndian(UInt16(0)) + littleEndian(UInt16.max) + [UInt8](repeating: 0, count: 6) + littleEndian(UInt32.max)
            directory += Array(entry.name.utf8) + extra
        }
        var fields = Zip64(
            counts: (UInt64(entries.count), UInt64(entries.count)), size: UInt64(directory.count), offset: UInt64(file.count))
        alter(&fields)
        let record =
            littleEndian(fields.signature) + littleEndian(UInt64(44)) + littleEndian(UInt16(45)) + littleEndian(UInt16(45))
            + littleEndian(fields.disks.0) + littleEndian(fields.disks.1) + littleEndian(fields.counts.0)
            + littleEndian(fields.counts.1)
            + littleEndian(fields.size) + littleEndian(fields.offset)
        let locator =
            littleEndian(fields.locator) + littleEndian(fields.disk) + littleEndian(UInt64(file.count + directory.count))
            + littleEndian(UInt32(1))
        let end =
            littleEndian(UInt32(0x0605_4B50)) + [UInt8](repeating: 0xFF, count: 4) + littleEndian(fields.end.count)
            + littleEndian(fields.end.count)
            + littleEndian(fields.end.size) + littleEndian(fields.end.offset) + littleEndian(UInt16(0))
        return file + directory + record + locator + end
    }

    struct Zip64 {
        var signature: UInt32 = 0x0606_4B50
        var disks: (UInt32, UInt32) = (0, 0)
        var counts: (UInt64, UInt64)
        var size: UInt64
        var offset: UInt64
        var locator: UInt32 = 0x0706_4B50
        var disk: UInt32 = 0
        /// What the older end record says.
        var end: (count: UInt16, size: UInt32, offset: UInt32) = (.max, .max, .max)
    }
}
