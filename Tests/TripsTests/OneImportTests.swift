import Foundation
import TestSupport
import Testing
import Trips

/// What a program names that imports the library alone.
@Suite struct OneImportTests {
    @Test func aSelectionCanBeAskedForAndItsReportRead() throws {
        var options = ConversionOptions()
        options.selection = SelectionRequest(blocks: [2], keepRates: [0.5])
        let prepared = try prepare("\(fixtures)/albef-retrieval/checkpoint.safetensors", options)
        let (imported, report): (ImportedModel, SelectionReport?) = (prepared.imported, prepared.selection)
        #expect(imported.architecture == .albefRetrieval)
        #expect(report?.blocks.map(\.block) == [2])
    }

    @Test func aModelIsAskedAboutAPictureAndAText() throws {
        let scratch = try TemporaryFolder()
        let path = scratch["m.trips"]
        var options = ConversionOptions()
        options.vocabulary = scratch["vocab.txt"]
        // As many words as the model has ids for.
        let words = try String(contentsOfFile: fixtures + "/preprocessing/vocab.txt", encoding: .utf8).split(separator: "\n")
        try words.prefix(48).joined(separator: "\n").write(toFile: scratch["vocab.txt"], atomically: true, encoding: .utf8)
        try convert("\(fixtures)/albef-pretrain/checkpoint.safetensors", to: path, options)
        let model = try Model(contentsOf: path)
        let tokenizer = try #require(try model.tokenizer())
        let picture = try Picture(path: fixtures + "/preprocessing/colour.jpg")
        let inputs = try model.inputs(images: [picture], text: "the dog is on a", tokenizer: tokenizer)
        #expect(Set(inputs.keys) == ["image", "input_ids", "attention_mask"])
        let answer = try Session(model).answer(inputs, tokenizer: tokenizer)
        #expect((0...1).contains(answer.matchProbability ?? -1) && answer.similarity != nil)

        func refused(_ words: String, _ body: () throws -> Void) {
            #expect { try body() } throws: { ($0 as? TripsError)?.kind == .usage && "\($0)".contains(words) }
        }
        refused("`images`; found 2; expected 1") {
            _ = try model.inputs(images: [picture, picture], text: nil, tokenizer: nil)
        }
        refused("words need a vocabulary") { _ = try model.inputs(images: [], text: "a dog", tokenizer: nil) }
        refused("`maximalLength`; found 21; expected at most 20") {
            _ = try model.inputs(images: [], text: "a dog", tokenizer: tokenizer, maximalLength: 21)
        }
        refused("`text` is missing") {
            _ = try Session(model).answer(model.inputs(images: [picture], text: nil, tokenizer: nil), tokenizer: tokenizer)
        }
        refused("`candidates`") { _ = try Session(model).answer(inputs, tokenizer: tokenizer, candidates: ["yes"]) }
        try convert("\(fixtures)/albef-pretrain/opset17.onnx", to: scratch["o.trips"])
        #expect(try Model(contentsOf: scratch["o.trips"]).tokenizer() == nil)
    }
}
