import ModelGraph
import Support

/// A value as a view of another one: the same numbers, arranged by `layout` and multiplied by `scale`.
struct View {
    let source: ValueID
    let layout: ViewLayout
    var scale = 1.0
}

extension Graph {
    /// All values of which `value` is a view, the nearest first; it itself is not among them.
    /// - Parameter scaled: also look through products with one number.
    func views(of value: ValueID, scaled isScaled: Bool = false) throws -> [View] {
        var steps: [(node: Node, output: ValueID)] = []
        var scale = 1.0
        var current = value
        var found: [View] = []
        // Not through a traced value: it would lose its last reader, and with it the trace.
        while content(of: current) == nil, current == value || !isTraced(current), let node = producer(of: current),
            steps.count < 32
        {
            let source: ValueID
            if isView(node), let input = node.input(0), tellsSizes(of: current, by: [input]) {
                steps.append((node, current))
                source = input
            } else if isScaled, let (inner, factor) = try self.scaled(current) {
                scale *= factor
                source = inner
            } else {
                break
            }
            var layout: ViewLayout? = ViewLayout(of: shape(of: source))
            for step in steps.reversed() { layout = try layout.flatMap { try arrangement(of: step.output, by: step.node, $0) } }
            if let layout { found.append(View(source: source, layout: layout, scale: scale)) }
            current = source
        }
        return found
    }

    private func isView(_ node: Node) -> Bool {
        node.op.isReshape || node.op is Transpose || node.op is Slice || node.op is Gather || node.op is Split
    }

    /// False where the operator alone determines a size, which it does once the inputs' sizes are known: it must stay.
    func tellsSizes(of output: ValueID, by inputs: [ValueID]) -> Bool {
        let known = Set(inputs.flatMap { shape(of: $0).flatMap(\.symbols) })
        return shape(of: output).allSatisfy { size in size.madeUpSymbols.allSatisfy(known.contains) }
    }

    /// The layout of what `node` makes of an operand with the given layout; nil where it is no view.
    private func arrangement(of output: ValueID, by node: Node, _ layout: ViewLayout) throws -> ViewLayout? {
        guard let input = node.input(0) else { return nil }
        let (from, to) = (shape(of: input), shape(of: output))
        switch node.op {
        case is Identity: return layout
        case is Reshape, is Squeeze, is Unsqueeze, is Flatten: return try layout.reshaped(to)
        case let transpose as Transpose: return try layout.transposed(transpose.resolved(rank: from.count))
        case let gather as Gather: return try arrangement(gather, node, from, layout)
        case is Slice:
            guard let ranges = try sliceRanges(node) else { return nil }
            return try ranges.reduce(layout) { layout, range in
                try layout?.sliced(range.axis, from: range.start, count: range.count)
            }
        case let split as Split:
            let axis = try resolveAxis(split.axis, rank: from.count)
            var start = Dimension(0)
            for part in node.outputs {
                if part == output { break }
                start = try start.adding(shape(of: part)[axis])
            }
            return try layout.sliced(axis, from: start, count: to[axis])
        default: return nil
        }
    }

    private func arrangement(_ gather: Gather, _ node: Node, _ from: [Dimension], _ layout: ViewLayout) throws -> ViewLayout? {
        guard let indices = node.input(1), try product(shape(of: indices)) == 1,
            let index = try operand(indices).integers()?.first
        else { return nil }
        let axis = try resolveAxis(gather.axis, rank: from.count)
        // An index beyond the axis must not become one within it.
        if let size = from[axis].constant, let index = index.constant, !(-size..<size ~= index) { return nil }
        let position = try (index.constant ?? 0) < 0 ? from[axis].adding(index) : index
        return switch shape(of: indices).count {
        case 0: try layout.selected(axis, at: position)
        case 1: try layout.sliced(axis, from: position, count: 1)
        default: nil
        }
    }

    /// The range that a slice with steps of 1 takes along each axis that it shortens; nil where that is not known.
    func sliceRanges(_ node: Node) throws -> [(axis: Int, start: Dimension, count: Dimension)]? {
        func integers(_ index: Int) throws -> [Dimension]? { try node.input(index).flatMap { try operand($0).integers() } }
        guard let x = node.input(0), let starts = try integers(1), let ends = try integers(2) else { return nil }
        let (from, to) = (shape(of: x), shape(of: node.output))
        let axes = try node.input(3).map { try operand($0).constantIntegers() } ?? Array(starts.indices)
        let steps = try node.input(4).map { try operand($0).constantIntegers() } ?? starts.map { _ in 1 }
        guard let axes, let steps, steps.allSatisfy({ $0 == 1 }), axes.count == starts.count, ends.count == starts.count else {
            return nil
        }
        var ranges: [(axis: Int, start: Dimension, count: Dimension)] = []
        for (index, stated) in axes.enumerated() {
            let axis = try resolveAxis(stated, rank: from.count)
            if from[axis] == to[axis] { continue }
            guard let range = try Slice.range(of: from[axis], starts[index], ends[index]) else { return nil }
            ranges.append((axis, range.first, range.count))
        }
        return ranges
    }
}
