import Support
import Tensors

/// Integers that stand for x: round(x / scale) + zero point, saturated.
///
/// Inputs: x; scale: a scalar, [size of the axis], or with blocks x's shape divided along the axis; optional zero point as
/// scale, whose type is the output's.
public struct QuantizeLinear: Operator {
    public var axis: Int
    /// Elements along the axis that share a scale; 0: none but by axis.
    public var blockSize: Int
    /// Where no zero point tells it.
    public var outputType: DataType

    public init(axis: Int = 1, blockSize: Int = 0, outputType: DataType = .uint8) {
        self.axis = axis
        self.blockSize = blockSize
        self.outputType = outputType
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
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

/// The numbers that integers stand for: (x - zero point) · scale. Inputs as those of `QuantizeLinear`.
public struct DequantizeLinear: Operator {
    public var axis: Int
    public var blockSize: Int

    public init(axis: Int = 1, blockSize: Int = 0) {
        self.axis = axis
        self.blockSize = blockSize
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let scale = try inputs.required(1, "scale").floating("scale")
        guard x.dataType.isInteger else { throw TripsError.data("data type of x", found: x, expected: "integers") }
        try checkScale(scale, x, axis: axis, blockSize: blockSize)
        try inputs.optional(2)?.typed(x.dataType, "zero point").shaped(like: scale)
        return [ValueType(scale.type.dataType, x.shape)]
    }
}

extension Operand {
    /// Checks a zero point's shape. That of a single scale may be a scalar or [1], whichever the scale is: quantizers mix them.
    @discardableResult
    fileprivate func shaped(like scale: Operand) throws -> Operand {
        if try [self, scale].allSatisfy({ try $0.type.rank <= 1 && product($0.type.shape) == 1 }) { return self }
        return try shaped(scale.type.shape, "zero point")
    }
}

private func checkScale(_ scale: Operand, _ x: ValueType, axis: Int, blockSize: Int) throws {
    guard blockSize >= 0 else { throw TripsError.data("block size", found: blockSize, expected: "0 or more") }
    if blockSize == 0 {
        if try product(scale.type.shape) == 1, scale.type.rank <= 1 { return }
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
