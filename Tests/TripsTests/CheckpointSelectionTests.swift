import Importers
import ModelGraph
import Rewrites
import Support
import TestSupport
import Testing

/// Patch selection in the released layouts, whose tensors here have shapes and no numbers.
@Suite(.needsSharedFolder) struct CheckpointSelection {
    private func encoder(_ layout: String) throws -> Graph {
        var graph = try #require(try importCheckpoint(Checkpoint(tensors: releasedTensors(layout))).graphs.first)
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
        var graph = try encoder(name)
        let report = try graph.select(SelectionRequest(blocks: [5, 10], keepRates: [0.7]))
        #expect(
            report.blocks.map { [$0.tokensBefore, $0.tokensAfter] } == [
                [Dimension(whole), Dimension(first)], [Dimension(first), Dimension(second)],
            ])
        try graph.validate()
    }

    @Test func captioningSelectsByItsOwnClassToken() throws {
        var graph = try encoder("mplug_base_caption")
        #expect { try graph.select(SelectionRequest(blocks: [5])) } throws: { ($0 as? TripsError)?.kind == .usage }
        let report = try graph.select(SelectionRequest(blocks: [5, 10], guidance: .imageCLS))
        #expect(report.blocks.map(\.tokensAfter) == [405, 285])
    }

    @Test(arguments: ["mplug_large_retrieval", "mplug_large_grounding"]) func unequalWidthsAreRefused(_ name: String) throws {
        var graph = try encoder(name)
        #expect { try graph.select(SelectionRequest(blocks: [5])) } throws: { error in
            guard let error = error as? TripsError else { return false }
            return error.kind == .usage && error.description.contains("1024") && error.description.contains("768")
        }
        let report = try graph.select(SelectionRequest(blocks: [10, 20], guidance: .imageCLS))
        #expect(report.blocks.map(\.tokensAfter) == [405, 285])
    }
}
