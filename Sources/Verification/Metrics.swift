import Foundation
import Support
import Tensors

/// The spread of an error over the elements of a tensor.
public struct ErrorSpread: Sendable, Codable, Equatable {
    /// Of all elements.
    public var maximum = 0.0
    /// Over all elements.
    public var mean = 0.0
    /// The lower one of two in the middle.
    public var median = 0.0
    /// The error that 99 of 100 elements stay below.
    public var percentile99 = 0.0

    package init(maximum: Double = 0, mean: Double = 0, median: Double = 0, percentile99: Double = 0) {
        (self.maximum, self.mean, self.median, self.percentile99) = (maximum, mean, median, percentile99)
    }
}

/// How far a tensor of numbers is from its reference. Elements that are not finite in both are left out of the errors.
public struct Metrics: Sendable {
    /// Number of elements.
    public var count = 0
    /// |x - g|
    public var absolute = ErrorSpread()
    /// |x - g| / |g|, elements with g = 0 left out.
    public var relative = ErrorSpread()
    /// Where |x - g| is largest, in the reference's shape.
    public var worstIndex: [Int] = []
    /// The model's element there, and the reference's.
    public var worstPair: (value: Double, reference: Double)?
    /// Cosine of the angle between both tensors; 1 for two zero tensors, NaN where `snr` is.
    public var cosine = 1.0
    /// 10 · log10(Σ g² / Σ (g - x)²) in dB; infinite for equal tensors, NaN where one side alone is not finite or nothing
    /// is: NaN is below every number that is asked for.
    public var snr = Double.infinity
    /// Elements that are NaN or infinite in one tensor and something else in the other.
    public var nonFiniteMismatches = 0
    /// How many elements have |x - g| below 10^-12, then in half decades from there, and from 100 up.
    public var histogram = [Int](repeating: 0, count: Metrics.histogramEdges.count + 1)

    /// The lower edges of the histogram's bins but the first.
    public static let histogramEdges = (0...28).map { pow(10, -12 + Double($0) / 2) }

    /// Compares `x` with the reference `g` of the same shape.
    /// - Parameter errors: |x - g|, where that is known more exactly than from `x` and `g`.
    package init(_ x: [Double], reference g: [Double], shape: [Int], errors: [Double]? = nil) {
        count = g.count
        var absoluteErrors: [Float] = []
        var relativeErrors: [Float] = []
        absoluteErrors.reserveCapacity(g.count)
        relativeErrors.reserveCapacity(g.count)
        var ratio = SignalToNoise()
        var (worst, worstError) = (-1, -1.0)
        for index in g.indices {
            let (value, reference) = (x[index], g[index])
            guard ratio.add(value, reference: reference, error: errors?[index]) else { continue }
            let error = errors?[index] ?? abs(value - reference)
            if error > worstError { (worst, worstError) = (index, error) }
            absoluteErrors.append(Float(error))
            absolute.mean += error
            if reference != 0 {
                relativeErrors.append(Float(error / abs(reference)))
                relative.mean += error / abs(reference)
            }
            histogram[Metrics.bin(error)] += 1
        }
        absolute.mean /= Double(max(1, absoluteErrors.count))
        relative.mean /= Double(max(1, relativeErrors.count))
        absolute.fill(from: &absoluteErrors)
        relative.fill(from: &relativeErrors)
        if worst >= 0 {
            absolute.maximum = worstError
            worstIndex = coordinates(of: worst, in: shape)
            worstPair = (x[worst], g[worst])
        }
        (snr, nonFiniteMismatches) = (ratio.snr, ratio.mismatches)
        cosine = snr.isNaN ? .nan : Metrics.cosine(x, g)
    }

    /// Elements that are not finite are the same on both sides, and left out.
    private static func cosine(_ x: [Double], _ g: [Double]) -> Double {
        let (left, right) = (unitScale(x), unitScale(g))
        var (product, power, signal) = (0.0, 0.0, 0.0)
        for (value, reference) in zip(x, g) where value.isFinite {
            let (value, reference) = (value * left, reference * right)
            product += value * reference
            power += value * value
            signal += reference * reference
        }
        return signal == 0 || power == 0 ? (signal == power ? 1 : 0) : product / (signal.squareRoot() * power.squareRoot())
    }

    /// A power of two that brings the largest finite number near 1, where squares neither overflow nor all vanish.
    private static func unitScale(_ numbers: [Double]) -> Double {
        let largest = numbers.reduce(0) { $1.isFinite ? max($0, abs($1)) : $0 }
        return largest == 0 ? 1 : scalbn(1, min(-Int(largest.exponent), 1022))
    }

    private static func bin(_ error: Double) -> Int { histogramEdges.firstIndex { error < $0 } ?? histogramEdges.count }
}

extension ErrorSpread {
    fileprivate mutating func fill(from errors: inout [Float]) {
        guard !errors.isEmpty else { return }
        errors.sort()
        maximum = Double(errors[errors.count - 1])
        median = Double(errors[(errors.count - 1) / 2])
        percentile99 = Double(errors[Int((Double(errors.count - 1) * 0.99).rounded(.up))])
    }
}

/// True where the first of two signal-to-noise ratios is the worse one: NaN is the worst.
func isWorse(_ left: Double, _ right: Double) -> Bool {
    left.isNaN ? !right.isNaN : left < right
}

/// How well two tensors of logits agree on what they would choose. Rows are the last axis.
public struct Agreement: Sendable, Codable, Equatable {
    /// Rows compared.
    public var rows = 0
    /// The share of rows whose largest element is at the same place.
    public var top1 = 1.0
    /// The mean share of the reference's k largest that are among the model's k largest.
    public var topK = 1.0
    /// 5, or fewer where rows are short.
    public var k = 1
    /// KL(softmax g ‖ softmax x) in nats, mean over rows.
    public var divergence = 0.0
    /// The same of the worst row.
    public var worstDivergence = 0.0

    /// Nil where the tensors have no rows of two or more finite elements.
    package init?(_ x: [Double], reference g: [Double], shape: [Int], k: Int = 5) {
        guard let width = shape.last, width > 1, !g.isEmpty, g.allSatisfy(\.isFinite), x.allSatisfy(\.isFinite) else { return nil }
        self.k = min(k, width - 1)
        rows = g.count / width
        var (sameTop, overlap, total) = (0, 0, 0.0)
        for row in 0..<rows {
            let (left, right) = (x[row * width..<(row + 1) * width], g[row * width..<(row + 1) * width])
            let (chosen, expected) = (largest(self.k, of: left), largest(self.k, of: right))
            if chosen.first == expected.first { sameTop += 1 }
            overlap += Set(chosen).intersection(expected).count
            let divergence = klDivergence(of: left, from: right)
            total += divergence
            worstDivergence = max(worstDivergence, divergence)
        }
        top1 = Double(sameTop) / Double(rows)
        topK = Double(overlap) / Double(rows * self.k)
        divergence = total / Double(rows)
    }
}

/// The places of the `k` largest elements, the largest first; the lower place wins ties.
private func largest(_ k: Int, of row: ArraySlice<Double>) -> [Int] {
    var best: [(place: Int, value: Double)] = []
    for element in row.enumerated() { best.insert((element.offset, element.element), amongLargest: k) { $0.value } }
    return best.map(\.place)
}

private func klDivergence(of x: ArraySlice<Double>, from g: ArraySlice<Double>) -> Double {
    let (left, right) = (logSoftmax(x), logSoftmax(g))
    return max(0, zip(left, right).reduce(0) { $0 + exp($1.1) * ($1.1 - $1.0) })
}
