import Kernels
import Support
import Tensors

/// SHA-256 of files, as packages name their sources.
package enum SHA256 {
    /// The digest of a file in lowercase hexadecimal digits. It reads at most 1 MB at a time.
    /// - Throws: what reading throws.
    package static func hexadecimalDigest(of file: ReadableFile) throws -> String {
        let memory = try AlignedMemory(byteCount: 1 << 20)
        return try withExtendedLifetime(memory) {
            try hexadecimalDigest { update in
                for offset in stride(from: 0, to: file.size, by: memory.byteCount) {
                    let part = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<min(memory.byteCount, file.size - offset)])
                    try file.read(into: part, at: offset)
                    update(UnsafeRawBufferPointer(part))
                }
            }
        }
    }

    /// One digest for a model in several files: that of their digests, each a line of hexadecimal digits, in order.
    /// That of one file is its own.
    /// - Throws: what opening and reading throw.
    package static func hexadecimalDigest(ofFilesAt paths: [String]) throws -> String {
        let digests = try paths.map { try hexadecimalDigest(of: ReadableFile(path: $0)) }
        if digests.count == 1 { return digests[0] }
        let lines = Array(digests.map { $0 + "\n" }.joined().utf8)
        return hexadecimalDigest { update in lines.withUnsafeBytes { update($0) } }
    }

    private static func hexadecimalDigest(of feed: ((UnsafeRawBufferPointer) -> Void) throws -> Void) rethrows -> String {
        var hash = trips_sha256()
        trips_sha256_init(&hash)
        try feed { bytes in
            if let base = bytes.baseAddress { trips_sha256_update(&hash, base, bytes.count) }
        }
        return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 32) { digest in
            digest.initialize(repeating: 0)
            if let base = digest.baseAddress { trips_sha256_final(&hash, base) }
            return digest.map { hexadecimal($0) }.joined()
        }
    }
}
