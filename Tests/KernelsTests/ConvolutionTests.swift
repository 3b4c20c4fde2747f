import Kernels
import Testing

extension KernelTests {
    /// Against the same chains with products rounded: each of up to 600 steps may differ by half an ulp of a sum that stays
    /// below 32, in proportion to 1 and more. What lies behind the last element is neither read nor written.
    @Test(arguments: [(1, 9), (2, 0), (3, 9), (14, 1), (15, 27), (29, 40), (17, 600)]) func convolutionsMatchTheReference(
        m: Int, taps: Int
    ) {
        var random = Generator(state: 11)
        for n in [0, 1, 7, 8, 9, 16, 31, 33, 63, 64, 65, 127, 128, 129, 300] {
            let (w, bias, offsets) = (random.floats(m * taps), random.floats(m), (0..<taps).map { $0 * 5 % 12 })
            let (packed, tiles, ldy) = (packedFilters(w, taps: taps, m: m), trips_filter_tiles(m), n + 3)
            var x = random.floats(n + 12)
            if n > 0, let last = offsets.max() { x[(last + n)...] = [.nan] }
            for bias in [bias, nil] as [[Float]?] {
                var expected = [Float](repeating: 7, count: m * ldy)
                trips_convolve_ref(&expected, ldy, x, offsets, packed, taps, bias, m, n, 0, tiles)
                var first: [Float]?
                onEachPath { path in
                    var y = [Float](repeating: 7, count: m * ldy)
                    // In two parts, the second first.
                    trips_convolve(&y, ldy, x, offsets, packed, taps, bias, m, n, tiles / 2, tiles)
                    trips_convolve(&y, ldy, x, offsets, packed, taps, bias, m, n, 0, tiles / 2)
                    #expect(error(y, expected) < 2e-5, "\(name(path)) \(n)")
                    #expect(y == first ?? y, "\(name(path)) \(n)")
                    first = y
                }
            }
        }
    }

    /// Every weight is in its tile, however the rows come.
    @Test(arguments: [1, 13, 14, 15, 28, 30, 45]) func filterTilesHoldEveryWeight(m: Int) {
        let taps = 5, w = (0..<m * taps).map { Float($0) }, packed = packedFilters(w, taps: taps, m: m)
        for tile in 0..<trips_filter_tiles(m) {
            let rows = trips_filter_row(m, tile)..<trips_filter_row(m, tile + 1)
            #expect(1...Int(TRIPS_FILTER_TILE) ~= rows.count)
            for row in rows {
                for tap in 0..<taps {
                    #expect(packed[rows.lowerBound * taps + tap * rows.count + row - rows.lowerBound] == w[row * taps + tap])
                }
            }
        }
        #expect(trips_filter_row(m, trips_filter_tiles(m)) == m)
    }

    private func packedFilters(_ w: [Float], taps: Int, m: Int) -> [Float] {
        var packed = [Float](repeating: .nan, count: m * taps)
        for start in stride(from: 0, to: m, by: 4).reversed() {
            trips_filter_pack(&packed, Array(w[(start * taps)...]), taps, m, start, min(m, start + 4))
        }
        return packed
    }

    /// Copies: equal to the reference, element by element.
    @Test func phasesMatchTheReference() {
        var random = Generator(state: 12)
        let axes = [
            trips_phase_axis(size: 1, phases: 1, places: 1, stride: 1, before: 0),
            .init(size: 5, phases: 1, places: 7, stride: 1, before: 1),
            .init(size: 40, phases: 1, places: 45, stride: 1, before: 3),
            .init(size: 9, phases: 2, places: 6, stride: 2, before: 1),
            .init(size: 8, phases: 3, places: 2, stride: 4, before: -3),
            .init(size: 3, phases: 2, places: 9, stride: 3, before: 11),
            .init(size: 2, phases: 1, places: 3, stride: 1, before: 9),
            .init(size: 70, phases: 1, places: 35, stride: 2, before: 0),
            .init(size: 31, phases: 1, places: 16, stride: 2, before: 0),
            .init(size: 3, phases: 1, places: 4, stride: 1, before: -5),
        ]
        for (a, b) in zip(axes, axes.dropFirst() + axes.prefix(1)) {
            for c in axes {
                let three = [a, b, c]
                let x = random.floats(three.reduce(1) { $0 * $1.size })
                let count = three.reduce(1) { $0 * $1.phases * $1.places }
                var expected = [Float](repeating: 7, count: count + 1)
                trips_phases_ref(&expected, x, three)
                onEachPath { path in
                    var y = [Float](repeating: 7, count: count + 1)
                    trips_phases(&y, x, three)
                    #expect(y == expected, "\(name(path)) \(three)")
                }
            }
        }
    }

    /// Against the same chains with products rounded: of up to 49 steps each may differ by half an ulp of a sum below 32. What is
    /// outside of the input is not read; the order is that of other convolutions, so that both give the same bits.
    @Test(arguments: [3, 5, 7]) func depthwiseConvolutionsMatchTheReference(kernel: Int) {
        var random = Generator(state: 14)
        for (rows, width, before, behind) in [
            (4, 1, 1, 1), (7, 7, 1, 1), (5, 9, 0, 0), (14, 14, 2, 2), (9, 33, 3, 3), (6, 70, -1, 2), (8, 20, 4, 3),
        ] {
            let sizes = [rows, width].map { $0 + kernel - 1 - before - behind }
            let axes = zip(sizes, [rows, width]).map { size, windows in
                trips_phase_axis(size: size, phases: 1, places: windows + kernel - 1, stride: 1, before: before)
            }
            let one = trips_phase_axis(size: 1, phases: 1, places: 1, stride: 1, before: 0)
            let (w, area) = (random.floats(kernel * kernel), sizes[0] * sizes[1])
            let x = [Float](repeating: .nan, count: 40) + random.floats(area) + [Float](repeating: .nan, count: 40)
            let (places, count) = (width + kernel - 1, rows * width)
            x.withUnsafeBufferPointer { x in
                guard let x = x.baseAddress.map({ $0 + 40 }) else { return }
                var expected = [Float](repeating: 7, count: count + 1)
                trips_depthwise_ref(&expected, x, axes, w, kernel, 0.5)
                onEachPath { path in
                    var y = [Float](repeating: 7, count: count + 1)
                    trips_depthwise(&y, x, axes, w, kernel, 0.5)
                    #expect(error(y, expected) < 2e-5, "\(name(path)) \(rows) \(width) \(before)")
                    // Laid out and convolved line by line.
                    var planes = [Float](repeating: 0, count: places * (rows + kernel - 1)), convolved: [Float] = []
                    trips_phases(&planes, x, [one] + axes)
                    let offsets = (0..<kernel * kernel).map { $0 / kernel * places + $0 % kernel }
                    for row in 0..<rows {
                        var line = [Float](repeating: 7, count: width)
                        trips_convolve(
                            &line, width, Array(planes[(row * places)...]), offsets, w, kernel * kernel, [0.5], 1, width, 0, 1)
                        convolved += line
                    }
                    #expect(y == convolved + [7], "\(name(path)) \(rows) \(width) \(before)")
                }
            }
        }
    }

    /// Against the reference, whose exponentials are the C library's: within some ulps of numbers up to 10.
    @Test func finishingsMatchTheReference() {
        var random = Generator(state: 13)
        func line(_ slope: Float, _ offset: Float, _ low: Float, _ high: Float, _ gated: Bool = false) -> trips_finishing {
            trips_finishing(
                activation: TRIPS_ACTIVATION_NONE, slope: slope, offset: offset, low: low, high: high, gated: gated,
                residual_first: false)
        }
        func curve(_ activation: trips_activation, _ gated: Bool) -> trips_finishing {
            trips_finishing(activation: activation, slope: 1, offset: 0, low: 0, high: 0, gated: gated, residual_first: false)
        }
        let all = [
            line(1, 0, -.infinity, .infinity), line(1, 0, 0, 6), line(1 / 6, 0.5, 0, 1, true), curve(TRIPS_ACTIVATION_RELU, false),
            curve(TRIPS_ACTIVATION_SIGMOID, true), curve(TRIPS_ACTIVATION_GELU_ERF, false),
        ]
        // Rows with and without a gap behind them.
        for (rows, n, gaps) in [
            (3, 7, [2, 2, 2]), (2, 16, [0, 0, 0]), (4, 33, [3, 3, 3]), (5, 5, [0, 0, 0]), (0, 4, [0, 0, 0]), (2, 0, [1, 1, 1]),
            (3, 9, [1, 0, 0]), (3, 9, [0, 2, 0]), (3, 9, [0, 0, 3]),
        ] {
            let (ldx, ldy, ldr) = (n + gaps[0], n + gaps[1], n + gaps[2])
            var x = random.floats(rows * ldx, scale: 9)
            if !x.isEmpty { x[0] = .nan }
            let residual = random.floats(rows * ldr), untouched = [Float](repeating: 7, count: rows * ldy)
            for var finishing in all {
                for (addend, first) in [(nil, false), (residual, false), (residual, true)] as [([Float]?, Bool)] {
                    finishing.residual_first = first
                    var expected = untouched
                    trips_finish_ref(&expected, ldy, x, ldx, rows, n, addend, ldr, &finishing)
                    onEachPath { path in
                        var (y, inPlace) = (untouched, x)
                        trips_finish(&y, ldy, x, ldx, rows, n, addend, ldr, &finishing)
                        #expect(error(y, expected) < 1e-6, "\(name(path)) \(rows) \(n) \(finishing)")
                        trips_finish(&inPlace, ldx, inPlace, ldx, rows, n, addend, ldr, &finishing)
                        for row in 0..<rows {
                            let (own, apart) = (inPlace[row * ldx..<row * ldx + n], y[row * ldy..<row * ldy + n])
                            #expect(error(Array(own), Array(apart)) == 0, "\(name(path)) \(rows) \(n)")
                        }
                    }
                }
            }
        }
    }
}
