import Goldens
import Importers
import ModelGraph
import Rewrites
import Support
import Tensors
import TestSupport
import Testing

/// The small models of Tests/Fixtures, whose goldens PyTorch wrote.
struct FixtureTests {
    /// Runs the graphs in order, the outputs of one feeding the next, and holds them to the golden.
    static func check(_ graphs: [Graph], _ golden: GoldenSet) throws {
        var known = golden.inputs
        var (found, states) = ([String: Tensor](), [String: Tensor]())
        for graph in graphs where graph.inputs.allSatisfy({ known[graph.name(of: $0)] != nil }) {
            let results = try outputs(graph, known)
            found.merge(results) { $1 }
            known.merge(results) { $1 }
            states.merge(try intermediates(graph, known)) { $1 }
        }
        // fp32 sums in another order; the states of these models stay below 10.
        for (name, expected) in golden.outputs { #expect(try excess(found[name], expected, 2e-5, 1e-5) <= 0, "out.\(name)") }
        for (name, expected) in golden.intermediates { #expect(try excess(states[name], expected, 2e-5, 1e-5) <= 0, "mid.\(name)") }
    }

    static let models = [
        "albef-nlvr2/checkpoint.safetensors", "albef-pretrain/checkpoint.safetensors", "albef-retrieval/checkpoint.safetensors",
        "albef-ve/checkpoint.safetensors", "albef-vqa/checkpoint.safetensors", "mplug-caption/checkpoint.safetensors",
        "mplug-grounding/checkpoint.safetensors", "mplug-retrieval/checkpoint.safetensors", "mplug-vqa/checkpoint.safetensors",
        "albef-pretrain/opset17.onnx", "albef-pretrain/dynamo.onnx", "albef-pretrain/boolean-masks.onnx",
    ]

    private func graphs(_ model: String) throws -> [Graph] { try blocks("\(fixtures)/\(model)") }

    private func folder(_ model: String) -> String { "\(fixtures)/\(model.split(separator: "/")[0])" }

    @Test(arguments: models) func numbersStay(model: String) throws {
        try Self.check(graphs(model), golden("\(folder(model))/golden.safetensors"))
    }

    @Test(arguments: models) func selectionGivesTheGoldens(model: String) throws {
        var graphs = try graphs(model)
        let guidance: PatchSelection.Guidance = model.hasPrefix("mplug-caption") ? .imageCLS : .text
        try graphs[0].select(SelectionRequest(blocks: [2, 3], guidance: guidance))
        try Self.check(graphs, golden("\(folder(model))/golden-select.safetensors"))
    }

    @Test(arguments: [
        ("weighted", SelectionRequest(blocks: [1, 3], keepRates: [0.5, 0.9], fusion: .weighted)),
        ("none-score", SelectionRequest(blocks: [2, 3], keepRates: [0.5], fusion: .none, order: .score)),
        ("image-cls", SelectionRequest(blocks: [2, 3], guidance: .imageCLS)),
    ])
    func variantsGiveTheGoldens(name: String, options: SelectionRequest) throws {
        for model in ["albef-pretrain/checkpoint.safetensors", "albef-pretrain/dynamo.onnx"] {
            var graphs = try graphs(model)
            try graphs[0].select(options)
            try Self.check(graphs, golden("\(folder(model))/golden-\(name).safetensors"))
        }
    }

    @Test func batchAndLengthStayOpen() throws {
        for model in ["dynamo.onnx", "boolean-masks.onnx", "checkpoint.safetensors"] {
            try Self.check(graphs("albef-pretrain/\(model)"), golden("\(fixtures)/albef-pretrain/golden-batch3.safetensors"))
        }
    }

    /// PyTorch's attention gives 0 to a query whose keys are all masked, such as those of a text that is padding alone.
    @Test func aTextOfPaddingKeepsItsNumbers() throws {
        let path = "\(fixtures)/albef-pretrain/boolean-masks.onnx"
        var inputs = try golden("\(fixtures)/albef-pretrain/golden-batch3.safetensors").inputs
        let mask = try #require(inputs["attention_mask"])
        var numbers = try mask.elements(Int64.self)
        for index in 0..<mask.shape[1] { numbers[index] = 0 }
        inputs["attention_mask"] = try Tensor(numbers, shape: mask.shape)
        let (source, blocks) = (try #require(importONNX(path: path).graphs.first), try #require(blocks(path).first))
        #expect(
            !blocks.nodes.contains { $0.op is Softmax }
                && blocks.nodes.contains { ($0.op as? Attention)?.fullyMasked == .zeroForNaN })
        let (expected, found) = (try outputs(source, inputs), try outputs(blocks, inputs))
        for (name, value) in expected {
            #expect(try value.converted(to: .float32).elements(Float.self).allSatisfy(\.isFinite))
            #expect(try excess(found[name], value, 2e-5, 1e-5) <= 0, "\(name)")
        }
    }

    /// The connected layer's mask is the image's ones beside the text's, before it becomes addends.
    @Test func aMaskOfTwoPartsFollowsTheSelection() throws {
        let inputs = try golden("\(fixtures)/mplug-vqa/golden-select.safetensors").inputs
        let results = try ["mplug-vqa/boolean-masks.onnx", "mplug-vqa/checkpoint.safetensors"].map { model in
            var graph = try #require(graphs(model).first)
            try graph.select(SelectionRequest(blocks: [2, 3]))
            return try outputs(graph, inputs)
        }
        #expect(results[0].keys.sorted() == results[1].keys.sorted())
        for (name, expected) in results[1] { #expect(try excess(results[0][name], expected, 2e-5, 1e-5) <= 0, "\(name)") }
    }

    @Test func aGraphThatSelectsByItselfIsLifted() throws {
        let lifted = try graphs("albef-pretrain/select.onnx")
        try Self.check(lifted, golden("\(fixtures)/albef-pretrain/golden-select.safetensors"))
        var selected = try graphs("albef-pretrain/opset17.onnx")
        try selected[0].select(SelectionRequest(blocks: [2, 3]))
        #expect(firstDifference(lifted[0], selected[0]) == nil)
    }

    @Test(arguments: [
        ("albef-pretrain/opset17.onnx", "albef-pretrain/checkpoint.safetensors", 0),
        ("albef-pretrain/dynamo.onnx", "albef-pretrain/checkpoint.safetensors", 0),
        ("mplug-vqa/encode.onnx", "mplug-vqa/checkpoint.safetensors", 0),
        ("mplug-vqa/decode.onnx", "mplug-vqa/checkpoint.safetensors", 1),
        ("sample/albef.onnx", "sample/checkpoint.safetensors", 0),
    ])
    func oneModelOneGraph(export: String, checkpoint: String, index: Int) throws {
        let (exported, built) = (try graphs(export)[0], try graphs(checkpoint)[index])
        #expect(firstDifference(exported, built) == nil)
        #expect(Set(exported.traces.map(\.name)) == Set(built.traces.map(\.name)))
    }

    // MARK: Refusals

    private func refusal(_ model: String, _ options: SelectionRequest) throws -> TripsError {
        var graph = try graphs(model)[0]
        return try #require(#expect(throws: TripsError.self) { try graph.select(options) })
    }

    @Test(arguments: [
        (SelectionRequest(blocks: [4]), "1 ... 3"), (SelectionRequest(blocks: [0]), "1 ... 3"),
        (SelectionRequest(blocks: []), "1 ... 3"),
        (SelectionRequest(blocks: [2, 2]), "once"), (SelectionRequest(blocks: [2], keepRates: [0]), "above 0"),
        (SelectionRequest(blocks: [2], keepRates: [1.5]), "above 0"), (SelectionRequest(blocks: [2], keepRates: [.nan]), "above 0"),
        (SelectionRequest(blocks: [1, 2, 3], keepRates: [0.5, 0.6]), "one for each"),
        (SelectionRequest(blocks: [2], visionTower: "nowhere"), "patch_embed"),
        (SelectionRequest(blocks: [2], textGuide: "nowhere"), "width"),
        (SelectionRequest(blocks: [2], textGuide: "itm_logits"), "text-only"),
    ])
    func badRequestsAreRefused(options: SelectionRequest, reason: String) throws {
        let error = try refusal("albef-pretrain/checkpoint.safetensors", options)
        #expect(error.kind == .usage)
        #expect("\(error)".contains(reason), "\(error)")
    }

    @Test func textGuidanceNeedsText() throws {
        let error = try refusal("mplug-caption/checkpoint.safetensors", SelectionRequest(blocks: [2]))
        #expect(error.kind == .usage && "\(error)".contains("image-cls"), "\(error)")
    }

    @Test func aModelSelectsOnce() throws {
        let error = try refusal("albef-pretrain/select.onnx", SelectionRequest(blocks: [1]))
        #expect(error.kind == .usage && "\(error)".contains("already"), "\(error)")
    }

    @Test func keepingAllChangesNothing() throws {
        var graphs = try graphs("albef-pretrain/checkpoint.safetensors")
        try graphs[0].select(SelectionRequest(blocks: [2], keepRates: [1]))
        let golden = try golden("\(fixtures)/albef-pretrain/golden.safetensors")
        let results = try outputs(graphs[0], golden.inputs)
        for (name, expected) in golden.outputs { #expect(try excess(results[name], expected, 2e-5, 1e-5) <= 0, "\(name)") }
    }

    @Test func randomGuidanceDrawsAnewInEachBlock() throws {
        func seeds(_ seed: Int) throws -> [Int] {
            var graphs = try graphs("albef-pretrain/checkpoint.safetensors")
            try graphs[0].select(SelectionRequest(blocks: [1, 2, 3], guidance: .random, seed: seed))
            return graphs[0].nodes.compactMap { ($0.op as? PatchSelection)?.seed }
        }
        #expect(try seeds(0) == seeds(0))
        #expect(try Set(seeds(0) + seeds(1)).count == 6)
    }

    @Test func theReportStatesTokensAndCosts() throws {
        var graphs = try graphs("albef-pretrain/opset17.onnx")
        let report = try graphs[0].select(SelectionRequest(blocks: [2, 3]))
        #expect(report.blocks.map(\.block) == [2, 3])
        #expect(report.blocks.map { [$0.tokensBefore, $0.tokensAfter] } == [[16, 13], [13, 11]])
        let (before, after) = (try #require(report.costBefore.constant), try #require(report.costAfter.constant))
        #expect(after < before && after > before / 2)
    }
}
