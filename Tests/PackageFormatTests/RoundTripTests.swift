import Foundation
import ModelGraph
import Support
import Tensors
import Testing

import PackageFormat

@Suite struct RoundTripTests {
    @Test(arguments: [false, true])
    func everyTensorComesBack(plain: Bool) throws {
        let folder = try TemporaryFolder()
        let tensors = try Samples.tensors()
        try PackageWriter.write(graphs: [], extraTensors: tensors, manifest: Samples.manifest, to: folder["a.trips"], options: .init(plain: plain))
        let reader = try PackageReader(path: folder["a.trips"])
        #expect(reader.tensors.count == tensors.count)
        for (name, constant) in tensors {
            let (read, given) = (try reader.constant(named: name).load(), try constant.load())
            #expect(read.dataType == given.dataType && read.shape == given.shape, "\(name)")
            #expect(read.withBytes { Array($0) } == given.withBytes { Array($0) }, "\(name)")
        }
        try reader.verify()
    }

    @Test func manifestComesBack() throws {
        let folder = try TemporaryFolder()
        try PackageWriter.write(graphs: [], manifest: Samples.manifest, to: folder["a.trips"])
        let (read, given) = (try PackageReader(path: folder["a.trips"]).manifest, Samples.manifest)
        #expect(read.formatVersion == 1 && read.features == ["byte-planes"] && !read.libzstd.isEmpty)
        #expect(read.tool == given.tool && read.source == given.source && read.architecture == given.architecture)
        #expect(read.options == given.options && read.settings == given.settings && read.selections == given.selections)
        #expect(read.preprocessing == given.preprocessing && read.leftOut == given.leftOut)
        #expect(read.quantization?.layers.first?.signalToNoise == .infinity)
    }

    @Test func graphsComeBack() throws {
        let folder = try TemporaryFolder()
        let graphs = [try Samples.graph(named: "encode"), try Samples.graph(named: "decode")]
        try PackageWriter.write(graphs: graphs, manifest: Samples.manifest, to: folder["a.trips"])
        let reader = try PackageReader(path: folder["a.trips"])
        // Both layers of both graphs read one weight.
        #expect(reader.tensors.map(\.name) == ["first.weight", "bias"])
        let read = try reader.graphs()
        #expect(read.map(\.name) == ["encode", "decode"])
        for (read, given) in zip(read, graphs) {
            #expect(read.nodes.map(\.name) == given.nodes.map(\.name))
            #expect(read.outputs.map(\.name) == ["y"] && read.traces.map(\.name) == ["vision.1"])
            let weight = try #require(read.value(named: "second.weight").flatMap(read.constant(of:)))
            #expect(try weight.load().elements(Float.self) == Samples.weights([96, 96], seed: 3).elements(Float.self))
        }
    }

    @Test func packagesOfPackagesStoreTiedWeightsOnce() throws {
        let folder = try TemporaryFolder()
        try PackageWriter.write(graphs: [Samples.graph()], manifest: Samples.manifest, to: folder["a.trips"])
        let first = try PackageReader(path: folder["a.trips"])
        try PackageWriter.write(graphs: first.graphs(), manifest: first.manifest, to: folder["b.trips"])
        #expect(try bytes(of: folder["a.trips"]) == bytes(of: folder["b.trips"]))
    }

    @Test(arguments: [PackageWriter.Options.Storage.bf16, .f16])
    func matricesAreStoredNarrower(storage: PackageWriter.Options.Storage) throws {
        let folder = try TemporaryFolder()
        let matrix = try Samples.weights([400, 500])
        let tensors = [("matrix", matrix), ("vector", try Samples.weights([500]))].map { ($0, Samples.constant($1, $0)) }
        try PackageWriter.write(graphs: [], extraTensors: tensors, manifest: Samples.manifest, to: folder["a.trips"], options: .init(storage: storage))
        let reader = try PackageReader(path: folder["a.trips"])
        let type: DataType = storage == .bf16 ? .bfloat16 : .float16
        #expect(reader.tensors.map(\.storedType) == [.float32, type] && reader.tensors.allSatisfy { $0.dataType == .float32 })
        #expect(try reader.constant(named: "matrix").load().elements(Float.self) == matrix.converted(to: type).converted(to: .float32).elements(Float.self))
        #expect(try reader.constant(named: "vector").load().elements(Float.self) == Samples.weights([500]).elements(Float.self))
    }

    @Test func halfPrecisionRefusesWhatItCannotHold() throws {
        let folder = try TemporaryFolder()
        let matrix = Samples.constant(try Tensor([Float(1e5), 1], shape: [1, 2]), "matrix")
        #expect(throws: TripsError.self) {
            try PackageWriter.write(graphs: [], extraTensors: [("matrix", matrix)], manifest: Samples.manifest, to: folder["a.trips"], options: .init(storage: .f16))
        }
        #expect(folder.contents.isEmpty)
    }

    @Test(arguments: [false, true])
    func bytesDoNotDependOnTheThreads(plain: Bool) throws {
        let folder = try TemporaryFolder()
        let tensors = try Samples.tensors()
        var packages = Set<[UInt8]>()
        for threads in [1, 2, 7] {
            try PackageWriter.write(
                graphs: [Samples.graph()], extraTensors: tensors, manifest: Samples.manifest, to: folder["a.trips"],
                options: .init(plain: plain, replacing: true), pool: ThreadPool(threads: threads))
            packages.insert(try bytes(of: folder["a.trips"]))
        }
        #expect(packages.count == 1)
    }

    @Test func levelsAreChecked() throws {
        let folder = try TemporaryFolder()
        for level in [23, -200_000, Int.max] {
            let error = #expect(throws: TripsError.self) {
                try PackageWriter.write(graphs: [], manifest: Samples.manifest, to: folder["a.trips"], options: .init(level: level))
            }
            #expect(error?.kind == .usage)
        }
        for level in [-5, 1, 19] {
            try PackageWriter.write(graphs: [Samples.graph()], manifest: Samples.manifest, to: folder["\(level).trips"], options: .init(level: level))
            try PackageReader(path: folder["\(level).trips"]).verify()
        }
    }

    @Test func progressEndsWithAll() throws {
        let folder = try TemporaryFolder()
        var steps: [Int] = []
        var total = 0
        try PackageWriter.write(graphs: [], extraTensors: Samples.tensors(), manifest: Samples.manifest, to: folder["a.trips"]) { steps.append($0); total = $1 }
        #expect(steps == steps.sorted() && steps.last == total && total > 4_000_000)
    }

    /// Damage in one tensor's chunks is of no concern to another.
    @Test func readingATensorTouchesItsOwnChunksAlone() throws {
        let folder = try TemporaryFolder()
        let tensors = try ["first", "second"].map { ($0, Samples.constant(try Samples.weights([200_000], seed: 9), $0)) }
        try PackageWriter.write(graphs: [], extraTensors: tensors, manifest: Samples.manifest, to: folder["a.trips"])
        let second = try PackageReader(path: folder["a.trips"]).tensors[1]
        var damaged = try bytes(of: folder["a.trips"])
        for place in second.offset..<second.offset + second.compressedByteCount { damaged[place] = 0 }
        try write(damaged, to: folder["a.trips"])
        let reader = try PackageReader(path: folder["a.trips"])
        #expect(try reader.constant(named: "first").load().count == 200_000)
        #expect(throws: TripsError.self) { try reader.constant(named: "second").load() }
        #expect(throws: TripsError.self) { try reader.verify() }
    }
}
