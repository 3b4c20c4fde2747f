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

    /// The graph's structure alone: operators, attributes and connections in an order that does not depend on names
    /// or on the order of building. Graphs of the same model through different importers have the same structure.
    ///
    /// What depends on no input is left out: sizes, and the numbers and ranks of constants, also of parts of constants whose
    /// sizes hold symbols. So are the types of floating-point numbers, and casts from one to another.
    package var structure: String {
        var numbers: [ValueID: String] = [:]
        var lines: [String] = []
        for input in inputs { numbers[input] = "$\(name(of: input))" }
        func reference(_ value: ValueID) -> String {
            if let number = numbers[value] { return number }
            return "known"
        }
        let dependent = dependents(of: self.inputs)
        let outputs = outputs.sorted { $0.name < $1.name }
        var pending = outputs.reversed().map { (value: $0.value, expanded: false) }
        while let (value, expanded) = pending.popLast() {
            guard numbers[value] == nil, dependent.contains(value), let node = producer(of: value) else { continue }
            if let cast = node.op as? Cast, let inner = node.input(0), cast.to.isFloatingPoint,
                type(of: inner).dataType.isFloatingPoint
            {
                if expanded { numbers[value] = reference(inner) } else { pending += [(value, true), (inner, false)] }
            } else if expanded {
                for (index, output) in node.outputs.enumerated() {
                    numbers[output] = "%\(lines.count)" + (index == 0 ? "" : ".\(index)")
                }
                lines.append(
                    "%\(lines.count) = \(Swift.type(of: node.op).name)(\(node.inputs.map { $0.map(reference) ?? "_" }.joined(separator: ", "))) {\(attributeText(node.op))}"
                )
            } else {
                pending.append((value, true))
                for case let input? in node.inputs.reversed() { pending.append((input, false)) }
            }
        }
        return (lines + outputs.map { "\($0.name) = \(reference($0.value))" }).joined(separator: "\n")
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
