import ModelGraph
import Support
import Tensors

/// The domain of ONNX Runtime's own operators.
let contributedDomain = "com.microsoft"

extension ONNXRules {
    /// What ONNX Runtime's static quantization writes beside the standard operators: each computes with the numbers that integers
    /// represent, and gives integers. Rounding itself is written into this domain where the standard operator set lacks the type.
    static let contributed: [String: ONNXRule] = [
        "QuantizeLinear": quantizeLinear, "DequantizeLinear": dequantizeLinear,
        "QLinearAdd": onPairs(.add), "QLinearMul": onPairs(.mul),
        "QLinearSigmoid": onNumbers { _ in Unary(.sigmoid) },
        "QLinearLeakyRelu": onNumbers { Unary(.leakyRelu, alpha: try $0.float("alpha")) },
        "QLinearSoftmax": onNumbers(softmax),
        "QLinearGlobalAveragePool": onNumbers { call in
            try call.refuse(flag: "channels_last")
            return GlobalPool(.average)
        },
        "QLinearAveragePool": onNumbers { call in
            try call.refuse(flag: "channels_last")
            return try averagePool(call)
        },
        "QLinearWhere": ONNXRule { call in
            let operands = [try call.required(0), try call.numbers(1), try call.numbers(4)]
            return try call.integers(call.step(Where(), operands, "numbers"), like: 1, scale: 7)
        },
        "QLinearConcat": ONNXRule { call in
            let axis = try call.required("axis", call.integer)
            let parts = try stride(from: 2, to: call.inputs.count, by: 3).map { try call.numbers($0) }
            return try call.integers(call.step(Concat(axis: axis), parts, "numbers"), like: 2, scale: 0)
        },
        "QGemm": ONNXRule(build: gemm),
    ]

    private static func onNumbers(_ op: @escaping @Sendable (ONNXCall) throws -> any Operator) -> ONNXRule {
        ONNXRule { call in
            try call.integers(call.step(op(call), [call.numbers(0)], "numbers"), like: 0, scale: 3)
        }
    }

    private static func onPairs(_ kind: Binary.Kind) -> ONNXRule {
        ONNXRule { call in
            try call.integers(call.step(Binary(kind), [call.numbers(0), call.numbers(3)], "numbers"), like: 0, scale: 6)
        }
    }

    /// Before version 13 of the standard operator set all axes from the stated one on were normalised as one.
    @Sendable private static func softmax(_ call: ONNXCall) throws -> any Operator {
        let (axis, rank) = (try call.integer("axis") ?? -1, call.type(try call.required(0)).rank)
        guard try (call.integer("opset") ?? 13) >= 13 || resolveAxis(axis, rank: rank) == rank - 1 else {
            throw TripsError.data("attribute axis", found: axis, expected: "the last axis, \(rank - 1)")
        }
        return Softmax(axis: axis)
    }

    /// The result is in floating point where it has no scale.
    @Sendable private static func gemm(_ call: ONNXCall) throws -> [ValueID] {
        let op = Gemm(
            alpha: try call.float("alpha") ?? 1, transposeA: try call.flag("transA"), transposeB: try call.flag("transB"))
        var operands = [try call.numbers(0), try call.numbers(3, axis: op.transposeB ? 0 : 1)]
        if let bias = call.input(6) {
            let alpha = try call.constant(Double(op.alpha), .float32, "alpha")
            let scale = try call.step(Binary(.mul), [call.required(1), call.required(4)], "sum_scale")
            let factor = try call.step(Binary(.mul), [scale, alpha], "bias_scale")
            operands.append(try call.step(DequantizeLinear(axis: -1), [bias, factor], "bias"))
        }
        guard call.input(7) != nil else { return try call.add(op, operands) }
        return try call.integers(call.step(op, operands, "numbers"), like: 0, scale: 7)
    }
}

extension ONNXCall {
    /// The numbers that an operand's integers represent; scale and zero point are the operands after it.
    func numbers(_ index: Int, axis: Int = 0) throws -> ValueID {
        try numbers(index, scale: index + 1, zero: index + 2, axis: axis)
    }

    /// The same where scale and zero point are other operands.
    func numbers(_ index: Int, scale: Int, zero: Int, axis: Int = 0) throws -> ValueID {
        try step(DequantizeLinear(axis: axis), [required(index), required(scale), input(zero)], "operand_\(index)")
    }

    /// Integers in place of numbers, of the type of an operand. Their scale is another, and the zero point follows it.
    fileprivate func integers(_ numbers: ValueID, like index: Int, scale: Int) throws -> [ValueID] {
        let op = QuantizeLinear(outputType: try type(required(index)).dataType)
        return try add(op, [numbers, required(scale), input(scale + 1)])
    }
}
