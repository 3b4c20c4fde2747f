import Foundation
import Kernels
import Testing

private let lengths = [0, 1, 5, 8, 15, 16, 17, 31, 33, 64, 100, 768]

private typealias Elementwise = (UnsafeMutablePointer<Float>, UnsafePointer<Float>, Int) -> Void

extension KernelTests {
    /// Against the same sums in double: the mean and the variance of up to 768 values of size 100 ± 1 come
    /// from blocked fp32 sums, whose rounding, 1e-7 of the mean, is relative to a deviation of 0.6.
    @Test func layerNorm() {
        var random = Generator(state: 10)
        for n in lengths where n > 0 {
            let rows = 3, ld = n + 2, x = random.floats(rows * ld).map { $0 + 100 }, residual = random.floats(rows * ld)
            let weight = random.floats(n), bias = random.floats(n)
            for (residual, weight, bias) in [(nil, nil, nil), (residual, weight, bias), (residual, weight, nil)] as [([Float]?, [Float]?, [Float]?)] {
                var expected = [Float](repeating: 0, count: rows * ld), sums = expected
                trips_layernorm_rows_ref(&expected, ld, x, ld, residual, ld, &sums, ld, rows, n, weight, bias, 1e-5)
                onEachPath { path in
                    var y = [Float](repeating: 0, count: rows * ld), s = y, alone = y
                    trips_layernorm_rows(&y, ld, x, ld, residual, ld, &s, ld, rows, n, weight, bias, 1e-5)
                    // One value has no deviation: what is left is the mean's rounding over √eps.
                    let tolerance: Float = n == 1 ? 3e-3 : 5e-5
                    #expect(error(y, expected) < tolerance, "\(name(path)) \(n)")
                    #expect(s == sums, "\(name(path)) \(n)")
                    trips_layernorm_rows(&alone, ld, x, ld, residual, ld, nil, 0, rows, n, weight, bias, 1e-5)
                    #expect(alone == y, "\(name(path)) \(n)")
                }
            }
        }
    }

    /// Exponentials within 1e-7 and sums of up to 768 of them.
    @Test func softmax() {
        var random = Generator(state: 11)
        for n in lengths {
            var x = random.floats(3 * (n + 1), scale: 20)
            if n > 1 { x[n + 1] = -.infinity }
            var expected = [Float](repeating: 0, count: x.count)
            trips_softmax_rows_ref(&expected, n + 1, x, n + 1, 3, n)
            onEachPath { path in
                var y = [Float](repeating: 0, count: x.count), inPlace = x
                trips_softmax_rows(&y, n + 1, x, n + 1, 3, n)
                #expect(zip(y, expected).allSatisfy { abs($0 - $1) <= 3e-6 * $1 + 1e-12 }, "\(name(path)) \(n)")
                trips_softmax_rows(&inPlace, n + 1, inPlace, n + 1, 3, n)
                for r in 0..<3 { #expect(inPlace[r * (n + 1)..<r * (n + 1) + n] == y[r * (n + 1)..<r * (n + 1) + n]) }
            }
        }
        onEachPath { path in
            var y: [Float] = [0, 0, 0]
            trips_softmax_rows(&y, 3, [-.infinity, -.infinity, -.infinity], 3, 1, 3)
            #expect(y.filter(\.isNaN).count == 3, "\(name(path))")
        }
    }

    /// A sum of squares in fp32, a root and a division.
    @Test func l2Normalize() {
        var random = Generator(state: 12)
        for n in lengths where n > 0 {
            var x = random.floats(3 * n)
            for i in 0..<n { x[n + i] = 0 }
            var expected = x
            trips_l2_normalize_rows_ref(&expected, n, x, n, 3, n, 1e-12)
            onEachPath { path in
                var y = x
                trips_l2_normalize_rows(&y, n, x, n, 3, n, 1e-12)
                #expect(error(y, expected) < 1e-6, "\(name(path)) \(n)")
                #expect(y[n..<2 * n].allSatisfy { $0 == 0 })
            }
        }
    }

    @Test func sumsAndProducts() {
        var random = Generator(state: 13)
        for n in lengths {
            let a = random.floats(2 * n), b = random.floats(2 * n)
            var sum = a, product = a, biased = a
            trips_add_ref(&sum, a, b, 2 * n)
            trips_mul_ref(&product, a, b, 2 * n)
            trips_add_bias_rows_ref(&biased, n, a, n, b, 2, n)
            onEachPath { path in
                var y = a
                trips_add(&y, a, b, 2 * n)
                #expect(y == sum, "\(name(path)) \(n)")
                trips_mul(&y, a, b, 2 * n)
                #expect(y == product, "\(name(path)) \(n)")
                trips_add_bias_rows(&y, n, a, n, b, 2, n)
                #expect(y == biased, "\(name(path)) \(n)")
            }
        }
    }

    /// Against Foundation in double. Errors are relative to the result, or absolute below the given floor:
    /// an exponential loses an ulp; GELU is promised 1e-7 of max(1, |x|).
    @Test func functions() {
        var x: [Float] = [0, -0.0, 1e-30, -1e-30, 1e-4, 0.5, 1, -1, 88.7, -87, -103, 200, -200, .infinity, -.infinity, .nan]
        x += stride(from: -12, to: 12, by: 0.0137).map { Float($0) }
        func erf(_ v: Double) -> Double { Foundation.erf(v) }
        let functions: [(String, Elementwise, Elementwise, (Double) -> Double, relative: Double, floor: Double)] = [
            ("exp", trips_exp, trips_exp_ref, { Foundation.exp($0) }, 1.5e-7, 1e-37),
            ("erf", trips_erf, trips_erf_ref, erf, 3e-7, 1e-20),
            ("tanh", trips_tanh, trips_tanh_ref, { Foundation.tanh($0) }, 3e-7, 1e-20),
            ("sigmoid", trips_sigmoid, trips_sigmoid_ref, { 1 / (1 + Foundation.exp(-$0)) }, 3e-7, 1e-37),
            ("gelu erf", activation(TRIPS_ACTIVATION_GELU_ERF, trips_activate), activation(TRIPS_ACTIVATION_GELU_ERF, trips_activate_ref),
             { $0 * 0.5 * erfc(-$0 / 2.0.squareRoot()) }, 1e-7, 1),
            ("gelu tanh", activation(TRIPS_ACTIVATION_GELU_TANH, trips_activate), activation(TRIPS_ACTIVATION_GELU_TANH, trips_activate_ref),
             { $0 * 0.5 * (1 + Foundation.tanh((2 / Double.pi).squareRoot() * ($0 + 0.044715 * $0 * $0 * $0))) }, 1.5e-7, 1),
            ("quick gelu", activation(TRIPS_ACTIVATION_QUICK_GELU, trips_activate), activation(TRIPS_ACTIVATION_QUICK_GELU, trips_activate_ref),
             { $0 / (1 + Foundation.exp(-1.702 * $0)) }, 1.5e-7, 1),
            ("relu", activation(TRIPS_ACTIVATION_RELU, trips_activate), activation(TRIPS_ACTIVATION_RELU, trips_activate_ref),
             { Swift.max($0, 0) }, 0, 0),
        ]
        for (title, function, reference, exact, relative, floor) in functions {
            func check(_ y: [Float], _ place: String) {
                for (x, y) in zip(x, y) {
                    let e = exact(Double(x))
                    let same = Float(e) == y || e.isNaN && y.isNaN
                    // Where x Φ(x) is ∞ · 0 the limit, 0, is as good as NaN.
                    let limit = x == -.infinity && e.isNaN && y == 0
                    #expect(same || limit || abs(Double(y) - e) <= relative * max(abs(e), floor), "\(place) \(title)(\(x)) = \(y), not \(e)")
                }
            }
            var y = x
            reference(&y, x, x.count)
            check(y, "scalar")
            onEachPath { path in
                var y = [Float](repeating: 0, count: x.count)
                function(&y, x, x.count)
                check(y, name(path))
                // Each element's result does not depend on its place in the array.
                for start in [1, 7, 15] {
                    var part = [Float](x[start...])
                    function(&part, part, part.count)
                    #expect(part.map(\.bitPattern) == y[start...].map(\.bitPattern), "\(name(path)) \(title)")
                }
            }
        }
    }
}

private func activation(
    _ kind: trips_activation, _ f: @escaping (UnsafeMutablePointer<Float>, UnsafePointer<Float>, Int, trips_activation) -> Void
) -> Elementwise {
    { f($0, $1, $2, kind) }
}
