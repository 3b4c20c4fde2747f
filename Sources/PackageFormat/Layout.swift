import Kernels
import ModelGraph
import Support
import Tensors

/// Sizes and limits of the format (`formats/trips-package.md`).
package enum Layout {
    package static let version: UInt16 = 1
    /// Bytes of a chunk before compression; a tensor's last chunk may be shorter.
    static let chunkSize = 1 << 19
    /// A chunk never takes more in the file.
    package static let maximalFrameSize = 1 << 20
    /// zstd compresses nothing by more than this.
    static let maximalRatio = 1 << 15
    package static let maximalManifestSize = 1 << 24
    /// A manifest is text; what is packed tighter is a bomb.
    static let maximalManifestRatio = 256
    package static let maximalRank = 16
    package static let maximalNameLength = 1024
    /// What this reader knows of what a package may require.
    static let knownFeatures: Set<String> = [bytePlanes, halfBytePlanes, mapped]
    static let bytePlanes = "byte-planes"
    static let halfBytePlanes = "half-byte-planes"
    static let mapped = "mapped"

    /// What a reader must know for these tensors.
    static func features(plain: Bool, _ tensors: [Manifest.TensorRecord]) -> [String] {
        guard !plain else { return [] }
        return [bytePlanes] + (tensors.contains { $0.storedType == .int8 && $0.mapped == nil } ? [halfBytePlanes] : [])
            + (tensors.contains { $0.mapped != nil } ? [mapped] : [])
    }

    static func chunkCount(of byteCount: Int) -> Int { byteCount.dividedRoundingUp(by: chunkSize) }
}

private let skippableMagic: UInt32 = 0x184D_2A54

/// A frame that zstd skips, which holds a mapped tensor. Its numbers begin at a multiple of 64 bytes from the file's beginning.
package enum MappedFrame {
    private static let alignment = 64

    /// What stands before the numbers where the frame begins at `offset`: magic, size, zeros.
    package static func head(at offset: Int, _ byteCount: Int) throws -> [UInt8] {
        let headSize = 8 + (MappedFrame.alignment - (offset + 8) % MappedFrame.alignment) % MappedFrame.alignment
        guard byteCount <= Int(UInt32.max) - headSize, let size = UInt32(exactly: headSize - 8 + byteCount) else {
            throw TripsError.data("a mapped tensor", found: "\(byteCount) bytes", expected: "less than 4 GiB")
        }
        var bytes: [UInt8] = []
        bytes.append(littleEndian: skippableMagic)
        bytes.append(littleEndian: size)
        return bytes + [UInt8](repeating: 0, count: headSize - 8)
    }
}

/// A frame that zstd skips, with a magic of eight letters and a CRC-32 over all before it.
private enum CheckedFrame {

    static func seal(_ magic: StaticString, _ fields: [UInt8]) throws -> [UInt8] {
        guard let size = UInt32(exactly: 8 + fields.count + 4) else { throw TripsError.data("too many chunks for one package") }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(8 + Int(size))
        bytes.append(littleEndian: skippableMagic)
        bytes.append(littleEndian: size)
        bytes += magic.letters
        bytes += fields
        bytes.append(littleEndian: crc32(bytes))
        return bytes
    }

    /// The fields of a sealed frame.
    static func open(_ bytes: [UInt8], _ magic: StaticString) throws -> ByteCursor {
        var cursor = ByteCursor(bytes)
        let (frame, size) = (try cursor.integer(UInt32.self), try cursor.integer(UInt32.self))
        guard frame == skippableMagic, Array(try cursor.take(8)) == magic.letters else {
            throw TripsError.data("no such frame", found: bytes.prefix(16).map { hexadecimal($0) }.joined(), expected: "\(magic)")
        }
        guard Int(size) == bytes.count - 8 else { throw TripsError.data("frame size", found: size, expected: bytes.count - 8) }
        var end = ByteCursor(bytes.suffix(4))
        let (stated, computed) = (try end.integer(UInt32.self), crc32(bytes.dropLast(4)))
        guard stated == computed else { throw TripsError.data("wrong checksum", found: computed, expected: stated) }
        return ByteCursor(try cursor.take(cursor.remaining - 4))
    }
}

extension StaticString {
    fileprivate var letters: [UInt8] { withUTF8Buffer { Array($0) } }
}

/// The first 40 bytes.
package struct Header: Equatable {
    package static let size = 40
    private static let magic: StaticString = "TRIPSPKG"
    package var version = Layout.version
    /// `zstd -dc` gives a safetensors file: no byte planes, and the manifest is in its metadata.
    package var isPlain: Bool
    package var manifestFrameSize: Int
    package var manifestSize: Int
    package var manifestChecksum: UInt32

    package func bytes() throws -> [UInt8] {
        guard let frameSize = UInt32(exactly: manifestFrameSize), let size = UInt32(exactly: manifestSize) else {
            throw TripsError.data("the manifest is too large", found: manifestSize)
        }
        var fields: [UInt8] = []
        fields.append(littleEndian: version)
        fields.append(littleEndian: UInt16(isPlain ? 1 : 0))
        fields.append(littleEndian: frameSize)
        fields.append(littleEndian: size)
        fields.append(littleEndian: manifestChecksum)
        fields.append(littleEndian: UInt32(0))
        return try CheckedFrame.seal(Header.magic, fields)
    }

    package init(isPlain: Bool, manifestFrameSize: Int, manifestSize: Int, manifestChecksum: UInt32) {
        self.isPlain = isPlain
        self.manifestFrameSize = manifestFrameSize
        self.manifestSize = manifestSize
        self.manifestChecksum = manifestChecksum
    }

    package init(parsing bytes: [UInt8]) throws {
        guard bytes.dropFirst(8).starts(with: Header.magic.letters) else {
            throw TripsError.data(
                "not a .trips package", found: "bytes \(bytes.prefix(8).map(hexadecimal).joined(separator: " "))",
                expected: "a file that trips-convert wrote, with \(Header.magic) at byte 8")
        }
        var fields = try CheckedFrame.open(bytes, Header.magic)
        version = try fields.integer()
        guard version == Layout.version else { throw TripsError.data("format version", found: version, expected: Layout.version) }
        let flags = try fields.integer(UInt16.self)
        guard flags & ~1 == 0 else { throw TripsError.data("reserved flags are set", found: "0x\(String(flags, radix: 16))") }
        isPlain = flags & 1 == 1
        manifestFrameSize = Int(try fields.integer(UInt32.self))
        manifestSize = Int(try fields.integer(UInt32.self))
        manifestChecksum = try fields.integer()
        guard try fields.integer(UInt32.self) == 0 else { throw TripsError.data("reserved bytes are not zero") }
        try checkManifest()
    }

    /// - Throws: `data` where the manifest is larger than readers take.
    func checkManifest() throws {
        guard manifestSize <= Layout.maximalManifestSize, manifestSize / Layout.maximalManifestRatio <= manifestFrameSize else {
            throw TripsError.data(
                "size of the manifest", found: "\(manifestSize) bytes from \(manifestFrameSize)",
                expected: "at most \(Layout.maximalManifestSize), and \(Layout.maximalManifestRatio) times the frame")
        }
    }
}

/// Size and checksum of each chunk's frames, in the order of the data.
package struct ChunkIndex {
    package static let overhead = 8 + 8 + 4 + 4 + 4
    package private(set) var sizes: [UInt32] = []
    private(set) var checksums: [UInt32] = []

    package var count: Int { sizes.count }

    package init() {}

    package mutating func append(size: Int, checksum: UInt32) throws {
        guard let size = UInt32(exactly: size) else { throw TripsError.data("size of a chunk", found: size) }
        sizes.append(size)
        checksums.append(checksum)
    }

    package func bytes() throws -> [UInt8] {
        guard let count = UInt32(exactly: count) else { throw TripsError.data("too many chunks for one package") }
        var fields: [UInt8] = []
        fields.reserveCapacity(8 + 8 * sizes.count)
        fields.append(littleEndian: count)
        fields.append(littleEndian: UInt32(0))
        for (size, checksum) in zip(sizes, checksums) {
            fields.append(littleEndian: size)
            fields.append(littleEndian: checksum)
        }
        return try CheckedFrame.seal("TRIPSIDX", fields)
    }

    package init(parsing bytes: [UInt8]) throws {
        var fields = try CheckedFrame.open(bytes, "TRIPSIDX")
        let count = Int(try fields.integer(UInt32.self))
        guard try fields.integer(UInt32.self) == 0 else { throw TripsError.data("reserved bytes are not zero") }
        guard fields.remaining == 8 * count else {
            throw TripsError.data("number of chunks", found: count, expected: fields.remaining / 8)
        }
        sizes.reserveCapacity(count)
        checksums.reserveCapacity(count)
        for _ in 0..<count {
            sizes.append(try fields.integer())
            checksums.append(try fields.integer())
        }
    }
}

/// The last 40 bytes.
package struct Footer: Equatable {
    package static let size = 40
    package var indexOffset: Int
    package var fileSize: Int

    package init(indexOffset: Int, fileSize: Int) {
        self.indexOffset = indexOffset
        self.fileSize = fileSize
    }

    package func bytes() throws -> [UInt8] {
        var fields: [UInt8] = []
        fields.append(littleEndian: UInt64(indexOffset))
        fields.append(littleEndian: UInt64(fileSize))
        fields.append(littleEndian: UInt32(0))
        return try CheckedFrame.seal("TRIPSEND", fields)
    }

    package init(parsing bytes: [UInt8]) throws {
        var fields = try CheckedFrame.open(bytes, "TRIPSEND")
        let (offset, size) = (try fields.integer(UInt64.self), try fields.integer(UInt64.self))
        guard try fields.integer(UInt32.self) == 0 else { throw TripsError.data("reserved bytes are not zero") }
        guard let indexOffset = Int(exactly: offset), let fileSize = Int(exactly: size) else {
            throw TripsError.data("index offset or file size", found: "\(offset), \(size)")
        }
        self.indexOffset = indexOffset
        self.fileSize = fileSize
    }
}

/// CRC-32 as in gzip.
package func crc32(_ bytes: some Collection<UInt8>) -> UInt32 { Array(bytes).withUnsafeBytes { crc32($0) } }

/// CRC-32 as in gzip.
/// - Parameter first: that of the bytes before these.
package func crc32(_ bytes: UnsafeRawBufferPointer, after first: UInt32 = 0) -> UInt32 {
    guard let base = bytes.baseAddress else { return first }
    return trips_crc32(first, base, bytes.count)
}

func hexadecimal(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }
