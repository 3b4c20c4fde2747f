import ModelGraph
import Operators
import Support
import Tensors
import Testing

extension Graph {
    /// The numbers of all values, computed node by node by the operators' plain forms; what is known is not computed.
    ///
    /// - Parameter inputs: by name; those that nothing reads may be left out.
    package func evaluated(_ inputs: [String: Tensor] = [:]) throws -> [ValueID: Tensor] {
        var numbers: [ValueID: Tensor] = [:]
        for input in self.inputs { numbers[input] = inputs[name(of: input)] }
        func number(_ value: ValueID) throws -> Tensor {
            if let found = numbers[value] { return found }
            let known = try #require(try operand(value).tensor(), "\(name(of: value)) has no number")
            numbers[value] = known
            return known
        }
        for node in try topologicalOrder() where !node.outputs.allSatisfy({ content(of: $0) != nil }) {
            let results = try locating(node.name) { try evaluate(node.op, node.inputs.map { try $0.map(number) }) }
            for (output, result) in zip(node.outputs, results) { numbers[output] = result }
        }
        for (_, value) in outputs + traces { _ = try number(value) }
        return numbers
    }
}
