import Foundation
import ModelGraph
import PackageFormat
import Support
import Tensors
import TestSupport
import Testing

/// A package put together by hand, each part with a right checksum, so that any one of them can be wrong in itself.
struct Forgery {
    var manifest = Forgery.manifest()
    /// What stands in the manifest's frame instead.
    var manifestBytes: [UInt8]?
    /// What stands in the place of that frame.
    var manifestFrame: [UInt8]?
    var manifestSize: Int?
    var chunks: [[UInt8]] = []
    var statedSizes: [Int]?
    var indexOffset: Int?
    var fileSize: Int?
    var isPlain = false
    /// Numbers of a mapped tensor, which comes last.
    var mapped: [UInt8]?
    /// Alters what stands before them.
    var alterHead: (inout [UInt8]) -> Void = { _ in }

    /// Four floats in one tensor, in one chunk.
    static func sound() throws -> Forgery {
        var forgery = Forgery()
        forgery.manifest = manifest(tensors: tensor())
        forgery.chunks = [try chunk(16)]
        return forgery
    }

    static func chunk(_ size: Int) throws -> [UInt8] {
        try [UInt8](repeating: 7, count: size).withUnsafeBytes { try ChunkEncoder().encode($0, .asIs, level: 3) }
    }

    static func tensor(_ name: String = "a", dataType: String = "F32", storedType: String = "F32", shape: String = "[4]") -> String
    {
        #"{"name":"\#(name)","dataType":"\#(dataType)","storedType":"\#(storedType)","shape":\#(shape)}"#
    }

    static func manifest(
        version: Int = 1, features: String = #"["byte-planes"]"#, tensors: String = "", graphs: String = "", more: String = ""
    ) -> String {
        #"{"formatVersion":\#(version),"features":\#(features),"tool":{"name":"t","version":"1"},"libzstd":"1","options":{},"#
            + #""settings":[],"selections":[],"leftOut":[],"graphs":[\#(graphs)],"tensors":[\#(tensors)]\#(more)}"#
    }

    func bytes() throws -> [UInt8] {
        let json = manifestBytes ?? Array(manifest.utf8)
        let frame = try manifestFrame ?? ChunkEncoder().encode(json, level: 3)
        var file = try Header(
            isPlain: isPlain, manifestFrameSize: frame.count, manifestSize: manifestSize ?? json.count,
            manifestChecksum: crc32(frame)
        ).bytes()
        file += frame
        var index = ChunkIndex()
        for (number, chunk) in chunks.enumerated() {
            file += chunk
            try index.append(size: statedSizes?[number] ?? chunk.count, checksum: crc32(chunk))
        }
        if let mapped {
            let padding = 63 - (file.count + 7) % 64, size = padding + mapped.count
            var frame: [UInt8] = [0x54, 0x2A, 0x4D, 0x18] + (0..<4).map { UInt8(truncatingIfNeeded: size >> (8 * $0)) }
            frame += [UInt8](repeating: 0, count: padding)
            alterHead(&frame)
            frame += mapped
            file += frame
            try index.append(size: frame.count, checksum: crc32(frame))
        }
        let offset = file.count
        file += try index.bytes()
        return file + (try Footer(indexOffset: indexOffset ?? offset, fileSize: fileSize ?? file.count + Footer.size).bytes())
    }

    /// Opens the package, builds its graphs, loads its tensors.
    func read() throws { try Forgery.read(bytes()) }

    static func read(_ bytes: [UInt8]) throws {
        try load(bytes)
        try open(bytes) { try $0.verify() }
    }

    static func load(_ bytes: [UInt8]) throws {
        try open(bytes) { reader in
            _ = try reader.graphs()
            for tensor in reader.tensors { _ = try reader.constant(named: tensor.name).load() }
        }
    }

    static func open(_ bytes: [UInt8], _ body: (PackageReader) throws -> Void) throws {
        let folder = try TemporaryFolder()
        try folder.write(bytes, "a.trips")
        try body(PackageReader(path: folder["a.trips"]))
    }
}

/// Gives a frame of `size` bytes at `offset` a right checksum again.
private func reseal(_ bytes: inout [UInt8], at offset: Int, size: Int) {
    let checksum = crc32(bytes[offset..<offset + size - 4])
    for byte in 0..<4 { bytes[offset + size - 4 + byte] = UInt8(truncatingIfNeeded: checksum >> (8 * UInt32(byte))) }
}

/// Expects an error about the data that mentions `text`.
private func refuses(_ text: String = "", at location: SourceLocation = #_sourceLocation, _ body: () throws -> Void) {
    let error = #expect(throws: TripsError.self, sourceLocation: location) { try body() }
    guard let error else { return }
    #expect(error.kind == .data, sourceLocation: location)
    #expect(text.isEmpty || error.description.contains(text), "\(error)", sourceLocation: location)
}

@Suite struct HostileTests {
    @Test func theForgerIsSound() throws { try Forgery.sound().read() }

    /// Loading trusts the package's own checksums; verification looks at zstd's as well.
    @Test func verificationChecksFramesTwice() throws {
        var forgery = try Forgery.sound()
        forgery.chunks[0][forgery.chunks[0].count - 1] ^= 1
        let bytes = try forgery.bytes()
        try Forgery.load(bytes)
        refuses("checksum") { try Forgery.open(bytes) { try $0.verify() } }
    }

    @Test func headerIsChecked() throws {
        let sound = try Forgery.sound().bytes()
        func changed(_ offset: Int, to value: UInt8) -> [UInt8] {
            var bytes = sound
            bytes[offset] = value
            reseal(&bytes, at: 0, size: Header.size)
            return bytes
        }
        refuses("TRIPSPKG") { try Forgery.read(changed(0, to: 0)) }
        refuses("TRIPSPKG") { try Forgery.read(changed(8, to: 0)) }
        refuses("not a .trips package") { try Forgery.read(Array(repeating: 0x50, count: 1000)) }
        refuses("frame size") { try Forgery.read(changed(4, to: 33)) }
        refuses("format version; found 2") { try Forgery.read(changed(16, to: 2)) }
        refuses("reserved flags") { try Forgery.read(changed(18, to: 2)) }
        refuses("reserved flags") { try Forgery.read(changed(19, to: 0x80)) }
        refuses("reserved bytes") { try Forgery.read(changed(32, to: 1)) }
        refuses("size of the manifest") { try Forgery.read(changed(27, to: 0xFF)) }
        refuses("header: wrong checksum") {
            var bytes = sound; bytes[20] ^= 1; try Forgery.read(bytes)
        }
    }

    @Test func footerAndIndexAreChecked() throws {
        let sound = try Forgery.sound()
        let bytes = try sound.bytes()
        let indexOffset = bytes.count - Footer.size - ChunkIndex.overhead - 8
        for offset in [0, Header.size, indexOffset - 1, indexOffset + 1, bytes.count, Int.max] {
            var forgery = sound
            forgery.indexOffset = offset
            refuses { try forgery.read() }
        }
        var forgery = sound
        for offset in [Header.size, bytes.count] {
            forgery.indexOffset = offset
            refuses("index offset") { try forgery.read() }
        }
        forgery = sound
        forgery.fileSize = bytes.count + 1
        refuses("file size") { try forgery.read() }
        var reserved = bytes
        reserved[bytes.count - 8] = 1
        reseal(&reserved, at: bytes.count - Footer.size, size: Footer.size)
        refuses("reserved bytes") { try Forgery.read(reserved) }
        reserved = bytes
        reserved[indexOffset + 20] = 1
        reseal(&reserved, at: indexOffset, size: ChunkIndex.overhead + 8)
        refuses("reserved bytes") { try Forgery.read(reserved) }
        var counted = bytes
        counted[indexOffset + 16] = 2
        reseal(&counted, at: indexOffset, size: ChunkIndex.overhead + 8)
        refuses("number of chunks") { try Forgery.read(counted) }
        refuses("too short") { try Forgery.read([]) }
        refuses("file size") { try Forgery.read(bytes + bytes) }
    }

    @Test func chunksAreChecked() throws {
        var forgery = try Forgery.sound()
        forgery.statedSizes = [forgery.chunks[0].count + 1]
        refuses("do not fill") { try forgery.read() }
        forgery.statedSizes = [1 << 21]
        refuses("do not fill") { try forgery.read() }
        forgery = try Forgery.sound()
        forgery.chunks.append(try Forgery.chunk(16))
        refuses("more chunks") { try forgery.read() }
        forgery.chunks = []
        refuses("fewer chunks") { try forgery.read() }
        for size in [0, 15, 17, 4096] {
            forgery.chunks = [try Forgery.chunk(size)]
            refuses { try forgery.read() }
        }
        forgery.chunks = [[]]
        refuses("size after decompression; found 0") { try forgery.read() }
        forgery.chunks = [[UInt8](repeating: 0, count: 40)]
        refuses("zstd") { try forgery.read() }
        forgery.chunks = [[UInt8](repeating: 0, count: Layout.maximalFrameSize + 1)]
        refuses("size of chunk 0") { try forgery.read() }
    }

    /// zstd would skip what hides in the file, and prove nothing of frames without checksum.
    @Test func framesAreChecked() throws {
        let skippable: [UInt8] = [0x50, 0x2A, 0x4D, 0x18, 2, 0, 0, 0, 7, 7]
        func read(chunk: [UInt8]) throws {
            var forgery = try Forgery.sound()
            forgery.chunks = [chunk]
            try forgery.read()
        }
        let content = [0x81, 0, 0] + [UInt8](repeating: 7, count: 16)
        let checksum = try Forgery.chunk(16).suffix(4)
        let magic: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD]
        try read(chunk: magic + [0x24, 16] + content + checksum)
        try read(chunk: Forgery.chunk(8) + Forgery.chunk(0) + Forgery.chunk(8))
        refuses("no checksum") { try read(chunk: magic + [0x20, 16] + content) }
        refuses("no size") { try read(chunk: magic + [0x04, 0] + content + checksum) }
        refuses("a dictionary") { try read(chunk: magic + [0x25, 5, 16] + content + checksum) }
        refuses("frame 1; found a skippable one") { try read(chunk: Forgery.chunk(16) + skippable) }
        refuses("frame 0; found a skippable one") { try read(chunk: skippable + Forgery.chunk(16)) }
        refuses("cut off") { try read(chunk: Forgery.chunk(16) + magic) }
        refuses("zstd") { try read(chunk: Forgery.chunk(16) + [0, 0, 0, 0, 0]) }

        var forgery = try Forgery.sound()
        let (json, encoder) = (Array(forgery.manifest.utf8), try ChunkEncoder())
        forgery.manifestFrame = try encoder.encode(Array(json[..<50]), level: 3) + encoder.encode(Array(json[50...]), level: 3)
        refuses("frames of the manifest; found 2") { try forgery.read() }
        forgery.manifestFrame = try encoder.encode(json, level: 3) + skippable
        refuses("frame 1; found a skippable one") { try forgery.read() }
    }

    @Test func booleansAreChecked() throws {
        var forgery = try Forgery.sound()
        forgery.manifest = Forgery.manifest(tensors: Forgery.tensor(dataType: "BOOL", storedType: "BOOL", shape: "[16]"))
        let bytes = try forgery.bytes()
        refuses("a boolean; found 7; expected 0 or 1") { try Forgery.load(bytes) }
        refuses("a boolean; found 7; expected 0 or 1") { try Forgery.open(bytes) { try $0.verify() } }
    }

    @Test func vocabulariesAreChecked() throws {
        func read(type: String = "U8", shape: String = "[16]", verifying: Bool = true) throws {
            var forgery = try Forgery.sound()
            let tensor = Forgery.tensor(dataType: type, storedType: type, shape: shape)
            forgery.manifest = Forgery.manifest(tensors: tensor, more: #","vocabulary":"a""#)
            if !verifying {
                forgery.chunks = [
                    try [UInt8](repeating: 0xFF, count: 16).withUnsafeBytes { try ChunkEncoder().encode($0, .asIs, level: 3) }
                ]
            }
            try forgery.read()
        }
        try read()
        refuses("type of the vocabulary") { try read(type: "I8") }
        refuses("type of the vocabulary") { try read(shape: "[4,4]") }
        refuses("malformed text; expected UTF-8") { try read(verifying: false) }
    }

    @Test func bombsAreRefused() throws {
        var forgery = try Forgery.sound()
        forgery.manifest = Forgery.manifest(tensors: Forgery.tensor(shape: "[1099511627776]"))
        refuses("fewer chunks") { try forgery.read() }
        forgery.manifest = Forgery.manifest(tensors: Forgery.tensor(shape: "[131072]"))
        forgery.chunks = [[1, 2, 3]]
        refuses("size of chunk 0") { try forgery.read() }
        forgery = try Forgery.sound()
        forgery.manifest += String(repeating: " ", count: 1 << 20)
        refuses("size of the manifest") { try forgery.read() }
        forgery.manifest += String(repeating: " ", count: 1 << 24)
        refuses("size of the manifest") { try forgery.read() }
        forgery = try Forgery.sound()
        forgery.manifestSize = forgery.manifest.utf8.count + 1
        refuses("size after decompression") { try forgery.read() }
        forgery.manifestSize = forgery.manifest.utf8.count - 1
        refuses("zstd") { try forgery.read() }
    }

    @Test func manifestIsChecked() throws {
        func refused(_ text: String, _ manifest: String, at location: SourceLocation = #_sourceLocation) {
            refuses(text, at: location) {
                var forgery = try Forgery.sound()
                forgery.manifest = manifest
                try forgery.read()
            }
        }
        let tensor = Forgery.tensor()
        refused("malformed JSON", "{")
        refused("malformed", "[]")
        refused("malformed JSON", String(repeating: "[", count: 5000))
        refused("\"tool\" is missing", #"{"formatVersion":1,"features":[]}"#)
        refused("twice", Forgery.manifest(tensors: tensor, more: #","tensors":[]"#))
        refused("malformed JSON", Forgery.manifest(tensors: tensor) + "x")
        refused("malformed JSON", Forgery.manifest(tensors: tensor, more: ",\"x\":\"\u{0}\""))
        refused("version or features", Forgery.manifest(version: 2, tensors: tensor))
        refused("version or features", Forgery.manifest(features: "[]", tensors: tensor))
        refused("does not know; found time-travel", Forgery.manifest(features: #"["byte-planes","time-travel"]"#, tensors: tensor))
        let selection =
            #"{"block":1,"keepRate":0.5,"guidance":"stars","fusion":"none","order":"score","tokensBefore":"4","tokensAfter":"2"}"#
        refused(
            #"selections.0.guidance: unknown choice; found "stars"; expected text, image-cls, random"#,
            Forgery.manifest(tensors: tensor).replacing(#""selections":[]"#, with: #""selections":[\#(selection)]"#))
        refused(
            #"quantization.scheme: unknown choice; found "int3"; expected int8, bf16, f16"#,
            Forgery.manifest(tensors: tensor, more: #","quantization":{"scheme":"int3","summary":"","layers":[]}"#))
        refused("two tensors have one name", Forgery.manifest(tensors: tensor + "," + tensor))
        refused("length of a name", Forgery.manifest(tensors: Forgery.tensor("")))
        refused("length of a name", Forgery.manifest(tensors: Forgery.tensor(String(repeating: "n", count: 1025))))
        refused("negative dimension", Forgery.manifest(tensors: Forgery.tensor(shape: "[-4]")))
        refused("overflows", Forgery.manifest(tensors: Forgery.tensor(shape: "[4611686018427387904,4]")))
        refused("overflows", Forgery.manifest(tensors: Forgery.tensor(shape: "[4611686018427387904]")))
        refused("malformed", Forgery.manifest(tensors: Forgery.tensor(shape: "[1.5]")))
        refused("malformed", Forgery.manifest(tensors: Forgery.tensor(shape: "[1e30]")))
        refused("malformed", Forgery.manifest(tensors: Forgery.tensor(shape: "4")))
        refused(
            "rank; found 17",
            Forgery.manifest(tensors: Forgery.tensor(shape: "[" + Array(repeating: "1", count: 17).joined(separator: ",") + "]")))
        refused(
            #"dataType: unknown choice; found "F33"; expected F64, F32"#, Forgery.manifest(tensors: Forgery.tensor(dataType: "F33"))
        )
        refused("stored type", Forgery.manifest(tensors: Forgery.tensor(dataType: "F16", storedType: "F32")))
        refused("stored type", Forgery.manifest(tensors: Forgery.tensor(dataType: "F32", storedType: "I8")))
        for (beam, shortest, length, targets, words) in [
            (0, 1, 9, 2, "beam; found 0; expected 1 to 32"), (-1, 1, 9, 2, "beam; found -1; expected 1 to 32"),
            (33, 1, 9, 2, "beam; found 33; expected 1 to 32"), (1, 1, 0, 2, "maximalLength; found 0; expected 1 to 65536"),
            (1, 1, 9, 1, "targetCount; found 1; expected 2 to 65536"),
            (1, -1, 9, 2, "minimalLength; found -1; expected 0 to 65536"),
        ] {
            let generation =
                #","generation":{"method":"beam","startID":1,"endID":2,"beam":\#(beam),"minimalLength":\#(shortest),"#
                + #""maximalLength":\#(length),"alpha":0.6,"firstTargetID":1,"targetCount":\#(targets)}"#
            refused("generation: \(words)", Forgery.manifest(tensors: tensor, more: generation))
        }
        for (size, mean, deviation, words) in [
            (0, "[0,0,0]", "[1,1,1]", "imageSize; found 0; expected 1 to 10000"),
            (10001, "[0,0,0]", "[1,1,1]", "imageSize; found 10001; expected 1 to 10000"),
            (8, "[0,0]", "[1,1,1]", "mean and deviation"), (8, "[0,0,0]", "[1,1,1,1]", "mean and deviation"),
            (8, "[0,0,0]", "[1,0,1]", "mean and deviation"), (8, #"[0,0,"inf"]"#, "[1,1,1]", "mean and deviation"),
        ] {
            let preprocessing =
                #","preprocessing":{"imageSize":\#(size),"mean":\#(mean),"deviation":\#(deviation),"resampling":"bicubic"}"#
            refused("preprocessing: \(words)", Forgery.manifest(tensors: tensor, more: preprocessing))
        }
        refused("vocabulary", Forgery.manifest(tensors: tensor, more: #","vocabulary":"b""#))
        let images = #","preprocessing":{"imageSize":4,"mean":[0,0,0],"deviation":[1,1,1],"resampling":"nearest"}"#
        refused(
            "preprocessing.resampling: unknown choice; found \"nearest\"; expected bilinear, bicubic",
            Forgery.manifest(tensors: tensor, more: images))
    }

    @Test func graphsAreChecked() throws {
        func refused(
            _ text: String, inputs: String = "", constants: String = "", nodes: String = "", outputs: String = "",
            at location: SourceLocation = #_sourceLocation
        ) {
            refuses(text, at: location) {
                var forgery = try Forgery.sound()
                let graph =
                    #"{"name":"main","inputs":[\#(inputs)],"constants":[\#(constants)],"nodes":[\#(nodes)],"outputs":[\#(outputs)],"traces":[]}"#
                forgery.manifest = Forgery.manifest(tensors: Forgery.tensor(), graphs: graph)
                try forgery.read()
            }
        }
        func known(_ tensor: String, _ shape: String = #"["4"]"#) -> String {
            #"{"name":"c","type":{"dataType":"F32","shape":\#(shape)},"tensor":"\#(tensor)"}"#
        }
        refused("no such tensor", constants: known("b"))
        refused("type of tensor a", constants: known("a", #"["5"]"#))
        refused(
            "unknown operator; found Explode",
            nodes: #"{"name":"n","op":{"name":"Explode","attributes":{}},"inputs":[],"outputs":["y"]}"#)
        refused(
            "graphs.0.nodes.0.op.attributes: unknown attribute; found \"axes\"",
            nodes: #"{"name":"n","op":{"name":"Softmax","attributes":{"axis":0,"axes":[0]}},"inputs":[],"outputs":["y"]}"#)
        refused(
            #"graphs.0.nodes.0.op.attributes.kind: unknown choice; found "median"; expected average, max"#,
            nodes: #"{"name":"n","op":{"name":"GlobalPool","attributes":{"kind":"median"}},"inputs":[],"outputs":["y"]}"#)
        refused(
            "graphs.0.inputs.0.type.shape.1: not a dimension", inputs: #"{"name":"x","type":{"dataType":"F32","shape":[1,"n+"]}}"#)
        refused("read before it is defined", outputs: #"{"name":"y","value":"nowhere"}"#)
    }

    @Test func namesOfGraphsOutputsAndTracesAreTheirOwnAndFew() throws {
        func graph(_ outputs: [String], _ traces: [String] = [], name: String = "main", input: String = "x") -> String {
            func list(_ names: [String]) -> String {
                names.map { #"{"name":"\#($0)","value":"\#(input)"}"# }.joined(separator: ",")
            }
            return #"{"name":"\#(name)","inputs":[{"name":"\#(input)","type":{"dataType":"F32","shape":[1]}}],"#
                + #""constants":[],"nodes":[],"#
                + #""outputs":[\#(list(outputs))],"traces":[\#(list(traces))]}"#
        }
        func read(_ graphs: String...) throws {
            var forgery = Forgery()
            forgery.manifest = Forgery.manifest(graphs: graphs.joined(separator: ","))
            try forgery.read()
        }
        let many = (0...10_000).map { String($0) }
        try read(graph(["y"], ["vision.0", "vision.1"]))
        refuses("two graphs have one name") { try read(graph(["y"]), graph(["z"])) }
        let repeated = "two outputs or traces have one name"
        refuses(repeated) { try read(graph(["y", "y"])) }
        refuses(repeated) { try read(graph(["y"], ["vision.0", "vision.0"])) }
        refuses(repeated) { try read(graph(["y"], ["y"])) }
        refuses(repeated) { try read(graph(["y"], name: "a"), graph(["y"])) }
        refuses(repeated) { try read(graph(["y"], ["vision.0"], name: "a"), graph(["z"], ["vision.0"])) }
        refuses(repeated) { try read(graph(["y"], name: "a"), graph(["z"], ["y"])) }
        try read(graph(["y"], name: "encode"), graph(["z"], name: "decode", input: "y"))
        refuses(#"graph "encode": a graph before this one reads its output; found y"#) {
            try read(graph(["z"], name: "decode", input: "y"), graph(["y"], name: "encode"))
        }
        refuses("number of outputs") { try read(graph(many)) }
        refuses("number of traces") { try read(graph(["y"], many)) }
    }

    @Test func plainPackagesAreChecked() throws {
        func read(length: Int? = nil, json: String) throws {
            var forgery = try Forgery.sound()
            forgery.isPlain = true
            let stated = length ?? json.utf8.count
            forgery.manifestBytes = (0..<8).map { UInt8(truncatingIfNeeded: stated >> (8 * $0)) } + Array(json.utf8)
            try forgery.read()
        }
        func read(_ entries: String..., tensors: String = Forgery.tensor()) throws {
            let manifest = Forgery.manifest(features: "[]", tensors: tensors)
            let quoted = String(decoding: try JSONEncoder().encode(manifest), as: UTF8.self)
            try read(json: "{" + ([#""__metadata__":{"trips":\#(quoted)}"#] + entries).joined(separator: ",") + "}")
        }
        let tensor = #""a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#
        try read(tensor)
        refuses("length of the safetensors header") { try read(length: 3, json: "{}") }
        refuses("length of the safetensors header") { try read(length: -1, json: "{}") }
        refuses("holds no manifest") { try read(json: "{\(tensor)}") }
        refuses("other tensors") { try read() }
        refuses("other tensors") { try read(tensor, tensor.replacingOccurrences(of: "\"a\"", with: "\"b\"")) }
        refuses("unlike the manifest") { try read(tensor.replacingOccurrences(of: "\"a\"", with: "\"b\"")) }
        refuses("unlike the manifest") { try read(tensor.replacingOccurrences(of: "[0,16]", with: "[16,32]")) }
        refuses("unlike the manifest") { try read(tensor.replacingOccurrences(of: "[4]", with: "[2,2]")) }
        refuses("unlike the manifest") { try read(tensor.replacingOccurrences(of: "F32", with: "I32")) }
        refuses("malformed JSON") { try read(tensor, tensor) }
        let vast = ["a", "b"].map { Forgery.tensor($0, dataType: "U8", storedType: "U8", shape: "[6000000000000000000]") }
        refuses("overflow") {
            try read(tensor, tensor.replacingOccurrences(of: "\"a\"", with: "\"b\""), tensors: vast.joined(separator: ","))
        }
    }

    @Test(arguments: [false, true]) func everyTruncationIsRefused(mapped: Bool) throws {
        let bytes = try sample(.init(mapped: mapped))
        for count in bytes.indices { refuses { try Forgery.read(Array(bytes[..<count])) } }
    }

    /// Changes each byte of a small package in three ways: loading finds them all, and so does checking the file.
    @Test(arguments: [PackageWriter.Options(), .init(plain: true), .init(mapped: true)])
    func everyChangedByteIsFound(options: PackageWriter.Options) throws {
        let sound = try sample(options)
        try Forgery.read(sound)
        for index in sound.indices {
            for change: UInt8 in [1, 0x80, 0xFF] {
                var bytes = sound
                bytes[index] ^= change
                refuses { try Forgery.load(bytes) }
                refuses { try Forgery.open(bytes) { try $0.verify() } }
            }
        }
    }

    @Test func onlyRegularFilesAreOpened() throws {
        let folder = try TemporaryFolder()
        mkfifo(folder["pipe"], 0o600)
        for path in [folder.path, folder["pipe"], folder["absent"], "/dev/zero"] {
            let error = #expect(throws: TripsError.self) { try PackageReader(path: path) }
            #expect(error?.kind == .cannotOpen)
        }
    }

    private func sample(_ options: PackageWriter.Options) throws -> [UInt8] {
        let folder = try TemporaryFolder()
        let tensors = [
            (name: "floats", constant: Samples.constant(try Samples.weights([40]), "floats")),
            (name: "flags", constant: Samples.constant(try Samples.noise(.bool, [5]), "flags")),
        ]
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [1, 3]))
        let weight = try graph.addConstant(Samples.constant(Samples.weights([2, 3]), "weight"), name: "weight")
        try graph.addOutput("y", graph.add(Linear(), [x, weight], name: "y")[0])
        try PackageWriter.write(
            graphs: options.mapped ? [graph] : [], extraTensors: tensors, manifest: Manifest(tool: .init(name: "t", version: "1")),
            to: folder["a.trips"], options: options)
        return try bytes(of: folder["a.trips"])
    }

    /// Mapped tensors: order, type, groups, scales, and the frame that holds them.
    @Test func mappedTensorsAreChecked() throws {
        /// A weight [2, 8] in panels of float32, and of int8 in two groups, with the tensor of its scales.
        let floats = [UInt8](repeating: 0, count: 8 * 32 * 4)
        let scales = try Samples.noise(.float32, [2, 2])
        func record(_ type: String, _ shape: String, _ mapped: String) -> String {
            Forgery.tensor("w", dataType: type, storedType: type, shape: shape).dropLast() + #","mapped":\#(mapped)}"#
        }
        func read(
            _ record: String, _ numbers: [UInt8], features: String = #"["byte-planes","mapped"]"#, scalesShape: String? = nil,
            alterHead: @escaping (inout [UInt8]) -> Void = { _ in }
        ) throws {
            var forgery = Forgery()
            let other = scalesShape.map { Forgery.tensor("s", shape: $0) + "," } ?? ""
            forgery.manifest = Forgery.manifest(features: features, tensors: other + record)
            if scalesShape != nil {
                let arrangement = Arrangement(.float32, features: ["byte-planes"])
                forgery.chunks = [try scales.withBytes { try ChunkEncoder().encode($0, arrangement, level: 3) }]
            }
            forgery.mapped = numbers
            forgery.alterHead = alterHead
            try forgery.read()
        }
        let panels = #"{"order":"panels"}"#
        try read(record("F32", "[2,8]", panels), floats)
        try read(record("F32", "[4]", #"{"order":"rows"}"#), [UInt8](repeating: 7, count: 16))
        refuses("the feature mapped") { try read(record("F32", "[2,8]", panels), floats, features: #"["byte-planes"]"#) }
        refuses(#"order: unknown choice; found "columns"; expected rows, panels"#) {
            try read(record("F32", "[2,8]", #"{"order":"columns"}"#), floats)
        }
        refuses("a matrix") { try read(record("F32", "[16]", panels), floats) }
        refuses("a matrix") { try read(record("F32", "[2,0]", panels), []) }
        refuses("panels") { try read(record("F32", "[2,8]", #"{"order":"panels","group":4}"#), floats) }
        refuses("panels") { try read(record("I64", "[2,8]", panels), floats) }
        refuses("type of a mapped tensor") {
            try read(record("BOOL", "[16]", #"{"order":"rows"}"#), [UInt8](repeating: 1, count: 16))
        }
        refuses("size of chunk 0") { try read(record("F32", "[2,8]", panels), floats + [0]) }
        refuses("size of chunk 0") { try read(record("F32", "[33,8]", panels), floats) }
        refuses("less than 4 GiB") { try read(record("F32", "[70000,70000]", panels), floats) }
        refuses("overflow") { try read(record("F32", "[4611686018427387904,3]", panels), floats) }
        refuses("before the numbers") { try read(record("F32", "[2,8]", panels), floats) { $0[0] ^= 1 } }
        refuses("before the numbers") { try read(record("F32", "[2,8]", panels), floats) { $0[$0.count - 1] = 1 } }
        var filled = floats
        filled[filled.count - 4] = 1
        refuses("panels unlike their numbers") { try read(record("F32", "[2,8]", panels), filled) }

        let weight = Constant(try Samples.noise(.int8, [2, 8]), identity: "w")
        let layout = PanelLayout.int8(group: 4)
        let memory = try MemoryPart(byteCount: layout.byteCount(outputs: 2, inputs: 8))
        try layout.pack(weight, scales: Constant(scales, identity: "s"), into: memory)
        let int8 = Array(UnsafeRawBufferPointer(memory.bytes))
        func groups(_ group: String, _ scales: String = #""s""#) -> String {
            #"{"order":"panels","group":\#(group),"scales":\#(scales)}"#
        }
        try read(record("I8", "[2,8]", groups("4")), int8, scalesShape: "[2,2]")
        refuses("scales") { try read(record("I8", "[2,8]", groups("4")), int8, scalesShape: "[4]") }
        refuses("scales") { try read(record("I8", "[2,8]", groups("4", #""t""#)), int8, scalesShape: "[2,2]") }
        refuses("scales") { try read(record("I8", "[2,8]", groups("4", #""w""#)), int8) }
        for group in ["-4", "3", "8", "12", "9223372036854775807"] {
            refuses("panels") { try read(record("I8", "[2,8]", groups(group)), int8, scalesShape: "[2,2]") }
        }
        refuses("panels") { try read(record("I8", "[2,65540]", groups("0")), int8, scalesShape: "[2,1]") }
        var otherScale = int8
        otherScale[otherScale.count - 32 * 4] ^= 1
        refuses("panels unlike their numbers") { try read(record("I8", "[2,8]", groups("4")), otherScale, scalesShape: "[2,2]") }
    }
}
