import Foundation
import Operators
import Support
import Synchronization
import Tensors

/// What is known of the inputs of a linear layer, channel by channel.
package struct ChannelStatistics: Sendable {
    /// A bound that a channel rarely exceeds.
    let largest: [Float]
    /// Mean of the squares.
    let meanSquare: [Float]

    package init(largest: [Float], meanSquare: [Float]) {
        self.largest = largest
        self.meanSquare = meanSquare
    }
}

/// The factors by which the input channels of a linear layer are multiplied before its rows are quantized, and the
/// weights divided: they move range from activations, where one channel of large range costs all others their precision, to
/// weights, where a scale for each row takes it up (SmoothQuant, arXiv 2211.10438, applied inside the row quantization).
package struct InputScaling {
    /// [K]; nil where all 1 is best.
    package let factors: [Float]?
    /// Exponent of the channels' range; 0 leaves them as they are.
    package let strength: Float

    /// Searches the strength with the least expected error of the outputs, by the model that rounding errors are
    /// uniform and independent:
    /// E = step² / 12 · Σ_k |w_k|² / s_k² + Σ_n δ_n² / 12 · Σ_k E[x_k²] s_k², with the step of a row of activations from
    /// its largest scaled channel and δ_n, the step of a row of weights, from its largest scaled weight.
    /// - Parameter weights: of all layers that read these inputs, [N, K] each; they share the factors.
    package init(weights: [Tensor], statistics: ChannelStatistics, groupSize: Int, pool: ThreadPool = .shared) {
        let energies = columnEnergies(weights, statistics.largest.count)
        let candidates = (0...8).map { step in
            (strength: Float(step) / 10, factors: InputScaling.factors(statistics, strength: Float(step) / 10))
        }
        let errors = Mutex([Double](repeating: 0, count: candidates.count))
        pool.run(candidates.count) { index in
            let error = expectedError(weights, energies, statistics, candidates[index].factors, groupSize)
            errors.withLock { $0[index] = error }
        }
        var best: (error: Double, strength: Float, factors: [Float]?) = (.infinity, 0, nil)
        for (candidate, error) in zip(candidates, errors.withLock { $0 }) {
            // Factors that gain almost nothing are not worth a multiplication for each activation.
            guard error < best.error * (candidate.strength == 0 ? 1 : 0.98) else { continue }
            best = (error, candidate.strength, candidate.strength == 0 ? nil : candidate.factors)
        }
        (factors, strength) = (best.factors, best.strength)
    }

    /// s_k = largest_k ^ -strength, scaled so that their geometric mean is 1. Dead channels keep the others' range.
    static func factors(_ statistics: ChannelStatistics, strength: Float) -> [Float] {
        let floor = max((statistics.largest.max() ?? 0) * 1e-4, .leastNormalMagnitude)
        let logarithms = statistics.largest.map { -strength * log(max($0, floor)) }
        let mean = logarithms.reduce(0, +) / Float(max(1, logarithms.count))
        return logarithms.map { exp($0 - mean) }
    }
}

/// The error that `InputScaling` minimises, up to a factor.
private func expectedError(
    _ weights: [Tensor], _ energies: [Double], _ statistics: ChannelStatistics, _ factors: [Float], _ groupSize: Int
) -> Double {
    let columns = factors.count
    let rowStep = Double(zip(statistics.largest, factors).map { $0 * $1 }.max() ?? 0) / 127
    var activation = 0.0
    var signal = [Double](repeating: 0, count: groupCount(columns, groupSize))
    for column in 0..<columns {
        let square = Double(factors[column] * factors[column])
        activation += energies[column] / square
        signal[column / groupSize] += Double(statistics.meanSquare[column]) * square
    }
    let steps = squaredSteps(weights, factors, groupSize)
    return rowStep * rowStep * activation + zip(steps, signal).reduce(0) { $0 + $1.0 * $1.1 }
}

/// The rounding error of weights that are divided by `factors` and rounded in groups, up to a factor.
func roundingCost(_ weights: [Tensor], _ factors: [Float], groupSize: Int, importance: [Float]) -> Double {
    var signal = [Double](repeating: 0, count: groupCount(factors.count, groupSize))
    for column in factors.indices { signal[column / groupSize] += Double(importance[column]) }
    return zip(squaredSteps(weights, factors, groupSize), signal).reduce(0) { $0 + $1.0 * $1.1 }
}

/// A sample of a weight's rows: the search needs sums over rows to a few percent only.
private func sampledRows(_ weight: Tensor) -> StrideTo<Int> {
    stride(from: 0, to: weight.shape[0], by: max(1, weight.shape[0] / 256))
}

/// Σ_n w[n, k]² for each column, over sampled rows.
private func columnEnergies(_ weights: [Tensor], _ columns: Int) -> [Double] {
    var energies = [Double](repeating: 0, count: columns)
    for weight in weights {
        let values = weight.view.elements(Float.self)
        for row in sampledRows(weight) {
            for column in 0..<columns {
                energies[column] += Double(values[row * columns + column] * values[row * columns + column])
            }
        }
    }
    return energies
}

/// Σ_n δ² for each group of columns, over sampled rows; δ is the step that holds the row's largest scaled weight.
private func squaredSteps(_ weights: [Tensor], _ factors: [Float], _ groupSize: Int) -> [Double] {
    let columns = factors.count
    let inverse = factors.map { 1 / $0 }
    var sums = [Double](repeating: 0, count: groupCount(columns, groupSize))
    for weight in weights {
        let values = weight.view.source(Float.self).base
        for row in sampledRows(weight) {
            for group in sums.indices {
                let range = group * groupSize..<min(columns, (group + 1) * groupSize)
                let step = Double(largest(values + row * columns, inverse, range) / 127)
                sums[group] += step * step
            }
        }
    }
    return sums
}

/// max |w_k f_k| over a range.
private func largest(_ row: UnsafePointer<Float>, _ factors: [Float], _ range: Range<Int>) -> Float {
    factors.withUnsafeBufferPointer { factors in
        guard let base = factors.baseAddress else { return 0 }
        var lanes = SIMD8<Float>.zero
        var column = range.lowerBound
        while column + 8 <= range.upperBound {
            let scaled = load(row + column) * load(base + column)
            lanes.replace(with: scaled, where: scaled .> lanes)
            lanes.replace(with: -scaled, where: -scaled .> lanes)
            column += 8
        }
        var bound = lanes.max()
        while column < range.upperBound {
            bound = max(bound, abs(row[column] * factors[column]))
            column += 1
        }
        return bound
    }
}

private func load(_ pointer: UnsafePointer<Float>) -> SIMD8<Float> {
    UnsafeRawPointer(pointer).loadUnaligned(as: SIMD8<Float>.self)
}
