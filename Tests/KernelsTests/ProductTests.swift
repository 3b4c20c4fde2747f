import Kernels
import Testing

/// Sizes around the tile heights and panel widths; more columns than stay in the cache at once; and distances between rows at which
/// they would evict each other.
private let sizes: [(m: Int, n: Int, k: Int)] = [
    (0, 5, 3), (3, 0, 2), (1, 1, 1), (2, 33, 0), (1, 64, 7), (3, 129, 40), (5, 31, 17), (7, 100, 33), (8, 32, 64),
    (13, 48, 19), (14, 47, 65), (15, 257, 12), (29, 65, 100), (43, 96, 31), (15, 70, 1024), (29, 33, 1536),
    (15, 200, 1030), (6, 600, 512),
]

extension KernelTests {
    @Test func packingMatchesTheReference() {
        var random = Generator(state: 1)
        for (_, n, k) in sizes {
            let w = random.floats(n * (k + 3)), size = trips_sgemm_pack_size(n, k)
            var expected = [Float](repeating: .nan, count: size)
            trips_sgemm_pack_ref(&expected, w, k + 3, n, k, 0, n)
            for place in 0..<size {
                let (output, input) = (k == 0 ? 0 : place / (32 * k) * 32 + place % 32, k == 0 ? 0 : place % (32 * k) / 32)
                #expect(expected[place] == (output < n ? w[output * (k + 3) + input] : 0))
            }
            onEachPath { path in
                var whole = [Float](repeating: .nan, count: size), parts = whole
                trips_sgemm_pack(&whole, w, k + 3, n, k, 0, n)
                let middle = n / 2 / 16 * 16
                w.withUnsafeBufferPointer { w in
                    guard let rows = w.baseAddress else { return }
                    trips_sgemm_pack(&parts, rows + middle * (k + 3), k + 3, n, k, middle, n)
                    trips_sgemm_pack(&parts, rows, k + 3, n, k, 0, middle)
                }
                #expect(whole == expected, "\(name(path)) n \(n) k \(k)")
                if n > 0 { #expect(parts == expected, "\(name(path)) n \(n) k \(k)") }
                // At the start of cache lines, where whole lines may be written past the caches, and not.
                for offset in [0, 1] {
                    withUnsafeTemporaryAllocation(byteCount: (size + 1) * MemoryLayout<Float>.size, alignment: 64) { bytes in
                        let target = UnsafeMutableBufferPointer(rebasing: bytes.bindMemory(to: Float.self)[offset..<offset + size])
                        target.update(repeating: .nan)
                        if let base = target.baseAddress { trips_sgemm_pack(base, w, k + 3, n, k, 0, n) }
                        #expect(Array(target) == expected, "\(name(path)) n \(n) k \(k) offset \(offset)")
                    }
                }
            }
        }
    }

    @Test(arguments: [false, true]) func packingAFactorMatchesTheReference(transposed: Bool) {
        var random = Generator(state: 22)
        for (_, n, k) in sizes {
            let ldb = (transposed ? k : n) + 3, b = random.floats((transposed ? n : k) * ldb), size = trips_sgemm_pack_size(n, k)
            var expected = [Float](repeating: .nan, count: size)
            trips_sgemm_pack_factor_ref(&expected, b, ldb, n, k, transposed)
            for place in 0..<size {
                let (output, input) = (place / (32 * k) * 32 + place % 32, place % (32 * k) / 32)
                #expect(expected[place] == (output >= n ? 0 : transposed ? b[output * ldb + input] : b[input * ldb + output]))
            }
            onEachPath { path in
                var packed = [Float](repeating: .nan, count: size)
                trips_sgemm_pack_factor(&packed, b, ldb, n, k, transposed)
                #expect(packed == expected, "\(name(path)) n \(n) k \(k)")
            }
        }
    }

    @Test func unpackingGivesTheRowsBack() {
        var random = Generator(state: 21)
        for (_, n, k) in sizes {
            let w = random.floats(n * k)
            var packed = [Float](repeating: .nan, count: trips_sgemm_pack_size(n, k)), rows = [Float](repeating: .nan, count: n * k)
            trips_sgemm_pack_ref(&packed, w, k, n, k, 0, n)
            let middle = n / 3
            rows.withUnsafeMutableBufferPointer { rows in
                guard let base = rows.baseAddress else { return }
                trips_sgemm_unpack(base, k, packed, k, 0, middle)
                trips_sgemm_unpack(base + middle * k, k, packed, k, middle, n)
            }
            #expect(rows == w, "n \(n) k \(k)")
        }
    }

    /// The reference may round products before adding them: each of k terms below 1 contributes at most
    /// half an ulp of a sum that grows like √k; 1e-5 holds with room for k = 1536.
    @Test func sgemmMatchesTheReference() {
        var random = Generator(state: 2)
        for (m, n, k) in sizes {
            let lda = k > 0 && k % 512 == 0 ? k : k + 5, ldc = n + 3, a = random.floats(m * lda), w = random.floats(n * k)
            let bias = random.floats(n), residual = random.floats(m * ldc)
            var packed = [Float](repeating: 0, count: trips_sgemm_pack_size(n, k))
            trips_sgemm_pack_ref(&packed, w, k, n, k, 0, n)
            for activation in [TRIPS_ACTIVATION_NONE, TRIPS_ACTIVATION_GELU_ERF, TRIPS_ACTIVATION_RELU] {
                bias.withUnsafeBufferPointer { bias in
                    residual.withUnsafeBufferPointer { residual in
                        var epilogue = trips_epilogue(
                            bias: bias.baseAddress, residual: residual.baseAddress, ldr: ldc, residual_rows: nil,
                            activation: activation)
                        var expected = [Float](repeating: 7, count: m * ldc)
                        trips_sgemm_ref(a, lda, packed, n, k, &expected, ldc, 0, m, 0, n, &epilogue)
                        var first: [Float]?
                        onEachPath { path in
                            var whole = [Float](repeating: 7, count: m * ldc), split = whole
                            trips_sgemm(a, lda, packed, n, k, &whole, ldc, 0, m, 0, n, &epilogue)
                            #expect(error(whole, expected) < 1e-5, "\(name(path)) \(m) \(n) \(k)")
                            var inPlace = [Float](residual)
                            inPlace.withUnsafeMutableBufferPointer { inPlace in
                                guard let output = inPlace.baseAddress else { return }
                                var own = epilogue
                                own.residual = UnsafePointer(output)
                                trips_sgemm(a, lda, packed, n, k, output, ldc, 0, m, 0, n, &own)
                            }
                            for r in 0..<m {
                                #expect(
                                    inPlace[r * ldc..<r * ldc + n] == whole[r * ldc..<r * ldc + n], "\(name(path)) \(m) \(n) \(k)")
                            }
                            let row = m / 3, column = n / 2 / 32 * 32
                            for (m0, m1) in [(0, row), (row, m)] {
                                for (n0, n1) in [(0, column), (column, n)] {
                                    trips_sgemm(a, lda, packed, n, k, &split, ldc, m0, m1, n0, n1, &epilogue)
                                }
                            }
                            #expect(split == whole, "\(name(path)) \(m) \(n) \(k)")
                            if activation == TRIPS_ACTIVATION_NONE {
                                if let first { #expect(first == whole, "the same chain of fused multiply-adds") }
                                first = whole
                            }
                        }
                    }
                }
            }
        }
    }

    /// A residual whose rows are looked up gives the bits of one whose rows lie in that order.
    @Test func residualRowsMayBeLookedUp() {
        var random = Generator(state: 9)
        let (m, n, k, rows) = (29, 70, 40, 6)
        let a = random.floats(m * k), w = random.floats(n * k), residual = random.floats(rows * n)
        let order = (0..<m).map { Int32($0 * 5 % rows) }, moved = order.flatMap { residual[Int($0) * n..<Int($0 + 1) * n] }
        var packed = [Float](repeating: 0, count: trips_sgemm_pack_size(n, k))
        trips_sgemm_pack_ref(&packed, w, k, n, k, 0, n)
        func product(
            _ residual: [Float], _ order: [Int32]?, _ multiply: (UnsafeMutablePointer<Float>, inout trips_epilogue) -> Void
        ) -> [Float] {
            var output = [Float](repeating: 0, count: m * n)
            residual.withUnsafeBufferPointer { residual in
                (order ?? []).withUnsafeBufferPointer { rows in
                    var epilogue = trips_epilogue(
                        bias: nil, residual: residual.baseAddress, ldr: n, residual_rows: order == nil ? nil : rows.baseAddress,
                        activation: TRIPS_ACTIVATION_RELU)
                    multiply(&output, &epilogue)
                }
            }
            return output
        }
        func agrees(_ multiply: (UnsafeMutablePointer<Float>, inout trips_epilogue) -> Void) -> Bool {
            product(residual, order, multiply) == product(moved, nil, multiply)
        }
        #expect(agrees { trips_sgemm_ref(a, k, packed, n, k, $0, n, 0, m, 0, n, &$1) })
        onEachPath { path in #expect(agrees { trips_sgemm(a, k, packed, n, k, $0, n, 0, m, 0, n, &$1) }, "\(name(path))") }
        var integers = [UInt32](repeating: 0, count: trips_igemm_pack_size(n, k, 0) / 4), scales = [Float](repeating: 0, count: m)
        let weights = w.map { Int8($0 * 100) }, ones = [Float](repeating: 0.01, count: n), width = trips_quantized_row_size(k)
        var bytes = [UInt8](repeating: 0, count: m * width)
        trips_quantize_rows_ref(&bytes, width, &scales, a, k, k, m, nil)
        trips_igemm_pack_ref(&integers, weights, k, ones, n, k, 0, 0, n)
        #expect(agrees { trips_igemm_ref(bytes, width, scales, integers, n, k, 0, $0, n, 0, m, 0, n, &$1) })
        onEachPath { path in
            #expect(agrees { trips_igemm(bytes, width, scales, integers, n, k, 0, $0, n, 0, m, 0, n, &$1) }, "\(name(path))")
        }
    }
}
