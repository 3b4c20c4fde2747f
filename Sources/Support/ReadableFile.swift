import Foundation

/// A regular file, open for reading at any place; it closes when the last reference goes.
///
/// Reading a file that another process truncates gives an error; what is mapped of it (`MappedFile`) ends the process.
package final class ReadableFile: Sendable {
    package let path: String
    /// Size in bytes when the file was opened.
    package let size: Int
    let descriptor: Int32

    /// Opens a regular file.
    /// - Throws: `TripsError` of kind `cannotOpen`, also for folders, pipes and devices.
    package init(path: String) throws {
        // O_NONBLOCK: opening a named pipe must not wait for its writer.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw TripsError(.cannotOpen, "cannot be opened: \(String(cString: strerror(errno)))", at: path)
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw TripsError(.cannotOpen, "not a regular file", at: path)
        }
        self.path = path
        self.descriptor = descriptor
        size = Int(status.st_size)
    }

    deinit { close(descriptor) }

    /// The file's name without its folders, for messages.
    package var name: String { fileName(of: path) }

    /// Fills `buffer` with the bytes from `offset` on.
    /// - Throws: `data` where the file ends before that, `inputOutput` where reading fails.
    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws {
        guard let base = buffer.baseAddress else { return }
        var done = 0
        while done < buffer.count {
            let (position, overflow) = offset.addingReportingOverflow(done)
            guard offset >= 0, !overflow else {
                throw TripsError.data("read beyond the end", at: name, found: "offset \(offset)", expected: "at most \(size)")
            }
            let count = pread(descriptor, base + done, buffer.count - done, position)
            if count < 0 {
                if errno == EINTR { continue }
                throw TripsError(.inputOutput, "reading failed: \(String(cString: strerror(errno)))", at: name)
            }
            guard count > 0 else {
                throw TripsError.data(
                    "the file ends too early", at: name, found: "\(position) bytes", expected: "\(offset) + \(buffer.count)")
            }
            done += count
        }
    }

    /// The whole file, such as a list of words.
    /// - Parameter kind: names what it should be, in the error.
    /// - Throws: `data` where it is not of `String.untrustedForm`, or larger than 16 MiB.
    package func text(of kind: String) throws -> String {
        guard size <= 16 << 20, let text = String(untrusted: try bytes(at: 0, count: size)) else {
            throw TripsError.data(kind, at: name, found: "\(size) bytes", expected: "\(String.untrustedForm), at most 16 MiB")
        }
        return text
    }

    /// The `count` bytes from `offset` on.
    package func bytes(at offset: Int, count: Int) throws -> [UInt8] {
        guard offset >= 0, count >= 0, offset <= size, count <= size - offset else {
            throw TripsError.data(
                "read beyond the end", at: name, found: "\(count) bytes at \(offset)", expected: "within \(size) bytes")
        }
        return try [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            try read(into: UnsafeMutableRawBufferPointer(buffer), at: offset)
            initialized = count
        }
    }
}
