import ModelGraph
import Support
import Tensors

/// A row of two operands and a result, with the operands' strides.
struct BinaryRow<A, B, R> {
    let a: Source<A>, b: Source<B>, y: Target<R>, stride: StridedLoop.Offsets, count: Int

    @inline(__always)
    func map(_ f: (A, B) -> R) {
        switch (stride[0], stride[1]) {
        case (1, 1): for index in 0..<count { y[index] = f(a[index], b[index]) }
        case (1, 0):
            let right = b[0]
            for index in 0..<count { y[index] = f(a[index], right) }
        case (0, 1):
            let left = a[0]
            for index in 0..<count { y[index] = f(left, b[index]) }
        default: for index in 0..<count { y[index] = f(a[index &* stride[0]], b[index &* stride[1]]) }
        }
    }
}

extension StridedLoop {
    /// Calls `body` for each row of y = f(a, b); this loop's arrays are a, b and y.
    func rows<A, B, R>(
        _ a: Source<A>, _ b: Source<B>, _ y: Target<R>, on pool: ThreadPool, _ body: @Sendable (BinaryRow<A, B, R>) -> Void
    ) {
        run(on: pool) { offset, stride, count in
            body(BinaryRow(a: a + offset[0], b: b + offset[1], y: y + offset[2], stride: stride, count: count))
        }
    }
}

/// All operations but powers.
private struct BinaryWork: TypedBody {
    let kind: Binary.Kind, a, b: TensorView, y: MutableTensorView, loop: StridedLoop, pool: ThreadPool

    func floating<T: Real & Number>(_: T.Type) {
        let kind = kind
        if kind.isComparison { return compare(T.self) }
        loop.rows(a.source(T.self), b.source(T.self), y.target(T.self), on: pool) { row in
            switch kind {
            case .add: row.map { $0 + $1 }
            case .sub: row.map { $0 - $1 }
            case .mul: row.map { $0 * $1 }
            case .div: row.map { $0 / $1 }
            case .fmod: row.map { T.fmod($0, $1) }
            case .min: row.map { $0 < $1 || $0.isNaN ? $0 : $1 }
            case .max: row.map { $0 > $1 || $0.isNaN ? $0 : $1 }
            case .prelu: row.map { $0 < 0 ? $0 * $1 : $0 }
            default: break  // The shape rule takes no other kind for this type.
            }
        }
    }

    func integer<T: FixedWidthInteger & Number>(_: T.Type) {
        let kind = kind
        if kind.isComparison { return compare(T.self) }
        loop.rows(a.source(T.self), b.source(T.self), y.target(T.self), on: pool) { row in
            switch kind {
            case .add: row.map { $0 &+ $1 }
            case .sub: row.map { $0 &- $1 }
            case .mul: row.map { $0 &* $1 }
            case .div: row.map { $0.dividedReportingOverflow(by: $1).partialValue }
            case .fmod: row.map { $0.remainderReportingOverflow(dividingBy: $1).partialValue }
            case .mod:
                row.map { a, b in
                    let rest = a.remainderReportingOverflow(dividingBy: b).partialValue
                    return rest != 0 && (rest < 0) != (b < 0) ? rest &+ b : rest
                }
            case .min: row.map { Swift.min($0, $1) }
            case .max: row.map { Swift.max($0, $1) }
            case .prelu: row.map { $0 < 0 ? $0 &* $1 : $0 }
            case .and, .bitwiseAnd: row.map { $0 & $1 }
            case .or, .bitwiseOr: row.map { $0 | $1 }
            case .xor, .bitwiseXor: row.map { $0 ^ $1 }
            case .shiftLeft: row.map { $0 << $1 }
            case .shiftRight: row.map { $0 >> $1 }
            default: break  // The shape rule takes no other kind for this type.
            }
        }
    }

    private func compare<T: Number>(_: T.Type) {
        let kind = kind
        loop.rows(a.source(T.self), b.source(T.self), y.target(UInt8.self), on: pool) { row in
            switch kind {
            case .equal: row.map { $0 == $1 ? 1 : 0 }
            case .less: row.map { $0 < $1 ? 1 : 0 }
            case .lessOrEqual: row.map { $0 <= $1 ? 1 : 0 }
            case .greater: row.map { $0 > $1 ? 1 : 0 }
            case .greaterOrEqual: row.map { $0 >= $1 ? 1 : 0 }
            default: break  // Nothing else is a comparison.
            }
        }
    }
}

extension Binary: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        if kind == .pow { return try power(inputs, outputs, pool) }
        try widened(inputs, outputs) { inputs, outputs in
            let (a, b, y) = (try inputs.required(0), try inputs.required(1), outputs[0])
            try dispatch(a.dataType, BinaryWork(kind: kind, a: a, b: b, y: y, loop: loop(a, b, y), pool: pool))
        }
    }

    private func loop(_ a: TensorView, _ b: TensorView, _ y: MutableTensorView) throws -> StridedLoop {
        StridedLoop(
            y.shape,
            [try broadcastStrides(a.shape, to: y.shape), try broadcastStrides(b.shape, to: y.shape), denseStrides(y.shape)])
    }

    /// Integers to integers are exact (and wrap); all else is computed in the wider of the two floating-point types.
    private func power(_ inputs: [TensorView?], _ outputs: [MutableTensorView], _ pool: ThreadPool) throws {
        let (a, b, y) = (try inputs.required(0), try inputs.required(1), outputs[0])
        if a.dataType.isInteger && b.dataType.isInteger {
            return try converting([a, b], to: .int64, result: y) { views, result in
                let loop = try loop(views[0], views[1], result)
                loop.rows(views[0].source(Int64.self), views[1].source(Int64.self), result.target(Int64.self), on: pool) {
                    $0.map { integerPower($0, $1) }
                }
            }
        }
        let wide = a.dataType.isInteger || a.dataType == .float64 || b.dataType == .float64
        try converting([a, b], to: wide ? .float64 : .float32, result: y) { views, result in
            let loop = try loop(views[0], views[1], result)
            if wide {
                loop.rows(views[0].source(Double.self), views[1].source(Double.self), result.target(Double.self), on: pool) {
                    $0.map { Double.pow($0, $1) }
                }
            } else {
                loop.rows(views[0].source(Float.self), views[1].source(Float.self), result.target(Float.self), on: pool) { row in
                    row.map { $1 == 2 ? $0 * $0 : Float.pow($0, $1) }
                }
            }
        }
    }
}

/// base to a power by squaring, wrapping; a negative exponent gives the quotient, towards zero.
private func integerPower(_ base: Int64, _ exponent: Int64) -> Int64 {
    if exponent < 0 { return base == 1 ? 1 : base == -1 ? (exponent & 1 == 0 ? 1 : -1) : 0 }
    var (result, square, rest) = (Int64(1), base, exponent)
    while rest > 0 {
        if rest & 1 == 1 { result = result &* square }
        square = square &* square
        rest >>= 1
    }
    return result
}
