import Foundation
import Support
import Testing

@Test func theLargestAreKeptAndOfEqualOnesTheEarlier() {
    func largest(_ count: Int, _ numbers: [Double]) -> [Int] {
        var kept: [(place: Int, number: Double)] = []
        for (place, number) in numbers.enumerated() { kept.insert((place, number), amongLargest: count) { $0.number } }
        return kept.map(\.place)
    }
    #expect(largest(2, [1, 3, 2]) == [1, 2] && largest(3, [2, 1, 2, 2]) == [0, 2, 3] && largest(1, [2, 2]) == [0])
    #expect(largest(5, [1, 2]) == [1, 0] && largest(0, [1, 2]).isEmpty && largest(2, []).isEmpty)
    #expect(largest(2, [1, 2, .nan]) == [1, 0])
}

@Suite struct TextTests {
    @Test func errorsSayTheSameToFoundation() {
        let error = TripsError.data("size of a picture", at: "a.png", found: 0, expected: "1 or more")
        #expect((error as any Error).localizedDescription == "a.png: size of a picture; found 0; expected 1 or more")
    }

    @Test func namesGiveNoCommandsToATerminal() {
        let shown = "a\u{FFFD}[31mb"
        #expect(printable("a\u{1B}[31mb") == shown && printable("é\n中 👍\u{200D}") == "é\n中 👍\u{200D}")
        #expect(printable("\0\t\u{7F}\u{9B}\u{202E}\u{2066}\r\n") == String(repeating: "\u{FFFD}", count: 7) + "\n")
        #expect(TripsError.data("no tensor", found: "a\u{1B}[31mb").description == "no tensor; found \(shown)")
        var table = TextTable([("name", .left), ("verdict", .left)])
        table.add(["a\nPASS", "fail"])
        #expect(table.text == "name    verdict\na\u{FFFD}PASS  fail")
    }

    /// Marks in a row take a time that grows with the square of their number wherever text is compared.
    @Test func textOfFilesHasNoEndlessMarks() throws {
        func marks(_ count: Int) -> String { String(repeating: "\u{301}\u{316}", count: count / 2) }
        #expect(String(untrusted: "é\(marks(30))a\(marks(30))".utf8) == "é\(marks(30))a\(marks(30))")
        #expect(String(untrusted: "a\(marks(32))".utf8) == nil && String(untrusted: [0x61, 0xFF]) == nil)
        #expect { try JSON(parsing: Array("{\"a\(marks(100_000))\": 1}".utf8)) } throws: {
            "\($0)".contains("at most 30 combining marks in a row")
        }
    }

    @Test func errorsOfAnotherKindSayTheSame() {
        let error = TripsError.usage("shape", at: "x", found: 1, expected: 2).inside("a.npz")
        #expect(error.asKind(.data) == TripsError.data("shape", at: "x", found: 1, expected: 2).inside("a.npz"))
    }

    @Test func namesThatAreTakenGetTheNextNumber() {
        var names = UniqueNames(separator: "#", taken: ["a", "a#3"])
        #expect((0..<3).map { _ in names.unique("a") } == ["a#2", "a#4", "a#5"])
        #expect(names.take("b") && !names.take("b") && !names.take("a#4"))
        #expect(names.unique("b") == "b#2" && names.unique("c") == "c")
    }

    /// In time that grows with their number, not with its square.
    @Test func manyOfOneNameAreTold() {
        var names = UniqueNames(separator: ".")
        for _ in 1..<200_000 { _ = names.unique("x") }
        #expect(names.unique("x") == "x.200000")
    }

    /// Three digits, and never 1000 of a unit.
    @Test func bytesAreWrittenShort() {
        let texts = [0, 999, 1000, 9994, 9995, 99_950, 999_499, 999_500, 1_500_000_000].map(byteText)
        #expect(texts == ["0 B", "999 B", "1.00 kB", "9.99 kB", "10.0 kB", "100 kB", "999 kB", "1.00 MB", "1.50 GB"])
    }

    @Test func aLongCellIsCutAndWidensNoOther() {
        var table = TextTable([("name", .left), ("bytes", .right)])
        table.add([String(repeating: "n", count: 1 << 20), "1"])
        table.add(["short", "2"])
        let lines = table.text.split(separator: "\n")
        #expect(lines.count == 3 && lines.allSatisfy { $0.count == 200 + 2 + 5 })
        #expect(lines[1].contains("n…") && lines[2].hasPrefix("short "))
    }
}
