import COpenBLAS
import Kernels
import Operators
import Support
import Tensors

/// How the error made in one column of a weight is compensated in the columns after it, so that a layer's outputs change least.
///
/// With the scatter matrix H = (U + 1) D (U + 1)ᵀ of the inputs, U strictly upper, column k is rounded as
/// w[k] + Σ_{j < k} (w[j] − ŵ[j]) U[j, k] (LDLQ, arXiv 2307.13304). Up to rounding these are the numbers that GPTQ
/// (arXiv 2210.17323) finds by way of H's inverse.
package struct Compensation: Sendable {
    private let columns: Int
    /// For each block of columns U between those before it and its own, packed for a product.
    private let before: [[Float]]
    /// U between the columns of a block: [columns, block].
    private let within: [Float]

    /// Columns that get their share of the errors before them by one matrix product.
    private static let block = 64
    /// Rows that a task rounds.
    private static let rowStep = 32

    /// Nil where the inputs do not allow it.
    /// - Parameters:
    ///   - scatter: of the inputs before the input scale. Its correlations count as far as they can be relied on; without any, each
    ///     weight would be rounded by itself.
    ///   - columnFactor: multiplied into the weight's columns (the inverse of an input scale); nil: all 1.
    package init?(_ scatter: ScatterMatrix, columnFactor: [Float]?) {
        let (columns, block) = (scatter.width, Compensation.block)
        guard let factor = Compensation.factor(scatter, columnFactor) else { return nil }
        self.columns = columns
        let starts = Array(stride(from: 0, to: columns, by: block))
        let widths = starts.map { min(block, columns - $0) }
        var before = zip(starts, widths).map { [Float](repeating: 0, count: trips_sgemm_pack_size($1, $0)) }
        var within = [Float](repeating: 0, count: columns * block)
        factor.withUnsafeBufferPointer { factor in
            for (index, (start, width)) in zip(starts, widths).enumerated() where start > 0 {
                guard let rows = factor.baseAddress else { continue }
                trips_sgemm_pack(&before[index], rows + start * columns, columns, width, start, 0, width)
            }
            for column in 0..<columns {
                let start = column / block * block
                for later in column + 1..<max(column + 1, min(columns, start + block)) {
                    within[column * block + later - start] = factor[later * columns + column]
                }
            }
        }
        (self.before, self.within) = (before, within)
    }

    /// Uᵀ [columns, columns], of which the part below the diagonal counts; nil where the matrix cannot be factored.
    private static func factor(_ scatter: ScatterMatrix, _ columnFactor: [Float]?) -> [Float]? {
        let (width, correlated) = (scatter.width, 1 - scatter.shrinkage)
        let inverse = columnFactor.map { $0.map { 1 / $0 } } ?? Array(repeating: 1, count: width)
        var damping: Float = 0.01
        for _ in 0..<3 {
            var matrix = scatter.values
            var trace: Float = 0
            for row in 0..<width {
                for column in 0..<row { matrix[row * width + column] *= correlated * inverse[row] * inverse[column] }
                matrix[row * width + row] *= inverse[row] * inverse[row]
                trace += matrix[row * width + row]
            }
            guard trace > 0, trace.isFinite else { return nil }
            for row in 0..<width { matrix[row * width + row] += damping * trace / Float(width) }
            if decompose(&matrix, width) { return matrix }
            damping *= 10
        }
        return nil
    }

    /// Replaces a positive definite matrix, of which the lower triangle counts, by Uᵀ below the diagonal.
    private static func decompose(_ matrix: inout [Float], _ width: Int) -> Bool {
        _ = singleThreadedBLAS
        // LAPACK factors into L Lᵀ; U Uᵀ is wanted, which is L Lᵀ of the matrix with rows and columns reversed. Reversing all numbers
        // does that, and moves the triangle that counts to where LAPACK, which is column-major, expects it.
        matrix.reverse()
        var (n, info) = (Int32(width), Int32(0))
        spotrf_("L", &n, &matrix, &n, &info)
        guard info == 0 else { return false }
        matrix.reverse()
        for row in 0..<width {
            let inverse = 1 / matrix[row * width + row]
            for column in 0..<row { matrix[row * width + column] *= inverse }
        }
        return true
    }

    /// Rounds the rows of a matrix [N, K] to multiples of the scales that plain rounding gives them.
    /// - Parameters: as `roundWeights`.
    package func round(
        _ matrix: Tensor, groupSize: Int, columnFactor: [Float]? = nil, importance: [Float]? = nil, pool: ThreadPool = .shared
    ) throws -> QuantizedMatrix {
        let plain = try roundWeights(matrix, groupSize: groupSize, columnFactor: columnFactor, importance: importance, pool: pool)
        let (rows, step) = (matrix.shape[0], Compensation.rowStep)
        let (scales, values) = (try plain.scales.elements(Float.self), matrix.view.source(Float.self))
        let weight = try Tensor(.int8, [rows, columns]) { bytes in
            guard let base = bytes.assumingMemoryBound(to: Int8.self).baseAddress else { return }
            let target = Target(base: base)
            pool.run(rows.dividedRoundingUp(by: step)) { index in
                round(values, index * step..<min(rows, (index + 1) * step), columnFactor, scales, groupSize, into: target)
            }
        }
        return QuantizedMatrix(weight: weight, scales: plain.scales, groupSize: groupSize, error: plain.error, energy: plain.energy)
    }

    /// Some rows, block by block.
    private func round(
        _ values: Source<Float>, _ rows: Range<Int>, _ columnFactor: [Float]?, _ scales: [Float], _ groupSize: Int,
        into target: Target<Int8>
    ) {
        let block = Compensation.block, groups = groupCount(columns, groupSize)
        var errors = [Float](repeating: 0, count: rows.count * columns)
        var shares = [Float](repeating: 0, count: rows.count * block)
        for (index, start) in stride(from: 0, to: columns, by: block).enumerated() {
            let end = min(columns, start + block)
            if start > 0 {
                trips_sgemm(errors, columns, before[index], end - start, start, &shares, block, 0, rows.count, 0, end - start, nil)
            }
            for (place, row) in rows.enumerated() {
                for column in start..<end {
                    let scale = scales[row * groups + column / groupSize]
                    let value = values.base[row * columns + column] * (columnFactor?[column] ?? 1)
                    let unit = rounded(value + shares[place * block + column - start], scale)
                    target.base[row * columns + column] = Int8(unit)
                    let error = value - unit * scale
                    errors[place * columns + column] = error
                    pass(error, of: column, to: &shares, at: place * block, column + 1 - start..<end - start)
                }
            }
        }
    }

    /// Adds what an error costs the later columns of its block to their shares, which start at `first`.
    private func pass(_ error: Float, of column: Int, to shares: inout [Float], at first: Int, _ later: Range<Int>) {
        within.withUnsafeBufferPointer { within in
            shares.withUnsafeMutableBufferPointer { shares in
                for place in later { shares[first + place] += error * within[column * Compensation.block + place] }
            }
        }
    }
}
