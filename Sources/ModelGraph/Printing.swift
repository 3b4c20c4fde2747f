import Foundation
import Support
import Tensors

extension Graph: CustomStringConvertible {
    /// The graph as text: inputs, a line for each node in topological order, outputs.
    public var description: String {
        var lines = ["graph \(name)"]
        for input in inputs { lines.append("  in   \(name(of: input)): \(type(of: input))") }
        for node in (try? topologicalOrder()) ?? nodes { lines.append("  \(line(node))") }
        for (outputName, value) in outputs { lines.append("  out  \(outputName) = \(name(of: value)): \(type(of: value))") }
        return lines.joined(separator: "\n")
    }

    private func line(_ node: Node) -> String {
        let results = node.outputs.map { "\(name(of: $0)): \(type(of: $0))" }.joined(separator: ", ")
        return "\(results) = \(call(node) { name(of: $0) })"
    }

    private func call(_ node: Node, _ reference: (ValueID) -> String) -> String {
        let inputs = node.inputs.map { $0.map { known(of: $0) ?? reference($0) } ?? "_" }
        let attributes = attributeText(node.op)
        return "\(Swift.type(of: node.op).name)(\(inputs.joined(separator: ", ")))\(attributes.isEmpty ? "" : " {\(attributes)}")"
    }

    /// What is known of a value, where it is short enough to print in its place.
    private func known(of value: ValueID) -> String? {
        switch content(of: value) {
        case .dimensions(let dimensions): return "[\(dimensions.map(\.description).joined(separator: ", "))]"
        case .splat(let scalar): return "splat(\(scalar.text(limit: 1)))"
        case .tensor(let constant):
            guard let count = try? elementCount(of: constant.shape), count <= 8, let tensor = try? constant.load() else {
                return nil
            }
            return constant.shape.isEmpty ? tensor.text(limit: 1) : "[\(tensor.text(limit: 8))]"
        case nil: return nil
        }
    }
}

/// An operator's attributes, sorted by name, as `name: value, ...`; those that are nil or false are left out.
package func attributeText(_ op: any Operator) -> String {
    Mirror(reflecting: op).children.compactMap { label, value -> String? in
        guard let label else { return nil }
        let mirror = Mirror(reflecting: value)
        let unwrapped: Any
        if mirror.displayStyle == .optional {
            guard let some = mirror.children.first else { return nil }
            unwrapped = some.value
        } else {
            unwrapped = value
        }
        return unwrapped as? Bool == false ? nil : "\(label): \(unwrapped)"
    }.sorted().joined(separator: ", ")
}

extension Tensor {
    /// The first elements as text.
    package func text(limit: Int) -> String {
        guard let numbers = try? self.numbers() else { return "?" }
        let shown = numbers.prefix(limit).map { number in
            dataType.isFloatingPoint ? "\(Float(number))" : String(format: "%.0f", number)
        }
        return shown.joined(separator: ", ") + (numbers.count > limit ? ", …" : "")
    }
}
