import Foundation
import Importers
import ModelGraph
import Support
import Tensors
import TestSupport
import Testing

@Suite struct SafetensorsReading {
    @Test func readsEveryDataType() throws {
        let folder = try TemporaryFolder()
        var header = "{\"__metadata__\":{\"heads\":\"4\"}"
        var data: [UInt8] = []
        for type in DataType.allCases {
            let end = data.count + 2 * type.byteWidth
            header +=
                ",\"\(type.rawValue)\":{\"dtype\":\"\(type.rawValue)\",\"shape\":[1,2],\"data_offsets\":[\(data.count),\(end)]}"
            data += (data.count..<end).map { UInt8(truncatingIfNeeded: $0) }
        }
        let path = try folder.write(safetensors(header + "}  ", data), "model.safetensors")
        let checkpoint = try Checkpoint.open(path: path)
        #expect(checkpoint.metadata == ["heads": "4"])
        #expect(checkpoint.tensors.map(\.name) == DataType.allCases.map(\.rawValue))
        var offset = 0
        for (name, constant) in checkpoint.tensors {
            #expect(constant.shape == [1, 2])
            let bytes = try constant.load().withBytes { Array($0) }
            // A Boolean is true where its byte is not 0.
            let stored = data[offset..<offset + bytes.count].map { constant.dataType == .bool ? min($0, 1) : $0 }
            #expect(bytes == stored, "\(name)")
            offset += bytes.count
        }
        #expect(offset == data.count)
    }

    struct Hostile: Sendable, CustomTestStringConvertible {
        let what: String
        let bytes: [UInt8]
        let words: [String]
        init(_ what: String, _ bytes: [UInt8], _ words: String...) { (self.what, self.bytes, self.words) = (what, bytes, words) }
        var testDescription: String { what }
    }

    private static func one(_ dtype: String = "F32", _ shape: String = "[1]", _ offsets: String = "[0,4]", data: Int = 4) -> [UInt8]
    {
        safetensors(
            "{\"a\":{\"dtype\":\"\(dtype)\",\"shape\":\(shape),\"data_offsets\":\(offsets)}}", [UInt8](repeating: 0, count: data))
    }

    private static func two(_ first: String, _ second: String, data: Int) -> [UInt8] {
        let entries = [("a", first), ("b", second)].map { "\"\($0)\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":\($1)}" }
        return safetensors("{\(entries.joined(separator: ","))}", [UInt8](repeating: 0, count: data))
    }

    static let hostile: [Hostile] = [
        Hostile("empty file", [], "8 or more"),
        Hostile("seven bytes", [1, 2, 3, 4, 5, 6, 7], "8 or more"),
        Hostile("header length 2^64-1", [UInt8](repeating: 0xFF, count: 16), "header length", "18446744073709551615"),
        Hostile("header beyond the file", littleEndian(UInt64(100)) + [0x7B], "header length", "100"),
        Hostile("empty header", littleEndian(UInt64(0)), "no JSON object"),
        Hostile("no object", safetensors("[1]"), "no JSON object"),
        Hostile("space before the object", safetensors(" {}"), "no JSON object"),
        Hostile("not UTF-8", littleEndian(UInt64(7)) + [0x7B, 0x22, 0xFF, 0x22, 0x3A, 0x31, 0x7D], "UTF-8"),
        Hostile("deep nesting", safetensors("{\"a\":" + String(repeating: "[", count: 100_000)), "levels"),
        Hostile("duplicate keys", safetensors("{\"a\":1,\"a\":1}"), "twice"),
        Hostile("metadata that is no text", safetensors("{\"__metadata__\":{\"a\":1}}"), "__metadata__", "a string"),
        Hostile("no tensor entry", safetensors("{\"a\":1}"), "\"a\"", "tensor entry"),
        Hostile(
            "unknown key", safetensors("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"x\":0}}", [0]),
            "tensor entry"),
        Hostile("unknown dtype", one("F8_E4M3"), "F8_E4M3", "BF16"),
        Hostile("negative offset", one("F32", "[1]", "[-4,0]"), "-4"),
        Hostile("fractional offset", one("F32", "[1]", "[0,4.5]"), "4.5"),
        Hostile("huge offset", one("F32", "[1]", "[0,99999999999999999999]"), "sizes"),
        Hostile("offset beyond the file", one("F32", "[1]", "[0,8]"), "data_offsets"),
        Hostile("reversed offsets", one("F32", "[1]", "[4,0]"), "data_offsets"),
        Hostile("negative dimension", one("F32", "[-1]"), "-1"),
        Hostile("wrong size", one("F32", "[2]"), "4 bytes", "8"),
        Hostile("shape product overflow", one("F32", "[4294967296,4294967296,4294967296]"), "overflow"),
        Hostile("byte count overflow", one("F64", "[2305843009213693951]"), "overflow"),
        Hostile("a shape without end", one("F32", "[" + String(repeating: "1,", count: 40) + "1]"), "at most 32"),
        Hostile("overlap", two("[0,4]", "[2,6]", data: 6), "overlap"),
        Hostile("hole", two("[0,4]", "[6,10]", data: 10), "hole"),
        Hostile("trailing bytes", one(data: 5), "behind the last"),
        Hostile("text behind the header's object", safetensors("{} x"), "the end"),
    ]

    @Test(arguments: hostile) func refuses(_ file: Hostile) throws {
        let folder = try TemporaryFolder()
        let path = try folder.write(file.bytes, "hostile.safetensors")
        do {
            _ = try Checkpoint.open(path: path)
            Issue.record("was accepted")
        } catch let error as TripsError {
            #expect(error.kind == .data)
            #expect(error.description.contains("hostile.safetensors"), "\(error)")
            for word in file.words { #expect(error.description.contains(word), "\(error)") }
        }
    }

    /// As golden sets and shards that PyTorch wrote.
    @Test func whatIsTakenForSafetensorsIsNamed() throws {
        let folder = try TemporaryFolder()
        let zip = try folder.write([0x50, 0x4B, 3, 4, 20, 0, 0, 0, 0, 0, 0x21], "golden.pt")
        expectFailure(.data, "golden.pt: no safetensors file", "found a zip archive", "torch.save") {
            try SafetensorsFile(path: zip)
        }
        let pickle = try folder.write([0x80, 2, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9], "shard.bin")
        expectFailure(.data, "shard.bin: no safetensors file", "found a pickle") { try SafetensorsFile(path: pickle) }
    }

    @Test func everyTruncationIsRefused() throws {
        let folder = try TemporaryFolder()
        let whole = SafetensorsReading.one()
        for count in 0..<whole.count {
            let path = try folder.write(Array(whole.prefix(count)), "cut.safetensors")
            expectFailure { try Checkpoint.open(path: path) }
        }
    }

    @Test func foldersAndPipesAreNotOpened() throws {
        let folder = try TemporaryFolder()
        let pipe = folder["pipe.safetensors"]
        #expect(mkfifo(pipe, 0o600) == 0)
        expectFailure(.cannotOpen) { try Checkpoint.open(path: pipe) }
        expectFailure(.cannotOpen) { try Checkpoint.open(path: folder.path) }
        expectFailure(.cannotOpen) { try Checkpoint.open(path: folder["absent"]) }
    }
}

@Suite struct ShardedSafetensors {
    private func tensor(_ name: String, _ byte: UInt8) -> [UInt8] {
        safetensors("{\"\(name)\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", [byte])
    }

    private func open(_ folder: TemporaryFolder, _ map: String) throws -> Checkpoint {
        try Checkpoint.open(
            path: folder.write(
                Array("{\"metadata\":{\"total_size\":2},\"weight_map\":{\(map)}}".utf8), "model.safetensors.index.json"))
    }

    @Test func readsAllShards() throws {
        let folder = try TemporaryFolder()
        try folder.write(tensor("a", 7), "1.safetensors")
        try folder.write(tensor("b", 9), "2.safetensors")
        let checkpoint = try open(folder, "\"b\":\"2.safetensors\",\"a\":\"1.safetensors\"")
        #expect(checkpoint.format == .shardedSafetensors)
        let numbers = try Dictionary(
            uniqueKeysWithValues: checkpoint.tensors.map { ($0.name, try $0.constant.load().elements(UInt8.self)) })
        #expect(numbers == ["a": [7], "b": [9]])
    }

    /// As Hugging Face's models came before safetensors.
    @Test func readsShardsOfPyTorch() throws {
        let folder = try TemporaryFolder()
        func shard(_ name: String, _ byte: UInt8, beside: Bool = false) throws {
            let state = Pickle.dictionary((name, Pickle.tensor(Pickle.storage("ByteStorage", key: "0", count: 2), [1], [1])))
            let moment = Pickle.tensor(Pickle.storage("ByteStorage", key: "0", count: 2), offset: 1, [1], [1])
            let pickle = beside ? Pickle.dictionary(("model", state), ("moment", moment)) : state
            try folder.write(
                ZipWriter.archive([
                    .init(name: "a/data.pkl", data: Pickle.whole(pickle)), .init(name: "a/data/0", data: [byte, 0]),
                ]),
                "\(name).bin")
        }
        try shard("a", 7)
        try shard("b", 9, beside: true)
        let map = { (names: [String]) in
            try folder.write(
                Array("{\"weight_map\":{\(names.map { "\"\($0)\":\"\($0).bin\"" }.joined(separator: ","))}}".utf8),
                "pytorch_model.bin.index.json")
        }
        let checkpoint = try Checkpoint.open(path: map(["a", "b"]))
        #expect(checkpoint.format == .shardedTorch)
        #expect(checkpoint.shards.map { ($0 as NSString).lastPathComponent } == ["a.bin", "b.bin"])
        #expect(checkpoint.others == [SkippedTensors(reason: "beside the model: moment", count: 1, bytes: 1)])
        #expect(try checkpoint.tensors.map { try $0.constant.load().elements(UInt8.self) } == [[7], [9]])
        try folder.write(Array("<html>".utf8), "c.bin")
        expectFailure(.data, "c.bin", "no PyTorch checkpoint") { try Checkpoint.open(path: map(["a", "c"])) }
        // An index is no shard.
        try folder.write(Array(Data(contentsOf: URL(fileURLWithPath: map(["a"])))), "d.bin")
        expectFailure(.data, "d.bin", "no PyTorch checkpoint") { try Checkpoint.open(path: map(["d"])) }
    }

    @Test(arguments: ["../1.safetensors", "/etc/passwd", "sub/1.safetensors", "..", ".", "", "a\\\\b", "a\\u0000b"])
    func namesThatLeadElsewhereAreRefused(_ name: String) throws {
        let folder = try TemporaryFolder()
        expectFailure(.data, "leads elsewhere") { try open(folder, "\"a\":\"\(name)\"") }
    }

    @Test func linksThatLeaveTheFolderAreRefused() throws {
        let outside = try TemporaryFolder(), folder = try TemporaryFolder()
        let target = try outside.write(tensor("a", 1), "1.safetensors")
        try FileManager.default.createSymbolicLink(atPath: folder["1.safetensors"], withDestinationPath: target)
        expectFailure(.data, "leaves the folder") { try open(folder, "\"a\":\"1.safetensors\"") }
    }

    @Test func indexAndShardsMustAgree() throws {
        let folder = try TemporaryFolder()
        try folder.write(tensor("a", 1), "1.safetensors")
        expectFailure(.data, "does not place here", "\"a\"") { try open(folder, "\"b\":\"1.safetensors\"") }
        expectFailure(.data, "not in its shard", "\"b\"") { try open(folder, "\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"") }
        expectFailure(.cannotOpen) { try open(folder, "\"a\":\"2.safetensors\"") }
        expectFailure(.data, "a file name") { try open(folder, "\"a\":1") }
    }
}
