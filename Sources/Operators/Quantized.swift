import ModelGraph
import Support
import Tensors

/// Where the scale of each element stands, as strides over x's shape; with blocks the axis is divided first.
private func scaleLoop(_ x: TensorView, _ scale: TensorView, axis: Int, blockSize: Int) throws -> (shape: [Int], strides: [Int]) {
    if scale.count == 1 && blockSize == 0 { return (x.shape, x.shape.map { _ in 0 }) }
    let axis = try resolveAxis(axis, rank: x.shape.count)
    if blockSize == 0 { return (x.shape, x.shape.indices.map { $0 == axis ? 1 : 0 }) }
    guard x.shape[axis] % blockSize == 0 else {
        throw TripsError.data("size of a blocked axis", found: x.type, expected: "a multiple of \(blockSize)")
    }
    let dense = denseStrides(scale.shape)
    var (shape, strides) = (x.shape, dense)
    shape[axis] /= blockSize
    shape.insert(blockSize, at: axis + 1)
    strides.insert(0, at: axis + 1)
    return (shape, strides)
}

extension QuantizeLinear: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (x, scale, y) = (try inputs.required(0), try inputs.required(1), outputs[0])
        let loop = try scaleLoop(x, scale, axis: axis, blockSize: blockSize)
        let (wide, factors) = (try x.tensor().converted(to: .float32), try scale.tensor().converted(to: .float32))
        let zeros = try inputs.optional(2)?.tensor().converted(to: .int64)
        func quantize<T: FixedWidthInteger & Sendable>(_: T.Type) {
            withExtendedLifetime((wide, factors, zeros)) {
                let (source, scales, target) = (wide.view.source(Float.self), factors.view.source(Float.self), y.target(T.self))
                let zeroPoints = zeros?.view.source(Int64.self)
                StridedLoop(loop.shape, [denseStrides(loop.shape), loop.strides]).run(on: pool) { offset, stride, count in
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
        let loop = try scaleLoop(x, scale, axis: axis, blockSize: blockSize)
        let zeros = try inputs.optional(2)?.tensor().converted(to: .int64)
        try converting([x, scale], to: .float64, result: outputs[0]) { views, y in
            let (source, scales, target) = (views[0].source(Double.self), views[1].source(Double.self), y.target(Double.self))
            withExtendedLifetime(zeros) {
                let zeroPoints = zeros?.view.source(Int64.self)
                StridedLoop(loop.shape, [denseStrides(loop.shape), loop.strides]).run(on: pool) { offset, stride, count in
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
