import ModelGraph
import Support
import Tensors

extension ONNXRules {
    /// What ONNX Runtime's optimizers leave in the place of several operators where an optimized model is saved. Each is taken
    /// apart again, and fused as any model is.
    static let optimized: [String: ONNXRule] = [
        "Gelu": .same { _ in GELU(.erf) },
        "FastGelu": ONNXRule { try gelu($0, .tanh) },
        "BiasGelu": ONNXRule { try gelu($0, .erf) },
        "QuickGelu": .same { Unary(.swish, alpha: try $0.float("alpha") ?? 1.702) },
        "SkipLayerNormalization": ONNXRule(build: skipLayerNormalization),
        "SimplifiedLayerNormalization": simplifiedLayerNormalization,
        "SkipSimplifiedLayerNormalization": ONNXRule(build: skipSimplifiedLayerNormalization),
        "EmbedLayerNormalization": ONNXRule(build: embedLayerNormalization),
        "FusedMatMul": ONNXRule(build: fusedMatMul),
        "FusedGemm": ONNXRule(build: fusedGemm), "FusedConv": ONNXRule(build: fusedConvolution),
        "Attention": ONNXRule { call in
            try call.refuse(4, "past")
            try call.refuse(6, "past sequence length")
            return try attention(call, call.step(MatMul(), [call.required(0), call.required(1)], "product"), mask: 3, addend: 5)
        },
        "MultiHeadAttention": ONNXRule(build: multiHeadAttention),
        "QAttention": ONNXRule { call in
            try call.refuse(8, "past")
            let factors = [try call.numbers(0, scale: 3, zero: 6), try call.numbers(1, scale: 4, zero: 7, axis: -1)]
            return try attention(call, call.step(MatMul(), factors, "product"), mask: 5, addend: nil)
        },
        "DynamicQuantizeMatMul": ONNXRule { call in
            let x = try call.steps(DynamicQuantizeLinear(), [call.required(0)], "integers")
            let weight = try call.numbers(1, scale: 2, zero: 3, axis: -1)
            return try scaledProduct(call, call.step(DequantizeLinear(), x, "numbers"), weight, bias: 4)
        },
        "MatMulIntegerToFloat": ONNXRule { call in
            try scaledProduct(call, call.numbers(0, scale: 2, zero: 4), call.numbers(1, scale: 3, zero: 5, axis: -1), bias: 6)
        },
    ]

    /// Of x, or of x and a bias.
    private static func gelu(_ call: ONNXCall, _ form: GELU.Form) throws -> [ValueID] {
        guard let bias = call.input(1) else { return try call.add(GELU(form), [call.required(0)]) }
        return try call.add(GELU(form), [call.step(Binary(.add), [call.required(0), bias], "sum")])
    }

    private static func scaledProduct(_ call: ONNXCall, _ x: ValueID, _ weight: ValueID, bias: Int) throws -> [ValueID] {
        guard let bias = call.input(bias) else { return try call.add(MatMul(), [x, weight]) }
        return try call.add(Binary(.add), [call.step(MatMul(), [x, weight], "product"), bias])
    }

    @Sendable private static func skipLayerNormalization(_ call: ONNXCall) throws -> [ValueID] {
        let sum = try skipSum(call, bias: 4)
        let rows = LayerNormalization(epsilon: try call.float("epsilon") ?? 1e-12)
        let result = try call.step(rows, [sum, call.required(2), call.input(3)], "rows")
        return [result, result, result, sum]
    }

    @Sendable private static func skipSimplifiedLayerNormalization(_ call: ONNXCall) throws -> [ValueID] {
        let sum = try skipSum(call, bias: 3)
        let rows = RMSNormalization(epsilon: try call.float("epsilon") ?? 1e-12)
        let result = try call.step(rows, [sum, call.required(2)], "rows")
        return [result, result, result, sum]
    }

    /// x + skip + bias, which is normalised; also the node's fourth output.
    private static func skipSum(_ call: ONNXCall, bias: Int) throws -> ValueID {
        guard call.node.outputs.dropFirst().prefix(2).allSatisfy(\.isEmpty) else {
            throw TripsError.data("outputs of \(call.node.type)", found: "mean or deviation", expected: "none of these")
        }
        let sum = try call.step(Binary(.add), [call.required(0), call.required(1)], "skip")
        guard let bias = call.input(bias) else { return sum }
        return try call.step(Binary(.add), [sum, bias], "sum")
    }

    /// Embeddings of words, positions and token types, added and normalised. The second output counts words that are no padding, 0 where
    /// no mask is given.
    @Sendable private static func embedLayerNormalization(_ call: ONNXCall) throws -> [ValueID] {
        call.ignore("mask_index_type")
        let ids = try call.required(0)
        var sum = try call.step(Gather(axis: 0), [call.required(2), ids], "words")
        let places: ValueID
        if let given = call.input(8) {
            places = try call.step(Gather(axis: 0), [call.required(3), given], "places")
        } else {
            let length = try call.step(Shape(start: 1, end: 2), [ids], "length")
            places = try call.step(
                Slice(), [call.required(3), call.constant([0], "start"), length, call.constant([0], "axis")], "places")
        }
        sum = try call.step(Binary(.add), [sum, places], "placed")
        if let kinds = call.input(1) {
            sum = try call.step(Binary(.add), [sum, call.step(Gather(axis: 0), [call.required(4), kinds], "kinds")], "sum")
        }
        let rows = LayerNormalization(epsilon: try call.float("epsilon") ?? 1e-12)
        let count =
            try call.input(7).map { try wordCount(call, mask: $0) }
            ?? call.add(splat: 0, ValueType(.int32, [call.type(ids).shape.first ?? 1]), "count")
        return [try call.step(rows, [sum, call.required(5), call.required(6)], "rows"), count, sum]
    }

    /// How many elements of each row of a mask are 1.
    private static func wordCount(_ call: ONNXCall, mask: ValueID) throws -> ValueID {
        let one = try call.constant(1, call.type(mask).dataType, "one")
        let words = try call.step(Cast(to: .int32), [call.step(Binary(.equal), [mask, one], "is_word")], "word")
        return try call.step(Reduce(.sum, keepDimensions: false), [words, call.constant([1], "axis")], "count")
    }

    @Sendable private static func fusedMatMul(_ call: ONNXCall) throws -> [ValueID] {
        try call.refuse(flag: "transBatchA")
        try call.refuse(flag: "transBatchB")
        var factors = [try call.required(0), try call.required(1)]
        for (index, name) in ["transA", "transB"].enumerated() where try call.flag(name) {
            let rank = call.type(factors[index]).rank
            guard rank >= 2 else {
                throw TripsError.data("factor for \(name)", found: call.type(factors[index]), expected: "rank 2 or more")
            }
            let order = Array(0..<rank - 2) + [rank - 1, rank - 2]
            factors[index] = try call.step(Transpose(permutation: order), [factors[index]], name)
        }
        guard let alpha = try call.float("alpha"), alpha != 1 else { return try call.add(MatMul(), factors) }
        let product = try call.step(MatMul(), factors, "product")
        return try call.add(Binary(.mul), [product, call.constant(Double(alpha), call.type(product).dataType, "alpha")])
    }

    @Sendable private static func fusedGemm(_ call: ONNXCall) throws -> [ValueID] {
        let activations: KeyValuePairs<String, Unary.Kind> = ["Relu": .relu, "Sigmoid": .sigmoid, "Tanh": .tanh]
        let activation = try call.choice("activation", in: activations)
        return try call.add(Unary(activation), [call.step(call.gemm(), call.inputs, "product")])
    }

    /// Queries, keys and values come from one product.
    /// - Parameters:
    ///   - mask: the operand that says what keys are seen.
    ///   - addend: the operand that is added to the scores.
    private static func attention(_ call: ONNXCall, _ product: ValueID, mask: Int, addend: Int?) throws -> [ValueID] {
        let heads = try call.attentionHeads()
        try call.refuse(flag: "do_rotary")
        try call.refuse(flag: "past_present_share_buffer")
        var packed = product
        if let bias = call.input(2) { packed = try call.step(Binary(.add), [packed, bias], "projections") }
        let sizes = try call.integers("qkv_hidden_sizes").map { try call.constant($0, "sizes") }
        let parts = try call.steps(Split(axis: 2, outputs: 3), [packed, sizes], "projection")
        let operands = try parts.enumerated().map { index, part in try call.split(part, into: heads, "\(index)") }
        return try call.attended(operands, addend: addend.flatMap { call.input($0) }, mask: call.input(mask))
    }
}
