import ModelGraph
import Support
import Tensors

// Operators that move elements without computing with them, and those that make tensors from sizes.

/// Operators that keep the elements and their order.
private func reinterpret(_ op: some Operator, _ inputs: [TensorView?], _ outputs: [MutableTensorView]) throws {
    let x = try inputs.required(0)
    guard x.count == outputs[0].count else {
        throw TripsError.data(
            "output of \(type(of: op).name)", found: outputs[0].readOnly.type, expected: "as many elements as \(x.type)")
    }
    outputs[0].copy(from: x)
}

extension Reshape: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try reinterpret(self, inputs, outputs)
    }
}

extension Flatten: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try reinterpret(self, inputs, outputs)
    }
}

extension Squeeze: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try reinterpret(self, inputs, outputs)
    }
}

extension Unsqueeze: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try reinterpret(self, inputs, outputs)
    }
}

extension Shape: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let shape = try inputs.required(0).shape
        let sizes = outputs[0].elements(Int64.self)
        for (index, axis) in axes(rank: shape.count).enumerated() { sizes[index] = Int64(shape[axis]) }
    }
}

extension Size: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        outputs[0].elements(Int64.self)[0] = Int64(try inputs.required(0).count)
    }
}

extension ConstantOfShape: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try checkTypes(inputs, outputs)
        let zero = try Tensor(scalar: Float(0))
        withExtendedLifetime(zero) { outputs[0].fill(with: inputs.optional(1) ?? zero.view, on: pool) }
    }
}

extension Arange: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try checkTypes(inputs, outputs)
        try widened(inputs, outputs) { inputs, outputs in
            try dispatch(
                outputs[0].dataType,
                Progression(start: inputs.required(0), delta: inputs.required(2), y: outputs[0]))
        }
    }

    private struct Progression: TypedBody {
        let start, delta: TensorView, y: MutableTensorView

        func floating<T: Real & Number>(_: T.Type) throws { try fill(T.self) { $0 + $1 * T($2) } }
        func integer<T: FixedWidthInteger & Number>(_: T.Type) throws {
            try fill(T.self) { $0 &+ $1 &* T(truncatingIfNeeded: $2) }
        }

        private func fill<T: Number>(_: T.Type, _ value: (_ start: T, _ delta: T, _ index: Int) -> T) throws {
            let (start, delta, target) = (try start.first(T.self), try delta.first(T.self), y.target(T.self))
            for index in 0..<y.count { target[index] = value(start, delta, index) }
        }
    }
}

extension Expand: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let x = try inputs.required(0)
        try checkTypes(inputs, outputs)
        outputs[0].copy(from: x, strides: try broadcastStrides(x.shape, to: outputs[0].shape), on: pool)
    }
}

extension Tile: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let x = try inputs.required(0)
        try checkTypes(inputs, outputs)
        guard x.count > 0, outputs[0].count > 0 else { return }
        // Each axis becomes two: repeats, which read the same elements, and the axis itself.
        let strides = denseStrides(x.shape).flatMap { [0, $0] }
        let shape = zip(x.shape, outputs[0].shape).flatMap { [$1 / $0, $0] }
        outputs[0].reshaped(shape).copy(from: x, strides: strides, on: pool)
    }
}

extension Transpose: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let x = try inputs.required(0)
        let strides = denseStrides(x.shape)
        outputs[0].copy(from: x, strides: try resolved(rank: x.shape.count).map { strides[$0] }, on: pool)
    }
}

extension Concat: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let y = outputs[0]
        let axis = try resolveAxis(axis, rank: y.shape.count)
        let strides = denseStrides(y.shape)
        let parts = try inputs.indices.map { try inputs.required($0) }
        guard parts.reduce(0, { $0 + $1.shape[axis] }) == y.shape[axis] else {
            throw TripsError.data("sizes of joined parts", found: "\(parts.map(\.shape))", expected: "\(y.shape)")
        }
        var start = 0
        for part in parts {
            var expected = y.shape
            expected[axis] = part.shape[axis]
            guard part.shape == expected else {
                throw TripsError.data("shape of a joined part", found: part.type, expected: "\(expected)")
            }
            let width = part.dataType.byteWidth
            copyStrided(
                part.shape, byteWidth: width, from: part.bytes, denseStrides(part.shape),
                to: y.bytes + start * strides[axis] * width, strides, on: pool)
            start += part.shape[axis]
        }
    }
}

extension Split: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let x = try inputs.required(0)
        try checkTypes(inputs, outputs)
        let axis = try resolveAxis(axis, rank: x.shape.count)
        let strides = denseStrides(x.shape)
        var start = 0
        for output in outputs {
            output.copy(from: x, offset: start * strides[axis], strides: strides, on: pool)
            start += output.shape[axis]
        }
    }
}

extension Slice: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let x = try inputs.required(0)
        try checkTypes(inputs, outputs)
        guard outputs[0].count > 0 else { return }
        let (starts, ends) = (try inputs.required(1).integers(), try inputs.required(2).integers())
        let axes = try resolveAxes(try inputs.optional(3)?.integers() ?? Array(starts.indices), rank: x.shape.count)
        let steps = try inputs.optional(4)?.integers()
        var (strides, offset) = (denseStrides(x.shape), 0)
        for (index, axis) in axes.enumerated() {
            let step = steps?[index] ?? 1
            let bounds = try Slice.bounds(size: x.shape[axis], start: starts[index], end: ends[index], step: step)
            offset += bounds.first * strides[axis]
            // With one element left there is no next one; its step may be any number.
            strides[axis] = bounds.count > 1 ? strides[axis] * step : 0
        }
        outputs[0].copy(from: x, offset: offset, strides: strides, on: pool)
    }
}

extension Pad: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (x, y) = (try inputs.required(0), outputs[0])
        try checkTypes(inputs, outputs)
        guard y.count > 0 else { return }
        let amounts = try inputs.required(1).integers()
        let axes = try resolveAxes(try inputs.optional(3)?.integers() ?? Array(x.shape.indices), rank: x.shape.count)
        let strides = denseStrides(x.shape)
        var before = Array(repeating: 0, count: x.shape.count)
        for (index, axis) in axes.enumerated() { before[axis] = amounts[index] }
        // Where each place along an axis is read, nil for the padding's own value.
        let places = x.shape.indices.map { axis in
            (0..<y.shape[axis]).map { place(of: $0 &- before[axis], size: x.shape[axis]).map { $0 * strides[axis] } }
        }
        func pad<Element: FixedWidthInteger & Sendable>(_: Element.Type) throws {
            let value = try inputs.optional(2)?.first(Element.self) ?? 0
            let (source, target) = (x.source(Element.self), y.target(Element.self))
            guard let inner = places.last else { return target[0] = source[0] }
            let rows = y.shape.dropLast().reduce(1, *)
            let inside = inside(inner.count, before[before.count - 1], size: x.shape[x.shape.count - 1])
            parallel(rows, grain: taskGrain / max(1, inner.count), on: pool) { part in
                for row in part {
                    let output = target + row * inner.count
                    if let start = rowStart(row, places) {
                        copyRow(source + start, to: output, inner, inside: inside, value)
                    } else {
                        output.base.update(repeating: value, count: inner.count)
                    }
                }
            }
        }
        switch x.dataType.byteWidth {
        case 1: try pad(UInt8.self)
        case 2: try pad(UInt16.self)
        case 4: try pad(UInt32.self)
        default: try pad(UInt64.self)
        }
    }

    /// - Parameters:
    ///   - places: where each element of the row is read; nil for the padding's own value.
    ///   - inside: the elements that are read consecutively.
    private func copyRow<Element>(
        _ source: Source<Element>, to target: Target<Element>, _ places: [Int?], inside: Range<Int>, _ value: Element
    ) {
        if let first = inside.first, let place = places[first] {
            (target + first).base.update(from: (source + place).base, count: inside.count)
        }
        for part in [0..<inside.lowerBound, inside.upperBound..<places.count] {
            for index in part { target[index] = if let place = places[index] { source[place] } else { value } }
        }
    }

    /// The places along an axis that copy consecutive elements of the input.
    private func inside(_ count: Int, _ before: Int, size: Int) -> Range<Int> {
        let first = min(max(before, 0), count)
        let (end, overflow) = before.addingReportingOverflow(size)
        return first..<max(first, min(overflow ? count : end, count))
    }

    /// The index of the element that a place copies, given its own index, which may lie outside; nil for the padding's own value.
    private func place(of index: Int, size: Int) -> Int? {
        if index >= 0 && index < size { return index }
        switch mode {
        case .constant: return nil
        case .edge: return index < 0 ? 0 : size - 1
        case .wrap: return (index % size + size) % size
        case .reflect:
            if size == 1 { return 0 }
            let period = 2 * (size - 1)
            let folded = (index % period + period) % period
            return min(folded, period - folded)
        }
    }

    private func rowStart(_ row: Int, _ places: [[Int?]]) -> Int? {
        var (rest, offset) = (row, 0)
        for axis in places.indices.dropLast().reversed() {
            guard let place = places[axis][rest % places[axis].count] else { return nil }
            offset += place
            rest /= places[axis].count
        }
        return offset
    }
}
