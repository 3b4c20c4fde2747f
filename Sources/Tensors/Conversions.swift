import Support

extension Tensor {
    /// The same numbers in another type. Floating point to integer rounds towards zero and saturates, NaN becomes 0;
    /// integer to integer keeps the low bits; to `bool`, everything but zero is true.
    public func converted(to newType: DataType) throws -> Tensor {
        if newType == dataType { return self }
        return try .zeroed(newType, shape) { convert(view, into: $0) }
    }

    /// The elements in row-major order as integers, rounded as `converted` does.
    public func integers() throws -> [Int] { try converted(to: .int64).elements(Int64.self).map { Int($0) } }

    /// The elements in row-major order in double precision.
    public func numbers() throws -> [Double] { try converted(to: .float64).elements() }

    /// A finite number that is out of a narrower floating-point type's range, in words; nil where all fit.
    package func number(beyond newType: DataType) -> String? {
        func first<Number: TensorElement & BinaryFloatingPoint>(_: Number.Type) -> String? {
            // From 65520 on, half precision rounds to infinity. The other types reach as far as float32, or nearly so.
            let limit = newType == .float16 ? 65520 : Number(Float.greatestFiniteMagnitude).nextUp
            return withBytes { $0.bindMemory(to: Number.self).first { $0.isFinite && $0.magnitude >= limit } }.map { "\($0)" }
        }
        guard newType.byteWidth < dataType.byteWidth else { return nil }
        return switch dataType {
        case .float32: first(Float.self)
        case .float64: first(Double.self)
        default: nil
        }
    }

    /// As `converted`, for storing numbers in a narrower floating-point type: what is finite stays so. The largest numbers of
    /// float32, of which masks are made, become the largest of bfloat16.
    /// - Throws: `data` where a finite number is out of the type's range.
    package func rounded(to newType: DataType) throws -> Tensor {
        if let number = number(beyond: newType) {
            throw TripsError.data(
                "a weight does not fit \(newType)", found: number,
                expected: newType == .float16 ? "at most 65504; bf16 holds more" : "the range of float32")
        }
        let rounded = try converted(to: newType)
        return newType == .bfloat16 && dataType.byteWidth > 2 ? try rounded.keepingFinite(self) : rounded
    }

    /// These bfloat16 numbers, but the largest finite one where a finite number of `exact` was rounded to infinity.
    private func keepingFinite(_ exact: Tensor) throws -> Tensor {
        let infinite = withBytes { bytes in
            let bits = bytes.bindMemory(to: UInt16.self)
            return bits.indices.filter { bits[$0] & 0x7FFF == 0x7F80 }
        }
        guard !infinite.isEmpty else { return self }
        let numbers = try exact.numbers()
        return try Tensor(dataType, shape) { target in
            withBytes { target.copyMemory(from: $0) }
            let elements = target.bindMemory(to: UInt16.self)
            for index in infinite where numbers[index].isFinite { elements[index] -= 1 }
        }
    }

    /// A matrix with its two dimensions exchanged.
    public func transposed() throws -> Tensor {
        guard shape.count == 2 else { throw TripsError.data("transposing", found: "rank \(shape.count)", expected: "rank 2") }
        let (rows, columns) = (shape[0], shape[1])
        return try Tensor(dataType, [columns, rows]) { target in
            withBytes { source in
                switch dataType.byteWidth {
                case 1: transpose(source.bindMemory(to: UInt8.self), target.bindMemory(to: UInt8.self), rows, columns)
                case 2: transpose(source.bindMemory(to: UInt16.self), target.bindMemory(to: UInt16.self), rows, columns)
                case 4: transpose(source.bindMemory(to: UInt32.self), target.bindMemory(to: UInt32.self), rows, columns)
                default: transpose(source.bindMemory(to: UInt64.self), target.bindMemory(to: UInt64.self), rows, columns)
                }
            }
        }
    }
}

/// Transposes in blocks that stay in cache.
private func transpose<Element>(
    _ source: UnsafeBufferPointer<Element>, _ target: UnsafeMutableBufferPointer<Element>, _ rows: Int, _ columns: Int
) {
    let block = 32
    for row in stride(from: 0, to: rows, by: block) {
        for column in stride(from: 0, to: columns, by: block) {
            for i in row..<min(row + block, rows) {
                for j in column..<min(column + block, columns) { target[j * rows + i] = source[i * columns + j] }
            }
        }
    }
}

/// Converts element by element; both views have as many elements.
package func convert(_ source: TensorView, into target: MutableTensorView) {
    if source.dataType == target.dataType {
        target.bytes.copyMemory(from: source.bytes, byteCount: source.count * source.dataType.byteWidth)
        return
    }
    switch source.dataType {
    case .float64: convertFloats(source.elements(Double.self), target)
    case .float32: convertFloats(source.elements(Float.self), target)
    case .float16:
        let half = source.elements(UInt16.self)
        convertFloats(half.lazy.map { Float(halfBits: $0) }, target)
    case .bfloat16:
        let half = source.elements(UInt16.self)
        convertFloats(half.lazy.map { Float(bitPattern: UInt32($0) << 16) }, target)
    case .int64: convertIntegers(source.elements(Int64.self), target)
    case .int32: convertIntegers(source.elements(Int32.self), target)
    case .int16: convertIntegers(source.elements(Int16.self), target)
    case .int8: convertIntegers(source.elements(Int8.self), target)
    case .uint64: convertIntegers(source.elements(UInt64.self), target)
    case .uint32: convertIntegers(source.elements(UInt32.self), target)
    case .uint16: convertIntegers(source.elements(UInt16.self), target)
    case .uint8, .bool: convertIntegers(source.elements(UInt8.self), target)
    }
}

private func convertFloats<Source: Sequence>(_ source: Source, _ target: MutableTensorView)
where Source.Element: BinaryFloatingPoint {
    func write<Element: TensorElement>(_: Element.Type, _ transform: (Source.Element) -> Element) {
        let elements = target.elements(Element.self)
        for (index, value) in source.enumerated() { elements[index] = transform(value) }
    }
    switch target.dataType {
    case .float64: write(Double.self) { Double($0) }
    case .float32: write(Float.self) { Float($0) }
    case .float16: write(UInt16.self) { Float($0).halfBits }
    case .bfloat16: write(UInt16.self) { Float($0).bfloatBits }
    case .int64: write(Int64.self) { saturating($0) }
    case .int32: write(Int32.self) { saturating($0) }
    case .int16: write(Int16.self) { saturating($0) }
    case .int8: write(Int8.self) { saturating($0) }
    case .uint64: write(UInt64.self) { saturating($0) }
    case .uint32: write(UInt32.self) { saturating($0) }
    case .uint16: write(UInt16.self) { saturating($0) }
    case .uint8: write(UInt8.self) { saturating($0) }
    case .bool: write(UInt8.self) { $0 == 0 ? 0 : 1 }
    }
}

private func convertIntegers<Source: Sequence>(_ source: Source, _ target: MutableTensorView)
where Source.Element: FixedWidthInteger {
    func write<Element: TensorElement>(_: Element.Type, _ transform: (Source.Element) -> Element) {
        let elements = target.elements(Element.self)
        for (index, value) in source.enumerated() { elements[index] = transform(value) }
    }
    switch target.dataType {
    case .float64: write(Double.self) { Double($0) }
    case .float32: write(Float.self) { Float($0) }
    case .float16: write(UInt16.self) { Float($0).halfBits }
    case .bfloat16: write(UInt16.self) { Float($0).bfloatBits }
    case .int64: write(Int64.self) { Int64(truncatingIfNeeded: $0) }
    case .int32: write(Int32.self) { Int32(truncatingIfNeeded: $0) }
    case .int16: write(Int16.self) { Int16(truncatingIfNeeded: $0) }
    case .int8: write(Int8.self) { Int8(truncatingIfNeeded: $0) }
    case .uint64: write(UInt64.self) { UInt64(truncatingIfNeeded: $0) }
    case .uint32: write(UInt32.self) { UInt32(truncatingIfNeeded: $0) }
    case .uint16: write(UInt16.self) { UInt16(truncatingIfNeeded: $0) }
    case .uint8: write(UInt8.self) { UInt8(truncatingIfNeeded: $0) }
    case .bool: write(UInt8.self) { $0 == 0 ? 0 : 1 }
    }
}

/// Rounds towards zero; saturates; NaN becomes 0.
package func saturating<Value: BinaryFloatingPoint, Result: FixedWidthInteger>(_ value: Value) -> Result {
    if value.isNaN { return 0 }
    return Result(exactly: value.rounded(.towardZero)) ?? (value < 0 ? .min : .max)
}

extension Float {
    /// The value of an IEEE 754 half-precision bit pattern.
    package init(halfBits bits: UInt16) {
        let sign = UInt32(bits & 0x8000) << 16
        let exponent = UInt32(bits >> 10) & 0x1F
        let fraction = UInt32(bits & 0x3FF)
        switch exponent {
        case 0:
            let magnitude = Float(fraction) * Float(sign: .plus, exponent: -24, significand: 1)
            self = sign == 0 ? magnitude : -magnitude
        case 31: self.init(bitPattern: sign | 0x7F80_0000 | fraction << 13)
        default: self.init(bitPattern: sign | (exponent + 112) << 23 | fraction << 13)
        }
    }

    /// The nearest half-precision bit pattern, ties to even; too large becomes infinite, NaN stays NaN.
    var halfBits: UInt16 {
        let sign = UInt16(truncatingIfNeeded: bitPattern >> 16) & 0x8000
        let magnitude = bitPattern & 0x7FFF_FFFF
        if magnitude > 0x7F80_0000 { return sign | 0x7E00 }
        if magnitude >= 0x4780_0000 { return sign | 0x7C00 }
        if magnitude < 0x3880_0000 {
            // Adding 0.5 puts the subnormal's last place at the float's, so that the addition itself rounds.
            let shifted = Float(bitPattern: magnitude) + 0.5
            return sign | UInt16(truncatingIfNeeded: shifted.bitPattern &- 0x3F00_0000)
        }
        let rounded = magnitude &+ 0xFFF &+ (magnitude >> 13 & 1)
        return sign | UInt16(truncatingIfNeeded: (rounded >> 13) &- (112 << 10))
    }

    /// The nearest bfloat16 bit pattern, ties to even; NaN stays NaN.
    var bfloatBits: UInt16 {
        if isNaN { return UInt16(truncatingIfNeeded: bitPattern >> 16) | 0x40 }
        return UInt16(truncatingIfNeeded: (bitPattern &+ 0x7FFF &+ (bitPattern >> 16 & 1)) >> 16)
    }
}
