import Foundation
import Support
import Testing

private func snr(_ x: [Double], _ g: [Double]) -> Double {
    var ratio = SignalToNoise()
    for (x, g) in zip(x, g) { ratio.add(x, reference: g) }
    return ratio.snr
}

@Suite struct SignalToNoiseTests {
    private static let examples: [([Double], [Double], Double)] = [
        ([1, 0.5], [1, 1], 10 * log10(8)),
        // No error, no signal, nothing at all.
        ([3, -4], [3, -4], .infinity), ([0, 0], [0, 0], .infinity), ([], [], .infinity), ([1, 0], [0, 0], -.infinity),
        // What is the same on both sides is left out.
        ([1, .nan, .infinity], [2, .nan, .infinity], 10 * log10(4)),
        // One side alone, another sign, nothing that is finite.
        ([1, .nan], [1, 2], .nan), ([1, 2], [1, .infinity], .nan), ([1, -.infinity], [1, .infinity], .nan), ([.nan], [.nan], .nan),
        // Squares beyond the largest number.
        ([1e200], [1e200], .infinity), ([1e200], [1], -4000), ([1], [1e200], 0), ([1e200, 1], [1e200, 2], 4000),
        ([1.7e308, 0], [1.5e308, 1e-9], 20 * log10(7.5)), ([1.7e308], [-1.7e308], -20 * log10(2)),
        // Squares below the smallest, alone and beside others, in any order.
        ([0, 0], [1e-200, 3e-170], 0), ([0], [.leastNonzeroMagnitude], 0), ([1e-200], [0], -.infinity),
        ([1.5e-200], [1e-200], 20 * log10(2)),
        ([1, 1e-170], [1, 0], 3400), ([1e-170, 1], [0, 1], 3400), ([3e-300, 2], [1e-300, 1], 0), ([2, 3e-300], [1, 1e-300], 0),
    ]

    @Test(arguments: examples) func ratiosOfFewNumbersAreExact(x: [Double], reference: [Double], expected: Double) {
        let found = snr(x, reference)
        #expect(found == expected || found.isNaN && expected.isNaN || abs(found - expected) < 1e-9, "\(found)")
    }

    @Test func elementsAreCounted() {
        var ratio = SignalToNoise()
        let finite = [(1.0, 3.0), (.nan, .nan), (2, .nan), (.infinity, -.infinity)].map { ratio.add($0.0, reference: $0.1) }
        #expect(finite == [true, false, false, false])
        #expect(ratio.mismatches == 2)
    }

    @Test func sumsAreJudgedAlike() {
        #expect(SignalToNoise(signal: 100, noise: 1).snr == 20 && SignalToNoise(signal: 0, noise: 0).snr == .infinity)
        #expect(SignalToNoise(signal: 1, noise: .infinity).snr.isNaN)
    }
}

@Suite struct LogSoftmaxTests {
    @Test func probabilitiesSumToOne() {
        let logarithms = logSoftmax([1.0, 2, 3])
        #expect(abs(logarithms.reduce(0) { $0 + exp($1) } - 1) < 1e-15)
        #expect(abs(logarithms[2] - logarithms[0] - 2) < 1e-15 && abs(logarithms[2] + log(1 + exp(-1.0) + exp(-2.0))) < 1e-15)
    }

    /// Shifted by their largest, large numbers stay in range; in double precision, no digit of a float's is lost.
    @Test func largeNumbersStayInRange() {
        #expect(logSoftmax([1000.0, 1000]) == [-log(2.0), -log(2.0)])
        #expect(logSoftmax([Float(3e38), -3e38])[0] == 0)
        #expect(logSoftmax([10000, 10000] as [Float]) == [-log(2 as Float), -log(2 as Float)])
    }

    @Test func rowsThatAreNotFiniteAreNoNumbers() {
        #expect(logSoftmax([0, -.infinity] as [Double]) == [0, -.infinity])
        for row in [[0, .nan], [.nan, 0], [0, .infinity], [-.infinity, -.infinity]] as [[Double]] {
            #expect(logSoftmax(row).count { $0.isNaN } == row.count, "\(row)")
        }
        #expect(logSoftmax([Double]()).isEmpty)
    }
}
