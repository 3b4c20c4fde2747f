import ModelGraph
import Support
import Synchronization
import Tensors

/// The bytes of a storage in a checkpoint file.
struct StoredBytes {
    let offset: Int
    let count: Int
}

/// Reads the state dictionary of a file that `torch.save` wrote: a zip archive with `data.pkl` (PyTorch 1.6 and later), or a
/// sequence of pickles followed by the storages. Nothing that the file names is ever called.
func readTorchZip(_ file: ReadableFile) throws -> Checkpoint {
    let archive = try ZipArchive(file)
    return try locating(file.name) {
        let pickles = archive.entries.filter { $0.name == "data.pkl" || $0.name.hasSuffix("/data.pkl") }
        guard pickles.count == 1, let pickle = pickles.first else {
            throw TripsError.data(
                "no PyTorch checkpoint", found: "\(pickles.count) entries data.pkl in the archive", expected: "one")
        }
        let root = pickle.name.dropLast("data.pkl".count)
        if let order = archive[root + "byteorder"], order.size <= 16 {
            let text = String(decoding: try archive.bytes(ofTorch: order), as: UTF8.self)
            guard text == "little" else { throw TripsError.data("byte order", at: order.name, found: text, expected: "little") }
        }
        guard pickle.size <= Unpickler.maximalLength else {
            throw TripsError.data(
                "length of the pickle", at: pickle.name, found: pickle.size, expected: "at most \(Unpickler.maximalLength)")
        }
        var unpickler = Unpickler(try archive.bytes(ofTorch: pickle))
        let content = try locating(pickle.name) { try unpickler.run() }
        let storages = Dictionary(
            uniqueKeysWithValues: archive.entries.map { ($0.name, StorageEntry(entry: $0, archive: archive)) })
        let state = try StateDictionary(content, unpickler)
        return try state.checkpoint(.torchZip) { name, tensor in
            try locating("\"\(name.prefix(120))\"") {
                let entryName = root + "data/" + tensor.storage.key
                guard let storage = storages[entryName] else {
                    throw TripsError.data("the tensor's storage is missing", expected: entryName)
                }
                guard !storage.entry.isDeflated else {
                    throw TripsError.data(
                        "a compressed storage; the archive was packed by something else than torch.save", at: entryName,
                        found: "deflate", expected: "stored")
                }
                let place = StoredBytes(offset: storage.entry.offset, count: storage.entry.size)
                return try constant(tensor, place, in: file) { try storage.verify() }
            }
        }
    }
}

extension ZipArchive {
    /// As `bytes(of:)`. PyTorch computes no checksums where it was asked not to; it then states 0.
    fileprivate func bytes(ofTorch entry: Entry) throws -> [UInt8] {
        try bytes(of: entry, checkingSum: entry.checksum != 0)
    }
}

/// A storage of the archive, whose checksum is compared once, when one of its tensors is first read.
private final class StorageEntry: Sendable {
    let entry: ZipArchive.Entry
    private let archive: ZipArchive
    private let verified: Mutex<Bool>

    init(entry: ZipArchive.Entry, archive: ZipArchive) {
        self.entry = entry
        self.archive = archive
        verified = Mutex(entry.checksum == 0)
    }

    func verify() throws {
        try verified.withLock { verified in
            if !verified { try archive.verify(entry) }
            verified = true
        }
    }
}

/// See `readTorchZip`.
func readLegacyTorch(_ file: ReadableFile) throws -> Checkpoint {
    try locating(file.name) {
        var pickles = PickleSequence(file)
        try checkLegacyHeader(&pickles)
        let (content, unpickler) = try pickles.next("state dictionary")
        let (keyList, keyUnpickler) = try pickles.next("list of storages")
        let state = try StateDictionary(content, unpickler)
        let keys = (keyUnpickler.elements(of: keyList) ?? []).compactMap { $0.string ?? $0.integer.map(String.init) }
        let widths = Dictionary(unpickler.storageWidths, uniquingKeysWith: { first, _ in first })
        let places = try legacyStorages(file, from: pickles.position, keys, widths)
        return try state.checkpoint(.torchLegacy) { name, tensor in
            try locating("\"\(name.prefix(120))\"") {
                guard let place = places[tensor.storage.key] else {
                    throw TripsError.data("the tensor's storage is missing", expected: tensor.storage.key)
                }
                return try constant(tensor, place, in: file)
            }
        }
    }
}

/// The pickles of a file, one after the other.
private struct PickleSequence {
    private let file: ReadableFile
    /// Where the next one begins.
    private(set) var position = 0

    init(_ file: ReadableFile) { self.file = file }

    mutating func next(_ what: String) throws -> (PickleValue, Unpickler) {
        let count = min(Unpickler.maximalLength, file.size - position)
        var unpickler = Unpickler(try file.bytes(at: position, count: count))
        let value = try locating("\(what) at byte \(position)") { try unpickler.run() }
        position += unpickler.position
        return (value, unpickler)
    }
}

/// The magic number, the version and the description of the system that wrote the file.
private func checkLegacyHeader(_ pickles: inout PickleSequence) throws {
    let first = try pickles.next("first pickle").0
    guard case .bytes(let magic) = first, magic.elementsEqual(legacyMagic) else {
        throw TripsError.data(
            "no PyTorch checkpoint", found: "a pickle of \(first.unknownClass ?? "something else")",
            expected: "PyTorch's magic number")
    }
    let version = try pickles.next("version").0.integer
    guard version == 1001 else {
        throw TripsError.data("version of the format", found: version.map(String.init) ?? "no number", expected: 1001)
    }
    let (system, unpickler) = try pickles.next("system description")
    if let order = unpickler.members(of: system)?.first(where: { $0.key == "little_endian" }), case .bool(false) = order.value {
        throw TripsError.data("byte order", found: "big", expected: "little")
    }
}

/// The storages that follow the pickles: each its number of elements, then these.
private func legacyStorages(
    _ file: ReadableFile, from start: Int, _ keys: [String], _ widths: [String: Int]
) throws -> [String: StoredBytes] {
    var position = start
    var places: [String: StoredBytes] = [:]
    for key in keys {
        var field = ByteCursor(try file.bytes(at: position, count: 8))
        let count = Int64(bitPattern: try field.integer(UInt64.self))
        guard Unpickler.isName(key), let width = widths[key] else {
            throw TripsError.data("a storage of unknown type", at: "byte \(position)", found: key.prefix(60))
        }
        position += 8
        let (byteCount, overflow) = Int(count).multipliedReportingOverflow(by: width)
        guard count >= 0, !overflow, byteCount <= file.size - position else {
            throw TripsError.data(
                "size of a storage", at: "byte \(position - 8)", found: "\(count) elements", expected: "within \(file.size) bytes")
        }
        places[key] = StoredBytes(offset: position, count: byteCount)
        position += byteCount
    }
    return places
}

/// 0x1950a86a20f9469cfc6c, little-endian
private let legacyMagic: [UInt8] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19]

/// The model's tensors, and a sum of those that are not the model's.
private struct StateDictionary {
    private let tensors: [(name: String, tensor: TorchTensor)]
    private let others: [SkippedTensors]

    /// Finds the tensors at the top, or under one of the names that training scripts use.
    init(_ content: PickleValue, _ unpickler: Unpickler) throws {
        var members = unpickler.members(of: content) ?? []
        var beside: [(key: String, value: PickleValue)] = []
        for wrapper in ["model", "model_state_dict", "state_dict", "module"] {
            if let inner = members.first(where: { $0.key == wrapper }), let innerMembers = unpickler.members(of: inner.value) {
                beside += members.filter { $0.key != wrapper }
                members = innerMembers
            }
        }
        tensors = members.compactMap { member in
            if case .tensor(let tensor) = member.value { (member.key, tensor) } else { nil }
        }
        beside += members.filter { if case .tensor = $0.value { false } else { true } }
        guard !tensors.isEmpty else {
            let names = members.prefix(8).map { $0.key.prefix(40) + ($0.value.unknownClass.map { " (a \($0))" } ?? "") }
            throw TripsError.data(
                "no state dictionary",
                found: content.unknownClass ?? (members.isEmpty ? "no members with names" : names.joined(separator: ", ")),
                expected: "tensors at the top or under model, model_state_dict, state_dict or module, "
                    + "as torch.save(model.state_dict(), …) writes")
        }
        if let (name, value) = members.first(where: { $0.value.unknownClass != nil }) {
            throw TripsError.data(
                "an object among the tensors, whose class is not known", at: "\"\(name.prefix(120))\"", found: value.unknownClass,
                expected: "tensors and plain data")
        }
        others =
            try StateDictionary.others(besides: tensors.map(\.tensor), under: unpickler.holdingTensors(beside), unpickler)
            .map { [$0] } ?? []
    }

    /// - Parameter keys: where they are; averaged weights among them are worth knowing of.
    private static func others(besides tensors: [TorchTensor], under keys: [String], _ unpickler: Unpickler) throws
        -> SkippedTensors?
    {
        var seen = Set(tensors)
        let places = keys.prefix(6).map { String($0.prefix(40)) }.joined(separator: ", ")
        var others = SkippedTensors(
            reason: places.isEmpty ? "tensors beside the model" : "beside the model: \(places)", count: 0, bytes: 0)
        for case .tensor(let tensor) in unpickler.items.joined() where seen.insert(tensor).inserted {
            let (sum, overflow) = others.bytes.addingReportingOverflow(try byteCount(of: tensor.storage.dataType, tensor.shape))
            guard !overflow else { throw TripsError.data("the number of bytes overflows", found: "shape \(tensor.shape)") }
            others.count += 1
            others.bytes = sum
        }
        return others.count > 0 ? others : nil
    }

    func checkpoint(_ format: SourceFormat, _ constant: (String, TorchTensor) throws -> Constant) throws -> Checkpoint {
        Checkpoint(tensors: try tensors.map { ($0.name, try constant($0.name, $0.tensor)) }, format: format, others: others)
    }
}

/// The tensor as a constant that reads its part of the file, after `verify`.
private func constant(
    _ tensor: TorchTensor, _ place: StoredBytes, in file: ReadableFile, verify: (@Sendable () throws -> Void)? = nil
) throws -> Constant {
    let (shape, strides, dataType) = (tensor.shape, tensor.strides, tensor.storage.dataType)
    let width = dataType.byteWidth
    let stored = place.count / width
    let (storageEnd, storageOverflow) = tensor.storage.offset.addingReportingOverflow(tensor.storage.count)
    guard !storageOverflow, storageEnd <= stored else {
        throw TripsError.data("size of the storage", found: "\(stored) elements", expected: storageEnd)
    }
    let count = try elementCount(of: shape)
    let span = try span(of: shape, strides)
    guard tensor.offset >= 0, tensor.offset <= tensor.storage.count, span <= tensor.storage.count - tensor.offset,
        count <= max(span, 1)
    else {
        throw TripsError.data(
            "a tensor beyond its storage", found: "\(shape) with strides \(strides) at \(tensor.offset)",
            expected: "within \(tensor.storage.count) elements")
    }
    let offset = place.offset + (tensor.storage.offset + tensor.offset) * width
    if isRowMajor(shape, strides) { return Constant(dataType, shape, in: file, at: offset, verify: verify) }
    let whole = Constant(dataType, [span], in: file, at: offset, verify: verify)
    return .derived("strided\(shape)\(strides)", from: [whole], dataType, shape) { try $0[0].gathered(shape, strides: strides) }
}

/// Elements from a tensor's first to its last in the storage.
private func span(of shape: [Int], _ strides: [Int]) throws -> Int {
    if shape.contains(0) { return 0 }
    return try zip(shape, strides).reduce(1) { span, axis in
        let (reach, overflow) = (axis.0 - 1).multipliedReportingOverflow(by: axis.1)
        let (sum, sumOverflow) = span.addingReportingOverflow(reach)
        guard axis.0 > 0, axis.1 >= 0, !overflow, !sumOverflow else {
            throw TripsError.data("strides", found: "\(strides) for \(shape)")
        }
        return sum
    }
}

private func isRowMajor(_ shape: [Int], _ strides: [Int]) -> Bool {
    if shape.contains(0) { return true }
    var expected = 1
    for (size, stride) in zip(shape, strides).reversed() where size != 1 {
        guard stride == expected else { return false }
        expected *= size
    }
    return true
}
