import CZlib
import Kernels
import Support

/// Reads zip archives (PKWARE APPNOTE 6.3, with zip64): stored and deflated entries, no encryption, one disk.
///
/// Opening checks the directory and all local headers: entries lie in the file, apart from each other, before the directory.
package struct ZipArchive: Sendable {
    package struct Entry: Sendable {
        package let name: String
        /// Bytes once inflated.
        package let size: Int
        /// Bytes in the file.
        let storedSize: Int
        /// Where the entry's bytes begin in the file.
        package let offset: Int
        let isDeflated: Bool
        package let checksum: UInt32
    }

    package let file: ReadableFile
    package let entries: [Entry]

    /// The largest entry that is inflated; larger ones must be stored.
    static let maximalInflatedSize = 256 << 20

    /// - Throws: `data` where the archive is malformed, encrypted, split, or uses another compression.
    package init(_ file: ReadableFile) throws {
        self.file = file
        entries = try locating(file.name) { try readEntries(of: file) }
    }

    package subscript(name: String) -> Entry? { entries.first { $0.name == name } }

    /// All bytes of an entry.
    /// - Parameter checkingSum: whether to compare with the CRC-32 that the archive states.
    package func bytes(of entry: Entry, checkingSum: Bool = true) throws -> [UInt8] {
        try locating("\(file.name): \(entry.name)") {
            let stored = try file.bytes(at: entry.offset, count: entry.storedSize)
            let bytes = entry.isDeflated ? try inflated(stored, to: entry.size) : stored
            if checkingSum {
                try check(bytes.withUnsafeBytes { $0.baseAddress.map { trips_crc32(0, $0, bytes.count) } ?? 0 }, entry)
            }
            return bytes
        }
    }

    /// Reads a stored entry through a small buffer and compares it with the archive's CRC-32.
    /// - Throws: `data` where it is another.
    package func verify(_ entry: Entry) throws {
        try locating("\(file.name): \(entry.name)") {
            var (sum, done) = (UInt32(0), 0)
            try withUnsafeTemporaryAllocation(byteCount: 1 << 18, alignment: 64) { buffer in
                while done < entry.storedSize, let base = buffer.baseAddress {
                    let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, entry.storedSize - done)])
                    try file.read(into: part, at: entry.offset + done)
                    sum = trips_crc32(sum, base, part.count)
                    done += part.count
                }
            }
            try check(sum, entry)
        }
    }

    private func check(_ sum: UInt32, _ entry: Entry) throws {
        guard sum == entry.checksum else {
            throw TripsError.data(
                "wrong checksum: the entry is damaged", found: String(sum, radix: 16), expected: String(entry.checksum, radix: 16))
        }
    }
}

extension ByteCursor {
    fileprivate mutating func short() throws -> Int { Int(try integer(UInt16.self)) }
    fileprivate mutating func word() throws -> UInt64 { UInt64(try integer(UInt32.self)) }

    /// 64 bits that count or place something.
    fileprivate mutating func size() throws -> Int {
        let value = try integer(UInt64.self)
        guard let size = Int(exactly: value) else { throw TripsError.data("a size in a zip record", found: value) }
        return size
    }
}

private struct Directory {
    var offset: Int
    var size: Int
    var count: Int
}

private func readEntries(of file: ReadableFile) throws -> [ZipArchive.Entry] {
    let directory = try findDirectory(of: file)
    guard directory.offset >= 0, directory.size >= 0, directory.offset <= file.size, directory.size <= file.size - directory.offset,
        directory.count <= directory.size / 46
    else {
        throw TripsError.data(
            "zip directory", found: "\(directory.count) entries in \(directory.size) bytes at \(directory.offset)",
            expected: "within \(file.size) bytes")
    }
    guard directory.size <= 64 << 20 else {
        throw TripsError.data("zip directory", found: "\(directory.size) bytes", expected: "at most 64 MiB")
    }
    var fields = ByteCursor(try file.bytes(at: directory.offset, count: directory.size))
    var names = Set<String>()
    var entries: [ZipArchive.Entry] = []
    for _ in 0..<directory.count {
        let entry = try readEntry(&fields, in: file, before: directory.offset)
        guard names.insert(entry.name).inserted else { throw TripsError.data("two zip entries have one name", found: entry.name) }
        entries.append(entry)
    }
    var end = 0
    for entry in entries.sorted(by: { ($0.offset, $0.storedSize) < ($1.offset, $1.storedSize) }) {
        // A local header takes at least 30 bytes before the data.
        guard entry.offset - 30 - entry.name.utf8.count >= end else { throw TripsError.data("zip entries overlap", at: entry.name) }
        end = entry.offset + entry.storedSize
    }
    return entries
}

/// Finds the end record, and the zip64 one where a field of the former says so.
private func findDirectory(of file: ReadableFile) throws -> Directory {
    let tailSize = min(file.size, 22 + 65535 + 20)
    let tailOffset = file.size - tailSize
    let tail = try file.bytes(at: tailOffset, count: tailSize)
    let signature: [UInt8] = [0x50, 0x4B, 5, 6]
    guard tailSize >= 22, let start = (0...tailSize - 22).last(where: { tail[$0..<$0 + 4].elementsEqual(signature) }) else {
        throw TripsError.data("no end of zip directory (a file that was cut short has none)", expected: "a zip archive")
    }
    var fields = ByteCursor(tail[(start + 4)...])
    let disks = (try fields.short(), try fields.short())
    let counts = (try fields.short(), try fields.short())
    let size = try fields.word(), offset = try fields.word()
    guard disks == (0, 0) || disks == (0xFFFF, 0xFFFF), counts.0 == counts.1 else {
        throw TripsError.data("a zip archive in several parts")
    }
    guard counts.1 == 0xFFFF || size == 0xFFFF_FFFF || offset == 0xFFFF_FFFF else {
        return Directory(offset: Int(offset), size: Int(size), count: counts.1)
    }
    return try findZip64Directory(of: file, locatorAt: tailOffset + start - 20)
}

private func findZip64Directory(of file: ReadableFile, locatorAt position: Int) throws -> Directory {
    var locator = ByteCursor(try file.bytes(at: position, count: 20))
    guard try locator.word() == 0x0706_4B50, try locator.word() == 0 else {
        throw TripsError.data("zip64 locator", at: "byte \(position)")
    }
    let recordOffset = try locator.size()
    var record = ByteCursor(try file.bytes(at: recordOffset, count: 56))
    guard try record.word() == 0x0606_4B50 else { throw TripsError.data("zip64 end of directory", at: "byte \(recordOffset)") }
    _ = try record.take(8 + 2 + 2)
    guard try record.word() == 0, try record.word() == 0 else { throw TripsError.data("a zip archive in several parts") }
    let counts = (try record.size(), try record.size())
    guard counts.0 == counts.1 else { throw TripsError.data("a zip archive in several parts") }
    let size = try record.size()
    return Directory(offset: try record.size(), size: size, count: counts.1)
}

/// What the directory says of an entry, unchecked.
private struct DirectoryRecord {
    let name: String
    let nameBytes: ArraySlice<UInt8>
    let flags: Int
    let method: Int
    let disk: Int
    let checksum: UInt32
    var storedSize: UInt64
    var size: UInt64
    var headerOffset: UInt64

    init(_ fields: inout ByteCursor) throws {
        guard try fields.word() == 0x0201_4B50 else {
            throw TripsError.data("zip directory entry", at: "byte \(fields.taken - 4) of the directory")
        }
        _ = try fields.take(4)
        (flags, method) = (try fields.short(), try fields.short())
        _ = try fields.take(4)
        checksum = try fields.integer()
        (storedSize, size) = (try fields.word(), try fields.word())
        let nameLength = try fields.short(), extraLength = try fields.short(), commentLength = try fields.short()
        disk = try fields.short()
        _ = try fields.take(6)
        headerOffset = try fields.word()
        nameBytes = try fields.take(nameLength)
        guard let name = String(untrusted: nameBytes), !name.utf8.contains(0) else {
            throw TripsError.data("a zip entry's name", expected: "\(String.untrustedForm), no zero byte")
        }
        self.name = name
        var extra = ByteCursor(try fields.take(extraLength))
        _ = try fields.take(commentLength)
        try locating("zip entry \"\(name.prefix(120))\"") { try readZip64(&extra) }
    }

    private mutating func readZip64(_ extra: inout ByteCursor) throws {
        while extra.remaining >= 4 {
            let kind = try extra.short()
            var field = ByteCursor(try extra.take(extra.short()))
            guard kind == 1 else { continue }
            if size == 0xFFFF_FFFF { size = try field.integer() }
            if storedSize == 0xFFFF_FFFF { storedSize = try field.integer() }
            if headerOffset == 0xFFFF_FFFF { headerOffset = try field.integer() }
        }
    }
}

private func readEntry(_ fields: inout ByteCursor, in file: ReadableFile, before limit: Int) throws -> ZipArchive.Entry {
    let record = try DirectoryRecord(&fields)
    return try locating("zip entry \"\(record.name.prefix(120))\"") {
        let parts = record.name.split(separator: "/", omittingEmptySubsequences: false)
        guard !record.name.hasPrefix("/"), !record.name.contains("\\"), !parts.contains("..") else {
            throw TripsError.data("a name that leads elsewhere")
        }
        guard record.flags & 0x2041 == 0 else {
            throw TripsError.data("encryption", found: "flags 0x\(String(record.flags, radix: 16))", expected: "none")
        }
        guard record.method == 0 || record.method == 8, record.disk == 0 || record.disk == 0xFFFF else {
            throw TripsError.data("compression method", found: record.method, expected: "0 (stored) or 8 (deflate)")
        }
        guard let header = Int(exactly: record.headerOffset), header <= limit, limit - header >= 30 else {
            throw TripsError.data(
                "place of the entry", found: record.headerOffset, expected: "before the directory at \(limit)")
        }
        let offset = try dataOffset(ofHeaderAt: header, record.nameBytes, in: file)
        guard let stored = Int(exactly: record.storedSize), let size = Int(exactly: record.size), offset <= limit,
            stored <= limit - offset
        else {
            throw TripsError.data(
                "size of the entry", found: "\(record.storedSize) bytes at \(offset)",
                expected: "before the directory at \(limit)")
        }
        try checkSizes(stored: stored, size: size, isDeflated: record.method == 8)
        return ZipArchive.Entry(
            name: record.name, size: size, storedSize: stored, offset: offset, isDeflated: record.method == 8,
            checksum: record.checksum)
    }
}

private func checkSizes(stored: Int, size: Int, isDeflated: Bool) throws {
    guard isDeflated else {
        if stored != size { throw TripsError.data("size of a stored entry", found: stored, expected: size) }
        return
    }
    // Deflate yields at most 1032 bytes for one.
    guard size <= ZipArchive.maximalInflatedSize, size / 1032 <= stored else {
        throw TripsError.data(
            "size of a deflated entry", found: "\(stored) bytes that give \(size)",
            expected: "at most \(ZipArchive.maximalInflatedSize), and 1032 for one")
    }
}

/// Where the data begins after a local header, which must name the same entry.
private func dataOffset(ofHeaderAt header: Int, _ name: ArraySlice<UInt8>, in file: ReadableFile) throws -> Int {
    var fields = ByteCursor(try file.bytes(at: header, count: 30))
    guard try fields.word() == 0x0403_4B50 else { throw TripsError.data("zip local header", at: "byte \(header)") }
    _ = try fields.take(22)
    let nameLength = try fields.short(), extraLength = try fields.short()
    guard nameLength == name.count, try file.bytes(at: header + 30, count: nameLength).elementsEqual(name) else {
        throw TripsError.data("a zip local header names another entry", at: "byte \(header)")
    }
    return header + 30 + nameLength + extraLength
}

/// Inflates raw deflate data that must give exactly `size` bytes.
private func inflated(_ source: [UInt8], to size: Int) throws -> [UInt8] {
    var source = source
    return try [UInt8](unsafeUninitializedCapacity: size) { target, initialized in
        try source.withUnsafeMutableBufferPointer { source in
            guard let sourceCount = UInt32(exactly: source.count), let targetCount = UInt32(exactly: size) else {
                throw TripsError.data("size of a deflated entry", found: max(source.count, size), expected: "below 4 GiB")
            }
            var stream = z_stream()
            stream.next_in = source.baseAddress
            stream.avail_in = sourceCount
            guard inflateInit2_(&stream, -15, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
                throw TripsError.data("inflating was refused")
            }
            defer { inflateEnd(&stream) }
            // zlib wants a place to write to even where nothing is to come.
            var spare: UInt8 = 0
            let status = withUnsafeMutablePointer(to: &spare) { spare in
                stream.next_out = target.baseAddress ?? spare
                stream.avail_out = targetCount
                return inflate(&stream, Z_FINISH)
            }
            initialized = size - Int(stream.avail_out)
            guard status == Z_STREAM_END, stream.avail_in == 0, stream.avail_out == 0 else {
                throw TripsError.data("malformed deflate data", found: "\(initialized) bytes", expected: size)
            }
        }
    }
}
