import ModelGraph
import Support
import Tensors

/// A tensor of a package, with its place in the file.
public struct TensorEntry: Sendable {
    /// Unlike all others of the package.
    public let name: String
    /// The type in which graphs see the tensor.
    public let dataType: DataType
    /// The type in which its numbers are stored.
    public let storedType: DataType
    /// Sizes, the slowest first.
    public let shape: [Int]
    /// Bytes of the numbers in the stored type.
    public let storedByteCount: Int
    /// Bytes that they take in the file.
    public let compressedByteCount: Int
    /// Where they begin in the file.
    public let offset: Int
    let chunks: Range<Int>
    let arrangement: Arrangement
}

/// Reads a `.trips` package (`formats/trips-package.md`).
public struct PackageReader: Sendable {
    /// What the package says of itself.
    public let manifest: Manifest
    /// The tensors, in the order of their data.
    public let tensors: [TensorEntry]
    private let file: PackageFile
    private let numbers: [String: Int]

    /// Opens a package and checks all but the tensors' data.
    /// - Throws: `cannotOpen`; `data` where the file is not a sound package.
    public init(path: String) throws {
        let file = try ReadableFile(path: path)
        (self.file, manifest, tensors) = try locating(file.name) {
            let package = try PackageFile(file)
            let manifest = try locating("manifest") { try package.manifest() }
            return (package, manifest, try package.entries(manifest))
        }
        numbers = Dictionary(uniqueKeysWithValues: tensors.enumerated().map { ($1.name, $0) })
    }

    /// The graphs, with constants that read their numbers when they are needed.
    /// - Throws: `data` where a graph is not legal or refers to a tensor that is not there.
    public func graphs() throws -> [Graph] {
        try manifest.graphs.map { document in
            try locating("\(file.name): graph \"\(document.name)\"") { try Graph(document) { try constant(named: $0) } }
        }
    }

    /// The tensor of this name; its numbers are read when they are needed.
    /// - Throws: `data` where there is none.
    public func constant(named name: String) throws -> Constant {
        guard let number = numbers[name] else { throw TripsError.data("no such tensor", at: file.name, found: name) }
        let entry = tensors[number]
        return Constant(
            entry.dataType, entry.shape, storedAs: entry.storedType, identity: "\(file.path)#\(name)",
            source: PackageSource(file: file, entry: entry))
    }

    /// Reads and checks every byte of the file.
    /// - Throws: `data` with the first place where something is wrong.
    public func verify(pool: ThreadPool = .shared) throws {
        let tasks = tensors.flatMap { entry in entry.chunks.map { (entry, $0) } }
        try pool.tryRun(tasks.count) { try file.verify(tasks[$0].0, chunk: tasks[$0].1) }
        try checkVocabulary()
    }

    private func checkVocabulary() throws {
        guard let name = manifest.vocabulary else { return }
        guard String(validating: try constant(named: name).load().elements(UInt8.self), as: UTF8.self) != nil else {
            throw TripsError.data("malformed text", at: "\(file.name): tensor \"\(name)\"", expected: "UTF-8")
        }
    }
}

/// Loads a tensor of a package.
private struct PackageSource: ConstantSource {
    let file: PackageFile
    let entry: TensorEntry

    func load(_ dataType: DataType, _ shape: [Int]) throws -> Tensor { try file.load(entry) }

    func readParts(
        _ dataType: DataType, _ shape: [Int], _ body: @Sendable (Int, UnsafeRawBufferPointer) throws -> Void
    ) throws { try file.readParts(entry, body) }
}

/// An open package: where its chunks are, and how to read them.
final class PackageFile: Sendable {
    private let file: ReadableFile
    private let header: Header
    private let index: ChunkIndex
    /// Where each chunk begins, and the end of the last.
    private let offsets: [Int]
    private let decoders = ObjectPool { try ChunkDecoder() }

    var path: String { file.path }
    var name: String { file.name }

    /// Reads and checks header, footer and index.
    init(_ file: ReadableFile) throws {
        self.file = file
        guard file.size >= Header.size + ChunkIndex.overhead + Footer.size else {
            throw TripsError.data(
                "not a .trips package: too short", found: "\(file.size) bytes", expected: "a file that trips-convert wrote")
        }
        let header = try locating("header") { try Header(parsing: file.bytes(at: 0, count: Header.size)) }
        let footer = try locating("footer (a file that was cut short has none)") {
            try Footer(parsing: file.bytes(at: file.size - Footer.size, count: Footer.size))
        }
        guard footer.fileSize == file.size else {
            throw TripsError.data("file size", at: "footer", found: file.size, expected: footer.fileSize)
        }
        let (dataOffset, indexEnd) = (Header.size + header.manifestFrameSize, file.size - Footer.size)
        guard footer.indexOffset >= dataOffset, footer.indexOffset <= indexEnd - ChunkIndex.overhead else {
            throw TripsError.data(
                "index offset", at: "footer", found: footer.indexOffset, expected: "between \(dataOffset) and \(indexEnd)")
        }
        let index = try locating("index") {
            try ChunkIndex(parsing: file.bytes(at: footer.indexOffset, count: indexEnd - footer.indexOffset))
        }
        var offsets = [dataOffset]
        offsets.reserveCapacity(index.count + 1)
        for size in index.sizes { offsets.append(offsets[offsets.count - 1] + Int(size)) }
        guard offsets.last == footer.indexOffset else {
            throw TripsError.data(
                "the chunks do not fill the place before the index", at: "index", found: offsets.last, expected: footer.indexOffset)
        }
        (self.header, self.index, self.offsets) = (header, index, offsets)
    }

    /// Reads and checks the manifest.
    func manifest() throws -> Manifest {
        let frame = try file.bytes(at: Header.size, count: header.manifestFrameSize)
        guard crc32(frame) == header.manifestChecksum else {
            throw TripsError.data("wrong checksum", found: crc32(frame), expected: header.manifestChecksum)
        }
        var bytes = [UInt8](repeating: 0, count: header.manifestSize)
        let frames = try decoders.borrow { decoder in
            try frame.withUnsafeBytes { source in try bytes.withUnsafeMutableBytes { try decoder.decompress(source, into: $0) } }
        }
        guard frames == 1 else { throw TripsError.data("frames of the manifest", found: frames, expected: 1) }
        let manifest = try header.isPlain ? SafetensorsHeader.manifest(in: bytes) : Manifest(parsing: bytes)
        guard manifest.formatVersion == header.version, manifest.features.contains(Layout.bytePlanes) != header.isPlain,
            !(header.isPlain && manifest.features.contains(Layout.halfBytePlanes))
        else {
            throw TripsError.data(
                "version or features unlike the header's", found: "\(manifest.formatVersion), \(manifest.features)")
        }
        return manifest
    }

    /// The tensors with their places, which must take up all chunks.
    func entries(_ manifest: Manifest) throws -> [TensorEntry] {
        var first = 0
        let entries = try manifest.tensors.map { record in
            try locating("tensor \"\(record.name)\"") {
                let bytes = try byteCount(of: record.storedType, record.shape)
                let chunks = Layout.chunkCount(of: bytes)
                guard chunks <= index.count - first else {
                    throw TripsError.data("fewer chunks than the tensors take", found: index.count)
                }
                defer { first += chunks }
                for chunk in first..<first + chunks { try checkSize(chunk, of: size(ofChunk: chunk - first, bytes)) }
                return TensorEntry(
                    name: record.name, dataType: record.dataType, storedType: record.storedType, shape: record.shape,
                    storedByteCount: bytes, compressedByteCount: offsets[first + chunks] - offsets[first],
                    offset: offsets[first], chunks: first..<first + chunks,
                    arrangement: Arrangement(record.storedType, features: manifest.features))
            }
        }
        guard first == index.count else {
            throw TripsError.data("more chunks than the tensors take", found: index.count, expected: first)
        }
        return entries
    }

    private func checkSize(_ chunk: Int, of bytes: Int) throws {
        let size = Int(index.sizes[chunk])
        guard size <= Layout.maximalFrameSize, size >= bytes / Layout.maximalRatio else {
            throw TripsError.data(
                "size of chunk \(chunk)", found: size, expected: "\(bytes / Layout.maximalRatio) to \(Layout.maximalFrameSize)")
        }
    }

    /// Bytes of the `number`-th chunk of a tensor of that many bytes.
    private func size(ofChunk number: Int, _ tensorBytes: Int) -> Int {
        min(Layout.chunkSize, tensorBytes - number * Layout.chunkSize)
    }

    /// Reads a tensor, its chunks in parallel, and widens it to its data type.
    func load(_ entry: TensorEntry) throws -> Tensor {
        try locating("\(name): tensor \"\(entry.name)\"") {
            try Tensor.uninitialized(entry.dataType, entry.shape) { target in
                target.preferHugePages()
                try ThreadPool.shared.tryRun(entry.chunks.count) { number in
                    try self.decode(entry, number) { _, part in
                        let memory = UnsafeMutableRawBufferPointer(rebasing: target.bytes[part])
                        target.prefault(memory)
                        return memory
                    }
                }
            }
        }
    }

    /// Decodes a tensor's chunks in parallel, each into memory that stays in cache, and hands them to `body` with their
    /// offset in the tensor.
    func readParts(_ entry: TensorEntry, _ body: @Sendable (Int, UnsafeRawBufferPointer) throws -> Void) throws {
        try locating("\(name): tensor \"\(entry.name)\"") {
            try ThreadPool.shared.tryRun(entry.chunks.count) { number in
                try self.decode(entry, number) { decoder, part in
                    UnsafeMutableRawBufferPointer(rebasing: decoder.elements.bytes[..<part.count])
                } then: {
                    try body($0.lowerBound, UnsafeRawBufferPointer($1))
                }
            }
        }
    }

    /// Decodes the `number`-th chunk of a tensor and widens it to the tensor's data type.
    /// - Parameters:
    ///   - target: gives the memory for that part of the tensor's bytes.
    ///   - then: gets the part and that memory, when it is filled.
    private func decode(
        _ entry: TensorEntry, _ number: Int, into target: (ChunkDecoder, Range<Int>) -> UnsafeMutableRawBufferPointer,
        then: (Range<Int>, UnsafeMutableRawBufferPointer) throws -> Void = { _, _ in }
    ) throws {
        let elements = size(ofChunk: number, entry.storedByteCount) / entry.storedType.byteWidth
        let start = number * (Layout.chunkSize / entry.storedType.byteWidth)
        let part = start * entry.dataType.byteWidth..<(start + elements) * entry.dataType.byteWidth
        try withFrames(entry.chunks.lowerBound + number) { decoder, frames in
            let memory = target(decoder, part)
            try decoder.decode(frames, entry.arrangement, entry.storedType, as: entry.dataType, count: elements, into: memory)
            try then(part, memory)
        }
    }

    /// Checks the bytes of a chunk and what they decompress to.
    func verify(_ entry: TensorEntry, chunk: Int) throws {
        try locating("\(name): tensor \"\(entry.name)\"") {
            try withFrames(chunk) { decoder, frames in
                try decoder.check(
                    frames, entry.storedType, size: size(ofChunk: chunk - entry.chunks.lowerBound, entry.storedByteCount))
            }
        }
    }

    private func withFrames(_ chunk: Int, _ body: (ChunkDecoder, UnsafeRawBufferPointer) throws -> Void) throws {
        try decoders.borrow { decoder in
            try locating("chunk \(chunk)") {
                let buffer = UnsafeMutableRawBufferPointer(rebasing: decoder.compressed.bytes[..<Int(index.sizes[chunk])])
                try file.read(into: buffer, at: offsets[chunk])
                let checksum = crc32(UnsafeRawBufferPointer(buffer))
                guard checksum == index.checksums[chunk] else {
                    throw TripsError.data("wrong checksum", found: checksum, expected: index.checksums[chunk])
                }
                try body(decoder, UnsafeRawBufferPointer(buffer))
            }
        }
    }
}
