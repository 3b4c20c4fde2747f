import Foundation

/// The one error type of the library: what went wrong, where, what was found there and what should have been.
public struct TripsError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What kind of failure it is; the tools turn it into their exit code.
    public enum Kind: Int32, Sendable {
        /// A request that does not suit the model, or a value out of range (exit code 64).
        case usage = 64
        /// Malformed, truncated or unsupported input data (65).
        case data = 65
        /// Input that cannot be opened (66).
        case cannotOpen = 66
        /// Output that cannot be created (73).
        case cannotCreate = 73
        /// Input or output that failed part-way (74).
        case inputOutput = 74
    }

    /// What kind of failure it is.
    public private(set) var kind: Kind
    /// What went wrong, as a sentence without full stop.
    public let message: String
    /// Where: from the file inwards, such as `model.onnx: node /blocks.3/MatMul`.
    public private(set) var place: [String]
    /// What was found there; nil where the message says it.
    public let found: String?
    /// What should have been there, or what values are allowed; nil where the message says it.
    public let expected: String?

    /// - Parameters:
    ///   - message: a sentence without full stop.
    ///   - place: the innermost place; callers add those around it by `inside`.
    public init(
        _ kind: Kind, _ message: String, at place: String? = nil, found: (any CustomStringConvertible)? = nil,
        expected: (any CustomStringConvertible)? = nil
    ) {
        self.kind = kind
        self.message = message
        self.place = place.map { [$0] } ?? []
        self.found = found?.description
        self.expected = expected?.description
    }

    /// Malformed or unsupported input data.
    public static func data(
        _ message: String, at place: String? = nil, found: (any CustomStringConvertible)? = nil,
        expected: (any CustomStringConvertible)? = nil
    ) -> TripsError {
        TripsError(.data, message, at: place, found: found, expected: expected)
    }

    /// A request that does not suit the model, or a value out of range.
    public static func usage(
        _ message: String, at place: String? = nil, found: (any CustomStringConvertible)? = nil,
        expected: (any CustomStringConvertible)? = nil
    ) -> TripsError {
        TripsError(.usage, message, at: place, found: found, expected: expected)
    }

    /// The same error, seen from one level further out.
    public func inside(_ outerPlace: String) -> TripsError {
        var error = self
        error.place.insert(outerPlace, at: 0)
        return error
    }

    /// The same error as one of another kind: a caller may know better whose fault it is.
    package func asKind(_ kind: Kind) -> TripsError {
        var error = self
        error.kind = kind
        return error
    }

    /// Place, message, what was found and what was expected, in one line.
    public var description: String {
        var text = place.isEmpty ? "" : place.joined(separator: ": ") + ": "
        text += message
        if let found { text += "; found \(found)" }
        if let expected { text += "; expected \(expected)" }
        return printable(text)
    }
}

extension TripsError: LocalizedError {
    /// The same as `description`.
    public var errorDescription: String? { description }
}

/// Runs `body`; an error of ours that leaves it names `place` as well.
package func locating<Result>(_ place: @autoclosure () -> String, _ body: () throws -> Result) throws -> Result {
    do {
        return try body()
    } catch let error as TripsError {
        throw error.inside(place())
    }
}
