import Foundation
import Importers
import ModelGraph
import Rewrites
import Support
import Tensors
import TestSupport
import Testing

/// Patch selection in the released layouts, whose tensors here have shapes and no numbers.
@Suite struct CheckpointSelection {
    private struct NoNumbers: ConstantSource {
        func load(_ dataType: DataType, _ shape: [Int]) throws -> Tensor {
            guard dataType == .int64 else { throw TripsError.data("this constant has no numbers") }
            return try Tensor((0..<Int64(shape.reduce(1, *))).map { $0 }, shape: shape)
        }
    }

    private func encoder(_ name: String) throws -> Graph? {
        let path = "\(ProcessInfo.processInfo.environment["TRIPS_SHARED"] ?? "\(root)/../shared")/models/\(name).json"
        guard FileManager.default.fileExists(atPath: path) else {
            print("skipped: \(path) is absent")
            return nil
        }
        let document = try JSON(parsing: Array(Data(contentsOf: URL(fileURLWithPath: path))))
        let tensors = try #require(document["tensors_list"]?.array).map { entry -> (name: String, constant: Constant) in
            let fields = try #require(entry.array)
            let tensor = try #require(fields[0].string), shape = try #require(fields[1].array).compactMap(\.integer)
            return (tensor, Constant(fields[2].string == "int64" ? .int64 : .float32, shape, identity: tensor, source: NoNumbers()))
        }
        var graph = try #require(try importCheckpoint(Checkpoint(tensors: tensors)).graphs.first)
        try graph.fold()
        try graph.fuse()
        return graph
    }

    @Test(arguments: [
        ("albef_pretrain", 256, 181, 128), ("albef_retrieval", 576, 405, 285), ("albef_vqa", 576, 405, 285),
        ("albef_nlvr2", 576, 405, 285),
        ("albef_ve", 576, 405, 285), ("mplug_base_vqa", 576, 405, 285), ("mplug_base_retrieval", 576, 405, 285),
        ("mplug_base_grounding", 576, 405, 285),
    ]) func textSelectsInEveryReleasedLayout(_ name: String, _ whole: Int, _ first: Int, _ second: Int) throws {
        guard var graph = try encoder(name) else { return }
        let report = try graph.select(SelectionRequest(blocks: [5, 10], keepRates: [0.7]))
        #expect(
            report.blocks.map { [$0.tokensBefore, $0.tokensAfter] } == [
                [Dimension(whole), Dimension(first)], [Dimension(first), Dimension(second)],
            ])
        try graph.validate()
    }

    @Test func captioningSelectsByItsOwnClassToken() throws {
        guard var graph = try encoder("mplug_base_caption") else { return }
        #expect { try graph.select(SelectionRequest(blocks: [5])) } throws: { ($0 as? TripsError)?.kind == .usage }
        let report = try graph.select(SelectionRequest(blocks: [5, 10], guidance: .imageCLS))
        #expect(report.blocks.map(\.tokensAfter) == [405, 285])
    }

    @Test(arguments: ["mplug_large_retrieval", "mplug_large_grounding"]) func unequalWidthsAreRefused(_ name: String) throws {
        guard var graph = try encoder(name) else { return }
        #expect { try graph.select(SelectionRequest(blocks: [5])) } throws: { error in
            guard let error = error as? TripsError else { return false }
            return error.kind == .usage && error.description.contains("1024") && error.description.contains("768")
        }
        let report = try graph.select(SelectionRequest(blocks: [10, 20], guidance: .imageCLS))
        #expect(report.blocks.map(\.tokensAfter) == [405, 285])
    }
}
