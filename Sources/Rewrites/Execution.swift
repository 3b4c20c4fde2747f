import ModelGraph
import Operators
import Support
import Tensors

/// Runs an operator on numbers, before the model runs.
func execute(_ op: any Operator, _ inputs: [Tensor?]) throws -> [Tensor] { try evaluate(op, inputs) }
