import Foundation
import TestSupport
import Testing
import Trips

/// Runs its jobs one after the other on threads that may block.
private final class Queue: SerialExecutor {
    private let queue = DispatchQueue(label: "model")

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        queue.async { job.runSynchronously(on: self.asUnownedSerialExecutor()) }
    }
}

/// A session of a service, as the guide shows it.
private actor Worker {
    private let executor = Queue()
    private let session: Session
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ model: Model) { session = Session(model, threads: 1) }

    func answer(_ inputs: [String: Tensor]) throws -> Answer {
        try session.answer(inputs, tokenizer: session.model.tokenizer())
    }
}

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

    @Test(arguments: ["", "a list of other words"]) func aVocabularyIsCheckedBeforeItIsKept(words: String) throws {
        let scratch = try TemporaryFolder()
        var options = ConversionOptions()
        options.vocabulary = try scratch.write(Array(words.utf8), "vocab.txt")
        #expect {
            try convert("\(fixtures)/albef-pretrain/checkpoint.safetensors", to: scratch["m.trips"], options)
        } throws: {
            ($0 as? TripsError)?.kind == .data && "\($0)".contains("vocab.txt: vocabulary; found no [UNK]")
        }
        #expect(scratch.contents == ["vocab.txt"])
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
        refused("answers are for one example") {
            _ = try Session(model).answer(inputs.mapValues { try Tensor.joined([$0, $0]) }, tokenizer: tokenizer)
        }
        refused("no such input; found attention_maks; expected image, input_ids, attention_mask") {
            var inputs = inputs
            inputs["attention_maks"] = inputs["attention_mask"]
            _ = try Session(model).answer(inputs, tokenizer: tokenizer)
        }
        refused("more tokens than positions; found 21; expected at most 20") {
            var inputs = inputs
            for name in ["input_ids", "attention_mask"] {
                inputs[name] = try Tensor([Int64](repeating: 1, count: 21), shape: [1, 21])
            }
            _ = try Session(model).answer(inputs, tokenizer: tokenizer)
        }
        refused("`candidates`") { _ = try Session(model).answer(inputs, tokenizer: tokenizer, candidates: ["yes"]) }
        try convert("\(fixtures)/albef-pretrain/opset17.onnx", to: scratch["o.trips"])
        #expect(try Model(contentsOf: scratch["o.trips"]).tokenizer() == nil)
    }

    /// What the answer takes from one run is what separate runs give.
    @Test(arguments: ["mplug-vqa", "albef-vqa"]) func anAnswerComesWithWhatWasSelectedForIt(architecture: String) throws {
        let scratch = try TemporaryFolder()
        var options = ConversionOptions()
        options.selection = SelectionRequest(blocks: [2], keepRates: [0.5])
        try convert("\(fixtures)/\(architecture)/checkpoint.safetensors", to: scratch["m.trips"], options)
        let model = try Model(contentsOf: scratch["m.trips"])
        let words = try String(contentsOfFile: fixtures + "/preprocessing/vocab.txt", encoding: .utf8).split(separator: "\n")
        let tokenizer = try WordPiece(vocabulary: words.prefix(48).joined(separator: "\n"))
        let picture = try Picture(path: fixtures + "/preprocessing/colour.jpg")
        let inputs = try model.inputs(images: [picture], text: "the dog is on a", tokenizer: tokenizer)
        let ranks = architecture == "albef-vqa"
        let session = Session(model)
        let answer = try session.answer(inputs, tokenizer: tokenizer, candidates: ranks ? ["the dog", "a"] : [])
        if ranks {
            #expect(answer.answers?.count == 2)
        } else {
            let generation = model.generation(tokenizer: tokenizer)
            #expect(generation.startID == tokenizer.classID && generation.endID == tokenizer.separatorID)
            #expect(model.generation(tokenizer: nil) == model.manifest.generation)
            #expect(try answer.ids == session.generate(inputs, generation).ids)
        }
        let kept = try #require(session.run(inputs, outputs: [], traces: ["selection.2.indices"])["selection.2.indices"])
        #expect(try answer.selections.map(\.kept) == [kept.integers()])
    }

    /// A service may open a model from a file that it removes at once, and keep what a run gave when all else is gone.
    @Test(arguments: [false, true]) func aModelOutlivesItsFileAndItsResultsOutliveIt(mapped: Bool) throws {
        let scratch = try TemporaryFolder()
        var options = ConversionOptions()
        options.writing.mapped = mapped
        try convert("\(fixtures)/albef-pretrain/checkpoint.safetensors", to: scratch["m.trips"], options)
        func run(removing: Bool) throws -> [String: Tensor] {
            let model = try Model(contentsOf: scratch["m.trips"])
            if removing { try FileManager.default.removeItem(atPath: scratch["m.trips"]) }
            let session = Session(model, threads: 2)
            return try session.run(session.syntheticInputs(batch: 2, length: 5))
        }
        let (expected, found) = (try run(removing: false), try run(removing: true))
        #expect(Set(found.keys) == Set(expected.keys) && scratch.contents.isEmpty)
        for (name, tensor) in found { #expect(try tensor.numbers() == expected[name]?.numbers(), "\(name)") }
    }

    /// Where nothing that is known can be answered, silence would look like an answer.
    @Test func aModelWithoutAnswersIsRefused() throws {
        let scratch = try TemporaryFolder()
        var options = ConversionOptions()
        options.tensorsOnly = true
        try convert("\(fixtures)/albef-pretrain/checkpoint.safetensors", to: scratch["tensors.trips"], options)
        let session = Session(try Model(contentsOf: scratch["tensors.trips"]))
        #expect { try session.answer([:], tokenizer: nil) } throws: {
            ($0 as? TripsError)?.kind == .usage && "\($0)".contains("no output that is an answer; found none; expected itm_logits")
        }
    }

    @Test func nothingToJudgeByIsNoPass() throws {
        let scratch = try TemporaryFolder()
        try convert("\(fixtures)/albef-pretrain/checkpoint.safetensors", to: scratch["m.trips"])
        let model = try Model(contentsOf: scratch["m.trips"])
        #expect { try verify(model, against: []) } throws: { ($0 as? TripsError)?.kind == .usage }
        #expect { try compare(model, with: model, named: "itself", on: []) } throws: { ($0 as? TripsError)?.kind == .usage }
    }

    @Test func actorsWithSessionsOfTheirOwnAnswer() async throws {
        let scratch = try TemporaryFolder()
        try convert("\(fixtures)/albef-pretrain/checkpoint.safetensors", to: scratch["m.trips"])
        let model = try Model(contentsOf: scratch["m.trips"])
        let inputs = try Session(model).syntheticInputs(batch: 1, length: 5)
        let (first, second) = (Worker(model), Worker(model))
        async let one = first.answer(inputs)
        async let two = second.answer(inputs)
        let answers = try await [one, two]
        #expect(answers[0].matchProbability != nil && answers[0].matchProbability == answers[1].matchProbability)
    }

    /// The names that a client's own methods hide, and those that other modules have too.
    @Test func namesThatClashAreFoundInTheModule() throws {
        struct Client {
            let model: Model
            func verify(_ goldens: [GoldenReference]) throws -> Bool { try Trips.verify(model, against: goldens).passes }
            func compare(_ inputs: [ComparisonInput]) throws -> VerificationReport {
                try Trips.compare(model, with: model, named: "itself", on: inputs, measuring: false)
            }
        }
        let scratch = try TemporaryFolder()
        try convert("\(fixtures)/albef-pretrain/checkpoint.safetensors", to: scratch["m.trips"])
        let client = Client(model: try Model(contentsOf: scratch["m.trips"]))
        let goldens = try GoldenReference.references(at: "\(fixtures)/albef-pretrain/golden.safetensors")
        #expect(try client.verify(goldens))
        // A name of no input is ignored, as files may hold it.
        var golden = try #require(goldens.first).load()
        golden.inputs["note"] = try Tensor([Int64(1)], shape: [1])
        let report = try client.compare([.set(golden)])
        #expect(report.passes && report.effect == nil && !report.outputs.isEmpty)
        #expect(Trips.Dimension(3).constant == 3)
    }
}
