import ModelGraph
import Support
import Tensors

/// r[i] = f(x[i])
@inline(__always)
func map<X, R>(_ x: Source<X>, _ r: Target<R>, _ count: Int, on pool: ThreadPool, _ f: @Sendable (X) -> R) {
    parallel(count, grain: taskGrain, on: pool) { part in
        for index in part { r[index] = f(x[index]) }
    }
}

/// r = f(a, b) with broadcasting.
@inline(__always)
func map<A, B, R>(
    _ a: Source<A>, _ b: Source<B>, _ r: Target<R>, _ loop: StridedLoop, on pool: ThreadPool, _ f: @Sendable (A, B) -> R
) {
    loop.run(on: pool) { offset, stride, count in
        let (x, y, z) = (a + offset[0], b + offset[1], r + offset[2])
        switch (stride[0], stride[1]) {
        case (1, 1): for index in 0..<count { z[index] = f(x[index], y[index]) }
        case (1, 0):
            let right = y[0]
            for index in 0..<count { z[index] = f(x[index], right) }
        case (0, 1):
            let left = x[0]
            for index in 0..<count { z[index] = f(left, y[index]) }
        default: for index in 0..<count { z[index] = f(x[index &* stride[0]], y[index &* stride[1]]) }
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
            case .bool: map(x.source(UInt8.self), y.target(UInt8.self), x.count, on: pool) { $0 == 0 ? 1 : 0 }
            }
        }
    }

    private func integer<T: FixedWidthInteger & Sendable>(_: T.Type, _ input: TensorView, _ output: MutableTensorView, _ pool: ThreadPool) {
        let (x, y, n) = (input.source(T.self), output.target(T.self), input.count)
        switch kind {
        case .abs: map(x, y, n, on: pool) { $0 < 0 ? 0 &- $0 : $0 }
        case .neg: map(x, y, n, on: pool) { 0 &- $0 }
        case .sign: map(x, y, n, on: pool) { $0.signum() }
        case .relu: map(x, y, n, on: pool) { $0 < 0 ? 0 : $0 }
        case .bitwiseNot: map(x, y, n, on: pool) { ~$0 }
        case .shrink:
            let (lambda, bias) = (Double(alpha ?? 0.5), Double(beta ?? 0))
            map(x, y, n, on: pool) { value in
                let number = Double(value)
                return number < -lambda ? saturating(number + bias) : number > lambda ? saturating(number - bias) : 0
            }
        default: break // The shape rule takes no other kind for integers.
        }
    }

    private func floating<T: Real>(_: T.Type, _ input: TensorView, _ output: MutableTensorView, _ pool: ThreadPool) {
        let (x, y, n) = (input.source(T.self), output.target(T.self), input.count)
        let (alpha, beta) = (T(alpha ?? defaultAlpha), T(beta ?? defaultBeta))
        switch kind {
        case .abs: map(x, y, n, on: pool) { $0.magnitude }
        case .neg: map(x, y, n, on: pool) { -$0 }
        case .sign: map(x, y, n, on: pool) { $0 > 0 ? 1 : $0 < 0 ? -1 : $0 }
        case .reciprocal: map(x, y, n, on: pool) { 1 / $0 }
        case .sqrt: map(x, y, n, on: pool) { $0.squareRoot() }
        case .exp: map(x, y, n, on: pool) { T.exp($0) }
        case .log: map(x, y, n, on: pool) { T.log($0) }
        case .erf: map(x, y, n, on: pool) { T.erf($0) }
        case .floor: map(x, y, n, on: pool) { $0.rounded(.down) }
        case .ceil: map(x, y, n, on: pool) { $0.rounded(.up) }
        case .round: map(x, y, n, on: pool) { $0.rounded(.toNearestOrEven) }
        case .sin: map(x, y, n, on: pool) { T.sin($0) }
        case .cos: map(x, y, n, on: pool) { T.cos($0) }
        case .tan: map(x, y, n, on: pool) { T.tan($0) }
        case .asin: map(x, y, n, on: pool) { T.asin($0) }
        case .acos: map(x, y, n, on: pool) { T.acos($0) }
        case .atan: map(x, y, n, on: pool) { T.atan($0) }
        case .sinh: map(x, y, n, on: pool) { T.sinh($0) }
        case .cosh: map(x, y, n, on: pool) { T.cosh($0) }
        case .tanh: map(x, y, n, on: pool) { T.tanh($0) }
        case .asinh: map(x, y, n, on: pool) { T.asinh($0) }
        case .acosh: map(x, y, n, on: pool) { T.acosh($0) }
        case .atanh: map(x, y, n, on: pool) { T.atanh($0) }
        case .sigmoid: map(x, y, n, on: pool) { sigmoid($0) }
        case .relu: map(x, y, n, on: pool) { $0 < 0 ? 0 : $0 }
        case .softplus: map(x, y, n, on: pool) { softplus($0) }
        case .softsign: map(x, y, n, on: pool) { $0 / (1 + $0.magnitude) }
        case .mish: map(x, y, n, on: pool) { $0 * T.tanh(softplus($0)) }
        case .hardSwish: map(x, y, n, on: pool) { $0 * unit($0 / 6 + T(0.5)) }
        case .swish: map(x, y, n, on: pool) { $0 * sigmoid(alpha * $0) }
        case .leakyRelu: map(x, y, n, on: pool) { $0 < 0 ? alpha * $0 : $0 }
        case .elu: map(x, y, n, on: pool) { $0 < 0 ? alpha * T.expm1($0) : $0 }
        case .celu: map(x, y, n, on: pool) { $0 < 0 ? alpha * T.expm1($0 / alpha) : $0 }
        case .selu: map(x, y, n, on: pool) { beta * ($0 <= 0 ? alpha * T.expm1($0) : $0) }
        case .hardSigmoid: map(x, y, n, on: pool) { unit(alpha * $0 + beta) }
        case .thresholdedRelu: map(x, y, n, on: pool) { $0 > alpha || $0.isNaN ? $0 : 0 }
        case .shrink: map(x, y, n, on: pool) { $0 < -alpha ? $0 + beta : $0 > alpha ? $0 - beta : 0 }
        case .isNaN: map(x, output.target(UInt8.self), n, on: pool) { $0.isNaN ? 1 : 0 }
        case .isInf: map(x, output.target(UInt8.self), n, on: pool) { $0.isInfinite ? 1 : 0 }
        case .isPositiveInf: map(x, output.target(UInt8.self), n, on: pool) { $0 == .infinity ? 1 : 0 }
        case .isNegativeInf: map(x, output.target(UInt8.self), n, on: pool) { $0 == -.infinity ? 1 : 0 }
        case .not, .bitwiseNot: break // The shape rule takes them for booleans and integers alone.
        }
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
        let (a, b, y) = (left.source(T.self), right.source(T.self), output.target(T.self))
        switch kind {
        case .add: map(a, b, y, loop, on: pool) { $0 + $1 }
        case .sub: map(a, b, y, loop, on: pool) { $0 - $1 }
        case .mul: map(a, b, y, loop, on: pool) { $0 * $1 }
        case .div: map(a, b, y, loop, on: pool) { $0 / $1 }
        case .fmod: map(a, b, y, loop, on: pool) { T.fmod($0, $1) }
        case .min: map(a, b, y, loop, on: pool) { $0 < $1 || $0.isNaN ? $0 : $1 }
        case .max: map(a, b, y, loop, on: pool) { $0 > $1 || $0.isNaN ? $0 : $1 }
        case .prelu: map(a, b, y, loop, on: pool) { $0 < 0 ? $0 * $1 : $0 }
        default: compare(a, b, output, loop, pool)
        }
    }

    private func integer<T: FixedWidthInteger & Sendable>(
        _: T.Type, _ left: TensorView, _ right: TensorView, _ output: MutableTensorView, _ loop: StridedLoop, _ pool: ThreadPool
    ) {
        let (a, b, y) = (left.source(T.self), right.source(T.self), output.target(T.self))
        switch kind {
        case .add: map(a, b, y, loop, on: pool) { $0 &+ $1 }
        case .sub: map(a, b, y, loop, on: pool) { $0 &- $1 }
        case .mul: map(a, b, y, loop, on: pool) { $0 &* $1 }
        case .div: map(a, b, y, loop, on: pool) { $0.dividedReportingOverflow(by: $1).partialValue }
        case .fmod: map(a, b, y, loop, on: pool) { $0.remainderReportingOverflow(dividingBy: $1).partialValue }
        case .mod:
            map(a, b, y, loop, on: pool) { a, b in
                let rest = a.remainderReportingOverflow(dividingBy: b).partialValue
                return rest != 0 && (rest < 0) != (b < 0) ? rest &+ b : rest
            }
        case .min: map(a, b, y, loop, on: pool) { Swift.min($0, $1) }
        case .max: map(a, b, y, loop, on: pool) { Swift.max($0, $1) }
        case .prelu: map(a, b, y, loop, on: pool) { $0 < 0 ? $0 &* $1 : $0 }
        case .and, .bitwiseAnd: map(a, b, y, loop, on: pool) { $0 & $1 }
        case .or, .bitwiseOr: map(a, b, y, loop, on: pool) { $0 | $1 }
        case .xor, .bitwiseXor: map(a, b, y, loop, on: pool) { $0 ^ $1 }
        case .shiftLeft: map(a, b, y, loop, on: pool) { $0 << $1 }
        case .shiftRight: map(a, b, y, loop, on: pool) { $0 >> $1 }
        default: compare(a, b, output, loop, pool)
        }
    }

    private func compare<T: Comparable & Sendable>(
        _ a: Source<T>, _ b: Source<T>, _ output: MutableTensorView, _ loop: StridedLoop, _ pool: ThreadPool
    ) {
        let y = output.target(UInt8.self)
        switch kind {
        case .equal: map(a, b, y, loop, on: pool) { $0 == $1 ? 1 : 0 }
        case .less: map(a, b, y, loop, on: pool) { $0 < $1 ? 1 : 0 }
        case .lessOrEqual: map(a, b, y, loop, on: pool) { $0 <= $1 ? 1 : 0 }
        case .greater: map(a, b, y, loop, on: pool) { $0 > $1 ? 1 : 0 }
        case .greaterOrEqual: map(a, b, y, loop, on: pool) { $0 >= $1 ? 1 : 0 }
        default: break // The shape rule takes no other kind for this type.
        }
    }

    // MARK: Powers

    /// Integers to integers are exact (and wrap); all else is computed in the wider of the two floating-point types.
    private func power(_ inputs: [TensorView?], _ outputs: [MutableTensorView], _ pool: ThreadPool) throws {
        let (a, b, y) = (try inputs.required(0), try inputs.required(1), outputs[0])
        if a.dataType.isInteger && b.dataType.isInteger {
            return try converting([a, b], to: .int64, result: y) { views, result in
                let loop = try loop(views[0], views[1], result)
                map(views[0].source(Int64.self), views[1].source(Int64.self), result.target(Int64.self), loop, on: pool) { integerPower($0, $1) }
            }
        }
        let wide = a.dataType.isInteger || a.dataType == .float64 || b.dataType == .float64
        try converting([a, b], to: wide ? .float64 : .float32, result: y) { views, result in
            let loop = try loop(views[0], views[1], result)
            if wide {
                map(views[0].source(Double.self), views[1].source(Double.self), result.target(Double.self), loop, on: pool) { Double.pow($0, $1) }
            } else {
                map(views[0].source(Float.self), views[1].source(Float.self), result.target(Float.self), loop, on: pool) { $1 == 2 ? $0 * $0 : Float.pow($0, $1) }
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
        let result = try Tensor(dataType, output.shape) { bytes in
            guard let base = bytes.baseAddress else { return }
            try body(converted, MutableTensorView(dataType: dataType, shape: output.shape, bytes: base))
        }
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
                map(x.source(T.self), outputs[0].target(T.self), x.count, on: pool) { value in
                    var value = value
                    if let lower, value < lower { value = lower }
                    if let upper, value > upper { value = upper }
                    return value
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
