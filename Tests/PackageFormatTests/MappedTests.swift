import Kernels
import ModelGraph
import PackageFormat
import Support
import Tensors
import TestSupport
import Testing

@Suite struct MappedTests {
    private let folder: TemporaryFolder
    private let reader: PackageReader

    init() throws {
        folder = try TemporaryFolder()
        for mapped in [false, true] {
            try PackageWriter.write(
                graphs: [Samples.graph(), Samples.quantizedGraph()], extraTensors: Samples.tensors(), manifest: Samples.manifest,
                to: folder["\(mapped).trips"], options: .init(mapped: mapped))
        }
        reader = try PackageReader(path: folder["true.trips"])
    }

    @Test func everyTensorComesBack() throws {
        let compressed = try PackageReader(path: folder["false.trips"])
        #expect(Set(reader.tensors.map(\.name)) == Set(compressed.tensors.map(\.name)))
        for tensor in compressed.tensors {
            let (read, given) = (try reader.constant(named: tensor.name).load(), try compressed.constant(named: tensor.name).load())
            #expect(read.dataType == given.dataType && read.shape == given.shape, "\(tensor.name)")
            #expect(read.withBytes { Array($0) } == given.withBytes { Array($0) }, "\(tensor.name)")
        }
        try reader.verify()
    }

    @Test func weightsOfLayersAreInPanelsAndLargeTablesInRows() throws {
        let mapped = Dictionary(
            uniqueKeysWithValues: reader.manifest.tensors.compactMap { record in record.mapped.map { (record.name, $0) } })
        #expect(
            mapped == [
                "first.weight": .init(.panels), "grouped": .init(.panels, group: 64, scales: "grouped.scales"),
                "whole": .init(.panels, group: 0, scales: "whole.scales"), "table": .init(.rows),
            ])
        #expect(reader.tensors.filter(\.isMapped).map(\.name).sorted() == mapped.keys.sorted())
        #expect(reader.manifest.features == ["byte-planes", "half-byte-planes", "mapped"])
    }

    /// The kernels read them where they are, so they must be what the kernels would have packed, and lie as their memory does.
    @Test func panelsAreThoseOfTheKernels() throws {
        func panels(_ name: String) throws -> Panels {
            let panels = try #require(try reader.constant(named: name).panels())
            try panels.check()
            #expect(UInt(bitPattern: panels.bytes.baseAddress) % 64 == 0)
            return panels
        }
        let floats = try reader.constant(named: "first.weight").load().elements(Float.self)
        var expected = [Float](repeating: .nan, count: trips_sgemm_pack_size(96, 96))
        trips_sgemm_pack_ref(&expected, floats, 96, 96, 96, 0, 96)
        #expect(try Array(panels("first.weight").bytes) == expected.withUnsafeBytes { Array($0) })
        for (name, outputs, inputs, group) in [("grouped", 70, 100, 64), ("whole", 33, 70, 0)] {
            let scales = try reader.constant(named: "\(name).scales").load().elements(Float.self)
            var expected = [UInt32](repeating: 0xabcd_abcd, count: trips_igemm_pack_size(outputs, inputs, group) / 4)
            let weight = try reader.constant(named: name).load().elements(Int8.self)
            trips_igemm_pack_ref(&expected, weight, inputs, scales, outputs, inputs, group, 0, outputs)
            let found = try panels(name)
            #expect(Array(found.bytes) == expected.withUnsafeBytes { Array($0) }, "\(name)")
            #expect(found.layout == .int8(group: group))
            #expect(try found.scales == reader.constant(named: "\(name).scales").identity)
        }
        #expect(try reader.constant(named: "table").panels() == nil)
        #expect(try reader.constant(named: "shared").panels() == nil)
    }

    @Test(arguments: [(0, 0), (1, 1), (33, 7), (64, 100), (65, 4)]) func sizesAreThoseOfTheKernels(outputs: Int, inputs: Int) throws
    {
        #expect(try PanelLayout.float.byteCount(outputs: outputs, inputs: inputs) == 4 * trips_sgemm_pack_size(outputs, inputs))
        for group in [0, 4, 64] {
            #expect(
                try PanelLayout.int8(group: group).byteCount(outputs: outputs, inputs: inputs)
                    == trips_igemm_pack_size(outputs, inputs, group))
        }
    }

    /// What was mapped stays readable when the file's name goes, or stands for another file.
    @Test func aFileMayBeReplacedWhileItIsMapped() throws {
        let table = try reader.constant(named: "table").load(), panels = try reader.constant(named: "whole").panels()
        try PackageWriter.write(graphs: [], manifest: Samples.manifest, to: folder["true.trips"], options: .init(replacing: true))
        #expect(try table.elements(Float.self) == Samples.weights([1400, 100], seed: 6).elements(Float.self))
        try panels?.check()
    }

    @Test func packagesOfMappedPackagesHoldTheSame() throws {
        try PackageWriter.write(
            graphs: reader.graphs(), manifest: reader.manifest, to: folder["again.trips"], options: .init(mapped: true))
        let again = try PackageReader(path: folder["again.trips"])
        #expect(Set(again.manifest.tensors.compactMap(\.mapped).map(\.order)) == [.rows, .panels])
        for tensor in again.tensors {
            let (left, right) = (try reader.constant(named: tensor.name).load(), try again.constant(named: tensor.name).load())
            #expect(left.withBytes { Array($0) } == right.withBytes { Array($0) }, "\(tensor.name)")
        }
        try again.verify()
    }

    @Test(arguments: [
        PackageWriter.Options(plain: true, mapped: true), .init(mapped: true, storage: .bf16), .init(mapped: true, storage: .f16),
    ])
    func whatExcludesMappingIsRefused(options: PackageWriter.Options) throws {
        let error = #expect(throws: TripsError.self) {
            try PackageWriter.write(graphs: [Samples.graph()], manifest: Samples.manifest, to: folder["b.trips"], options: options)
        }
        #expect(error?.kind == .usage)
    }

    /// Halves are widened when they are loaded; mapped weights cannot be.
    @Test func narrowWeightsAreMappedWide() throws {
        try PackageWriter.write(
            graphs: [Samples.graph()], manifest: Samples.manifest, to: folder["half.trips"], options: .init(storage: .bf16))
        let half = try PackageReader(path: folder["half.trips"])
        try PackageWriter.write(
            graphs: half.graphs(), manifest: half.manifest, to: folder["wide.trips"], options: .init(mapped: true))
        let wide = try PackageReader(path: folder["wide.trips"])
        #expect(wide.tensors.first { $0.name == "first.weight" }?.storedType == .float32)
        #expect(
            try wide.constant(named: "first.weight").load().elements(Float.self)
                == half.constant(named: "first.weight").load().elements(Float.self))
    }
}
