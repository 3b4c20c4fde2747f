import Foundation
import Goldens
import ModelGraph
import Preprocessing
import Rewrites
import Runtime
import Support
import Tensors
import TestSupport
import Testing
import ToolSupport
import Trips
import Verification

private func model(_ folder: String, selecting blocks: [Int] = []) throws -> Model {
    var options = ConversionOptions()
    if !blocks.isEmpty { options.selection = SelectionRequest(blocks: blocks, keepRates: [0.7]) }
    let prepared = try prepare("\(fixtures)/\(folder)/checkpoint.safetensors", options)
    return Model(graphs: prepared.graphs, manifest: .init(tool: .init(name: "test", version: "0")))
}

private func references(_ path: String) throws -> [GoldenReference] {
    try GoldenReference.references(at: "\(fixtures)/\(path).safetensors")
}

@Test func aRankingIsJudgedTimedAndCompared() throws {
    let (model, goldens) = (try model("albef-vqa"), try references("albef-vqa/golden-ranking"))
    let report = try verify(model, against: goldens, timing: true)
    #expect(report.passes && report.outputs.map(\.name) == ["topk_ids", "topk_probs"] && !report.times.isEmpty)
    #expect(report.times.map(\.milliseconds) == report.times.map(\.milliseconds).sorted(by: >), "the longest first")
    let beside = try compare(
        model, with: model, named: "itself", on: goldens.map(ComparisonInput.reference), options: VerificationOptions(),
        judging: true)
    #expect(beside.passes && beside.outputs.map(\.name) == ["question_states"] && beside.effect?.savings == "as many")
}

@Test func everyQuestionOfABatchIsRanked() throws {
    let golden = try references("albef-vqa/golden-ranking")[0].load()
    let names = ["image", "input_ids", "attention_mask"]
    var questions = golden.inputs
    for name in names { questions[name] = try Tensor.joined([#require(golden.inputs[name]), #require(golden.inputs[name])]) }
    let runner = SessionRunner(Session(try model("albef-vqa")))
    let one = try runner.decode(["topk_ids"], inputs: golden.inputs, metadata: golden.metadata)
    let two = try runner.decode(["topk_ids"], inputs: questions, metadata: golden.metadata)
    for name in ["topk_ids", "topk_probs"] {
        let (single, double) = (try #require(one[name]), try #require(two[name]))
        #expect(double.shape == [2, 5])
        for row in 0..<2 { #expect(try double.row(row).withBytes { Array($0) } == single.withBytes { Array($0) }) }
    }
}

@Test func outputsWithoutElementsProveNothing() throws {
    let scratch = try TemporaryFolder()
    let path = scratch["empty.safetensors"]
    let header =
        #"{"in.image":{"dtype":"F32","shape":[0,3,64,64],"data_offsets":[0,0]},"out.itm_logits":{"dtype":"F32","shape":[0,2],"data_offsets":[0,0]}}"#
    try (withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Data($0) } + Data(header.utf8)).write(
        to: URL(fileURLWithPath: path))
    let (model, goldens) = (try model("albef-pretrain"), try GoldenReference.references(at: path))
    #expect { try verify(model, against: goldens) } throws: {
        ($0 as? TripsError)?.kind == .data && "\($0)".contains("tensors without elements")
    }
}

@Test func blocksStandAloneOnStatesOnly() throws {
    let model = try prepare(fixtures + "/scenes/checkpoint.safetensors")
    let package = Model(graphs: model.graphs, manifest: .init(tool: .init(name: "test", version: "0")))
    // What its selections chose is in this set, and no state of a block.
    let goldens = try GoldenReference.references(at: fixtures + "/scenes/golden-select.safetensors")
    #expect { try verify(package, against: goldens, isolating: true) } throws: {
        ($0 as? TripsError)?.kind == .data && "\($0)".contains("no states")
    }
}

@Test func blocksAreFedWithTheStatesThatFitThem() throws {
    let (model, goldens) = (try model("albef-pretrain", selecting: [2, 3]), try references("albef-pretrain/golden"))
    let report = try verify(model, against: goldens, isolating: true)
    #expect(!report.passes)
    #expect(report.notes.contains { $0.contains("intermediates are judged only block by block") })
    let isolated = try #require(report.isolated)
    let verdicts = Dictionary(uniqueKeysWithValues: isolated.map { ($0.name, $0.verdict) })
    #expect(verdicts["vision.1"] == .pass && verdicts["text.1"] == .pass && verdicts["vision.2"] == .fail)
    let facts = PackageFacts(file: "m", bytes: 1, preset: .f32, manifest: model.manifest, multiplyAccumulates: [:])
    #expect(report.html(facts).contains("<section><h2>Blocks alone"), "what fails is not folded away")
}

@Test func blocksThatFailAloneAreToldOutsideTheVerdict() throws {
    let (model, goldens) = (try model("albef-pretrain", selecting: [2, 3]), try references("albef-pretrain/golden-select"))
    var options = VerificationOptions()
    // Far above what rounding leaves.
    options.tolerances.snr = [ToleranceRule(pattern: "vision.2", value: 1000)]
    let report = try verify(model, against: goldens, options: options, isolating: true)
    #expect(report.isolated?.filter { $0.verdict == .fail }.map(\.name) == ["vision.2"])
    #expect(report.passes && report.verdict == .pass)
    #expect(report.notes.contains { $0.hasPrefix("1 block beyond tolerance alone") } && report.text.contains("outside the verdict"))
}

@Test func coarseWeightsThatFailByTheTolerancesOfFinerOnesPointToTheirOwn() throws {
    var manifest = Manifest(tool: .init(name: "test", version: ""))
    manifest.quantization = .init(scheme: .int8, summary: "", layers: [])
    let model = Model(graphs: try prepare(fixtures + "/albef-pretrain/checkpoint.safetensors").graphs, manifest: manifest)
    func pointsThere(_ golden: String, _ preset: TolerancePreset) throws -> Bool {
        var options = VerificationOptions()
        options.tolerances.preset = preset
        return try verify(model, against: references("albef-pretrain/\(golden)"), options: options).notes.contains {
            $0.contains("`preset` int8")
        }
    }
    #expect(try pointsThere("golden-select", .f32))
    #expect(try !pointsThere("golden-select", .int8) && !pointsThere("golden", .f32))
}

@Test func otherNumbersOfTokensAreComparedButNeverPass() throws {
    let (full, selected) = (try model("albef-pretrain"), try model("albef-pretrain", selecting: [2]))
    var options = VerificationOptions()
    options.tolerances.snr = [ToleranceRule(value: -100)]
    let goldens = try references("albef-pretrain/golden-batch3").map(ComparisonInput.reference)
    let judged = try compare(selected, with: full, named: "full", on: goldens, options: options, judging: true)
    #expect(judged.outputs.filter { $0.verdict == .fail }.map(\.name) == ["image_embeds"])
    let open = try compare(selected, with: full, named: "full", on: goldens, options: options, judging: false)
    #expect(open.verdict == .unjudged && open.outputs.first { $0.name == "image_embeds" }?.worst.alignment != nil)
    #expect(open.effect?.batch == 3 && open.text.contains("for a batch of 3"))
    #expect(open.effect?.savings?.hasSuffix(" times less") == true)
}

/// ONNX models call their states as they like: that one holds image tokens shows in the graph.
@Test func tokensAreComparedByPatchWhateverTheirOutputIsCalled() throws {
    func selecting(_ seed: Int) throws -> Model {
        var graph = Graph(name: "main")
        let tokens = try graph.addInput("tokens", ValueType(.float32, [2, 8, 4]))
        let op = PatchSelection(heads: 1, keepRate: 0.5, guidance: .random, fusion: .none, seed: seed)
        let selected = try graph.add(op, [tokens, tokens], name: "select")
        try graph.addOutput("last_hidden_state", selected[0])
        for (part, value) in zip(SelectionTrace.Part.allCases, selected.dropFirst()) {
            graph.addTrace(SelectionTrace(layer: 1, part).name, value)
        }
        return Model(graphs: [graph])
    }
    let set = ComparisonInput.set(GoldenSet(name: "tokens", inputs: ["tokens": try noise([2, 8, 4])]))
    let found = try compare(selecting(1), with: selecting(2), named: "other", on: [set], measuring: false)
    let state = try #require(found.outputs.first?.worst)
    #expect(found.selections.first?.setsWithFlips == 1)
    #expect(state.alignment?.unmatched ?? 0 > 0 && state.metrics?.snr == .infinity)
}

@Test func whatCannotBeComparedSaysWhy() throws {
    func model(_ outputs: String..., width: Int) throws -> Model {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [Dimension(symbol: "batch"), 4]))
        let weights = try graph.addConstant(
            Constant(Tensor([Float](repeating: 1, count: 4 * width), shape: [4, width]), identity: "weights"), name: "weights")
        for name in outputs { try graph.addOutput(name, graph.add(MatMul(), [x, weights], name: name)[0]) }
        return Model(graphs: [graph], manifest: .init(tool: .init(name: "test", version: "0")))
    }
    let sets = try ["a", "b"].map { name in
        ComparisonInput.set(GoldenSet(name: name, inputs: ["x": try Tensor([1, 2, 3, 4] as [Float], shape: [1, 4])]))
    }
    func compared(_ own: Model, _ reference: Model) throws -> VerificationReport {
        try compare(own, with: reference, named: "other", on: sets, options: VerificationOptions(), judging: false)
    }
    let found = try compared(model("y", width: 2), model("y", "z", width: 3))
    #expect(found.outputs.map(\.worst.reason) == ["shape [1, 2]; expected [1, 3]", "no counterpart"])
    #expect(found.text.contains("unjudged: no counterpart"))
    #expect(found.verdictLine == "COMPARED  0 outputs over 2 golden sets, nothing judged")
    #expect(found.junit.contains("<skipped message=\"no counterpart\"/>"))
    let same = try compared(model("y", width: 3), model("y", "z", width: 3))
    #expect(same.outputs.map(\.worst.reason) == [nil, "no counterpart"] && same.passes && same.verdict == .unjudged)
    #expect(same.verdictLine == "COMPARED  1 output over 2 golden sets, nothing judged")
}

@Test func costsAreThoseOfTheRun() throws {
    let model = try model("mplug-vqa")
    func cost(_ inputs: [String: Tensor]) throws -> Int {
        try Effect.measure(model, beside: model, named: "itself", on: GoldenSet(name: "inputs", inputs: inputs)).multiplyAccumulates
    }
    let golden = try #require(references("mplug-vqa/golden").first).load()
    let encoding = golden.inputs.filter { $0.key != "decoder_ids" }
    var decoding = golden.inputs.filter { $0.key == "decoder_ids" }
    for name in ["question_output", "question_atts"] { decoding[name] = golden.outputs[name] }
    let (encode, decode) = (try cost(encoding), try cost(decoding))
    #expect(encode > 0 && decode > 0 && encode != decode)
    #expect(try cost(golden.inputs) == encode + decode)
}

@Test func batchesAreCountedWhateverTheInputsAreCalled() throws {
    var graph = Graph(name: "main")
    let pixels = try graph.addInput("pixel_values", ValueType(.float32, [Dimension(symbol: "batch"), 4]))
    try graph.addOutput("y", graph.add(Unary(.relu), [pixels], name: "y")[0])
    let model = Model(graphs: [graph])
    let golden = GoldenSet(name: "three", inputs: ["pixel_values": try noise([3, 4])])
    #expect(try Effect.measure(model, beside: model, named: "itself", on: golden, threads: 1).batch == 3)
}

/// A decoder reads as many image states as the encoder leaves, not as many as the text has tokens.
@Test(arguments: ["mplug-caption", "mplug-vqa", "albef-vqa"]) func statedCostsAreThoseOfARun(name: String) throws {
    let model = try model(name)
    let stated = try model.graphs.map { try #require(try $0.fed(by: model.graphs).exampleCost()) }
    let length = try #require(stated.map(\.textLength).min())
    let inputs = try Session(model, threads: 1).syntheticInputs(batch: 1, length: length)
    let run = try Effect.measure(model, beside: model, named: "itself", on: GoldenSet(name: "inputs", inputs: inputs))
    #expect(stated.reduce(0) { $0 + $1.multiplyAccumulates } == run.multiplyAccumulates)
}

@Test func whatIsNotJudgedIsNotCountedAsPassing() {
    let tensor = { TensorSummary(name: $0, isIntermediate: $0 != "y", Judgement(verdict: $1), set: "set") }
    var report = VerificationReport()
    report.sets = ["set"]
    report.outputs = [tensor("y", .pass)]
    report.intermediates = [tensor("vision.1", .pass), tensor("selection.5.scores", .unjudged)]
    #expect(report.verdictLine == "PASS  1 output and 1 intermediate over 1 golden set")
    report.intermediates = [tensor("selection.5.scores", .unjudged)]
    #expect(report.verdictLine == "PASS  1 output over 1 golden set")
}

@Test func patchesThatWereDroppedAreDark() throws {
    let golden = try #require(references("albef-pretrain/golden-select").first).load()
    let answer = try Session(model("albef-pretrain", selecting: [2])).answer(golden.inputs, tokenizer: nil)
    let kept = Set(try #require(answer.selections.last).kept)
    // A pixel for each patch.
    let picture = try answer.illustrated(Picture(width: 4, height: 4, pixels: Array(repeating: 200, count: 48)))
    #expect(kept.count == 12 && picture.pixels == (0..<48).map { kept.contains($0 / 3) ? 200 : 50 })
}

@Test func theBoxIsDrawnByItsEdge() throws {
    let golden = try #require(references("albef-pretrain/golden-select").first).load()
    var answer = try Session(model("albef-pretrain", selecting: [2])).answer(golden.inputs, tokenizer: nil)
    answer.selections = []
    // From the second column to the fifth, whichever corner is named first, and what lies outside cut off.
    for box in [[0.2, 0, 0.8, 1], [0.8, 1, 0.2, 0], [0.2, -3, 0.8, 7]] as [[Float]] {
        answer.box = box
        let picture = answer.illustrated(try Picture(width: 6, height: 4, pixels: Array(repeating: 9, count: 72)))
        let drawn = (0..<4).map { y in String((0..<6).map { picture.pixels[(y * 6 + $0) * 3] == 9 ? "." : "#" }) }
        #expect(drawn == [".####.", ".#..#.", ".#..#.", ".####."])
    }
}

@Test func flipsAreToldWithoutRepeatingTheirRow() throws {
    let folder = "albef-pretrain/golden-select"
    // Another choice of blocks: the second selection sees another stream.
    let model = try model("albef-pretrain", selecting: [1, 3])
    let report = try verify(model, against: try references(folder))
    let row = try #require(report.text.split(separator: "\n").first { $0.hasPrefix("block 3") })
    #expect(report.selections.first?.worst.flips ?? 0 > 0 && !row.contains("overlap") && !row.contains("margin"), "\(row)")
}
