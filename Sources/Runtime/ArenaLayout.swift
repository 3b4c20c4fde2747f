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
    /// - Complexity: O(n log² n) in the number of buffers, times the gaps between those that live at the same time.
    package init(_ buffers: [Buffer]) {
        offsets = Array(repeating: 0, count: buffers.count)
        let used = buffers.indices.filter { buffers[$0].byteCount > 0 }
        guard let start = used.map({ buffers[$0].first }).min(), let end = used.map({ buffers[$0].last }).max() else { return }
        var occupancy = Occupancy(steps: end - start + 1)
        for index in used.sorted(by: { (buffers[$0].byteCount, $1) > (buffers[$1].byteCount, $0) }) {
            let steps = buffers[index].first - start...buffers[index].last - start
            let place = occupancy.lowestPlace(for: buffers[index].byteCount.inWholeCacheLines, during: steps)
            occupancy.occupy(place, during: steps)
            offsets[index] = place.lowerBound
            byteCount = max(byteCount, place.upperBound)
        }
    }
}

/// Which bytes are occupied at which steps: a segment tree over the steps.
private struct Occupancy {
    /// For each node of the tree the bytes that a buffer occupies during all of its steps. Node 1 is the root, the children of i
    /// are 2i and 2i + 1, and the leaves are the steps.
    private var throughout: [ByteRanges]
    /// For each node the bytes that are occupied at any of its steps.
    private var anytime: [ByteRanges]
    private let leaves: Int

    init(steps: Int) {
        var leaves = 1
        while leaves < steps { leaves *= 2 }
        self.leaves = leaves
        throughout = Array(repeating: ByteRanges(), count: 2 * leaves)
        anytime = throughout
    }

    /// The lowest bytes that are free at all of these steps.
    func lowestPlace(for size: Int, during steps: ClosedRange<Int>) -> Range<Int> {
        let occupied = nodes(within: steps).map { anytime[$0] } + nodes(above: steps).map { throughout[$0] }
        let lists = occupied.filter { !$0.isEmpty }
        var offset = 0
        while let end = lists.lazy.compactMap({ $0.end(meeting: offset..<offset + size) }).first { offset = end }
        return offset..<offset + size
    }

    mutating func occupy(_ bytes: Range<Int>, during steps: ClosedRange<Int>) {
        for node in nodes(within: steps) {
            throughout[node].insert(bytes)
            anytime[node].insert(bytes)
        }
        for node in nodes(above: steps) { anytime[node].insert(bytes) }
    }

    /// The nodes, as few as possible, that make up these steps.
    private func nodes(within steps: ClosedRange<Int>) -> [Int] {
        var (low, high) = (steps.lowerBound + leaves, steps.upperBound + leaves + 1)
        var nodes: [Int] = []
        while low < high {
            if low % 2 == 1 {
                nodes.append(low)
                low += 1
            }
            if high % 2 == 1 {
                high -= 1
                nodes.append(high)
            }
            (low, high) = (low / 2, high / 2)
        }
        return nodes
    }

    /// The nodes that hold the first or the last of these steps. Those that hold others but not all of them are among these.
    private func nodes(above steps: ClosedRange<Int>) -> [Int] {
        var (low, high) = (steps.lowerBound + leaves, steps.upperBound + leaves)
        var nodes: [Int] = []
        while low >= 1 {
            nodes.append(low)
            if high != low { nodes.append(high) }
            (low, high) = (low / 2, high / 2)
        }
        return nodes
    }
}

/// A set of bytes: ranges in rising order that neither overlap nor touch.
private struct ByteRanges {
    private var ranges: [Range<Int>] = []

    var isEmpty: Bool { ranges.isEmpty }

    /// Where a range ends that overlaps `bytes`; nil where none does.
    func end(meeting bytes: Range<Int>) -> Int? {
        let index = firstIndex { $0.upperBound > bytes.lowerBound }
        guard index < ranges.count, ranges[index].lowerBound < bytes.upperBound else { return nil }
        return ranges[index].upperBound
    }

    mutating func insert(_ bytes: Range<Int>) {
        let first = firstIndex { $0.upperBound >= bytes.lowerBound }
        let end = firstIndex { $0.lowerBound > bytes.upperBound }
        let joined = ranges[first..<end].reduce(bytes) { min($0.lowerBound, $1.lowerBound)..<max($0.upperBound, $1.upperBound) }
        ranges.replaceSubrange(first..<end, with: CollectionOfOne(joined))
    }

    /// The first range for which `holds` is true, as it then is for all that follow.
    private func firstIndex(where holds: (Range<Int>) -> Bool) -> Int {
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if holds(ranges[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
