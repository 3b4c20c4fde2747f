import Kernels
import ModelGraph
import Support
import Tensors

// The block operators in their plain forms.

extension Linear: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let weight = try inputs.required(1)
            func run<T: Number & Real>(_: T.Type) throws {
                try linear(
                    inputs.required(0), weight.source(T.self), width: weight.shape[1], inputs.optional(2), outputs[0], on: pool)
            }
            if outputs[0].dataType == .float64 { try run(Double.self) } else { try run(Float.self) }
        }
    }
}

/// y = x · Wᵀ + b
private func linear<T: Number & Real>(
    _ x: TensorView, _ weight: Source<T>, width: Int, _ bias: TensorView?, _ y: MutableTensorView, on pool: ThreadPool
) throws {
    guard let outputs = y.shape.last, x.shape.last == width else {
        throw TripsError.data("width of x", found: x.type, expected: "\(width)")
    }
    if let bias { y.copy(from: bias, strides: y.shape.indices.map { $0 == y.shape.count - 1 ? 1 : 0 }, on: pool) }
    try multiply(
        outputs == 0 ? 0 : y.count / outputs, outputs, width, Matrix(elements: x.source(T.self), stride: max(1, width)),
        Matrix(elements: weight, stride: max(1, width), transposed: true), beta: bias == nil ? 0 : 1, y.target(T.self),
        stride: outputs, on: pool)
}

extension QuantizedLinear: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (weight, scales) = (try inputs.required(1), try inputs.required(2))
        let x = try scaled(inputs.required(0), by: inputs.optional(4), on: pool)
        try withExtendedLifetime(x) {
            switch activations {
            case .float32:
                let wide = try widenedWeight(weight, scales)
                try wide.withTarget {
                    try linear(x.view, $0.source, width: weight.shape[1], inputs.optional(3), outputs[0], on: pool)
                }
            case .int8: try multiplyIntegers(x.view, weight, scales, inputs.optional(3), outputs[0], on: pool)
            }
        }
    }

    private func scaled(_ x: TensorView, by scale: TensorView?, on pool: ThreadPool) throws -> Tensor {
        let x = try x.tensor()
        guard let scale else { return x }
        return try evaluate(Binary(.mul), [x, scale.tensor()], on: pool)[0]
    }

    private func widenedWeight(_ weight: TensorView, _ scales: TensorView) throws -> Scratch<Float> {
        let (rows, columns, groups) = (weight.shape[0], weight.shape[1], scales.shape[1])
        let (levels, factors) = (weight.source(Int8.self), scales.source(Float.self))
        let wide = try Scratch<Float>(rows * columns)
        try wide.withTarget { target in
            for row in 0..<rows {
                for column in 0..<columns {
                    target[row * columns + column] =
                        Float(levels[row * columns + column]) * factors[row * groups + column / groupSize]
                }
            }
        }
        return wide
    }

    /// Rows of x are quantized symmetrically: scale = largest magnitude / 127, halves go to the even neighbour. Products of
    /// a group are summed up exactly, groups in single precision, in order.
    private func multiplyIntegers(
        _ x: TensorView, _ weight: TensorView, _ scales: TensorView, _ bias: TensorView?, _ y: MutableTensorView,
        on pool: ThreadPool
    ) throws {
        let (outputs, width, groups) = (weight.shape[0], weight.shape[1], scales.shape[1])
        guard x.shape.last == width, y.shape.last == outputs else {
            throw TripsError.data("width of x", found: x.type, expected: "\(width)")
        }
        let (source, levels, factors, target) = (
            x.source(Float.self), weight.source(Int8.self), scales.source(Float.self), y.target(Float.self)
        )
        let (addends, groupSize) = (bias?.source(Float.self), groupSize)
        parallel(outputs == 0 ? 0 : y.count / outputs, grain: 1, on: pool) { part in
            for row in part {
                let quantized = quantizedRow(source + row * width, count: width)
                for output in 0..<outputs {
                    var total = Float(0)
                    for group in 0..<groups {
                        var sum = 0
                        for column in group * groupSize..<min(width, (group + 1) * groupSize) {
                            sum += Int(quantized.levels[column]) * Int(levels[output * width + column])
                        }
                        total += Float(sum) * factors[output * groups + group]
                    }
                    target[row * outputs + output] = total * quantized.scale + (addends?[output] ?? 0)
                }
            }
        }
    }
}

/// A row as integers of -127 ... 127 and the scale that gives it back; as in the kernels (`trips_quantize_rows`), a row of tiny numbers
/// is 0, and one that is not finite throughout is NaN.
private func quantizedRow(_ x: Source<Float>, count: Int) -> (levels: [Int8], scale: Float) {
    var largest = Float(0)
    for index in 0..<count {
        guard x[index].isFinite else { return (Array(repeating: 0, count: count), .nan) }
        largest = max(largest, x[index].magnitude)
    }
    guard largest >= 1e-35 else { return (Array(repeating: 0, count: count), 0) }
    let inverse = 127 / largest
    let levels = (0..<count).map { index -> Int8 in saturating((x[index] * inverse).rounded(.toNearestOrEven)) }
    return (levels, largest / 127)
}

extension LayerNorm: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try LayerNormalization(axis: -1, epsilon: epsilon).compute(inputs, into: outputs, on: pool)
    }
}

extension GELU: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            guard x.dataType == .float64 else { return activate(x, outputs[0], activation, on: pool) }
            let (source, target, form) = (x.source(Double.self), outputs[0].target(Double.self), form)
            let (half, deep) = (0.5.squareRoot(), (2 / Double.pi).squareRoot())
            parallel(x.count, grain: taskGrain, on: pool) { part in
                for index in part {
                    let x = source[index]
                    target[index] =
                        switch form {
                        case .erf: 0.5 * x * (1 + Double.erf(x * half))
                        case .tanh: 0.5 * x * (1 + Double.tanh(deep * (x + 0.044715 * x * x * x)))
                        case .quick: x * sigmoid(1.702 * x)
                        }
                }
            }
        }
    }

    /// The kernels' name for it.
    package var activation: trips_activation {
        switch form {
        case .erf: TRIPS_ACTIVATION_GELU_ERF
        case .tanh: TRIPS_ACTIVATION_GELU_TANH
        case .quick: TRIPS_ACTIVATION_QUICK_GELU
        }
    }
}

extension L2Normalize: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            let width = x.shape.last ?? 1
            func run<T: Real>(_: T.Type) {
                let (source, target, epsilon) = (x.source(T.self), outputs[0].target(T.self), Double(epsilon))
                parallel(width == 0 ? 0 : x.count / width, grain: taskGrain / max(1, width), on: pool) { part in
                    for row in part {
                        let values = UnsafeBufferPointer(start: (source + row * width).base, count: width)
                        let length = max(epsilon, sum(values) { Double($0) * Double($0) }.squareRoot())
                        for index in 0..<width { target[row * width + index] = T(Double(values[index]) / length) }
                    }
                }
            }
            if x.dataType == .float64 { run(Double.self) } else { run(Float.self) }
        }
    }
}

extension Embedding: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let ids = try inputs.required(0).tensor().converted(to: .int64)
            try withExtendedLifetime(ids) {
                try Gather(axis: 0).compute([inputs.required(1), ids.view], into: [outputs[0]], on: pool)
            }
            try add(inputs.dropFirst(2).compactMap { $0 }, to: outputs[0], on: pool)
        }
    }
}

/// y = y + the addends, which broadcast to it.
func add(_ addends: [TensorView], to y: MutableTensorView, on pool: ThreadPool) throws {
    for addend in addends { try Binary(.add).compute([y.readOnly, addend], into: [y], on: pool) }
}

extension QuantizedEmbedding: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (table, scales, y) = (try inputs.required(1), try inputs.required(2), outputs[0])
        let width = table.shape[1]
        let ids = try inputs.required(0).tensor().converted(to: .int64)
        let rows = try withExtendedLifetime(ids) { try ids.view.indices(below: table.shape[0]) }
        let (levels, factors, target) = (table.source(Int8.self), scales.source(Float.self), y.target(Float.self))
        parallel(rows.count, grain: taskGrain / max(1, width), on: pool) { part in
            for row in part {
                for column in 0..<width {
                    target[row * width + column] = Float(levels[rows[row] * width + column]) * factors[rows[row]]
                }
            }
        }
        try add(inputs.dropFirst(3).compactMap { $0 }, to: y, on: pool)
    }
}

extension PaddingMask: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let mask = try inputs.required(0)
        let numbers = try mask.tensor().converted(to: .float32).elements(Float.self)
        let (batch, length) = (mask.shape[0], mask.shape[1])
        let target = outputs[0].target(Float.self)
        let rows = causal ? length : 1
        for b in 0..<batch {
            for row in 0..<rows {
                for key in 0..<length {
                    let seen = causal && key > row ? 0 : numbers[b * length + key]
                    target[(b * rows + row) * length + key] = (1 - seen) * maskedValue
                }
            }
        }
    }
}
