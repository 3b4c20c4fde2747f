import Kernels
import Testing

private let counts = [0, 1, 2, 7, 15, 16, 31, 33, 64, 100, 1025, 5000]

extension KernelTests {
    @Test(arguments: [2, 4, 8]) func planesAreSplitAndMerged(width: Int) {
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

    @Test func halfBytesAreSplitAndMerged() {
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

    @Test func exponentsHaveAPlaneOfTheirOwn() {
        var planes = [UInt8](repeating: 0, count: 8)
        let values: [Float] = [-1, 1.5]
        values.withUnsafeBytes { trips_planes_split(&planes, $0.baseAddress!, 2, 4, true) }
        #expect(planes[6...] == [127, 127])
    }

    /// All 65536 halves. Numbers as the format defines them; the processor makes NaNs quiet.
    @Test func halvesWidenExactly() {
        let all = (0...UInt16.max).map { $0 }
        let expected = all.map { half -> UInt32 in
            let (exponent, fraction) = (Int(half >> 10 & 31), UInt32(half & 1023))
            let magnitude =
                exponent == 0
                ? Float(fraction) * 0x1p-24 : Float(sign: .plus, exponent: exponent - 15, significand: 1 + Float(fraction) / 1024)
            let bits = exponent < 31 ? magnitude.bitPattern : 0x7f80_0000 | fraction << 13 | (fraction == 0 ? 0 : 0x0040_0000)
            return UInt32(half & 0x8000) << 16 | bits
        }
        checkWidening(all, expected, trips_f16_to_f32_ref, trips_f16_to_f32)
    }

    @Test func brainFloatsWidenExactly() {
        let all = (0...UInt16.max).map { $0 }
        checkWidening(all, all.map { UInt32($0) << 16 }, trips_bf16_to_f32_ref, trips_bf16_to_f32)
    }

    private func checkWidening(
        _ words: [UInt16], _ expected: [UInt32], _ reference: (UnsafeMutablePointer<Float>, UnsafePointer<UInt16>, Int) -> Void,
        _ kernel: (UnsafeMutablePointer<Float>, UnsafePointer<UInt16>, Int) -> Void
    ) {
        for count in [words.count, 13] {
            var y = [Float](repeating: 0, count: count)
            reference(&y, words, count)
            #expect(y.map(\.bitPattern) == Array(expected[..<count]))
            onEachPath { path in
                var y = [Float](repeating: 0, count: count)
                kernel(&y, words, count)
                #expect(y.map(\.bitPattern) == Array(expected[..<count]), "\(name(path)) \(count)")
            }
        }
    }
}
