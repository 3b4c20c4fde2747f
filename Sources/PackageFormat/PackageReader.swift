import ModelGraph
import Support
import Synchronization
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
    /// Whether they are mapped, and so not compressed.
    public var isMapped: Bool { mapping != nil }
    let chunks: Range<Int>
    let arrangement: Arrangement
    let mapping: MappedPlace?
}

/// How a mapped tensor lies in its frame.
struct MappedPlace: Sendable {
    /// nil: in rows.
    let layout: PanelLayout?
    /// The tensor that has the panels' scales, too.
    let scales: String?
    /// What must stand before the numbers.
    let head: [UInt8]
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
            entry.dataType, entry.shape, storedAs: entry.storedType, identity: file.identity(ofTensor: name),
            source: file.source(of: entry))
    }

    /// Reads and checks every byte of the file.
    /// - Throws: `data` with the first place where something is wrong.
    public func verify(pool: ThreadPool = .shared) throws {
        let tasks = tensors.filter { !$0.isMapped }.flatMap { entry in entry.chunks.map { (entry, $0) } }
        try pool.tryRun(tasks.count) { try file.verify(tasks[$0].0, chunk: tasks[$0].1) }
        for entry in tensors {
            guard let mapping = entry.mapping else { continue }
            try file.verify(entry, mapping, scales: mapping.scales.map(constant(named:)))
        }
        try checkVocabulary()
    }

    private func checkVocabulary() throws {
        guard let name = manifest.vocabulary else { return }
        guard String(untrusted: try constant(named: name).load().elements(UInt8.self)) != nil else {
            throw TripsError.data("malformed text", at: "\(file.name): tensor \"\(name)\"", expected: String.untrustedForm)
        }
    }
}

/// Loads a tensor that is stored in chunks.
private struct ChunkSource: ConstantSource {
    let file: PackageFile
    let entry: TensorEntry

    func load(_: DataType, _: [Int]) throws -> Tensor { try file.load(entry) }

    func readParts(
        _: DataType, _: [Int], _ body: @Sendable (Int, UnsafeRawBufferPointer) throws -> Void
    ) throws { try file.readParts(entry, body) }
}

/// Gives a tensor that is mapped.
private struct MappedSource: ConstantSource {
    let file: PackageFile
    let entry: TensorEntry
    let mapping: MappedPlace

    func load(_: DataType, _: [Int]) throws -> Tensor { try file.tensor(entry, mapping) }
    func panels() throws -> Panels? { try mapping.layout.map { try file.panels(entry, mapping, $0) } }
}

/// An open package: where its chunks are, and how to read them.
final class PackageFile: Sendable {
    private let file: ReadableFile
    private let header: Header
    private let index: ChunkIndex
    /// Where each chunk begins, and the end of the last.
    private let offsets: [Int]
    private let decoders = ObjectPool { try ChunkDecoder() }
    private let mapped = Mutex<MappedFile?>(nil)

    var name: String { file.name }

    func source(of entry: TensorEntry) -> any ConstantSource {
        entry.mapping.map { MappedSource(file: self, entry: entry, mapping: $0) } ?? ChunkSource(file: self, entry: entry)
    }

    /// What names the numbers of a tensor, unlike those of all other files.
    func identity(ofTensor name: String) -> String { "\(file.path)#\(name)" }

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
            !(header.isPlain && !manifest.features.isEmpty)
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
                let chunks = record.mapped == nil ? Layout.chunkCount(of: bytes) : 1
                guard chunks <= index.count - first else {
                    throw TripsError.data("fewer chunks than the tensors take", found: index.count)
                }
                defer { first += chunks }
                let mapping = try record.mapped.map { try place($0, record, bytes, chunk: first) }
                if mapping == nil {
                    for chunk in first..<first + chunks { try checkSize(chunk, of: size(ofChunk: chunk - first, bytes)) }
                }
                return TensorEntry(
                    name: record.name, dataType: record.dataType, storedType: record.storedType, shape: record.shape,
                    storedByteCount: bytes, compressedByteCount: offsets[first + chunks] - offsets[first],
                    offset: offsets[first], chunks: first..<first + chunks,
                    arrangement: Arrangement(record.storedType, features: manifest.features), mapping: mapping)
            }
        }
        guard first == index.count else {
            throw TripsError.data("more chunks than the tensors take", found: index.count, expected: first)
        }
        return entries
    }

    private func place(
        _ mapping: Manifest.TensorRecord.Mapping, _ record: Manifest.TensorRecord, _ bytes: Int, chunk: Int
    ) throws -> MappedPlace {
        let layout = try record.panelLayout()
        let bytes = try layout?.byteCount(outputs: record.shape[0], inputs: record.shape[1]) ?? bytes
        let head = try MappedFrame.head(at: offsets[chunk], bytes)
        guard Int(index.sizes[chunk]) == head.count + bytes else {
            throw TripsError.data("size of chunk \(chunk)", found: index.sizes[chunk], expected: head.count + bytes)
        }
        return MappedPlace(layout: layout, scales: mapping.scales, head: head)
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

    /// A mapped tensor, checked; panels give back the rows that they were made of.
    func tensor(_ entry: TensorEntry, _ mapping: MappedPlace) throws -> Tensor {
        guard let layout = mapping.layout else {
            let file = try mappedFile()
            try check(entry, mapping, file)
            return try Tensor(entry.dataType, entry.shape, mapped: numbers(entry, mapping, file), owner: file)
        }
        let panels = try panels(entry, mapping, layout)
        try panels.check()
        return try panels.unpacked(entry.shape)
    }

    /// A tensor's panels, not checked.
    func panels(_ entry: TensorEntry, _ mapping: MappedPlace, _ layout: PanelLayout) throws -> Panels {
        let file = try mappedFile()
        return Panels(
            layout, scales: mapping.scales.map(identity(ofTensor:)), bytes: numbers(entry, mapping, file), owner: file,
            check: { try self.check(entry, mapping, file) })
    }

    private func numbers(_ entry: TensorEntry, _ mapping: MappedPlace, _ file: MappedFile) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            rebasing: file.bytes[entry.offset + mapping.head.count..<entry.offset + entry.compressedByteCount])
    }

    /// Mapped when the first tensor is.
    private func mappedFile() throws -> MappedFile {
        try mapped.withLock { mapped in
            let file = try mapped ?? MappedFile(file)
            mapped = file
            return file
        }
    }

    /// Checks a tensor's frame.
    private func check(_ entry: TensorEntry, _ mapping: MappedPlace, _ file: MappedFile) throws {
        try locating("\(name): tensor \"\(entry.name)\"") {
            let frame = UnsafeRawBufferPointer(rebasing: file.bytes[entry.offset..<entry.offset + entry.compressedByteCount])
            let (found, expected) = (crc32(frame), index.checksums[entry.chunks.lowerBound])
            guard found == expected else { throw TripsError.data("wrong checksum", found: found, expected: expected) }
            guard frame.starts(with: mapping.head) else {
                throw TripsError.data("before the numbers", expected: "the beginning of a frame that zstd skips, and zeros")
            }
        }
    }

    /// Checks a mapped tensor, and that panels are what its rows and scales give.
    func verify(_ entry: TensorEntry, _ mapping: MappedPlace, scales: Constant?) throws {
        let tensor = try tensor(entry, mapping)
        guard let layout = mapping.layout else { return }
        let given = try panels(entry, mapping, layout).bytes
        let again = try MemoryPart(byteCount: given.count)
        try layout.pack(Constant(tensor), scales: scales, into: again)
        guard UnsafeRawBufferPointer(again.bytes).elementsEqual(given) else {
            throw TripsError.data("panels unlike their numbers", at: "\(name): tensor \"\(entry.name)\"")
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
