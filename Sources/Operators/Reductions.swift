import Kernels
import ModelGraph
import Support
import Tensors

/// A tensor with the reduced axes moved to the end: a matrix whose rows are reduced.
private struct ReducedRows {
    let rows: Int
    let columns: Int
    let view: TensorView
    private let owner: Tensor?

    init(_ x: TensorView, axes: [Int], on pool: ThreadPool) throws {
        let kept = x.shape.indices.filter { !axes.contains($0) }
        let reduced = x.shape.indices.filter { axes.contains($0) }
        rows = kept.reduce(1) { $0 * x.shape[$1] }
        columns = reduced.reduce(1) { $0 * x.shape[$1] }
        let order = kept + reduced
        if order == Array(x.shape.indices) {
            (view, owner) = (x, nil)
            return
        }
        let strides = denseStrides(x.shape)
        let moved = try Tensor.zeroed(x.dataType, order.map { x.shape[$0] }) {
            $0.copy(from: x, strides: order.map { strides[$0] }, on: pool)
        }
        (view, owner) = (moved.view, moved)
    }

    /// y[row] = f(the row's elements)
    func reduce<T, R>(_: T.Type, into y: Target<R>, on pool: ThreadPool, _ f: @Sendable (UnsafeBufferPointer<T>) -> R) {
        withExtendedLifetime(owner) {
            let (source, columns) = (view.source(T.self), columns)
            parallel(rows, grain: taskGrain / max(1, columns), on: pool) { part in
                for row in part { y[row] = f(UnsafeBufferPointer(start: (source + row * columns).base, count: columns)) }
            }
        }
    }
}

extension Reduce: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try checkTypes(inputs, outputs)
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            let axes = try self.axes(inputs.optional(1)?.operand(), rank: x.shape.count)
            if kind == .max || kind == .min, x.dataType != .bool, let lines = AxisRows(x.shape, joining: axes), lines.size > 0,
                lines.inner > 1
            {
                return try dispatch(x.dataType, Extremes(x: x, y: outputs[0], lines: lines, largest: kind == .max, pool: pool))
            }
            let rows = try ReducedRows(x, axes: axes, on: pool)
            if x.dataType == .bool {
                let all = kind == .min
                return rows.reduce(UInt8.self, into: outputs[0].target(UInt8.self), on: pool) { row in
                    (all ? row.allSatisfy { $0 != 0 } : row.contains { $0 != 0 }) ? 1 : 0
                }
            }
            try dispatch(x.dataType, Reduction(kind: kind, rows: rows, y: outputs[0], pool: pool))
        }
    }
}

extension AxisRows {
    /// Neighbouring axes as one; nil where others lie between them.
    fileprivate init?(_ shape: [Int], joining axes: [Int]) {
        guard let first = axes.min(), let last = axes.max(), Set(axes).count == last - first + 1 else { return nil }
        self.init([shape[..<first], shape[first...last], shape[(last + 1)...]].map { $0.reduce(1, *) }, axis: 1)
    }
}

/// The largest or least elements along an axis behind which there are others, line by line.
private struct Extremes: UniformBody {
    let x: TensorView, y: MutableTensorView, lines: AxisRows, largest: Bool, pool: ThreadPool

    func callAsFunction<T: Number>(_: T.Type) {
        let (source, target, lines, largest) = (x.source(T.self), y.target(T.self), lines, largest)
        parallel(lines.count, grain: taskGrain / lines.size, on: pool) { part in
            var first = part.lowerBound
            while first < part.upperBound {
                let count = min(part.upperBound - first, lines.inner - first % lines.inner)
                let (line, result) = (source + lines.start(first), target + first)
                result.base.update(from: line.base, count: count)
                for place in 1..<lines.size {
                    let elements = line + place * lines.inner
                    // NaN (not equal to itself) wins over every number.
                    if largest {
                        for index in 0..<count {
                            let (best, value) = (result[index], elements[index])
                            let larger = best > value ? best : value
                            result[index] = best == best ? larger : best
                        }
                    } else {
                        for index in 0..<count {
                            let (best, value) = (result[index], elements[index])
                            let smaller = best < value ? best : value
                            result[index] = best == best ? smaller : best
                        }
                    }
                }
                first += count
            }
        }
    }
}

private struct Reduction: TypedBody {
    let kind: Reduce.Kind, rows: ReducedRows, y: MutableTensorView, pool: ThreadPool

    func floating<T: Real & Number>(_: T.Type) {
        let y = y.target(T.self)
        let count = Double(rows.columns)
        switch kind {
        case .sum: rows.reduce(T.self, into: y, on: pool) { T(sum($0) { Double($0) }) }
        case .mean: rows.reduce(T.self, into: y, on: pool) { T(sum($0) { Double($0) } / count) }
        case .l1: rows.reduce(T.self, into: y, on: pool) { T(sum($0) { Double($0.magnitude) }) }
        case .l2: rows.reduce(T.self, into: y, on: pool) { T(sum($0) { Double($0) * Double($0) }.squareRoot()) }
        case .sumSquare: rows.reduce(T.self, into: y, on: pool) { T(sum($0) { Double($0) * Double($0) }) }
        case .logSum: rows.reduce(T.self, into: y, on: pool) { T(Double.log(sum($0) { Double($0) })) }
        case .logSumExp:
            rows.reduce(T.self, into: y, on: pool) { row in
                let top = row.reduce(-T.infinity) { $0 > $1 || $0.isNaN ? $0 : $1 }
                // All -inf, or some inf: the shifted differences would be NaN.
                guard top.isFinite else { return top }
                return top + T(Double.log(sum(row) { Double(T.exp($0 - top)) }))
            }
        case .prod: rows.reduce(T.self, into: y, on: pool) { T($0.reduce(1.0) { $0 * Double($1) }) }
        case .max: rows.reduce(T.self, into: y, on: pool) { $0.reduce(-T.infinity) { $0 > $1 || $0.isNaN ? $0 : $1 } }
        case .min: rows.reduce(T.self, into: y, on: pool) { $0.reduce(T.infinity) { $0 < $1 || $0.isNaN ? $0 : $1 } }
        }
    }

    func integer<T: FixedWidthInteger & Number>(_: T.Type) {
        let y = y.target(T.self)
        let count = T(truncatingIfNeeded: rows.columns)
        switch kind {
        case .sum: rows.reduce(T.self, into: y, on: pool) { $0.reduce(0, &+) }
        case .mean:
            rows.reduce(T.self, into: y, on: pool) { row in
                guard T.bitWidth < 64 else { return row.reduce(0, &+).dividedReportingOverflow(by: count).partialValue }
                return row.isEmpty ? 0 : T(truncatingIfNeeded: row.reduce(0) { $0 &+ Int(truncatingIfNeeded: $1) } / row.count)
            }
        case .prod: rows.reduce(T.self, into: y, on: pool) { $0.reduce(1, &*) }
        case .l1: rows.reduce(T.self, into: y, on: pool) { $0.reduce(0) { $0 &+ ($1 < 0 ? 0 &- $1 : $1) } }
        case .sumSquare: rows.reduce(T.self, into: y, on: pool) { $0.reduce(0) { $0 &+ $1 &* $1 } }
        case .l2: rows.reduce(T.self, into: y, on: pool) { saturating(sum($0) { Double($0) * Double($0) }.squareRoot()) }
        case .logSum: rows.reduce(T.self, into: y, on: pool) { saturating(Double.log(sum($0) { Double($0) })) }
        case .logSumExp:
            rows.reduce(T.self, into: y, on: pool) { row in
                let top = Double(row.max() ?? 0)
                return saturating(top + Double.log(sum(row) { Double.exp(Double($0) - top) }))
            }
        case .max: rows.reduce(T.self, into: y, on: pool) { $0.max() ?? .min }
        case .min: rows.reduce(T.self, into: y, on: pool) { $0.min() ?? .max }
        }
    }
}

/// The sum of f over a row, in double precision; four running sums let the processor overlap them.
@inline(__always)
func sum<T>(_ row: UnsafeBufferPointer<T>, _ f: (T) -> Double) -> Double {
    var sums = SIMD4<Double>(repeating: 0)
    var index = 0
    while index + 4 <= row.count {
        sums += SIMD4(f(row[index]), f(row[index + 1]), f(row[index + 2]), f(row[index + 3]))
        index += 4
    }
    var total = sums[0] + sums[1] + sums[2] + sums[3]
    while index < row.count {
        total += f(row[index])
        index += 1
    }
    return total
}

extension ArgReduce: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            let rows = AxisRows(x.shape, axis: try resolveAxis(axis, rank: x.shape.count))
            try dispatch(
                x.dataType, Search(x: x, y: outputs[0], rows: rows, largest: kind == .max, last: selectLastIndex, pool: pool))
        }
    }

    private struct Search: UniformBody {
        let x: TensorView, y: MutableTensorView, rows: AxisRows, largest, last: Bool, pool: ThreadPool

        func callAsFunction<T: Number>(_: T.Type) {
            let (source, target, rows, largest, last) = (x.source(T.self), y.target(Int64.self), rows, largest, last)
            parallel(rows.count, grain: taskGrain / max(1, rows.size), on: pool) { part in
                for row in part {
                    let start = rows.start(row)
                    var (best, index) = (source[start], 0)
                    for place in 1..<max(1, rows.size) {
                        let value = source[start + place * rows.inner]
                        // NaN (not equal to itself) wins over every number.
                        let better = value != value ? best == best : largest ? value > best : value < best
                        let equal = value == best || (value != value && best != best)
                        if better || (last && equal) { (best, index) = (value, place) }
                    }
                    target[row] = Int64(index)
                }
            }
        }
    }
}

extension CumSum: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            let axis = try resolveAxis(inputs.required(1).integers().first ?? 0, rank: x.shape.count)
            let rows = AxisRows(x.shape, axis: axis)
            try dispatch(
                x.dataType, RunningSums(x: x, y: outputs[0], rows: rows, exclusive: exclusive, reverse: reverse, pool: pool))
        }
    }

    private struct RunningSums: TypedBody {
        let x: TensorView, y: MutableTensorView, rows: AxisRows, exclusive, reverse: Bool, pool: ThreadPool

        func floating<T: Real & Number>(_: T.Type) { accumulate(T.self) { $0 + $1 } }
        func integer<T: FixedWidthInteger & Number>(_: T.Type) { accumulate(T.self) { $0 &+ $1 } }

        private func accumulate<T: Number>(_: T.Type, _ add: @Sendable (T, T) -> T) {
            let (source, target, rows, exclusive, reverse) = (x.source(T.self), y.target(T.self), rows, exclusive, reverse)
            parallel(rows.count, grain: taskGrain / max(1, rows.size), on: pool) { part in
                for row in part {
                    var total = T.zero
                    for step in 0..<rows.size {
                        let place = rows.start(row) + (reverse ? rows.size - 1 - step : step) * rows.inner
                        let next = add(total, source[place])
                        target[place] = exclusive ? total : next
                        total = next
                    }
                }
            }
        }
    }
}

/// Softmax, or its logarithm, along an axis.
private func softmax(_ x: TensorView, _ y: MutableTensorView, axis: Int, logarithm: Bool, on pool: ThreadPool) throws {
    let rows = AxisRows(x.shape, axis: try resolveAxis(axis, rank: x.shape.count))
    if x.dataType == .float32, rows.inner == 1, !logarithm {
        let (source, target, size) = (x.source(Float.self), y.target(Float.self), rows.size)
        return parallel(rows.count, grain: taskGrain / max(1, size), on: pool) { part in
            let start = part.lowerBound * size
            trips_softmax_rows((target + start).base, size, (source + start).base, size, part.count, size)
        }
    }
    func run<T: Real>(_: T.Type) {
        let (source, target) = (x.source(T.self), y.target(T.self))
        parallel(rows.count, grain: taskGrain / max(1, 8 * rows.size), on: pool) { part in
            for row in part {
                let start = rows.start(row)
                softmaxRow(source + start, target + start, count: rows.size, stride: rows.inner, logarithm: logarithm)
            }
        }
    }
    if x.dataType == .float64 { run(Double.self) } else { run(Float.self) }
}

/// The largest number of a row, NaN aside; four running ones let the processor overlap them.
@inline(__always)
private func largest<T: Real>(_ x: Source<T>, count: Int, stride: Int) -> T {
    var (first, second, third, fourth) = (-T.infinity, -T.infinity, -T.infinity, -T.infinity)
    var index = 0
    while index + 4 <= count {
        first = max(first, x[index &* stride])
        second = max(second, x[(index + 1) &* stride])
        third = max(third, x[(index + 2) &* stride])
        fourth = max(fourth, x[(index + 3) &* stride])
        index += 4
    }
    while index < count {
        first = max(first, x[index &* stride])
        index += 1
    }
    return max(max(first, second), max(third, fourth))
}

/// Softmax of one row, whose elements lie `stride` apart. Where all of them are -∞ it is NaN, or what `fullyMasked` says.
@inline(__always)
func softmaxRow<T: Real>(
    _ x: Source<T>, _ y: Target<T>, count: Int, stride: Int = 1, logarithm: Bool = false, fullyMasked: Attention.FullyMasked? = nil
) {
    let top = largest(x, count: count, stride: stride)
    if fullyMasked != nil, (0..<count).allSatisfy({ x[$0 &* stride] == -.infinity }) {
        for index in 0..<count { y[index &* stride] = 0 }
        return
    }
    var total = T(0)
    for index in 0..<count {
        let power = T.exp(x[index &* stride] - top)
        total += power
        if !logarithm { y[index &* stride] = power }
    }
    if logarithm {
        let shift = T.log(total)
        for index in 0..<count { y[index &* stride] = x[index &* stride] - top - shift }
    } else {
        let factor = 1 / total
        if fullyMasked == .zeroForNaN, total.isNaN {
            for index in 0..<count { y[index &* stride] = 0 }
            return
        }
        for index in 0..<count { y[index &* stride] *= factor }
    }
}

extension Softmax: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { try softmax($0.required(0), $1[0], axis: axis, logarithm: false, on: pool) }
    }
}

extension LogSoftmax: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { try softmax($0.required(0), $1[0], axis: axis, logarithm: true, on: pool) }
    }
}
