import Kernels
import Testing

extension KernelTests {
    /// Scores of size 1 and exponentials within 1e-7: outputs are averages of values below 1, so 1e-5 is
    /// ample for the sums' rounding.
    @Test(arguments: [(1, 1, 1), (5, 3, 4), (7, 40, 64), (29, 33, 64), (40, 257, 64), (61, 100, 24), (0, 5, 8)])
    func attention(lq: Int, lk: Int, d: Int) {
        var random = Generator(state: 8)
        let stride = d + 5
        let q = random.floats(lq * stride, scale: 2), k = random.floats(lk * stride, scale: 2), v = random.floats(lk * stride)
        var masks: [(values: [Float]?, stride: Int)] = [(nil, 0), (random.floats(lk), 0), (random.floats(lq * (lk + 1)), lk + 1)]
        masks.append(((0..<lk).map { $0 % 3 == 1 ? -.infinity : 0 }, 0))
        masks.append(((0..<lk).map { $0 % 3 == 0 ? -10_000 : 0 }, 0))
        masks.append((.init(repeating: -.infinity, count: lk), 0))
        let count = trips_attention_scratch(lk, d)
        for (mask, ldm) in masks {
            for causal in [false, true] {
                var expected = [Float](repeating: 5, count: lq * stride), scratch = [Float](repeating: .nan, count: count)
                trips_attention_ref(
                    q, stride, k, stride, v, stride, &expected, stride, lq, lk, d, 0, lq, 0.5, mask, ldm, causal, &scratch)
                onEachPath { path in
                    var whole = [Float](repeating: 5, count: lq * stride), split = whole
                    var scratch = [Float](repeating: .nan, count: count)
                    trips_attention(
                        q, stride, k, stride, v, stride, &whole, stride, lq, lk, d, 0, lq, 0.5, mask, ldm, causal, &scratch)
                    #expect(error(whole, expected) < 1e-5, "\(name(path)) \(lq) \(lk) \(d) \(ldm) \(causal)")
                    for (begin, end) in [(0, lq / 3), (lq / 3, lq)] {
                        trips_attention(
                            q, stride, k, stride, v, stride, &split, stride, lq, lk, d, begin, end, 0.5, mask, ldm, causal,
                            &scratch)
                    }
                    #expect(split.map(\.bitPattern) == whole.map(\.bitPattern), "\(name(path)) \(lq) \(lk) \(d)")
                }
            }
        }
    }

    /// Probabilities: at most 1, with the rounding of dot products of 64 terms in the exponent.
    @Test(arguments: [(1, 1, 1), (16, 12, 64), (100, 3, 20), (577, 12, 64)])
    func selectionScores(n: Int, heads: Int, d: Int) {
        var random = Generator(state: 9)
        let ldk = heads * d + 3, query = random.floats(heads * d, scale: 3), keys = random.floats(n * ldk)
        var expected = [Float](repeating: 0, count: n), scratch = [Float](repeating: .nan, count: n)
        trips_selection_scores_ref(&expected, query, keys, ldk, n, heads, d, 0.125, &scratch)
        #expect(abs(expected.reduce(0, +) - 1) < 1e-4)
        onEachPath { path in
            var scores = [Float](repeating: .nan, count: n)
            trips_selection_scores(&scores, query, keys, ldk, n, heads, d, 0.125, &scratch)
            #expect(zip(scores, expected).allSatisfy { abs($0 - $1) <= 1e-5 * $1 }, "\(name(path)) \(n)")
        }
    }
}
