import Kernels
import Support
import Tensors

/// SHA-256 of files, as packages name their sources.
public enum SHA256 {
    /// The digest of a file in lowercase hexadecimal digits. It reads at most 1 MB at a time.
    /// - Throws: what reading throws.
    public static func hexadecimalDigest(of file: ReadableFile) throws -> String {
        var hash = trips_sha256()
        trips_sha256_init(&hash)
        let memory = try AlignedMemory(byteCount: 1 << 20)
        try withExtendedLifetime(memory) {
            for offset in stride(from: 0, to: file.size, by: memory.byteCount) {
                let part = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<min(memory.byteCount, file.size - offset)])
                try file.read(into: part, at: offset)
                if let base = part.baseAddress { trips_sha256_update(&hash, base, part.count) }
            }
        }
        return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 32) { digest in
            digest.initialize(repeating: 0)
            if let base = digest.baseAddress { trips_sha256_final(&hash, base) }
            return digest.map { hexadecimal($0) }.joined()
        }
    }
}
