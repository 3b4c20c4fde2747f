import ModelGraph
import Support

/// Where the elements of a value lie in another one, through reshapes, transposes, slices and the like.
///
/// Each axis of the value runs over a list of strides along axes of the source, outermost first; the empty list is an
/// axis of size 1. Two values with equal layouts over the same source hold the same numbers in the same places, whatever
/// operators made them.
struct ViewLayout: Equatable {
    /// `size` steps of `stride` elements along one axis of the source.
    struct Run: Equatable {
        var axis: Int
        var stride: Dimension
        var size: Dimension
    }

    /// Where the first element lies along each axis of the source.
    private(set) var offsets: [Dimension]
    private(set) var axes: [[Run]]

    /// The layout of a value in itself.
    init(of shape: [Dimension]) {
        offsets = shape.map { _ in 0 }
        axes = shape.enumerated().map { axis, size in size == 1 ? [] : [Run(axis: axis, stride: 1, size: size)] }
    }

    var isWhole: Bool { offsets.allSatisfy { $0 == 0 } }

    /// True where the last axis runs over exactly the last one of a source with this shape. One of size 1 leaves no trace of
    /// where it lies.
    func keepsLastAxis(of shape: [Dimension]) -> Bool {
        guard let last = axes.last, let size = shape.last, size != 1, isWhole else { return false }
        return last == [Run(axis: shape.count - 1, stride: 1, size: size)]
    }

    /// The order of the source's axes, where nothing but that differs; axes of one element are taken as they come.
    func permutation(of shape: [Dimension]) -> [Int]? {
        guard isWhole, axes.count == shape.count else { return nil }
        var single = shape.indices.filter { shape[$0] == 1 }[...]
        let order = axes.compactMap { runs in
            guard let run = runs.first else { return single.popFirst() }
            return runs.count == 1 && run.stride == 1 && run.size == shape[run.axis] ? run.axis : nil
        }
        return Set(order).count == shape.count ? order : nil
    }

    func transposed(_ permutation: [Int]) -> ViewLayout {
        var layout = self
        layout.axes = permutation.map { axes[$0] }
        return layout
    }

    /// nil where a dimension of `shape` would run over parts of the source that have no common stride.
    func reshaped(_ shape: [Dimension]) throws -> ViewLayout? {
        var pending = axes.flatMap { $0 }[...]
        var result: [[Run]] = []
        for size in shape {
            var axis: [Run] = []
            var rest = size
            while rest != 1 {
                if let whole = try prefix(of: pending, filling: rest) {
                    axis += pending.prefix(whole)
                    pending = pending.dropFirst(whole)
                    rest = 1
                } else if let run = pending.first, let outer = rest.divided(exactlyBy: run.size) {
                    axis.append(run)
                    pending = pending.dropFirst()
                    rest = outer
                } else if let run = pending.first, let inner = run.size.divided(exactlyBy: rest) {
                    axis.append(Run(axis: run.axis, stride: try run.stride.multiplied(by: inner), size: rest))
                    pending[pending.startIndex].size = inner
                    rest = 1
                } else {
                    return nil
                }
            }
            result.append(axis)
        }
        guard pending.isEmpty else { return nil }
        var layout = self
        layout.axes = try result.map(ViewLayout.merged)
        return layout
    }

    /// How many of the first runs make up `size` elements together; nil where that is no whole number of runs.
    private func prefix(of runs: ArraySlice<Run>, filling size: Dimension) throws -> Int? {
        var count = Dimension(1)
        for (index, run) in runs.enumerated() {
            count = try count.multiplied(by: run.size)
            if count == size { return index + 1 }
        }
        return nil
    }

    /// Runs that continue each other become one.
    private static func merged(_ runs: [Run]) throws -> [Run] {
        var result: [Run] = []
        for run in runs {
            if let outer = result.last, outer.axis == run.axis, outer.stride == (try run.stride.multiplied(by: run.size)) {
                result[result.count - 1] = Run(axis: run.axis, stride: run.stride, size: try outer.size.multiplied(by: run.size))
            } else {
                result.append(run)
            }
        }
        return result
    }

    /// The elements `start ..< start + count` along an axis; nil where they are no run.
    func sliced(_ axis: Int, from start: Dimension, count: Dimension) throws -> ViewLayout? {
        var layout = self
        guard let outer = axes[axis].first else { return start == 0 && count == 1 ? self : nil }
        let inner = try product(axes[axis].dropFirst().map(\.size))
        guard let first = start.divided(exactlyBy: inner), let steps = count.divided(exactlyBy: inner) else { return nil }
        layout.offsets[outer.axis] = try offsets[outer.axis].adding(first.multiplied(by: outer.stride))
        if steps == 1 {
            layout.axes[axis].removeFirst()
        } else {
            layout.axes[axis][0].size = steps
        }
        return layout
    }

    /// The elements at `index` along an axis, which is removed.
    func selected(_ axis: Int, at index: Dimension) throws -> ViewLayout? {
        guard var layout = try sliced(axis, from: index, count: 1) else { return nil }
        guard layout.axes[axis].isEmpty else { return nil }
        layout.axes.remove(at: axis)
        return layout
    }
}
