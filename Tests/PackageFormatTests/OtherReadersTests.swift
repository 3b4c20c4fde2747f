import Foundation
import Kernels
import PackageFormat
import Support
import Tensors
import TestSupport
import Testing

private func run(_ program: String, _ arguments: [String], input: String? = nil) throws -> (status: Int32, output: Data) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [program] + arguments
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    process.standardInput = try input.map { try FileHandle(forReadingFrom: URL(fileURLWithPath: $0)) } ?? FileHandle.nullDevice
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, data)
}

private let python = ProcessInfo.processInfo.environment["TRIPS_PYTHON"] ?? "python3"
private let reader = root + "/tools/read_trips.py"

extension Trait where Self == ConditionTrait {
    fileprivate static func needsPython(with modules: String) -> Self {
        .enabled("\(python) does not have \(modules)") { try run(python, ["-c", "import \(modules)"]).status == 0 }
    }
}

/// Other programs read packages: zstd, safetensors, and the reader in tools/ written from the specification alone.
@Suite struct OtherReadersTests {
    private func package(in folder: TemporaryFolder, _ options: PackageWriter.Options) throws -> String {
        try PackageWriter.write(
            graphs: [Samples.graph(), Samples.quantizedGraph()], extraTensors: Samples.tensors(), manifest: Samples.manifest,
            to: folder["a.trips"], options: options)
        return folder["a.trips"]
    }

    @Test(.needsProgram("zstd"), arguments: [PackageWriter.Options(), .init(plain: true), .init(mapped: true)])
    func zstdFindsPackagesSound(options: PackageWriter.Options) throws {
        let folder = try TemporaryFolder()
        let path = try package(in: folder, options)
        #expect(try run("zstd", ["-t", "-q"], input: path).status == 0)
    }

    @Test(
        .needsPython(with: "numpy, zstandard"),
        arguments: [
            PackageWriter.Options(), .init(plain: true), .init(storage: .bf16), .init(level: 6, storage: .f16), .init(mapped: true),
        ])
    func theReaderInPythonAgrees(options: PackageWriter.Options) throws {
        let folder = try TemporaryFolder()
        let path = try package(in: folder, options)
        let result = try run(python, [reader, path, "--digests"])
        #expect(result.status == 0)
        let digests = try JSONDecoder().decode([String: String].self, from: result.output)
        let package = try PackageReader(path: path)
        #expect(digests.count == package.tensors.count)
        for tensor in package.tensors {
            let stored = try package.constant(named: tensor.name).load().converted(to: tensor.storedType)
            try folder.write(stored.withBytes { Array($0) }, "numbers")
            #expect(
                digests[tensor.name] == (try SHA256.hexadecimalDigest(of: ReadableFile(path: folder["numbers"]))), "\(tensor.name)")
        }
    }

    @Test(.needsPython(with: "numpy, zstandard")) func theReaderInPythonRefusesChangedBytes() throws {
        let folder = try TemporaryFolder()
        let sound = try bytes(of: package(in: folder, .init()))
        for place in [3, 20, 45, sound.count / 2, sound.count - 60, sound.count - 20] {
            var changed = sound
            changed[place] ^= 0x10
            try folder.write(changed, "b.trips")
            #expect(try run(python, [reader, folder["b.trips"], "--verify"]).status == 1)
        }
    }

    @Test(.needsPython(with: "numpy, zstandard")) func theReaderInPythonRefusesWhatThePackageDoesNotSay() throws {
        let folder = try TemporaryFolder()
        func status(_ forgery: Forgery, _ options: String...) throws -> Int32 {
            try folder.write(forgery.bytes(), "a.trips")
            return try run(python, [reader, folder["a.trips"]] + options).status
        }
        var forgery = try Forgery.sound()
        #expect(try status(forgery, "--verify") == 0)
        forgery.manifest = Forgery.manifest(features: "[]", tensors: Forgery.tensor())
        #expect(try status(forgery) == 1, "planes without their feature")
        forgery = try Forgery.sound()
        forgery.manifest = Forgery.manifest(tensors: Forgery.tensor(dataType: "BOOL", storedType: "BOOL", shape: "[16]"))
        #expect(try status(forgery, "--verify") == 1, "booleans of 7")
        forgery = try Forgery.sound()
        forgery.isPlain = true
        let manifest = String(
            decoding: try JSONEncoder().encode(Forgery.manifest(features: "[]", tensors: Forgery.tensor())), as: UTF8.self)
        for (offsets, expected) in [("[0,16]", 0 as Int32), ("[16,32]", 1)] {
            let json = #"{"__metadata__":{"trips":\#(manifest)},"a":{"dtype":"F32","shape":[4],"data_offsets":\#(offsets)}}"#
            forgery.manifestBytes = (0..<8).map { UInt8(truncatingIfNeeded: json.utf8.count >> (8 * $0)) } + Array(json.utf8)
            #expect(try status(forgery, "--verify") == expected, "offsets \(offsets)")
        }
    }

    /// Each block of four bytes says that one byte stands 131072 times: 16 GB in a chunk of 500 KB.
    @Test(.needsPython(with: "numpy, zstandard")) func theReaderInPythonStopsAtWhatIsTooLarge() throws {
        let folder = try TemporaryFolder()
        var forgery = try Forgery.sound()
        let blocks: [UInt8] = [0x02, 0x00, 0x10, 7]
        forgery.chunks = [[0x28, 0xB5, 0x2F, 0xFD, 0x44, 0x38, 0, 0] + Array(repeatElement(blocks, count: 125_000).joined())]
        try folder.write(forgery.bytes(), "large.trips")
        let script = """
            import resource, runpy, sys
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
            sys.argv = sys.argv[1:]
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
            except MemoryError:
                sys.exit(9)
            """
        for path in [folder["large.trips"], try package(in: folder, .init())] {
            let result = try run(python, ["-c", script, reader, path, "--verify"])
            #expect(result.status == (path == folder["large.trips"] ? 1 : 0))
        }
    }

    @Test(.needsProgram("zstd"), .needsPython(with: "numpy, safetensors")) func plainPackagesDecompressToSafetensors() throws {
        let folder = try TemporaryFolder()
        let path = try package(in: folder, .init(plain: true))
        try folder.write(run("zstd", ["-dc", "-q"], input: path).output, "a.safetensors")
        let script = """
            import json, sys
            from safetensors import safe_open
            with safe_open(sys.argv[1], "np") as file:
                manifest = json.loads(file.metadata()["trips"])
                keys = set(file.keys()) - {"type.bfloat16"}
                print(json.dumps([manifest["architecture"], sorted(keys), file.get_tensor("matrix").tolist()[3][:4]]))
            """
        let result = try run(python, ["-c", script, folder["a.safetensors"]])
        #expect(result.status == 0)
        let names =
            try Samples.tensors().map(\.name).filter { $0 != "type.bfloat16" }
            + ["first.weight", "bias", "table", "grouped", "grouped.scales", "whole", "whole.scales", "shared"]
        let read = try #require(try JSONSerialization.jsonObject(with: result.output) as? [Any])
        #expect(read[0] as? String == "albef-retrieval")
        #expect(Set(try #require(read[1] as? [String])) == Set(names))
        let row = try Samples.weights([700, 600]).elements(Float.self)[1800..<1804]
        #expect(try #require(read[2] as? [Double]).map { Float($0) } == Array(row))
    }
}
