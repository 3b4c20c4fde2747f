/// Places buffers with known lifetimes in one block of memory, so that those alive at the same time do not overlap.
package struct ArenaLayout {
    /// A buffer that is needed from step `first` to step `last`, both included.
    package struct Buffer {
        package let byteCount: Int
        package let first: Int
        package var last: Int

        package init(byteCount: Int, first: Int, last: Int) {
            self.byteCount = byteCount
            self.first = first
            self.last = last
        }
    }

    /// Offsets in bytes, one for each buffer, multiples of 64.
    package private(set) var offsets: [Int]
    package private(set) var byteCount = 0

    /// Places the largest first, each as low as it fits.
    ///
    /// - Complexity: O(n²) in the number of buffers.
    package init(_ buffers: [Buffer]) {
        offsets = Array(repeating: 0, count: buffers.count)
        var placed: [Int] = []
        for index in buffers.indices.sorted(by: { (buffers[$0].byteCount, $1) > (buffers[$1].byteCount, $0) }) {
            let buffer = buffers[index]
            let size = buffer.byteCount.inWholeCacheLines
            let neighbours = placed.filter { buffers[$0].first <= buffer.last && buffer.first <= buffers[$0].last }
                .sorted { offsets[$0] < offsets[$1] }
            var offset = 0
            for neighbour in neighbours {
                if offsets[neighbour] - offset >= size { break }
                offset = max(offset, offsets[neighbour] + buffers[neighbour].byteCount.inWholeCacheLines)
            }
            offsets[index] = offset
            byteCount = max(byteCount, offset + size)
            placed.append(index)
        }
    }
}
