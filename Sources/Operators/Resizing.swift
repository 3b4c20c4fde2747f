import ModelGraph
import Support
import Tensors

extension Resize: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try checkTypes(inputs, outputs)
        guard outputs[0].count > 0 else { return }
        let x = try inputs.required(0)
        let samplings = try samplings(inputs, x.shape, outputs[0].shape)
        // Axes that shrink go first, so that nothing in between is larger than what is read or written.
        let shrinking = samplings.filter { $0.places.count < x.shape[$0.axis] }
        let tasks = shrinking + samplings.filter { $0.places.count >= x.shape[$0.axis] }
        // Integers are interpolated in double precision and rounded towards zero.
        let wide = !x.dataType.isFloatingPoint || x.dataType == .float64
        try converting([x], to: wide ? .float64 : .float32, result: outputs[0]) { views, y in
            func run<T: Real>(_: T.Type) throws {
                guard let last = tasks.last else { return y.copy(from: views[0]) }
                var (current, owner, shape) = (views[0], Optional<Tensor>.none, x.shape)
                for task in tasks.dropLast() {
                    shape[task.axis] = task.places.count
                    let next = try Tensor.written(y.dataType, shape) { target in
                        task.apply(T.self, current, target, extrapolation: Double(extrapolation), on: pool)
                    }
                    withExtendedLifetime(owner) { current = next.view }
                    owner = next
                }
                withExtendedLifetime(owner) { last.apply(T.self, current, y, extrapolation: Double(extrapolation), on: pool) }
            }
            if wide { try run(Double.self) } else { try run(Float.self) }
        }
    }

    /// The sampling of each axis, without axes that do not change.
    private func samplings(_ inputs: [TensorView?], _ from: [Int], _ to: [Int]) throws -> [Sampling] {
        let axes = try resolveAxes(axes ?? Array(from.indices), rank: from.count)
        let roi = coordinates == .tfCropAndResize ? try inputs.optional(1)?.numbers() : nil
        if coordinates == .tfCropAndResize, roi?.count != 2 * axes.count {
            throw TripsError.data("roi", found: roi?.count, expected: "\(2 * axes.count) numbers")
        }
        let scales = try inputs.optional(2).flatMap { $0.count == 0 ? nil : try $0.numbers() }
        let shared = aspectRatio == .stretch || scales != nil ? nil : try sharedScale(inputs, axes, from)
        return try axes.indices.compactMap { index in
            let axis = axes[index]
            guard to[axis] == 0 || from[axis] > 0 else {
                throw TripsError.data("resizing an empty axis", found: "\(from)", expected: "\(to)")
            }
            if to[axis] == 0 { return Sampling(axis: axis, places: []) }
            let scale = scales?[index] ?? shared ?? Double(to[axis]) / Double(max(1, from[axis]))
            guard scale > 1e-9, scale < 1e9 else { throw TripsError.data("scale", found: scale, expected: "in 1e-9 ... 1e9") }
            let region = roi.map { ($0[index], $0[index + axes.count]) }
            if scale == 1, from[axis] == to[axis], region == nil { return nil }
            return sampling(axis: axis, from: from[axis], to: to[axis], scale: scale, region)
        }
    }

    private func sharedScale(_ inputs: [TensorView?], _ axes: [Int], _ from: [Int]) throws -> Double? {
        guard let sizes = try inputs.optional(3)?.integers() else { return nil }
        let ratios = zip(sizes, axes).map { Double($0) / Double(max(1, from[$1])) }
        return aspectRatio == .notLarger ? ratios.min() : ratios.max()
    }

    private func sampling(axis: Int, from: Int, to: Int, scale: Double, _ region: (start: Double, end: Double)?) -> Sampling {
        let places = (0..<to).map { index -> Sampling.Place in
            let x = position(Double(index), from: Double(from), to: Double(to), scale: scale, region)
            if region != nil, !(x >= 0 && x <= Double(from - 1)) { return Sampling.Place(indices: [], weights: []) }
            // The left neighbour lies strictly to the left: an integer position is at distance 1 from it.
            let left = x == x.rounded(.down) ? x - 1 : x.rounded(.down)
            let (first, weights) = kernel(x - left, scale: scale)
            var indices = weights.indices.map { Int(left) + first + $0 }
            var kept = weights
            if excludeOutside {
                for index in kept.indices where indices[index] < 0 || indices[index] >= from { kept[index] = 0 }
                let total = kept.reduce(0, +)
                kept = kept.map { $0 / total }
            }
            indices = indices.map { min(max($0, 0), from - 1) }
            return Sampling.Place(indices: indices, weights: kept)
        }
        return Sampling(axis: axis, places: places)
    }

    /// The position of an output element in the input.
    private func position(_ index: Double, from: Double, to: Double, scale: Double, _ region: (start: Double, end: Double)?)
        -> Double
    {
        let scaled = scale * from
        switch coordinates {
        case .alignCorners: return scaled == 1 ? 0 : index * (from - 1) / (scaled - 1)
        case .asymmetric: return index / scale
        case .halfPixel: return (index + 0.5) / scale - 0.5
        case .tfHalfPixelForNearest: return (index + 0.5) / scale
        case .pytorchHalfPixel: return to == 1 ? 0 : (index + 0.5) / scale - 0.5
        case .halfPixelSymmetric: return from / 2 * (1 - to / scaled) + (index + 0.5) / scale - 0.5
        case .tfCropAndResize:
            guard let region else { return 0 }
            if scaled == 1 { return (region.end - region.start) * (from - 1) / 2 + region.start * (from - 1) }
            return index * (region.end - region.start) * (from - 1) / (scaled - 1) + region.start * (from - 1)
        }
    }

    /// The weights of neighbours at a distance in (0, 1] from the left one, and which of them is the first (0: the left one).
    private func kernel(_ distance: Double, scale: Double) -> (first: Int, weights: [Double]) {
        let shrink = antialias ? min(scale, 1) : 1
        switch mode {
        case .nearest:
            if distance == 1 { return (1, [1]) }
            switch nearest {
            case .floor: return (0, [1])
            case .ceil: return (1, [1])
            case .roundPreferFloor: return (distance <= 0.5 ? 0 : 1, [1])
            case .roundPreferCeil: return (distance < 0.5 ? 0 : 1, [1])
            }
        case .linear: return sampled(radius: 1, distance, shrink) { max(0, 1 - $0) }
        case .cubic:
            let a = Double(cubicCoefficient)
            return sampled(radius: 2, distance, shrink) { cubicConvolution($0, a) }
        }
    }

    /// Samples of a kernel function that reaches `radius` far, stretched by 1 / shrink, with sum 1 where it is stretched.
    private func sampled(radius: Double, _ distance: Double, _ shrink: Double, _ function: (Double) -> Double) -> (Int, [Double]) {
        let first = Int((-radius / shrink).rounded(.down)) + 1
        let weights = (first...(1 - first)).map { function(((Double($0) - distance) * shrink).magnitude) }
        guard antialias else { return (first, weights) }
        let total = weights.reduce(0, +)
        return (first, weights.map { $0 / total })
    }
}

/// Weighted sums along one axis.
private struct Sampling: Sendable {
    /// The inputs of one output element and their weights; none where it lies outside the input.
    struct Place: Sendable {
        var indices: [Int]
        var weights: [Double]
    }
    let axis: Int
    let places: [Place]

    func apply<T: Real>(_: T.Type, _ x: TensorView, _ y: MutableTensorView, extrapolation: Double, on pool: ThreadPool) {
        let (from, to) = (AxisRows(x.shape, axis: axis), AxisRows(y.shape, axis: axis))
        let (source, target) = (x.source(T.self), y.target(T.self))
        let taps = Taps<T>(places, extrapolation: T(extrapolation))
        parallel(to.outer, grain: taskGrain / max(1, 4 * to.inner * to.size), on: pool) { part in
            for block in part {
                let (lines, results) = (source + block * from.size * from.inner, target + block * to.size * to.inner)
                if to.inner == 1 { taps.weigh(lines, into: results) } else { taps.weigh(lines, into: results, width: to.inner) }
            }
        }
    }
}

/// The places of a sampling as flat lists, as lists of lists are slow to walk through.
private struct Taps<T: Real>: Sendable {
    /// The sum of each place without its taps, and where these end.
    private var starts: [T] = []
    private var ends: [Int] = []
    private var indices: [Int] = []
    private var weights: [T] = []
    /// Each place has one tap.
    private let isNearest: Bool

    init(_ places: [Sampling.Place], extrapolation: T) {
        for place in places {
            starts.append(place.indices.isEmpty ? extrapolation : 0)
            for (index, weight) in zip(place.indices, place.weights) where T(weight) != 0 {
                indices.append(index)
                weights.append(T(weight))
            }
            ends.append(indices.count)
        }
        isNearest = ends == Array(1...max(1, ends.count))
    }

    /// Sums of single elements.
    func weigh(_ elements: Source<T>, into results: Target<T>) {
        read { starts, ends, indices, weights in
            if isNearest {
                for place in starts.indices { results[place] = starts[place] + weights[place] * elements[indices[place]] }
                return
            }
            var tap = 0
            for place in starts.indices {
                var sum = starts[place]
                while tap < ends[place] {
                    sum += weights[tap] * elements[indices[tap]]
                    tap += 1
                }
                results[place] = sum
            }
        }
    }

    /// Sums of lines of `width` elements.
    func weigh(_ lines: Source<T>, into results: Target<T>, width: Int) {
        read { starts, ends, indices, weights in
            var tap = 0
            for place in starts.indices {
                let result = results + place * width
                result.base.update(repeating: starts[place], count: width)
                while tap < ends[place] {
                    let (line, weight) = (lines + indices[tap] * width, weights[tap])
                    for index in 0..<width { result[index] += weight * line[index] }
                    tap += 1
                }
            }
        }
    }

    private func read(
        _ body: (UnsafeBufferPointer<T>, UnsafeBufferPointer<Int>, UnsafeBufferPointer<Int>, UnsafeBufferPointer<T>) -> Void
    ) {
        starts.withUnsafeBufferPointer { starts in
            ends.withUnsafeBufferPointer { ends in
                indices.withUnsafeBufferPointer { indices in weights.withUnsafeBufferPointer { body(starts, ends, indices, $0) } }
            }
        }
    }
}

/// The weight of a neighbour at this distance by Keys' cubic convolution (1981) with the coefficient a.
package func cubicConvolution(_ distance: Double, _ a: Double) -> Double {
    let d = distance
    if d <= 1 { return ((a + 2) * d - (a + 3)) * d * d + 1 }
    return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0
}
