import Goldens
import ModelGraph
import Rewrites
import Support
import Tensors
import TestSupport
import Testing

/// The shared models: numbers kept, one graph by either importer.
@Suite(.needsSharedFolder) struct ConformanceTests {
    /// All arithmetic is fp32, and intermediates grow to some ten: sums in another order differ by some 1e-6 of that.
    static let (absolute, relative) = (1e-4, 1e-5)

    static func check(_ graph: Graph, _ golden: GoldenSet) throws {
        let results = try outputs(graph, golden.inputs)
        for output in graph.outputs {
            let expected = try #require(golden.outputs[output.name])
            #expect(try excess(results[output.name], expected, absolute, relative) <= 0, "\(output.name)")
        }
        let states = try intermediates(graph, golden.inputs)
        for (name, expected) in golden.intermediates.sorted(by: { $0.key < $1.key }) {
            #expect(try excess(states[name], expected, absolute, relative) <= 0, "\(name)")
        }
    }

    @Test(arguments: [
        ("albef_pretrain/model_opset14_nofold.onnx", "albef_pretrain/golden.safetensors"),
        ("albef_pretrain/model_opset17.onnx", "albef_pretrain/golden.safetensors"),
        ("albef_pretrain/checkpoint.safetensors", "albef_pretrain/golden.safetensors"),
        ("albef_trips/model_opset17.onnx", "albef_trips/golden.safetensors"),
        ("mplug_vqa/encoder_opset17.onnx", "mplug_vqa/golden_encode.safetensors"),
        ("mplug_vqa/decoder_opset17.onnx", "mplug_vqa/golden_decode.safetensors"),
        ("mplug_vqa/checkpoint.safetensors", "mplug_vqa/golden_encode.safetensors"),
    ])
    func numbersStay(model: String, goldens: String) throws {
        try Self.check(#require(blocks("\(conformanceFolder)/\(model)").first), golden("\(conformanceFolder)/\(goldens)"))
    }

    @Test(arguments: [
        ("albef_pretrain/model_opset14_nofold.onnx", "albef_pretrain/checkpoint.safetensors", 0),
        ("albef_pretrain/model_opset17.onnx", "albef_pretrain/checkpoint.safetensors", 0),
        ("mplug_vqa/encoder_opset17.onnx", "mplug_vqa/checkpoint.safetensors", 0),
        ("mplug_vqa/decoder_opset17.onnx", "mplug_vqa/checkpoint.safetensors", 1),
    ])
    func oneModelOneGraph(export: String, checkpoint: String, index: Int) throws {
        let exported = try #require(blocks("\(conformanceFolder)/\(export)").first)
        var built = try blocks("\(conformanceFolder)/\(checkpoint)")[index]
        // The export's sizes are static.
        var symbols: [String: Int] = [:]
        for input in built.inputs {
            let twin = try #require(exported.inputs.first { exported.name(of: $0) == built.name(of: input) })
            for (symbol, size) in zip(built.shape(of: input), exported.shape(of: twin)) {
                symbols[symbol.description] = size.constant
            }
        }
        try built.bind(symbols)
        try built.fold(lookups: true)
        #expect(firstDifference(exported, built) == nil)
        #expect(Set(exported.traces.map(\.name)) == Set(built.traces.map(\.name)))
    }

    @Test(arguments: [
        "albef_pretrain/model_opset17.onnx", "albef_pretrain/model_opset14_nofold.onnx", "albef_pretrain/checkpoint.safetensors",
    ])
    func selectionGivesTheGoldens(model: String) throws {
        var graph = try #require(blocks("\(conformanceFolder)/\(model)").first)
        let report = try graph.select(SelectionRequest(blocks: [2, 5]))
        #expect(report.blocks.map { [$0.tokensBefore, $0.tokensAfter] } == [[16, 13], [13, 11]])
        try Self.check(graph, golden("\(conformanceFolder)/albef_trips/golden.safetensors"))
    }

    @Test func aGraphThatSelectsByItselfIsLifted() throws {
        let lifted = try #require(blocks("\(conformanceFolder)/albef_trips/model_opset17.onnx").first)
        var selected = try #require(blocks("\(conformanceFolder)/albef_pretrain/model_opset17.onnx").first)
        try selected.select(SelectionRequest(blocks: [2, 5]))
        #expect(firstDifference(lifted, selected) == nil)
        #expect(Set(lifted.traces.map(\.name)) == Set(selected.traces.map(\.name)))
    }
}
