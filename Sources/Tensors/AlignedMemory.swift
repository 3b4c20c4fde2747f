import Foundation
import Support
import Synchronization

/// Memory aligned to 64 bytes, zeroed by default, with 64 spare bytes after its end, which vector loads may read.
package final class AlignedMemory: @unchecked Sendable {
    package let base: UnsafeMutableRawPointer
    package let byteCount: Int
    private let allocation: UnsafeMutableRawPointer?
    /// Of memory that is not this object's.
    private let owner: (any Sendable)?
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
        owner = nil
        self.byteCount = byteCount
        base = allocation.alignedUp(toMultipleOf: 64)
    }

    /// Memory that is only read, such as a part of a mapped file, with spare bytes after it as any.
    /// - Throws: `data` where there is none.
    init(reading bytes: UnsafeRawBufferPointer, owner: any Sendable) throws {
        guard let base = bytes.baseAddress else { throw AlignedMemory.refusal(bytes.count) }
        (allocation, self.owner) = (nil, owner)
        (self.base, byteCount) = (UnsafeMutableRawPointer(mutating: base), bytes.count)
    }

    deinit { free(allocation) }

    /// Linux overcommits: larger allocations succeed and the process is killed when they are touched.
    private static let largest = Int(clamping: ProcessInfo.processInfo.physicalMemory)

    /// Checks that the machine has so much memory.
    /// - Throws: `data` where the machine does not have it.
    package static func check(_ byteCount: Int) throws {
        guard 0...largest ~= byteCount else { throw refusal(byteCount) }
    }

    private static func refusal(_ byteCount: Int) -> TripsError { .data("memory for \(byteCount) bytes was refused") }
}

/// Pages of blocks that are filled right after they are made, such as a model's weights.
extension AlignedMemory {
    private enum Pages: UInt8, AtomicRepresentable { case small, huge }

    /// CPU-time budget for pre-faulting, in nanoseconds; huge pages are given up once it is spent. Faulting in a huge page takes a
    /// sixth of the time of the small pages that it replaces; but ten times as long in a virtual machine whose host has reclaimed
    /// the free memory.
    private static let prefaultBudget = Atomic(10_000_000)

    /// Approximate rate of faulting in small pages.
    private static let bytesPerNanosecond = 4

    /// For smaller blocks the system calls cost more than they save.
    private var hasManyPages: Bool { byteCount > 4 << 20 }

    /// Asks for huge pages for a block that is about to be filled, unless the budget is spent. They are also faster to read.
    package func preferHugePages() {
        guard hasManyPages, AlignedMemory.prefaultBudget.load(ordering: .relaxed) > 0 else { return }
        pages.store(.huge, ordering: .relaxed)
        bytes.advise(.hugePages)
    }

    /// Pre-faults a part that is about to be written: one madvise costs less than a fault per page.
    package func prefault(_ part: UnsafeMutableRawBufferPointer) {
        guard hasManyPages else { return }
        let start = threadTime()
        // Pages at the ends of a part, and all of them where Linux is older than the advice, are faulted in when they are touched.
        part.advise(.populateForWriting)
        let left = AlignedMemory.prefaultBudget.wrappingAdd(
            part.count / AlignedMemory.bytesPerNanosecond - (threadTime() - start), ordering: .relaxed
        ).newValue
        guard left <= 0 else { return }
        if pages.exchange(.small, ordering: .relaxed) == .huge { bytes.advise(.noHugePages) }
    }

    /// Lets khugepaged collapse the written pages into huge ones in the background.
    package func collapseIntoHugePages() {
        if hasManyPages { bytes.advise(.hugePages) }
    }

    /// CPU time of this thread in nanoseconds: other load on the machine does not count.
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
