import Kernels
import PackageFormat
import Support
import TestSupport
import Testing

@Suite struct ChecksumTests {
    @Test func crcOfTheCheckString() {
        #expect(crc32(Array("123456789".utf8)) == 0xCBF4_3926)
        #expect(crc32([]) == 0)
    }

    /// All paths, at all lengths around the blocks of the fast ones, at odd addresses, and continued.
    @Test func bothPathsOfCRCAgree() {
        var random = SplitMix64(state: 1)
        let bytes = (0..<5000).map { _ in UInt8(random.next() >> 56) }
        bytes.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            for count in Array(0...300) + Array(508...580) + [767, 768, 1023, 1024, 1100, 4096, 4097, 4990] {
                let start = base + count % 9
                let whole = trips_crc32_ref(0, start, count)
                #expect(trips_crc32(0, start, count) == whole)
                let half = count / 2
                #expect(trips_crc32(trips_crc32(0, start, half), start + half, count - half) == whole)
            }
        }
    }

    private func digest(_ pieces: [[UInt8]]) -> String {
        var hash = trips_sha256()
        trips_sha256_init(&hash)
        for piece in pieces { trips_sha256_update(&hash, piece, piece.count) }
        var digest = [UInt8](repeating: 0, count: 32)
        trips_sha256_final(&hash, &digest)
        return digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// Digests of FIPS 180-4's examples.
    @Test func shaOfTheStandardsExamples() {
        #expect(digest([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        #expect(digest([Array("abc".utf8)]) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        let long = Array("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".utf8)
        #expect(digest([long]) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
        let million = [UInt8](repeating: UInt8(ascii: "a"), count: 1_000_000)
        #expect(digest([million]) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
        #expect(
            digest(stride(from: 0, to: 1_000_000, by: 999).map { Array(million[$0..<min($0 + 999, 1_000_000)]) })
                == digest([million]))
    }

    @Test func bothPathsOfSHAAgree() {
        var random = SplitMix64(state: 2)
        let bytes = (0..<6400).map { _ in UInt8(random.next() >> 56) }
        for blocks in [0, 1, 2, 100] {
            var (fast, reference): ([UInt32], [UInt32]) = (Array(1...8), Array(1...8))
            trips_sha256_blocks(&fast, bytes, blocks)
            trips_sha256_blocks_ref(&reference, bytes, blocks)
            #expect(fast == reference)
        }
    }

    @Test func filesAreHashedInPieces() throws {
        let folder = try TemporaryFolder()
        let bytes = [UInt8](repeating: 5, count: (1 << 20) + 77)
        try folder.write(bytes, "a")
        #expect(try SHA256.hexadecimalDigest(of: ReadableFile(path: folder["a"])) == digest([bytes]))
    }
}
