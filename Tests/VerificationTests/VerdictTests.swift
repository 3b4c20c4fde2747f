import Foundation
import ModelGraph
import Support
import Tensors
import TestSupport
import Testing
import Verification

private func floats(_ elements: [Float], _ shape: [Int]? = nil) throws -> Tensor {
    try Tensor(elements, shape: shape ?? [elements.count])
}

private func verdict(_ x: [Float], _ g: [Float], _ criterion: Criterion) throws -> Verdict {
    try judge(floats(x), golden: floats(g), name: "y", criterion: criterion).verdict
}

private let standard = Criterion.elementwise(absolute: 1e-4, relative: 1e-3)

@Test func elementsPassUpToTheToleranceAndNotBeyond() throws {
    let exact = Criterion.elementwise(absolute: 0.5, relative: 0)
    #expect(try verdict([1.5], [1], exact) == .pass)
    #expect(try verdict([1.5000001], [1], exact) == .fail)
    #expect(try verdict([11], [10], .elementwise(absolute: 0, relative: 0.1)) == .pass)
    // Relative to the reference, not to the value.
    #expect(try verdict([10], [11.2], .elementwise(absolute: 0, relative: 0.11)) == .pass)
    #expect(try verdict([11.2], [10], .elementwise(absolute: 0, relative: 0.11)) == .fail)
    #expect(try verdict([0], [0], .elementwise(absolute: 0, relative: 0)) == .pass)
}

@Test func nonFiniteElementsMustStandInTheSamePlaces() throws {
    let (inf, nan) = (Float.infinity, Float.nan)
    #expect(try verdict([1, inf, -inf, nan], [1, inf, -inf, nan], standard) == .pass)
    #expect(try verdict([inf], [-inf], standard) == .fail)
    #expect(try verdict([nan], [1], standard) == .fail)
    #expect(try verdict([1], [nan], standard) == .fail)
    #expect(try verdict([1], [inf], .elementwise(absolute: 1, relative: 1)) == .fail)
    #expect(try verdict([nan], [1], .snr(-100)) == .fail)
}

@Test func theBatchIsNoLengthOfText() throws {
    var graph = Graph(name: "main")
    _ = try graph.addInput("image", ValueType(.float32, [Dimension(symbol: "n"), 3, 8, 8]))
    #expect(!graph.hasOpenLength)
    _ = try graph.addInput("ids", ValueType(.int64, [Dimension(symbol: "n"), Dimension(symbol: "sequence")]))
    #expect(graph.hasOpenLength)
}

/// No height of a picture is usual, and a text's length says nothing of it.
@Test func picturesOfAnySizeHaveNoUsualCost() throws {
    func cost(_ height: ModelGraph.Dimension) throws -> Int? {
        var graph = Graph(name: "main")
        let image = try graph.addInput("image", ValueType(.float32, [ModelGraph.Dimension(symbol: "batch"), 3, height, 8]))
        let kernel = try graph.addConstant(
            Constant(Tensor([Float](repeating: 1, count: 96), shape: [2, 3, 4, 4]), identity: "kernel"), name: "kernel")
        try graph.addOutput("tokens", graph.add(PatchEmbedding(), [image, kernel], name: "patches")[0])
        #expect(!graph.hasOpenLength)
        return try graph.exampleCost()?.multiplyAccumulates
    }
    #expect(try cost(8) == 4 * 96)
    #expect(try cost(ModelGraph.Dimension(symbol: "height")) == nil)
}

@Test func anotherShapeOrTypeFails() throws {
    #expect(try judge(floats([1, 2]), golden: floats([1, 2], [1, 2]), name: "y", criterion: standard).verdict == .fail)
    let double = try Tensor([1.0, 2.0], shape: [2])
    #expect(try judge(double, golden: floats([1, 2]), name: "y", criterion: standard).verdict == .fail)
}

@Test func integersAndBooleansMustBeEqual() throws {
    let (left, right) = (try Tensor([1, 2] as [Int64], shape: [2]), try Tensor([1, 3] as [Int64], shape: [2]))
    #expect(try judge(left, golden: left, name: "y", criterion: standard).verdict == .pass)
    #expect(try judge(left, golden: right, name: "y", criterion: .elementwise(absolute: 5, relative: 5)).verdict == .fail)
    let (yes, no) = (try Tensor([true], shape: [1]), try Tensor([false], shape: [1]))
    #expect(try judge(yes, golden: no, name: "y", criterion: .snr(-10)).verdict == .fail)
}

/// Double precision holds integers up to 2^53 alone.
@Test func largeIntegersDifferByWhatTheyDiffer() throws {
    func compared<Element: TensorElement>(_ x: Element, _ g: Element) throws -> (reason: String?, metrics: Metrics) {
        let judgement = try judge(Tensor([x], shape: [1]), golden: Tensor([g], shape: [1]), name: "y", criterion: standard)
        return (judgement.reason, try #require(judgement.metrics))
    }
    let signed = try compared((1 << 53) + 1 as Int64, 1 << 53)
    #expect(signed.metrics.absolute.maximum == 1 && abs(signed.metrics.snr - 1060 * log10(2)) < 1e-9)
    let unsigned = try compared((1 << 53) + 1 as UInt64, 1 << 53)
    #expect(unsigned.metrics.absolute.maximum == 1 && unsigned.metrics.snr.isFinite)
    let largest = try compared(UInt64.max, 0)
    #expect(largest.reason?.hasSuffix("18446744073709551615; expected 0") == true)
    #expect(largest.metrics.absolute.maximum == 0x1p64 && largest.metrics.worstPair?.value == 0x1p64)
    let extremes = try compared(Int64.min, .max)
    #expect(extremes.reason?.hasSuffix("-9223372036854775808; expected 9223372036854775807") == true)
    #expect(extremes.metrics.absolute.maximum == 0x1p64 && extremes.metrics.worstPair?.value == -0x1p63)
    #expect(try compared(UInt64.max, .max).metrics.snr == .infinity)
}

@Test func snrIsTakenOverTheWholeTensor() throws {
    // Σ g² = 100, Σ (g - x)² = 1: 20 dB.
    let judgement = try judge(floats([6, 9]), golden: floats([6, 8]), name: "y", criterion: .snr(20))
    #expect(judgement.verdict == .pass)
    #expect(abs(try #require(judgement.metrics).snr - 20) < 1e-12)
    #expect(try verdict([6, 9.01], [6, 8], .snr(20)) == .fail)
    #expect(try verdict([0, 0], [0, 0], .snr(300)) == .pass)
    #expect(try verdict([1, 0], [0, 0], .snr(0)) == .fail)
}

/// Squares of such numbers are none.
@Test(arguments: [1e-200, 1000 * Double.leastNonzeroMagnitude, 1e200, 1e308]) func anSNRIsTakenOfNumbersOfAnySize(size: Double)
    throws
{
    func judged(_ x: [Double], _ g: [Double]) throws -> Judgement {
        try judge(
            Tensor(x.map { $0 * size }, shape: [2]), golden: Tensor(g.map { $0 * size }, shape: [2]), name: "y", criterion: .snr(20)
        )
    }
    #expect(try judged([0, 0], [0.3, 0.4]).verdict == .fail && judged([0.5, -0.5], [-0.5, 0.5]).verdict == .fail)
    let close = try judged([1, 0.5], [1, 0.6])
    #expect(close.verdict == .pass && abs((close.metrics?.snr ?? 0) - 10 * log10(136)) < 0.1)
    #expect(abs((close.metrics?.cosine ?? 0) - 1.3 / (1.25 * 1.36).squareRoot()) < 1e-3)
    #expect(try judged([1, 0.5], [1, 0.5]).metrics?.snr == .infinity)
}

/// However close.
@Test func whatMissesItsLimitDoesNotReadAsTheLimit() throws {
    func reason(_ error: Float, _ minimum: Double) throws -> String? {
        try judge(floats([1 + error, 1, 1, 1]), golden: floats([1, 1, 1, 1]), name: "y", criterion: .snr(minimum)).reason
    }
    #expect(try reason(0.00633, 50) == "SNR 49.99 dB; expected 50 or more")
    #expect(try reason(0.00633, 49.994) == "SNR 49.993 dB; expected 49.994 or more")
    #expect(try reason(0.1, 50) == "SNR 26 dB; expected 50 or more")
    func share(_ x: Float) throws -> String {
        try judge(floats([x]), golden: floats([0]), name: "y", criterion: .elementwise(absolute: 1, relative: 0)).toleranceText
    }
    #expect(try share(1) == "100 %" && share(0.99999) == "100.0 %" && share(1.0003) == "100.03 %" && share(1.0006) == "100.1 %")
    #expect(try share(1.000001) == "100.0001 %" && share(.infinity.nextDown) == "3.4e+38x" && share(12.3) == "12x")
}

@Test func anSNRWithNaNReachesNothing() throws {
    let (inf, nan) = (Float.infinity, Float.nan)
    let metrics = try #require(judge(floats([1, nan]), golden: floats([1, 2]), name: "y", criterion: standard).metrics)
    #expect(
        try judge(floats([.nan]), golden: floats([1]), name: "y", criterion: standard).reason?.contains("at 1 place where") == true)
    #expect(metrics.snr.isNaN && metrics.cosine.isNaN && metrics.nonFiniteMismatches == 1)
    // Nothing finite is left to compare: the elements are the same, but no ratio is reached.
    #expect(try verdict([nan, inf], [nan, inf], .snr(-100)) == .fail)
    #expect(try verdict([nan, inf], [nan, inf], standard) == .pass)
    #expect(try verdict([1, inf], [1, inf], .snr(100)) == .pass)
}

@Test func emptyTensorsPass() throws {
    #expect(try judge(floats([], [0, 4]), golden: floats([], [0, 4]), name: "y", criterion: standard).verdict == .pass)
}

@Test func metricsAreThoseOfTheirDefinitions() throws {
    let x = [1.0, 2.5, -3, 4]
    let metrics = Metrics(x, reference: [1, 2, -3, 5], shape: [2, 2])
    #expect(metrics.absolute == ErrorSpread(maximum: 1, mean: 0.375, median: 0, percentile99: 1))
    #expect(abs(metrics.relative.maximum - 0.25) < 1e-7 && abs(metrics.relative.mean - 0.1125) < 1e-15)
    #expect(metrics.worstIndex == [1, 1])
    #expect(metrics.worstPair?.value == 4 && metrics.worstPair?.reference == 5)
    #expect(abs(metrics.snr - 10 * log10(39 / 1.25)) < 1e-12)
    #expect(abs(metrics.cosine - 35 / (32.25 * 39).squareRoot()) < 1e-12)
    #expect(metrics.histogram.reduce(0, +) == 4 && metrics.histogram[0] == 2)
    #expect(metrics.nonFiniteMismatches == 0)
}

@Test func ninetyNineOfAHundredErrorsAreSmaller() {
    let errors = (0..<200).map(Double.init)
    let spread = Metrics(errors, reference: errors.map { _ in 0 }, shape: [200]).absolute
    #expect(spread == ErrorSpread(maximum: 199, mean: 99.5, median: 99, percentile99: 198))
}

@Test func edgesBelongToTheBinAboveThem() {
    for (index, edge) in Metrics.histogramEdges.enumerated() {
        let histogram = Metrics([edge, edge.nextDown], reference: [0, 0], shape: [2]).histogram
        #expect(histogram[index] == 1 && histogram[index + 1] == 1, "\(edge)")
    }
}

@Test func errorsBeyondAllNumbersAreCounted() throws {
    let largest = Double.greatestFiniteMagnitude
    let judgement = try judge(Tensor([largest], shape: [1]), golden: Tensor([-largest], shape: [1]), name: "y", criterion: standard)
    #expect(
        judgement.verdict == .fail && judgement.metrics?.absolute.maximum == .infinity && judgement.metrics?.histogram.last == 1)
}

@Test func agreementIsOfRanksAndProbabilities() throws {
    let g = [3.0, 2, 1, 0, 0, 1, 2, 3]
    let same = try #require(Agreement(g, reference: g, shape: [2, 4], k: 2))
    #expect(same == Agreement(g.map { $0 + 1 }, reference: g, shape: [2, 4], k: 2))
    #expect(same.top1 == 1 && same.topK == 1 && same.divergence < 1e-12)
    let swapped = try #require(Agreement([2.0, 3, 1, 0, 3, 2, 1, 0], reference: g, shape: [2, 4], k: 2))
    #expect(swapped.rows == 2 && swapped.top1 == 0 && swapped.topK == 0.5)
    // Row 0: p = softmax(3,2,1,0), two logits exchanged: KL = p0 - p1.
    let p = [3.0, 2, 1, 0].map { exp($0) }
    let first = try #require(Agreement([2.0, 3, 1, 0], reference: [3, 2, 1, 0], shape: [1, 4]))
    #expect(abs(first.divergence - (p[0] - p[1]) / p.reduce(0, +)) < 1e-12)
    // (1/4, 3/4) against (1/2, 1/2), not the other way round.
    let flat = try #require(Agreement([0, 0], reference: [0, log(3)], shape: [1, 2]))
    #expect(abs(flat.divergence - (log(0.5) / 4 + log(1.5) * 3 / 4)) < 1e-12)
    // Of all of a row's elements the largest are the same.
    #expect(Agreement([0, 1], reference: [1, 0], shape: [1, 2])?.topK == 0 && Agreement(g, reference: g, shape: [2, 4])?.k == 3)
    #expect(Agreement([1, .nan], reference: [1, 2], shape: [1, 2]) == nil)
    #expect(Agreement([1, 2], reference: [1, .infinity], shape: [1, 2]) == nil)
    #expect(Agreement([1, 2], reference: [1, 2], shape: [2, 1]) == nil)
    #expect(Agreement([], reference: [], shape: [0, 4]) == nil && Agreement([1], reference: [1], shape: []) == nil)
}

@Test func tolerancesByNameGoBeforeThoseForAll() throws {
    var tolerances = Tolerances()
    #expect(tolerances.criterion(for: "a") == standard)
    tolerances.absolute = [try ToleranceRule(parsing: "1e-2"), try ToleranceRule(parsing: "image_*:0.5")]
    #expect(tolerances.criterion(for: "a") == .elementwise(absolute: 1e-2, relative: 1e-3))
    #expect(tolerances.criterion(for: "image_feat") == .elementwise(absolute: 0.5, relative: 1e-3))
    tolerances.snr = [try ToleranceRule(parsing: "30"), try ToleranceRule(parsing: "out.text:40")]
    #expect(tolerances.criterion(for: "a") == .snr(30))
    #expect(tolerances.criterion(for: "text") == .snr(40))
    #expect(tolerances.criterion(for: "image_feat") == .elementwise(absolute: 0.5, relative: 1e-3))
    // Among those of one kind the last counts.
    tolerances.snr += [try ToleranceRule(parsing: "text:50"), try ToleranceRule(parsing: "35")]
    #expect(tolerances.criterion(for: "text") == .snr(50) && tolerances.criterion(for: "a") == .snr(35))
    // Scores by relative tolerance alone, unless named.
    #expect(tolerances.criterion(for: "selection.5.scores") == .elementwise(absolute: 0, relative: 1e-3))
}

@Test(arguments: ["", "x", "a:", ":1", "nan", "a:inf", "1e"]) func malformedTolerancesAreUsageErrors(text: String) {
    #expect { try ToleranceRule(parsing: text) } throws: { ($0 as? TripsError)?.kind == .usage }
}
