import ModelGraph
import Support
import Tensors

/// How nodes of one ONNX operator become primitive operators.
struct ONNXRule: Sendable {
    /// The first version of the standard operator set that has the operator.
    var since = 1
    /// Why a node is refused although its operator is known; nil where it is not.
    var refusal: @Sendable (ONNXNode) -> String? = { _ in nil }
    /// The values of the node's outputs.
    var build: @Sendable (ONNXCall) throws -> [ValueID]

    /// An operator with the same operands here and there.
    static func same(_ since: Int = 1, _ op: @escaping @Sendable (ONNXCall) throws -> any Operator) -> ONNXRule {
        ONNXRule(since: since) { call in try call.add(op(call)) }
    }

    static func unary(_ kind: Unary.Kind, since: Int = 1) -> ONNXRule { .same(since) { _ in Unary(kind) } }

    /// A function with the parameters alpha and beta under ONNX's names.
    static func unary(_ kind: Unary.Kind, alpha: String, beta: String? = nil, since: Int = 1) -> ONNXRule {
        .same(since) { call in
            Unary(kind, alpha: try call.float(alpha), beta: try beta.flatMap { try call.float($0) })
        }
    }

    static func binary(_ kind: Binary.Kind, since: Int = 1) -> ONNXRule { .same(since) { _ in Binary(kind) } }

    /// A function of any number of operands, pair by pair.
    static func variadic(_ kind: Binary.Kind) -> ONNXRule {
        ONNXRule { [try chained(kind, $0, last: true)] }
    }
}

/// The operators that are read, by ONNX's name, in the versions 11 to 27 of the standard operator set.
enum ONNXRules {
    static let table: [String: ONNXRule] = [elementwise, shapes, indexing, reductions, products, windows, others]
        .reduce(into: [:]) { $0.merge($1) { first, _ in first } }

    /// The rule for a node; nil where its operator is not known.
    static func rule(for node: ONNXNode) -> ONNXRule? {
        switch node.domain {
        case "": table[node.type]
        case contributedDomain: contributed[node.type] ?? optimized[node.type]
        default: nil
        }
    }

    private static let elementwise: [String: ONNXRule] = [
        "Abs": .unary(.abs), "Neg": .unary(.neg), "Sign": .unary(.sign), "Reciprocal": .unary(.reciprocal),
        "Sqrt": .unary(.sqrt), "Exp": .unary(.exp), "Log": .unary(.log), "Erf": .unary(.erf), "Floor": .unary(.floor),
        "Ceil": .unary(.ceil), "Round": .unary(.round),
        "Sin": .unary(.sin), "Cos": .unary(.cos), "Tan": .unary(.tan), "Asin": .unary(.asin), "Acos": .unary(.acos),
        "Atan": .unary(.atan), "Sinh": .unary(.sinh), "Cosh": .unary(.cosh), "Tanh": .unary(.tanh), "Asinh": .unary(.asinh),
        "Acosh": .unary(.acosh), "Atanh": .unary(.atanh),
        "Sigmoid": .unary(.sigmoid), "Relu": .unary(.relu), "Softplus": .unary(.softplus), "Softsign": .unary(.softsign),
        "Swish": .unary(.swish, alpha: "alpha", since: 24),
        "Mish": .unary(.mish, since: 18), "HardSwish": .unary(.hardSwish, since: 14),
        "LeakyRelu": .unary(.leakyRelu, alpha: "alpha"), "Elu": .unary(.elu, alpha: "alpha"),
        "Celu": .unary(.celu, alpha: "alpha", since: 12), "Selu": .unary(.selu, alpha: "alpha", beta: "gamma"),
        "HardSigmoid": .unary(.hardSigmoid, alpha: "alpha", beta: "beta"),
        "ThresholdedRelu": .unary(.thresholdedRelu, alpha: "alpha"), "Shrink": .unary(.shrink, alpha: "lambd", beta: "bias"),
        "Not": .unary(.not), "BitwiseNot": .unary(.bitwiseNot, since: 18), "IsNaN": .unary(.isNaN), "IsInf": ONNXRule(build: isInf),
        "Gelu": .same(20) { call in
            GELU(try call.choice("approximate", in: ["none": .erf, "tanh": .tanh], default: "none"))
        },
        "Add": .binary(.add), "Sub": .binary(.sub), "Mul": .binary(.mul), "Div": .binary(.div), "Pow": .binary(.pow),
        "Mod": .same { Binary(try $0.flag("fmod") ? .fmod : .mod) },
        "PRelu": .binary(.prelu), "And": .binary(.and), "Or": .binary(.or), "Xor": .binary(.xor),
        "BitwiseAnd": .binary(.bitwiseAnd, since: 18), "BitwiseOr": .binary(.bitwiseOr, since: 18),
        "BitwiseXor": .binary(.bitwiseXor, since: 18),
        "BitShift": .same(11) { call in
            Binary(try call.choice("direction", in: ["LEFT": .shiftLeft, "RIGHT": .shiftRight]))
        },
        "Equal": .binary(.equal), "Less": .binary(.less), "Greater": .binary(.greater),
        "LessOrEqual": .binary(.lessOrEqual, since: 12), "GreaterOrEqual": .binary(.greaterOrEqual, since: 12),
        "Min": .variadic(.min), "Max": .variadic(.max), "Sum": .variadic(.add),
        "Mean": ONNXRule { call in
            let sum = try chained(.add, call, last: false)
            return try call.add(Binary(.div), [sum, call.constant(Double(call.inputs.count), call.type(sum).dataType, "count")])
        },
        "Where": .same { _ in Where() }, "Clip": .same { _ in Clip() },
        "Cast": .same { call in
            call.ignore("saturate", "round_mode")  // of the 8-bit floating-point types alone
            return Cast(to: try call.required("to", call.dataType))
        },
        "CastLike": ONNXRule(since: 15) { call in
            call.ignore("saturate", "round_mode")
            return try call.add(Cast(to: call.type(call.required(1)).dataType), [call.required(0)])
        },
        "Identity": ONNXRule { [try $0.required(0)] },
        "Dropout": ONNXRule(build: dropout),
    ]

    private static let shapes: [String: ONNXRule] = [
        "Shape": .same { Shape(start: try $0.integer("start") ?? 0, end: try $0.integer("end")) },
        "Size": .same { _ in Size() },
        "ConstantOfShape": ONNXRule { call in
            let value = try call.tensor("value").map { try call.add($0, "value") }
            return try call.add(ConstantOfShape(), [call.required(0), value])
        },
        "Range": .same(11) { call in
            try checkStash(call)
            return Arange()
        },
        "Expand": .same { _ in Expand() },
        "Tile": .same { _ in Tile() },
        "Reshape": .same { Reshape(allowZero: try $0.flag("allowzero")) },
        "Flatten": .same { Flatten(axis: try $0.integer("axis") ?? 1) },
        "Squeeze": ONNXRule { try $0.add(Squeeze(), axesOperand($0, since: 13)) },
        "Unsqueeze": ONNXRule { try $0.add(Unsqueeze(), axesOperand($0, since: 13)) },
        "Transpose": .same { Transpose(permutation: try $0.integers("perm")) },
        "Concat": .same { Concat(axis: try $0.required("axis", $0.integer)) },
        "Split": ONNXRule(build: split),
        "Slice": .same { _ in Slice() },
        "Pad": .same { Pad(mode: try $0.choice("mode", default: .constant)) },
        "Resize": .same { try resize($0) },
        "DepthToSpace": ONNXRule(build: depthToSpace), "SpaceToDepth": ONNXRule(build: spaceToDepth),
        "EyeLike": ONNXRule(build: eyeLike),
    ]

    private static let indexing: [String: ONNXRule] = [
        "Gather": .same { Gather(axis: try $0.integer("axis") ?? 0) },
        "GatherElements": .same(11) { GatherElements(axis: try $0.integer("axis") ?? 0) },
        "GatherND": ONNXRule(since: 11, build: gatherND),
        "ScatterElements": .same(11) {
            ScatterElements(axis: try $0.integer("axis") ?? 0, reduction: try $0.choice("reduction", default: .none))
        },
        "ScatterND": .same(11) { ScatterND(reduction: try $0.choice("reduction", default: .none)) },
        "TopK": .same {
            $0.ignore("sorted")  // What the node does not ask to be sorted is sorted here all the same.
            return TopK(axis: try $0.integer("axis") ?? -1, largest: try $0.flag("largest", default: true))
        },
        "OneHot": .same { OneHot(axis: try $0.integer("axis") ?? -1) },
        "NonZero": .same { _ in NonZero() },
        "Trilu": .same(14) { Trilu(upper: try $0.flag("upper", default: true)) },
    ]

    private static let reductions: [String: ONNXRule] = [
        "ReduceSum": reduce(.sum, operandSince: 13), "ReduceMean": reduce(.mean), "ReduceMax": reduce(.max),
        "ReduceMin": reduce(.min), "ReduceProd": reduce(.prod), "ReduceL1": reduce(.l1), "ReduceL2": reduce(.l2),
        "ReduceLogSum": reduce(.logSum), "ReduceLogSumExp": reduce(.logSumExp), "ReduceSumSquare": reduce(.sumSquare),
        "ArgMax": argReduce(.max), "ArgMin": argReduce(.min),
        "CumSum": .same(11) { CumSum(exclusive: try $0.flag("exclusive"), reverse: try $0.flag("reverse")) },
        "Softmax": ONNXRule { try softmax($0) { Softmax(axis: $0) } },
        "LogSoftmax": ONNXRule { try softmax($0) { LogSoftmax(axis: $0) } },
        "BatchNormalization": ONNXRule(refusal: batchNormalizationRefusal) { call in
            call.ignore("momentum", "training_mode")  // of training alone
            return try call.add(BatchNormalization(epsilon: call.float("epsilon") ?? 1e-5))
        },
        // ONNX Runtime's optimizer writes it into older operator sets too.
        "LayerNormalization": .same { call in
            try checkStash(call)
            return LayerNormalization(
                axis: try call.integer("axis") ?? -1, epsilon: try call.float("epsilon") ?? 1e-5,
                statistics: call.node.outputs.dropFirst().contains { !$0.isEmpty })
        },
        "RMSNormalization": .same(23, rmsNormalization),
        "SimplifiedLayerNormalization": simplifiedLayerNormalization,
        "GroupNormalization": .same(18) { call in
            try checkStash(call)
            return GroupNormalization(
                groups: try call.required("num_groups", call.integer), epsilon: try call.float("epsilon") ?? 1e-5)
        },
        "InstanceNormalization": .same { InstanceNormalization(epsilon: try $0.float("epsilon") ?? 1e-5) },
        "LpNormalization": .same { LpNormalization(axis: try $0.integer("axis") ?? -1, p: try $0.integer("p") ?? 2) },
    ]

    /// ONNX Runtime's name for RMSNormalization, in its own domain and in the standard one.
    static let simplifiedLayerNormalization = ONNXRule.same { try rmsNormalization($0) }

    private static let products: [String: ONNXRule] = [
        "MatMul": .same { _ in MatMul() },
        "Gemm": .same { try $0.gemm() },
        "Einsum": .same(12) { Einsum(equation: try $0.required("equation", $0.text)) },
        "Attention": .same(23, attention),
        "RotaryEmbedding": ONNXRule(since: 23, build: rotaryEmbedding),
        "QuantizeLinear": quantizeLinear, "DequantizeLinear": dequantizeLinear,
        "DynamicQuantizeLinear": .same(11) { _ in DynamicQuantizeLinear() },
        "MatMulInteger": .same { _ in MatMulInteger() },
        "ConvInteger": .same { ConvInteger(try convolution($0)) },
        "QLinearMatMul": ONNXRule { try quantizedProduct($0, MatMul(), inputs: 8, axes: (-2, -1)) },
        "QLinearConv": ONNXRule { try quantizedProduct($0, convolution($0), inputs: 9, axes: (1, 0)) },
    ]

    static let quantizeLinear = ONNXRule.same { call in
        call.ignore("saturate")  // of the 8-bit floating-point types alone
        try refusePrecision(call)
        return QuantizeLinear(
            axis: try call.integer("axis") ?? 1, blockSize: try call.integer("block_size") ?? 0,
            outputType: try statedType("output_dtype", call) ?? .uint8)
    }

    static let dequantizeLinear = ONNXRule.same { call in
        let scale = try call.type(call.required(1)).dataType
        guard try statedType("output_dtype", call) ?? scale == scale else {
            throw TripsError.data("attribute output_dtype", expected: "the type of the scale, \(scale)")
        }
        return DequantizeLinear(axis: try call.integer("axis") ?? 1, blockSize: try call.integer("block_size") ?? 0)
    }

    private static let windows: [String: ONNXRule] = [
        "Conv": .same { try convolution($0) },
        "ConvTranspose": .same {
            ConvTranspose(
                window: try window($0), groups: try $0.integer("group") ?? 1, kernelShape: try $0.integers("kernel_shape"),
                outputPadding: try $0.integers("output_padding"), outputShape: try $0.integers("output_shape"))
        },
        "MaxPool": .same {
            MaxPool(
                kernelShape: try $0.required("kernel_shape", $0.integers), window: try window($0),
                ceilMode: try $0.flag("ceil_mode"),
                indices: $0.node.outputs.count > 1 && !$0.node.outputs[1].isEmpty, columnMajor: try $0.flag("storage_order"))
        },
        "AveragePool": .same { try averagePool($0) },
        "GlobalAveragePool": .same { _ in GlobalPool(.average) },
        "GlobalMaxPool": .same { _ in GlobalPool(.max) },
    ]

    private static let others: [String: ONNXRule] = [
        "Constant": ONNXRule(refusal: constantRefusal, build: constant)
    ]
}

// MARK: Elementwise

private func chained(_ kind: Binary.Kind, _ call: ONNXCall, last: Bool) throws -> ValueID {
    var result = try call.required(0)
    for index in call.inputs.indices.dropFirst() {
        let operands = [result, try call.required(index)]
        let isLast = last && index == call.inputs.count - 1
        result = try isLast ? call.add(Binary(kind), operands)[0] : call.step(Binary(kind), operands, "\(index)")
    }
    return result
}

private func isInf(_ call: ONNXCall) throws -> [ValueID] {
    switch (try call.flag("detect_negative", default: true), try call.flag("detect_positive", default: true)) {
    case (true, true): return try call.add(Unary(.isInf))
    case (true, false): return try call.add(Unary(.isNegativeInf))
    case (false, true): return try call.add(Unary(.isPositiveInf))
    case (false, false):
        return [try call.add(splat: 0, ValueType(.bool, call.type(call.required(0)).shape), "none")]
    }
}

/// Outside of training nothing is dropped.
private func dropout(_ call: ONNXCall) throws -> [ValueID] {
    call.ignore("ratio", "seed")
    let x = try call.required(0)
    if let training = call.input(2), try call.operand(training).constantIntegers() != [0] {
        guard let ratio = call.input(1), try call.operand(ratio).constantNumbers() == [0] else {
            throw TripsError.data("training_mode of Dropout", found: "true, or known only when the model runs", expected: "false")
        }
    }
    guard call.node.outputs.count > 1 else { return [x] }
    return [x, try call.add(splat: 1, ValueType(.bool, call.type(x).shape), "mask")]
}

// MARK: Shapes

/// x and axes, where older operator sets have the axes as an attribute.
private func axesOperand(_ call: ONNXCall, since operandSince: Int) throws -> [ValueID?] {
    guard call.version < operandSince else { return [try call.required(0), call.input(1)] }
    guard call.inputs.count == 1 else { throw TripsError.data("number of inputs", found: call.inputs.count, expected: 1) }
    return [try call.required(0), try call.integers("axes").map { try call.constant($0, "axes") }]
}

private func split(_ call: ONNXCall) throws -> [ValueID] {
    let outputs = call.node.outputs.count
    if let stated = try call.version >= 18 ? call.integer("num_outputs") : nil, stated != outputs {
        throw TripsError.data("attribute num_outputs", found: stated, expected: "the number of outputs, \(outputs)")
    }
    let sizes = call.version >= 13 ? call.input(1) : try call.integers("split").map { try call.constant($0, "split") }
    return try call.add(Split(axis: call.integer("axis") ?? 0, outputs: outputs), [call.required(0), sizes])
}

/// Where an index is one number, rows of a table are gathered: exporters write so what PyTorch writes as `table[ids]`.
private func gatherND(_ call: ONNXCall) throws -> [ValueID] {
    let (x, indices) = (try call.required(0), try call.required(1)), batch = try call.integer("batch_dims") ?? 0
    guard batch == 0, call.type(indices).shape.last == 1 else {
        return try call.add(GatherND(batchDimensions: batch), [x, indices])
    }
    let rows = try call.step(Squeeze(), [indices, call.constant([-1], "axis")], "rows")
    return try call.add(Gather(axis: 0), [x, rows])
}

private func resize(_ call: ONNXCall) throws -> Resize {
    Resize(
        mode: try call.choice("mode", default: .nearest),
        coordinates: try call.choice("coordinate_transformation_mode", default: .halfPixel),
        nearest: try call.choice("nearest_mode", default: .roundPreferFloor),
        cubicCoefficient: try call.float("cubic_coeff_a") ?? -0.75, excludeOutside: try call.flag("exclude_outside"),
        antialias: try call.flag("antialias"), extrapolation: try call.float("extrapolation_value") ?? 0,
        aspectRatio: try call.choice("keep_aspect_ratio_policy", default: .stretch), axes: try call.integers("axes"))
}

// MARK: Reductions and normalisations

private func reduce(_ kind: Reduce.Kind, operandSince: Int = 18) -> ONNXRule {
    ONNXRule { call in
        let operands = try axesOperand(call, since: operandSince)
        return try call.add(
            Reduce(
                kind, keepDimensions: call.flag("keepdims", default: true), noopWithEmptyAxes: call.flag("noop_with_empty_axes")),
            operands)
    }
}

private func argReduce(_ kind: ArgReduce.Kind) -> ONNXRule {
    .same { call in
        ArgReduce(
            kind, axis: try call.integer("axis") ?? 0, keepDimensions: try call.flag("keepdims", default: true),
            selectLastIndex: try call.flag("select_last_index"))
    }
}

/// Before version 13 the axis split x into a matrix, whose rows were normalised whole.
private func softmax(_ call: ONNXCall, _ op: (Int) -> any Operator) throws -> [ValueID] {
    let x = try call.required(0)
    let stated = try call.integer("axis")
    if call.version >= 13 { return try call.add(op(stated ?? -1)) }
    let rank = call.type(x).rank
    let axis = try resolveAxis(stated ?? 1, rank: rank)
    if axis == rank - 1 { return try call.add(op(-1)) }
    let rows = try call.step(Flatten(axis: axis), [x], "rows")
    let result = try call.step(op(-1), [rows], "result")
    return try call.add(Reshape(allowZero: true), [result, call.step(Shape(), [x], "shape")])
}

@Sendable private func batchNormalizationRefusal(_ node: ONNXNode) -> String? {
    let training = node.attributes.contains { attribute in
        if attribute.name == "training_mode", case .integer(let mode) = attribute.value { return mode != 0 }
        return false
    }
    return training || node.outputs.dropFirst().contains { !$0.isEmpty } ? "training mode" : nil
}

/// Statistics are computed in float32 or better.
private func checkStash(_ call: ONNXCall) throws {
    if let type = try call.dataType("stash_type"), type != .float32 {
        throw TripsError.data("attribute stash_type", found: type, expected: DataType.float32)
    }
}

@Sendable private func rmsNormalization(_ call: ONNXCall) throws -> RMSNormalization {
    try checkStash(call)
    return RMSNormalization(axis: try call.integer("axis") ?? -1, epsilon: try call.float("epsilon") ?? 1e-5)
}

// MARK: Products

private func attention(_ call: ONNXCall) throws -> OnnxAttention {
    if let precision = try call.dataType("softmax_precision"), precision == .float64 {
        throw TripsError.data("attribute softmax_precision", found: precision, expected: "float32 or less")
    }
    let mode = try call.integer("qk_matmul_output_mode") ?? 0
    guard let scores = OnnxAttention.Scores(rawValue: mode) else {
        throw TripsError.data("attribute qk_matmul_output_mode", found: mode, expected: "0 to 3")
    }
    for side in ["left_window_size", "right_window_size"] {
        let size = try call.integer(side) ?? -1
        guard size == -1 else { throw TripsError.data("attribute \(side)", found: size, expected: "-1: no window") }
    }
    return OnnxAttention(
        queryHeads: try call.integer("q_num_heads"), keyHeads: try call.integer("kv_num_heads"), scale: try call.float("scale"),
        causal: try call.flag("is_causal"), softcap: try call.float("softcap") ?? 0, scores: scores,
        outputs: (call.node.outputs.lastIndex { !$0.isEmpty } ?? 0) + 1)
}

/// A type that is stated; 0 says that it is not.
private func statedType(_ name: String, _ call: ONNXCall) throws -> DataType? {
    let number = try call.integer(name) ?? 0
    return number == 0 ? nil : try DataType(onnx: number)
}

/// Version 23 lets a model choose the type in which x is divided; it is float32 here.
private func refusePrecision(_ call: ONNXCall) throws {
    if let type = try statedType("precision", call), type != .float32 {
        throw TripsError.data("attribute precision", found: type, expected: DataType.float32)
    }
}

/// A product of the numbers that integers represent, as integers: the operands are x, the weight, and the result's scale and zero
/// point, each integer followed by its scale and zero point; and for convolutions a bias in the scale of the sums.
/// - Parameter axes: of x and the weight, along which scales may differ.
private func quantizedProduct(_ call: ONNXCall, _ op: any Operator, inputs: Int, axes: (x: Int, weight: Int)) throws -> [ValueID] {
    guard call.inputs.count <= inputs else {
        throw TripsError.data("number of inputs", found: call.inputs.count, expected: "at most \(inputs)")
    }
    var operands = [try call.numbers(0, axis: axes.x), try call.numbers(3, axis: axes.weight)]
    if let bias = call.input(8) {
        let scale = try call.step(Binary(.mul), [call.required(1), call.required(4)], "bias_scale")
        operands.append(try call.step(DequantizeLinear(axis: 0), [bias, scale], "bias"))
    }
    return try call.add(QuantizeLinear(axis: axes.x), [call.step(op, operands, "numbers"), call.required(6), call.input(7)])
}

// MARK: Windows

func convolution(_ call: ONNXCall) throws -> Conv {
    Conv(window: try window(call), groups: try call.integer("group") ?? 1, kernelShape: try call.integers("kernel_shape"))
}

private func window(_ call: ONNXCall) throws -> Window {
    Window(
        strides: try call.integers("strides"), dilations: try call.integers("dilations"), pads: try call.integers("pads"),
        autoPad: try call.choice("auto_pad", default: .notSet))
}

func averagePool(_ call: ONNXCall) throws -> AveragePool {
    AveragePool(
        kernelShape: try call.required("kernel_shape", call.integers), window: try window(call),
        ceilMode: try call.flag("ceil_mode"),
        countPadding: try call.flag("count_include_pad"))
}

// MARK: Constants

@Sendable private func constantRefusal(_ node: ONNXNode) -> String? {
    switch node.attributes.first?.name {
    case "sparse_value": "a sparse tensor"
    case "value_string", "value_strings": "strings"
    default: nil
    }
}

@Sendable private func constant(_ call: ONNXCall) throws -> [ValueID] {
    func added<Element: TensorElement>(_ numbers: [Element], shape: [Int]? = nil) throws -> [ValueID] {
        try call.output(Constant(Tensor(numbers, shape: shape ?? [numbers.count])))
    }
    if let tensor = try call.tensor("value") { return try call.output(tensor) }
    if let number = try call.integer("value_int") { return try added([Int64(number)], shape: []) }
    if let numbers = try call.integers("value_ints") { return try added(numbers.map { Int64($0) }) }
    if let number = try call.float("value_float") { return try added([number], shape: []) }
    if let numbers = try call.floats("value_floats") { return try added(numbers) }
    throw TripsError.data("a constant without value")
}
