import ModelGraph
import Operators
import Support
import Tensors

// Exporters state shapes by small integer computations (Shape, Gather, Concat, …). Ranks may depend on them, so they
// are followed while the graph is built, as ONNX's own shape inference does. Everything else that can be computed before
// the model runs is left to the rewrites.

extension Graph {
    /// Records the integers that the node's outputs hold, where they follow from sizes and constants.
    mutating func propagateSizes(through node: Node) throws {
        guard try node.outputs.allSatisfy({ try isInteger($0) && isSmall($0) }) else { return }
        if !(node.op is Shape || node.op is Size) {
            let inputs = node.inputs.compactMap { $0 }
            guard !inputs.isEmpty, try inputs.allSatisfy({ try content(of: $0) != nil && isSmall($0) }) else { return }
        }
        let contents = try sizeOutputs(of: node) ?? computedOutputs(of: node) ?? []
        for case (let output, let content?) in zip(node.outputs, contents) { setContent(content, of: output) }
    }

    private func isInteger(_ value: ValueID) -> Bool { type(of: value).dataType.isInteger || type(of: value).dataType == .bool }

    /// Whether a value has as few elements as a shape has axes.
    private func isSmall(_ value: ValueID) throws -> Bool {
        try type(of: value).constantShape.map { try elementCount(of: $0) <= 64 } ?? false
    }
}
