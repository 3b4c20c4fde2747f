import Kernels
import ModelGraph
import Operators
import Support
import Tensors

/// A convolution with the bias, activation and residual that follow its sums.
///
/// A channel is laid out so that each element of the kernel reads consecutive numbers for all windows: the convolution is then
/// a product that reads its right-hand side where it lies, and no window is copied.
struct ConvolutionInstruction: Instruction {
    let node: Node
    let layout: ConvolutionLayout
    let input: ValueID
    let recipe: ProductRecipe
    let multiplyAccumulates: Int
    private(set) var label: String
    private(set) var kind = Conv.name
    /// The result of the last fused operator.
    private(set) var output: ValueID
    fileprivate var finishing: trips_finishing?
    fileprivate var residual: ValueID?

    init(_ node: Node, _ layout: ConvolutionLayout, input: ValueID, weight: Constant, multiplyAccumulates: Int) {
        (self.node, self.layout, self.input, self.multiplyAccumulates) = (node, layout, input, multiplyAccumulates)
        recipe = ProductRecipe(form: .filters(groups: layout.groups), weight: weight)
        (label, output) = (node.name, node.output)
    }

    var reads: [ValueID] { [input] + [node.input(2), residual].compactMap { $0 } }
    var writes: [ValueID] { [output] }
    var products: [ProductRecipe] { [recipe] }

    /// Whether an activation has been fused; nothing may follow it but a residual.
    var isActivated: Bool { finishing?.isIdentity == false }
    var hasResidual: Bool { residual != nil }

    mutating func fuse(_ activation: trips_finishing, of next: Node) {
        var activation = activation
        activation.residual_first = hasResidual
        finishing = activation
        advance(to: next)
    }

    mutating func fuse(residual: ValueID, of next: Node) {
        self.residual = residual
        if finishing == nil { finishing = .identity }
        advance(to: next)
    }

    private mutating func advance(to next: Node) {
        output = next.output
        let name = (next.op as? Unary)?.kind.rawValue ?? (next.op as? Binary)?.kind.rawValue ?? type(of: next.op).name
        kind += "+\(name.prefix(1).uppercased())\(name.dropFirst())"
    }

    func scratchBytes(threads: Int) -> Int {
        guard layout.depthwiseKernel == nil else { return 0 }
        let planes = layout.planesBytes
        return (sharesPlanes(threads) ? planes : threads * planes) + threads * layout.sumsBytes
    }

    /// Whether threads divide one slice after the other among them, rather than each taking whole slices.
    private func sharesPlanes(_ threads: Int) -> Bool { layout.slices < 8 * threads }

    func bind(_ memory: PlanMemory) throws -> @Sendable (ThreadPool) throws -> Void {
        let work = try BoundConvolution(self, memory)
        let (layout, threads, parts) = (layout, memory.threads, layout.parts(threads: memory.threads))
        if let kernel = layout.depthwiseKernel {
            let tasks = (0..<layout.slices).split(into: min(layout.slices, 8 * threads))
            return { pool in
                pool.run(tasks.count) { index in
                    for slice in tasks[index] { work.runDepthwise(slice, kernel) }
                }
            }
        }
        let planes = Target(base: memory.scratch.assumingMemoryBound(to: Float.self))
        let shared = sharesPlanes(threads)
        let sums = Target(base: planes.base + (shared ? 1 : threads) * layout.planesBytes / MemoryLayout<Float>.size)
        let sumsCount = layout.sumsBytes / MemoryLayout<Float>.size
        if shared {
            return { pool in
                for slice in 0..<layout.slices {
                    if layout.needsPlanes {
                        pool.run(layout.inputs) { work.fill(planes.base, slice, $0) }
                    }
                    pool.run(parts.count) { index, thread in
                        work.run(parts[index], slice, planes.base, sums.base + thread * sumsCount)
                    }
                }
            }
        }
        let tasks = (0..<layout.slices).split(into: 8 * threads)
        return { pool in
            pool.run(tasks.count) { index, thread in
                let planes = planes.base + thread * layout.planesBytes / MemoryLayout<Float>.size
                for slice in tasks[index] {
                    if layout.needsPlanes {
                        for channel in 0..<layout.inputs { work.fill(planes, slice, channel) }
                    }
                    for part in parts { work.run(part, slice, planes, sums.base + thread * sumsCount) }
                }
            }
        }
    }
}

extension trips_finishing {
    static let identity = line()

    /// min(high, max(low, slope x + offset)), times x where it is gated.
    static func line(
        slope: Float = 1, offset: Float = 0, low: Float = -.infinity, high: Float = .infinity, gated: Bool = false
    ) -> Self {
        trips_finishing(
            activation: TRIPS_ACTIVATION_NONE, slope: slope, offset: offset, low: low, high: high, gated: gated,
            residual_first: false)
    }

    static func curve(_ activation: trips_activation, gated: Bool = false) -> Self {
        var finishing = line(gated: gated)
        finishing.activation = activation
        return finishing
    }

    fileprivate var isIdentity: Bool {
        activation == TRIPS_ACTIVATION_NONE && (slope, offset, low, high) == (1, 0, -.infinity, .infinity) && !gated
    }
}

/// Memory layout of a convolution, and how its work is divided.
struct ConvolutionLayout: Sendable {
    /// A part of the outputs of a slice: consecutive lines of windows, or a piece of one line.
    struct Part: Sendable {
        let layer: Int
        let lines, columns: Range<Int>
        /// Of packed filters.
        let tiles: Range<Int>
    }

    let examples, groups: Int
    /// Channels of a group.
    let inputs, outputs: Int
    /// The three axes of the input; missing ones have size 1.
    let axes: [trips_phase_axis]
    let windows: [Int]
    /// Whether windows read a copy of the input that is padded and divided into phases.
    let needsPlanes: Bool
    /// Elements of an input channel, and of the channel as windows read it: in place, or padded and in phases.
    let area, plane: Int
    let windowCount: Int
    /// Whether sums of consecutive lines are computed in one run, with surplus sums between the lines that are dropped afterwards.
    let hasGaps: Bool
    /// Offset of the first read of each kernel element, for each input of a group.
    let offsets: [Int]
    /// Side of the kernel where `trips_depthwise` applies: each channel is by itself, and no copy of the input is needed.
    let depthwiseKernel: Int?

    /// - Parameter x: [B, C, ...], with up to three spatial axes; the weight is [O, C / groups, ...], the output [B, O, ...].
    /// - Returns: nil where there is nothing to compute, or planes would hold more numbers than all windows.
    init?(_ op: Conv, x: [Int], weight: [Int], output: [Int]) throws {
        let sizes = Array(x.dropFirst(2))
        guard 1...3 ~= sizes.count, (x + weight + output).allSatisfy({ $0 > 0 }) else { return nil }
        let resolved = try op.window.resolved(kernel: Array(weight.dropFirst(2)), sizes: sizes)
        let missing = trips_phase_axis(size: 1, phases: 1, places: 1, stride: 1, before: 0)
        let spatial = zip(resolved, zip(sizes, output.dropFirst(2))).map { axis, count in
            trips_phase_axis(
                size: count.0, phases: min(axis.stride, axis.extent), places: count.1 + (axis.extent - 1) / axis.stride,
                stride: axis.stride, before: axis.before)
        }
        axes = Array(repeating: missing, count: 3 - sizes.count) + spatial
        windows = Array(repeating: 1, count: 3 - sizes.count) + output.dropFirst(2)
        (examples, groups) = (x[0], op.groups)
        (inputs, outputs) = (weight[1], weight[0] / op.groups)
        needsPlanes = !axes.allSatisfy { $0.stride == 1 && $0.before == 0 && $0.places == $0.size }
        let elements = resolved.reduce(1) { $0 * $1.kernel }
        guard let plane = try? elementCount(of: axes.flatMap { [$0.phases, $0.places] }),
            let read = try? elementCount(of: windows + [elements]), plane <= read || !needsPlanes,
            (try? elementCount(of: [inputs, plane, MemoryLayout<Float>.size])) != nil
        else { return nil }
        self.plane = plane
        (area, windowCount) = (try elementCount(of: sizes), try elementCount(of: windows))
        windowsPerPart = min(max((1 << 17) / inputs, 64), 1024)
        linesPerPart = windows[2] > windowsPerPart ? 1 : min(windows[1], max(1, windowsPerPart / axes[2].places))
        hasGaps = axes[2].places != windows[2] && linesPerPart > 1
        let starts = ConvolutionLayout.starts(resolved, axes)
        offsets = (0..<inputs).flatMap { input in starts.map { input * plane + $0 } }
        let isPlain =
            resolved.count == 2 && resolved.allSatisfy { $0.kernel == resolved[0].kernel && $0.stride == 1 && $0.dilation == 1 }
        let isKnown = [3, 5, 7].contains(resolved[0].kernel) && windows[1] >= Int(TRIPS_DEPTHWISE_LINES)
        depthwiseKernel = inputs == 1 && outputs == 1 && isPlain && isKnown ? resolved[0].kernel : nil
    }

    /// Offset in a channel of the first read of each kernel element.
    private static func starts(_ axes: [Window.Axis], _ phases: [trips_phase_axis]) -> [Int] {
        let places = phases.reduce(1) { $0 * $1.places }
        var starts = [0]
        var (phaseDistance, distance) = (places, 1)
        for (axis, phase) in zip(axes, phases.suffix(axes.count)).reversed() {
            let shifts = (0..<axis.kernel).map { element in
                let (step, rest) = (element * axis.dilation).quotientAndRemainder(dividingBy: axis.stride)
                return rest * phaseDistance + step * distance
            }
            starts = shifts.flatMap { shift in starts.map { shift + $0 } }
            (phaseDistance, distance) = (phaseDistance * phase.phases, distance * phase.places)
        }
        return starts
    }

    var slices: Int { examples * groups }
    var taps: Int { offsets.count }
    /// Elements from one line of windows to the next, as they are read.
    var lineDistance: Int { axes[2].places }
    var layerDistance: Int { axes[1].places * lineDistance }
    private var tiles: Int { trips_filter_tiles(outputs) }

    var planesBytes: Int { needsPlanes ? (inputs * plane * MemoryLayout<Float>.size).inWholeCacheLines : 0 }
    var sumsBytes: Int {
        guard hasGaps else { return 0 }
        let channels = min(outputs, ConvolutionLayout.mostTiles * Int(TRIPS_FILTER_TILE))
        return (channels * linesPerPart * lineDistance * MemoryLayout<Float>.size).inWholeCacheLines
    }

    /// Windows whose elements stay in a core's cache for all weights.
    private let windowsPerPart: Int
    private let linesPerPart: Int
    /// Tiles of a part, whose sums stay in cache until they are finished.
    private static let mostTiles = 3

    /// All outputs of a slice. Parts that read the same windows follow each other.
    func parts(threads: Int) -> [Part] {
        let lines = (0..<windows[1]).split(into: windows[1].dividedRoundingUp(by: linesPerPart))
        let columns =
            linesPerPart > 1 || windows[2] <= windowsPerPart
            ? [0..<windows[2]] : (0..<windows[2]).split(into: windows[2].dividedRoundingUp(by: windowsPerPart))
        // Enough for all threads, and as many for each.
        let wanted = 4 * threads / (windows[0] * lines.count * columns.count)
        let count = max(tiles.dividedRoundingUp(by: ConvolutionLayout.mostTiles), wanted).dividedRoundingUp(by: threads) * threads
        let tileGroups = (0..<tiles).split(into: min(tiles, count))
        return (0..<windows[0]).flatMap { layer in
            lines.flatMap { lines in
                columns.flatMap { columns in
                    tileGroups.map { Part(layer: layer, lines: lines, columns: columns, tiles: $0) }
                }
            }
        }
    }
}

/// A convolution with its addresses.
private final class BoundConvolution: Sendable {
    private let layout: ConvolutionLayout
    private let filters: PackedProduct
    private let source: Source<Float>
    private let bias, residual: Source<Float>?
    private let target: Target<Float>
    private let finishing: trips_finishing?

    init(_ instruction: ConvolutionInstruction, _ memory: PlanMemory) throws {
        layout = instruction.layout
        filters = try memory.weights.product(instruction.recipe)
        source = try memory.view(instruction.input).source()
        bias = try instruction.node.input(2).map { try memory.view($0).source() }
        residual = try instruction.residual.map { try memory.view($0).source() }
        target = try memory.mutableView(instruction.output).target()
        finishing = instruction.finishing
    }

    /// Lays out a channel of a slice.
    func fill(_ planes: UnsafeMutablePointer<Float>, _ slice: Int, _ channel: Int) {
        trips_phases(planes + channel * layout.plane, source.base + (slice * layout.inputs + channel) * layout.area, layout.axes)
    }

    func runDepthwise(_ slice: Int, _ kernel: Int) {
        let (group, windows) = (slice % layout.groups, layout.windowCount)
        let (result, filters) = (target.base + slice * windows, filters.pointer.assumingMemoryBound(to: Float.self))
        layout.axes.withUnsafeBufferPointer { axes in
            guard let axes = axes.baseAddress else { return }
            trips_depthwise(
                result, source.base + slice * layout.area, axes + 1, filters + group * layout.taps, kernel,
                bias.map { $0.base[group] } ?? 0)
        }
        guard var finishing else { return }
        trips_finish(result, windows, result, windows, 1, windows, residual.map { $0.base + slice * windows }, windows, &finishing)
    }

    /// - Parameter sums: room for the part's, where there are gaps between lines.
    func run(_ part: ConvolutionLayout.Part, _ slice: Int, _ planes: UnsafePointer<Float>, _ sums: UnsafeMutablePointer<Float>) {
        let (group, windows, width) = (slice % layout.groups, layout.windowCount, layout.windows[2])
        let read = layout.needsPlanes ? planes : source.base + slice * layout.inputs * layout.area
        let x = read + part.layer * layout.layerDistance + part.lines.lowerBound * layout.lineDistance + part.columns.lowerBound
        let count = (part.lines.count - 1) * layout.lineDistance + part.columns.count
        let first = trips_filter_row(layout.outputs, part.tiles.lowerBound)
        let channels = trips_filter_row(layout.outputs, part.tiles.upperBound) - first
        let place =
            slice * layout.outputs * windows + (part.layer * layout.windows[1] + part.lines.lowerBound) * width
            + part.columns.lowerBound
        let (y, distance) = layout.hasGaps ? (sums - first * count, count) : (target.base + place, windows)
        let packed = filters.pointer.assumingMemoryBound(to: Float.self) + group * layout.outputs * layout.taps
        trips_convolve(
            y, distance, x, layout.offsets, packed, layout.taps, bias.map { $0.base + group * layout.outputs },
            layout.outputs, count, part.tiles.lowerBound, part.tiles.upperBound)
        let (result, addend) = (target.base + place + first * windows, residual.map { $0.base + place + first * windows })
        guard layout.hasGaps else {
            guard var finishing else { return }
            return trips_finish(result, windows, result, windows, channels, count, addend, windows, &finishing)
        }
        var finishing = finishing ?? .identity
        for channel in 0..<channels {
            trips_finish(
                result + channel * windows, width, sums + channel * count, layout.lineDistance, part.lines.count,
                part.columns.count, addend.map { $0 + channel * windows }, width, &finishing)
        }
    }
}
