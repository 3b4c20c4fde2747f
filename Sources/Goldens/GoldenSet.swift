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
    /// The set's metadata.
    public var metadata: GoldenMetadata
    /// Keys of the file whose tensors were not asked for.
    public private(set) var unread: [GoldenKey] = []

    /// A set made in memory.
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
    /// - Parameters:
    ///   - parts: all that the file holds.
    ///   - needs: whether to load the tensor of a key.
    init<Part>(
        name: String, keyed parts: [(key: String, part: Part)], metadata: GoldenMetadata, needing needs: (GoldenKey) -> Bool,
        load: (Part) throws -> Tensor
    ) throws {
        self.init(name: name, metadata: metadata)
        let keyed = parts.compactMap { part in GoldenKey(part.key).map { (key: $0, part: part.part) } }
        guard keyed.contains(where: { $0.key.inputName != nil }) else {
            throw TripsError.data(
                "a golden set without inputs", at: name, found: parts.first.map { "keys such as \($0.key)" } ?? "no tensors",
                expected: "in.NAME, out.NAME, mid.NAME")
        }
        for (key, part) in keyed {
            guard needs(key) else {
                unread.append(key)
                continue
            }
            let tensor = try load(part)
            switch key {
            case .input(let name): inputs[name] = tensor
            case .output(let name): outputs[name] = tensor
            case .intermediate(let name): intermediates[name] = tensor
            }
        }
    }

    /// The inputs of one pass through the model. Candidates to rank (`answer_ids`, `answer_mask`) are no part of it where they
    /// are another number than the questions: each question is answered by all of them.
    public var passInputs: [String: Tensor] {
        let candidates: Set = ["answer_ids", "answer_mask"]
        let batches = Set(inputs.filter { !candidates.contains($0.key) }.map { $0.value.shape.first })
        return inputs.filter { name, tensor in !candidates.contains(name) || batches.isEmpty || batches.contains(tensor.shape.first)
        }
    }
}

/// Rethrows `usage` errors of `body` as `data`: the inputs come from a file.
package func asDataErrors<Result>(_ body: () throws -> Result) throws -> Result {
    do {
        return try body()
    } catch let error as TripsError where error.kind == .usage {
        throw error.asKind(.data)
    }
}

/// The metadata of a golden set: free text by key.
public struct GoldenMetadata: Sendable, Equatable {
    /// All of it, by key.
    public var values: [String: String]

    /// Metadata of these texts.
    public init(_ values: [String: String] = [:]) { self.values = values }

    /// Members of a JSON object: texts, numbers and booleans as text, lists of them joined by commas; others are ignored.
    init(_ json: JSON) {
        values = [:]
        for member in json.members ?? [] { values[member.key] = GoldenMetadata.text(member.value) }
    }

    /// The text under a key; nil where there is none.
    public subscript(key: String) -> String? { values[key] }

    /// The whole number under a key.
    /// - Throws: `data` where it is something else.
    public func integer(_ key: String) throws -> Int? {
        guard let text = values[key] else { return nil }
        guard let number = Int(text) else {
            throw TripsError.data("golden metadata \"\(key)\"", found: text, expected: "a whole number")
        }
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
