import Foundation
import Support
import Synchronization

/// Memory at a 64-byte boundary, zeroed unless told otherwise, with 64 bytes to spare behind its end (vector loads may read there).
package final class AlignedMemory: @unchecked Sendable {
    package let base: UnsafeMutableRawPointer
    package let byteCount: Int
    private let allocation: UnsafeMutableRawPointer
    private let pages = Atomic(Pages.small)
    package var bytes: UnsafeMutableRawBufferPointer { .init(start: base, count: byteCount) }

    /// - Throws: `data` where that is more than the machine has, or the system refuses it.
    package init(byteCount: Int, zeroed: Bool = true) throws {
        try AlignedMemory.check(byteCount)
        // calloc: large blocks come as untouched zero pages, so nothing is written twice.
        guard let allocation = zeroed ? calloc(byteCount + 128, 1) : malloc(byteCount + 128) else {
            throw AlignedMemory.refusal(byteCount)
        }
        self.allocation = allocation
        self.byteCount = byteCount
        base = allocation.alignedUp(toMultipleOf: 64)
    }

    deinit { free(allocation) }

    /// The system hands out more memory than there is, and ends the process that uses it.
    private static let largest = Int(clamping: ProcessInfo.processInfo.physicalMemory)

    /// Finds out whether so much memory can be had at all.
    /// - Throws: `data` where the machine does not have it.
    package static func check(_ byteCount: Int) throws {
        guard 0...largest ~= byteCount else { throw refusal(byteCount) }
    }

    private static func refusal(_ byteCount: Int) -> TripsError { .data("memory for \(byteCount) bytes was refused") }
}

/// Pages of blocks that are filled right after they are made, such as a model's weights.
extension AlignedMemory {
    private enum Pages: UInt8, AtomicRepresentable { case small, large }

    /// Nanoseconds that bringing in pages may still take before large ones are given up. A large page takes a sixth of the time of
    /// the small ones in its place; but in a virtual machine that has given its free memory back to its host, ten times as long.
    private static let patience = Atomic(10_000_000)

    /// What small pages come to in a nanosecond, about.
    private static let bytesPerNanosecond = 4

    /// Smaller blocks are not worth the calls.
    private var hasManyPages: Bool { byteCount > 4 << 20 }

    /// Asks for large pages for a block that is about to be filled, unless they have proved slow to get. They are also quicker to
    /// read.
    package func preferLargePages() {
        guard hasManyPages, AlignedMemory.patience.load(ordering: .relaxed) > 0 else { return }
        pages.store(.large, ordering: .relaxed)
        bytes.advise(.hugePages)
    }

    /// Brings in the pages of a part that is about to be written: one call costs less than a fault for each.
    package func bringIn(_ part: UnsafeMutableRawBufferPointer) {
        guard hasManyPages else { return }
        let start = threadTime()
        // A kernel that does not know this advice brings pages in as they are touched, and so it does for the ends of a part.
        part.advise(.populateForWriting)
        let left = AlignedMemory.patience.wrappingAdd(
            part.count / AlignedMemory.bytesPerNanosecond - (threadTime() - start), ordering: .relaxed
        ).newValue
        guard left <= 0 else { return }
        if pages.exchange(.small, ordering: .relaxed) == .large { bytes.advise(.noHugePages) }
    }

    /// Has the kernel gather what was written into large pages, by and by.
    package func gatherIntoLargePages() {
        if hasManyPages { bytes.advise(.hugePages) }
    }

    /// Nanoseconds that this thread has worked; other load does not count.
    private func threadTime() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return time.tv_sec * 1_000_000_000 + time.tv_nsec
    }
}

/// Linux's numbers; not all headers have them.
private enum Advice: Int32 {
    /// MADV_HUGEPAGE
    case hugePages = 14
    /// MADV_NOHUGEPAGE
    case noHugePages = 15
    /// MADV_POPULATE_WRITE
    case populateForWriting = 23
}

extension UnsafeMutableRawBufferPointer {
    /// Advises the kernel about all pages that lie inside.
    fileprivate func advise(_ advice: Advice) {
        let page = UInt(getpagesize())
        let start = (UInt(bitPattern: baseAddress) + page - 1) / page * page
        let end = (UInt(bitPattern: baseAddress) + UInt(count)) / page * page
        if start < end { madvise(UnsafeMutableRawPointer(bitPattern: start), Int(end - start), advice.rawValue) }
    }
}
