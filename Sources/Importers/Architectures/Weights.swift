import ModelGraph
import Support
import Tensors

/// The tensors of a checkpoint as an architecture asks for them, and a record of what was missing or had another shape.
///
/// What is missing is noted and replaced by a stand-in, so that one error can name all of it.
final class Weights {
    private let constants: [String: Constant]
    private var taken = Set<String>()
    private var problems: [String] = []
    private var noted = Set<String>()

    init(_ tensors: [(name: String, constant: Constant)]) {
        constants = Dictionary(tensors, uniquingKeysWith: { _, last in last })
    }

    func contains(_ name: String) -> Bool { constants[name] != nil }

    /// The shape of a tensor, nil where there is none of that name.
    func shape(_ name: String) -> [Int]? { constants[name]?.shape }

    /// Width of the states of the BERT whose tensors' names begin so.
    /// - Throws: `data` where it has no positions, whose width it is.
    func textWidth(_ prefix: String) throws -> Int {
        let name = "\(prefix)embeddings.position_embeddings.weight"
        guard let width = shape(name)?.last, width > 0 else { throw TripsError.data("text width", found: "none", expected: name) }
        return width
    }

    /// A tensor as fp32.
    func take(_ name: String, _ shape: [Int]) -> Constant {
        guard let constant = constants[name] else {
            note(name, "missing: \(name) \(shape)")
            return missing(name, shape)
        }
        taken.insert(name)
        guard constant.shape == shape, constant.dataType.isFloatingPoint else {
            note(name, "misshapen: \(name), found \(constant.dataType) \(constant.shape), expected \(shape)")
            return missing(name, shape)
        }
        return constant.converted(to: .float32)
    }

    /// The integers of a small tensor.
    func integers(_ name: String, maximalCount: Int) throws -> [Int] {
        guard let constant = constants[name] else {
            note(name, "missing: \(name)")
            return []
        }
        taken.insert(name)
        guard try elementCount(of: constant.shape) <= maximalCount, constant.dataType.isInteger else {
            note(
                name, "misshapen: \(name), found \(constant.dataType) \(constant.shape), expected at most \(maximalCount) integers")
            return []
        }
        return try constant.load().integers()
    }

    /// How many layers there are whose tensors' names begin with the prefix and the layer's number, from 0 on.
    /// - Throws: `data` where there are more than any model has.
    func layerCount(_ prefix: String) throws -> Int {
        var numbers = Set<Int>()
        for name in constants.keys where name.hasPrefix(prefix) {
            if let number = Int(name.dropFirst(prefix.count).prefix { $0 != "." }) { numbers.insert(number) }
        }
        let count = (0...numbers.count).first { !numbers.contains($0) } ?? 0
        guard count <= 1024 else {
            throw TripsError.data("layers", at: "\(prefix)*", found: count, expected: "at most 1024")
        }
        return count
    }

    /// Checks that every tensor was taken, or has a reason to be left out.
    /// - Parameters:
    ///   - patterns: names of tensors that may be left out although the architecture does not know them.
    ///   - reason: why a tensor that was not taken has no place in the graphs; nil where it should not be there.
    /// - Throws: `data` with the complete list of tensors that are missing, unexpected or misshapen; `usage` where a pattern
    ///   matches none that would be unexpected.
    func finish(
        _ order: [(name: String, constant: Constant)], leavingOut patterns: [String], reason: (String) -> String?
    ) throws -> [SkippedTensors] {
        var leftOut: [SkippedTensors] = []
        var idle = Set(patterns)
        var unexpected = 0
        for (name, constant) in order where !taken.contains(name) {
            let matching = patterns.filter { matches(name, pattern: $0) }
            guard let reason = reason(name) ?? (matching.isEmpty ? nil : "unknown, as asked for") else {
                unexpected += 1
                note(name, "unexpected: \(name) \(constant.shape)")
                continue
            }
            idle.subtract(matching)
            let bytes = try constant.byteCount
            if let index = leftOut.firstIndex(where: { $0.reason == reason }) {
                leftOut[index].count += 1
                leftOut[index].bytes += bytes
            } else {
                leftOut.append(SkippedTensors(reason: reason, count: 1, bytes: bytes))
            }
        }
        guard problems.isEmpty else {
            let list = problems.map { "\n  \($0)" }.joined()
            let advice = unexpected == problems.count ? "\n  (`leftOut` leaves out what is unexpected and not needed)" : ""
            throw TripsError.data(
                "the tensors are not those of this architecture: \(problems.count) missing, unexpected or misshapen\(list)\(advice)"
            )
        }
        if let pattern = patterns.first(where: idle.contains) {
            throw TripsError.usage(
                "no tensor to leave out", found: pattern,
                expected: "the name of a tensor that the model does not need, or a pattern with *")
        }
        return leftOut
    }

    private func note(_ name: String, _ problem: String) {
        if noted.insert(name).inserted { problems.append(problem) }
    }

    private func missing(_ name: String, _ shape: [Int]) -> Constant {
        Constant(.float32, shape, identity: "missing \(name)", source: MissingSource(name: name))
    }
}

private struct MissingSource: ConstantSource {
    let name: String
    func load(_: DataType, _: [Int]) throws -> Tensor { throw TripsError.data("a tensor is missing", found: name) }
}
