import Kernels
import Testing

private let counts = [0, 1, 2, 7, 15, 16, 31, 33, 64, 100, 1025, 5000]

extension KernelTests {
    @Test(arguments: [2, 4, 8]) func planes(width: Int) {
        var random = Generator(state: 14)
        for n in counts {
            // One byte off any alignment.
            let bytes = (0...(n * width)).map { _ in UInt8(truncatingIfNeeded: random.next() >> 17) }
            for rotate in [false, true] {
                var expected = [UInt8](repeating: 0, count: n * width)
                for i in 0..<n {
                    var word = (0..<width).reduce(UInt64(0)) { $0 | UInt64(bytes[1 + i * width + $1]) << (8 * UInt64($1)) }
                    if rotate {
                        let bits = UInt64(8 * width), top = word >> (bits - 1)
                        word = (width == 8 ? word << 1 : (word << 1) & (1 << bits - 1)) | top
                    }
                    for p in 0..<width { expected[p * n + i] = UInt8(truncatingIfNeeded: word >> (8 * UInt64(p))) }
                }
                var reference = [UInt8](repeating: 0, count: n * width), merged = bytes
                bytes.withUnsafeBytes { trips_planes_split_ref(&reference, $0.baseAddress! + 1, n, width, rotate) }
                #expect(reference == expected)
                onEachPath { path in
                    var planes = [UInt8](repeating: 0, count: n * width)
                    bytes.withUnsafeBytes { trips_planes_split(&planes, $0.baseAddress! + 1, n, width, rotate) }
                    #expect(planes == expected, "\(name(path)) \(n) \(width)")
                    for i in 1..<merged.count { merged[i] = 0 }
                    merged.withUnsafeMutableBytes { trips_planes_merge($0.baseAddress! + 1, planes, n, width, rotate) }
                    #expect(merged == bytes, "\(name(path)) \(n) \(width)")
                }
            }
        }
    }

    @Test func halfBytes() {
        var random = Generator(state: 15)
        for n in counts {
            let bytes = (0...n).map { _ in UInt8(truncatingIfNeeded: random.next() >> 17) }
            let half = n / 2
            var expected = Array(bytes[1...])
            for i in 0..<half {
                let (first, second) = (bytes[1 + i], bytes[1 + half + i])
                expected[i] = first % 16 + second % 16 * 16
                expected[half + i] = first / 16 + second / 16 * 16
            }
            var reference = [UInt8](repeating: 0, count: n), merged = bytes
            bytes.withUnsafeBytes { trips_planes_split_ref(&reference, $0.baseAddress! + 1, n, 1, false) }
            #expect(reference == expected)
            onEachPath { path in
                var planes = [UInt8](repeating: 0, count: n)
                bytes.withUnsafeBytes { trips_planes_split(&planes, $0.baseAddress! + 1, n, 1, false) }
                #expect(planes == expected, "\(name(path)) \(n)")
                for i in 1..<merged.count { merged[i] = 0 }
                merged.withUnsafeMutableBytes { trips_planes_merge($0.baseAddress! + 1, planes, n, 1, false) }
                #expect(merged == bytes, "\(name(path)) \(n)")
            }
        }
    }

    @Test func planeOfExponents() {
        var planes = [UInt8](repeating: 0, count: 8)
        let values: [Float] = [-1, 1.5]
        values.withUnsafeBytes { trips_planes_split(&planes, $0.baseAddress!, 2, 4, true) }
        #expect(planes[6...] == [127, 127])
    }

    /// All 65536 halves, both ways, against Swift's own conversions where the processor has them, and
    /// floats around every rounding boundary.
    @Test func halves() {
        let all = (0...UInt16.max).map { $0 }
        var expected = [Float](repeating: 0, count: all.count)
        trips_f16_to_f32_ref(&expected, all, all.count)
        var floats = expected + expected.flatMap { [$0.nextUp, $0.nextDown, $0 * 1.00048828125, $0 * 1.000732421875] }
        floats += [65519, 65520, 65536, 1e30, -1e30, 1e-10, 2.9802322e-8, 2.9802326e-8, 0x1p-25, .greatestFiniteMagnitude]
        var bits = [UInt16](repeating: 0, count: floats.count)
        trips_f32_to_f16_ref(&bits, floats, floats.count)
        for (h, f) in zip(all, expected) where h & 0x7c00 != 0x7c00 && h & 0x7c00 != 0 {
            #expect(f == Float(sign: h >> 15 == 0 ? .plus : .minus, exponent: Int(h >> 10 & 31) - 15, significand: 1 + Float(h & 1023) / 1024))
        }
        #expect(expected[0x7c00] == .infinity && expected[0xfc00] == -.infinity && expected[0x7c01].isNaN && expected[1] == 0x1p-24)
        for (h, back) in zip(all, bits) where !expected[Int(h)].isNaN { #expect(h == back) }
        #expect(bits[(all.count * 5)...].map { $0 } == [0x7bff, 0x7c00, 0x7c00, 0x7c00, 0xfc00, 0, 0, 1, 0, 0x7c00])
        onEachPath { path in
            for n in [all.count, 13] {
                var y = [Float](repeating: 0, count: n)
                trips_f16_to_f32(&y, all, n)
                #expect(y.map(\.bitPattern) == expected[..<n].map(\.bitPattern), "\(name(path))")
            }
            for n in [floats.count, 13] {
                var y = [UInt16](repeating: 0, count: n)
                trips_f32_to_f16(&y, floats, n)
                #expect(y == [UInt16](bits[..<n]), "\(name(path))")
            }
        }
    }

    @Test func brainFloats() {
        let all = (0...UInt16.max).map { $0 }
        let expected = all.map { Float(bitPattern: UInt32($0) << 16) }
        let floats = all.flatMap { high in
            [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map { Float(bitPattern: UInt32(high) << 16 | $0) }
        }
        let rounded = floats.map { x -> UInt16 in
            if x.isNaN { return UInt16(x.bitPattern >> 16) | 0x40 }
            let low = x.bitPattern & 0xffff, high = UInt16(x.bitPattern >> 16)
            return low > 0x8000 || low == 0x8000 && high & 1 == 1 ? high + 1 : high
        }
        onEachPath { path in
            for n in [all.count, 13] {
                var y = [Float](repeating: 0, count: n)
                trips_bf16_to_f32(&y, all, n)
                #expect(y.map(\.bitPattern) == expected[..<n].map(\.bitPattern), "\(name(path))")
            }
            for n in [floats.count, 13] {
                var y = [UInt16](repeating: 0, count: n), reference = y
                trips_f32_to_bf16(&y, floats, n)
                trips_f32_to_bf16_ref(&reference, floats, n)
                #expect(y == [UInt16](rounded[..<n]) && reference == y, "\(name(path))")
            }
        }
    }

    @Test(arguments: [1, 2, 4, 8]) func transpose(width: Int) {
        var random = Generator(state: 15)
        for (rows, columns) in [(0, 3), (1, 1), (1, 40), (16, 16), (17, 33), (40, 7), (65, 130)] {
            let lds = columns + 3, ldd = rows + 1
            let source = (0..<(rows * lds * width)).map { _ in UInt8(truncatingIfNeeded: random.next() >> 11) }
            var expected = [UInt8](repeating: 1, count: columns * ldd * width)
            for r in 0..<rows {
                for c in 0..<columns {
                    for b in 0..<width { expected[(c * ldd + r) * width + b] = source[(r * lds + c) * width + b] }
                }
            }
            onEachPath { path in
                var y = [UInt8](repeating: 1, count: expected.count), reference = y
                trips_transpose(&y, ldd, source, lds, rows, columns, width)
                trips_transpose_ref(&reference, ldd, source, lds, rows, columns, width)
                #expect(y == expected && reference == expected, "\(name(path)) \(rows) \(columns)")
            }
        }
    }
}
