import ModelGraph
import Support
import Tensors

/// Which element of the input each window reads: for kernel element k and window p the offset inside one channel,
/// or -1 for padding.
private struct WindowPlan: Sendable {
    let axes: [Window.Axis]
    let sizes: [Int]
    let windows: [Int]
    let strides: [Int]
    /// Elements of the kernel, of the input's channel, and the number of windows.
    let kernelCount, area, windowCount: Int

    init(axes: [Window.Axis], sizes: [Int], windows: [Int]) throws {
        self.axes = axes
        self.sizes = sizes
        self.windows = windows
        strides = denseStrides(sizes)
        kernelCount = try elementCount(of: axes.map(\.kernel))
        area = try elementCount(of: sizes)
        windowCount = try elementCount(of: windows)
    }

    /// Offsets [kernelCount, part.count] for a part of the windows.
    func offsets(_ part: Range<Int>) throws -> Scratch<Int> {
        let table = try Scratch<Int>(elementCount(of: [kernelCount, part.count]))
        try table.withTarget { table in
            var corner = Array(repeating: 0, count: axes.count)
            for (column, window) in part.enumerated() {
                var rest = window
                for axis in axes.indices.reversed() {
                    corner[axis] = rest % windows[axis] * axes[axis].stride - axes[axis].before
                    rest /= windows[axis]
                }
                for element in 0..<kernelCount { table[element * part.count + column] = offset(element, corner) }
            }
        }
        return table
    }

    @inline(__always)
    private func offset(_ element: Int, _ corner: [Int]) -> Int {
        var (rest, offset) = (element, 0)
        for axis in axes.indices.reversed() {
            let place = corner[axis] + rest % axes[axis].kernel * axes[axis].dilation
            if place < 0 || place >= sizes[axis] { return -1 }
            offset += place * strides[axis]
            rest /= axes[axis].kernel
        }
        return offset
    }

    /// The parts of the windows that one task takes, so that `rows` values for each stay in cache.
    func grain(rows: Int) -> Int { max(16, min(windowCount, (1 << 18) / max(1, rows))) }
}

// MARK: Convolutions

extension Conv: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            if outputs[0].dataType == .float64 {
                try convolve(Double.self, inputs, outputs[0], pool)
            } else {
                try convolve(Float.self, inputs, outputs[0], pool)
            }
        }
    }

    /// Copies the windows' elements into the columns of a matrix, part by part, and multiplies by the weight.
    private func convolve<T: Factor & Real>(_: T.Type, _ inputs: [TensorView?], _ output: MutableTensorView, _ pool: ThreadPool) throws {
        let (x, weight) = (try inputs.required(0), try inputs.required(1))
        let kernel = Array(weight.shape[2...])
        let sizes = Array(x.shape[2...])
        let plan = try WindowPlan(axes: window.resolved(kernel: kernel, sizes: sizes), sizes: sizes, windows: Array(output.shape[2...]))
        let (inputsPerGroup, outputsPerGroup) = (weight.shape[1], weight.shape[0] / groups)
        let rows = inputsPerGroup * plan.kernelCount
        let (source, factors, target) = (x.source(T.self), weight.source(T.self), output.target(T.self))
        let bias = inputs.optional(2)?.source(T.self)
        guard plan.windowCount > 0, weight.shape[0] > 0 else { return }
        let grain = plan.grain(rows: rows)
        let parts = (plan.windowCount - 1) / grain + 1
        let groups = groups
        try pool.tryRun(x.shape[0] * groups * parts) { task in
            let (slice, part) = task.quotientAndRemainder(dividingBy: parts)
            let group = slice % groups
            let windows = part * grain..<min(plan.windowCount, (part + 1) * grain)
            let table = try plan.offsets(windows)
            let columns = try Scratch<T>(rows * windows.count)
            try table.withTarget { offsets in
                try columns.withTarget { columns in
                    for channel in 0..<inputsPerGroup {
                        let image = source + (slice * inputsPerGroup + channel) * plan.area
                        let block = columns + channel * plan.kernelCount * windows.count
                        for index in 0..<plan.kernelCount * windows.count {
                            let offset = offsets[index]
                            block[index] = offset < 0 ? 0 : image[offset]
                        }
                    }
                    let result = target + slice * outputsPerGroup * plan.windowCount + windows.lowerBound
                    for channel in 0..<outputsPerGroup {
                        let start = bias?[group * outputsPerGroup + channel] ?? 0
                        for index in 0..<windows.count { result[channel * plan.windowCount + index] = start }
                    }
                    try multiply(
                        outputsPerGroup, windows.count, rows,
                        Matrix(elements: factors + group * outputsPerGroup * rows, stride: rows),
                        Matrix(elements: columns.source, stride: windows.count), beta: 1, result, stride: plan.windowCount, on: pool)
                }
            }
        }
    }
}

extension ConvTranspose: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            if outputs[0].dataType == .float64 {
                try convolve(Double.self, inputs, outputs[0], pool)
            } else {
                try convolve(Float.self, inputs, outputs[0], pool)
            }
        }
    }

    /// Each input element is a window onto the output, to which it adds its multiple of the weight.
    private func convolve<T: Factor & Real>(_: T.Type, _ inputs: [TensorView?], _ output: MutableTensorView, _ pool: ThreadPool) throws {
        let (x, weight) = (try inputs.required(0), try inputs.required(1))
        let (kernel, sizes, results) = (Array(weight.shape[2...]), Array(x.shape[2...]), Array(output.shape[2...]))
        let axes = try resolved(kernel: kernel, sizes: sizes, outputs: results)
        let plan = try WindowPlan(axes: axes, sizes: results, windows: sizes)
        let (inputsPerGroup, outputsPerGroup) = (weight.shape[0] / groups, weight.shape[1])
        let rows = outputsPerGroup * plan.kernelCount
        let (source, factors, target) = (x.source(T.self), weight.source(T.self), output.target(T.self))
        let bias = inputs.optional(2)?.source(T.self)
        let groups = groups
        for channel in 0..<x.shape[0] * groups * outputsPerGroup {
            let start = bias?[channel % (groups * outputsPerGroup)] ?? 0
            for index in 0..<plan.area { target[channel * plan.area + index] = start }
        }
        guard plan.windowCount > 0, rows > 0 else { return }
        let grain = plan.grain(rows: rows)
        // Parts of one image write to the same places, so they follow one another.
        try pool.tryRun(x.shape[0] * groups) { slice in
            for first in stride(from: 0, to: plan.windowCount, by: grain) {
                let windows = first..<min(plan.windowCount, first + grain)
                let table = try plan.offsets(windows)
                let columns = try Scratch<T>(rows * windows.count)
                try table.withTarget { offsets in
                    try columns.withTarget { columns in
                        try multiply(
                            rows, windows.count, inputsPerGroup,
                            Matrix(elements: factors + slice % groups * inputsPerGroup * rows, stride: rows, transposed: true),
                            Matrix(elements: source + slice * inputsPerGroup * plan.windowCount + first, stride: plan.windowCount),
                            columns, stride: windows.count, on: pool)
                        for channel in 0..<outputsPerGroup {
                            let image = target + (slice * outputsPerGroup + channel) * plan.area
                            let block = columns + channel * plan.kernelCount * windows.count
                            for index in 0..<plan.kernelCount * windows.count where offsets[index] >= 0 {
                                image[offsets[index]] += block[index]
                            }
                        }
                    }
                }
            }
        }
    }
}

// MARK: Pools

extension MaxPool: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            let sizes = Array(x.shape[2...])
            let plan = try WindowPlan(
                axes: window.resolved(kernel: kernelShape, sizes: sizes), sizes: sizes, windows: Array(outputs[0].shape[2...]))
            switch x.dataType {
            case .float64: try search(x, outputs, plan, lowest: -Double.infinity, pool)
            case .float32, .float16, .bfloat16: try search(x, outputs, plan, lowest: -Float.infinity, pool)
            case .int64: try search(x, outputs, plan, lowest: Int64.min, pool)
            case .int32: try search(x, outputs, plan, lowest: Int32.min, pool)
            case .int16: try search(x, outputs, plan, lowest: Int16.min, pool)
            case .int8: try search(x, outputs, plan, lowest: Int8.min, pool)
            case .uint64: try search(x, outputs, plan, lowest: UInt64.min, pool)
            case .uint32: try search(x, outputs, plan, lowest: UInt32.min, pool)
            case .uint16: try search(x, outputs, plan, lowest: UInt16.min, pool)
            case .uint8, .bool: try search(x, outputs, plan, lowest: UInt8.min, pool)
            }
        }
    }

    private func search<T: Comparable & Sendable>(
        _ x: TensorView, _ outputs: [MutableTensorView], _ plan: WindowPlan, lowest: T, _ pool: ThreadPool
    ) throws {
        let (source, target) = (x.source(T.self), outputs[0].target(T.self))
        let places = outputs.count > 1 ? outputs[1].target(Int64.self) : nil
        try forWindows(plan, channels: x.shape[0] * x.shape[1], on: pool) { channel, window, count, offset in
            var (best, place) = (lowest, -1)
            for element in 0..<count {
                let at = offset(element)
                guard at >= 0 else { continue }
                let value = source[channel * plan.area + at]
                if place < 0 || value > best || (value != value && best == best) { (best, place) = (value, at) }
            }
            target[channel * plan.windowCount + window] = best
            places?[channel * plan.windowCount + window] = Int64(place < 0 ? -1 : channel * plan.area + counted(place, plan.sizes))
        }
    }

    /// A place inside a channel in the order of counting that is asked for.
    private func counted(_ place: Int, _ sizes: [Int]) -> Int {
        guard columnMajor else { return place }
        var (rest, result, factor) = (place, 0, sizes.reduce(1, *))
        for size in sizes.reversed() {
            factor /= size
            result += rest % size * factor
            rest /= size
        }
        return result
    }
}

/// Calls `body` for each channel and window with the window's elements: their number and where each stands (-1: padding).
private func forWindows(
    _ plan: WindowPlan, channels: Int, on pool: ThreadPool,
    _ body: @Sendable (_ channel: Int, _ window: Int, _ count: Int, _ offset: (Int) -> Int) -> Void
) throws {
    guard plan.windowCount > 0, channels > 0 else { return }
    let grain = plan.grain(rows: plan.kernelCount)
    for first in stride(from: 0, to: plan.windowCount, by: grain) {
        let windows = first..<min(plan.windowCount, first + grain)
        let table = try plan.offsets(windows)
        try table.withTarget { offsets in
            parallel(channels, grain: taskGrain / (plan.kernelCount * windows.count), on: pool) { part in
                for channel in part {
                    for (column, window) in windows.enumerated() {
                        body(channel, window, plan.kernelCount) { offsets[$0 * windows.count + column] }
                    }
                }
            }
        }
    }
}

extension AveragePool: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let x = try inputs.required(0)
            let sizes = Array(x.shape[2...])
            let axes = try window.resolved(kernel: kernelShape, sizes: sizes)
            let plan = try WindowPlan(axes: axes, sizes: sizes, windows: Array(outputs[0].shape[2...]))
            // Windows that reach over the padding's end count only what is padded.
            let padded = try WindowPlan(
                axes: axes, sizes: zip(axes, sizes).map { $1 + $0.before + $0.after }, windows: plan.windows)
            func average<T: Real>(_: T.Type) throws {
                let (source, target, countPadding) = (x.source(T.self), outputs[0].target(T.self), countPadding)
                let divisors = countPadding ? try paddedCounts(padded) : []
                try forWindows(plan, channels: x.shape[0] * x.shape[1], on: pool) { channel, window, count, offset in
                    var (total, inside) = (0.0, 0)
                    for element in 0..<count {
                        let at = offset(element)
                        guard at >= 0 else { continue }
                        total += Double(source[channel * plan.area + at])
                        inside += 1
                    }
                    target[channel * plan.windowCount + window] = T(total / Double(countPadding ? divisors[window] : inside))
                }
            }
            if x.dataType == .float64 { try average(Double.self) } else { try average(Float.self) }
        }
    }

    /// For each window the elements that lie in the input or its padding.
    private func paddedCounts(_ plan: WindowPlan) throws -> [Int] {
        var counts = Array(repeating: 1, count: plan.windowCount)
        for window in counts.indices {
            var rest = window
            for axis in plan.axes.indices.reversed() {
                let start = rest % plan.windows[axis] * plan.axes[axis].stride
                let room = (plan.sizes[axis] - 1 - start) / plan.axes[axis].dilation + 1
                counts[window] *= max(0, min(plan.axes[axis].kernel, room))
                rest /= plan.windows[axis]
            }
        }
        return counts
    }
}

extension GlobalPool: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let x = try inputs.required(0)
        let axes = try Tensor((2..<x.shape.count).map { Int64($0) }, shape: [x.shape.count - 2])
        try withExtendedLifetime(axes) {
            try Reduce(kind == .max ? .max : .mean).compute([x, axes.view], into: outputs, on: pool)
        }
    }
}
