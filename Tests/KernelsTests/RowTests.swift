import Foundation
import Kernels
import Testing

private let lengths = [0, 1, 5, 8, 15, 16, 17, 31, 33, 64, 100, 768]

extension KernelTests {
    /// Against the same sums in double: the mean and the variance of up to 768 values of size 100 ± 1 come
    /// from blocked fp32 sums, whose rounding, 1e-7 of the mean, is relative to a deviation of 0.6.
    @Test func layerNormMatchesDoublePrecision() {
        var random = Generator(state: 10)
        for n in lengths where n > 0 {
            let rows = 3, ld = n + 2, x = random.floats(rows * ld).map { $0 + 100 }
            let (weight, bias) = (random.floats(n), random.floats(n))
            for (weight, bias) in [(nil, nil), (weight, bias), (weight, nil)] as [([Float]?, [Float]?)] {
                var expected = x
                trips_layernorm_rows_ref(&expected, ld, x, ld, rows, n, weight, bias, 1e-5)
                onEachPath { path in
                    var y = x, inPlace = x
                    trips_layernorm_rows(&y, ld, x, ld, rows, n, weight, bias, 1e-5)
                    // One value has no deviation: what is left is the mean's rounding over √eps.
                    let tolerance: Float = n == 1 ? 3e-3 : 5e-5
                    #expect(error(y, expected) < tolerance, "\(name(path)) \(n)")
                    trips_layernorm_rows(&inPlace, ld, inPlace, ld, rows, n, weight, bias, 1e-5)
                    #expect(inPlace == y, "\(name(path)) \(n)")
                }
            }
        }
    }

    /// Up to 100 products of numbers up to 1 have rounding errors of up to 1e-5 of what they may add up to.
    @Test func weightedRowsMatchTheReference() {
        var random = Generator(state: 13)
        for (count, n) in zip([0, 1, 7, 9, 64, 100], [5, 16, 129, 300, 768, 41]) {
            let ld = n + 3, x = random.floats(120 * ld), weights = random.floats(count)
            let places = (0..<count).map { Int32($0 * 37 % 120) }
            for places in [places, nil] {
                var expected = [Float](repeating: .nan, count: n)
                trips_weighted_rows_ref(&expected, x, ld, places, weights, count, n)
                onEachPath { path in
                    var y = [Float](repeating: .nan, count: n + 1), split = y
                    trips_weighted_rows(&y, x, ld, places, weights, count, n)
                    #expect(zip(y, expected).allSatisfy { abs($0 - $1) < 1e-5 } && y[n].isNaN, "\(name(path)) \(count) \(n)")
                    split.withUnsafeMutableBufferPointer { split in
                        x.withUnsafeBufferPointer { x in
                            for (begin, end) in [(0, n / 3), (n / 3, n)] where end > begin {
                                trips_weighted_rows(
                                    split.baseAddress! + begin, x.baseAddress! + begin, ld, places, weights, count, end - begin)
                            }
                        }
                    }
                    #expect(split.map(\.bitPattern) == y.map(\.bitPattern), "\(name(path)) \(count) \(n)")
                }
            }
        }
    }

    /// Sums of up to 300 exponentials in another order.
    @Test(arguments: [0, 1, 3, 16, 33, 257, 300]) func softmaxMatchesTheReference(n: Int) {
        var random = Generator(state: 8)
        let (rows, ldx, ldy) = (5, n + 3, n + 1)
        var x = random.floats(rows * ldx, scale: 20)
        if n > 2 {
            x[1] = .infinity
            x[ldx + 2] = .nan
            for i in 0..<n { x[2 * ldx + i] = -.infinity }
            x[3 * ldx] = -.infinity
        }
        var expected = [Float](repeating: 7, count: rows * ldy)
        trips_softmax_rows_ref(&expected, ldy, x, ldx, rows, n)
        if n > 2 {
            for row in 0..<rows {
                let sum = expected[row * ldy..<row * ldy + n].reduce(0, +)
                #expect(row < 3 ? sum.isNaN : abs(sum - 1) < 1e-5)
            }
        }
        onEachPath { path in
            var y = [Float](repeating: 7, count: rows * ldy), inPlace = x
            trips_softmax_rows(&y, ldy, x, ldx, rows, n)
            #expect(error(y, expected) < 1e-6, "\(name(path))")
            inPlace.withUnsafeMutableBufferPointer { trips_softmax_rows($0.baseAddress!, ldx, $0.baseAddress!, ldx, rows, n) }
            for row in 0..<rows {
                let (found, own) = (inPlace[row * ldx..<row * ldx + n], y[row * ldy..<row * ldy + n])
                #expect(found.map(\.bitPattern) == own.map(\.bitPattern), "\(name(path))")
            }
        }
    }

    @Test func transposingMatchesTheReference() {
        var random = Generator(state: 12)
        for (rows, columns) in [(0, 3), (1, 1), (3, 40), (16, 16), (17, 33), (40, 5), (64, 31)] {
            let (ldx, ldy) = (columns + 2, rows + 3)
            var x = random.floats(rows * ldx)
            // A signalling NaN is moved as it is.
            if !x.isEmpty { x[0] = Float(bitPattern: 0x7f80_0001) }
            var expected = [Float](repeating: 7, count: columns * ldy)
            trips_transpose_ref(&expected, ldy, x, ldx, rows, columns)
            for row in 0..<rows {
                for column in 0..<columns {
                    #expect(expected[column * ldy + row].bitPattern == x[row * ldx + column].bitPattern)
                }
            }
            onEachPath { path in
                var y = [Float](repeating: 7, count: columns * ldy)
                trips_transpose(&y, ldy, x, ldx, rows, columns)
                #expect(y.map(\.bitPattern) == expected.map(\.bitPattern), "\(name(path)) \(rows) \(columns)")
            }
        }
    }

    /// Against Foundation in double, as the epilogue of a product with 1. Errors are relative to the result, or to 1 where
    /// that is below: GELU is promised 1e-7 of max(1, |x|), and an exponential loses an ulp. Behind an integer product it is promised less.
    @Test func activationsAreAsExactAsPromised() {
        var x: [Float] = [0, -0.0, 1e-30, -1e-30, 1e-4, 0.5, 1, -1, 88.7, -87, -103, 200, -200, .infinity, -.infinity, .nan]
        x += stride(from: -12, to: 12, by: 0.0137).map { Float($0) }
        let functions: [(trips_activation, exact: (Double) -> Double, tolerance: Double, coarse: Double)] = [
            (TRIPS_ACTIVATION_GELU_ERF, { $0 * 0.5 * erfc(-$0 / 2.0.squareRoot()) }, 1e-7, 1e-5),
            (
                TRIPS_ACTIVATION_GELU_TANH,
                { $0 * 0.5 * (1 + tanh((2 / Double.pi).squareRoot() * ($0 + 0.044715 * $0 * $0 * $0))) },
                1.5e-7, 1e-5
            ),
            (TRIPS_ACTIVATION_QUICK_GELU, { $0 / (1 + exp(-1.702 * $0)) }, 1.5e-7, 4e-5),
            (TRIPS_ACTIVATION_RELU, { max($0, 0) }, 0, 0),
            (TRIPS_ACTIVATION_SIGMOID, { 1 / (1 + exp(-$0)) }, 1.5e-7, 1.5e-7),
            (TRIPS_ACTIVATION_SWISH, { $0 / (1 + exp(-$0)) }, 1.5e-7, 1.5e-7),
            (TRIPS_ACTIVATION_TANH, { tanh($0) }, 2e-7, 2e-7),
            (TRIPS_ACTIVATION_ERF, { erf($0) }, 1.5e-7, 1.5e-7),
            (TRIPS_ACTIVATION_EXP, { $0 < -87 ? 0 : exp($0) }, 2e-7, 2e-7),
        ]
        for (activation, exact, tolerance, coarse) in functions {
            func check(_ y: [Float], _ tolerance: Double, _ place: String) {
                for (x, y) in zip(x, y) {
                    let e = exact(Double(x))
                    let same = Float(e) == y || e.isNaN && y.isNaN
                    // Where x Φ(x) is ∞ · 0 the limit, 0, is as good as NaN.
                    let limit = x == -.infinity && e.isNaN && abs(Double(y)) <= tolerance
                    #expect(
                        same || limit || abs(Double(y) - e) <= tolerance * max(abs(e), 1),
                        "\(place) \(activation)(\(x)) = \(y), not \(e)")
                }
            }
            var apart = x
            check(activated(x, activation, trips_sgemm_ref), tolerance, "scalar")
            trips_activate_ref(&apart, x, x.count, activation)
            check(apart, tolerance, "scalar, apart")
            onEachPath { path in
                apart = .init(repeating: 7, count: x.count)
                trips_activate(&apart, x, x.count, activation)
                #expect(error(apart, activated(x, activation, trips_sgemm)) == 0, "\(name(path)) \(activation)")
                for (product, tolerance) in [
                    ({ activated($0, activation, trips_sgemm) }, tolerance), ({ activatedInBytes($0, activation) }, coarse),
                ] {
                    let y = product(x)
                    check(y, tolerance, name(path))
                    // An element's result does not depend on its place in the row.
                    for start in [1, 7, 15] {
                        let part = product(Array(x[start...]))
                        #expect(part.map(\.bitPattern) == y[start...].map(\.bitPattern), "\(name(path)) \(activation)")
                    }
                }
                // Next to 0, tanh and erf are lines, whose errors are relative to the result.
                if [TRIPS_ACTIVATION_TANH, TRIPS_ACTIVATION_ERF].contains(activation) {
                    let steep = stride(from: Float(-1.1), to: 1.1, by: 0.0137).map { $0 } + [1e-30, 1e-6, -1e-4]
                    for (x, y) in zip(steep, activated(steep, activation, trips_sgemm)) {
                        #expect(abs(Double(y) / exact(Double(x)) - 1) <= 3e-7, "\(name(path)) \(activation)(\(x)) = \(y)")
                    }
                }
                // Next to 0 all forms of GELU halve, and so does Swish.
                let small: [Float] = [0, 1e-6, -1e-6]
                if activation.rawValue <= TRIPS_ACTIVATION_QUICK_GELU.rawValue || activation == TRIPS_ACTIVATION_SWISH {
                    #expect(
                        zip(activatedInBytes(small, activation), small).allSatisfy { abs($0 - $1 / 2) <= 1e-3 * abs($1) },
                        "\(name(path))")
                }
            }
        }
    }
}

private typealias Product = (
    UnsafePointer<Float>, Int, UnsafePointer<Float>, Int, Int, UnsafeMutablePointer<Float>, Int, Int, Int, Int, Int,
    UnsafePointer<trips_epilogue>?
) -> Void

/// activation(1 · x) by an integer product of bytes of value 1, whose scales are the numbers.
private func activatedInBytes(_ x: [Float], _ activation: trips_activation) -> [Float] {
    let packed = UnsafeMutableRawPointer.allocate(byteCount: trips_igemm_pack_size(x.count, 1, 0), alignment: 64)
    defer { packed.deallocate() }
    trips_igemm_pack_ref(packed, [Int8](repeating: 1, count: x.count), 1, x, x.count, 1, 0, 0, x.count)
    var epilogue = trips_epilogue(bias: nil, residual: nil, ldr: 0, residual_rows: nil, activation: activation), y = x
    trips_igemm([129, 128, 128, 128], 4, [1], packed, x.count, 1, 0, &y, x.count, 0, 1, 0, x.count, &epilogue)
    return y
}

/// activation(1 · x), the row of one input and as many outputs as there are numbers.
private func activated(_ x: [Float], _ activation: trips_activation, _ product: Product) -> [Float] {
    var packed = [Float](repeating: 0, count: trips_sgemm_pack_size(x.count, 1)), y = x
    trips_sgemm_pack_ref(&packed, x, 1, x.count, 1, 0, x.count)
    var epilogue = trips_epilogue(bias: nil, residual: nil, ldr: 0, residual_rows: nil, activation: activation)
    product([1], 1, packed, x.count, 1, &y, x.count, 0, 1, 0, x.count, &epilogue)
    return y
}
