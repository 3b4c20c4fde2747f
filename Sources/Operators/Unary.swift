import Kernels
import ModelGraph
import Support
import Tensors

/// Consecutive elements of two arrays. Each mapped function is inlined into a loop of its own, which is why the choice between
/// them is made inside the parallel loop.
private struct UnaryRow<X, R> {
    let x: Source<X>, y: Target<R>, range: Range<Int>

    @inline(__always)
    func map(_ f: (X) -> R) {
        for index in range { y[index] = f(x[index]) }
    }
}

extension Unary: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let (x, y) = (try inputs.required(0), outputs[0])
            try dispatch(x.dataType, UnaryWork(op: self, x: x, y: y, pool: pool))
        }
    }

    /// What computes it in single precision; nil where no kernel does.
    package var activation: trips_activation? {
        switch kind {
        case .relu: TRIPS_ACTIVATION_RELU
        case .sigmoid: TRIPS_ACTIVATION_SIGMOID
        case .swish where resolvedAlpha == 1: TRIPS_ACTIVATION_SWISH
        case .tanh: TRIPS_ACTIVATION_TANH
        case .erf: TRIPS_ACTIVATION_ERF
        case .exp: TRIPS_ACTIVATION_EXP
        default: nil
        }
    }

    /// The parameters, or the defaults of the kind.
    fileprivate var resolvedAlpha: Float { alpha ?? defaultAlpha }
    fileprivate var resolvedBeta: Float { beta ?? defaultBeta }

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

private struct UnaryWork: TypedBody {
    let op: Unary, x: TensorView, y: MutableTensorView, pool: ThreadPool

    func integer<T: FixedWidthInteger & Number>(_: T.Type) {
        let kind = op.kind
        let (lambda, bias) = (Double(op.resolvedAlpha), Double(op.resolvedBeta))
        map(T.self, T.self) { row in
            switch kind {
            case .abs: row.map { $0 < 0 ? 0 &- $0 : $0 }
            case .neg: row.map { 0 &- $0 }
            case .sign: row.map { $0.signum() }
            case .relu: row.map { $0 < 0 ? 0 : $0 }
            case .not: row.map { $0 == 0 ? 1 : 0 }
            case .bitwiseNot: row.map { ~$0 }
            case .shrink:
                row.map { value in
                    let number = Double(value)
                    return number < -lambda ? saturating(number + bias) : number > lambda ? saturating(number - bias) : 0
                }
            default: break  // The shape rule takes no other kind for integers.
            }
        }
    }

    func floating<T: Real & Number>(_: T.Type) {
        let kind = op.kind
        if y.dataType == .bool { return test(T.self) }
        if T.self == Float.self, let activation = op.activation { return activate(x, y, activation, on: pool) }
        let (alpha, beta) = (T(op.resolvedAlpha), T(op.resolvedBeta))
        map(T.self, T.self) { row in
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
            default: break  // Predicates have booleans as result; the rest is not for floating point.
            }
        }
    }

    private func test<T: Real>(_: T.Type) {
        let kind = op.kind
        map(T.self, UInt8.self) { row in
            switch kind {
            case .isNaN: row.map { $0.isNaN ? 1 : 0 }
            case .isInf: row.map { $0.isInfinite ? 1 : 0 }
            case .isPositiveInf: row.map { $0 == .infinity ? 1 : 0 }
            default: row.map { $0 == -.infinity ? 1 : 0 }
            }
        }
    }

    private func map<X, R>(_: X.Type, _: R.Type, _ body: @Sendable (UnaryRow<X, R>) -> Void) {
        let (count, x, y) = (x.count, x.source(X.self), y.target(R.self))
        parallel(count, grain: taskGrain, on: pool) { body(UnaryRow(x: x, y: y, range: $0)) }
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
