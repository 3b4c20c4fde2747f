import Goldens
import Importers
import ModelGraph
import PackageFormat
import Rewrites
import Runtime
import Support
import Tensors
import TestSupport
import Testing
import Verification

/// A checkpoint with a golden set that says what was selected.
struct CheckpointCase: Sendable, CustomTestStringConvertible {
    let checkpoint: String
    let golden: String
    /// Pixels for which the position embedding is resampled.
    let imageSize: Int?
    var testDescription: String { golden }

    init(_ folder: String, _ golden: String = "golden", checkpoint: String = "checkpoint.safetensors", imageSize: Int? = nil) {
        self.imageSize = imageSize
        self.checkpoint = "\(folder)/\(checkpoint)"
        self.golden = "\(folder)/\(golden).safetensors"
    }
}

@Suite struct CheckpointNumbers {
    static let examples: [CheckpointCase] =
        (Architecture.allCases.map(\.rawValue) + ["sample"]).flatMap { [CheckpointCase($0), CheckpointCase($0, "golden-select")] }
        + ["golden-batch3", "golden-weighted", "golden-none-score", "golden-image-cls"].map { CheckpointCase("albef-pretrain", $0) }
        + ["checkpoint.pth", "checkpoint-older.pt"].map { CheckpointCase("albef-ve", checkpoint: $0) }
        + ["albef-pretrain", "mplug-vqa"].map { CheckpointCase($0, "golden-24px", imageSize: 24) }
        + [CheckpointCase("albef-ve/sharded-bf16", checkpoint: "model.safetensors.index.json")]

    @Test(arguments: examples) func fixtureGivesTheReferenceNumbers(_ example: CheckpointCase) throws {
        try verify(
            "\(fixtures)/\(example.checkpoint)", "\(fixtures)/\(example.golden)", imageSize: example.imageSize
        )
    }

    static let conformance: [CheckpointCase] = [
        CheckpointCase("albef_pretrain"), CheckpointCase("albef_vqa"), CheckpointCase("mplug_vqa", "golden_encode"),
        CheckpointCase("mplug_vqa", "golden_decode"),
    ]

    @Test(.needsSharedFolder, arguments: conformance)
    func conformanceCheckpointGivesTheReferenceNumbers(_ example: CheckpointCase) throws {
        try verify("\(conformanceFolder)/\(example.checkpoint)", "\(conformanceFolder)/\(example.golden)")
    }

    @Test(.needsSharedFolder) func conformanceSelectionGivesTheReferenceNumbers() throws {
        try verify(
            "\(conformanceFolder)/albef_pretrain/checkpoint.safetensors",
            "\(conformanceFolder)/albef_trips/golden.safetensors")
    }

    private func verify(_ checkpointPath: String, _ goldenPath: String, imageSize: Int? = nil) throws {
        let golden = try SafetensorsFile(path: goldenPath)
        // PyTorch's files and shards carry no metadata: the golden set tells the heads.
        let heads = checkpointPath.hasSuffix(".safetensors") ? nil : golden.metadata["heads"].flatMap { Int($0) }
        let options = CheckpointOptions(visionHeads: heads, textHeads: heads, imageSize: imageSize)
        var model = try importCheckpoint(path: checkpointPath, options: options)
        for index in model.graphs.indices {
            try model.graphs[index].fold()
            try model.graphs[index].fuse(validating: true)
        }
        if let blocks = golden.metadata["select"] {
            let options = SelectionRequest(
                blocks: blocks.split(separator: ",").compactMap { Int($0) },
                keepRates: (golden.metadata["keep_rate"] ?? "0.7").split(separator: ",").compactMap { Double($0) },
                guidance: try golden.metadata["guidance"].map { try #require(PatchSelection.Guidance(rawValue: $0)) } ?? .text,
                fusion: try golden.metadata["fuse"].map { try #require(PatchSelection.Fusion(rawValue: $0)) } ?? .normalized,
                order: try golden.metadata["order"].map { try #require(PatchSelection.Order(rawValue: $0)) } ?? .original)
            try model.graphs[0].select(options)
        }
        let session = Session(Model(graphs: model.graphs, manifest: Manifest(tool: .init(name: "tests", version: "0"))))
        func part(_ prefix: String) throws -> [String: Tensor] {
            try Dictionary(
                uniqueKeysWithValues: golden.tensors.filter { $0.name.hasPrefix(prefix) }.map {
                    ($0.name.dropFirst(prefix.count).description, try $0.constant.load())
                })
        }
        let (inputs, outputs, intermediates) = (try part("in."), try part("out."), try part("mid."))
        #expect(!outputs.isEmpty)
        let results = try session.run(inputs, outputs: outputs.keys.sorted(), traces: intermediates.keys.sorted())
        for (name, expected) in outputs.merging(intermediates, uniquingKeysWith: { first, _ in first }) {
            let found = try #require(results[name], "\(name)")
            #expect(
                found.dataType == expected.dataType && found.shape == expected.shape,
                "\(name): \(found.dataType) \(found.shape), not \(expected.dataType) \(expected.shape)")
            guard found.shape == expected.shape else { continue }
            let pairs = zip(
                try found.numbers(), try expected.numbers())
            // The contract's verdict. What is seen is some 1e-6: fp32 rounds in another order here.
            let misses = pairs.count { !(abs($0 - $1) <= 1e-4 + 1e-3 * abs($1)) }
            #expect(misses == 0, "\(name): \(misses) of \(found.count) elements")
        }
    }
}

/// What the decoding loops make of converted checkpoints.
@Suite struct CheckpointGeneration {
    /// - Parameter rounds: whether an attention is computed in 8 bits.
    private func session(_ architecture: String, rounds: (Attention) -> Bool = { _ in false }) throws -> Session {
        let model = try importCheckpoint(path: "\(fixtures)/\(architecture)/checkpoint.safetensors")
        var manifest = Manifest(tool: .init(name: "tests", version: "0"))
        manifest.generation = model.generation
        var graphs = model.graphs
        for index in graphs.indices {
            for node in graphs[index].nodes {
                guard var op = node.op as? Attention, rounds(op) else { continue }
                op.activations = .int8
                let made = try graphs[index].add(op, node.inputs, name: node.name)
                graphs[index].replace(node.output, with: made[0])
            }
        }
        return Session(Model(graphs: graphs, manifest: manifest))
    }

    private func golden(_ path: String) throws -> (inputs: [String: Tensor], outputs: [String: Tensor], metadata: [String: String])
    {
        let file = try SafetensorsFile(path: "\(fixtures)/\(path).safetensors")
        func part(_ prefix: String) throws -> [String: Tensor] {
            try Dictionary(
                uniqueKeysWithValues: file.tensors.filter { $0.name.hasPrefix(prefix) }.map {
                    (String($0.name.dropFirst(prefix.count)), try $0.constant.load())
                })
        }
        return (try part("in."), try part("out."), file.metadata)
    }

    @Test(arguments: ["mplug-vqa", "mplug-caption"], ["golden-beam", "golden-greedy"])
    func generatesTheReferenceSequence(_ architecture: String, _ name: String) throws {
        let golden = try golden("\(architecture)/\(name)")
        func number(_ key: String) throws -> Int { try #require(golden.metadata[key].flatMap { Int($0) }, "\(key)") }
        let parameters = Generation(
            method: .beam, startID: try number("start_id"), endID: try number("end_id"), beam: try number("beam"),
            minimalLength: try number("min_length"), maximalLength: try number("max_length"), alpha: 0.6)
        let hypothesis = try session(architecture).generate(golden.inputs, parameters)
        #expect(hypothesis.ids.map { Int64($0) } == (try #require(golden.outputs["ids"]).elements()))
        let score: [Float] = try #require(golden.outputs["score"]).elements()
        #expect(abs(hypothesis.score - score[0]) < 1e-4)
    }

    /// Rows that are kept give what the whole prefix gives, but that fp32 rounds in another order. In int8 packages the attention to
    /// them stays in fp32.
    @Test(arguments: ["mplug-vqa", "mplug-caption"], [.float32, .int8] as [ActivationPrecision])
    func keptRowsGiveWhatTheWholePrefixGives(_ architecture: String, _ activations: ActivationPrecision) throws {
        let golden = try golden("\(architecture)/golden-beam")
        let decoding = try session(architecture) { _ in activations == .int8 }
        let session = try session(architecture) { activations == .int8 && !$0.causal }
        let states = try session.run(golden.inputs).filter { $0.key != "logits" && $0.key != "next_logits" }
        let decoder = try Decoder(decoding, golden.inputs, hypotheses: 2, steps: 5)
        var prefixes = [[3], [3]]
        // The hypotheses cross over, merge and part.
        for (tokens, rows) in [([3, 3], [0, 1]), ([7, 9], [0, 1]), ([11, 5], [1, 0]), ([2, 8], [0, 0]), ([6, 6], [1, 0])] {
            prefixes = prefixes.indices.map { tokens == [3, 3] ? [3] : prefixes[rows[$0]] + [tokens[$0]] }
            let logits = try decoder.nextLogits(tokens, continuing: rows)
            for (prefix, found) in zip(prefixes, logits) {
                var inputs = states
                inputs["decoder_ids"] = try Tensor(prefix.map { Int64($0) }, shape: [1, prefix.count])
                let whole: [Float] = try #require(session.run(inputs, outputs: ["next_logits"])["next_logits"]).elements()
                #expect(zip(found, whole).allSatisfy { abs($0 - $1) < 1e-5 }, "\(prefix)")
            }
        }
        #expect(throws: TripsError.self) { try decoder.nextLogits([1, 1], continuing: [0, 1]) }
    }

    @Test func decodersOfOneSessionDoNotDisturbEachOther() throws {
        let (golden, session) = (try golden("mplug-vqa/golden-beam"), try session("mplug-vqa"))
        var other = golden.inputs
        other["image"] = try noise(try #require(other["image"]).shape, seed: 5)
        func decoder(_ inputs: [String: Tensor]) throws -> Decoder { try Decoder(session, inputs, hypotheses: 2, steps: 3) }
        func steps(_ decoder: Decoder) throws -> [[[Float]]] {
            try [[3, 4], [5, 6], [7, 8]].map { try decoder.nextLogits($0, continuing: [1, 0]) }
        }
        let alone = try [golden.inputs, other].map { try steps(decoder($0)) }
        #expect(alone[0] != alone[1])
        let together = try [golden.inputs, other].map(decoder)
        for (step, tokens) in [[3, 4], [5, 6], [7, 8]].enumerated() {
            for index in together.indices {
                #expect(try together[index].nextLogits(tokens, continuing: [1, 0]) == alone[index][step])
            }
        }
    }

    @Test func decodersTakeTokensOfTheirHypotheses() throws {
        let (golden, session) = (try golden("mplug-vqa/golden-beam"), try session("mplug-vqa"))
        let decoder = try Decoder(session, golden.inputs, hypotheses: 2, steps: 3)
        for (tokens, rows) in [([1], [0]), ([1, 2], [0]), ([1, 2], [0, 2]), ([1, 2], [-1, 0])] {
            #expect { try decoder.nextLogits(tokens, continuing: rows) } throws: { ($0 as? TripsError)?.kind == .usage }
        }
        #expect(try decoder.nextLogits([1, 2], continuing: [0, 1]).count == 2)
    }

    @Test(arguments: ["mplug-vqa", "mplug-caption"])
    func generationStaysWithinTheDecodersPositions(_ architecture: String) throws {
        let (inputs, session) = (try golden("\(architecture)/golden-beam").inputs, try session(architecture))
        let weights = try SafetensorsFile(path: "\(fixtures)/\(architecture)/checkpoint.safetensors").tensors
        let table = try #require(weights.first { $0.name == "text_decoder.bert.embeddings.position_embeddings.weight" })
        let rows = table.constant.shape[0]
        let longest = Generation(method: .beam, startID: 1, endID: 2, beam: 5, maximalLength: rows)
        #expect(try session.generate(inputs, longest).ids.count <= rows + 1)
        for (parameters, words) in [
            (Generation(method: .beam, maximalLength: rows + 1), "found \(rows + 1); expected 1 to \(rows)"),
            (Generation(method: .beam, beam: 33, maximalLength: 10), "found 33; expected 1 to 32"),
            (Generation(method: .beam, beam: 0, maximalLength: 10), "found 0"),
            (Generation(method: .beam, minimalLength: 4, maximalLength: 3), "minimalLength; found 4; expected at most 3"),
            (Generation(method: .beam, startID: -1, maximalLength: 3), "startID; found -1; expected 0 or more"),
            (Generation(method: .beam, maximalLength: 10, alpha: .nan), "finite"),
            (Generation(method: .beam, maximalLength: 10, alpha: .infinity), "finite"),
        ] {
            #expect { try session.generate(inputs, parameters) } throws: {
                ($0 as? TripsError)?.kind == .usage && "\($0)".contains(words)
            }
        }
    }

    /// A golden set that states the longest length alone, below the package's shortest.
    @Test func aShorterLengthThanThePackagesIsGenerated() throws {
        let (inputs, session) = (try golden("mplug-caption/golden-beam").inputs, try session("mplug-caption"))
        #expect(try #require(session.model.manifest.generation).minimalLength > 4)
        let metadata = GoldenMetadata(["max_length": "4", "start_id": "3", "end_id": "2"])
        let results = try SessionRunner(session).decode(["ids"], inputs: inputs, metadata: metadata)
        #expect(try #require(results["ids"]).count <= 5)
    }

    /// An end that no vocabulary holds is never reached, and nothing is suppressed before it.
    @Test func anEndOutsideOfTheVocabularyIsNotReached() throws {
        let inputs = try golden("mplug-caption/golden-beam").inputs
        let parameters = Generation(method: .beam, startID: 3, endID: 1 << 30, beam: 2, minimalLength: 3, maximalLength: 4)
        #expect(try session("mplug-caption").generate(inputs, parameters).ids.count == 5)
    }

    /// The end may come behind as many tokens as are asked for at least, and not before.
    @Test func theEndComesAtTheSoonestAfterTheShortestLength() throws {
        let (inputs, session) = (try golden("mplug-caption/golden-beam").inputs, try session("mplug-caption"))
        func generated(_ minimal: Int, end: Int) throws -> [Int] {
            try session.generate(
                inputs, Generation(method: .beam, startID: 3, endID: end, minimalLength: minimal, maximalLength: 6)
            ).ids
        }
        let free = try generated(0, end: 1 << 30)
        let (place, end) = try #require(free.enumerated().first { $0.offset > 1 && !free[..<$0.offset].contains($0.element) })
        // Its place, counted behind the start, is one more than the tokens in front of it.
        for minimal in 0..<place { #expect(try generated(minimal, end: end) == Array(free[...place])) }
        let later = try generated(place, end: end)
        #expect(later[..<place] == free[..<place] && later[place] != end)
    }

    @Test func answersThatCannotBeRankedAreRefused() throws {
        let (inputs, session) = (try golden("albef-vqa/golden-ranking").inputs, try session("albef-vqa"))
        let ids = try #require(inputs["answer_ids"])
        func refused(k: Int = 1, _ words: String, _ change: (inout [String: Tensor]) throws -> Void = { _ in }) throws {
            var inputs = inputs
            try change(&inputs)
            #expect { try session.rankAnswers(inputs, k: k) } throws: {
                ($0 as? TripsError)?.kind == .usage && "\($0)".contains(words)
            }
        }
        try refused(k: 0, "answers to rank")
        try refused(k: ids.shape[0] + 1, "answers to rank")
        try refused("answers to rank") {
            $0["answer_mask"] = try Tensor([Int64](repeating: 1, count: ids.count), shape: [ids.count])
        }
        try refused("answers to rank") {
            for name in ["answer_ids", "answer_mask"] { $0[name] = try Tensor([Int64](repeating: 1, count: 4), shape: [4]) }
        }
        try refused("answers to rank") {
            for name in ["answer_ids", "answer_mask"] { $0[name] = try Tensor([Int64](repeating: 1, count: 4), shape: [4, 1]) }
        }
        try refused("answer token") {
            $0["answer_ids"] = try Tensor((0..<ids.count).map { $0 == 1 ? Int64(1 << 30) : 1 }, shape: ids.shape)
        }
        try refused("answer token") { $0["answer_ids"] = try Tensor((0..<ids.count).map { $0 == 1 ? -1 : 1 }, shape: ids.shape) }
        try refused("expected one example") { inputs in
            for name in ["image", "input_ids", "attention_mask"] {
                inputs[name] = try inputs[name].map { try Tensor.joined([$0, $0]) }
            }
        }
        #expect(try session.rankAnswers(inputs, k: ids.shape[0]).indices.count == ids.shape[0])
    }

    @Test func groundingAnswersTheReferenceBox() throws {
        let golden = try golden("mplug-grounding/golden-box")
        let session = try session("mplug-grounding")
        let generation = try #require(session.model.manifest.generation)
        #expect(generation.method == .greedy && generation.maximalLength == 4)
        let box = try session.ground(golden.inputs, generation)
        let expected: [Float] = try #require(golden.outputs["box"]).elements()
        #expect(box == expected)
        for change in [{ $0.targetCount = 1 }, { $0.firstTargetID = nil }] as [(inout Generation) -> Void] {
            var generation = generation
            change(&generation)
            #expect { try session.ground(golden.inputs, generation) } throws: { ($0 as? TripsError)?.kind == .usage }
        }
    }

    @Test func answersAreRankedAsByTheReference() throws {
        let golden = try golden("albef-vqa/golden-ranking")
        let ranking = try session("albef-vqa").rankAnswers(golden.inputs, k: #require(golden.metadata["k"].flatMap { Int($0) }))
        let ids: [Int64] = try #require(golden.outputs["topk_ids"]).converted(to: .int64).elements()
        let probabilities: [Float] = try #require(golden.outputs["topk_probs"]).elements()
        // Two candidates are the same answer: which of them comes first is nobody's to say.
        let answers: [Int64] = try #require(golden.inputs["answer_ids"]).elements()
        func answer(_ index: Int) -> ArraySlice<Int64> { answers[index * 6..<(index + 1) * 6] }
        #expect(ranking.indices.map { Array(answer($0)) } == ids.map { Array(answer(Int($0))) })
        #expect(Set(ranking.indices.map { Int64($0) }) == Set(ids))
        for (found, expected) in zip(ranking.probabilities, probabilities) { #expect(abs(found - expected) < 1e-5) }
    }
}
