import Support
import Tensors

/// Integers in place of x: round(x / scale) + zero point, saturated.
///
/// Inputs: x; scale: a scalar, [size of the axis], or with blocks x's shape divided along the axis; optional zero point as
/// scale, whose type is the output's.
package struct QuantizeLinear: Operator {
    package static let maximalInputs: Int? = 3
    /// Negative: counted from the last.
    package var axis: Int
    /// Elements along the axis that share a scale; 0: none but by axis.
    package var blockSize: Int
    /// Where no zero point states it.
    package var outputType: DataType

    package init(axis: Int = 1, blockSize: Int = 0, outputType: DataType = .uint8) {
        self.axis = axis
        self.blockSize = blockSize
        self.outputType = outputType
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let scale = try inputs.required(1, "scale").floating("scale")
        guard x.dataType.isFloatingPoint || x.dataType == .int32 else {
            throw TripsError.data("data type of x", found: x, expected: "floating point or int32")
        }
        try checkScale(scale, x, axis: axis, blockSize: blockSize)
        let zero = try inputs.optional(2)?.shaped(like: scale)
        let result = zero?.type.dataType ?? outputType
        guard result.isInteger else { throw TripsError.data("quantized type", found: result, expected: "integers") }
        return [ValueType(result, x.shape)]
    }
}

/// The numbers that integers represent: (x - zero point) · scale. Inputs as those of `QuantizeLinear`.
package struct DequantizeLinear: Operator {
    package static let maximalInputs: Int? = 3
    /// Negative: counted from the last.
    package var axis: Int
    /// As that of `QuantizeLinear`.
    package var blockSize: Int

    package init(axis: Int = 1, blockSize: Int = 0) {
        self.axis = axis
        self.blockSize = blockSize
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let scale = try inputs.required(1, "scale").floating("scale")
        guard x.dataType.isInteger else { throw TripsError.data("data type of x", found: x, expected: "integers") }
        try checkScale(scale, x, axis: axis, blockSize: blockSize)
        try inputs.optional(2)?.typed(x.dataType, "zero point").shaped(like: scale)
        return [ValueType(scale.type.dataType, x.shape)]
    }
}

/// Integers in place of x: its smallest and largest number, 0 among them, become 0 and 255.
///
/// Input: x, float32. Outputs: integers, uint8; scale, float32 []; zero point, uint8 [].
package struct DynamicQuantizeLinear: Operator {
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").typed(.float32, "x").type
        return [ValueType(.uint8, x.shape), ValueType(.float32, []), ValueType(.uint8, [])]
    }
}

/// The product of matrices of 8-bit integers, less their zero points, with broadcast batches.
///
/// Inputs: a [..., M, K]; b [..., K, N]; optional zero point of a: one, [M] for a matrix, or [..., M, 1]; optional zero point of b:
/// one, [N] or [..., 1, N]. Output int32 [..., M, N].
package struct MatMulInteger: Operator {
    package static let maximalInputs: Int? = 4
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let a = try inputs.required(0, "a").bytes("a"), b = try inputs.required(1, "b").bytes("b")
        if let zero = try inputs.optional(2)?.typed(a.dataType, "zero point of a") {
            if a.rank == 2, zero.type.rank == 1, zero.type.shape[0] != 1 {
                try zero.shaped([a.shape[0]], "zero point of a")
            } else {
                try zero.broadcasting(to: a.shape, "zero point of a")
            }
        }
        try inputs.optional(3)?.typed(b.dataType, "zero point of b").broadcasting(to: b.shape, "zero point of b")
        return try MatMul().infer([a, b].map { Operand(ValueType(.int32, $0.shape)) })
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        try MatMul().multiplyAccumulates(inputs, outputs)
    }
}

/// A convolution of 8-bit integers, less their zero points.
///
/// Inputs: x [B, C, ...]; weight [O, C / groups, ...]; optional zero point of x, one; optional zero point of the weight, one or
/// [O]. Output int32 [B, O, ...].
package struct ConvInteger: Operator {
    package static let maximalInputs: Int? = 4
    /// Windows and groups.
    package var convolution: Conv

    package init(_ convolution: Conv = Conv()) { self.convolution = convolution }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").bytes("x"), weight = try inputs.required(1, "weight").bytes("weight")
        let output = try convolution.infer([x, weight].map { Operand(ValueType(.float32, $0.shape)) })
        if let zero = try inputs.optional(2)?.typed(x.dataType, "zero point of x"), try !zero.isSingle {
            throw TripsError.data("shape of zero point of x", found: zero.type, expected: "one element")
        }
        if let zero = try inputs.optional(3)?.typed(weight.dataType, "zero point of the weight"), try !zero.isSingle {
            try zero.shaped([weight.shape[0]], "zero point of the weight")
        }
        return output.map { ValueType(.int32, $0.shape) }
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        try convolution.multiplyAccumulates(inputs, outputs)
    }
}

extension Operand {
    /// Checks that the element type is an integer of 8 bits.
    fileprivate func bytes(_ name: String) throws -> ValueType {
        guard type.dataType == .int8 || type.dataType == .uint8 else {
            throw TripsError.data("data type of \(name)", found: type, expected: "int8 or uint8")
        }
        return type
    }

    /// True for a scalar, and for [1].
    fileprivate var isSingle: Bool { get throws { try type.rank <= 1 && product(type.shape) == 1 } }

    /// Checks a zero point's shape. That of a single scale may be a scalar or [1], whichever the scale is: quantizers mix them.
    @discardableResult
    fileprivate func shaped(like scale: Operand) throws -> Operand {
        if try isSingle && scale.isSingle { return self }
        return try shaped(scale.type.shape, "zero point")
    }
}

private func checkScale(_ scale: Operand, _ x: ValueType, axis: Int, blockSize: Int) throws {
    guard blockSize >= 0 else { throw TripsError.data("block size", found: blockSize, expected: "0 or more") }
    if blockSize == 0 {
        if try scale.isSingle { return }
        let axis = try resolveAxis(axis, rank: x.rank)
        try scale.shaped([x.shape[axis]], "scale")
        return
    }
    let axis = try resolveAxis(axis, rank: x.rank)
    var shape = x.shape
    if let size = shape[axis].constant {
        shape[axis] = Dimension(size.dividedRoundingUp(by: blockSize))
    } else {
        shape[axis] = shape[axis].divided(exactlyBy: Dimension(blockSize)) ?? .unknown
    }
    try scale.shaped(shape, "scale")
}
