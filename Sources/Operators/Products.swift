import COpenBLAS
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

    /// c = alpha · a · b + beta · c, with a [m, k] and b [k, n]. All numbers fit 32 bits; none of the sizes is 0.
    static func multiply(
        _ m: Int, _ n: Int, _ k: Int, _ alpha: Self, _ a: Matrix<Self>, _ b: Matrix<Self>, _ beta: Self,
        _ c: Target<Self>, stride: Int)
}

extension Float: Number {
    init(factor: Float) { self = factor }

    static func multiply(
        _ m: Int, _ n: Int, _ k: Int, _ alpha: Float, _ a: Matrix<Float>, _ b: Matrix<Float>, _ beta: Float,
        _ c: Target<Float>, stride: Int
    ) {
        _ = singleThreadedBLAS
        if m == 1 {
            // BLAS takes a row for a matrix, and would copy b to suit many rows.
            if beta == 0 { c.base.update(repeating: 0, count: n) }
            return cblas_sgemv(
                CblasRowMajor, b.transposed ? CblasNoTrans : CblasTrans, blasint(b.transposed ? n : k), blasint(b.transposed ? k : n),
                alpha, b.elements.base, blasint(b.stride), a.elements.base, blasint(a.transposed ? a.stride : 1),
                beta == 0 ? 1 : beta, c.base, 1)
        }
        cblas_sgemm(
            CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans, b.transposed ? CblasTrans : CblasNoTrans,
            blasint(m), blasint(n), blasint(k), alpha, a.elements.base, blasint(a.stride), b.elements.base, blasint(b.stride),
            beta, c.base, blasint(stride))
    }
}

extension Double: Number {
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
    let part = max(64, (1 << 22) / max(1, k * min(m, n)))
    if m >= n {
        parallel(m, grain: min(part, max(64, m / 8)), on: pool) { rows in
            var a = a
            a.elements = a.elements + rows.lowerBound * (a.transposed ? 1 : a.stride)
            T.multiply(rows.count, n, k, alpha, a, b, beta, c + rows.lowerBound * stride, stride: stride)
        }
    } else {
        parallel(n, grain: min(part, max(64, n / 8)), on: pool) { columns in
            var b = b
            b.elements = b.elements + columns.lowerBound * (b.transposed ? b.stride : 1)
            T.multiply(m, columns.count, k, alpha, a, b, beta, c + columns.lowerBound, stride: stride)
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
        try broadcastStrides(Array(left.shape.dropLast(2)), to: batch), try broadcastStrides(Array(right.shape.dropLast(2)), to: batch))
    try dispatch(a.dataType, Batches(a: left, b: right, y: y, m: m, n: n, k: k, batch: batch, strides: strides, pool: pool))
}

private struct Batches: TypedBody {
    let a, b: TensorView, y: MutableTensorView, m, n, k: Int, batch: [Int], strides: (a: [Int], b: [Int]), pool: ThreadPool

    func callAsFunction<T: Number>(_: T.Type) throws {
        let (x, w, r) = (a.source(T.self), b.source(T.self), y.target(T.self))
        var (rows, count) = (m, batch.reduce(1, *))
        // One right factor for all: the left ones are a single tall matrix.
        if strides.b.allSatisfy({ $0 == 0 }), strides.a == denseStrides(batch) || count == 1 { (rows, count) = (m * count, 1) }
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
            let product = Product(op: self, a: try inputs.required(0), b: try inputs.required(1), y: outputs[0], adds: c != nil, pool: pool)
            try dispatch(outputs[0].dataType, product)
        }
    }

    private struct Product: TypedBody {
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

// MARK: Einsum

extension Einsum: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let operands = try inputs.indices.map { try inputs.required($0) }
            let plan = try plan(ranks: operands.map(\.shape.count))
            var sizes = Array(repeating: 1, count: plan.names)
            for (term, operand) in zip(plan.terms, operands) {
                for (name, size) in zip(term, operand.shape) where size != 1 { sizes[name] = size }
            }
            var terms = try zip(plan.terms, operands).map { try Term(tensor: $1.tensor(), names: $0) }
            var result = try terms.removeFirst().withoutRepeats(sizes, on: pool)
            while !terms.isEmpty {
                let next = try terms.removeFirst().withoutRepeats(sizes, on: pool)
                let needed = Set(plan.output).union(terms.flatMap(\.names))
                result = try result.times(next, keeping: needed, sizes, on: pool)
            }
            result = try result.summed(keeping: Set(plan.output), on: pool).ordered(plan.output, sizes, on: pool)
            withExtendedLifetime(result.tensor) { outputs[0].copy(from: result.tensor.view) }
        }
    }
}

/// A tensor whose axes have names.
private struct Term {
    var tensor: Tensor
    var names: [Int]

    /// An axis for each of `names`, in this order: elements with equal names stand on the diagonal, missing and unit axes
    /// are repeated.
    func ordered(_ order: [Int], _ sizes: [Int], on pool: ThreadPool) throws -> Term {
        let dense = denseStrides(tensor.shape)
        let strides = order.map { name in
            names.indices.filter { names[$0] == name && tensor.shape[$0] != 1 }.reduce(0) { $0 + dense[$1] }
        }
        let moved = try Tensor.written(tensor.dataType, order.map { sizes[$0] }) { view in
            withExtendedLifetime(tensor) { view.copy(from: tensor.view, strides: strides, on: pool) }
        }
        return Term(tensor: moved, names: order)
    }

    func withoutRepeats(_ sizes: [Int], on pool: ThreadPool) throws -> Term {
        let distinct = names.indices.filter { names.firstIndex(of: names[$0]) == $0 }.map { names[$0] }
        var own = sizes.map { _ in 1 }
        for (name, size) in zip(names, tensor.shape) where size != 1 { own[name] = size }
        return distinct.count == names.count ? self : try ordered(distinct, own, on: pool)
    }

    /// The sum over all other axes.
    func summed(keeping needed: Set<Int>, on pool: ThreadPool) throws -> Term {
        let axes = names.indices.filter { !needed.contains(names[$0]) }
        if axes.isEmpty { return self }
        let reduced = try evaluate(
            Reduce(.sum, keepDimensions: false), [tensor, Tensor(axes.map { Int64($0) }, shape: [axes.count])], on: pool)
        return Term(tensor: reduced[0], names: names.filter { needed.contains($0) })
    }

    /// The product with another term as a batch of matrix products.
    func times(_ other: Term, keeping needed: Set<Int>, _ sizes: [Int], on pool: ThreadPool) throws -> Term {
        let left = try summed(keeping: needed.union(other.names), on: pool)
        let right = try other.summed(keeping: needed.union(names), on: pool)
        let shared = left.names.filter { right.names.contains($0) }
        let (batch, inner) = (shared.filter { needed.contains($0) }, shared.filter { !needed.contains($0) })
        let rows = left.names.filter { !shared.contains($0) }
        let columns = right.names.filter { !shared.contains($0) }
        func extent(_ names: [Int]) -> Int { names.reduce(1) { $0 * sizes[$1] } }
        let a = try left.ordered(batch + rows + inner, sizes, on: pool)
        let b = try right.ordered(batch + inner + columns, sizes, on: pool)
        let (count, m, k, n) = (extent(batch), extent(rows), extent(inner), extent(columns))
        let product = try evaluate(MatMul(), [a.tensor.reshaped([count, m, k]), b.tensor.reshaped([count, k, n])], on: pool)
        let names = batch + rows + columns
        return Term(tensor: try product[0].reshaped(names.map { sizes[$0] }), names: names)
    }
}

// MARK: Attention of ONNX

extension OnnxAttention: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            // Single precision for all but float64.
            if inputs.compactMap({ $0 }).contains(where: { $0.dataType == .float64 }) {
                try attend(Double.self, .float64, inputs, outputs, pool)
            } else {
                try attend(Float.self, .float32, inputs, outputs, pool)
            }
        }
    }

    private func attend<T: Real & Number>(
        _: T.Type, _ dataType: DataType, _ inputs: [TensorView?], _ outputs: [MutableTensorView], _ pool: ThreadPool
    ) throws {
        let q = try headed(inputs.required(0), queryHeads, dataType, pool)
        let newKeys = try headed(inputs.required(1), keyHeads, dataType, pool)
        let newValues = try headed(inputs.required(2), keyHeads, dataType, pool)
        let k = try inputs.optional(4).map { try joined($0, newKeys, pool) } ?? newKeys
        let v = try inputs.optional(5).map { try joined($0, newValues, pool) } ?? newValues
        let (batch, heads, length, width) = (q.shape[0], q.shape[1], q.shape[2], q.shape[3])
        let (keyHeads, keys, valueWidth) = (k.shape[1], k.shape[2], v.shape[3])
        guard keyHeads > 0 || heads == 0, k.shape[0] == batch, v.shape[0] == batch, k.shape[3] == width else {
            throw TripsError.data("shapes of q, k and v", found: "\(q.shape), \(k.shape), \(v.shape)")
        }
        let shape = [batch, heads, length, keys]
        let bias = try additiveMask(inputs.optional(3), shape, dataType, pool)
        let valid = try inputs.optional(6)?.integers().map { min(max($0, 0), keys) }
        let scores = try Scratch<T>(elementCount(of: shape))
        let y = try Tensor.written(dataType, [batch, heads, length, valueWidth]) { y in
            try scores.withTarget { scores in
                let work = HeadWork<T>(
                    op: self, query: q.view.source(), key: k.view.source(), value: v.view.source(), bias: bias?.view.source(),
                    scores: scores, shown: outputs.count > 3 ? outputs[3].target() : nil, result: y.target(),
                    heads: heads, keyHeads: keyHeads, length: length, keys: keys, width: width, valueWidth: valueWidth,
                    past: keys - newKeys.shape[2], valid: valid)
                try pool.tryRun(batch * heads) { try work.attend($0, on: pool) }
            }
        }
        try put(y, into: outputs[0], pool)
        if outputs.count > 1 { withExtendedLifetime(k) { convert(k.view, into: outputs[1]) } }
        if outputs.count > 2 { withExtendedLifetime(v) { convert(v.view, into: outputs[2]) } }
    }

    /// [B, heads, L, D] from that, or from [B, L, heads · D].
    private func headed(_ x: TensorView, _ heads: Int?, _ dataType: DataType, _ pool: ThreadPool) throws -> Tensor {
        let tensor = try x.tensor().converted(to: dataType)
        guard x.shape.count == 3, let heads, heads > 0 else { return tensor }
        let split = try tensor.reshaped([x.shape[0], x.shape[1], heads, x.shape[2] / heads])
        return try evaluate(Transpose(permutation: [0, 2, 1, 3]), [split], on: pool)[0]
    }

    private func joined(_ past: TensorView, _ new: Tensor, _ pool: ThreadPool) throws -> Tensor {
        try evaluate(Concat(axis: 2), [past.tensor().converted(to: new.dataType), new], on: pool)[0]
    }

    /// The mask as addends for all scores; keys behind a shorter mask are left out.
    private func additiveMask(_ mask: TensorView?, _ shape: [Int], _ dataType: DataType, _ pool: ThreadPool) throws -> Tensor? {
        guard let mask else { return nil }
        var tensor = try mask.tensor()
        if mask.dataType == .bool {
            let (zero, lowest) = (try Tensor(scalar: Float(0)), try Tensor(scalar: -Float.infinity))
            tensor = try evaluate(Where(), [tensor, zero, lowest], on: pool)[0]
        }
        tensor = try tensor.converted(to: dataType)
        if let last = tensor.shape.last, last < shape[3], last != 1 {
            let pads = Array(repeating: Int64(0), count: 2 * tensor.shape.count - 1) + [Int64(shape[3] - last)]
            let lowest = try Tensor(scalar: -Float.infinity).converted(to: dataType)
            tensor = try evaluate(Pad(), [tensor, Tensor(pads, shape: [pads.count]), lowest], on: pool)[0]
        }
        return try evaluate(Expand(), [tensor, Tensor(shape.map { Int64($0) }, shape: [4])], on: pool)[0]
    }

    private func put(_ y: Tensor, into output: MutableTensorView, _ pool: ThreadPool) throws {
        if output.shape.count == 4 { return withExtendedLifetime(y) { convert(y.view, into: output) } }
        let moved = try evaluate(Transpose(permutation: [0, 2, 1, 3]), [y], on: pool)[0]
        withExtendedLifetime(moved) { convert(moved.view, into: output) }
    }
}

/// What is computed for each head of each example, all arrays as [B, heads, L, D].
private struct HeadWork<T: Real & Number>: Sendable {
    let op: OnnxAttention
    let query, key, value: Source<T>
    /// Added to the scores.
    let bias: Source<T>?
    let scores: Target<T>
    /// Where the scores go that the operator puts out.
    let shown: Target<T>?
    let result: Target<T>
    let heads, keyHeads, length, keys, width, valueWidth: Int
    /// How many keys come from runs before.
    let past: Int
    /// For each example the number of keys that are no padding.
    let valid: [Int]?

    func attend(_ head: Int, on pool: ThreadPool) throws {
        let (b, h) = head.quotientAndRemainder(dividingBy: heads)
        let kv = b * keyHeads + h / (heads / keyHeads)
        let block = scores + head * length * keys
        try multiply(
            length, keys, width, alpha: T(op.scale ?? 1 / Float(width).squareRoot()),
            Matrix(elements: query + head * length * width, stride: width),
            Matrix(elements: key + kv * keys * width, stride: width, transposed: true), block, stride: max(1, keys), on: pool)
        func show(_ stage: OnnxAttention.Scores) {
            guard stage == op.scores, let shown else { return }
            (shown + head * length * keys).base.update(from: block.base, count: length * keys)
        }
        show(.products)
        if op.softcap != 0 {
            let cap = T(op.softcap)
            for index in 0..<length * keys { block[index] = cap * T.tanh(block[index] / cap) }
        }
        show(.capped)
        mask(block, bias.map { $0 + head * length * keys }, valid: valid?[b])
        show(.masked)
        for row in 0..<length {
            let line = block + row * keys
            softmaxRow(line.source, line, count: keys, fullyMasked: .zero)
        }
        show(.softmax)
        try multiply(
            length, valueWidth, keys, Matrix(elements: block.source, stride: max(1, keys)),
            Matrix(elements: value + kv * keys * valueWidth, stride: valueWidth), result + head * length * valueWidth,
            stride: valueWidth, on: pool)
    }

    /// Adds a bias to the scores of one head, and hides later keys and, from `valid` on, padded ones.
    private func mask(_ scores: Target<T>, _ bias: Source<T>?, valid: Int?) {
        for row in 0..<length {
            // With padded keys the causal edge lies at the end of what is valid.
            let edge = valid.map { row + $0 - length } ?? row + past
            for column in 0..<keys {
                let place = row * keys + column
                if let bias { scores[place] += bias[place] }
                if op.causal && column > edge || column >= valid ?? keys { scores[place] = -.infinity }
            }
        }
    }
}
