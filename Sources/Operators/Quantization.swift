import ModelGraph
import Support
import Tensors

/// The strides with which scales or zero points are read over x's shape.
private func scaleStrides(_ x: TensorView, _ scale: TensorView, axis: Int, blockSize: Int) throws -> [Int] {
    if blockSize > 0 { return denseStrides(x.shape) }
    if scale.count == 1 { return x.shape.map { _ in 0 } }
    let axis = try resolveAxis(axis, rank: x.shape.count)
    return x.shape.indices.map { $0 == axis ? 1 : 0 }
}

/// Scales or zero points in another type; those of blocks are written out for each element. The last block may be shorter.
private func spread(
    _ scale: TensorView, as type: DataType, over x: TensorView, axis: Int, blockSize: Int, on pool: ThreadPool
) throws -> Tensor {
    let scale = try scale.tensor().converted(to: type)
    guard blockSize > 0 else { return scale }
    let axis = try resolveAxis(axis, rank: x.shape.count)
    let blocks = (0..<x.shape[axis]).map { Int64($0 / blockSize) }
    return try evaluate(Gather(axis: axis), [scale, Tensor(blocks, shape: [blocks.count])], on: pool)[0]
}

extension QuantizeLinear: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (x, scale, y) = (try inputs.required(0), try inputs.required(1), outputs[0])
        let strides = try scaleStrides(x, scale, axis: axis, blockSize: blockSize)
        let wide = try x.tensor().converted(to: .float32)
        let factors = try spread(scale, as: .float32, over: x, axis: axis, blockSize: blockSize, on: pool)
        let zeros = try inputs.optional(2).map { try spread($0, as: .int64, over: x, axis: axis, blockSize: blockSize, on: pool) }
        func quantize<T: FixedWidthInteger & Sendable>(_: T.Type) {
            withExtendedLifetime((wide, factors, zeros)) {
                let (source, scales, target) = (wide.view.source(Float.self), factors.view.source(Float.self), y.target(T.self))
                let zeroPoints = zeros?.view.source(Int64.self)
                StridedLoop(x.shape, [denseStrides(x.shape), strides]).run(on: pool) { offset, stride, count in
                    for index in 0..<count {
                        let place = offset[1] + index * stride[1]
                        let level = (source[offset[0] + index * stride[0]] / scales[place]).rounded(.toNearestOrEven)
                        target[offset[0] + index * stride[0]] = saturating(Double(level) + Double(zeroPoints?[place] ?? 0))
                    }
                }
            }
        }
        switch y.dataType {
        case .int8: quantize(Int8.self)
        case .uint8: quantize(UInt8.self)
        case .int16: quantize(Int16.self)
        case .uint16: quantize(UInt16.self)
        case .int32: quantize(Int32.self)
        default: throw TripsError.data("quantized type", found: y.dataType, expected: "int8, uint8, int16, uint16 or int32")
        }
    }
}

extension DequantizeLinear: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (x, scale) = (try inputs.required(0), try inputs.required(1))
        let strides = try scaleStrides(x, scale, axis: axis, blockSize: blockSize)
        let factors = try spread(scale, as: .float64, over: x, axis: axis, blockSize: blockSize, on: pool)
        let zeros = try inputs.optional(2).map { try spread($0, as: .int64, over: x, axis: axis, blockSize: blockSize, on: pool) }
        try converting([x], to: .float64, result: outputs[0]) { views, y in
            withExtendedLifetime((factors, zeros)) {
                let (source, scales, target) = (
                    views[0].source(Double.self), factors.view.source(Double.self), y.target(Double.self)
                )
                let zeroPoints = zeros?.view.source(Int64.self)
                StridedLoop(x.shape, [denseStrides(x.shape), strides]).run(on: pool) { offset, stride, count in
                    for index in 0..<count {
                        let place = offset[1] + index * stride[1]
                        let at = offset[0] + index * stride[0]
                        target[at] = (source[at] - Double(zeroPoints?[place] ?? 0)) * scales[place]
                    }
                }
            }
        }
    }
}

extension DynamicQuantizeLinear: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let x = try inputs.required(0)
        let numbers = x.source(Float.self)
        let (low, high) = (0..<x.count).reduce((Float(0), Float(0))) { (min($0.0, numbers[$1]), max($0.1, numbers[$1])) }
        // Where all are 0, any scale will do.
        let scale = high > low ? (high - low) / 255 : 1
        let zero: UInt8 = saturating(Double((-low / scale).rounded(.toNearestOrEven)))
        outputs[1].target(Float.self)[0] = scale
        outputs[2].target(UInt8.self)[0] = zero
        let (factor, zeroPoint) = (try Tensor(scalar: scale), try Tensor(scalar: zero))
        try withExtendedLifetime((factor, zeroPoint)) {
            try QuantizeLinear().compute([x, factor.view, zeroPoint.view], into: [outputs[0]], on: pool)
        }
    }
}

// Integers of 8 bits less their zero points, and sums of their products, are exact in double precision.

/// x less a zero point that broadcasts to it.
private func difference(_ x: TensorView, _ zero: Tensor?, on pool: ThreadPool) throws -> Tensor {
    let wide = try x.tensor().converted(to: .float64)
    guard let zero else { return wide }
    return try evaluate(Binary(.sub), [wide, zero.converted(to: .float64)], on: pool)[0]
}

extension MatMulInteger: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (a, b) = (try inputs.required(0), try inputs.required(1))
        var zero = try inputs.optional(2)?.tensor()
        if let rows = zero, a.shape.count == 2, rows.shape.count == 1 { zero = try rows.reshaped([rows.count, 1]) }
        let factors = [try difference(a, zero, on: pool), try difference(b, inputs.optional(3)?.tensor(), on: pool)]
        let sums = try evaluate(MatMul(), factors, on: pool)[0]
        withExtendedLifetime(sums) { convert(sums.view, into: outputs[0]) }
    }
}

extension ConvInteger: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (x, weight) = (try inputs.required(0), try inputs.required(1))
        let zero = try inputs.optional(3)?.tensor()
        let byOutput = try zero.map { try $0.reshaped([$0.count] + weight.shape.dropFirst().map { _ in 1 }) }
        let factors = [try difference(x, inputs.optional(2)?.tensor(), on: pool), try difference(weight, byOutput, on: pool)]
        let sums = try evaluate(convolution, factors, on: pool)[0]
        withExtendedLifetime(sums) { convert(sums.view, into: outputs[0]) }
    }
}
