import Foundation
import Tensors

/// What is known of the inputs of a linear layer, channel by channel.
struct ChannelStatistics: Sendable {
    /// A bound that a channel rarely exceeds.
    let largest: [Float]
    /// Mean of the squares.
    let meanSquare: [Float]

    /// From the layer normalisation in front, without data: a channel is normalised to mean 0 and variance 1 over the
    /// row, then scaled and shifted, so it spreads around its bias by about its weight.
    init(normWeight: [Float], normBias: [Float]?) {
        let bias = normBias ?? Array(repeating: 0, count: normWeight.count)
        // Three deviations: a row of 768 normal numbers has its largest near 3.2.
        largest = zip(normWeight, bias).map { 3 * abs($0) + abs($1) }
        meanSquare = zip(normWeight, bias).map { $0 * $0 + $1 * $1 }
    }

    init(largest: [Float], meanSquare: [Float]) {
        self.largest = largest
        self.meanSquare = meanSquare
    }
}

/// The factors by which the input channels of a linear layer are multiplied before its rows are quantized, and the
/// weights divided: they move range from activations, where one loud channel costs all others their precision, to
/// weights, where a scale for each row takes it up (SmoothQuant, arXiv 2211.10438, applied inside the row quantization).
struct InputScaling {
    /// [K]; nil where all 1 is best.
    let factors: [Float]?
    /// Exponent of the channels' range; 0 leaves them as they are.
    let strength: Float

    /// Searches the strength with the least expected error of the outputs, by the model that rounding errors are
    /// uniform and independent:
    /// E = step² / 12 · Σ_k |w_k|² / s_k² + Σ_n δ_n² / 12 · Σ_k E[x_k²] s_k², with the step of a row of activations from
    /// its largest scaled channel and δ_n, the step of a row of weights, from its largest scaled weight.
    /// - Parameter weights: of all layers that read these inputs, [N, K] each; they share the factors.
    init(weights: [Tensor], statistics: ChannelStatistics, groupSize: Int) {
        let columns = statistics.largest.count
        let energies = columnEnergies(weights, columns)
        var best: (error: Double, strength: Float, factors: [Float]?) = (.infinity, 0, nil)
        for step in 0...8 {
            let strength = Float(step) / 10
            let factors = InputScaling.factors(statistics, strength: strength)
            let rowStep = Double(zip(statistics.largest, factors).map { $0 * $1 }.max() ?? 0) / 127
            var activation = 0.0
            var signal = [Double](repeating: 0, count: groupCount(columns, groupSize))
            for column in 0..<columns {
                let square = Double(factors[column] * factors[column])
                activation += energies[column] / square
                signal[column / groupSize] += Double(statistics.meanSquare[column]) * square
            }
            let steps = squaredSteps(weights, factors, groupSize)
            let error = rowStep * rowStep * activation + zip(steps, signal).reduce(0) { $0 + $1.0 * $1.1 }
            // Factors that gain almost nothing are not worth a multiplication for each activation.
            if error < best.error * (step == 0 ? 1 : 0.98) { best = (error, strength, step == 0 ? nil : factors) }
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

/// Σ_n w[n, k]² for each column.
private func columnEnergies(_ weights: [Tensor], _ columns: Int) -> [Double] {
    var energies = [Double](repeating: 0, count: columns)
    for weight in weights {
        var sums = [Float](repeating: 0, count: columns)
        let values = weight.view.pointer(Float.self)
        for row in 0..<weight.shape[0] {
            for column in 0..<columns { sums[column] += values[row * columns + column] * values[row * columns + column] }
        }
        for column in 0..<columns { energies[column] += Double(sums[column]) }
    }
    return energies
}

/// Σ_n δ² for each group of columns, δ the step that holds the row's largest weight of the group after scaling.
private func squaredSteps(_ weights: [Tensor], _ factors: [Float], _ groupSize: Int) -> [Double] {
    let columns = factors.count
    let inverse = factors.map { 1 / $0 }
    var sums = [Double](repeating: 0, count: groupCount(columns, groupSize))
    for weight in weights {
        let values = weight.view.pointer(Float.self)
        for row in 0..<weight.shape[0] {
            for group in sums.indices {
                var largest = SIMD8<Float>.zero
                let range = group * groupSize..<min(columns, (group + 1) * groupSize)
                var column = range.lowerBound
                while column + 8 <= range.upperBound {
                    let scaled = lanes(values + row * columns + column) * inverse.withUnsafeBufferPointer { lanes($0.baseAddress! + column) }
                    largest.replace(with: scaled, where: scaled .> largest)
                    largest.replace(with: -scaled, where: -scaled .> largest)
                    column += 8
                }
                var bound = largest.max()
                while column < range.upperBound {
                    bound = max(bound, abs(values[row * columns + column] * inverse[column]))
                    column += 1
                }
                sums[group] += Double(bound / 127) * Double(bound / 127)
            }
        }
    }
    return sums
}

private func lanes(_ pointer: UnsafePointer<Float>) -> SIMD8<Float> {
    UnsafeRawPointer(pointer).loadUnaligned(as: SIMD8<Float>.self)
}

extension Double {
    var logarithm10: Double { log10(self) }
}
