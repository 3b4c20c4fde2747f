extension String {
    /// Text of a file, whose names become keys: comparing and hashing text takes a time that grows with the square of the
    /// combining marks in a row. Nil where it is not of `untrustedForm`.
    package init?(untrusted bytes: some Sequence<UInt8>) {
        guard let text = String(validating: bytes, as: UTF8.self), text.hasShortRunsOfMarks else { return nil }
        self = text
    }

    /// What text of files must be, for messages.
    package static let untrustedForm = "UTF-8 with at most \(Unicode.Scalar.marksInARow) combining marks in a row"

    private var hasShortRunsOfMarks: Bool {
        var marks = 0
        return unicodeScalars.allSatisfy { scalar in
            marks = scalar.isCombiningMark ? marks + 1 : 0
            return marks <= Unicode.Scalar.marksInARow
        }
    }
}

extension Unicode.Scalar {
    /// The limit of Unicode's Stream-Safe Text Format (UAX #15), far beyond what any language writes.
    package static let marksInARow = 30

    /// Whether normalizing text may change its place among its neighbours.
    package var isCombiningMark: Bool { value >= 0x300 && properties.canonicalCombiningClass != .notReordered }
}
