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

    func bind(_ memory: PlanMemory, scratch: UnsafeMutableRawPointer) throws -> @Sendable (ThreadPool) throws -> Void {
        let work = try BoundConvolution(self, memory)
        if let kernel = layout.depthwiseKernel { return bindDepthwise(work, kernel, threads: memory.threads) }
        let threads = memory.threads
        return sharesPlanes(threads)
            ? bindSharing(work, self.scratch(scratch, planes: 1), threads: threads)
            : bindBySlice(work, self.scratch(scratch, planes: threads), threads: threads)
    }

    private func bindDepthwise(_ work: BoundConvolution, _ kernel: Int, threads: Int) -> @Sendable (ThreadPool) throws -> Void {
        let tasks = (0..<layout.slices).split(into: min(layout.slices, 8 * threads))
        return { pool in
            pool.run(tasks.count) { index in
                for slice in tasks[index] { work.runDepthwise(slice, kernel) }
            }
        }
    }

    /// Threads divide one slice after the other among them.
    private func bindSharing(
        _ work: BoundConvolution, _ scratch: ConvolutionScratch, threads: Int
    ) -> @Sendable (ThreadPool) throws -> Void {
        let (layout, parts) = (layout, layout.parts(threads: threads))
        return { pool in
            for slice in 0..<layout.slices {
                if layout.needsPlanes {
                    pool.run(layout.inputs) { work.fill(scratch.planes.base, slice, $0) }
                }
                pool.run(parts.count) { index, thread in
                    work.run(parts[index], slice, scratch.planes.base, scratch.sums(thread))
                }
            }
        }
    }

    /// Each task takes whole slices.
    private func bindBySlice(
        _ work: BoundConvolution, _ scratch: ConvolutionScratch, threads: Int
    ) -> @Sendable (ThreadPool) throws -> Void {
        let (layout, parts) = (layout, layout.parts(threads: threads))
        let tasks = (0..<layout.slices).split(into: 8 * threads)
        return { pool in
            pool.run(tasks.count) { index, thread in
                let planes = scratch.planes(thread)
                for slice in tasks[index] {
                    if layout.needsPlanes {
                        for channel in 0..<layout.inputs { work.fill(planes, slice, channel) }
                    }
                    for part in parts { work.run(part, slice, planes, scratch.sums(thread)) }
                }
            }
        }
    }

    /// - Parameter planes: copies of a slice, before the threads' sums.
    private func scratch(_ bytes: UnsafeMutableRawPointer, planes: Int) -> ConvolutionScratch {
        let first = bytes.assumingMemoryBound(to: Float.self)
        let planesCount = layout.planesBytes / MemoryLayout<Float>.size
        return ConvolutionScratch(
            planes: Target(base: first), planesCount: planesCount, sums: Target(base: first + planes * planesCount),
            sumsCount: layout.sumsBytes / MemoryLayout<Float>.size)
    }
}

/// The working memory of a convolution: copies of its input, and sums of each thread.
private struct ConvolutionScratch: Sendable {
    let planes: Target<Float>
    /// Elements of a copy.
    let planesCount: Int
    let sums: Target<Float>
    /// Elements of a thread's sums.
    let sumsCount: Int

    func planes(_ thread: Int) -> UnsafeMutablePointer<Float> { planes.base + thread * planesCount }
    func sums(_ thread: Int) -> UnsafeMutablePointer<Float> { sums.base + thread * sumsCount }
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

    static func curve(_ activation: trips_activation) -> Self {
        var finishing = line()
        finishing.activation = activation
        return finishing
    }

    fileprivate var isIdentity: Bool {
        activation == TRIPS_ACTIVATION_NONE && (slope, offset, low, high) == (1, 0, -.infinity, .infinity) && !gated
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
