import Kernels
import ModelGraph
import Support
import Tensors

/// Which element of the input each window reads.
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

    /// Consecutive windows, the first of which reads at `from`, and each following one `step` further.
    struct Run {
        /// The place of the first in a part of the windows, and of what it reads inside one channel.
        var to, from: Int
        var count: Int
    }

    /// Elements from what one window reads to what the next one does.
    var step: Int { axes[axes.count - 1].stride }

    /// For each element of the kernel the windows of a part in which it is not padding.
    func runs(_ part: Range<Int>) -> [[Run]] { (0..<kernelCount).map { runs($0, part) } }

    private func runs(_ element: Int, _ part: Range<Int>) -> [Run] {
        let (last, width) = (axes.count - 1, windows[axes.count - 1])
        let shifts = shifts(element)
        let inside = windowsInside(last, shift: shifts[last])
        var runs: [Run] = []
        for row in part.lowerBound / width...(part.upperBound - 1) / width {
            let columns = inside.clamped(to: part.lowerBound - row * width..<part.upperBound - row * width)
            guard !columns.isEmpty, let start = rowStart(row, shifts) else { continue }
            let run = Run(
                to: row * width + columns.lowerBound - part.lowerBound, from: start + columns.lowerBound * step + shifts[last],
                count: columns.count)
            if step == 1, let end = runs.last, end.to + end.count == run.to, end.from + end.count == run.from {
                runs[runs.count - 1].count += run.count
            } else {
                runs.append(run)
            }
        }
        return runs
    }

    /// By axis, the offset of a kernel element from the window's position in the unpadded input.
    func shifts(_ element: Int) -> [Int] {
        var (rest, shifts) = (element, Array(repeating: 0, count: axes.count))
        for axis in axes.indices.reversed() {
            shifts[axis] = rest % axes[axis].kernel * axes[axis].dilation - axes[axis].before
            rest /= axes[axis].kernel
        }
        return shifts
    }

    /// The windows along an axis that read no padding.
    private func windowsInside(_ axis: Int, shift: Int) -> Range<Int> {
        func windowsBefore(_ place: Int) -> Int {
            min(windows[axis], max(0, place - shift).dividedRoundingUp(by: axes[axis].stride))
        }
        return windowsBefore(0)..<windowsBefore(sizes[axis])
    }

    /// Where the line begins that a row of windows reads; nil where that is padding.
    private func rowStart(_ row: Int, _ shifts: [Int]) -> Int? {
        var (rest, start) = (row, 0)
        for axis in axes.indices.dropLast().reversed() {
            let place = rest % windows[axis] * axes[axis].stride + shifts[axis]
            guard 0..<sizes[axis] ~= place else { return nil }
            start += place * strides[axis]
            rest /= windows[axis]
        }
        return start
    }

    /// The parts of the windows that one task takes, so that `rows` values for each stay in cache.
    func grain(rows: Int) -> Int { max(16, min(windowCount, (1 << 18) / max(1, rows))) }

    /// Copies what the windows of `runs` read of a channel.
    func copy<T>(_ runs: [Run], of channel: Source<T>, to target: Target<T>) {
        for run in runs {
            let (from, to) = (channel + run.from, target + run.to)
            if step == 1 {
                to.base.update(from: from.base, count: run.count)
            } else {
                for index in 0..<run.count { to[index] = from[index &* step] }
            }
        }
    }

    /// Adds the values of a run's windows to the elements of a channel that they cover.
    func add<T: Number>(_ run: Run, of windows: Source<T>, to channel: Target<T>) {
        let (from, to) = (windows + run.to, channel + run.from)
        for index in 0..<run.count { to[index &* step] += from[index] }
    }
}

// MARK: Convolutions

extension Conv: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            if outputs[0].dataType == .float64 {
                try Convolution<Double>(self, inputs, outputs[0]).multiplyColumns(on: pool)
            } else {
                try Convolution<Float>(self, inputs, outputs[0]).multiplyColumns(on: pool)
            }
        }
    }
}

/// The operands of a convolution, and how they are divided.
private struct Convolution<T: Number & Real>: Sendable {
    let plan: WindowPlan
    let source, factors: Source<T>
    let bias: Source<T>?
    let target: Target<T>
    let examples, groups, inputsPerGroup, outputsPerGroup: Int

    init(_ op: Conv, _ inputs: [TensorView?], _ output: MutableTensorView) throws {
        let (x, weight) = (try inputs.required(0), try inputs.required(1))
        let sizes = Array(x.shape[2...])
        plan = try WindowPlan(
            axes: op.window.resolved(kernel: Array(weight.shape[2...]), sizes: sizes), sizes: sizes,
            windows: Array(output.shape[2...]))
        (source, factors, target) = (x.source(), weight.source(), output.target())
        bias = inputs.optional(2)?.source()
        (examples, groups) = (x.shape[0], op.groups)
        (inputsPerGroup, outputsPerGroup) = (weight.shape[1], weight.shape[0] / op.groups)
    }

    /// Factors of one output.
    var rows: Int { inputsPerGroup * plan.kernelCount }

    /// Copies the windows' elements into the columns of a matrix, part by part, and multiplies by the weight.
    func multiplyColumns(on pool: ThreadPool) throws {
        guard plan.windowCount > 0, outputsPerGroup > 0 else { return }
        let grain = plan.grain(rows: rows)
        let parts = (plan.windowCount - 1) / grain + 1
        try pool.tryRun(examples * groups * parts) { task in
            let (slice, part) = task.quotientAndRemainder(dividingBy: parts)
            let group = slice % groups
            let windows = part * grain..<min(plan.windowCount, (part + 1) * grain)
            let result = target + slice * outputsPerGroup * plan.windowCount + windows.lowerBound
            for channel in 0..<outputsPerGroup {
                let start = bias?[group * outputsPerGroup + channel] ?? 0
                (result + channel * plan.windowCount).base.update(repeating: start, count: windows.count)
            }
            let (image, block) = (source + slice * inputsPerGroup * plan.area, plan.kernelCount * windows.count)
            let (runs, columns) = (plan.runs(windows), try Scratch<T>(elementCount(of: [rows, windows.count])))
            try columns.withTarget { columns in
                for channel in 0..<inputsPerGroup {
                    for (element, runs) in runs.enumerated() {
                        plan.copy(runs, of: image + channel * plan.area, to: columns + channel * block + element * windows.count)
                    }
                }
                try multiply(
                    outputsPerGroup, windows.count, rows, Matrix(elements: factors + group * outputsPerGroup * rows, stride: rows),
                    Matrix(elements: columns.source, stride: windows.count), beta: 1, result, stride: plan.windowCount, on: pool)
            }
        }
    }
}

extension ConvTranspose: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            if outputs[0].dataType == .float64 {
                try TransposedConvolution<Double>(self, inputs, outputs[0]).run(on: pool)
            } else {
                try TransposedConvolution<Float>(self, inputs, outputs[0]).run(on: pool)
            }
        }
    }
}

/// The operands of a transposed convolution: each input element is a window onto the output, to which it adds its multiple of the
/// weight.
private struct TransposedConvolution<T: Number & Real>: Sendable {
    let plan: WindowPlan
    let source, factors: Source<T>
    let bias: Source<T>?
    let target: Target<T>
    let examples, groups, inputsPerGroup, outputsPerGroup: Int

    init(_ op: ConvTranspose, _ inputs: [TensorView?], _ output: MutableTensorView) throws {
        let (x, weight) = (try inputs.required(0), try inputs.required(1))
        let (kernel, sizes, results) = (Array(weight.shape[2...]), Array(x.shape[2...]), Array(output.shape[2...]))
        plan = try WindowPlan(axes: op.resolved(kernel: kernel, sizes: sizes, outputs: results), sizes: results, windows: sizes)
        (source, factors, target) = (x.source(), weight.source(), output.target())
        bias = inputs.optional(2)?.source()
        (examples, groups) = (x.shape[0], op.groups)
        (inputsPerGroup, outputsPerGroup) = (weight.shape[0] / op.groups, weight.shape[1])
    }

    /// Products of one input element.
    var rows: Int { outputsPerGroup * plan.kernelCount }

    func run(on pool: ThreadPool) throws {
        for channel in 0..<examples * groups * outputsPerGroup {
            let start = bias?[channel % (groups * outputsPerGroup)] ?? 0
            (target + channel * plan.area).base.update(repeating: start, count: plan.area)
        }
        guard plan.windowCount > 0, rows > 0 else { return }
        let grain = plan.grain(rows: rows)
        // Parts of one image write to the same places, so they follow one another.
        try pool.tryRun(examples * groups) { slice in
            for first in stride(from: 0, to: plan.windowCount, by: grain) {
                try addProducts(slice, first..<min(plan.windowCount, first + grain), on: pool)
            }
        }
    }

    /// Multiplies a part of a slice's windows by the weight, and adds the columns of the product where the windows lie.
    private func addProducts(_ slice: Int, _ windows: Range<Int>, on pool: ThreadPool) throws {
        let columns = try Scratch<T>(rows * windows.count)
        try columns.withTarget { columns in
            try multiply(
                rows, windows.count, inputsPerGroup,
                Matrix(elements: factors + slice % groups * inputsPerGroup * rows, stride: rows, transposed: true),
                Matrix(elements: source + slice * inputsPerGroup * plan.windowCount + windows.lowerBound, stride: plan.windowCount),
                columns, stride: windows.count, on: pool)
            let runs = plan.runs(windows)
            for channel in 0..<outputsPerGroup {
                let image = target + (slice * outputsPerGroup + channel) * plan.area
                for (element, runs) in runs.enumerated() {
                    let column = columns + (channel * plan.kernelCount + element) * windows.count
                    for run in runs { plan.add(run, of: column.source, to: image) }
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
            try dispatch(x.dataType, MaxSearch(x: x, outputs: outputs, plan: plan, columnMajor: columnMajor, pool: pool))
        }
    }
}

/// The largest element of each window, and where it is.
private struct MaxSearch: UniformBody {
    let x: TensorView, outputs: [MutableTensorView], plan: WindowPlan, columnMajor: Bool, pool: ThreadPool

    func callAsFunction<T: Number>(_: T.Type) throws {
        let (source, target) = (x.source(T.self), outputs[0].target(T.self))
        let places = outputs.count > 1 ? outputs[1].target(Int64.self) : nil
        try forParts(plan, channels: x.shape[0] * x.shape[1], on: pool) { channel, windows, runs in
            let image = source + channel * plan.area
            let best = target + channel * plan.windowCount + windows.lowerBound
            best.base.update(repeating: T.lowest, count: windows.count)
            guard let places else {
                for runs in runs { for run in runs { take(run, of: image, into: best) } }
                return
            }
            let place = places + channel * plan.windowCount + windows.lowerBound
            place.base.update(repeating: -1, count: windows.count)
            for run in runs.joined() {
                for index in 0..<run.count {
                    let (window, at) = (run.to + index, run.from + index * plan.step)
                    let value = image[at]
                    if place[window] < 0 || value > best[window] || (value != value && best[window] == best[window]) {
                        (best[window], place[window]) = (value, Int64(at))
                    }
                }
            }
            for window in 0..<windows.count where place[window] >= 0 {
                place[window] = Int64(channel * plan.area + counted(Int(place[window])))
            }
        }
    }

    private func take<T: Number>(_ run: WindowPlan.Run, of image: Source<T>, into best: Target<T>) {
        let (from, to) = (image + run.from, best + run.to)
        @inline(__always) func take(step: Int) {
            for index in 0..<run.count {
                let value = from[index &* step]
                to[index] = value > to[index] || value != value ? value : to[index]
            }
        }
        // Steps that the compiler knows become vector instructions.
        switch plan.step {
        case 1: take(step: 1)
        case 2: take(step: 2)
        default: take(step: plan.step)
        }
    }

    /// The index of a place inside a channel, in the order that the operator asks for.
    private func counted(_ place: Int) -> Int {
        guard columnMajor else { return place }
        var (rest, result, factor) = (place, 0, plan.sizes.reduce(1, *))
        for size in plan.sizes.reversed() {
            factor /= size
            result += rest % size * factor
            rest /= size
        }
        return result
    }
}

/// Calls `body` for each channel and each part of the windows with what the elements of the kernel read.
private func forParts(
    _ plan: WindowPlan, channels: Int, on pool: ThreadPool,
    _ body: @Sendable (_ channel: Int, _ windows: Range<Int>, _ runs: [[WindowPlan.Run]]) throws -> Void
) throws {
    guard plan.windowCount > 0, channels > 0 else { return }
    let grain = plan.grain(rows: plan.kernelCount)
    for first in stride(from: 0, to: plan.windowCount, by: grain) {
        let windows = first..<min(plan.windowCount, first + grain)
        let runs = plan.runs(windows)
        let together = max(1, taskGrain / (plan.kernelCount * windows.count))
        try pool.tryRun((channels - 1) / together + 1) { task in
            for channel in task * together..<min(channels, (task + 1) * together) { try body(channel, windows, runs) }
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
            // Windows that extend beyond the padding count only the elements inside it.
            let padded = try WindowPlan(
                axes: axes, sizes: zip(axes, sizes).map { $1 + $0.before + $0.after }, windows: plan.windows)
            func average<T: Real>(_: T.Type) throws {
                let (source, target, countPadding) = (x.source(T.self), outputs[0].target(T.self), countPadding)
                let divisors = countPadding ? try paddedCounts(padded) : []
                try forParts(plan, channels: x.shape[0] * x.shape[1], on: pool) { channel, windows, runs in
                    let (image, result) = (source + channel * plan.area, target + channel * plan.windowCount + windows.lowerBound)
                    let (totals, counts) = (try Scratch<Double>(windows.count), try Scratch<Double>(windows.count))
                    try totals.withTarget { totals in
                        try counts.withTarget { counts in
                            for run in runs.joined() {
                                for index in 0..<run.count {
                                    totals[run.to + index] += Double(image[run.from + index * plan.step])
                                    counts[run.to + index] += 1
                                }
                            }
                            for index in 0..<windows.count {
                                let divisor = countPadding ? Double(divisors[windows.lowerBound + index]) : counts[index]
                                result[index] = T(totals[index] / divisor)
                            }
                        }
                    }
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
