import Support
import Tensors

// Primitive operators mirror ONNX's, in the form of the newest operator set: what older ones state as attributes is an
// operand here. Families that share a rule share a file.

extension OperatorTable {
    static let primitives: [any Operator.Type] = []
}
