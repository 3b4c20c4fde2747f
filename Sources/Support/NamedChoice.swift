/// One of a few values that packages hold by name.
public protocol NamedChoice: RawRepresentable, CaseIterable, Codable where RawValue == String {}

extension NamedChoice {
    /// - Throws: `data` for a name that is none of theirs.
    public init(from decoder: any Decoder) throws {
        let name = try decoder.singleValueContainer().decode(String.self)
        guard let choice = Self(rawValue: name) else {
            throw TripsError.data(
                "unknown choice", at: decoder.codingPath.place, found: "\"\(name.prefix(60))\"",
                expected: Self.allCases.map(\.rawValue).joined(separator: ", "))
        }
        self = choice
    }
}

extension [any CodingKey] {
    /// The path in a document as the place of an error, such as `graphs.0.nodes.7`.
    package var place: String { map { $0.intValue.map(String.init) ?? $0.stringValue }.joined(separator: ".") }
}
