import Support
import Testing

import Runtime

@Suite struct ArenaLayoutTests {
    @Test func buffersThatLiveTogetherDoNotOverlap() {
        var generator = SplitMix64(state: 7)
        for _ in 0..<50 {
            let buffers = (0..<40).map { _ in
                let first = Int(generator.next() % 30)
                return ArenaLayout.Buffer(
                    byteCount: Int(generator.next() % 5000), first: first, last: first + Int(generator.next() % 8))
            }
            let layout = ArenaLayout(buffers)
            for (i, a) in buffers.enumerated() {
                #expect(layout.offsets[i] % 64 == 0 && layout.offsets[i] + a.byteCount <= layout.byteCount)
                for (j, b) in buffers.enumerated() where i < j && a.first <= b.last && b.first <= a.last {
                    #expect(layout.offsets[i] + a.byteCount <= layout.offsets[j] || layout.offsets[j] + b.byteCount <= layout.offsets[i])
                }
            }
        }
    }

    @Test func memoryIsUsedAgain() {
        let chain = (0..<10).map { ArenaLayout.Buffer(byteCount: 640, first: $0, last: $0 + 1) }
        #expect(ArenaLayout(chain).byteCount == 2 * 640)
    }
}
