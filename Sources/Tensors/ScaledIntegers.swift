import Support

/// Integers and the scales by which they are multiplied: the form in which quantized models hold a matrix.
package struct ScaledIntegers: Sendable {
    /// int8, of the matrix's shape.
    package let integers: Constant
    /// float32, [1] or [size of the axis].
    package let scales: Constant
    /// Along which scales differ: 0 or 1.
    package let axis: Int
    /// The zero point: the integer that represents 0.
    package let zero: Int

    /// - Throws: `data` where types or shapes are others.
    package init(_ integers: Constant, scales: Constant, axis: Int, zero: Int = 0) throws {
        guard integers.dataType == .int8, integers.shape.count == 2, 0...1 ~= axis, scales.dataType == .float32,
            scales.shape == [1] || scales.shape == [integers.shape[axis]]
        else {
            throw TripsError.data(
                "integers of a matrix and their scales",
                found: "\(integers.dataType) \(integers.shape), \(scales.dataType) \(scales.shape)",
                expected: "int8 of rank 2, and a float32 for all or for each along axis \(axis)")
        }
        (self.integers, self.scales, self.axis, self.zero) = (integers, scales, axis, zero)
    }

    /// The same numbers with 0 for zero; nil where int8 does not hold the integers then.
    /// - Throws: what loading them throws.
    package func aroundZero() throws -> ScaledIntegers? {
        if zero == 0 { return self }
        let range = Int(Int8.min) + zero...Int(Int8.max) + zero
        guard try integers.load().elements(Int8.self).allSatisfy({ range ~= Int($0) }) else { return nil }
        let shift = Int8(truncatingIfNeeded: zero)
        let shifted = Constant.derived("less \(zero)", from: [integers], .int8, integers.shape) { tensors in
            try Tensor(tensors[0].elements(Int8.self).map { $0 &- shift }, shape: tensors[0].shape)
        }
        return try ScaledIntegers(shifted, scales: scales, axis: axis)
    }

    /// A scale for each row; nil where columns differ.
    /// - Throws: what loading them throws.
    package func rowScales() throws -> Constant? {
        let count = integers.shape[0]
        if scales.shape == [count] && (axis == 0 || count == 1) { return scales }
        guard scales.shape == [1] else { return nil }
        return .derived("repeated \(count) times", from: [scales], .float32, [count]) {
            try Tensor(repeating: $0[0].reshaped([]), shape: [count])
        }
    }

    fileprivate func transposed() throws -> ScaledIntegers {
        try ScaledIntegers(integers.transposed(), scales: scales, axis: 1 - axis, zero: zero)
    }

    fileprivate func rows(_ range: Range<Int>) throws -> ScaledIntegers {
        let differ = axis == 0 && scales.shape == [integers.shape[0]]
        return try ScaledIntegers(integers.rows(range), scales: differ ? scales.rows(range) : scales, axis: axis, zero: zero)
    }
}

extension Constant {
    /// The numbers that the integers represent, float32.
    package init(_ parts: ScaledIntegers) {
        let identity = "scaled(\(parts.integers.identity),\(parts.scales.identity),\(parts.axis),\(parts.zero))"
        self.init(.float32, parts.integers.shape, identity: identity, source: ScaledSource(parts: parts))
        computations = 1 + parts.integers.computations + parts.scales.computations
    }

    /// The integers that the numbers are made of; nil where there are none.
    package var scaledIntegers: ScaledIntegers? { (source as? ScaledSource)?.parts }
}

struct ScaledSource: ConstantSource {
    let parts: ScaledIntegers

    func transposed() throws -> Constant { Constant(try parts.transposed()) }
    func rows(_ range: Range<Int>) throws -> Constant { Constant(try parts.rows(range)) }

    func load(_ dataType: DataType, _ shape: [Int]) throws -> Tensor {
        let (integers, scales) = (try parts.integers.load().elements(Int8.self), try parts.scales.load().elements(Float.self))
        let columns = shape[1]
        let (rowStep, columnStep) = scales.count == 1 ? (0, 0) : parts.axis == 0 ? (1, 0) : (0, 1)
        return try Tensor(dataType, shape) { bytes in
            let target = bytes.bindMemory(to: Float.self)
            for row in 0..<shape[0] {
                for column in 0..<columns {
                    let scale = scales[row * rowStep + column * columnStep]
                    target[row * columns + column] = Float(Int(integers[row * columns + column]) - parts.zero) * scale
                }
            }
        }
    }
}
