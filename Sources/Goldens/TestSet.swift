import Foundation
import Importers
import Support
import Tensors

/// Examples of a task with their right answers, in one safetensors file (`formats/test-set.md`).
///
/// `in.NAME` [N, ...] holds the inputs of N examples and `labels` int64 [N] their answers. Where several examples share an
/// input (questions about one image), `in.NAME` [M, ...] holds each once and `index.NAME` int64 [N] says which is whose.
/// Images may be stored as pictures, uint8 [M, height, width, 3].
/// Only the rows of the examples asked for are read.
public struct TestSet: Sendable {
    /// The file's name.
    public let name: String
    /// Number of examples.
    public private(set) var count: Int
    /// The right answer of each example: the place of the largest element in the output that answers.
    public let labels: [Int]
    private let inputs: [String: Constant]
    private let indices: [String: [Int]]

    /// - Throws: `cannotOpen`; `data` where the file is malformed or its tensors do not belong together.
    public init(path: String) throws {
        let file = try SafetensorsFile(path: path)
        name = fileName(of: path)
        (labels, inputs, indices) = try locating(name) {
            var (labels, inputs, indices): ([Int]?, [String: Constant], [String: [Int]]) = (nil, [:], [:])
            for (key, constant) in file.tensors {
                if key == "labels" { labels = try numbers(constant, key) }
                if key.hasPrefix("index.") { indices[String(key.dropFirst("index.".count))] = try numbers(constant, key) }
                if let name = GoldenKey(key)?.inputName { inputs[name] = constant }
            }
            guard let labels, !labels.isEmpty, !inputs.isEmpty else {
                throw TripsError.data(
                    "a test set", found: file.tensors.map(\.name).prefix(6).joined(separator: ", "),
                    expected: "labels [N] and in.NAME [N, ...]")
            }
            for (name, constant) in inputs {
                let rows = constant.shape.first ?? 0
                let index = indices[name]
                guard (index?.count ?? rows) == labels.count else {
                    throw TripsError.data(
                        "examples of in.\(name)", found: "\(index?.count ?? rows)", expected: "\(labels.count), as labels")
                }
                if let row = index?.first(where: { $0 < 0 || $0 >= rows }) {
                    throw TripsError.data("index.\(name)", found: row, expected: "rows below \(rows), as in.\(name) has")
                }
            }
            return (labels, inputs, indices)
        }
        count = labels.count
    }

    /// Its first examples alone.
    public func prefix(_ count: Int) -> TestSet {
        var part = self
        part.count = min(max(0, count), self.count)
        return part
    }

    /// The right answer of an example.
    /// - Throws: `usage` where there is no such example; `data` where its answer is none of so many classes.
    public func label(of example: Int, among classes: Int) throws -> Int {
        guard labels.indices.contains(example) else {
            throw TripsError.usage("examples of a test set", at: name, found: example, expected: "within 0 ..< \(labels.count)")
        }
        let label = labels[example]
        guard label >= 0 && label < classes else {
            throw TripsError.data("label of example \(example)", at: name, found: label, expected: "0 ..< \(classes)")
        }
        return label
    }

    /// The inputs of some examples as one batch.
    /// - Throws: `usage` where there are no such examples; `data`, `inputOutput`.
    public func batch(_ range: Range<Int>) throws -> [String: Tensor] {
        try locating(name) {
            guard 0 <= range.lowerBound, range.upperBound <= labels.count else {
                throw TripsError.usage("examples of a test set", found: range, expected: "within 0 ..< \(labels.count)")
            }
            return try Dictionary(
                uniqueKeysWithValues: inputs.map { name, constant in
                    guard let index = indices[name] else { return (name, try constant.rows(range).load()) }
                    return (name, try Tensor.joined(index[range].map { try constant.rows($0..<$0 + 1).load() }))
                })
        }
    }
}

private func numbers(_ constant: Constant, _ key: String) throws -> [Int] {
    guard constant.shape.count == 1, constant.dataType.isInteger, try constant.byteCount <= 1 << 28 else {
        throw TripsError.data("\"\(key)\"", found: "\(constant.dataType) \(constant.shape)", expected: "integers [N]")
    }
    return constant.shape[0] == 0 ? [] : try constant.load().integers()
}
