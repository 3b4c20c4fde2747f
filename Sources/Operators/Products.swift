import COpenBLAS
import Kernels
import ModelGraph
import Support
import Tensors

/// A matrix in memory: rows that lie `stride` apart, read as its transpose where `transposed`.
struct Matrix<Element>: Sendable {
    var elements: Source<Element>
    var stride: Int
    var transposed = false
}

/// Element types that can be computed with: half precision is widened before, and booleans count as bytes.
protocol Number: TensorElement, Numeric, Comparable {
    /// The number, integers rounded towards zero.
    init(factor: Float)

    /// The least number, infinity included.
    static var lowest: Self { get }

    /// c = alpha · a · b + beta · c, with a [m, k] and b [k, n]. All numbers fit 32 bits; none of the sizes is 0.
    static func multiply(
        _ m: Int, _ n: Int, _ k: Int, _ alpha: Self, _ a: Matrix<Self>, _ b: Matrix<Self>, _ beta: Self,
        _ c: Target<Self>, stride: Int) throws
}

extension Float: Number {
    static var lowest: Float { -.infinity }

    init(factor: Float) { self = factor }

    static func multiply(
        _ m: Int, _ n: Int, _ k: Int, _ alpha: Float, _ a: Matrix<Float>, _ b: Matrix<Float>, _ beta: Float,
        _ c: Target<Float>, stride: Int
    ) throws {
        if m == 1, alpha == 1, beta == 0, !a.transposed, !b.transposed {
            return trips_weighted_rows(c.base, b.elements.base, b.stride, nil, a.elements.base, k, n)
        }
        if m > 1, k <= mostPackedInputs, !a.transposed, beta == 0 || (alpha, beta) == (1, 1) {
            return try multiplyPacked(m, n, k, alpha, a, b, adds: beta == 1, c, stride: stride)
        }
        _ = singleThreadedBLAS
        if m == 1 {
            // BLAS takes a row for a matrix, and would copy b to suit many rows.
            if beta == 0 { c.base.update(repeating: 0, count: n) }
            return cblas_sgemv(
                CblasRowMajor, b.transposed ? CblasNoTrans : CblasTrans, blasint(b.transposed ? n : k),
                blasint(b.transposed ? k : n),
                alpha, b.elements.base, blasint(b.stride), a.elements.base, blasint(a.transposed ? a.stride : 1),
                beta == 0 ? 1 : beta, c.base, 1)
        }
        cblas_sgemm(
            CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans, b.transposed ? CblasTrans : CblasNoTrans,
            blasint(m), blasint(n), blasint(k), alpha, a.elements.base, blasint(a.stride), b.elements.base, blasint(b.stride),
            beta, c.base, blasint(stride))
    }

    /// c = alpha · a · b, or c + a · b, by the kernels for constant weights, which b is packed for.
    private static func multiplyPacked(
        _ m: Int, _ n: Int, _ k: Int, _ alpha: Float, _ a: Matrix<Float>, _ b: Matrix<Float>, adds: Bool, _ c: Target<Float>,
        stride: Int
    ) throws {
        let panel = Int(TRIPS_PANEL), width = max(panel, packedNumbers / k / panel * panel)
        let packed = try Scratch<Float>(trips_sgemm_pack_size(min(n, width), k), zeroed: false)
        try packed.withTarget { packed in
            for first in Swift.stride(from: 0, to: n, by: width) {
                let (columns, c) = (min(width, n - first), c + first)
                let factor = b.elements + first * (b.transposed ? b.stride : 1)
                trips_sgemm_pack_factor(packed.base, factor.base, b.stride, columns, k, b.transposed)
                var epilogue = trips_epilogue(
                    bias: nil, residual: adds ? c.source.base : nil, ldr: stride, residual_rows: nil,
                    activation: TRIPS_ACTIVATION_NONE)
                trips_sgemm(a.elements.base, a.stride, packed.base, columns, k, c.base, stride, 0, m, 0, columns, &epilogue)
                if alpha != 1 { for row in 0..<m { for column in 0..<columns { c[row * stride + column] *= alpha } } }
            }
        }
    }

    /// Numbers of a factor that are packed together: they stay in a core's cache.
    private static let packedNumbers = 1 << 18

    /// A panel of more, which may have a single column, would take memory out of proportion.
    private static let mostPackedInputs = 1 << 16
}

extension Double: Number {
    static var lowest: Double { -.infinity }

    init(factor: Float) { self = Double(factor) }

    static func multiply(
        _ m: Int, _ n: Int, _ k: Int, _ alpha: Double, _ a: Matrix<Double>, _ b: Matrix<Double>, _ beta: Double,
        _ c: Target<Double>, stride: Int
    ) {
        _ = singleThreadedBLAS
        cblas_dgemm(
            CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans, b.transposed ? CblasTrans : CblasNoTrans,
            blasint(m), blasint(n), blasint(k), alpha, a.elements.base, blasint(a.stride), b.elements.base, blasint(b.stride),
            beta, c.base, blasint(stride))
    }
}

extension Number where Self: FixedWidthInteger {
    static var lowest: Self { .min }

    init(factor: Float) { self = saturating(factor) }

    static func multiply(
        _ m: Int, _ n: Int, _ k: Int, _ alpha: Self, _ a: Matrix<Self>, _ b: Matrix<Self>, _ beta: Self,
        _ c: Target<Self>, stride: Int
    ) {
        let (rowA, columnA) = a.transposed ? (1, a.stride) : (a.stride, 1)
        let (rowB, columnB) = b.transposed ? (1, b.stride) : (b.stride, 1)
        for row in 0..<m {
            for column in 0..<n {
                var total: Self = 0
                for inner in 0..<k {
                    total = total &+ a.elements[row * rowA + inner * columnA] &* b.elements[inner * rowB + column * columnB]
                }
                let old = beta == 0 ? 0 : beta &* c[row * stride + column]
                c[row * stride + column] = alpha &* total &+ old
            }
        }
    }
}

extension Int64: Number {}
extension Int32: Number {}
extension Int16: Number {}
extension Int8: Number {}
extension UInt64: Number {}
extension UInt32: Number {}
extension UInt16: Number {}
extension UInt8: Number {}

/// c = alpha · a · b + beta · c for any sizes, in parts that several threads share. The parts depend on the sizes alone.
/// - Throws: `data` where a size does not fit 32 bits.
func multiply<T: Number>(
    _ m: Int, _ n: Int, _ k: Int, alpha: T = 1, _ a: Matrix<T>, _ b: Matrix<T>, beta: T = 0, _ c: Target<T>, stride: Int,
    on pool: ThreadPool
) throws {
    guard m > 0, n > 0 else { return }
    guard max(m, n, k, a.stride, b.stride, stride) <= Int(Int32.max) else {
        throw TripsError.data("a matrix is too large", found: "\(m) x \(k) times \(k) x \(n)", expected: "sizes that fit 32 bits")
    }
    guard k > 0 else {
        for row in 0..<m { for column in 0..<n { c[row * stride + column] = beta == 0 ? 0 : beta * c[row * stride + column] } }
        return
    }
    // Parts of little work cost more than sharing them out gains.
    let (length, cost) = (max(m, n), k * min(m, n))
    let part = max(64, (1 << 17) / cost, min((1 << 22) / cost, length / 8))
    try pool.tryRun((length - 1) / part + 1) { index in
        let range = index * part..<min(length, (index + 1) * part)
        var (a, b) = (a, b)
        if m >= n {
            a.elements = a.elements + range.lowerBound * (a.transposed ? 1 : a.stride)
            try T.multiply(range.count, n, k, alpha, a, b, beta, c + range.lowerBound * stride, stride: stride)
        } else {
            b.elements = b.elements + range.lowerBound * (b.transposed ? b.stride : 1)
            try T.multiply(m, range.count, k, alpha, a, b, beta, c + range.lowerBound, stride: stride)
        }
    }
}

// MARK: MatMul

extension MatMul: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            try multiplyBatches(inputs.required(0), inputs.required(1), outputs[0], on: pool)
        }
    }
}

/// NumPy's matmul of operands of one type, single precision or wider.
func multiplyBatches(_ a: TensorView, _ b: TensorView, _ y: MutableTensorView, on pool: ThreadPool) throws {
    let left = a.shape.count == 1 ? a.reshaped([1] + a.shape) : a
    let right = b.shape.count == 1 ? b.reshaped(b.shape + [1]) : b
    let (m, k) = (left.shape[left.shape.count - 2], left.shape[left.shape.count - 1])
    let n = right.shape[right.shape.count - 1]
    let tail = (a.shape.count > 1 ? 1 : 0) + (b.shape.count > 1 ? 1 : 0)
    let batch = Array(y.shape.dropLast(tail))
    guard right.shape[right.shape.count - 2] == k, y.count == batch.reduce(m * n, *) else {
        throw TripsError.data("factors", found: "\(a.type) and \(b.type)", expected: "inner sizes that are equal")
    }
    let strides = (
        try broadcastStrides(Array(left.shape.dropLast(2)), to: batch),
        try broadcastStrides(Array(right.shape.dropLast(2)), to: batch)
    )
    try dispatch(a.dataType, Batches(a: left, b: right, y: y, m: m, n: n, k: k, batch: batch, strides: strides, pool: pool))
}

private struct Batches: UniformBody {
    let a, b: TensorView, y: MutableTensorView, m, n, k: Int, batch: [Int], strides: (a: [Int], b: [Int]), pool: ThreadPool

    func callAsFunction<T: Number>(_: T.Type) throws {
        let (x, w, r) = (a.source(T.self), b.source(T.self), y.target(T.self))
        var (rows, count) = (m, batch.reduce(1, *))
        // One right factor for all: the left ones are a single tall matrix.
        if strides.b.allSatisfy({ $0 == 0 }), strides.a == denseStrides(batch) || count == 1 { (rows, count) = (m * count, 1) }
        guard y.count > 0 else { return }
        if count == 1 {
            return try multiply(
                rows, n, k, Matrix(elements: x, stride: k), Matrix(elements: w, stride: n), r, stride: n, on: pool)
        }
        let places = (0..<count).map { index in
            var (rest, left, right) = (index, 0, 0)
            for axis in batch.indices.reversed() {
                left += rest % batch[axis] * strides.a[axis]
                right += rest % batch[axis] * strides.b[axis]
                rest /= batch[axis]
            }
            return (left * m * k, right * k * n)
        }
        try pool.tryRun(count) { index in
            try multiply(
                m, n, k, Matrix(elements: x + places[index].0, stride: k), Matrix(elements: w + places[index].1, stride: n),
                r + index * m * n, stride: n, on: pool)
        }
    }
}

// MARK: Gemm

extension Gemm: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let c = beta == 0 ? nil : inputs.optional(2)
            if let c { outputs[0].copy(from: c, strides: try broadcastStrides(c.shape, to: outputs[0].shape), on: pool) }
            let product = Product(
                op: self, a: try inputs.required(0), b: try inputs.required(1), y: outputs[0], adds: c != nil, pool: pool)
            try dispatch(outputs[0].dataType, product)
        }
    }

    private struct Product: UniformBody {
        let op: Gemm, a, b: TensorView, y: MutableTensorView, adds: Bool, pool: ThreadPool

        func callAsFunction<T: Number>(_: T.Type) throws {
            let (m, n) = (y.shape[0], y.shape[1])
            let k = a.shape[op.transposeA ? 0 : 1]
            guard b.shape[op.transposeB ? 1 : 0] == k else { throw TripsError.data("factors", found: "\(a.type) and \(b.type)") }
            try multiply(
                m, n, k, alpha: T(factor: op.alpha), Matrix(elements: a.source(), stride: a.shape[1], transposed: op.transposeA),
                Matrix(elements: b.source(), stride: b.shape[1], transposed: op.transposeB), beta: adds ? T(factor: op.beta) : 0,
                y.target(), stride: n, on: pool)
        }
    }
}
