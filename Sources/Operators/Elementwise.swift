import Kernels
import ModelGraph
import Support
import Tensors

/// Consecutive elements of two arrays. The functions that are mapped are inlined into one loop each, which is why the
/// choice between them stands inside the parallel loop.
private struct UnaryRow<X, R> {
    let x: Source<X>, y: Target<R>, range: Range<Int>

    @inline(__always)
    func map(_ f: (X) -> R) {
        for index in range { y[index] = f(x[index]) }
    }
}

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

// MARK: Unary

extension Unary: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let (x, y) = (try inputs.required(0), outputs[0])
            switch x.dataType {
            case .float64: floating(Double.self, x, y, pool)
            case .float32, .float16, .bfloat16: floating(Float.self, x, y, pool)
            case .int64: integer(Int64.self, x, y, pool)
            case .int32: integer(Int32.self, x, y, pool)
            case .int16: integer(Int16.self, x, y, pool)
            case .int8: integer(Int8.self, x, y, pool)
            case .uint64: integer(UInt64.self, x, y, pool)
            case .uint32: integer(UInt32.self, x, y, pool)
            case .uint16: integer(UInt16.self, x, y, pool)
            case .uint8: integer(UInt8.self, x, y, pool)
            case .bool: rows(UInt8.self, UInt8.self, x, y, pool) { $0.map { $0 == 0 ? 1 : 0 } }
            }
        }
    }

    private func integer<T: FixedWidthInteger & Sendable>(_: T.Type, _ input: TensorView, _ output: MutableTensorView, _ pool: ThreadPool) {
        let kind = kind
        let (lambda, bias) = (Double(alpha ?? defaultAlpha), Double(beta ?? defaultBeta))
        rows(T.self, T.self, input, output, pool) { row in
            switch kind {
            case .abs: row.map { $0 < 0 ? 0 &- $0 : $0 }
            case .neg: row.map { 0 &- $0 }
            case .sign: row.map { $0.signum() }
            case .relu: row.map { $0 < 0 ? 0 : $0 }
            case .bitwiseNot: row.map { ~$0 }
            case .shrink:
                row.map { value in
                    let number = Double(value)
                    return number < -lambda ? saturating(number + bias) : number > lambda ? saturating(number - bias) : 0
                }
            default: break // The shape rule takes no other kind for integers.
            }
        }
    }

    private func floating<T: Real>(_: T.Type, _ input: TensorView, _ output: MutableTensorView, _ pool: ThreadPool) {
        if output.dataType == .bool { return test(T.self, input, output, pool) }
        if kind == .sigmoid, T.self == Float.self { return activate(input, output, TRIPS_ACTIVATION_SIGMOID, on: pool) }
        if kind == .swish, alpha ?? defaultAlpha == 1, T.self == Float.self {
            return activate(input, output, TRIPS_ACTIVATION_SWISH, on: pool)
        }
        let kind = kind
        let (alpha, beta) = (T(alpha ?? defaultAlpha), T(beta ?? defaultBeta))
        rows(T.self, T.self, input, output, pool) { row in
            switch kind {
            case .abs: row.map { $0.magnitude }
            case .neg: row.map { -$0 }
            case .sign: row.map { $0 > 0 ? 1 : $0 < 0 ? -1 : $0 }
            case .reciprocal: row.map { 1 / $0 }
            case .sqrt: row.map { $0.squareRoot() }
            case .exp: row.map { T.exp($0) }
            case .log: row.map { T.log($0) }
            case .erf: row.map { T.erf($0) }
            case .floor: row.map { $0.rounded(.down) }
            case .ceil: row.map { $0.rounded(.up) }
            case .round: row.map { $0.rounded(.toNearestOrEven) }
            case .sin: row.map { T.sin($0) }
            case .cos: row.map { T.cos($0) }
            case .tan: row.map { T.tan($0) }
            case .asin: row.map { T.asin($0) }
            case .acos: row.map { T.acos($0) }
            case .atan: row.map { T.atan($0) }
            case .sinh: row.map { T.sinh($0) }
            case .cosh: row.map { T.cosh($0) }
            case .tanh: row.map { T.tanh($0) }
            case .asinh: row.map { T.asinh($0) }
            case .acosh: row.map { T.acosh($0) }
            case .atanh: row.map { T.atanh($0) }
            case .sigmoid: row.map { sigmoid($0) }
            case .relu: row.map { $0 < 0 ? 0 : $0 }
            case .softplus: row.map { softplus($0) }
            case .softsign: row.map { $0 / (1 + $0.magnitude) }
            case .mish: row.map { $0 * T.tanh(softplus($0)) }
            case .hardSwish: row.map { $0 * unit($0 / 6 + T(0.5)) }
            case .swish: row.map { $0 * sigmoid(alpha * $0) }
            case .leakyRelu: row.map { $0 < 0 ? alpha * $0 : $0 }
            case .elu: row.map { $0 < 0 ? alpha * T.expm1($0) : $0 }
            case .celu: row.map { $0 < 0 ? alpha * T.expm1($0 / alpha) : $0 }
            case .selu: row.map { beta * ($0 <= 0 ? alpha * T.expm1($0) : $0) }
            case .hardSigmoid: row.map { unit(alpha * $0 + beta) }
            case .thresholdedRelu: row.map { $0 > alpha || $0.isNaN ? $0 : 0 }
            case .shrink: row.map { $0 < -alpha ? $0 + beta : $0 > alpha ? $0 - beta : 0 }
            default: break // Predicates have booleans as result; the rest is not for floating point.
            }
        }
    }

    private func test<T: Real>(_: T.Type, _ input: TensorView, _ output: MutableTensorView, _ pool: ThreadPool) {
        let kind = kind
        rows(T.self, UInt8.self, input, output, pool) { row in
            switch kind {
            case .isNaN: row.map { $0.isNaN ? 1 : 0 }
            case .isInf: row.map { $0.isInfinite ? 1 : 0 }
            case .isPositiveInf: row.map { $0 == .infinity ? 1 : 0 }
            default: row.map { $0 == -.infinity ? 1 : 0 }
            }
        }
    }

    private func rows<X, R>(
        _: X.Type, _: R.Type, _ input: TensorView, _ output: MutableTensorView, _ pool: ThreadPool,
        _ body: @Sendable (UnaryRow<X, R>) -> Void
    ) {
        let (x, y) = (input.source(X.self), output.target(R.self))
        parallel(input.count, grain: taskGrain, on: pool) { body(UnaryRow(x: x, y: y, range: $0)) }
    }

    private var defaultAlpha: Float {
        switch kind {
        case .leakyRelu: 0.01
        case .selu: 1.67326319217681884765625
        case .hardSigmoid: 0.2
        case .shrink: 0.5
        default: 1
        }
    }

    private var defaultBeta: Float {
        switch kind {
        case .selu: 1.05070102214813232421875
        case .hardSigmoid: 0.5
        default: 0
        }
    }
}

/// y = activation(x), in single precision.
func activate(_ x: TensorView, _ y: MutableTensorView, _ activation: trips_activation, on pool: ThreadPool) {
    let (source, target) = (x.source(Float.self), y.target(Float.self))
    parallel(x.count, grain: taskGrain, on: pool) { part in
        trips_activate((target + part.lowerBound).base, (source + part.lowerBound).base, part.count, activation)
    }
}

/// 1 / (1 + exp(-x)), without overflow.
@inline(__always)
func sigmoid<T: Real>(_ x: T) -> T {
    let e = T.exp(-x.magnitude)
    return x < 0 ? e / (1 + e) : 1 / (1 + e)
}

/// log(1 + exp(x)), without overflow.
@inline(__always)
private func softplus<T: Real>(_ x: T) -> T { (x < 0 ? 0 : x) + T.log1p(T.exp(-x.magnitude)) }

/// max(0, min(1, x))
@inline(__always)
private func unit<T: Real>(_ x: T) -> T { x < 0 ? 0 : x > 1 ? 1 : x }

// MARK: Binary

extension Binary: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        if kind == .pow { return try power(inputs, outputs, pool) }
        try widened(inputs, outputs) { inputs, outputs in
            let (a, b, y) = (try inputs.required(0), try inputs.required(1), outputs[0])
            let loop = try self.loop(a, b, y)
            switch a.dataType {
            case .float64: floating(Double.self, a, b, y, loop, pool)
            case .float32, .float16, .bfloat16: floating(Float.self, a, b, y, loop, pool)
            case .int64: integer(Int64.self, a, b, y, loop, pool)
            case .int32: integer(Int32.self, a, b, y, loop, pool)
            case .int16: integer(Int16.self, a, b, y, loop, pool)
            case .int8: integer(Int8.self, a, b, y, loop, pool)
            case .uint64: integer(UInt64.self, a, b, y, loop, pool)
            case .uint32: integer(UInt32.self, a, b, y, loop, pool)
            case .uint16: integer(UInt16.self, a, b, y, loop, pool)
            case .uint8, .bool: integer(UInt8.self, a, b, y, loop, pool)
            }
        }
    }

    private func loop(_ a: TensorView, _ b: TensorView, _ y: MutableTensorView) throws -> StridedLoop {
        StridedLoop(y.shape, [try broadcastStrides(a.shape, to: y.shape), try broadcastStrides(b.shape, to: y.shape), denseStrides(y.shape)])
    }

    private func floating<T: Real>(
        _: T.Type, _ left: TensorView, _ right: TensorView, _ output: MutableTensorView, _ loop: StridedLoop, _ pool: ThreadPool
    ) {
        let (a, b, kind) = (left.source(T.self), right.source(T.self), kind)
        if kind.isComparison { return compare(a, b, output, loop, pool) }
        loop.rows(a, b, output.target(T.self), on: pool) { row in
            switch kind {
            case .add: row.map { $0 + $1 }
            case .sub: row.map { $0 - $1 }
            case .mul: row.map { $0 * $1 }
            case .div: row.map { $0 / $1 }
            case .fmod: row.map { T.fmod($0, $1) }
            case .min: row.map { $0 < $1 || $0.isNaN ? $0 : $1 }
            case .max: row.map { $0 > $1 || $0.isNaN ? $0 : $1 }
            case .prelu: row.map { $0 < 0 ? $0 * $1 : $0 }
            default: break // The shape rule takes no other kind for this type.
            }
        }
    }

    private func integer<T: FixedWidthInteger & Sendable>(
        _: T.Type, _ left: TensorView, _ right: TensorView, _ output: MutableTensorView, _ loop: StridedLoop, _ pool: ThreadPool
    ) {
        let (a, b, kind) = (left.source(T.self), right.source(T.self), kind)
        if kind.isComparison { return compare(a, b, output, loop, pool) }
        loop.rows(a, b, output.target(T.self), on: pool) { row in
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
            default: break // The shape rule takes no other kind for this type.
            }
        }
    }

    private func compare<T: Comparable & Sendable>(
        _ a: Source<T>, _ b: Source<T>, _ output: MutableTensorView, _ loop: StridedLoop, _ pool: ThreadPool
    ) {
        let kind = kind
        loop.rows(a, b, output.target(UInt8.self), on: pool) { row in
            switch kind {
            case .equal: row.map { $0 == $1 ? 1 : 0 }
            case .less: row.map { $0 < $1 ? 1 : 0 }
            case .lessOrEqual: row.map { $0 <= $1 ? 1 : 0 }
            case .greater: row.map { $0 > $1 ? 1 : 0 }
            case .greaterOrEqual: row.map { $0 >= $1 ? 1 : 0 }
            default: break // Nothing else is a comparison.
            }
        }
    }

    // MARK: Powers

    /// Integers to integers are exact (and wrap); all else is computed in the wider of the two floating-point types.
    private func power(_ inputs: [TensorView?], _ outputs: [MutableTensorView], _ pool: ThreadPool) throws {
        let (a, b, y) = (try inputs.required(0), try inputs.required(1), outputs[0])
        if a.dataType.isInteger && b.dataType.isInteger {
            return try converting([a, b], to: .int64, result: y) { views, result in
                let loop = try loop(views[0], views[1], result)
                loop.rows(views[0].source(Int64.self), views[1].source(Int64.self), result.target(Int64.self), on: pool) { $0.map { integerPower($0, $1) } }
            }
        }
        let wide = a.dataType.isInteger || a.dataType == .float64 || b.dataType == .float64
        try converting([a, b], to: wide ? .float64 : .float32, result: y) { views, result in
            let loop = try loop(views[0], views[1], result)
            if wide {
                loop.rows(views[0].source(Double.self), views[1].source(Double.self), result.target(Double.self), on: pool) { $0.map { Double.pow($0, $1) } }
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

/// Runs `body` on the views converted to one type, and converts its result to the output's type.
func converting(
    _ views: [TensorView], to dataType: DataType, result output: MutableTensorView,
    _ body: ([TensorView], MutableTensorView) throws -> Void
) throws {
    let tensors = try views.map { $0.dataType == dataType ? nil : try $0.tensor().converted(to: dataType) }
    try withExtendedLifetime(tensors) {
        let converted = zip(views, tensors).map { $1?.view ?? $0 }
        if output.dataType == dataType { return try body(converted, output) }
        let result = try Tensor.written(dataType, output.shape) { try body(converted, $0) }
        withExtendedLifetime(result) { convert(result.view, into: output) }
    }
}

// MARK: Others

extension Where: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (condition, x, y, result) = (try inputs.required(0), try inputs.required(1), try inputs.required(2), outputs[0])
        let loop = StridedLoop(
            result.shape,
            try [condition, x, y].map { try broadcastStrides($0.shape, to: result.shape) } + [denseStrides(result.shape)])
        func choose<Element>(_: Element.Type) {
            let (c, a, b, r) = (condition.source(UInt8.self), x.source(Element.self), y.source(Element.self), result.target(Element.self))
            loop.run(on: pool) { offset, stride, count in
                let (c, a, b, r) = (c + offset[0], a + offset[1], b + offset[2], r + offset[3])
                for index in 0..<count {
                    r[index] = c[index &* stride[0]] != 0 ? a[index &* stride[1]] : b[index &* stride[2]]
                }
            }
        }
        switch result.dataType.byteWidth {
        case 1: choose(UInt8.self)
        case 2: choose(UInt16.self)
        case 4: choose(UInt32.self)
        default: choose(UInt64.self)
        }
    }
}

extension Clip: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            func clip<T: Comparable & Sendable>(_: T.Type) throws {
                let lower = try inputs.optional(1).map { try $0.first(T.self) }
                let upper = try inputs.optional(2).map { try $0.first(T.self) }
                let (source, target) = (x.source(T.self), outputs[0].target(T.self))
                parallel(x.count, grain: taskGrain, on: pool) { part in
                    for index in part {
                        var value = source[index]
                        if let lower, value < lower { value = lower }
                        if let upper, value > upper { value = upper }
                        target[index] = value
                    }
                }
            }
            switch x.dataType {
            case .float64: try clip(Double.self)
            case .float32, .float16, .bfloat16: try clip(Float.self)
            case .int64: try clip(Int64.self)
            case .int32: try clip(Int32.self)
            case .int16: try clip(Int16.self)
            case .int8: try clip(Int8.self)
            case .uint64: try clip(UInt64.self)
            case .uint32: try clip(UInt32.self)
            case .uint16: try clip(UInt16.self)
            case .uint8, .bool: try clip(UInt8.self)
            }
        }
    }
}

extension TensorView {
    /// The first element.
    /// - Throws: `data` where there is none.
    func first<Element>(_: Element.Type) throws -> Element {
        guard count > 0 else { throw TripsError.data("an operand without elements", found: type, expected: "one element") }
        return source(Element.self)[0]
    }
}

extension Cast: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        convert(try inputs.required(0), into: outputs[0])
    }
}

extension Identity: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        outputs[0].copy(from: try inputs.required(0))
    }
}
