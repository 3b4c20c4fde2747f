import Support
import Testing

@Suite struct ByteCursorTests {
    @Test func readsLittleEndianFields() throws {
        var bytes: [UInt8] = [7]
        bytes.append(littleEndian: UInt16(0x0102))
        bytes.append(littleEndian: UInt32(0x0304_0506))
        bytes.append(littleEndian: UInt64.max - 1)
        #expect(bytes.prefix(7) == [7, 2, 1, 6, 5, 4, 3])
        var cursor = ByteCursor(bytes)
        #expect(try cursor.integer(UInt8.self) == 7 && cursor.integer(UInt16.self) == 0x0102)
        #expect(try cursor.integer(UInt32.self) == 0x0304_0506 && cursor.integer(UInt64.self) == .max - 1)
        #expect(cursor.remaining == 0)
    }

    @Test func neverReadsBeyondTheEnd() throws {
        var cursor = ByteCursor([1, 2, 3])
        #expect(throws: TripsError.self) { try cursor.integer(UInt32.self) }
        #expect(throws: TripsError.self) { try cursor.take(4) }
        #expect(throws: TripsError.self) { try cursor.take(-1) }
        #expect(try cursor.take(3) == [1, 2, 3])
        #expect(throws: TripsError.self) { try cursor.integer(UInt8.self) }
    }
}
