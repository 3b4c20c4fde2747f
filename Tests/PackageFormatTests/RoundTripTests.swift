import Foundation
import ModelGraph
import Support
import Synchronization
import Tensors
import TestSupport
import Testing

import PackageFormat

/// Matches are looked for where there are any; where there are none, to look for them costs bytes.
@Test func compressionSuitsWhatIsCompressed() throws {
    var random = SplitMix64(state: 5)
    let block = (0..<256).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    let repeated = (0..<256).flatMap { _ in block }
    // Bytes as weights have them: small ones are frequent, and none tells of the next.
    let weights = (0..<1 << 16).map { _ in UInt8((0..<4).reduce(0.0) { sum, _ in sum + random.uniform() * 4 }) }
    func size(_ bytes: [UInt8], _ level: Int32?) throws -> Int {
        try bytes.withUnsafeBytes { try ChunkEncoder().encode($0, .asIs, level: level).count }
    }
    #expect(try size(repeated, nil) < repeated.count / 50)
    #expect(try size(weights, nil) < size(weights, 3))
}

@Suite struct RoundTripTests {
    @Test(arguments: [false, true])
    func everyTensorComesBack(plain: Bool) throws {
        let folder = try TemporaryFolder()
        let tensors = try Samples.tensors()
        try PackageWriter.write(
            graphs: [], extraTensors: tensors, manifest: Samples.manifest, to: folder["a.trips"], options: .init(plain: plain))
        let reader = try PackageReader(path: folder["a.trips"])
        #expect(reader.tensors.count == tensors.count)
        for (name, constant) in tensors {
            let (read, given) = (try reader.constant(named: name).load(), try constant.load())
            #expect(read.dataType == given.dataType && read.shape == given.shape, "\(name)")
            #expect(read.withBytes { Array($0) } == given.withBytes { Array($0) }, "\(name)")
        }
        try reader.verify()
    }

    /// Numbers that stand for many keep all their bits; float64 holds integers up to 2⁵³.
    @Test func numbersThatStandForManyComeBack() throws {
        let scalars: [Tensor] = try [
            Tensor(scalar: Int64.max), Tensor(scalar: Int64.min), Tensor(scalar: Int64(1 << 53 + 1)), Tensor(scalar: Int64(-7)),
            Tensor(scalar: UInt64.max), Tensor(scalar: UInt64(1) << 63), Tensor(scalar: UInt64(3)), Tensor(scalar: UInt8(255)),
            Tensor(scalar: true), Tensor(scalar: -Float(0)), Tensor(scalar: Float.greatestFiniteMagnitude),
            Tensor(scalar: Float(0x1p60)), Tensor(scalar: -Float.infinity),
            Tensor(scalar: Double(0.1)), Tensor(scalar: 0x1p53 + 2), Tensor(scalar: Double.nan),
        ]
        var graph = Graph(name: "main")
        _ = try graph.addInput("x", ValueType(.float32, [Dimension(symbol: "batch")]))
        for (index, scalar) in scalars.enumerated() {
            let type = ValueType(scalar.dataType, [Dimension(symbol: "batch")])
            try graph.addOutput("\(index)", graph.addKnown(.splat(scalar), type, name: "many \(index)"))
        }
        let folder = try TemporaryFolder()
        try PackageWriter.write(graphs: [graph], manifest: Samples.manifest, to: folder["a.trips"])
        let read = try PackageReader(path: folder["a.trips"]).graphs()[0]
        for (scalar, output) in zip(scalars, read.outputs) {
            guard case .splat(let number) = read.content(of: output.value) else { Issue.record("no splat"); continue }
            #expect(number.dataType == scalar.dataType, "\(scalar)")
            #expect(number.withBytes { Array($0) } == scalar.withBytes { Array($0) }, "\(scalar)")
        }
    }

    @Test func aBeamOutOfRangeIsNotWritten() throws {
        let folder = try TemporaryFolder()
        func write(beam: Int) throws {
            var manifest = Samples.manifest
            manifest.generation = Generation(method: .beam, startID: 1, endID: 2, beam: beam, maximalLength: 9)
            try PackageWriter.write(graphs: [], manifest: manifest, to: folder["\(beam).trips"])
        }
        for beam in [1, 32] { try write(beam: beam) }
        for beam in [0, 33] {
            #expect { try write(beam: beam) } throws: { "\($0)".contains("generation: beam; found \(beam); expected 1 to 32") }
        }
        #expect(Set(folder.contents) == ["1.trips", "32.trips"])
    }

    /// Above 4 MiB pages are brought in before they are written.
    @Test func tensorsOfManyPagesComeBack() throws {
        let folder = try TemporaryFolder()
        let given = try Samples.noise(.float32, [1100, 1001])
        try PackageWriter.write(
            graphs: [], extraTensors: [("w", Samples.constant(given, "w"))], manifest: Samples.manifest, to: folder["a.trips"])
        let read = try PackageReader(path: folder["a.trips"]).constant(named: "w").load()
        #expect(read.shape == given.shape && read.withBytes { Array($0) } == given.withBytes { Array($0) })
    }

    /// Rows in blocks of 16, where chunks of 512 KiB end inside rows, inside blocks, and several to a row.
    @Test(arguments: [
        (DataType.float32, [700, 768]), (.float32, [17, 40_000]), (.float32, [3, 300_000]), (.int8, [2000, 771]), (.int8, [1, 5]),
        (.float16, [1500, 769]), (.int64, [0, 4]), (.int64, [4, 0]),
    ])
    func rowsComeInWholeBlocks(type: DataType, shape: [Int]) throws {
        let folder = try TemporaryFolder()
        let given = try Samples.weights(shape).converted(to: type)
        let inMemory = Constant(given, identity: "m")
        try PackageWriter.write(graphs: [], extraTensors: [("w", inMemory)], manifest: Samples.manifest, to: folder["a.trips"])
        let rowBytes = shape[0] == 0 ? 0 : given.byteCount / shape[0]
        for constant in [try PackageReader(path: folder["a.trips"]).constant(named: "w"), inMemory] {
            let read = Mutex([UInt8](repeating: 0, count: given.byteCount)), rows = Mutex(0)
            try constant.readRows(multipleOf: 16) { range, bytes in
                #expect(range.lowerBound % 16 == 0 && (range.upperBound % 16 == 0 || range.upperBound == shape[0]))
                #expect(bytes.count == range.count * rowBytes)
                read.withLock { $0.replaceSubrange(range.lowerBound * rowBytes..<range.upperBound * rowBytes, with: bytes) }
                rows.withLock { $0 += range.count }
            }
            #expect(read.withLock { $0 } == given.withBytes { Array($0) })
            #expect(rows.withLock { $0 } == (given.byteCount == 0 ? 0 : shape[0]))
        }
    }

    @Test func whatCannotBeWrittenIsRefused() throws {
        let folder = try TemporaryFolder()
        func refuses(_ text: String, _ tensors: [(name: String, constant: Constant)], _ manifest: Manifest = Samples.manifest) {
            #expect {
                try PackageWriter.write(graphs: [], extraTensors: tensors, manifest: manifest, to: folder["a.trips"])
            } throws: { "\($0)".contains(text) }
            #expect(folder.contents.isEmpty)
        }
        let numbers = Samples.constant(try Samples.weights([4]), "n")
        refuses("the name of a tensor", [("", numbers)])
        refuses("the name of a tensor", [(String(repeating: "n", count: Layout.maximalNameLength + 1), numbers)])
        refuses("the name of a tensor", [("a", numbers), ("a", numbers)])
        for (type, shape) in [(DataType.float32, [2, 2]), (.int32, [4])] {
            refuses(
                "a constant came out wrong", [("a", Constant(type, shape, identity: "l", source: Liar(tensor: try numbers.load())))]
            )
        }
        var manifest = Samples.manifest
        manifest.options["x"] = String(repeating: "x", count: Layout.maximalManifestSize)
        refuses("the manifest is too large", [("a", numbers)], manifest)
        // Nor what this version would not read again.
        manifest.options["x"] = String(repeating: "x", count: 1 << 20)
        refuses("size of the manifest", [("a", numbers)], manifest)
        let many = Samples.constant(try Samples.weights([Int](repeating: 1, count: Layout.maximalRank + 1)), "many")
        refuses("tensor \"b\": rank", [("a", numbers), ("b", many)])
    }

    /// Gives another tensor than its constant states.
    private struct Liar: ConstantSource {
        let tensor: Tensor
        func load(_: DataType, _: [Int]) -> Tensor { tensor }
    }

    /// Half bytes are named as a feature where there are any, and packages without it are read as they are.
    @Test func int8NeedsAFeature() throws {
        let folder = try TemporaryFolder()
        for (type, plain, features) in [
            (DataType.int8, false, ["byte-planes", "half-byte-planes"]), (.uint8, false, ["byte-planes"]), (.int8, true, []),
        ] {
            let tensor = ("w", Samples.constant(try Samples.noise(type, [7, 3]), "w"))
            try PackageWriter.write(
                graphs: [], extraTensors: [tensor], manifest: Samples.manifest, to: folder["a.trips"],
                options: .init(plain: plain, replacing: true))
            #expect(try PackageReader(path: folder["a.trips"]).manifest.features == features)
        }
    }

    @Test(
        arguments: [
            Attention(heads: 2), Attention(heads: 2, scale: 0.5, causal: true, activations: .int8, fullyMasked: .zero),
            Attention(heads: 2, fullyMasked: .zeroForNaN), PatchSelection(heads: 2, keepRate: 0.5),
            PatchSelection(heads: 2, keepRate: 0.5, leading: 3),
        ] as [any Operator]) func attributesComeBack(op: any Operator) throws
    {
        let folder = try TemporaryFolder()
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [1, 9, 4]))
        let last = try op is Attention ? x : graph.addInput("query", ValueType(.float32, [1, 4]))
        try graph.addOutput("y", graph.add(op, [x, x, last], name: "node")[0])
        try PackageWriter.write(graphs: [graph], manifest: Samples.manifest, to: folder["a.trips"])
        let reader = try PackageReader(path: folder["a.trips"])
        #expect(reader.manifest.features == ["byte-planes"])
        #expect(try reader.graphs().first?.nodes.first?.op.isEqual(to: op) == true)
    }

    @Test func manifestComesBack() throws {
        let folder = try TemporaryFolder()
        try PackageWriter.write(graphs: [], manifest: Samples.manifest, to: folder["a.trips"])
        let (read, given) = (try PackageReader(path: folder["a.trips"]).manifest, Samples.manifest)
        #expect(read.formatVersion == 1 && read.features == ["byte-planes"] && !read.libzstd.isEmpty)
        #expect(read.tool == given.tool && read.source == given.source && read.architecture == given.architecture)
        #expect(read.options == given.options && read.settings == given.settings && read.selections == given.selections)
        #expect(read.preprocessing == given.preprocessing && read.leftOut == given.leftOut)
        #expect(read.quantization?.layers.first?.snr == .infinity)
    }

    @Test func graphsComeBack() throws {
        let folder = try TemporaryFolder()
        let graphs = [try Samples.graph(named: "encode"), try Samples.graph(named: "decode", output: "z", trace: "decoder.1")]
        try PackageWriter.write(graphs: graphs, manifest: Samples.manifest, to: folder["a.trips"])
        let reader = try PackageReader(path: folder["a.trips"])
        // Both layers of both graphs read one weight.
        #expect(reader.tensors.map(\.name) == ["first.weight", "bias"])
        let read = try reader.graphs()
        #expect(read.map(\.name) == ["encode", "decode"])
        for (read, given) in zip(read, graphs) {
            #expect(read.nodes.map(\.name) == given.nodes.map(\.name))
            #expect(read.outputs.map(\.name) == given.outputs.map(\.name) && read.traces.map(\.name) == given.traces.map(\.name))
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
        try PackageWriter.write(
            graphs: [], extraTensors: tensors, manifest: Samples.manifest, to: folder["a.trips"], options: .init(storage: storage))
        let reader = try PackageReader(path: folder["a.trips"])
        let type: DataType = storage == .bf16 ? .bfloat16 : .float16
        #expect(reader.tensors.map(\.storedType) == [.float32, type] && reader.tensors.allSatisfy { $0.dataType == .float32 })
        #expect(
            try reader.constant(named: "matrix").load().elements(Float.self)
                == matrix.converted(to: type).converted(to: .float32).elements(Float.self))
        #expect(try reader.constant(named: "vector").load().elements(Float.self) == Samples.weights([500]).elements(Float.self))
    }

    @Test func halfPrecisionRefusesWhatItCannotHold() throws {
        let folder = try TemporaryFolder()
        let matrix = Samples.constant(try Tensor([Float(1e5), 1], shape: [1, 2]), "matrix")
        #expect(throws: TripsError.self) {
            try PackageWriter.write(
                graphs: [], extraTensors: [("matrix", matrix)], manifest: Samples.manifest, to: folder["a.trips"],
                options: .init(storage: .f16))
        }
        #expect(folder.contents.isEmpty)
    }

    /// A mask that hides by the lowest number of float32 is no weight; one that fits is stored as all others are.
    @Test(arguments: [(-Float.greatestFiniteMagnitude, DataType.float32), (-10000, .float16)])
    func halfPrecisionLeavesMasks(lowest: Float, type: DataType) throws {
        let folder = try TemporaryFolder()
        let numbers = try Tensor([0, lowest, 0, 0], shape: [2, 2])
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [2, 2]))
        let weight = try graph.addConstant(Samples.constant(Samples.weights([2, 2]), "weight"), name: "weight")
        let mask = try graph.addConstant(Samples.constant(numbers, "mask"), name: "mask")
        let scores = try graph.add(Linear(), [x, weight], name: "scores")[0]
        try graph.addOutput("y", graph.add(Binary(.add), [scores, mask], name: "masked")[0])
        try PackageWriter.write(graphs: [graph], manifest: Samples.manifest, to: folder["a.trips"], options: .init(storage: .f16))
        let reader = try PackageReader(path: folder["a.trips"])
        #expect(reader.tensors.first { $0.name == "weight" }?.storedType == .float16)
        #expect(reader.tensors.first { $0.name == "mask" }?.storedType == type)
        #expect(try reader.constant(named: "mask").load().elements(Float.self) == numbers.elements(Float.self))
    }

    @Test(arguments: [
        PackageWriter.Options(replacing: true), .init(plain: true, replacing: true), .init(mapped: true, replacing: true),
    ])
    func bytesDoNotDependOnTheThreads(options: PackageWriter.Options) throws {
        let folder = try TemporaryFolder()
        let tensors = try Samples.tensors()
        var packages = Set<[UInt8]>()
        for threads in [1, 2, 7] {
            try PackageWriter.write(
                graphs: [Samples.graph()], extraTensors: tensors, manifest: Samples.manifest, to: folder["a.trips"],
                options: options, pool: ThreadPool(threads: threads))
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
            try PackageWriter.write(
                graphs: [Samples.graph()], manifest: Samples.manifest, to: folder["\(level).trips"], options: .init(level: level))
            try PackageReader(path: folder["\(level).trips"]).verify()
        }
    }

    @Test func progressEndsWithAll() throws {
        let folder = try TemporaryFolder()
        var steps: [Int] = []
        var total = 0
        try PackageWriter.write(graphs: [], extraTensors: Samples.tensors(), manifest: Samples.manifest, to: folder["a.trips"]) {
            steps.append($0); total = $1
        }
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
        try folder.write(damaged, "a.trips")
        let reader = try PackageReader(path: folder["a.trips"])
        #expect(try reader.constant(named: "first").load().count == 200_000)
        #expect(throws: TripsError.self) { try reader.constant(named: "second").load() }
        #expect(throws: TripsError.self) { try reader.verify() }
    }
}
