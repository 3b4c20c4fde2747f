import Goldens
import PackageFormat
import Preprocessing
import Support
import Tensors
import TestSupport
import Testing
import Verification

/// A model whose answers are given.
private struct FakeModel: ModelRunner {
    var inputNames = ["image"]
    var outputNames: [String]
    var traceNames: [String] = []
    var leadingTokens = 1
    var imageTokenOutputs: Set<String> = []
    var isOrderedByScore = false
    var values: [String: Tensor]

    func run(_ inputs: [String: Tensor], outputs: [String], traces: [String]) throws -> [String: Tensor] {
        if let missing = inputNames.first(where: { inputs[$0] == nil }) { throw TripsError.usage("input \(missing) is missing") }
        return values.filter { outputs.contains($0.key) || traces.contains($0.key) }
    }

    func decodedNames(among _: [String]) -> [String] { [] }
    func decode(_: [String], inputs _: [String: Tensor], metadata _: GoldenMetadata) throws -> [String: Tensor] { [:] }
}

private func floats(_ elements: [Float], _ shape: [Int]? = nil) throws -> Tensor {
    try Tensor(elements, shape: shape ?? [1, elements.count])
}
private func indices(_ elements: [Int64]) throws -> Tensor { try Tensor(elements, shape: [1, elements.count]) }

private func golden(_ outputs: [String: Tensor], _ intermediates: [String: Tensor] = [:]) throws -> GoldenSet {
    GoldenSet(name: "set", inputs: ["image": try floats([0])], outputs: outputs, intermediates: intermediates)
}

private func report(
    _ model: FakeModel, _ golden: GoldenSet, intermediates: Bool = false, preset: TolerancePreset? = nil, minimalSNR: Double? = nil,
    atol: Double? = nil, drawing: IllustrationOptions? = nil
) throws -> VerificationReport {
    var options = VerificationOptions()
    options.intermediates = intermediates
    options.illustrations = drawing
    options.tolerances.snr = minimalSNR.map { [ToleranceRule(value: $0)] } ?? []
    options.tolerances.absolute = atol.map { [ToleranceRule(value: $0)] } ?? []
    if let preset { (options.tolerances.preset, options.tolerances.allowsFlips) = (preset, true) }
    var verifier = try Verifier(model, options: options)
    try verifier.verify(golden)
    return verifier.finished(label: "f32")
}

@Test func aModelThatAnswersAsTheGoldenPasses() throws {
    let y = try floats([1, 2, 3])
    let result = try report(FakeModel(outputNames: ["y"], values: ["y": y]), golden(["y": y]))
    #expect(result.passes && result.outputs.map(\.name) == ["y"])
}

@Test func aGoldenOutputWithoutCounterpartFails() throws {
    let y = try floats([1])
    let result = try report(FakeModel(outputNames: ["y"], values: ["y": y]), golden(["y": y, "z": y]))
    #expect(!result.passes)
    #expect(result.outputs.first { $0.name == "z" }?.worst.reason == "no counterpart")
    #expect(result.notes == ["outputs that the model does not have: z; it has y"])
}

@Test func anotherFloatingPointTypeFailsWithItsFigures() throws {
    let y = try floats([1, 2, 0.1])
    let result = try report(FakeModel(outputNames: ["y"], values: ["y": y]), golden(["y": y.converted(to: .float16)]))
    let judgement = try #require(result.outputs.first?.worst)
    #expect(judgement.verdict == .fail && judgement.reason == "data type float32; expected float16")
    // 0.1 is off by 2.4e-5 in half precision.
    #expect(abs((judgement.metrics?.absolute.maximum ?? 0) - 2.44e-5) < 1e-7 && judgement.shape == y.shape)
}

@Test func intermediatesAreJudgedOnlyWhenAskedFor() throws {
    let (y, other) = (try floats([1]), try floats([2]))
    let model = FakeModel(outputNames: ["y"], traceNames: ["vision.1"], values: ["y": y, "vision.1": other])
    let set = try golden(["y": y], ["vision.1": y, "vision.2": y])
    let without = try report(model, set)
    #expect(without.passes && without.notes.contains { $0.contains("not judged") })
    let with = try report(model, set, intermediates: true)
    #expect(!with.passes && with.intermediates.map(\.verdict) == [.fail, .fail])
    #expect(with.divergence?.firstFailure == "vision.1")
}

@Test func inputsThatTheModelDoesNotReadAreTold() throws {
    let y = try floats([1])
    var set = try golden(["y": y])
    set.inputs["sound"] = y
    #expect(
        try report(FakeModel(outputNames: ["y"], values: ["y": y]), set).notes == [
            "inputs that the model does not have: sound; it has image"
        ])
}

@Test func theSetThatDivergesEarliestIsNamed() throws {
    let (y, other) = (try floats([1]), try floats([2]))
    let states = ["vision.1", "vision.2"]
    var options = VerificationOptions()
    options.intermediates = true
    var verifier = try Verifier(
        FakeModel(outputNames: ["y"], traceNames: states, values: ["y": y, "vision.1": y, "vision.2": y]), options: options)
    for (name, state) in [("late", "vision.2"), ("early", "vision.1"), ("late again", "vision.2")] {
        let reference = Dictionary(uniqueKeysWithValues: states.map { ($0, $0 == state ? other : y) })
        try verifier.verify(GoldenSet(name: name, inputs: ["image": y], outputs: ["y": y], intermediates: reference))
    }
    #expect(verifier.report.failureSet == "early" && verifier.report.divergence?.firstFailure == "vision.1")
}

/// A failure is named though another set's error jumps earlier, in whatever order they come.
@Test(arguments: [["jump", "failure"], ["failure", "jump"]]) func theFirstToFailIsNamedBesideAnEarlierJump(order: [String]) throws {
    let (y, near, far) = (try floats([1]), try floats([1.0001]), try floats([2]))
    let states = ["vision.1", "vision.2", "vision.3"]
    let references = ["jump": [near, near, near], "failure": [y, y, far]]
    var options = VerificationOptions()
    options.intermediates = true
    let values = Dictionary(uniqueKeysWithValues: (["y"] + states).map { ($0, y) })
    var verifier = try Verifier(FakeModel(outputNames: ["y"], traceNames: states, values: values), options: options)
    for name in order {
        let reference = Dictionary(uniqueKeysWithValues: zip(states, references[name] ?? []))
        try verifier.verify(GoldenSet(name: name, inputs: ["image": y], outputs: ["y": y], intermediates: reference))
    }
    let report = verifier.report
    #expect(report.divergence?.firstFailure == "vision.3" && report.failureSet == "failure")
    #expect(report.divergence?.firstJump?.name == "vision.1" && report.jumpSet == "jump")
    #expect(
        report.text.contains("first to fail, in the model's order: vision.3 (failure)\nfirst block whose error jumps: vision.1"))
    #expect(report.text.contains("dB (jump)\n"))
    let json = try report.json(
        PackageFacts(
            file: "m", bytes: 1, preset: .f32, manifest: .init(tool: .init(name: "test", version: "")), multiplyAccumulates: [:]))
    #expect(json.contains(#""firstFailure" : "vision.3""#))
    #expect(json.contains(#""set" : "failure""#) && json.contains(#""set" : "jump""#))
}

@Test func missingInputsAreBadData() throws {
    let y = try floats([1])
    let model = FakeModel(inputNames: ["image", "input_ids"], outputNames: ["y"], values: ["y": y])
    #expect { try report(model, golden(["y": y])) } throws: { error in
        (error as? TripsError)?.kind == .data && (error as? TripsError)?.message == "input input_ids is missing"
    }
}

@Test func aToleranceThatNamesNothingIsAUsageError() throws {
    var options = VerificationOptions()
    options.tolerances.absolute = [ToleranceRule(pattern: "nosuch", value: 1)]
    let model = FakeModel(outputNames: ["y"], values: [:])
    #expect { try Verifier(model, options: options) } throws: { ($0 as? TripsError)?.kind == .usage }
}

@Test func rankingsMayDifferInTiesAlone() throws {
    func verdict(_ own: [Int64], _ theirs: [Int64], _ chances: [Float], rows: Int = 1) throws -> Judgement {
        let shape = [rows, theirs.count / rows], probabilities = try floats(chances, shape)
        let model = FakeModel(
            outputNames: ["topk_ids", "topk_probs"],
            values: ["topk_ids": try Tensor(own, shape: [rows, own.count / rows]), "topk_probs": probabilities])
        let outputs = try ["topk_ids": Tensor(theirs, shape: shape), "topk_probs": probabilities]
        return try #require(report(model, golden(outputs)).outputs.first { $0.name == "topk_ids" }).worst
    }
    #expect(try verdict([7, 8, 9], [7, 8, 9], [0.5, 0.3, 0.2]).reason == nil)
    let tied = try verdict([7, 9, 8], [7, 8, 9], [0.5, 0.2, 0.2])
    #expect(tied.verdict == .pass && tied.reason?.contains("equal probability") == true)
    // Other answers, another order, and a tie in the other row.
    #expect(try verdict([7, 8, 6], [7, 8, 9], [0.5, 0.2, 0.2]).verdict == .fail)
    #expect(try verdict([8, 7, 9], [7, 8, 9], [0.5, 0.3, 0.3]).verdict == .fail)
    #expect(try verdict([2, 1, 4, 3], [1, 2, 3, 4], [0.5, 0.5, 0.6, 0.4], rows: 2).verdict == .fail)
    #expect(try verdict([2, 1], [1, 2, 3], [0.5, 0.5, 0.5]).verdict == .fail)
    // Numbers that are none equal nothing, not even themselves.
    #expect(try verdict([8, 7], [7, 8], [.nan, .nan]).verdict == .fail)
    #expect(try verdict([7, 9, 8], [7, 8, 9], [.infinity, 0.2, 0.2]).verdict == .pass)
}

/// As large as files may make it: time must not grow with the square of the names.
@Test func goldenSetsMayNameVeryMuch() throws {
    let y = try floats([1])
    let outputs = Dictionary(uniqueKeysWithValues: (0..<100_000).map { ("out \($0)", y) })
    let time = try processorSeconds {
        let result = try report(FakeModel(outputNames: ["y"], values: ["y": y]), golden(outputs.merging(["y": y]) { $1 }))
        #expect(result.outputs.count == 100_001 && result.outputs.count { $0.verdict == .pass } == 1)
    }
    #expect(time < 30, "one second, or a minute and a half")
}

@Test func worstSetsAreNamed() throws {
    let model = FakeModel(outputNames: ["y"], values: ["y": try floats([1])])
    var verifier = try Verifier(model, options: VerificationOptions())
    for (name, value) in [("a", 1.00001), ("b", 1.5), ("c", 1)] as [(String, Float)] {
        try verifier.verify(GoldenSet(name: name, inputs: ["image": floats([0])], outputs: ["y": floats([value])]))
    }
    let summary = try #require(verifier.report.outputs.first)
    #expect(summary.worstSet == "b" && summary.failedSets == 1 && summary.sets == 3)
    #expect(summary.maximalError?.worstSet == "b")
    try verifier.verify(GoldenSet(name: "nan", inputs: ["image": floats([0])], outputs: ["y": floats([.nan])]))
    let last = try #require(verifier.report.outputs.first)
    #expect(last.worstSet == "nan" && last.snr?.worstSet == "nan" && last.snr?.worst.isNaN == true)
    // Of four sets the second worst: 1 for 1.5, 20 log10 3 dB.
    #expect(abs(try #require(last.snr).median - 9.542425094393248) < 1e-9)
    #expect(abs(try #require(summary.maximalError).median - 1e-5) < 1e-6)
}

/// By their tolerance, not by an SNR that nothing asked for; by SNR where that was asked for.
@Test(arguments: [["near", "small"], ["small", "near"]]) func theWorstSetIsThatOfTheCriterion(order: [String]) throws {
    // 90 % of the tolerance at 0 dB, 0.1 % at -19 dB.
    let references: [String: Float] = ["near": 9e-5, "small": 1e-8]
    for (minimalSNR, worst) in [(nil, "near"), (-100, "small")] as [(Double?, String)] {
        var options = VerificationOptions()
        options.tolerances.snr = minimalSNR.map { [ToleranceRule(value: $0)] } ?? []
        var verifier = try Verifier(FakeModel(outputNames: ["y"], values: ["y": floats([1e-7])]), options: options)
        for name in order {
            let reference = try floats([#require(references[name])])
            try verifier.verify(GoldenSet(name: name, inputs: ["image": floats([0])], outputs: ["y": reference]))
        }
        let summary = try #require(verifier.report.outputs.first)
        #expect(summary.worstSet == worst && summary.snr?.worstSet == "small" && summary.verdict == .pass)
    }
}

// MARK: Selections

private let scores: [Float] = [0.4, 0.3, 0.1001, 0.1, 0.0999]

private func selection(_ kept: [Int64], _ scores: [Float]) throws -> [String: Tensor] {
    ["selection.2.indices": try indices(kept), "selection.2.scores": try floats(scores)]
}

private func selectingModel(_ kept: [Int64], _ scores: [Float], _ y: Tensor) throws -> FakeModel {
    FakeModel(
        outputNames: ["image_embeds"], traceNames: ["selection.2.indices", "selection.2.scores"],
        values: try selection(kept, scores).merging(["image_embeds": y]) { first, _ in first })
}

@Test func equalSelectionsReportTheirMargin() throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    let result = try report(
        selectingModel([0, 1, 2], scores, y), golden(["image_embeds": y], selection([0, 1, 2], scores)), intermediates: true)
    #expect(result.passes)
    let found = try #require(result.selections.first?.worst)
    #expect(found.overlap == 1 && found.flips == 0 && found.kept == 3 && found.tokens == 5)
    #expect(abs(try #require(found.margin) - 0.0001 / 0.1001) < 1e-5)
}

@Test func theMarginIsTheSmallestOfTheBatch() throws {
    let traces = try [
        "selection.5.indices": Tensor([Int64(0), 0, 0], shape: [3, 1]),
        "selection.5.scores": floats([0.6, 0.4, 0.51, 0.49, 0.7, 0.3], [3, 2]),
    ]
    let model = FakeModel(outputNames: [], traceNames: Array(traces.keys), values: traces)
    let found = try #require(report(model, golden([:], traces), intermediates: true).selections.first?.worst)
    #expect(abs(try #require(found.margin) - 0.02 / 0.51) < 1e-6)
}

/// Without positions: one more score than kept tokens is a fused token's.
@Test func theNextScoresTellWhetherTokensWereFused() throws {
    func positions(_ next: [Float]) throws -> [[[Int]]] {
        try SelectionTrail([
            "selection.1.indices": Tensor([Int64(0), 2], shape: [1, 2]), "selection.1.scores": floats([4, 1, 3, 2], [1, 4]),
            "selection.2.indices": Tensor([Int64(1)], shape: [1, 1]), "selection.2.scores": floats(next, [1, next.count]),
        ]).layers.map(\.positions)
    }
    #expect(try positions([1, 2]) == [[[0, 2]], [[2, -1]]])
    #expect(try positions([1, 2, 0]) == [[[0, 2, -1]], [[2, -1]]])
}

@Test func aFlipWithinTheMarginIsToldFromAWrongSelection() throws {
    // [CLS], patches 0 and 1, one that flipped, the fused token.
    let (own, reference) = (try floats([1, 2, 3, 9, 5], [1, 5, 1]), try floats([1, 2, 3, 4, 5], [1, 5, 1]))
    let close: [Float] = [0.4, 0.3, 0.1000, 0.1002, 0.0998]
    let set = try golden(["image_embeds": reference], selection([0, 1, 2], scores))
    let strict = try report(selectingModel([0, 1, 3], close, own), set, intermediates: true)
    #expect(!strict.passes)
    let comparison = try #require(strict.selections.first?.worst)
    #expect(comparison.flips == 1 && comparison.overlap == 0.5)
    #expect(comparison.isExplained(within: 2e-3) && !comparison.isExplained(within: 1e-4))

    // int8: explained by the arithmetic, and the tokens that both kept are compared by their patch.
    let lenient = try report(selectingModel([0, 1, 3], close, own), set, intermediates: true, preset: .int8)
    #expect(lenient.passes)
    let embeds = try #require(lenient.outputs.first?.worst)
    #expect(embeds.alignment?.unmatched == 1 && embeds.metrics?.snr == .infinity)

    // A ratio leaves out no token without a partner where flips are not allowed.
    let unallowed = try report(selectingModel([0, 1, 3], close, own), set, minimalSNR: 10)
    #expect(unallowed.outputs.first?.worst.reason == "1 tokens have no counterpart after a flipped selection")
    #expect(unallowed.outputs.first?.verdict == .fail && unallowed.outputs.first?.worst.metrics?.snr == .infinity)

    // Nor does a tolerance of elements, even where they are, unless the token passes beside that of another patch.
    func elementwise(_ atol: Double) throws -> Judgement? {
        try report(selectingModel([0, 1, 3], close, own), set, preset: .int8, atol: atol).outputs.first?.worst
    }
    #expect(try elementwise(1)?.reason == "1 tokens have no counterpart after a flipped selection")
    #expect(try elementwise(6)?.verdict == .pass)

    // The same behind [CLS] and two registers.
    let (longer, other) = (try floats([1, 7, 8, 2, 3, 9, 5], [1, 7, 1]), try floats([1, 7, 8, 2, 3, 4, 5], [1, 7, 1]))
    var model = try selectingModel([0, 1, 3], close, longer)
    model.leadingTokens = 3
    let longerSet = try golden(["image_embeds": other], selection([0, 1, 2], scores))
    let behind = try report(model, longerSet, intermediates: true, preset: .int8)
    #expect(behind.outputs.first?.worst.alignment?.unmatched == 1 && behind.outputs.first?.worst.metrics?.snr == .infinity)

    // Kept something that its own scores put last.
    let wrong = try report(selectingModel([0, 1, 4], scores, own), set, intermediates: true, preset: .int8)
    #expect(!wrong.passes)
    #expect(wrong.selections.first?.worst.followsItsScores == false)
    // Also where only outputs are judged.
    let outputs = try report(selectingModel([0, 1, 4], scores, own), set, preset: .int8).outputs
    #expect(outputs.map(\.verdict) == [.fail] && outputs.first?.worst.reason?.contains("no counterpart") == true)
}

/// What a reference says of its selections does not change what its outputs are.
@Test(arguments: [nil, 60] as [Double?], [[0, 1, 4], [0, 1, 2, 3]] as [[Int64]])
func whatPassesAsItStandsPasses(minimalSNR: Double?, kept: [Int64]) throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    let set = try golden(["image_embeds": y], selection(kept, scores))
    let result = try report(selectingModel([0, 1, 2], scores, y), set, minimalSNR: minimalSNR)
    #expect(result.passes && result.outputs.first?.worst.metrics?.count == 5)
    let judged = try report(selectingModel([0, 1, 2], scores, y), set, intermediates: true, minimalSNR: minimalSNR)
    #expect(judged.intermediates.filter { $0.verdict == .fail }.map(\.name) == ["selection.2.indices"])
    #expect(judged.outputs.first?.verdict == .pass)
}

/// In the second example the model keeps patch 1 instead of 3, and errs in what shows patch 2.
@Test func theWorstPlaceOfTokensThatFlippedIsTheReferences() throws {
    let name = "image_embeds"
    func tensors(_ kept: [Int64], _ scores: [Float], _ tokens: [Float]) throws -> [String: Tensor] {
        try [
            "selection.2.indices": Tensor([0, 1] + kept, shape: [2, 2]),
            "selection.2.scores": floats([0.5, 0.4, 0.1, 0.1] + scores, [2, 4]),
            name: floats([1, 1, 2, 2, 3, 3, 9, 9] + tokens, [2, 4, 2]),
        ]
    }
    let own = try tensors([1, 2], [0, 0.2001, 0.4, 0.2], [1, 1, 5, 5, 6, 6.5, 9, 9])
    let reference = try tensors([2, 3], [0, 0.2, 0.4, 0.2001], [1, 1, 6, 6, 4, 4, 9, 9])
    let model = FakeModel(outputNames: [name], traceNames: ["selection.2.indices", "selection.2.scores"], values: own)
    let set = try golden(reference.filter { $0.key == name }, reference.filter { $0.key != name })
    let metrics = try #require(report(model, set, preset: .int8).outputs.first?.worst.metrics)
    #expect(metrics.worstIndex == [1, 1, 1] && metrics.worstPair?.value == 6.5 && metrics.count == 14)
}

/// Whatever the arithmetic: the model keeps the highest scores, and the reference, of the same scores, others.
@Test(arguments: [[2, 3, 4], [1, 2, 3], [0, 1, 1], [0, 0, 0]] as [[Int64]], [TolerancePreset.f32, .f16, .bf16, .int8])
func aReferenceThatKeptOthersThanItsScoresSayExplainsNothing(kept: [Int64], preset: TolerancePreset) throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    let set = try golden(["image_embeds": y], selection(kept, scores))
    let result = try report(selectingModel([0, 1, 2], scores, y), set, intermediates: true, preset: preset)
    #expect(result.intermediates.first { $0.name == "selection.2.indices" }?.verdict == .fail)
    let comparison = try #require(result.selections.first?.worst)
    #expect(comparison.flips == Set([0, 1, 2]).subtracting(kept).count && !comparison.isExplained(within: 0.5))
}

/// Neither where an earlier flip, which is explained, changed what it chose from.
@Test func aReferenceThatKeptOthersThanItsLaterScoresSayExplainsNothing() throws {
    func judged(_ reference: [Int64]) throws -> VerificationReport {
        var (model, set) = try modelThatFlips()
        set.intermediates["selection.5.indices"] = try indices(reference)
        model.values["selection.5.indices"] = try indices([0, 1])
        return try report(model, set, intermediates: true, preset: .int8)
    }
    #expect(try judged([0, 1]).passes)
    let result = try judged([2, 3])
    #expect(result.intermediates.filter { $0.verdict == .fail }.map(\.name).contains("selection.5.indices"))
    #expect(result.selections.last?.worst.explanation == "not what the reference's scores say")
}

/// What follows from a flip that the arithmetic explains is not judged; what follows from another one fails.
@Test func positionsBehindAWrongSelectionFail() throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    func verdict(_ kept: [Int64], _ own: [Float], _ reference: [Float]) throws -> Verdict? {
        let name = "selection.2.positions"
        var (traces, theirs) = (try selection(kept, own), try selection([0, 1, 2], reference))
        (traces[name], theirs[name]) = (try indices(kept + [-1]), try indices([0, 1, 2, -1]))
        let model = FakeModel(
            outputNames: ["image_embeds"], traceNames: traces.keys.sorted(), values: traces.merging(["image_embeds": y]) { $1 })
        let result = try report(model, golden(["image_embeds": y], theirs), intermediates: true, preset: .int8)
        let skipped = result.intermediates.count { $0.verdict == .unjudged }
        #expect(result.junit.contains("skipped=\"\(skipped)\"") && result.junit.split(separator: "<skipped").count == skipped + 1)
        return result.intermediates.first { $0.name == name }?.verdict
    }
    #expect(try verdict([0, 1, 3], [0.4, 0.3, 0.1000, 0.1002, 0.0998], scores) == .unjudged)
    // The model follows its own scores, but they are far from the reference's.
    #expect(try verdict([0, 1, 3], [0.4, 0.3, 0.1, 0.2, 0.01], [0.4, 0.3, 0.1, 0.02, 0.01]) == .fail)
}

@Test func patchesThatFlippedAreDrawnWithAnEdge() throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    let facts = PackageFacts(
        file: "m", bytes: 1, preset: .f32, manifest: .init(tool: .init(name: "test", version: "")), multiplyAccumulates: [:])
    for (kept, edges) in [([0, 1, 2] as [Int64], 0), ([0, 1, 3], 2)] {
        let set = try picture(golden(["image_embeds": y], selection([0, 1, 2], scores)))
        let html = try report(selectingModel(kept, scores, y), set, drawing: IllustrationOptions()).html(facts)
        #expect(html.split(separator: "class=\"flip\"").count == edges + 1)
    }
}

@Test func scoresThatAreNotFiniteExplainNoFlip() throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    let set = try golden(["image_embeds": y], selection([0, 1, 2], [0.4, 0.3, .nan, 0.1, 0.0999]))
    let result = try report(
        selectingModel([0, 1, 3], [0.4, 0.3, 0.1, 0.1002, 0.0998], y), set, intermediates: true, preset: .int8)
    #expect(result.selections.first?.worst.isExplained(within: 1) == false)
}

/// An image of five square patches, and what goes with it.
private func picture(_ golden: GoldenSet, _ inputs: [String: Tensor] = [:]) throws -> GoldenSet {
    var golden = golden
    golden.inputs = inputs.merging(["image": try floats(Array(repeating: 0.5, count: 15), [1, 3, 1, 5])]) { first, _ in first }
    return golden
}

@Test func drawingSelectionsChangesNoVerdict() throws {
    let model = try selectingModel([0, 1, 2], scores, floats([1, 2, 3, 4, 5], [1, 5, 1]))
    let set = try picture(golden(["image_embeds": floats([1, 2, 3, 4, 5, 6], [1, 6, 1])]))
    for drawing in [nil, IllustrationOptions()] {
        let result = try report(model, set, minimalSNR: -100, drawing: drawing)
        #expect(!result.passes && result.outputs.first?.worst.reason == "shape [1, 5, 1]; expected [1, 6, 1]")
        #expect(result.illustrations.count == (drawing == nil ? 0 : 1))
    }
}

/// The second selection scores what the first one left, in its order, and a fused token.
@Test func laterScoresAreDrawnOnTheirPatches() throws {
    let y = try floats([1, 2, 3], [1, 3, 1])
    var model = try selectingModel([1, 2, 4], scores, y)
    model.traceNames += ["selection.3.indices", "selection.3.scores"]
    model.values["selection.3.indices"] = try indices([0, 2])
    model.values["selection.3.scores"] = try floats([0.5, 0.25, 0.75, 0.125])
    let layers = try #require(
        report(model, picture(golden(["image_embeds": y])), drawing: IllustrationOptions()).illustrations.first?.layers)
    #expect(layers.map(\.number) == [2, 3] && layers.map(\.kept) == [[1, 2, 4], [1, 4]])
    #expect(layers.last?.scores == [1: 0.5, 2: 0.25, 4: 0.75])
}

@Test func scoresThatAreNotFiniteAreNotDrawn() throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    let result = try report(
        selectingModel([0, 1, 2], [3, .nan, 2, .infinity, 1], y), picture(golden(["image_embeds": y])),
        drawing: IllustrationOptions())
    #expect(result.illustrations.first?.layers.first?.scores == [0: 3, 2: 2, 4: 1])
    let facts = PackageFacts(
        file: "m", bytes: 1, preset: .f32, manifest: .init(tool: .init(name: "test", version: "")), multiplyAccumulates: [:])
    #expect(result.html(facts).contains("scores at block"))
}

/// A model that keeps another patch than a golden set, within the margin: behind that, the next scores are of other patches,
/// far apart, and not judged.
private func modelThatFlips() throws -> (model: FakeModel, set: GoldenSet) {
    let later = { (values: [Float]) in try ["selection.5.indices": indices([0, 1]), "selection.5.scores": floats(values)] }
    var model = try selectingModel([0, 1, 3], [0.4, 0.3, 0.1000, 0.1002, 0.0998], floats([1, 2, 3, 4, 5.001], [1, 5, 1]))
    model.traceNames += ["selection.5.indices", "selection.5.scores"]
    model.values.merge(try later([0.5, 0.4, 0.09, 0.01])) { $1 }
    let kept = try selection([0, 1, 2], scores).merging(later([0.5, 0.4, 0.01, 0.09])) { $1 }
    return (model, try golden(["image_embeds": floats([1, 2, 3, 4, 5], [1, 5, 1])], kept))
}

@Test func theHistogramIsOfATensorThatWasJudged() throws {
    let (model, set) = try modelThatFlips()
    let result = try report(model, set, intermediates: true, preset: .int8)
    #expect(result.passes && result.intermediates.first { $0.name == "selection.5.scores" }?.verdict == .unjudged)
    let html = result.html(
        PackageFacts(
            file: "m", bytes: 1, preset: .int8, manifest: .init(tool: .init(name: "test", version: "")), multiplyAccumulates: [:]))
    #expect(html.contains("<h2>Errors of ") && !html.contains("Errors of selection.5.scores"))
}

@Test func theHistogramIsOfTheTensorOfLowestSNR() throws {
    let (z, near) = (try floats([1, 2]), try floats([1.00001, 2]))
    let facts = PackageFacts(
        file: "m", bytes: 1, preset: .f32, manifest: .init(tool: .init(name: "test", version: "")), multiplyAccumulates: [:])
    func html(_ own: [Float], _ reference: [Float]) throws -> String {
        let model = FakeModel(outputNames: ["y", "z"], values: ["y": try floats(own), "z": near])
        return try report(model, golden(["y": floats(reference), "z": z])).html(facts)
    }
    // NaN is below every number, and an error where the reference has nothing is infinitely far below.
    let mismatched = try html([.nan, 1], [1, 1])
    #expect(mismatched.contains("Errors of y,") && mismatched.contains("2 elements, NaN or infinity on one side at 1 place;"))
    #expect(try html([.nan, .nan], [1, 1]).contains("Errors of y,") && html([1, 1], [0, 0]).contains("Errors of y,"))
    // What is the same on both sides has no error, NaN or not.
    #expect(try html([.nan, .nan], [.nan, .nan]).contains("Errors of z,") && html([1, 1], [1, 1]).contains("Errors of z,"))
}

@Test func figuresAreOfASetThatWasJudged() throws {
    let (model, flipped) = try modelThatFlips()
    var same = flipped
    same.intermediates = model.values.filter { model.traceNames.contains($0.key) }
    var options = VerificationOptions()
    options.intermediates = true
    (options.tolerances.preset, options.tolerances.allowsFlips) = (.int8, true)
    for order in [[flipped, same], [same, flipped]] {
        var verifier = try Verifier(model, options: options)
        for set in order { try verifier.verify(set) }
        let scores = try #require(verifier.report.intermediates.first { $0.name == "selection.5.scores" })
        #expect(scores.verdict == .pass && scores.unjudgedSets == 1)
        #expect(scores.worst.verdict == .pass && scores.worst.metrics?.snr == .infinity)
    }
}

@Test func countingRightAnswersIsNoComparison() {
    var result = VerificationReport()
    result.accuracy = Accuracy(right: 3, count: 4, halves: [1, 0.5], seconds: 0.001)
    let html = result.html(
        PackageFacts(
            file: "m", bytes: 1, preset: .f32, manifest: .init(tool: .init(name: "test", version: "")), multiplyAccumulates: [:]))
    #expect(html.contains("≈ Measured") && html.contains("<h2>Right answers</h2>") && html.contains("3 of 4 (75.0 %)"))
    for words in ["ompared", "golden sets", "What it costs"] { #expect(!html.contains(words)) }
}

@Test func theReportSaysWhatItsFiguresAre() throws {
    let (y, long) = (try floats([1, 2, 4]), "/visual/blocks.0/Add_1_output_0")
    let model = FakeModel(
        outputNames: ["y"], traceNames: ["vision.0", long],
        values: ["y": try floats([1, 2, 8]), "vision.0": y, long: try floats([1, 2, 5])])
    let result = try report(model, golden(["y": y], ["vision.0": y, long: y]), intermediates: true)
    let facts = PackageFacts(
        file: "m", bytes: 1_500_000, preset: .f32, manifest: .init(tool: .init(name: "test", version: "")),
        multiplyAccumulates: ["main": 2_500_000])
    let html = result.html(facts)
    #expect(html.contains("exact at vision.0") && !html.contains("exact dB") && html.contains("exact ones at the upper edge"))
    #expect(html.contains(">…_1_output_0</text>"), "long names are cut where they stand below the plot")
    // |8 - 4| / (1e-4 + 1e-3 · 4)
    #expect(html.contains(" 976x</td>"))
    #expect(html.contains("2.50 MMACs for one example") && html.contains("1.50 MB"))
}

@Test func textForXMLHasNoCharacterThatXMLForbids() throws {
    let y = try floats([1])
    let name = "<y>\u{0}\u{FFFF}&\u{FFFE}\"\u{E9}"
    let result = try report(FakeModel(outputNames: [name], values: [name: y]), golden([name: y]))
    #expect(result.junit.contains("name=\"&lt;y&gt;??&amp;?&quot;\u{E9}\""))
}

@Test(arguments: [[3], [], [0, 3]]) func idsThatAreNoTextAreNotDrawn(shape: [Int]) throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    var drawing = IllustrationOptions()
    drawing.tokenizer = try WordPiece(vocabulary: "[PAD]\n[UNK]\n[CLS]\n[SEP]")
    let ids = try Tensor([Int64](repeating: 1, count: shape.reduce(1, *)), shape: shape)
    let set = try picture(golden(["image_embeds": y]), ["input_ids": ids])
    let result = try report(selectingModel([0, 1, 2], scores, y), set, drawing: drawing)
    #expect(result.passes && result.illustrations.count == 1 && result.illustrations.first?.text == nil)
}

@Test func numbersThatAreNoIdsAreNotDrawn() throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    var drawing = IllustrationOptions()
    drawing.tokenizer = try WordPiece(vocabulary: "[PAD]\n[UNK]\n[CLS]\n[SEP]")
    for (ids, isText) in [(try floats([1, 1, 1]), false), (try indices([1, 1, 1]), true)] {
        let result = try report(
            selectingModel([0, 1, 2], scores, y), picture(golden(["image_embeds": y]), ["input_ids": ids]), drawing: drawing)
        #expect(result.passes && (result.illustrations.first?.text != nil) == isText)
    }
}

/// What a golden file may hold where indices belong.
private let noIndices: [Tensor] = {
    let numbers = [Double.nan, 1e300, -1]
    let made: [Tensor?] = [
        try? Tensor(numbers.map { Float($0) }, shape: [1, 3]), try? Tensor(numbers, shape: [1, 3]),
        try? Tensor([.max, 0, 1] as [Int64], shape: [1, 3]), try? Tensor([.min, 0, 1] as [Int64], shape: [1, 3]),
        try? Tensor([0, 1, 2] as [Int64], shape: [3]), try? Tensor([] as [Int64], shape: [0, 3]),
        try? Tensor([0, 1, 5] as [Int64], shape: [1, 3]),
    ]
    return made.compactMap { $0 }
}()

@Test(arguments: noIndices.indices, ["indices", "positions"]) func whatIsNoIndexIsJudgedAsItIs(number: Int, part: String) throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    let name = "selection.2.\(part)"
    var traces = try selection([0, 1, 2], scores)
    traces["selection.2.positions"] = try indices([0, 1, 2])
    let model = FakeModel(
        outputNames: ["image_embeds"], traceNames: Array(traces.keys),
        values: traces.merging(["image_embeds": y]) { first, _ in first })
    traces[name] = noIndices[number]
    let result = try report(model, golden(["image_embeds": y], traces), intermediates: true)
    #expect(result.intermediates.filter { $0.verdict == .fail }.map(\.name) == [name])
    #expect(result.outputs.first?.verdict == .pass && result.selections.isEmpty)
}

@Test func indicesOfAnotherTypeOrShapeFail() throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    for (own, reference, words) in [
        (try Tensor([0, 1, 2] as [Int32], shape: [1, 3]), try indices([0, 1, 2]), "data type"),
        (try floats([0, 1, 2]), try floats([0, 1, 2]), "data type"), (try indices([0, 1]), try indices([0, 1, 2]), "shape"),
        (try Tensor([0, 1, 2] as [Int64], shape: [3]), try Tensor([0, 1, 2] as [Int64], shape: [3]), "shape"),
    ] {
        let name = "selection.2.indices"
        let model = FakeModel(outputNames: ["image_embeds"], traceNames: [name], values: ["image_embeds": y, name: own])
        let found = try #require(
            report(model, golden(["image_embeds": y], [name: reference]), intermediates: true, preset: .int8).intermediates.first)
        #expect(found.verdict == .fail && found.worst.reason?.contains(words) == true, "\(words)")
    }
}

@Test func positionsOfAnotherBatchAreNoTrail() throws {
    let y = try floats([1, 2, 3, 4, 5], [1, 5, 1])
    var traces = try selection([0, 1, 2], scores)
    traces["selection.2.positions"] = try Tensor([0, 1, 2, 0, 1, 2] as [Int64], shape: [2, 3])
    #expect(
        try report(selectingModel([0, 1, 2], scores, y), golden(["image_embeds": y], traces), intermediates: true).selections
            .isEmpty)
}

@Test func theOrderOfGoldenIndicesMeansNothing() throws {
    let names = ["selection.2.indices", "selection.2.scores", "selection.3.indices", "selection.3.scores"]
    func traces(_ first: [Int64], _ second: [Int64]) throws -> [String: Tensor] {
        let tensors = [try indices(first), try floats(scores), try indices(second), try floats([0.4, 0.3, 0.2, 0.1])]
        return Dictionary(uniqueKeysWithValues: zip(names, tensors))
    }
    let y = try floats([1, 2, 3, 4], [1, 4, 1])
    let model = FakeModel(
        outputNames: ["image_embeds"], traceNames: names,
        values: try traces([0, 1, 3], [0, 2]).merging(["image_embeds": y]) { $1 })
    let result = try report(model, golden(["image_embeds": y], traces([3, 0, 1], [2, 0])), intermediates: true)
    #expect(result.passes && result.selections.map(\.worst.flips) == [0, 0])
}

@Test func whatStandsBeforeAllSelectionsIsComparedAsItStands() throws {
    let whole = try floats([1, 2, 3, 4, 5, 6], [1, 6, 1])
    var model = try selectingModel([0, 1, 3], scores, floats([1, 2, 3, 9, 5], [1, 5, 1]))
    model.traceNames.append("vision.0")
    model.values["vision.0"] = whole
    let traces = try selection([0, 1, 2], scores).merging(["vision.0": whole]) { first, _ in first }
    let result = try report(model, golden(["image_embeds": floats([1, 2, 3, 4, 5], [1, 5, 1])], traces), intermediates: true)
    let entering = try #require(result.intermediates.first { $0.name == "vision.0" })
    #expect(entering.verdict == .pass && entering.worst.alignment == nil && entering.worst.metrics?.count == 6)
    #expect(result.outputs.first?.worst.alignment != nil)
}

@Test func eachFusedTokenIsComparedWithItsOwnKind() throws {
    // Behind the second selection: [CLS], one patch, what the first selection fused, what the second did.
    let first: [String: Tensor] = try selection([0, 1, 2], scores)
    func second(_ kept: [Int64], _ scores: [Float]) throws -> [String: Tensor] {
        try ["selection.5.indices": indices(kept), "selection.5.scores": floats(scores)].merging(first) { own, _ in own }
    }
    var model = try selectingModel([0, 1, 2], scores, floats([1, 9, 5, 6], [1, 4, 1]))
    model.traceNames += ["selection.5.indices", "selection.5.scores"]
    model.values.merge(try second([1, 3], [0.2, 0.2001, 0.1, 0.5])) { $1 }
    let set = try golden(["image_embeds": floats([1, 2, 5, 6], [1, 4, 1])], second([0, 3], [0.2001, 0.2, 0.1, 0.5]))
    let embeds = try #require(try report(model, set, intermediates: true, preset: .int8).outputs.first)
    #expect(embeds.worst.alignment?.unmatched == 1 && embeds.worst.metrics?.snr == .infinity)
}

@Test func keptPatchesInTheOrderOfTheirScoresMayChangePlaces() throws {
    // Patches 1 and 2 lie closer than the error of int8, so that they change places; nothing else differs.
    func traces(_ first: [Float], _ kept: [Int64], _ second: [Float]) throws -> [String: Tensor] {
        try selection([0, 1, 2], first).merging(["selection.5.indices": indices(kept), "selection.5.scores": floats(second)]) { $1 }
    }
    func judged(_ own: [Float], preset: TolerancePreset?, order: Bool = true) throws -> VerificationReport {
        var model = try selectingModel([0, 1, 2], own, floats([1, 2, 4, 6], [1, 4, 1]))
        model.isOrderedByScore = order
        model.traceNames += ["selection.5.indices", "selection.5.scores", "vision.2"]
        // The stream is 0, 2, 1, fused.
        model.values.merge(try traces(own, [0, 2], [0.5, 0.1, 0.3, 0.1])) { $1 }
        model.values["vision.2"] = try floats([1, 2, 3, 4, 5], [1, 5, 1])
        var reference = try traces([0.4, 0.2001, 0.2, 0.1, 0.1], [0, 1], [0.5, 0.3, 0.1, 0.1])
        reference["vision.2"] = try floats([1, 2, 4, 3, 5], [1, 5, 1])
        return try report(
            model, golden(["image_embeds": floats([1, 2, 4, 6], [1, 4, 1])], reference), intermediates: true, preset: preset)
    }
    let close = try judged([0.4, 0.2, 0.2001, 0.1, 0.1], preset: .int8)
    #expect(close.passes, "\(close.intermediates.filter { $0.verdict == .fail }.map(\.name))")
    #expect(close.selections.map(\.worst.flips) == [0, 0] && close.selections.map(\.worst.streamChanged) == [false, true])
    #expect(close.intermediates.first { $0.name == "vision.2" }?.worst.metrics?.snr == .infinity)
    // Neither where kept patches are to stay in their order, nor where scores lie far apart.
    #expect(try !judged([0.4, 0.2, 0.2001, 0.1, 0.1], preset: .int8, order: false).passes)
    let far = try judged([0.4, 0.2, 0.5, 0.1, 0.1], preset: .int8)
    #expect(far.selections.first?.worst.isExplained(within: 0.1) == false)
}

@Test func laterSelectionsAreComparedByOriginalPatch() throws {
    func trail(_ first: [Int64], _ second: [Int64]) throws -> SelectionTrail {
        // Five tokens, three stay, with the fused one four enter the second layer.
        try SelectionTrail([
            "selection.2.indices": indices(first), "selection.2.scores": floats([5, 4, 3, 2, 1]),
            "selection.5.indices": indices(second), "selection.5.scores": floats([4, 3, 2, 1]),
        ])
    }
    let same = try compareSelections(trail([0, 2, 4], [1, 2]), reference: trail([0, 2, 4], [1, 2]))
    #expect(same.map(\.overlap) == [1, 1])
    // The same places of the second stream mean other patches.
    let other = try compareSelections(trail([0, 1, 4], [1, 2]), reference: trail([0, 2, 4], [1, 2]))
    #expect(other.map(\.flips) == [1, 1] && other[1].streamChanged)
    #expect(abs(other[1].overlap - 1 / 3) < 1e-12)
    // Behind a flip, scores of the same places are of other patches.
    #expect(other.map { $0.scoreError == nil } == [false, true] && other[1].flipGap == nil)
}

// MARK: Divergence

private func judgement(_ verdict: Verdict, snr: Double) -> Judgement {
    var judgement = Judgement(verdict: verdict)
    judgement.metrics = Metrics([1], reference: [1], shape: [1])
    judgement.metrics?.snr = snr
    return judgement
}

@Test func theFirstBlockWhoseErrorJumpsIsNamed() {
    let smooth: [(name: String, judgement: Judgement)] = [
        ("text.0", judgement(.pass, snr: 140)), ("text.1", judgement(.pass, snr: 132)), ("vision.0", judgement(.pass, snr: 139)),
        ("vision.1", judgement(.pass, snr: 130)), ("fusion.1", judgement(.pass, snr: 126)),
    ]
    #expect(Divergence(smooth, noiseFloor: 1e-6) == Divergence())
    let planted = smooth.map { $0.name == "vision.1" || $0.name == "fusion.1" ? ($0.name, judgement(.pass, snr: 62)) : $0 }
        .shuffled()
    let found = Divergence(planted, noiseFloor: 1e-6)
    #expect(found.firstFailure == nil)
    #expect(found.firstJump == Divergence.Jump(name: "vision.1", before: 139, after: 62))
}

@Test func aJumpIsFiveTimesTheNoiseThatEntered() {
    // 12 dB are four times, 16 dB six times.
    func jump(_ before: [(String, Double)], _ after: (String, Double)) -> String? {
        Divergence((before + [after]).map { (name: $0.0, judgement: judgement(.pass, snr: $0.1)) }, noiseFloor: 1e-9).firstJump?
            .name
    }
    #expect(jump([("vision.0", 173), ("vision.1", 165)], ("vision.2", 153)) == nil)
    #expect(jump([("vision.0", 173), ("vision.1", 165)], ("vision.2", 149)) == "vision.2")
    // Into the fusion goes what the text brings as well.
    #expect(jump([("text.0", 170), ("text.1", 160), ("vision.0", 170)], ("fusion.1", 150)) == nil)
    #expect(jump([("text.0", 170), ("text.1", 160), ("vision.0", 170)], ("fusion.1", 140)) == "fusion.1")
}

@Test func whatCannotBeComparedIsNoJump() {
    let found = Divergence(
        [
            ("vision.1", judgement(.pass, snr: 130)), ("vision.2", .failed("shape [2]; expected [3]")),
            ("zzz", .failed("no counterpart")),
        ], noiseFloor: 1e-6)
    #expect(found == Divergence(firstFailure: "vision.2"))
    let broken = Divergence(
        [("vision.1", judgement(.pass, snr: 130)), ("vision.2", judgement(.fail, snr: .nan))], noiseFloor: 1e-6)
    #expect(broken.firstJump?.name == "vision.2" && broken.firstJump?.after.isNaN == true)
    // The reference has the same NaN.
    let same = Divergence([("vision.1", judgement(.pass, snr: 130)), ("vision.2", judgement(.pass, snr: .nan))], noiseFloor: 1e-6)
    #expect(same == Divergence())
}

@Test func canonicalOrderFollowsTheComputation() {
    let shuffled = [
        "fusion.1", "vision.10", "vision.2", "selection.2.scores", "text.0", "fusion.1.image", "vision.1", "selection.2.indices",
    ]
    #expect(
        canonicalOrder(shuffled) == [
            "text.0", "vision.1", "selection.2.scores", "selection.2.indices", "vision.2", "vision.10", "fusion.1",
            "fusion.1.image",
        ])
}
