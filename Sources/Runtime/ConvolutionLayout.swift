import Kernels
import ModelGraph
import Operators
import Support
import Tensors

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
        // Enough for all threads, and a multiple of their number.
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
