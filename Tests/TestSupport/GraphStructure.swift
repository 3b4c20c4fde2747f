import ModelGraph

extension Graph {
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
