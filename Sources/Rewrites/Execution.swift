import ModelGraph
import Support
import Tensors

func execute(_ op: any Operator, _ inputs: [Tensor?]) throws -> [Tensor] {
    throw TripsError.data("not yet")
}
