import Foundation
import Importers
import Kernels
import ModelGraph
import Support
import Tensors
import TestSupport
import Testing

private func archive(_ pickle: [UInt8], _ storages: [String: [UInt8]] = [:]) -> [UInt8] {
    ZipWriter.archive(
        [.init(name: "archive/data.pkl", data: pickle)]
            + storages.sorted { $0.key < $1.key }.map { .init(name: "archive/data/\($0.key)", data: $0.value) })
}

private func open(_ bytes: [UInt8], _ name: String = "model.pth") throws -> Checkpoint {
    let folder = try TemporaryFolder()
    return try Checkpoint.open(path: folder.write(bytes, name))
}

/// Twelve bytes, 0 ... 11, as a storage of bytes.
private let twelve = ["0": [UInt8](0..<12)]

private func bytes(_ checkpoint: Checkpoint, _ name: String) throws -> [UInt8] {
    try #require(checkpoint.tensors.first { $0.name == name }).constant.load().elements()
}

@Suite struct TorchReading {
    private let storage = Pickle.storage("ByteStorage", key: "0", count: 12)

    @Test func readsViewsOfAStorage() throws {
        let folder = try TemporaryFolder()
        let pickle = Pickle.whole(
            Pickle.dictionary(
                ("plain", Pickle.tensor(storage, [3, 4], [4, 1])), ("part", Pickle.tensor(storage, offset: 4, [4], [1])),
                ("transposed", Pickle.tensor(storage, [4, 3], [1, 4])),
                ("every second", Pickle.tensor(storage, offset: 1, [5], [2])),
                ("made by INST", Pickle.ascii("(icollections\nOrderedDict\n")),
                ("scalar", Pickle.tensor(storage, offset: 11, [], [])), ("none", Pickle.tensor(storage, [0, 4], [4, 1])),
                ("none at the end", Pickle.tensor(storage, offset: 12, [0], [1]))))
        let checkpoint = try Checkpoint.open(path: folder.write(archive(pickle, twelve), "model.bin"))
        #expect(checkpoint.format == .torchZip)
        #expect(try bytes(checkpoint, "plain") == [UInt8](0..<12))
        #expect(try bytes(checkpoint, "part") == [4, 5, 6, 7])
        #expect(try bytes(checkpoint, "transposed") == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])
        #expect(try bytes(checkpoint, "every second") == [1, 3, 5, 7, 9])
        #expect(try bytes(checkpoint, "scalar") == [11])
        #expect(try bytes(checkpoint, "none") == [])
        #expect(try bytes(checkpoint, "none at the end") == [])
    }

    @Test func readsArchivesWithoutAFolderOrBeyond32Bits() throws {
        let pickle = Pickle.whole(Pickle.dictionary(("a", Pickle.tensor(storage, offset: 4, [4], [1]))))
        let bare = [ZipWriter.Entry(name: "data.pkl", data: pickle), .init(name: "data/0", data: [UInt8](0..<12))]
        #expect(try bytes(open(ZipWriter.archive(bare)), "a") == [4, 5, 6, 7])
        #expect(try bytes(open(ZipWriter.zip64(bare)), "a") == [4, 5, 6, 7])
        let order = { (text: String) in ZipWriter.archive(bare + [.init(name: "byteorder", data: Array(text.utf8))]) }
        #expect(try bytes(open(order("little")), "a") == [4, 5, 6, 7])
        expectFailure(.data, "byte order", "found big") { try open(order("big")) }
        expectFailure(.data, "found 2 entries data.pkl") {
            try open(ZipWriter.archive(bare + [.init(name: "b/data.pkl", data: pickle)]))
        }
    }

    /// PyTorch told to compute no checksums states 0; any other is compared, for a tensor when it is first read.
    @Test func comparesChecksums() throws {
        let pickle = Pickle.whole(
            Pickle.dictionary(("a", Pickle.tensor(storage, offset: 4, [4], [1])), ("b", Pickle.tensor(storage, [4, 3], [1, 4]))))
        func open(pickleSum: UInt32, storageSum: UInt32) throws -> Checkpoint {
            let folder = try TemporaryFolder()
            return try Checkpoint.open(
                path: folder.write(
                    ZipWriter.archive([
                        .init(name: "archive/data.pkl", data: pickle, checksum: pickleSum),
                        .init(name: "archive/data/0", data: [UInt8](0..<12), checksum: storageSum),
                    ]), "model.pth"))
        }
        let (pickleSum, storageSum) = (trips_crc32(0, pickle, pickle.count), trips_crc32(0, [UInt8](0..<12), 12))
        let sound = try open(pickleSum: pickleSum, storageSum: storageSum)
        #expect(try bytes(sound, "a") == [4, 5, 6, 7])
        #expect(try bytes(sound, "b") == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])
        expectFailure(.data, "archive/data.pkl", "wrong checksum") { try open(pickleSum: pickleSum ^ 1, storageSum: 0) }
        let damaged = try open(pickleSum: 0, storageSum: storageSum ^ 1)
        for tensor in damaged.tensors {
            expectFailure(.data, "archive/data/0", "wrong checksum", String(storageSum, radix: 16)) { try tensor.constant.load() }
        }
    }

    @Test func refusesCompressedStorages() throws {
        let pickle = Pickle.whole(Pickle.dictionary(("a", Pickle.tensor(storage, [12], [1]))))
        let entries = [
            ZipWriter.Entry(name: "archive/data.pkl", data: pickle),
            .init(name: "archive/data/0", data: [0x63, 0x60, 0xA4, 0x1C, 0, 0], method: 8, statedSize: 12),
        ]
        expectFailure(.data, "archive/data/0", "a compressed storage", "torch.save", "found deflate", "expected stored") {
            try open(ZipWriter.archive(entries))
        }
    }

    @Test(arguments: ["model", "model_state_dict", "state_dict", "module"]) func findsTheStateDictionary(_ wrapper: String) throws {
        let folder = try TemporaryFolder()
        let state = Pickle.dictionary(("a", Pickle.tensor(storage, [2], [1])))
        let moments = Pickle.dictionary(("exp_avg", Pickle.tensor(storage, offset: 4, [3], [1])))
        let averaged = Pickle.dictionary(("shadow", Pickle.dictionary(("a", Pickle.tensor(storage, offset: 8, [2], [1])))))
        let counts = Pickle.dictionary(("steps", Pickle.integer(7)))
        let pickle = Pickle.whole(
            Pickle.dictionary((wrapper, state), ("optimizer", moments), ("ema", averaged), ("counts", counts)))
        let checkpoint = try Checkpoint.open(path: folder.write(archive(pickle, twelve), "model.pth"))
        #expect(checkpoint.tensors.map(\.name) == ["a"])
        #expect(checkpoint.others == [SkippedTensors(reason: "beside the model: optimizer, ema", count: 2, bytes: 5)])
    }

    @Test func readsParametersAndOrderedDictionaries() throws {
        let folder = try TemporaryFolder()
        let parameter =
            Pickle.global("torch._utils", "_rebuild_parameter")
            + Pickle.tuple(Pickle.tensor(storage, [2], [1]), [0x88], [0x7D]) + Pickle.ascii("R")
        let pickle = Pickle.whole(
            Pickle.global("collections", "OrderedDict") + Pickle.ascii(")R") + Pickle.string("a") + parameter + Pickle.ascii("s")
                + Pickle.dictionary(("_metadata", Pickle.ascii("N"))) + Pickle.ascii("b"))
        let checkpoint = try Checkpoint.open(path: folder.write(archive(pickle, twelve), "model.pth"))
        #expect(try bytes(checkpoint, "a") == [0, 1])
    }

    @Test func whatTrainingScriptsKeepBesideTheWeightsIsNotRead() throws {
        let folder = try TemporaryFolder()
        // argparse.Namespace(lr=7), and numpy.float64 as NumPy pickles it.
        let arguments =
            Pickle.global("argparse", "Namespace") + [0x29, 0x81] + Pickle.dictionary(("lr", Pickle.integer(7))) + Pickle.ascii("b")
        let type =
            Pickle.global("numpy", "dtype") + Pickle.tuple(Pickle.string("f8"), [0x89], [0x88]) + Pickle.ascii("R")
            + Pickle.tuple(Pickle.integer(3), Pickle.string("<")) + Pickle.ascii("b")
        let encoded =
            Pickle.global("_codecs", "encode") + Pickle.tuple(Pickle.string("8bytes.."), Pickle.string("latin1"))
            + Pickle.ascii("R")
        let best = Pickle.global("numpy._core.multiarray", "scalar") + Pickle.tuple(type, encoded) + Pickle.ascii("R")
        let state = Pickle.dictionary(("a", Pickle.tensor(storage, [2], [1])))
        let pickle = Pickle.whole(Pickle.dictionary(("args", arguments), ("best", best), ("model", state)))
        let checkpoint = try Checkpoint.open(path: folder.write(archive(pickle, twelve), "model.pth"))
        #expect(try bytes(checkpoint, "a") == [0, 1])
        let instead = Pickle.whole(Pickle.dictionary(("model", arguments)))
        expectFailure(.data, "no state dictionary", "found model") { try open(archive(instead)) }
    }

    @Test func aPickleThatCallsTheSystemIsRefusedAndDoesNothing() throws {
        let folder = try TemporaryFolder()
        let mark = folder["was-here"]
        let call = Pickle.global("os", "system") + Pickle.tuple(Pickle.string("touch \(mark)")) + Pickle.ascii("R")
        let first = Pickle.whole(call)
        let protocolZero = Pickle.ascii("cos\nsystem\n(S'touch \(mark)'\ntR.")
        let stackGlobal =
            [0x80, 4, 0x8C, 2] + Pickle.ascii("os") + [0x8C, 6] + Pickle.ascii("system") + [0x93] + Pickle.ascii(".")
        let instance = Pickle.whole(Pickle.ascii("(") + Pickle.string("touch \(mark)") + Pickle.ascii("ios\nsystem\n"))
        for pickle in [first, protocolZero, stackGlobal, instance] {
            let path = try folder.write(archive(pickle), "model.pth")
            expectFailure(.data, pickle == protocolZero ? "pickle opcode" : "os.system") { try Checkpoint.open(path: path) }
            let bare = try folder.write(pickle, "bare.pth")
            expectFailure(.data, pickle == protocolZero ? "no PyTorch checkpoint" : "os.system") { try Checkpoint.open(path: bare) }
        }
        let beside = Pickle.dictionary(("args", call), ("model", Pickle.dictionary(("a", Pickle.tensor(storage, [2], [1])))))
        #expect(try bytes(open(archive(Pickle.whole(beside), twelve)), "a") == [0, 1])
        #expect(!FileManager.default.fileExists(atPath: mark))
    }

    @Test(arguments: ["os-system.pth", "os-system-older.pt"]) func filesOfTorchThatCallTheSystemAreRefused(_ name: String) throws {
        let mark = "checkpoint-code-was-run"
        expectFailure(.data, "system") { try Checkpoint.open(path: "\(fixtures)/hostile/\(name)") }
        #expect(!FileManager.default.fileExists(atPath: mark))
    }

    @Test(arguments: [
        ("builtins", "eval"), ("torch", "load"), ("torch._utils", "_rebuild_sparse_tensor"), ("models", "Albef"),
        ("collections", "defaultdict"), ("pathlib", "PosixPath"),
    ]) func everyOtherGlobalIsPassedOverBesideTheTensorsAndRefusedAmongThem(_ module: String, _ name: String) throws {
        let global = Pickle.global(module, name)
        let object = global + Pickle.tuple(Pickle.string("x")) + Pickle.ascii("R")
        // A class of its own with members, as lists, dictionaries and others pickle theirs; then what one of its methods gives.
        let element = Pickle.tensor(storage, offset: 4, [3], [1])
        let instance =
            global + Pickle.ascii(")") + [0x81] + Pickle.ascii("(") + element + Pickle.ascii("e")
            + Pickle.dictionary(("lr", Pickle.integer(7))) + Pickle.ascii("b")
        let called = object + Pickle.tuple() + Pickle.ascii("R")
        let tensor = Pickle.tensor(storage, [2], [1])
        for value in [global, object, instance, called] {
            let beside = Pickle.dictionary(("args", Pickle.dictionary(("out", value))), ("model", Pickle.dictionary(("a", tensor))))
            #expect(try bytes(open(archive(Pickle.whole(beside), twelve)), "a") == [0, 1])
            let among = Pickle.dictionary(("model", Pickle.dictionary(("a", tensor), ("b", value))))
            for pickle in [value, Pickle.dictionary(("model", value)), among] {
                expectFailure(.data, "\(module).\(name)") { try open(archive(Pickle.whole(pickle), twelve)) }
            }
        }
        let counted = Pickle.dictionary(("args", instance), ("model", Pickle.dictionary(("a", tensor))))
        let others = try open(archive(Pickle.whole(counted), twelve)).others
        #expect(others == [SkippedTensors(reason: "tensors beside the model", count: 1, bytes: 3)])
    }

    struct Hostile: Sendable, CustomTestStringConvertible {
        let what: String
        let pickle: [UInt8]
        let words: [String]
        init(_ what: String, _ pickle: [UInt8], _ words: String...) { (self.what, self.pickle, self.words) = (what, pickle, words) }
        var testDescription: String { what }
    }

    /// The last integer of a pickle, written in 64 bits, as another number.
    private static func long(_ pickle: [UInt8], _ number: Int32, by other: Int64) -> [UInt8] {
        let old = Pickle.integer(number)
        guard let start = pickle.indices.last(where: { pickle[$0...].starts(with: old) }) else { return [] }
        return pickle[..<start] + [0x8A, 8] + littleEndian(other) + pickle[(start + old.count)...]
    }

    private static func state(_ tensor: [UInt8]) -> [UInt8] { Pickle.whole(Pickle.dictionary(("a", tensor))) }
    private static let bytes12 = Pickle.storage("ByteStorage", key: "0", count: 12)

    private static let longName = String(repeating: "k", count: 4097)

    static let hostile: [Hostile] = [
        Hostile("empty", [], "ends too early"),
        Hostile("no end", [0x80, 2, 0x4E], "ends too early"),
        Hostile("protocol 9", [0x80, 9], "protocol", "9"),
        Hostile("unknown opcode", [0x80, 2, 0xFF], "opcode", "0xff"),
        Hostile("stack underflow", Pickle.whole(Pickle.ascii("0")), "takes more"),
        Hostile("pop through a mark", Pickle.whole(Pickle.ascii("N(0")), "takes more"),
        Hostile("missing mark", Pickle.whole(Pickle.ascii("t")), "mark"),
        Hostile("memo misuse", Pickle.whole(Pickle.ascii("h") + [7]), "did not memorise", "7"),
        Hostile("memorising nothing", Pickle.whole([0x94]), "takes more"),
        Hostile("huge string", Pickle.whole([0x8D] + littleEndian(UInt64.max)), "length"),
        Hostile("string beyond the end", Pickle.whole([0x58] + littleEndian(UInt32.max)), "ends too early"),
        Hostile("string that is not UTF-8", Pickle.whole([0x8C, 1, 0xFF]), "UTF-8"),
        Hostile("huge integer", Pickle.whole([0x8B] + littleEndian(UInt32(1 << 30))), "ends too early"),
        Hostile("members without values", Pickle.whole(Pickle.ascii("}(Nu")), "pairs"),
        Hostile("append to a number", Pickle.whole(Pickle.ascii("NNa")), "extended"),
        Hostile("a list that holds itself", Pickle.whole([0x5D, 0x94, 0x68, 0, 0x61]), "no state dictionary"),
        Hostile("calling a string", Pickle.whole(Pickle.string("x") + Pickle.ascii(")R")), "call"),
        Hostile(
            "calling a storage", Pickle.whole(Pickle.global("torch", "FloatStorage") + Pickle.ascii(")R")), "storage made by a call"
        ),
        Hostile("state of a number", Pickle.whole(Pickle.ascii("N}b")), "state"),
        Hostile("persistent id of something else", Pickle.whole(Pickle.string("x") + Pickle.ascii("Q")), "persistent"),
        Hostile(
            "storage of an unknown type", state(Pickle.tensor(Pickle.storage("UntypedStorage", key: "0", count: 12), [1], [1])),
            "torch.UntypedStorage"),
        Hostile("no tensors", Pickle.whole(Pickle.dictionary(("epoch", Pickle.integer(1)))), "no state dictionary", "epoch"),
        Hostile(
            "missing storage", state(Pickle.tensor(Pickle.storage("ByteStorage", key: "9", count: 1), [1], [1])),
            "storage is missing", "data/9"),
        Hostile(
            "storage name that leads elsewhere",
            state(Pickle.tensor(Pickle.storage("ByteStorage", key: "../data.pkl", count: 1), [1], [1])), "storage is missing"),
        Hostile(
            "storage larger than its entry", state(Pickle.tensor(Pickle.storage("LongStorage", key: "0", count: 12), [1], [1])),
            "size of the storage"),
        Hostile("tensor beyond the storage", state(Pickle.tensor(bytes12, offset: 8, [5], [1])), "beyond its storage"),
        Hostile("negative offset", state(Pickle.tensor(bytes12, offset: -1, [1], [1])), "beyond its storage"),
        Hostile("negative stride", state(Pickle.tensor(bytes12, offset: 11, [12], [-1])), "strides"),
        Hostile("negative size", state(Pickle.tensor(bytes12, [-1], [1])), "negative"),
        Hostile("overflowing shape", state(Pickle.tensor(bytes12, [.max, .max, .max], [0, 0, 0])), "overflow"),
        Hostile("one element, repeated without end", state(Pickle.tensor(bytes12, [.max], [0])), "beyond its storage"),
        Hostile("overflowing strides", state(Pickle.tensor(bytes12, [.max, .max, 2], [.max, .max, .max])), "beyond its storage"),
        Hostile("strides that overflow at once", state(long(Pickle.tensor(bytes12, [3], [1]), 1, by: .max)), "strides"),
        Hostile("strides that overflow together", state(long(Pickle.tensor(bytes12, [2], [1]), 1, by: .max)), "strides"),
        Hostile(
            "more axes than any tensor has",
            state(Pickle.tensor(bytes12, Array(repeating: 1, count: 33), Array(repeating: 1, count: 33))), "_rebuild_tensor_v2"),
        Hostile(
            "tensor without strides",
            state(
                Pickle.global("torch._utils", "_rebuild_tensor_v2")
                    + Pickle.tuple(bytes12, Pickle.integer(0), Pickle.tuple(Pickle.integer(1))) + Pickle.ascii("R")),
            "_rebuild_tensor_v2"),
        Hostile("members of a list", Pickle.whole(Pickle.ascii("](NNu")), "a dictionary"),
        Hostile("elements of a dictionary", Pickle.whole(Pickle.ascii("}(NNe")), "a list or a set"),
        Hostile(
            "dictionary of something else than pairs",
            Pickle.whole(
                Pickle.global("collections", "OrderedDict") + Pickle.tuple(Pickle.tuple(Pickle.tuple(Pickle.string("a"))))
                    + Pickle.ascii("R")), "pairs"),
        Hostile(
            "size of two tuples",
            Pickle.whole(Pickle.global("torch", "Size") + Pickle.tuple(Pickle.tuple(), Pickle.tuple()) + Pickle.ascii("R")),
            "torch.Size"),
        Hostile(
            "a key without end", Pickle.whole(Pickle.dictionary((longName, Pickle.integer(1)))), "a key of a dictionary", "4097"),
        Hostile(
            "a storage's key without end", state(Pickle.tensor(Pickle.storage("ByteStorage", key: longName, count: 1), [1], [1])),
            "a persistent id"),
        Hostile("shape and strides unlike", state(Pickle.tensor(bytes12, [2, 2], [1])), "_rebuild_tensor_v2"),
    ]

    @Test(arguments: hostile) func refuses(_ file: Hostile) throws {
        do {
            _ = try open(archive(file.pickle, twelve))
            Issue.record("was accepted")
        } catch let error as TripsError {
            #expect(error.kind == .data)
            for word in file.words + ["model.pth"] { #expect(error.description.contains(word), "\(error)") }
        }
    }

    @Test func nestingAndRepetitionCostNoMoreThanTheirBytes() {
        // A tuple in a tuple, 400,000 deep; then two of the last one, 60 times, which would be 2^60 values.
        let deep = Pickle.ascii(")") + [UInt8](repeating: 0x85, count: 400_000)
        expectFailure(.data, "no state dictionary") { try open(archive(Pickle.whole(deep))) }
        let doubling = Pickle.ascii("N") + (0..<60).flatMap { _ in Pickle.ascii("2") + [0x86] }
        expectFailure(.data, "no state dictionary") { try open(archive(Pickle.whole(doubling))) }
        expectFailure(.data, "out of proportion") { try open(archive(Pickle.whole([UInt8](repeating: 0x4E, count: 1 << 21)))) }
    }

    /// A name is held for each global that a pickle asks for, and may be recalled for all of them.
    @Test(arguments: ["models", "torch"]) func namesAreShort(module: String) {
        func asking(for name: String) -> [UInt8] { Pickle.string(module) + Pickle.string(name) + [0x93] }
        let longest = Pickle.whole(asking(for: String(repeating: "n", count: 4096)))
        expectFailure(.data, "found \(module).nnn") { try open(archive(longest)) }
        do { _ = try open(archive(longest)) } catch { #expect("\(error)".utf8.count < 500) }
        for pickle in [asking(for: Self.longName), Pickle.string(Self.longName) + Pickle.string("x") + [0x93]] {
            expectFailure(.data, "a global's name", "two short strings") { try open(archive(Pickle.whole(pickle))) }
        }
    }

    /// A step along an axis of one element is never taken, whatever the file says of it.
    @Test func stridesOfSingleElementsMatterToNothing() throws {
        let tensor = Self.long(Pickle.tensor(storage, [2, 2, 1], [1, 2, 7]), 7, by: .max)
        #expect(try bytes(open(archive(Self.state(tensor), twelve)), "a") == [0, 2, 1, 3])
    }

    @Test func everyTruncationOfAFileIsRefused() throws {
        let whole = archive(TorchReading.state(Pickle.tensor(storage, [3, 4], [4, 1])), twelve)
        for count in 0..<whole.count { expectFailure { try open(Array(whole.prefix(count))) } }
    }

    @Test func noFlippedByteTraps() throws {
        let whole = archive(TorchReading.state(Pickle.tensor(storage, [3, 4], [1, 3])), twelve)
        var opened = 0
        for index in whole.indices {
            for flip: UInt8 in [0x01, 0x80, 0xFF] {
                var bytes = whole
                bytes[index] ^= flip
                do {
                    for tensor in try open(bytes).tensors { _ = try tensor.constant.load() }
                    opened += 1
                } catch let error as TripsError {
                    #expect(error.kind == .data)
                }
            }
        }
        #expect(opened > 0 && opened < 3 * whole.count)
    }
}

@Suite struct LegacyTorchReading {
    private static let magic: [UInt8] = [0x80, 2, 0x8A, 10, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E]

    private func file(
        version: Int32 = 1001, isLittle: Bool = true, state: [UInt8]? = nil, keys: [String] = ["0"], counts: [Int64] = [12],
        data: [UInt8] = [UInt8](0..<12)
    ) -> [UInt8] {
        let storage =
            Pickle.tuple(
                Pickle.string("storage"), Pickle.global("torch", "ByteStorage"), Pickle.string("0"), Pickle.string("cpu"),
                Pickle.integer(12), Pickle.ascii("N"))
            + Pickle.ascii("Q")
        let system = Pickle.dictionary(("little_endian", [isLittle ? 0x88 : 0x89]))
        let content = state ?? Pickle.dictionary(("a", Pickle.tensor(storage, offset: 2, [3], [1])))
        let list = Pickle.ascii("](") + keys.flatMap(Pickle.string) + Pickle.ascii("e")
        let head = LegacyTorchReading.magic + [Pickle.integer(version), system, content, list].flatMap(Pickle.whole)
        return head + zip(keys, counts).flatMap { littleEndian($1) } + data
    }

    @Test func readsTensorsBehindThePickles() throws {
        let folder = try TemporaryFolder()
        let checkpoint = try Checkpoint.open(path: folder.write(file(), "older.anything"))
        #expect(checkpoint.format == .torchLegacy)
        #expect(try bytes(checkpoint, "a") == [2, 3, 4])
    }

    @Test func refusesWhatDoesNotFit() {
        expectFailure(.data, "version", "7") { try open(file(version: 7)) }
        expectFailure(.data, "byte order", "big") { try open(file(isLittle: false)) }
        expectFailure(.data, "size of a storage") { try open(file(counts: [.max])) }
        expectFailure(.data, "size of a storage") { try open(file(counts: [-1])) }
        expectFailure(.data, "size of a storage") { try open(file(data: [1, 2])) }
        expectFailure(.data, "unknown type") { try open(file(keys: ["5"])) }
        expectFailure(.data, "storage is missing") { try open(file(keys: [], counts: [])) }
        expectFailure(.data, "magic") { try open(Pickle.whole(Pickle.dictionary(("a", Pickle.integer(1)))), "plain.pt") }
    }

    /// Files of the time before PyTorch 0.4 share storages by views of them.
    @Test func readsViewsOfStorages() throws {
        func state(_ view: [UInt8], type: String = "ByteStorage", count: Int32 = 12, offset: Int32 = 1) -> [UInt8] {
            let storage = Pickle.tuple(
                Pickle.string("storage"), Pickle.global("torch", type), Pickle.string("0"), Pickle.string("cpu"),
                Pickle.integer(count), view)
            return Pickle.dictionary(("a", Pickle.tensor(storage + Pickle.ascii("Q"), offset: offset, [2], [1])))
        }
        func view(_ offset: Int32, _ count: Int32) -> [UInt8] {
            Pickle.tuple(Pickle.string("1"), Pickle.integer(offset), Pickle.integer(count))
        }
        let folder = try TemporaryFolder()
        #expect(try bytes(Checkpoint.open(path: folder.write(file(state: state(view(3, 9))), "views.pt")), "a") == [4, 5])
        #expect(try bytes(Checkpoint.open(path: folder.write(file(state: state(view(9, 3))), "end.pt")), "a") == [10, 11])
        for (offset, count) in [(-1, 3), (3, -1), (13, 0), (3, 10)] as [(Int32, Int32)] {
            expectFailure(.data, "a view of a storage", "within 12") { try open(file(state: state(view(offset, count)))) }
        }
        expectFailure(.data, "a view of a storage") {
            try open(file(state: state(Pickle.tuple(Pickle.string("1"), Pickle.integer(3), Pickle.integer(9), Pickle.integer(1)))))
        }
        expectFailure(.data, "beyond its storage") { try open(file(state: state(view(3, 2)))) }
        expectFailure(.data, "size of a storage") {
            try open(file(state: state(Pickle.ascii("N"), type: "LongStorage"), counts: [.max]))
        }
    }

    @Test func saysWhatIsNoCheckpointAtAll() {
        expectFailure(.data, "no PyTorch checkpoint", "a pickle of something else") {
            try open([0x80, 2, 0x8A, 10] + [UInt8](repeating: 1, count: 10) + [0x2E], "magic.pth")
        }
        expectFailure(.data, "no PyTorch checkpoint", "3c 21 44 4f") { try open(Array("<!DOCTYPE html>".utf8), "page.pth") }
        expectFailure(.data, "no PyTorch checkpoint", "empty file") { try open([], "empty.bin") }
    }

    @Test func everyTruncationIsRefused() {
        let whole = file()
        for count in 0..<whole.count { expectFailure { try open(Array(whole.prefix(count))) } }
    }
}

@Suite struct ZipReading {
    private func opened(_ bytes: [UInt8]) throws -> ZipArchive {
        let folder = try TemporaryFolder()
        return try ZipArchive(ReadableFile(path: folder.write(bytes, "archive.zip")))
    }

    @Test func readsStoredAndDeflatedEntries() throws {
        // "hello hello hello hello\n" by raw deflate.
        let deflated: [UInt8] = [0xCB, 0x48, 0xCD, 0xC9, 0xC9, 0x57, 0xC8, 0x40, 0x27, 0xB9, 0x00]
        let archive = try opened(
            ZipWriter.archive([
                .init(name: "stored", data: [1, 2, 3]), .init(name: "deflated", data: deflated, method: 8, statedSize: 24),
            ]))
        #expect(archive.entries.map(\.name) == ["stored", "deflated"])
        #expect(try archive.bytes(of: archive.entries[0], checkingSum: false) == [1, 2, 3])
        #expect(
            String(decoding: try archive.bytes(of: archive.entries[1], checkingSum: false), as: UTF8.self)
                == "hello hello hello hello\n")
        expectFailure(.data, "checksum") { try archive.bytes(of: archive.entries[0]) }
    }

    @Test func refusesWhatDoesNotFit() throws {
        func refused(_ entries: ZipWriter.Entry..., words: String) {
            expectFailure(.data, words) { try opened(ZipWriter.archive(entries)) }
        }
        expectFailure(.data, "no end of zip directory") { try opened([UInt8](repeating: 7, count: 100)) }
        refused(.init(name: "../a", data: [1]), words: "leads elsewhere")
        refused(.init(name: "/a", data: [1]), words: "leads elsewhere")
        refused(.init(name: "a/../../b", data: [1]), words: "leads elsewhere")
        refused(.init(name: "a\\b", data: [1]), words: "leads elsewhere")
        refused(.init(name: "a", data: [1], flags: 1), words: "encryption")
        refused(.init(name: "a", data: [1], method: 12), words: "method")
        refused(.init(name: "a", data: [1], statedSize: 2), words: "stored entry")
        refused(.init(name: "a", data: [1], statedSize: 200, statedStoredSize: 200), words: "size of the entry")
        refused(.init(name: "a", data: [1]), .init(name: "a", data: [1]), words: "one name")
        refused(.init(name: "a", data: [1]), .init(name: "b", data: [1], statedOffset: 0), words: "another entry")
        refused(.init(name: "a", data: [1], statedOffset: 1 << 20), words: "before the directory")
        refused(.init(name: "a\0b", data: [1]), words: "UTF-8")
        refused(.init(name: "a", data: [1], statedOffset: 12), words: "before the directory")
        // A bomb: little data that claims to give much.
        refused(.init(name: "a", data: [1, 2, 3], method: 8, statedSize: 5000), words: "deflated")
        refused(.init(name: "a", data: [1, 2, 3], method: 8, statedSize: 1 << 30), words: "deflated")
        let lie = try opened(ZipWriter.archive([.init(name: "a", data: [0xFF, 0xFF, 0xFF], method: 8, statedSize: 1000)]))
        expectFailure(.data, "malformed deflate") { try lie.bytes(of: lie.entries[0]) }
        // Less than was stated, and bytes behind the end.
        for (data, size) in [([0x63, 0x60, 0x04, 0x00], 3), ([0x63, 0x60, 0x04, 0x00, 0x00], 2)] as [([UInt8], UInt32)] {
            let lie = try opened(ZipWriter.archive([.init(name: "a", data: data, method: 8, statedSize: size)]))
            expectFailure(.data, "malformed deflate") { try lie.bytes(of: lie.entries[0], checkingSum: false) }
        }
    }

    /// The end record's fields: number of entries, size and place of the directory.
    @Test func directoriesBeyondTheFileAreRefused() {
        let sound = ZipWriter.archive([.init(name: "a", data: [1])])
        // How far before the end they lie.
        let fields: [(place: Int, number: [UInt8])] = [
            (14, littleEndian(UInt16(2)) + littleEndian(UInt16(2))), (10, littleEndian(UInt32(1 << 30))),
            (6, littleEndian(UInt32(1 << 30))),
        ]
        for (place, number) in fields {
            var file = sound
            file.replaceSubrange(file.count - place..<file.count - place + number.count, with: number)
            expectFailure(.data, "zip directory") { try opened(file) }
        }
    }

    @Test func largeArchivesAreReadAndRefusedAsOthers() throws {
        let entries = [ZipWriter.Entry(name: "a", data: [1, 2, 3]), .init(name: "b", data: [4])]
        let ends: [(UInt16, UInt32, UInt32)] = [(.max, .max, .max), (.max, 1, 1), (2, .max, 1), (2, 1, .max)]
        for end in ends {
            let archive = try opened(ZipWriter.zip64(entries) { $0.end = end })
            #expect(try archive.entries.map { try archive.bytes(of: $0, checkingSum: false) } == [[1, 2, 3], [4]])
        }
        func refused(_ words: String, _ alter: (inout ZipWriter.Zip64) -> Void) {
            expectFailure(.data, words) { try opened(ZipWriter.zip64(entries, alter: alter)) }
        }
        refused("zip64 locator") { $0.locator = 1 }
        refused("zip64 locator") { $0.disk = 1 }
        refused("zip64 end of directory") { $0.signature = 1 }
        refused("several parts") { $0.disks.0 = 1 }
        refused("several parts") { $0.disks.1 = 1 }
        refused("several parts") { $0.counts.0 = 1 }
        refused("zip directory") { $0.offset = 1 << 62 }
        refused("zip directory") { $0.size = 1 << 62 }
        refused("zip directory") { $0.counts = (1 << 40, 1 << 40) }
    }

    @Test func overlappingEntriesAreRefused() {
        // The second entry's header stands inside the first entry's data.
        let inner = ZipWriter.archive([.init(name: "b", data: [1, 2, 3, 4])])
        let outer = ZipWriter.Entry(name: "a", data: Array(inner.prefix(35)))
        expectFailure(.data, "overlap") {
            try opened(ZipWriter.archive([outer, .init(name: "b", data: [1, 2, 3, 4], statedOffset: 31)]))
        }
    }

    @Test func manyEntriesAreReadOnce() throws {
        let archive = try opened(
            ZipWriter.archive((0..<2000).map { .init(name: "entry \($0)", data: [UInt8(truncatingIfNeeded: $0)]) }))
        #expect(archive.entries.count == 2000)
        #expect(try archive["entry 1999"].map { try archive.bytes(of: $0, checkingSum: false) } == [207])
    }
}
