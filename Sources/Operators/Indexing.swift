import ModelGraph
import Support
import Tensors

extension TensorView {
    /// Indices into an axis of this size; negative ones count from the end.
    /// - Throws: `data` where one is out of range.
    func indices(below size: Int) throws -> [Int] {
        func checked<T: FixedWidthInteger>(_: T.Type) throws -> [Int] {
            let source = source(T.self)
            return try (0..<count).map { place in
                let index = Int(source[place])
                guard index >= -size, index < size else {
                    throw TripsError.data("index \(place)", found: index, expected: "-\(size) ..< \(size)")
                }
                return index < 0 ? index + size : index
            }
        }
        return dataType == .int32 ? try checked(Int32.self) : try checked(Int64.self)
    }
}

extension Gather: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (x, y) = (try inputs.required(0), outputs[0])
        let axis = try resolveAxis(axis, rank: x.shape.count)
        let indices = try inputs.required(1).indices(below: x.shape[axis])
        let rowBytes = x.shape[(axis + 1)...].reduce(1, *) * x.dataType.byteWidth
        let outer = x.shape[..<axis].reduce(1, *)
        let (source, target) = (x.source(UInt8.self), y.target(UInt8.self))
        let size = x.shape[axis]
        parallel(outer * indices.count, grain: taskGrain / max(1, rowBytes), on: pool) { part in
            for row in part {
                let (block, index) = row.quotientAndRemainder(dividingBy: indices.count)
                (target + row * rowBytes).base.update(
                    from: (source + (block * size + indices[index]) * rowBytes).base, count: rowBytes)
            }
        }
    }
}

/// For each element of `indices`, the offset of its position in a tensor of `shape`, with the index in place of its coordinate on
/// the axis.
private func elementOffsets(_ indices: TensorView, in shape: [Int], axis: Int) throws -> [Int] {
    let strides = denseStrides(shape)
    let places = try indices.indices(below: shape[axis])
    guard indices.shape.indices.allSatisfy({ $0 == axis || indices.shape[$0] <= shape[$0] }) else {
        throw TripsError.data("shape of indices", found: indices.type, expected: "within \(shape)")
    }
    let (last, width) = (shape.count - 1, indices.shape[shape.count - 1])
    let step = axis == last ? 0 : strides[last]
    var offsets: [Int] = []
    offsets.reserveCapacity(places.count)
    for first in stride(from: 0, to: places.count, by: max(1, width)) {
        // What the axes but this one and the last contribute.
        var (rest, start) = (first / width, 0)
        for other in (0..<last).reversed() {
            if other != axis { start += rest % indices.shape[other] * strides[other] }
            rest /= indices.shape[other]
        }
        for column in 0..<width { offsets.append(start + places[first + column] * strides[axis] + column * step) }
    }
    return offsets
}

extension GatherElements: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let x = try inputs.required(0)
        let offsets = try elementOffsets(inputs.required(1), in: x.shape, axis: resolveAxis(axis, rank: x.shape.count))
        copyBlocks(offsets, x, outputs[0], block: 1, on: pool)
    }
}

/// Copies a block of elements from each offset of x to consecutive blocks of y.
private func copyBlocks(_ offsets: [Int], _ x: TensorView, _ y: MutableTensorView, block: Int, on pool: ThreadPool) {
    func copy<Element: Sendable>(_: Element.Type) {
        let (source, target) = (x.source(Element.self), y.target(Element.self))
        parallel(offsets.count, grain: taskGrain / max(1, block), on: pool) { part in
            // For single elements a call would cost more than the copy.
            if block == 1 {
                for index in part { target[index] = source[offsets[index]] }
                return
            }
            for index in part {
                (target + index * block).base.update(from: (source + offsets[index]).base, count: block)
            }
        }
    }
    switch x.dataType.byteWidth {
    case 1: copy(UInt8.self)
    case 2: copy(UInt16.self)
    case 4: copy(UInt32.self)
    default: copy(UInt64.self)
    }
}

/// The offsets in a tensor of `shape` that index tuples address; the first `batch` axes are those of the indices.
private func tupleOffsets(_ indices: TensorView, in shape: [Int], batch: Int) throws -> [Int] {
    let depth = indices.shape.last ?? 0
    let strides = denseStrides(shape)
    let tuples = indices.shape.dropLast().reduce(1, *)
    let batches = shape[..<batch].reduce(1, *)
    guard indices.shape.prefix(batch) == shape.prefix(batch) else {
        throw TripsError.data("batch of indices", found: indices.type, expected: "\(shape[..<batch])")
    }
    let numbers = try indices.integers()
    let (perBatch, batchStride) = (batches == 0 ? 0 : tuples / batches, shape[batch...].reduce(1, *))
    return try (0..<tuples).map { tuple in
        var offset = perBatch == 0 ? 0 : tuple / perBatch * batchStride
        for level in 0..<depth {
            let (index, size) = (numbers[tuple * depth + level], shape[batch + level])
            guard index >= -size, index < size else {
                throw TripsError.data("index \(tuple)", found: index, expected: "-\(size) ..< \(size)")
            }
            offset += (index < 0 ? index + size : index) * strides[batch + level]
        }
        return offset
    }
}

extension GatherND: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (x, indices) = (try inputs.required(0), try inputs.required(1))
        let offsets = try tupleOffsets(indices, in: x.shape, batch: batchDimensions)
        let block = x.shape[(batchDimensions + (indices.shape.last ?? 0))...].reduce(1, *)
        copyBlocks(offsets, x, outputs[0], block: block, on: pool)
    }
}

/// Blocks of updates, and where they go.
private struct Scattering: TypedBody {
    let y: MutableTensorView
    let updates: TensorView
    let offsets: [Int]
    /// Elements of an update.
    let block: Int
    let reduction: ScatterReduction

    /// Puts the updates into y, in order.
    func apply() throws {
        guard updates.count == offsets.count * block else {
            throw TripsError.data("number of updates", found: updates.type, expected: "\(offsets.count * block) elements")
        }
        // Of booleans, add is or, and mul is and.
        if y.dataType == .bool, reduction == .add { return combine(UInt8.self) { $0 | $1 } }
        try dispatch(y.dataType, self)
    }

    func floating<T: Real & Number>(_: T.Type) {
        switch reduction {
        case .none: combine(T.self) { $1 }
        case .add: combine(T.self) { $0 + $1 }
        case .mul: combine(T.self) { $0 * $1 }
        case .min: combine(T.self) { $0 < $1 || $0.isNaN ? $0 : $1 }
        case .max: combine(T.self) { $0 > $1 || $0.isNaN ? $0 : $1 }
        }
    }

    func integer<T: FixedWidthInteger & Number>(_: T.Type) {
        switch reduction {
        case .none: combine(T.self) { $1 }
        case .add: combine(T.self) { $0 &+ $1 }
        case .mul: combine(T.self) { $0 &* $1 }
        case .min: combine(T.self) { Swift.min($0, $1) }
        case .max: combine(T.self) { Swift.max($0, $1) }
        }
    }

    private func combine<T>(_: T.Type, _ f: (T, T) -> T) {
        let (u, y) = (updates.source(T.self), y.target(T.self))
        for (index, offset) in offsets.enumerated() {
            for place in 0..<block { y[offset + place] = f(y[offset + place], u[index * block + place]) }
        }
    }
}

extension ScatterElements: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            outputs[0].copy(from: x)
            let offsets = try elementOffsets(inputs.required(1), in: x.shape, axis: resolveAxis(axis, rank: x.shape.count))
            try Scattering(y: outputs[0], updates: inputs.required(2), offsets: offsets, block: 1, reduction: reduction).apply()
        }
    }
}

extension ScatterND: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let (x, indices) = (try inputs.required(0), try inputs.required(1))
            outputs[0].copy(from: x)
            let block = x.shape[(indices.shape.last ?? 0)...].reduce(1, *)
            let offsets = try tupleOffsets(indices, in: x.shape, batch: 0)
            try Scattering(y: outputs[0], updates: inputs.required(2), offsets: offsets, block: block, reduction: reduction).apply()
        }
    }
}

/// A view as rows along one axis: element i of row (o, n) is at o · size · inner + i · inner + n.
struct AxisRows: Sendable {
    let outer, size, inner: Int

    init(_ shape: [Int], axis: Int) {
        outer = shape[..<axis].reduce(1, *)
        size = shape[axis]
        inner = shape[(axis + 1)...].reduce(1, *)
    }

    var count: Int { outer * inner }

    /// Where a row begins.
    func start(_ row: Int) -> Int {
        let (o, n) = row.quotientAndRemainder(dividingBy: inner)
        return o * size * inner + n
    }
}

extension TopK: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try checkTypes(inputs, outputs)
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            let axis = try resolveAxis(axis, rank: x.shape.count)
            try dispatch(
                x.dataType,
                Selection(
                    x: x, values: outputs[0], indices: outputs[1], rows: AxisRows(x.shape, axis: axis),
                    kept: AxisRows(outputs[0].shape, axis: axis), largest: largest, pool: pool))
        }
    }

    private struct Selection: UniformBody {
        let x: TensorView, values, indices: MutableTensorView, rows, kept: AxisRows, largest: Bool, pool: ThreadPool

        func callAsFunction<T: Number>(_: T.Type) {
            let (source, values, indices) = (x.source(T.self), values.target(T.self), indices.target(Int64.self))
            let (rows, kept, largest) = (rows, kept, largest)
            parallel(rows.count, grain: taskGrain / max(1, rows.size), on: pool) { part in
                for row in part {
                    let (from, to) = (rows.start(row), kept.start(row))
                    let order = bestFirst(rows.size, largest: largest) { source[from + $0 * rows.inner] }
                    for place in 0..<kept.size {
                        values[to + place * kept.inner] = source[from + order[place] * rows.inner]
                        indices[to + place * kept.inner] = Int64(order[place])
                    }
                }
            }
        }
    }
}

/// The indices below `count`, the best value first, equal values by index; NaN counts as the largest of all numbers.
func bestFirst<T: Comparable>(_ count: Int, largest: Bool, _ value: (Int) -> T) -> [Int] {
    (0..<count).sorted { left, right in
        let (a, b) = (value(left), value(right))
        // A value that is not equal to itself is NaN: comparing it would leave the order open.
        if a != a || b != b { return (a != a) == (b != b) ? left < right : (a != a) == largest }
        return a == b ? left < right : (a > b) == largest
    }
}

extension OneHot: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try checkTypes(inputs, outputs)
        let y = outputs[0]
        let indices = try inputs.required(0).integers()
        let values = try inputs.required(2)
        let rows = AxisRows(y.shape, axis: try resolveAxis(axis, rank: y.shape.count))
        y.fill(with: TensorView(dataType: values.dataType, shape: [], bytes: values.bytes), on: pool)
        let width = values.dataType.byteWidth
        for (row, index) in indices.enumerated() where index >= -rows.size && index < rows.size {
            let place = rows.start(row) + (index < 0 ? index + rows.size : index) * rows.inner
            (y.bytes + place * width).copyMemory(from: values.bytes + width, byteCount: width)
        }
    }
}

extension NonZero: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let x = try inputs.required(0)
        let truth = try x.tensor().converted(to: .bool).elements(Bool.self)
        let places = truth.indices.filter { truth[$0] }
        guard outputs[0].shape == [x.shape.count, places.count] else {
            throw TripsError.data(
                "output of NonZero", found: outputs[0].readOnly.type, expected: "[\(x.shape.count), \(places.count)]")
        }
        let (strides, target) = (denseStrides(x.shape), outputs[0].target(Int64.self))
        for axis in x.shape.indices {
            for (column, place) in places.enumerated() {
                target[axis * places.count + column] = Int64(place / strides[axis] % x.shape[axis])
            }
        }
    }
}

extension Trilu: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let (x, y) = (try inputs.required(0), outputs[0])
        let (rows, columns) = (x.shape[x.shape.count - 2], x.shape[x.shape.count - 1])
        // Beyond the corners every diagonal is the same.
        let k = min(max(try inputs.optional(1)?.integers().first ?? 0, -rows - 1), columns + 1)
        y.copy(from: x)
        let width = x.dataType.byteWidth
        for row in 0..<(columns == 0 ? 0 : x.count / columns) {
            // The first column on the diagonal (upper), or after it (lower).
            let first = min(max(row % rows + k + (upper ? 0 : 1), 0), columns)
            let cleared = upper ? 0..<first : first..<columns
            let start = y.bytes + (row * columns + cleared.lowerBound) * width
            start.initializeMemory(as: UInt8.self, repeating: 0, count: cleared.count * width)
        }
    }
}
