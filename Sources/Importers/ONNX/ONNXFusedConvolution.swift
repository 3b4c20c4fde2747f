import ModelGraph
import Support
import Tensors

extension ONNXRules {
    /// A convolution, what is added to it, and an activation.
    @Sendable static func fusedConvolution(_ call: ONNXCall) throws -> [ValueID] {
        let operands = [try call.required(0), try call.required(1), call.input(2)]
        var sum = try call.step(convolution(call), operands, "product")
        if let addend = call.input(3) { sum = try call.step(Binary(.add), [sum, addend], "sum") }
        let name = try call.text("activation") ?? ""
        let numbers = try call.floats("activation_params") ?? []
        switch (name, numbers.count) {
        case ("", 0): return [sum]
        case ("Relu", 0): return try call.add(Unary(.relu), [sum])
        case ("Tanh", 0): return try call.add(Unary(.tanh), [sum])
        case ("Sigmoid", 0): return try call.add(Unary(.sigmoid), [sum])
        case ("LeakyRelu", 1): return try call.add(Unary(.leakyRelu, alpha: numbers[0]), [sum])
        case ("HardSigmoid", 2): return try call.add(Unary(.hardSigmoid, alpha: numbers[0], beta: numbers[1]), [sum])
        case ("Clip", 2):
            let type = call.type(sum).dataType
            let bounds = try numbers.map { try call.constant(Double($0), type, "bound") }
            return try call.add(Clip(), [sum] + bounds)
        default:
            throw TripsError.data(
                "attribute activation", found: "\"\(name.prefix(80))\" with \(counted(numbers.count, "parameter"))",
                expected: "Relu, Tanh, Sigmoid, LeakyRelu with 1 parameter, HardSigmoid or Clip with 2")
        }
    }
}
