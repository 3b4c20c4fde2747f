import Support
import Testing

import Runtime

@Suite struct ArenaLayoutTests {
    typealias Buffer = ArenaLayout.Buffer

    /// Buffers of up to 5000 bytes that live for up to `life` of 30 steps.
    private func randomBuffers(_ generator: inout SplitMix64, count: Int, life: UInt64) -> [Buffer] {
        (0..<count).map { _ in
            let first = Int(generator.next() % 30) - 1
            return Buffer(byteCount: Int(generator.next() % 5000), first: first, last: first + Int(generator.next() % life))
        }
    }

    @Test(arguments: [1, 8, 40] as [UInt64]) func buffersThatLiveTogetherDoNotOverlap(life: UInt64) {
        var generator = SplitMix64(state: 7)
        for _ in 0..<50 {
            let buffers = randomBuffers(&generator, count: 40, life: life)
            let layout = ArenaLayout(buffers)
            for (i, a) in buffers.enumerated() {
                #expect(layout.offsets[i] % 64 == 0 && layout.offsets[i] + a.byteCount <= layout.byteCount)
                for (j, b) in buffers.enumerated() where i < j && a.first <= b.last && b.first <= a.last {
                    #expect(
                        layout.offsets[i] + a.byteCount <= layout.offsets[j] || layout.offsets[j] + b.byteCount <= layout.offsets[i]
                    )
                }
            }
        }
    }

    /// The largest first, each at the lowest place that no buffer of its time takes.
    @Test(arguments: [1, 8, 40] as [UInt64]) func eachLiesAsLowAsItFits(life: UInt64) {
        var generator = SplitMix64(state: 11)
        for _ in 0..<50 {
            let buffers = randomBuffers(&generator, count: 40, life: life).filter { $0.byteCount > 0 }
            var placed: [(buffer: Buffer, bytes: Range<Int>)] = []
            let layout = ArenaLayout(buffers)
            for index in buffers.indices.sorted(by: { (buffers[$0].byteCount, $1) > (buffers[$1].byteCount, $0) }) {
                let buffer = buffers[index]
                let taken = placed.filter { $0.buffer.first <= buffer.last && buffer.first <= $0.buffer.last }.map(\.bytes)
                let candidates = [0] + taken.map(\.upperBound).sorted()
                let lowest = candidates.first { start in !taken.contains { $0.overlaps(start..<start + buffer.byteCount) } }
                #expect(layout.offsets[index] == lowest)
                placed.append((buffer, layout.offsets[index]..<layout.offsets[index] + (buffer.byteCount + 63) / 64 * 64))
            }
        }
    }

    @Test func memoryIsUsedAgain() {
        let chain = (0..<10).map { Buffer(byteCount: 640, first: $0, last: $0 + 1) }
        #expect(ArenaLayout(chain).byteCount == 2 * 640)
    }

    @Test func emptyBuffersTakeNoMemory() {
        let layout = ArenaLayout([Buffer(byteCount: 0, first: 0, last: 3), Buffer(byteCount: 0, first: 2, last: 2)])
        #expect(layout.offsets == [0, 0] && layout.byteCount == 0)
        #expect(ArenaLayout([]).byteCount == 0)
    }

    /// More than could be compared each with all others.
    @Test(arguments: [(count: 100_000, life: 1), (count: 30_000, life: 30_000)])
    func manyBuffersFindTheirPlaces(count: Int, life: Int) {
        let buffers = (0..<count).map { Buffer(byteCount: 64, first: $0, last: $0 + life) }
        #expect(ArenaLayout(buffers).byteCount == 64 * min(life + 1, count))
    }
}
