import Kernels
import Operators
import Support
import Tensors

/// Σ x xᵀ over the rows x that a layer reads, and how far its correlations hold for other rows.
///
/// Rows come in parts, such as one for each calibration input. Where the parts disagree on a correlation, it says little of rows that
/// were not among them.
package final class ScatterMatrix {
    package let width: Int
    /// Of each channel 1 / Σ x², with which products of channels become correlations.
    private let weights: [Double]
    /// [width, width], of which the lower triangle counts.
    package private(set) var values: [Float]
    private var parts = 0
    /// Σ over parts of the squares of what each adds to the correlations.
    private var partSquares = 0.0

    /// - Parameter squares: Σ x² over all rows that will be added, [width].
    package init(squares: [Double]) {
        width = squares.count
        weights = squares.map { $0 > 0 ? 1 / $0 : 0 }
        values = Array(repeating: 0, count: width * width)
    }

    /// Adds rows of [R, width] as one part.
    package func add(_ tensor: Tensor, rows: Range<Int>, pool: ThreadPool = .shared) {
        let columns = transposed(tensor.view.elements(Float.self), rows)
        let strip = 2 * Int(TRIPS_PANEL)
        var squares = [Double](repeating: 0, count: width.dividedRoundingUp(by: strip))
        squares.withUnsafeMutableBufferPointer { squares in
            values.withUnsafeMutableBufferPointer { values in
                guard let squares = squares.baseAddress, let values = values.baseAddress else { return }
                let (target, squareTarget) = (Target(base: values), Target(base: squares))
                pool.run(width.dividedRoundingUp(by: strip)) { [width, weights] index in
                    let range = index * strip..<min(width, (index + 1) * strip)
                    let part = ScatterMatrix.products(columns, width, rows.count, range)
                    squareTarget.base[index] = ScatterMatrix.add(part, of: range, weights, to: target)
                }
            }
        }
        parts += 1
        partSquares += squares.reduce(0, +)
    }

    /// [width, rows]
    private func transposed(_ values: UnsafeBufferPointer<Float>, _ rows: Range<Int>) -> [Float] {
        var result = [Float](repeating: 0, count: rows.count * width)
        for (place, row) in rows.enumerated() {
            for column in 0..<width { result[column * rows.count + place] = values[row * width + column] }
        }
        return result
    }

    /// The products of some channels with those from the first of them on: [width, range].
    private static func products(_ columns: [Float], _ width: Int, _ count: Int, _ range: Range<Int>) -> [Float] {
        var packed = [Float](repeating: 0, count: trips_sgemm_pack_size(range.count, count))
        var products = [Float](repeating: 0, count: width * range.count)
        columns.withUnsafeBufferPointer { columns in
            guard let base = columns.baseAddress else { return }
            trips_sgemm_pack(&packed, base + range.lowerBound * count, count, range.count, count, 0, range.count)
            trips_sgemm(
                base, count, packed, range.count, count, &products, range.count, range.lowerBound, width, 0, range.count, nil)
        }
        return products
    }

    /// - Returns: the sum of the squares of the correlations among them.
    private static func add(_ products: [Float], of range: Range<Int>, _ weights: [Double], to target: Target<Float>) -> Double {
        let width = weights.count
        var sum = 0.0
        for row in range.lowerBound..<width {
            let (source, place) = (row * range.count, row * width + range.lowerBound)
            for column in 0..<range.count { target.base[place + column] += products[source + column] }
            var rowSum = 0.0
            for column in 0..<min(range.count, row - range.lowerBound) {
                let product = Double(products[source + column])
                rowSum += product * product * weights[range.lowerBound + column]
            }
            sum += rowSum * weights[row]
        }
        return sum
    }

    /// Added to what the parts show: rows to come differ from those of calibration more than these do among each other.
    private static let prior = 0.3

    /// How far correlations are drawn towards none, 0 to 1: their variance by how the parts differ, over their squares
    /// (Schäfer and Strimmer 2005, doi 10.2202/1544-6115.1175), and the prior's share of the rest. 1 where there is one part.
    package var shrinkage: Float {
        guard parts > 1 else { return 1 }
        var squares = 0.0
        for row in 0..<width {
            var rowSum = 0.0
            for column in 0..<row {
                let product = Double(values[row * width + column])
                rowSum += product * product * weights[column]
            }
            squares += rowSum * weights[row]
        }
        guard squares > 0 else { return 1 }
        let variance = (Double(parts) * partSquares - squares) / Double(parts - 1)
        return Float(1 - (1 - ScatterMatrix.prior) * (1 - max(0, min(1, variance / squares))))
    }
}
