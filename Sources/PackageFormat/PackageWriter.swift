import CZstd
import Kernels
import ModelGraph
import Support
import Synchronization
import Tensors

/// Writes `.trips` packages (`formats/trips-package.md`).
public enum PackageWriter {
    /// How a package is written.
    public struct Options: Sendable {
        /// How the weights' numbers are stored.
        public enum Storage: String, Sendable, CaseIterable {
            /// Each in its own type.
            case asIs, f32, f16, bf16

            fileprivate var dataType: DataType? {
                switch self {
                case .asIs: nil
                case .f32: .float32
                case .f16: .float16
                case .bf16: .bfloat16
                }
            }
        }

        /// The zstd level; nil for the one that suits weights.
        public var level: Int?
        /// No byte planes: `zstd -dc` gives a safetensors file.
        public var plain: Bool
        /// Large tensors uncompressed, and weights of linear layers as the kernels read them: they are mapped, not loaded.
        public var mapped: Bool
        /// The type in which floating-point matrices are stored where it is narrower than theirs. Vectors, and the scales of
        /// quantized weights, keep their own.
        public var storage: Storage
        /// Whether a file that is already there may be replaced.
        public var replacing: Bool

        /// Compressed, in the types of the source, and nothing replaced, unless it is said otherwise.
        public init(
            level: Int? = nil, plain: Bool = false, mapped: Bool = false, storage: Storage = .asIs, replacing: Bool = false
        ) {
            self.level = level
            self.plain = plain
            self.mapped = mapped
            self.storage = storage
            self.replacing = replacing
        }
    }

    /// Writes a package; it appears under its name whole or not at all.
    ///
    /// Constants are loaded when their turn comes, so that few of them are in memory at a time.
    /// - Parameters:
    ///   - extraTensors: tensors that no graph refers to; they keep their names.
    ///   - manifest: what is to be said of the package; the writer fills in the tables.
    ///   - progress: called with the bytes done and the bytes in all.
    /// - Returns: the manifest as written, with its tables.
    /// - Throws: `cannotCreate`, `inputOutput`; `usage` for options out of range; `data` for numbers of the manifest that are;
    ///   what loading a constant throws.
    @discardableResult
    public static func write(
        graphs: [Graph], extraTensors: [(name: String, constant: Constant)] = [], manifest: Manifest, to path: String,
        options: Options = Options(), pool: ThreadPool = .shared, progress: ((Int, Int) -> Void)? = nil
    ) throws -> Manifest {
        try options.check()
        let level = try options.checkedLevel()
        var table = TensorTable(options)
        for (name, constant) in extraTensors { try table.add(constant, named: name) }
        var manifest = manifest
        manifest.graphs = try graphs.map { graph in
            try graph.document { value, constant in
                try table.add(
                    constant, proposing: graph.name(of: value), exact: graph.staysExact(value, constant, options),
                    mapping: options.mapped ? graph.mapping(of: value, constant) : nil)
            }
        }
        let tensors = table.inOrder
        manifest.formatVersion = Int(Layout.version)
        manifest.features = Layout.features(plain: options.plain, tensors.map(\.record))
        manifest.libzstd = String(cString: ZSTD_versionString())
        manifest.tensors = tensors.map(\.record)
        try manifest.check()
        try AtomicFile.write(to: path, replacing: options.replacing) { file in
            try writeManifest(manifest, isPlain: options.plain, to: file)
            let data = DataWriter(file: file, level: level, features: manifest.features, total: table.byteCount, progress: progress)
            try data.write(tensors.filter { $0.mapping == nil }, pool)
            for tensor in tensors { try data.writeMapped(tensor) }
            let indexOffset = file.size
            let indexBytes = try data.index.bytes()
            try file.write(indexBytes)
            try file.write(Footer(indexOffset: indexOffset, fileSize: indexOffset + indexBytes.count + Footer.size).bytes())
        }
        return manifest
    }

    private static func writeManifest(_ manifest: Manifest, isPlain: Bool, to file: AtomicFile) throws {
        let json = try manifest.json()
        let bytes = try isPlain ? SafetensorsHeader.bytes(json, manifest.tensors) : json
        guard bytes.count <= Layout.maximalManifestSize else {
            throw TripsError.data(
                "the manifest is too large", found: bytes.count, expected: "at most \(Layout.maximalManifestSize)")
        }
        let frame = try ChunkEncoder().encode(bytes, level: 9)
        let header = Header(
            isPlain: isPlain, manifestFrameSize: frame.count, manifestSize: bytes.count, manifestChecksum: crc32(frame))
        try header.checkManifest()
        try file.write(header.bytes())
        try file.write(frame)
    }
}

extension PackageWriter.Options {
    /// - Throws: `usage` for what excludes each other.
    package func check() throws {
        guard mapped else { return }
        if plain { throw TripsError.usage("`mapped` and `plain` exclude each other") }
        if storage == .f16 || storage == .bf16 {
            throw TripsError.usage("`mapped`: type of the weights", found: storage.rawValue, expected: "f32, as they are read")
        }
    }

    fileprivate func checkedLevel() throws -> Int32? {
        guard let level else { return plain ? 3 : nil }
        guard let number = Int32(exactly: level), number >= ZSTD_minCLevel(), number <= ZSTD_maxCLevel() else {
            throw TripsError.usage("zstd level", found: level, expected: "\(ZSTD_minCLevel()) to \(ZSTD_maxCLevel())")
        }
        return number
    }

    fileprivate func storedType(_ constant: Constant) -> DataType {
        guard let type = storage.dataType, constant.dataType.isFloatingPoint, constant.shape.count >= 2,
            type == constant.dataType || type.byteWidth < constant.dataType.byteWidth
        else { return constant.storedType }
        return type
    }
}

extension Graph {
    /// Whether a constant is stored as it is, whatever type is asked for: what belongs to integers; and what is no weight, but a
    /// mask that writes −∞ as a number which the type cannot hold.
    fileprivate func staysExact(_ value: ValueID, _ constant: Constant, _ options: PackageWriter.Options) throws -> Bool {
        if consumers(of: value).contains(where: { $0.op.isQuantized }) { return true }
        let type = options.storedType(constant)
        guard type == .float16, type != constant.storedType, !isWeight(value) else { return false }
        return try constant.load().number(beyond: type) != nil
    }
}

/// How a tensor is to be mapped.
private enum PendingMapping: Sendable {
    case rows
    case panels(PanelLayout, scales: (name: String, constant: Constant)?)
}

extension Graph {
    /// How a constant is to be mapped; nil for those that take little space.
    fileprivate func mapping(of value: ValueID, _ constant: Constant) throws -> PendingMapping? {
        if let panels = panels(of: value, constant) { return panels }
        return try constant.dataType != .bool && constant.byteCount >= Layout.chunkSize ? .rows : nil
    }

    /// How the linear layers that read a weight want it packed; nil where others read it too, or where they differ.
    private func panels(of value: ValueID, _ weight: Constant) -> PendingMapping? {
        let readers = consumers(of: value)
        guard weight.shape.count == 2, weight.shape.allSatisfy({ $0 > 0 }), let first = readers.first,
            readers.allSatisfy({ reader in reader.input(1) == value && reader.inputs.count { $0 == value } == 1 })
        else { return nil }
        if readers.allSatisfy({ $0.op is Linear }) { return weight.dataType == .float32 ? .panels(.float, scales: nil) : nil }
        guard let op = first.op as? QuantizedLinear, op.activations == .int8,
            readers.allSatisfy({ $0.op as? QuantizedLinear == op && $0.input(2) == first.input(2) }),
            let scales = first.input(2), let constant = constant(of: scales)
        else { return nil }
        let layout = PanelLayout.int8(group: kernelGroup(op.groupSize, of: weight.shape[1]))
        return layout.takes(inputs: weight.shape[1]) ? .panels(layout, scales: (name(of: scales), constant)) : nil
    }
}

/// A tensor that is to be written.
private struct PendingTensor: Sendable {
    let record: Manifest.TensorRecord
    let constant: Constant
    let storedByteCount: Int
    var mapping: PendingMapping?

    func load() throws -> Tensor {
        try locating("tensor \"\(record.name)\"") {
            let tensor = try constant.load()
            guard tensor.dataType == record.dataType, tensor.shape == record.shape else {
                throw TripsError.data(
                    "a constant came out wrong", found: "\(tensor.dataType)\(tensor.shape)",
                    expected: "\(record.dataType)\(record.shape)")
            }
            return try tensor.rounded(to: record.storedType)
        }
    }
}

/// The tensors of all graphs, each content once, with unique names.
private struct TensorTable {
    private let options: PackageWriter.Options
    private var tensors: [PendingTensor] = []
    private var names: [String: String] = [:]
    private var unique = UniqueNames(separator: ".")

    init(_ options: PackageWriter.Options) { self.options = options }

    /// Adds a tensor under exactly this name.
    mutating func add(_ constant: Constant, named name: String) throws {
        guard !name.isEmpty, name.utf8.count <= Layout.maximalNameLength, unique.take(name) else {
            throw TripsError.data("the name of a tensor is empty, too long, or used twice", found: name.prefix(80))
        }
        try append(constant, name, exact: false)
    }

    /// Adds a tensor unless its content is there already, and gives its name.
    mutating func add(
        _ constant: Constant, proposing proposal: String, exact: Bool, mapping: PendingMapping? = nil
    ) throws -> String {
        let key = "\(exact) \(constant.identity)"
        if let name = names[key] { return name }
        let base = proposal.isEmpty || proposal.utf8.count > Layout.maximalNameLength - 20 ? "tensor" : proposal
        let name = unique.unique(base)
        try append(constant, name, exact: exact, mapping)
        return name
    }

    private mutating func append(
        _ constant: Constant, _ name: String, exact: Bool, _ mapping: PendingMapping? = nil
    ) throws {
        let storedType = mapping != nil ? constant.dataType : exact ? constant.storedType : options.storedType(constant)
        var record = Manifest.TensorRecord(name: name, dataType: constant.dataType, storedType: storedType, shape: constant.shape)
        switch mapping {
        case .rows: record.mapped = .init(.rows)
        case .panels(.float, _): record.mapped = .init(.panels)
        case .panels(.int8(let group), let scales):
            record.mapped = .init(
                .panels, group: group, scales: try scales.map { try add($0.constant, proposing: $0.name, exact: true) })
        case nil: break
        }
        try locating("tensor \"\(name)\"") { try record.check() }
        tensors.append(
            PendingTensor(
                record: record, constant: constant,
                storedByteCount: try Tensors.byteCount(of: storedType, constant.shape), mapping: mapping))
        names["\(exact) \(constant.identity)"] = name
    }

    var byteCount: Int { tensors.reduce(0) { $0 + $1.storedByteCount } }

    /// Wide elements first: so all are aligned in the safetensors file of a plain package. Mapped ones come last.
    var inOrder: [PendingTensor] {
        [8, 4, 2, 1].flatMap { width in tensors.filter { $0.mapping == nil && $0.record.storedType.byteWidth == width } }
            + tensors.filter { $0.mapping != nil }
    }
}

/// Writes the tensors' chunks one after the other: loads, compresses and writes at the same time.
private final class DataWriter: Sendable {
    /// Small tensors are loaded and compressed together, up to that many bytes.
    private static let groupSize = 32 << 20

    private let level: Int32?
    private let features: [String]
    private let encoders = ObjectPool { try ChunkEncoder() }
    private let output: Mutex<Output>

    init(file: AtomicFile, level: Int32?, features: [String], total: Int, progress: ((Int, Int) -> Void)?) {
        self.level = level
        self.features = features
        output = Mutex(Output(file: file, total: total, progress: progress))
    }

    /// What has been written, and what waits for the chunks before it.
    private struct Output: @unchecked Sendable {
        let file: AtomicFile
        let total: Int
        let progress: ((Int, Int) -> Void)?
        var index = ChunkIndex()
        var waiting: [Int: (frames: [UInt8], bytes: Int)] = [:]
        var done = 0

        mutating func put(_ number: Int, _ frames: [UInt8], _ bytes: Int) throws {
            waiting[number] = (frames, bytes)
            while let next = waiting.removeValue(forKey: index.count) {
                try file.write(next.frames)
                try finish(next.frames.count, next.frames.withUnsafeBytes { crc32($0) }, next.bytes)
            }
        }

        /// - Parameter bytes: of the tensor.
        mutating func put(_ numbers: UnsafeRawBufferPointer, _ bytes: Int) throws {
            let head = try MappedFrame.head(at: file.size, numbers.count)
            try file.write(head)
            try file.write(numbers)
            try finish(head.count + numbers.count, crc32(numbers, after: crc32(head)), bytes)
        }

        private mutating func finish(_ size: Int, _ checksum: UInt32, _ bytes: Int) throws {
            try index.append(size: size, checksum: checksum)
            done += bytes
            progress?(done, total)
        }
    }

    private struct Chunk: Sendable {
        let tensor: Tensor
        let range: Range<Int>
    }

    var index: ChunkIndex { output.withLock { $0.index } }

    /// Writes a tensor that is to be mapped.
    func writeMapped(_ tensor: PendingTensor) throws {
        switch tensor.mapping {
        case .rows:
            try tensor.load().withBytes { bytes in try output.withLock { try $0.put(bytes, tensor.storedByteCount) } }
        case .panels(let layout, let scales):
            try locating("tensor \"\(tensor.record.name)\"") {
                let (outputs, inputs) = try tensor.constant.matrixSizes()
                let memory = try MemoryPart(byteCount: layout.byteCount(outputs: outputs, inputs: inputs))
                try layout.pack(tensor.constant, scales: scales?.constant, into: memory)
                try output.withLock { try $0.put(UnsafeRawBufferPointer(memory.bytes), tensor.storedByteCount) }
            }
        case nil: break
        }
    }

    /// Writes tensors in chunks.
    func write(_ tensors: [PendingTensor], _ pool: ThreadPool) throws {
        let groups = self.groups(tensors)
        var first = 0
        var loaded: [Tensor] = []
        for number in -1..<groups.count {
            let chunks = loaded.flatMap(self.chunks)
            let next = number + 1 < groups.count ? groups[number + 1] : []
            loaded = try step(chunks, first, next, pool)
            first += chunks.count
        }
    }

    /// Writes chunks, while the tensors that come next are loaded.
    private func step(_ chunks: [Chunk], _ first: Int, _ next: [PendingTensor], _ pool: ThreadPool) throws -> [Tensor] {
        let loaded = Mutex([Tensor?](repeating: nil, count: next.count))
        try pool.tryRun(next.count + chunks.count) { task in
            if task < next.count {
                let tensor = try next[task].load()
                loaded.withLock { $0[task] = tensor }
            } else {
                try write(chunks[task - next.count], number: first + task - next.count)
            }
        }
        return loaded.withLock { $0.compactMap { $0 } }
    }

    private func write(_ chunk: Chunk, number: Int) throws {
        let arrangement = Arrangement(chunk.tensor.dataType, features: features)
        let frames = try encoders.borrow { encoder in
            try chunk.tensor.withBytes {
                try encoder.encode(UnsafeRawBufferPointer(rebasing: $0[chunk.range]), arrangement, level: level)
            }
        }
        try output.withLock { try $0.put(number, frames, chunk.range.count) }
    }

    private func chunks(_ tensor: Tensor) -> [Chunk] {
        stride(from: 0, to: tensor.byteCount, by: Layout.chunkSize).map {
            Chunk(tensor: tensor, range: $0..<min($0 + Layout.chunkSize, tensor.byteCount))
        }
    }

    private func groups(_ tensors: [PendingTensor]) -> [[PendingTensor]] {
        var groups: [[PendingTensor]] = []
        var size = 0
        for tensor in tensors {
            if groups.isEmpty || size + tensor.storedByteCount > DataWriter.groupSize {
                groups.append([])
                size = 0
            }
            groups[groups.count - 1].append(tensor)
            size += tensor.storedByteCount
        }
        return groups
    }
}
