import Kernels
import Testing

private let sizes: [(m: Int, n: Int, k: Int)] = [
    (0, 5, 3), (1, 1, 1), (2, 33, 4), (3, 64, 130), (5, 31, 17), (8, 100, 256), (14, 129, 200), (29, 65, 77), (45, 40, 588),
]

private let groups = [0, 64, 76, 128]

/// Weights of every value, activations at both ends of their range: what saturates, shows.
private struct Problem {
    var m, n, k, group, stride: Int
    var a: [UInt8]
    var w: [Int8]
    var scales: [Float]

    init(_ size: (m: Int, n: Int, k: Int), group: Int, random: inout Generator, extreme: Bool) {
        (m, n, k) = size
        self.group = group
        stride = trips_quantized_row_size(k)
        a = (0..<(m * stride)).map { _ in
            extreme ? (random.next() & 1 == 0 ? 1 : 255) : UInt8(truncatingIfNeeded: random.next() >> 9)
        }
        w = (0..<(n * k)).map { _ in extreme ? (random.next() & 1 == 0 ? -128 : 127) : Int8(truncatingIfNeeded: random.next() >> 9)
        }
        scales = random.floats(n * trips_group_count(k, group), scale: 0.01)
    }

    /// In two ranges, the second first.
    func packed(reference: Bool = true) -> [UInt32] {
        var result = [UInt32](repeating: 0xabcd_abcd, count: trips_igemm_pack_size(n, k, group) / 4)
        let middle = n / 2 / 16 * 16, pack = reference ? trips_igemm_pack_ref : trips_igemm_pack
        result.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            for (begin, end) in [(middle, n), (0, middle)] {
                let rows = Array(w[(begin * k)...]), factors = Array(scales[(begin * trips_group_count(k, group))...])
                pack(base, rows, k, factors, n, k, group, begin, end)
            }
        }
        return result
    }
}

extension KernelTests {
    @Test func quantizedRowsMatchTheReference() {
        var random = Generator(state: 3)
        for k in [0, 1, 3, 4, 15, 16, 17, 64, 100, 256, 257, 300] {
            let rows = 19, ldx = k + 2, ldq = trips_quantized_row_size(k) + 4
            var x = random.floats(rows * ldx, scale: 3)
            for i in 0..<k { x[ldx + i] = 0 }
            if k > 2 {
                x[2 * ldx + k - 1] = .nan
                x[3 * ldx] = -.infinity
                for i in 0..<k { x[4 * ldx + i] *= 1e-38 }
                x[5 * ldx + 1] = .greatestFiniteMagnitude
                for i in 0..<k { x[6 * ldx + i] = i == 2 ? 1e-35 : 0 }
            }
            let factors = random.floats(k, scale: 2)
            for factors in [nil, factors] as [[Float]?] {
                var expected = [UInt8](repeating: 9, count: rows * ldq), scale = [Float](repeating: 9, count: rows)
                trips_quantize_rows_ref(&expected, ldq, &scale, x, ldx, k, rows, factors)
                if k > 2 {
                    #expect(scale[1] == 0 && scale[2].isNaN && scale[3].isNaN)
                    #expect(expected[0..<k].contains { $0 == 1 || $0 == 255 })
                    for i in 0..<k {
                        let exact = x[i] * (factors?[i] ?? 1)
                        #expect(abs(Float(Int(expected[i]) - 128) * scale[0] - exact) <= 0.5001 * scale[0])
                    }
                }
                onEachPath { path in
                    var q = [UInt8](repeating: 9, count: rows * ldq), s = [Float](repeating: 9, count: rows)
                    trips_quantize_rows(&q, ldq, &s, x, ldx, k, rows, factors)
                    #expect(q == expected, "\(name(path)) k \(k)")
                    #expect(s.map(\.bitPattern) == scale.map(\.bitPattern), "\(name(path)) k \(k)")
                }
            }
        }
    }

    @Test func integerPackingMatchesTheReference() {
        var random = Generator(state: 4)
        for size in sizes {
            for group in groups {
                let problem = Problem(size, group: group, random: &random, extreme: false), expected = problem.packed()
                onEachPath { path in
                    #expect(problem.packed(reference: false) == expected, "\(name(path)) \(size) \(group)")
                }
            }
        }
    }

    @Test func integerUnpackingGivesTheRowsBack() {
        var random = Generator(state: 22)
        for size in sizes {
            for group in groups {
                let problem = Problem(size, group: group, random: &random, extreme: false)
                var rows = [Int8](repeating: 99, count: problem.w.count)
                let packed = problem.packed(), middle = problem.n / 3
                trips_igemm_unpack(&rows, problem.k, packed, problem.k, group, 0, middle)
                rows.withUnsafeMutableBufferPointer { rows in
                    guard let base = rows.baseAddress else { return }
                    trips_igemm_unpack(base + middle * problem.k, problem.k, packed, problem.k, group, middle, problem.n)
                }
                #expect(rows == problem.w, "\(size) \(group)")
            }
        }
    }

    /// The sums are integers: equal to plain arithmetic in 64 bits, on every path, at the ends of the range too. With scales of 1
    /// for one group and 0 for the others a product is that group's sums, rounded once.
    @Test func integerSumsAreExact() {
        var random = Generator(state: 5)
        for size in sizes {
            for group in groups {
                for extreme in [false, true] {
                    var p = Problem(size, group: group, random: &random, extreme: extreme)
                    let count = trips_group_count(p.k, group), ones = [Float](repeating: 1, count: p.m)
                    for g in 0..<count {
                        for place in p.scales.indices { p.scales[place] = place % count == g ? 1 : 0 }
                        let packed = p.packed(), inputs = group == 0 ? 0..<p.k : (g * group)..<min(p.k, (g + 1) * group)
                        let expected = (0..<(p.m * p.n)).map { place in
                            let (m, n) = place.quotientAndRemainder(dividingBy: p.n)
                            return Float(inputs.reduce(0) { $0 + (Int(p.a[m * p.stride + $1]) - 128) * Int(p.w[n * p.k + $1]) })
                        }
                        var reference = [Float](repeating: 7, count: expected.count)
                        trips_igemm_ref(p.a, p.stride, ones, packed, p.n, p.k, group, &reference, p.n, 0, p.m, 0, p.n, nil)
                        #expect(reference == expected)
                        onEachPath { path in
                            var sums = [Float](repeating: 7, count: expected.count)
                            trips_igemm(p.a, p.stride, ones, packed, p.n, p.k, group, &sums, p.n, 0, p.m, 0, p.n, nil)
                            #expect(sums == expected, "\(name(path)) \(size) \(group)")
                        }
                    }
                }
            }
        }
    }

    /// Tiles have fewer rows where inputs are many.
    @Test func integerSumsOfLongRowsAreExact() {
        var random = Generator(state: 23)
        for size in [(m: 5, n: 33, k: Int(TRIPS_MOST_INPUTS)), (m: 14, n: 20, k: 9_001)] {
            for extreme in [false, true] {
                var p = Problem(size, group: 0, random: &random, extreme: extreme)
                for place in p.scales.indices { p.scales[place] = 1 }
                let ones = [Float](repeating: 1, count: p.m), packed = p.packed()
                var expected = [Float](repeating: 7, count: p.m * p.n)
                trips_igemm_ref(p.a, p.stride, ones, packed, p.n, p.k, 0, &expected, p.n, 0, p.m, 0, p.n, nil)
                onEachPath { path in
                    var sums = [Float](repeating: 7, count: expected.count)
                    trips_igemm(p.a, p.stride, ones, packed, p.n, p.k, 0, &sums, p.n, 0, p.m, 0, p.n, nil)
                    #expect(sums == expected, "\(name(path)) \(size)")
                }
            }
        }
    }

    /// Integer sums are exact; scaling and adding up groups rounds a few times: 1e-5 relative to outputs up to about 10.
    @Test func igemmMatchesTheReference() {
        var random = Generator(state: 6)
        for size in sizes + [(1, 96, 8), (31, 90, 300), (5, 300, 2100)] {
            for group in groups {
                let p = Problem(size, group: group, random: &random, extreme: false), packed = p.packed(), ldc = p.n + 1
                let rowScale = random.floats(p.m, scale: 0.01), bias = random.floats(p.n), residual = random.floats(p.m * ldc)
                bias.withUnsafeBufferPointer { bias in
                    residual.withUnsafeBufferPointer { residual in
                        var epilogue = trips_epilogue(
                            bias: bias.baseAddress, residual: residual.baseAddress, ldr: ldc, residual_rows: nil,
                            activation: TRIPS_ACTIVATION_GELU_ERF)
                        var expected = [Float](repeating: 7, count: p.m * ldc)
                        trips_igemm_ref(
                            p.a, p.stride, rowScale, packed, p.n, p.k, group, &expected, ldc, 0, p.m, 0, p.n, &epilogue)
                        var bits = SameBits()
                        onEachPath { path in
                            var whole = [Float](repeating: 7, count: p.m * ldc), split = whole
                            trips_igemm(
                                p.a, p.stride, rowScale, packed, p.n, p.k, group, &whole, ldc, 0, p.m, 0, p.n, &epilogue)
                            #expect(error(whole, expected) < 1e-5, "\(name(path)) \(size) \(group)")
                            let same = bits.hold(whole, on: path)
                            #expect(same, "\(name(path)) \(size) \(group)")
                            var inPlace = [Float](residual)
                            inPlace.withUnsafeMutableBufferPointer { inPlace in
                                guard let output = inPlace.baseAddress else { return }
                                var own = epilogue
                                own.residual = UnsafePointer(output)
                                trips_igemm(
                                    p.a, p.stride, rowScale, packed, p.n, p.k, group, output, ldc, 0, p.m, 0, p.n, &own)
                            }
                            for r in 0..<p.m {
                                #expect(
                                    inPlace[r * ldc..<r * ldc + p.n] == whole[r * ldc..<r * ldc + p.n],
                                    "\(name(path)) \(size) \(group)")
                            }
                            let row = p.m / 3, column = p.n / 2 / 32 * 32
                            for (m0, m1) in [(0, row), (row, p.m)] {
                                for (n0, n1) in [(0, column), (column, p.n)] {
                                    trips_igemm(
                                        p.a, p.stride, rowScale, packed, p.n, p.k, group, &split, ldc, m0, m1, n0, n1,
                                        &epilogue)
                                }
                            }
                            #expect(split == whole, "\(name(path)) \(size) \(group)")
                        }
                    }
                }
            }
        }
    }

    /// The same bytes and scales as those of the numbers that the product gives on that path; beside the reference, whose numbers
    /// differ by roundings, one step at most.
    @Test(arguments: [(1, 32), (2, 96), (5, 64), (14, 64), (17, 256), (31, 160), (70, 64)])
    func igemmToBytesQuantizesWhatIgemmGives(m: Int, part: Int) {
        var random = Generator(state: 13)
        for group in groups {
            for k in [12, 130, 2100] {
                let p = Problem((m, 3 * part, k), group: group, random: &random, extreme: false), packed = p.packed(), rows = m + 2
                var rowScale = random.floats(m, scale: 0.01)
                rowScale[m - 1] = m > 2 ? .nan : 0
                let bias = m > 2 ? random.floats(p.n) : .init(repeating: 0, count: p.n)
                typealias Kernel =
                    @convention(c) (
                        UnsafePointer<UInt8>, Int, UnsafePointer<Float>, UnsafeRawPointer, Int, Int, Int,
                        UnsafeMutablePointer<UInt8>,
                        UnsafeMutablePointer<Float>, Int, Int, Int, Int, Int, Int, UnsafePointer<Float>?
                    ) -> Void
                func run(_ kernel: Kernel, _ ranges: [(Range<Int>, Range<Int>)]) -> (bytes: [UInt8], scales: [Float]) {
                    var bytes = [UInt8](repeating: 9, count: 3 * rows * part), scales = [Float](repeating: 9, count: 3 * rows)
                    for (m, n) in ranges {
                        kernel(
                            p.a, p.stride, rowScale, packed, p.n, k, group, &bytes, &scales, rows, part, m.lowerBound, m.upperBound,
                            n.lowerBound, n.upperBound, bias)
                    }
                    return (bytes, scales)
                }
                let reference = run(trips_igemm_bytes_ref, [(0..<m, 0..<p.n)])
                onEachPath { path in
                    var numbers = [Float](repeating: 0, count: m * p.n)
                    bias.withUnsafeBufferPointer { bias in
                        var epilogue = trips_epilogue(
                            bias: bias.baseAddress, residual: nil, ldr: 0, residual_rows: nil, activation: TRIPS_ACTIVATION_NONE)
                        trips_igemm(p.a, p.stride, rowScale, packed, p.n, k, group, &numbers, p.n, 0, m, 0, p.n, &epilogue)
                    }
                    var bytes = [UInt8](repeating: 9, count: 3 * rows * part), scales = [Float](repeating: 9, count: 3 * rows)
                    for column in 0..<3 {
                        let first = column * rows
                        bytes.withUnsafeMutableBufferPointer { bytes in
                            scales.withUnsafeMutableBufferPointer { scales in
                                numbers.withUnsafeBufferPointer { numbers in
                                    guard let q = bytes.baseAddress, let s = scales.baseAddress, let x = numbers.baseAddress else {
                                        return
                                    }
                                    trips_quantize_rows(
                                        q + first * part, part, s + first, x + column * part, p.n, part, m, nil)
                                }
                            }
                        }
                    }
                    let place: Comment = "\(name(path)) \(m) \(part) \(group) \(k)"
                    let whole = run(trips_igemm_bytes, [(0..<m, 0..<p.n)])
                    #expect(whole.bytes == bytes && whole.scales.map(\.bitPattern) == scales.map(\.bitPattern), place)
                    let split = run(
                        trips_igemm_bytes,
                        [(0..<m / 3, 0..<part), (m / 3..<m, 0..<part), (0..<m / 3, part..<p.n), (m / 3..<m, part..<p.n)])
                    #expect(split.bytes == whole.bytes && split.scales.map(\.bitPattern) == whole.scales.map(\.bitPattern), place)
                    #expect(zip(whole.bytes, reference.bytes).allSatisfy { abs(Int($0) - Int($1)) <= 1 }, place)
                    #expect(error(whole.scales, reference.scales) < 1e-6, place)
                }
            }
        }
    }

    @Test func dequantizedRowsMatchTheReference() {
        var random = Generator(state: 7)
        for size in sizes {
            for group in groups {
                let p = Problem(size, group: group, random: &random, extreme: false), factors = random.floats(p.k)
                for factors in [nil, factors] as [[Float]?] {
                    var expected = [Float](repeating: 0, count: p.n * p.k)
                    trips_dequantize_rows_ref(&expected, p.k, p.w, p.k, p.scales, p.n, p.k, group, factors)
                    onEachPath { path in
                        var y = [Float](repeating: 0, count: p.n * p.k)
                        trips_dequantize_rows(&y, p.k, p.w, p.k, p.scales, p.n, p.k, group, factors)
                        #expect(y == expected, "\(name(path)) \(size) \(group)")
                    }
                }
            }
        }
    }
}
