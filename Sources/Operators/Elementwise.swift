import ModelGraph
import Support
import Tensors

/// Runs `body` on the views converted to one type, and converts its result to the output's type.
func converting(
    _ views: [TensorView], to dataType: DataType, result output: MutableTensorView,
    _ body: ([TensorView], MutableTensorView) throws -> Void
) throws {
    let tensors = try views.map { $0.dataType == dataType ? nil : try $0.tensor().converted(to: dataType) }
    try withExtendedLifetime(tensors) {
        let converted = zip(views, tensors).map { $1?.view ?? $0 }
        if output.dataType == dataType { return try body(converted, output) }
        let result = try Tensor.zeroed(dataType, output.shape) { try body(converted, $0) }
        withExtendedLifetime(result) { convert(result.view, into: output) }
    }
}

extension Where: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (condition, x, y, result) = (try inputs.required(0), try inputs.required(1), try inputs.required(2), outputs[0])
        let loop = StridedLoop(
            result.shape,
            try [condition, x, y].map { try broadcastStrides($0.shape, to: result.shape) } + [denseStrides(result.shape)])
        func choose<Element>(_: Element.Type) {
            let (c, a, b, r) = (
                condition.source(UInt8.self), x.source(Element.self), y.source(Element.self), result.target(Element.self)
            )
            loop.run(on: pool) { offset, stride, count in
                let (c, a, b, r) = (c + offset[0], a + offset[1], b + offset[2], r + offset[3])
                for index in 0..<count {
                    r[index] = c[index &* stride[0]] != 0 ? a[index &* stride[1]] : b[index &* stride[2]]
                }
            }
        }
        switch result.dataType.byteWidth {
        case 1: choose(UInt8.self)
        case 2: choose(UInt16.self)
        case 4: choose(UInt32.self)
        default: choose(UInt64.self)
        }
    }
}

extension Clip: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            try dispatch(
                x.dataType, Clamping(x: x, y: outputs[0], lower: inputs.optional(1), upper: inputs.optional(2), pool: pool))
        }
    }

    private struct Clamping: UniformBody {
        let x: TensorView, y: MutableTensorView, lower, upper: TensorView?, pool: ThreadPool

        func callAsFunction<T: Number>(_: T.Type) throws {
            let (lower, upper) = (try lower?.first(T.self), try upper?.first(T.self))
            let (source, target) = (x.source(T.self), y.target(T.self))
            parallel(x.count, grain: taskGrain, on: pool) { part in
                for index in part {
                    var value = source[index]
                    if let lower, value < lower { value = lower }
                    if let upper, value > upper { value = upper }
                    target[index] = value
                }
            }
        }
    }
}

extension TensorView {
    /// The first element.
    /// - Throws: `data` where there is none.
    func first<Element>(_: Element.Type) throws -> Element {
        guard count > 0 else { throw TripsError.data("an operand without elements", found: type, expected: "one element") }
        return source(Element.self)[0]
    }
}

extension Cast: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        convert(try inputs.required(0), into: outputs[0])
    }
}

extension Identity: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        outputs[0].copy(from: try inputs.required(0))
    }
}
