import COpenBLAS
import Operators
import Support
import Tensors

/// Rounds weights column by column, each time moving the error made onto the columns still to come, so that the layer's
/// outputs on the calibration data change least (GPTQ, arXiv 2210.17323).
///
/// - Parameters:
///   - matrix: [N, K]
///   - columnFactor: multiplied into the columns first (the inverse of an input scale); nil: all 1.
///   - gram: Σ x xᵀ of the inputs, before the input scale.
package func compensatedRounding(
    _ matrix: Tensor, groupSize: Int, columnFactor: [Float]?, gram: Gram, pool: ThreadPool = .shared
) throws -> QuantizedMatrix {
    let (rows, columns) = (matrix.shape[0], matrix.shape[1])
    let importance = (0..<columns).map { column in
        let factor = columnFactor?[column] ?? 1
        return gram.values[column * columns + column] / Float(max(1, gram.rows)) / (factor * factor)
    }
    // The scales are those of plain rounding; what changes is which multiple each weight becomes.
    let plain = try roundWeights(
        matrix, groupSize: groupSize, columnFactor: columnFactor, importance: importance, pool: pool)
    guard let factor = inverseFactor(gram, columnFactor) else { return plain }
    let scales = try plain.scales.elements(Float.self)
    let groups = groupCount(columns, groupSize)
    let sweep = CompensationSweep(factor: factor, columns: columns, groupSize: groupSize, groups: groups, scales: scales)
    var scaled = try matrix.elements(Float.self)
    if let columnFactor {
        for row in 0..<rows { for column in 0..<columns { scaled[row * columns + column] *= columnFactor[column] } }
    }
    let weight = try Tensor(.int8, [rows, columns]) { bytes in
        let target = SharedPointer(bytes.assumingMemoryBound(to: Int8.self))
        let chunk = 32
        scaled.withUnsafeMutableBufferPointer { buffer in
            let values = SharedPointer(buffer)
            pool.run(rows.dividedRoundingUp(by: chunk)) { index in
                sweep.run(values, index * chunk..<min(rows, (index + 1) * chunk), into: target)
            }
        }
    }
    return QuantizedMatrix(weight: weight, scales: plain.scales, groupSize: groupSize, error: plain.error, energy: plain.energy)
}

/// The upper Cholesky factor U, row-major, of the inverse of the damped Gram matrix of the scaled inputs; nil where it
/// cannot be computed.
private func inverseFactor(_ gram: Gram, _ columnFactor: [Float]?) -> [Float]? {
    let width = gram.width
    var damping: Float = 0.01
    for _ in 0..<3 {
        var matrix = gram.values
        var trace: Float = 0
        for row in 0..<width {
            if let columnFactor { for column in row..<width { matrix[row * width + column] /= columnFactor[row] * columnFactor[column] } }
            trace += matrix[row * width + row]
        }
        guard trace > 0, trace.isFinite else { return nil }
        for row in 0..<width { matrix[row * width + row] += damping * trace / Float(width) }
        if invert(&matrix, width) { return matrix }
        damping *= 10
    }
    return nil
}

/// Replaces the upper triangle of a positive definite matrix by the upper Cholesky factor of its inverse: inv = Uᵀ U.
private func invert(_ matrix: inout [Float], _ width: Int) -> Bool {
    _ = singleThreadedBLAS
    var (n, info) = (Int32(width), Int32(0))
    // LAPACK counts columns first: its lower triangle is the upper one of a row-major matrix.
    spotrf_("L", &n, &matrix, &n, &info)
    guard info == 0 else { return false }
    spotri_("L", &n, &matrix, &n, &info)
    guard info == 0 else { return false }
    spotrf_("L", &n, &matrix, &n, &info)
    return info == 0
}

/// The walk over the columns for some rows.
private struct CompensationSweep: Sendable {
    /// [columns, columns], upper.
    let factor: [Float]
    let columns: Int
    let groupSize: Int
    let groups: Int
    let scales: [Float]
    /// Columns whose errors are moved beyond the block by one matrix product.
    private let block = 64

    func run(_ values: SharedPointer<Float>, _ rows: Range<Int>, into target: SharedPointer<Int8>) {
        guard let values = values.base else { return }
        var errors = [Float](repeating: 0, count: rows.count * block)
        for start in stride(from: 0, to: columns, by: block) {
            let end = min(columns, start + block)
            for (index, row) in rows.enumerated() {
                for column in start..<end {
                    let scale = scales[row * groups + column / groupSize]
                    let value = values[row * columns + column]
                    let unit = rounded(value, scale)
                    target[row * columns + column] = Int8(unit)
                    let error = (value - unit * scale) / factor[column * columns + column]
                    errors[index * block + column - start] = error
                    for later in column + 1..<max(end, column + 1) {
                        values[row * columns + later] -= error * factor[column * columns + later]
                    }
                }
            }
            guard end < columns else { break }
            factor.withUnsafeBufferPointer { factor in
                guard let base = factor.baseAddress else { return }
                cblas_sgemm(
                    CblasRowMajor, CblasNoTrans, CblasNoTrans, Int32(rows.count), Int32(columns - end), Int32(end - start), -1,
                    errors, Int32(block), base + start * columns + end, Int32(columns), 1,
                    values + rows.lowerBound * columns + end, Int32(columns))
            }
        }
    }
}

/// What must be added to a layer's bias so that its mean output on the calibration data stays: (W - Ŵ) · mean.
func biasCorrection(_ weight: Tensor, _ layer: QuantizedLayer, mean: [Float]) throws -> [Float] {
    let (rows, columns) = (weight.shape[0], weight.shape[1])
    let exact = weight.view.pointer(Float.self)
    let units = layer.matrix.weight.view.pointer(Int8.self)
    let scales = try layer.matrix.scales.elements(Float.self)
    let groups = groupCount(columns, layer.matrix.groupSize)
    let inputScale = try layer.inputScale?.load().elements(Float.self)
    return (0..<rows).map { row in
        var sum = 0.0
        for column in 0..<columns {
            let rounded = scales[row * groups + column / layer.matrix.groupSize] * Float(units[row * columns + column])
            sum += Double((exact[row * columns + column] - rounded * (inputScale?[column] ?? 1)) * mean[column])
        }
        return Float(sum)
    }
}
