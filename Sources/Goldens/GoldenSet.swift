import Support
import Tensors

/// Reference inputs and outputs of a model: what it is given, and what it must answer.
public struct GoldenSet: Sendable {
    /// The file or folder that it came from, without its folders.
    public let name: String
    /// By input name.
    public var inputs: [String: Tensor]
    /// By output name.
    public var outputs: [String: Tensor]
    /// By canonical name, such as `vision.3` or `selection.5.indices`.
    public var intermediates: [String: Tensor]
    public var metadata: GoldenMetadata

    public init(
        name: String, inputs: [String: Tensor] = [:], outputs: [String: Tensor] = [:],
        intermediates: [String: Tensor] = [:], metadata: GoldenMetadata = GoldenMetadata()
    ) {
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
        self.intermediates = intermediates
        self.metadata = metadata
    }

    /// A set from tensors under the keys `in.NAME`, `out.NAME` and `mid.NAME`; other keys are ignored.
    init(name: String, keyed tensors: [(key: String, tensor: Tensor)], metadata: GoldenMetadata) throws {
        self.init(name: name, metadata: metadata)
        for (key, tensor) in tensors {
            let rest = { (prefix: String) in key.hasPrefix(prefix) ? String(key.dropFirst(prefix.count)) : nil }
            if let input = rest("in.") { inputs[input] = tensor }
            if let output = rest("out.") { outputs[output] = tensor }
            if let intermediate = rest("mid.") { intermediates[intermediate] = tensor }
        }
        guard !inputs.isEmpty else {
            throw TripsError.data(
                "a golden set without inputs", at: name, found: tensors.isEmpty ? "no tensors" : "keys such as \(tensors[0].key)",
                expected: "in.NAME, out.NAME, mid.NAME")
        }
    }
}

/// What a golden set tells about itself: free text by key.
public struct GoldenMetadata: Sendable, Equatable {
    public var values: [String: String]

    public init(_ values: [String: String] = [:]) { self.values = values }

    /// Members of a JSON object: texts, numbers and booleans as text, lists of them joined by commas; others are ignored.
    init(_ json: JSON) {
        values = [:]
        for member in json.members ?? [] { values[member.key] = GoldenMetadata.text(member.value) }
    }

    public subscript(key: String) -> String? { values[key] }

    /// The whole number under a key.
    /// - Throws: `data` where it is something else.
    public func integer(_ key: String) throws -> Int? {
        guard let text = values[key] else { return nil }
        guard let number = Int(text) else { throw TripsError.data("golden metadata \"\(key)\"", found: text, expected: "a whole number") }
        return number
    }

    /// The number under a key.
    /// - Throws: `data` where it is something else, or not finite.
    public func number(_ key: String) throws -> Double? {
        guard let text = values[key] else { return nil }
        guard let number = Double(text), number.isFinite else {
            throw TripsError.data("golden metadata \"\(key)\"", found: text, expected: "a number")
        }
        return number
    }

    private static func text(_ json: JSON) -> String? {
        switch json {
        case .string(let text): text
        case .integer(let number): "\(number)"
        case .number(let number): "\(number)"
        case .bool(let value): "\(value)"
        case .array(let elements): elements.compactMap(text).joined(separator: ",")
        case .null, .object: nil
        }
    }
}
