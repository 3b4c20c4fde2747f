import Kernels
import Testing

extension KernelTests {
    /// Scores of size 1 and exponentials within 1e-7: outputs are averages of values below 1, so 1e-5 is
    /// ample for the sums' rounding.
    @Test(arguments: [(1, 1, 1), (5, 3, 4), (7, 40, 64), (29, 33, 64), (40, 257, 64), (30, 64, 20), (61, 100, 24), (0, 5, 8)])
    func attentionMatchesTheReference(lq: Int, lk: Int, d: Int) {
        var random = Generator(state: 8)
        let stride = d + 5
        let q = random.floats(lq * stride, scale: 2), k = random.floats(lk * stride, scale: 2), v = random.floats(lk * stride)
        let count = trips_attention_scratch(lk, d)
        for (mask, ldm) in masks(lq, lk, &random) {
            for (causal, fullyMasked) in cases {
                var expected = [Float](repeating: 5, count: lq * stride), scratch = [Float](repeating: .nan, count: count)
                trips_attention_ref(
                    q, stride, k, stride, v, stride, &expected, stride, lq, lk, d, 0.5, mask, ldm, causal, fullyMasked, &scratch)
                onEachPath { path in
                    var whole = [Float](repeating: 5, count: lq * stride), scratch = [Float](repeating: .nan, count: count)
                    trips_attention(
                        q, stride, k, stride, v, stride, &whole, stride, lq, lk, d, 0.5, mask, ldm, causal, fullyMasked, &scratch
                    )
                    #expect(error(whole, expected) < 1e-5, "\(name(path)) \(lq) \(lk) \(d) \(ldm) \(causal) \(fullyMasked)")
                    // Causal queries count from the first.
                    guard !causal else { return }
                    let split = [0..<lq / 3, lq / 3..<lq].flatMap { part in
                        var out = [Float](repeating: 5, count: part.count * stride)
                        trips_attention(
                            Array(q[(part.lowerBound * stride)...]), stride, k, stride, v, stride, &out, stride, part.count, lk, d,
                            0.5,
                            mask.map { Array($0[(part.lowerBound * ldm)...]) }, ldm, false, fullyMasked, &scratch)
                        return out
                    }
                    #expect(split.map(\.bitPattern) == whole.map(\.bitPattern), "\(name(path)) \(lq) \(lk) \(d)")
                }
            }
        }
    }

    /// Scores agree, as the rounding of queries and keys is bit-identical. One weight in a hundred is rounded the other way, as
    /// exponentials are good for 9e-5: 1/255 of its group's largest at most, on values below 1, and next to nothing over all rows.
    /// A key lost, or in another's group, costs a row of 257 keys about 4e-3.
    @Test(arguments: [
        (1, 1, 1), (5, 3, 4), (7, 40, 64), (29, 33, 64), (40, 257, 64), (61, 100, 24), (3, 70, 39), (0, 5, 8), (30, 401, 64),
        (2, 1100, 8), (30, 64, 32), (5, 512, 24), (2, 6, 5),
    ])
    func integerAttentionMatchesTheReference(lq: Int, lk: Int, d: Int) {
        var random = Generator(state: 10)
        let stride = d + 5
        let q = random.floats(lq * stride, scale: 2), k = random.floats(lk * stride, scale: 2)
        // Values of any size: 2⁻³⁰ to 1, and nothing but zeros.
        let v = (0..<lk).flatMap { row in
            random.floats(stride, scale: lk == 6 ? 0 : row % 5 == 3 ? Float(sign: .plus, exponent: -row % 31, significand: 1) : 1)
        }
        let rows = (ByteRows(q, lq, stride, d), ByteRows(k, lk, stride, d), ByteRows(v, lk, stride, d))
        let count = trips_iattention_scratch(lk, d)
        func attend(
            _ kernel:
                @convention(c) (
                    trips_byte_rows, trips_byte_rows, trips_byte_rows, UnsafeMutablePointer<Float>, Int, Int, Int, Int, Float,
                    UnsafePointer<Float>?, Int, Bool, trips_fully_masked, UnsafeMutableRawPointer
                ) -> Void, _ part: Range<Int>, _ mask: [Float]?, _ ldm: Int, _ causal: Bool,
            _ fullyMasked: trips_fully_masked
        ) -> [Float] {
            var out = [Float](repeating: 5, count: part.count * stride)
            let scratch = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 64)
            defer { scratch.deallocate() }
            scratch.initializeMemory(as: UInt8.self, repeating: 0xff, count: count)
            withExtendedLifetime(rows) {
                kernel(
                    rows.0.rows(from: part.lowerBound), rows.1.rows, rows.2.rows, &out, stride, part.count, lk, d, 0.5,
                    mask.map { Array($0[(part.lowerBound * ldm)...]) }, ldm, causal, fullyMasked, scratch)
            }
            return out
        }
        for (mask, ldm) in masks(lq, lk, &random) {
            for (causal, fullyMasked) in cases {
                let expected = attend(trips_iattention_ref, 0..<lq, mask, ldm, causal, fullyMasked)
                var bits = SameBits()
                onEachPath { path in
                    let whole = attend(trips_iattention, 0..<lq, mask, ldm, causal, fullyMasked)
                    let place: Comment = "\(name(path)) \(lq) \(lk) \(d) \(ldm) \(causal) \(fullyMasked)"
                    #expect(error(whole, expected) < 1.0 / 255, place)
                    #expect(rootMeanSquareError(whole, expected) < 5e-4, place)
                    let same = bits.hold(whole, on: path)
                    #expect(same, place)
                    guard !causal else { return }
                    let split = [0..<lq / 3, lq / 3..<lq].flatMap {
                        attend(trips_iattention, $0, mask, ldm, false, fullyMasked)
                    }
                    #expect(split.map(\.bitPattern) == whole.map(\.bitPattern), "\(name(path)) \(lq) \(lk) \(d)")
                }
            }
        }
    }

    /// 8 bits for queries, keys and values leave about 40 dB of a row each; a key that draws nearly all attention to a value
    /// of next to nothing leaves the others' small weights, which must not be lost.
    @Test(arguments: [false, true])
    func integerAttentionHoldsWhatFloatingPointGives(sink: Bool) {
        var random = Generator(state: 11)
        let (lq, lk, d) = (50, 300, 64)
        var q = random.floats(lq * d, scale: 2), k = random.floats(lk * d, scale: 2), v = random.floats(lk * d)
        if sink {
            // Eight nats above the others: e⁻⁸ is a third of 1/1000 of the largest weight.
            for row in 0..<lq { q[row * d] = 4 }
            for column in 0..<d { (k[column], v[column]) = (column == 0 ? 16 : 0, v[column] * 0.01) }
            for row in 1..<lk { k[row * d] = 0 }
        }
        var exact = [Float](repeating: 0, count: lq * d), found = exact
        var scratch = [Float](repeating: 0, count: trips_attention_scratch(lk, d))
        trips_attention(q, d, k, d, v, d, &exact, d, lq, lk, d, 0.125, nil, 0, false, TRIPS_FULLY_MASKED_NAN, &scratch)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: trips_iattention_scratch(lk, d), alignment: 64)
        defer { memory.deallocate() }
        let rows = (ByteRows(q, lq, d, d), ByteRows(k, lk, d, d), ByteRows(v, lk, d, d))
        withExtendedLifetime(rows) {
            trips_iattention(
                rows.0.rows, rows.1.rows, rows.2.rows, &found, d, lq, lk, d, 0.125, nil, 0, false, TRIPS_FULLY_MASKED_NAN, memory
            )
        }
        let noise = zip(exact, found).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
        let signal = exact.reduce(0) { $0 + $1 * $1 }
        #expect(signal > 1000 * noise, "30 dB; found a ratio of \(signal / noise)")
    }

    /// Probabilities: at most 1, with the rounding of dot products in the exponent, which grows with the number of their terms.
    /// Heads have parts of a row as keys, or share it. Each dot product is the same however the keys are shared out.
    @Test(arguments: [
        (1, 1, 1, false), (16, 12, 64, false), (100, 3, 20, false), (577, 13, 64, false), (33, 6, 70, true), (257, 12, 768, true),
    ])
    func selectionScoresMatchTheReference(n: Int, heads: Int, d: Int, shared: Bool) {
        var random = Generator(state: 9)
        let ldk = heads * d + 3, query = random.floats(heads * d, scale: 3), keys = random.floats(n * ldk)
        var expected = [Float](repeating: .nan, count: n), exact = [Float](repeating: .nan, count: heads * n)
        trips_selection_dots_ref(&exact, query, keys, ldk, n, 0, n, heads, d, shared)
        trips_selection_scores_ref(&expected, &exact, n, heads, 0.125)
        #expect(abs(expected.reduce(0, +) - 1) < 1e-4)
        onEachPath { path in
            var scores = [Float](repeating: .nan, count: n + 1), dots = [Float](repeating: .nan, count: heads * n), split = dots
            trips_selection_dots(&dots, query, keys, ldk, n, 0, n, heads, d, shared)
            for (begin, end) in [(0, n / 3), (n / 3, n)] {
                trips_selection_dots(&split, query, keys, ldk, n, begin, end, heads, d, shared)
            }
            #expect(split.map(\.bitPattern) == dots.map(\.bitPattern), "\(name(path)) \(n)")
            trips_selection_scores(&scores, &dots, n, heads, 0.125)
            #expect(zip(scores, expected).allSatisfy { abs($0 - $1) <= (d > 100 ? 1e-4 : 1e-5) * $1 }, "\(name(path)) \(n)")
            #expect(scores[n].isNaN, "\(name(path)) \(n)")
        }
    }

    /// A processor spends some hundred cycles on each denormal number, and softmax has many where scores lie far apart.
    @Test func scoresFarBelowTheLargestAreNone() {
        let n = 4000
        let dots = (0..<n).map { -Float($0) / 20 }
        onEachPath { path in
            guard path != TRIPS_PATH_SCALAR else { return }
            var scores = [Float](repeating: .nan, count: n), scratch = dots
            trips_selection_scores(&scores, &scratch, n, 1, 1)
            #expect(scores.allSatisfy { $0 == 0 || $0.isNormal } && scores[n - 1] == 0 && scores[1000] > 0, "\(name(path))")
        }
    }

    /// What a query gets that sees no key at all, or all keys from so far down that nothing is left of their scores: in floating
    /// point and in 8 bits.
    @Test(arguments: [1, 40, 70]) func queriesWhoseKeysAreAllMaskedGetTheMeanOrZeros(lk: Int) {
        var random = Generator(state: 12)
        let (lq, d) = (30, 64)
        let q = random.floats(lq * d, scale: 2), k = random.floats(lk * d, scale: 2), v = random.floats(lk * d)
        let mean = (0..<d).map { column in (0..<lk).reduce(0) { $0 + v[$1 * d + column] } / Float(lk) }
        let zeros = [Float](repeating: 0, count: d)
        let lowest = -Float.greatestFiniteMagnitude
        let cases: [(addend: Float, fullyMasked: trips_fully_masked, expected: [Float])] = [
            (-.infinity, TRIPS_FULLY_MASKED_NAN, .init(repeating: .nan, count: d)), (-.infinity, TRIPS_FULLY_MASKED_ZERO, zeros),
            (-.infinity, TRIPS_FULLY_MASKED_ZERO_FOR_NAN, zeros), (lowest, TRIPS_FULLY_MASKED_NAN, mean),
            (lowest, TRIPS_FULLY_MASKED_ZERO, mean),
            (-3e38, TRIPS_FULLY_MASKED_ZERO_FOR_NAN, mean),
        ]
        let rows = (ByteRows(q, lq, d, d), ByteRows(k, lk, d, d), ByteRows(v, lk, d, d))
        let memory = UnsafeMutableRawPointer.allocate(byteCount: trips_iattention_scratch(lk, d), alignment: 64)
        defer { memory.deallocate() }
        var scratch = [Float](repeating: 0, count: trips_attention_scratch(lk, d))
        for (addend, fullyMasked, expected) in cases {
            // Every second query sees all.
            let mask = (0..<lq * lk).map { $0 / lk % 2 == 0 ? addend : 0 }
            onEachPath(and: TRIPS_PATH_SCALAR) { path in
                var (exact, found) = ([Float](repeating: 5, count: lq * d), [Float](repeating: 5, count: lq * d))
                trips_attention(q, d, k, d, v, d, &exact, d, lq, lk, d, 0.125, mask, lk, false, fullyMasked, &scratch)
                withExtendedLifetime(rows) {
                    trips_iattention(
                        rows.0.rows, rows.1.rows, rows.2.rows, &found, d, lq, lk, d, 0.125, mask, lk, false, fullyMasked, memory)
                }
                for row in stride(from: 0, to: lq, by: 2) {
                    let place = row * d..<(row + 1) * d
                    // The mean's rounding; in 8 bits a value's, half of 1/127 of the largest.
                    #expect(error(Array(exact[place]), expected) < 1e-6, "\(name(path)) \(addend) \(fullyMasked)")
                    #expect(error(Array(found[place]), expected) < 0.005, "\(name(path)) \(addend) \(fullyMasked)")
                }
                #expect((0..<lq * d).allSatisfy { $0 / d % 2 == 0 || abs(exact[$0] - found[$0]) < 0.05 }, "\(name(path)) \(addend)")
            }
        }
    }

    /// Scores of NaN and ∞, from a query or a mask: the weights of such a row count as 0 where that is asked for, and values of NaN
    /// stay NaN under them.
    @Test(arguments: [5, 40, 300]) func weightsThatAreNoNumbersAreZeroWhereAskedFor(lk: Int) {
        var random = Generator(state: 13)
        let (lq, d) = (30, 64)
        var q = random.floats(lq * d, scale: 2), v = random.floats(lk * d), mask = [Float](repeating: 0, count: lq * lk)
        let k = random.floats(lk * d, scale: 2)
        (q[3 * d + 7], mask[8 * lk + 1], mask[11 * lk + 2]) = (.nan, .nan, .infinity)
        let spoilt = [3, 8, 11]
        for spoilsValue in [false, true] {
            if spoilsValue { v[2 * d + 1] = .nan }
            let rows = (ByteRows(q, lq, d, d), ByteRows(k, lk, d, d), ByteRows(v, lk, d, d))
            let memory = UnsafeMutableRawPointer.allocate(byteCount: trips_iattention_scratch(lk, d), alignment: 64)
            defer { memory.deallocate() }
            var scratch = [Float](repeating: 0, count: trips_attention_scratch(lk, d))
            for fullyMasked in [TRIPS_FULLY_MASKED_NAN, TRIPS_FULLY_MASKED_ZERO, TRIPS_FULLY_MASKED_ZERO_FOR_NAN] {
                onEachPath(and: TRIPS_PATH_SCALAR) { path in
                    var (exact, found) = ([Float](repeating: 5, count: lq * d), [Float](repeating: 5, count: lq * d))
                    trips_attention(q, d, k, d, v, d, &exact, d, lq, lk, d, 0.125, mask, lk, false, fullyMasked, &scratch)
                    withExtendedLifetime(rows) {
                        trips_iattention(
                            rows.0.rows, rows.1.rows, rows.2.rows, &found, d, lq, lk, d, 0.125, mask, lk, false, fullyMasked,
                            memory)
                    }
                    for index in 0..<lq * d {
                        let isSpoilt = spoilt.contains(index / d)
                        let isZero = isSpoilt && fullyMasked == TRIPS_FULLY_MASKED_ZERO_FOR_NAN
                        // In 8 bits the value's whole row is spoilt.
                        let isNaN = (exact: spoilsValue && index % d == 1, found: spoilsValue)
                        let place: Comment = "\(name(path)) \(fullyMasked) \(index / d) \(index % d)"
                        #expect(exact[index].isNaN == (isNaN.exact || isSpoilt && !isZero), place)
                        #expect(found[index].isNaN == (isNaN.found || isSpoilt && !isZero), place)
                        #expect(!isZero || isNaN.exact || exact[index] == 0, place)
                        #expect(!isZero || isNaN.found || found[index] == 0, place)
                    }
                }
            }
        }
    }

    private var cases: [(causal: Bool, fullyMasked: trips_fully_masked)] {
        [TRIPS_FULLY_MASKED_NAN, TRIPS_FULLY_MASKED_ZERO, TRIPS_FULLY_MASKED_ZERO_FOR_NAN].flatMap { [(false, $0), (true, $0)] }
    }

    /// None, one row for all queries, a row for each, and such as hide a third of the keys or all of them.
    private func masks(_ lq: Int, _ lk: Int, _ random: inout Generator) -> [(values: [Float]?, stride: Int)] {
        [
            (nil, 0), (random.floats(lk), 0), (random.floats(lq * (lk + 1)), lk + 1),
            ((0..<lk).map { $0 % 3 == 1 ? -.infinity : 0 }, 0), ((0..<lk).map { $0 % 3 == 0 ? -10_000 : 0 }, 0),
            (.init(repeating: -.infinity, count: lk), 0), (.init(repeating: -.greatestFiniteMagnitude, count: lk), 0),
            ((0..<lq * lk).map { $0 / max(1, lk) % 2 == 0 || $0 % 3 == 0 ? -.infinity : -3e38 }, lk),
        ]
    }
}

/// Rows of numbers as bytes.
private final class ByteRows {
    private let bytes: UnsafeMutableBufferPointer<UInt8>
    private let scales: UnsafeMutableBufferPointer<Float>
    let rows: trips_byte_rows

    init(_ x: [Float], _ count: Int, _ stride: Int, _ width: Int) {
        let distance = (width + 3) / 4 * 4 + 4
        bytes = .allocate(capacity: count * distance + 1)
        scales = .allocate(capacity: count + 1)
        let (first, scale) = (bytes.baseAddress.unsafelyUnwrapped, scales.baseAddress.unsafelyUnwrapped)
        trips_quantize_rows_ref(first, distance, scale, x, stride, width, count, nil)
        rows = trips_byte_rows(bytes: first, ld: distance, scales: scale)
    }

    func rows(from first: Int) -> trips_byte_rows {
        trips_byte_rows(bytes: rows.bytes + first * rows.ld, ld: rows.ld, scales: rows.scales + first)
    }

    deinit {
        bytes.deallocate()
        scales.deallocate()
    }
}
