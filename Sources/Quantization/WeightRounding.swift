import Operators
import Support
import Synchronization
import Tensors

/// A matrix as int8 with a scale for each row and group of columns: w[n, k] ≈ scale[n, k / groupSize] · q[n, k].
package struct QuantizedMatrix {
    /// int8 [N, K], in -127 ... 127.
    package let weight: Tensor
    /// float32 [N, G]
    package let scales: Tensor
    package let groupSize: Int
    /// Σ h (w - scale · q)² and Σ h w² over all weights, h the importance of the column, each weight rounded by itself.
    let error: Double
    let energy: Double

    /// Of the weights, in dB.
    package var snr: Double { SignalToNoise(signal: energy, noise: error).snr }
}

/// Rounds the rows of a matrix [N, K], each group of columns with the scale that gives the least weighted error.
///
/// - Parameters:
///   - columnFactor: multiplied into the columns first (the inverse of an input scale); nil: all 1.
///   - importance: weight of the squared error of each column, such as the mean square of its input; nil: all 1.
package func roundWeights(
    _ matrix: Tensor, groupSize: Int, columnFactor: [Float]? = nil, importance: [Float]? = nil, pool: ThreadPool = .shared
) throws -> QuantizedMatrix {
    let (rows, columns) = (matrix.shape[0], matrix.shape[1])
    let groups = groupCount(columns, groupSize)
    // Added up in order at the end, so that they do not depend on the threads.
    let sums = Mutex([(error: Double, energy: Double)](repeating: (0, 0), count: rows))
    var scales = [Float](repeating: 0, count: rows * groups)
    let weight = try Tensor(.int8, [rows, columns]) { bytes in
        scales.withUnsafeMutableBufferPointer { scales in
            guard let base = bytes.assumingMemoryBound(to: Int8.self).baseAddress, let scaleBase = scales.baseAddress else {
                return
            }
            let (target, scaleTarget) = (Target(base: base), Target(base: scaleBase))
            pool.run(rows) { row in
                var scaled = Array(matrix.view.elements(Float.self)[row * columns..<(row + 1) * columns])
                if let columnFactor { for column in 0..<columns { scaled[column] *= columnFactor[column] } }
                var sum = (error: 0.0, energy: 0.0)
                for group in 0..<groups {
                    let range = group * groupSize..<min(columns, (group + 1) * groupSize)
                    let best = scaled.withUnsafeBufferPointer { bestScale($0, range, importance) }
                    scaleTarget.base[row * groups + group] = best.scale
                    for column in range { target.base[row * columns + column] = Int8(rounded(scaled[column], best.scale)) }
                    sum = (sum.error + best.error, sum.energy + best.energy)
                }
                sums.withLock { [sum] in $0[row] = sum }
            }
        }
    }
    let (error, energy) = sums.withLock { $0.reduce((0, 0)) { ($0.0 + $1.error, $0.1 + $1.energy) } }
    return QuantizedMatrix(
        weight: weight, scales: try Tensor(scales, shape: [rows, groups]), groupSize: groupSize, error: error, energy: energy)
}

/// ⌈columns / groupSize⌉
func groupCount(_ columns: Int, _ groupSize: Int) -> Int {
    max(1, columns.dividedRoundingUp(by: groupSize))
}

/// The nearest multiple of `scale`, in units of it, within ±127.
func rounded(_ value: Float, _ scale: Float) -> Float {
    scale > 0 ? max(-127, min(127, (value / scale).rounded(.toNearestOrEven))) : 0
}

/// Tries the scale that just holds the largest weight, and smaller ones that clip it: rounding the many finer can be worth more.
private func bestScale(
    _ row: UnsafeBufferPointer<Float>, _ range: Range<Int>, _ importance: [Float]?
) -> (scale: Float, error: Double, energy: Double) {
    var largest: Float = 0
    var energy: Double = 0
    for column in range {
        largest = max(largest, abs(row[column]))
        energy += Double(row[column] * row[column] * (importance?[column] ?? 1))
    }
    guard largest > 0, largest.isFinite else { return (0, 0, energy) }
    var best = (scale: largest / 127, error: Double.infinity, energy: energy)
    for step in 0..<10 {
        let scale = largest / 127 * (1 - 0.03 * Float(step))
        let error = roundingError(row, range, scale, importance)
        if error < best.error { (best.scale, best.error) = (scale, error) }
        // The error has one minimum, give or take its noise: once clipping costs more than finer rounding gains, it grows.
        if error > best.error * 1.03 { break }
    }
    return best
}

/// Σ h (w - scale · round(w / scale))²
private func roundingError(
    _ row: UnsafeBufferPointer<Float>, _ range: Range<Int>, _ scale: Float, _ importance: [Float]?
) -> Double {
    typealias Lanes = SIMD16<Float>
    let inverse = 1 / scale
    // Adding and subtracting 1.5 · 2^23 rounds to the nearest integer, in two instructions on any processor.
    let magic = Lanes(repeating: 12_582_912)
    var sum = Lanes.zero
    var column = range.lowerBound
    func lanes(_ values: UnsafeBufferPointer<Float>, _ index: Int) -> Lanes {
        UnsafeRawBufferPointer(values).loadUnaligned(fromByteOffset: index * MemoryLayout<Float>.stride, as: Lanes.self)
    }
    while column + 16 <= range.upperBound {
        let weights = lanes(row, column)
        let units = (weights * inverse).clamped(lowerBound: Lanes(repeating: -127), upperBound: Lanes(repeating: 127))
        let difference = weights - ((units + magic) - magic) * scale
        if let importance {
            sum += difference * difference * importance.withUnsafeBufferPointer { lanes($0, column) }
        } else {
            sum += difference * difference
        }
        column += 16
    }
    var total = Double(sum.sum())
    while column < range.upperBound {
        let difference = row[column] - rounded(row[column], scale) * scale
        total += Double(difference * difference * (importance?[column] ?? 1))
        column += 1
    }
    return total
}
