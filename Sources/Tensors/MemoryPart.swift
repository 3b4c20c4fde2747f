import Support

/// A part of a block of memory, which lives as long as one of its parts.
package struct MemoryPart: Sendable {
    package let block: AlignedMemory
    private let range: Range<Int>
    package var bytes: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(rebasing: block.bytes[range]) }

    package init(byteCount: Int) throws {
        block = try AlignedMemory(byteCount: byteCount)
        range = 0..<byteCount
    }

    private init(_ block: AlignedMemory, _ range: Range<Int>) {
        self.block = block
        self.range = range
    }

    /// Parts of one block, each at a 64-byte boundary, so that a huge page holds several.
    package static func parts(_ byteCounts: [Int]) throws -> [MemoryPart] {
        var starts: [Int] = [], end = 0
        for count in byteCounts {
            starts.append(end)
            let (next, overflow) = end.addingReportingOverflow(count)
            guard !overflow, next <= Int.max - 63 else {
                throw TripsError.data("memory for \(byteCounts.count) weights was refused")
            }
            end = next.inWholeCacheLines
        }
        let block = try AlignedMemory(byteCount: end)
        block.preferHugePages()
        return zip(starts, byteCounts).map { MemoryPart(block, $0..<$0 + $1) }
    }
}
