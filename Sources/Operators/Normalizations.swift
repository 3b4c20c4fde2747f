import ModelGraph
import Support
import Tensors

/// Mean and 1 / sqrt(variance + epsilon) of a row, in double precision.
@inline(__always)
private func moments<T: Real>(_ row: UnsafeBufferPointer<T>, epsilon: Double) -> (mean: Double, inverseDeviation: Double) {
    let count = Double(row.count)
    let mean = sum(row) { Double($0) } / count
    let variance = sum(row) { (Double($0) - mean) * (Double($0) - mean) } / count
    return (mean, 1 / (variance + epsilon).squareRoot())
}

/// y = (x - mean) · inverse deviation for rows of `count` elements; scale and bias come later.
private func normalizeRows<T: Real>(
    _: T.Type, _ x: TensorView, _ y: MutableTensorView, count: Int, epsilon: Float, mean: Target<Float>? = nil,
    deviation: Target<Float>? = nil, on pool: ThreadPool
) {
    let (source, target) = (x.source(T.self), y.target(T.self))
    parallel(count == 0 ? 0 : x.count / count, grain: taskGrain / max(1, count), on: pool) { part in
        for row in part {
            let values = UnsafeBufferPointer(start: (source + row * count).base, count: count)
            let (center, factor) = moments(values, epsilon: Double(epsilon))
            for index in 0..<count { target[row * count + index] = T((Double(values[index]) - center) * factor) }
            mean?[row] = Float(center)
            deviation?[row] = Float(factor)
        }
    }
}

/// y = y · scale + bias, where scale and bias are read with the given strides over y's shape.
private func scaleAndShift<T: Real>(
    _: T.Type, _ y: MutableTensorView, _ scale: TensorView, _ scaleStrides: [Int], _ bias: TensorView?, _ biasStrides: [Int],
    on pool: ThreadPool
) {
    let target = y.target(T.self)
    let factors = scale.source(T.self)
    StridedLoop(y.shape, [denseStrides(y.shape), scaleStrides, denseStrides(y.shape)]).rows(
        target.source, factors, target, on: pool
    ) { $0.map { $0 * $1 } }
    guard let bias else { return }
    let addends = bias.source(T.self)
    StridedLoop(y.shape, [denseStrides(y.shape), biasStrides, denseStrides(y.shape)]).rows(target.source, addends, target, on: pool)
    { $0.map { $0 + $1 } }
}

/// The strides with which a number for each channel is read over [B, C, ...].
private func channelStrides(_ rank: Int) -> [Int] { (0..<rank).map { $0 == 1 ? 1 : 0 } }

extension LayerNormalization: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let (x, y, scale, bias) = (try inputs.required(0), outputs[0], try inputs.required(1), inputs.optional(2))
            let count = x.shape[try resolveAxis(axis, rank: x.shape.count)...].reduce(1, *)
            let strides = (
                try broadcastStrides(scale.shape, to: y.shape), try bias.map { try broadcastStrides($0.shape, to: y.shape) } ?? []
            )
            let (mean, deviation) = outputs.count > 2 ? (outputs[1].target(Float.self), outputs[2].target(Float.self)) : (nil, nil)
            func run<T: Real>(_: T.Type) {
                normalizeRows(T.self, x, y, count: count, epsilon: epsilon, mean: mean, deviation: deviation, on: pool)
                scaleAndShift(T.self, y, scale, strides.0, bias, strides.1, on: pool)
            }
            if x.dataType == .float64 { run(Double.self) } else { run(Float.self) }
        }
    }
}

extension RMSNormalization: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let (x, scale) = (try inputs.required(0), try inputs.required(1))
            let wide = x.dataType == .float64 || scale.dataType == .float64
            try converting([x, scale], to: wide ? .float64 : .float32, result: outputs[0]) { views, y in
                let count = x.shape[try resolveAxis(axis, rank: x.shape.count)...].reduce(1, *)
                let strides = try broadcastStrides(scale.shape, to: y.shape)
                func run<T: Real>(_: T.Type) {
                    let (source, target, epsilon) = (views[0].source(T.self), y.target(T.self), Double(epsilon))
                    parallel(count == 0 ? 0 : x.count / count, grain: taskGrain / max(1, count), on: pool) { part in
                        for row in part {
                            let values = UnsafeBufferPointer(start: (source + row * count).base, count: count)
                            let factor = 1 / (sum(values) { Double($0) * Double($0) } / Double(count) + epsilon).squareRoot()
                            for index in 0..<count { target[row * count + index] = T(Double(values[index]) * factor) }
                        }
                    }
                    scaleAndShift(T.self, y, views[1], strides, nil, [], on: pool)
                }
                if wide { run(Double.self) } else { run(Float.self) }
            }
        }
    }
}

extension GroupNormalization: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            try normalizeChannels(inputs, outputs[0], groups: groups, epsilon: epsilon, on: pool)
        }
    }
}

extension InstanceNormalization: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            try normalizeChannels(inputs, outputs[0], groups: try inputs.required(0).shape[1], epsilon: epsilon, on: pool)
        }
    }
}

/// Normalises groups of channels of [B, C, ...]; scale and bias are per channel or per group.
private func normalizeChannels(
    _ inputs: [TensorView?], _ y: MutableTensorView, groups: Int, epsilon: Float, on pool: ThreadPool
) throws {
    let (x, scale, bias) = (try inputs.required(0), try inputs.required(1), try inputs.required(2))
    let (batch, channels) = (x.shape[0], x.shape[1])
    guard x.count > 0, groups > 0, channels % groups == 0, [channels, groups].contains(scale.count),
        [channels, groups].contains(bias.count)
    else {
        if x.count == 0 { return }
        throw TripsError.data("channels", found: "\(x.type), scale \(scale.type)", expected: "\(groups) groups")
    }
    let perGroup = channels / groups
    let area = x.count / (batch * channels)
    let grouped = y.reshaped([batch, groups, perGroup, area])
    func strides(_ parameter: TensorView) -> [Int] {
        parameter.count == channels ? [0, perGroup, 1, 0] : [0, 1, 0, 0]
    }
    func run<T: Real>(_: T.Type) {
        normalizeRows(T.self, x, y, count: perGroup * area, epsilon: epsilon, on: pool)
        scaleAndShift(T.self, grouped, scale, strides(scale), bias, strides(bias), on: pool)
    }
    if x.dataType == .float64 { run(Double.self) } else { run(Float.self) }
}

extension BatchNormalization: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let (x, y) = (try inputs.required(0), outputs[0])
            let parameters = try (1...4).map { try inputs.required($0).numbers() }
            let channels = parameters[0].count
            let (scale, bias, mean, variance) = (parameters[0], parameters[1], parameters[2], parameters[3])
            // x · factor + addend: one pass.
            let factors = (0..<channels).map { scale[$0] / (variance[$0] + Double(epsilon)).squareRoot() }
            let addends = (0..<channels).map { bias[$0] - mean[$0] * factors[$0] }
            let strides = channelStrides(x.shape.count)
            func run<T: Real>(_: T.Type) {
                let (source, target) = (x.source(T.self), y.target(T.self))
                StridedLoop(x.shape, [denseStrides(x.shape), strides]).run(on: pool) { offset, stride, count in
                    for index in 0..<count {
                        let channel = offset[1] + index * stride[1]
                        let place = offset[0] + index * stride[0]
                        target[place] = T(Double(source[place]) * factors[channel] + addends[channel])
                    }
                }
            }
            if x.dataType == .float64 { run(Double.self) } else { run(Float.self) }
        }
    }
}

extension LpNormalization: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            let rows = AxisRows(x.shape, axis: try resolveAxis(axis, rank: x.shape.count))
            func run<T: Real>(_: T.Type) {
                let (source, target, squares) = (x.source(T.self), outputs[0].target(T.self), p == 2)
                parallel(rows.count, grain: taskGrain / max(1, rows.size), on: pool) { part in
                    for row in part {
                        let start = rows.start(row)
                        var total = 0.0
                        for index in 0..<rows.size {
                            let value = Double(source[start + index * rows.inner])
                            total += squares ? value * value : value.magnitude
                        }
                        let norm = squares ? total.squareRoot() : total
                        for index in 0..<rows.size {
                            let place = start + index * rows.inner
                            target[place] = norm == 0 ? 0 : T(Double(source[place]) / norm)
                        }
                    }
                }
            }
            if x.dataType == .float64 { run(Double.self) } else { run(Float.self) }
        }
    }
}
