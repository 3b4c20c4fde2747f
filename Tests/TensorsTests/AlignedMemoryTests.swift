import Tensors
import Testing

@Suite struct AlignedMemoryTests {
    /// Parts that begin and end inside pages, one of them twice.
    @Test(arguments: [1 << 20, (9 << 20) + 5]) func broughtInPagesAreZeroAndKeepWhatIsWritten(byteCount: Int) throws {
        let memory = try AlignedMemory(byteCount: byteCount)
        memory.preferHugePages()
        for part in [0..<700_001, 700_001..<byteCount, 0..<700_001, 3..<3] {
            let bytes = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[part])
            memory.prefault(bytes)
            let isWritten = bytes.first == 7
            #expect(bytes.allSatisfy { $0 == (isWritten ? 7 : 0) })
            for index in bytes.indices { bytes[index] = 7 }
        }
        memory.collapseIntoHugePages()
        #expect(memory.bytes.allSatisfy { $0 == 7 })
    }
}
