import Foundation

/// A file's bytes, mapped for reading: processes that map one file share its pages.
///
/// The file must stay as it is until the last reference goes. To replace it by renaming is harmless; if it is truncated in place,
/// Linux ends the process (SIGBUS) where it reads what is no longer there.
package final class MappedFile: @unchecked Sendable {
    package let bytes: UnsafeRawBufferPointer

    /// - Throws: `inputOutput` where the system refuses it.
    package init(_ file: ReadableFile) throws {
        guard file.size > 0, let base = mmap(nil, file.size, PROT_READ, MAP_PRIVATE, file.descriptor, 0), base != MAP_FAILED else {
            throw TripsError(.inputOutput, "cannot be mapped: \(String(cString: strerror(errno)))", at: file.name)
        }
        bytes = UnsafeRawBufferPointer(start: base, count: file.size)
    }

    deinit { munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count) }
}
