import ModelGraph
import Support
import Tensors

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
            if isView(node), let input = node.input(0), tellsSizes(of: current, by: input) {
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
        node.op is Reshape || node.op is Transpose || node.op is Squeeze || node.op is Unsqueeze || node.op is Flatten
            || node.op is Identity || node.op is Slice || node.op is Gather || node.op is Split
    }

    /// False where an operator could not tell a size: only it will, once the inputs' sizes are known, so it must stay.
    private func tellsSizes(of output: ValueID, by input: ValueID) -> Bool {
        let known = Set(shape(of: input).flatMap(\.symbols))
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
        // Of an index beyond the axis nothing may be made that looks like one within it.
        if let size = from[axis].constant, let index = index.constant, !(-size..<size ~= index) { return nil }
        let position = try (index.constant ?? 0) < 0 ? from[axis].adding(index) : index
        return switch shape(of: indices).count {
        case 0: try layout.selected(axis, at: position)
        case 1: try layout.sliced(axis, from: position, count: 1)
        default: nil
        }
    }

    /// What a slice with steps of 1 takes along each axis that it shortens; nil where that is not known.
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

/// Writes a chain of views in the shortest form that there is: nothing, a reshape, a transpose, a row, a slice, or a
/// transpose and a reshape of its result.
struct SimplifyViews: Rewrite {
    let name = "simplify views"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard node.outputs.count == 1 || node.op is Split else { return nil }
        for output in node.outputs where !graph.consumers(of: output).isEmpty || graph.isOutput(output) || graph.isTraced(output) {
            let views = try graph.views(of: output)
            for view in views.reversed() {
                if let patch = try patch(output, of: view, by: node, in: graph) { return patch }
            }
            // Three views or more, which are two.
            for view in views.dropFirst(2).reversed() {
                if let patch = try patch(output, transposing: view, by: node, in: graph) { return patch }
            }
        }
        return nil
    }

    /// What a view is in one operator, or two.
    private enum Form {
        case source
        case row(Dimension, axis: Int)
        case reshape
        case transpose([Int])
        /// One row that keeps its axis: the row, and then the axis.
        case keptRow(Dimension, axis: Int)
        case slice(Dimension, axis: Int)
    }

    private func patch(_ output: ValueID, of view: View, by node: Node, in graph: Graph) throws -> Patch? {
        let (from, to) = (graph.shape(of: view.source), graph.shape(of: output))
        guard let form = try form(of: view.layout, from, to), try !isWritten(form, of: view.source, to, by: node, in: graph)
        else { return nil }
        var patch = Patch(for: graph)
        let (name, outputName) = (node.name, graph.name(of: output))
        let made: ValueID
        switch form {
        case .source: made = view.source
        case .row(let index, let axis): made = try patch.row(index, of: view.source, axis: axis, name: name, outputName: outputName)
        case .reshape: made = try patch.reshape(view.source, to: to, name: name, outputName: outputName)
        case .transpose(let permutation):
            made = patch.add(Transpose(permutation: permutation), [view.source], name: name, outputName: outputName)
        case .keptRow(let index, let axis):
            let row = try patch.row(index, of: view.source, axis: axis, name: name)
            made = try patch.reshape(row, to: to, name: name, outputName: outputName)
        case .slice(let start, let axis):
            let end = try start.adding(to[axis])
            // A split states its parts' sizes; a slice of a size that is a symbol may not be able to tell them.
            guard try Slice.range(of: from[axis], start, end)?.count == to[axis] else { return nil }
            made = try patch.slice(view.source, from: start, to: end, axis: axis, name: name, outputName: outputName)
        }
        patch.replace(output, with: made)
        return patch
    }

    /// The shortest form of a view of shape `to`, whose source has the shape `from`; nil where there is none of these.
    private func form(of layout: ViewLayout, _ from: [Dimension], _ to: [Dimension]) throws -> Form? {
        let whole = ViewLayout(of: from)
        if from == to && layout == whole { return .source }
        if from.count == to.count + 1, let (axis, index) = try row(layout, of: from) { return .row(index, axis: axis) }
        if try layout == whole.reshaped(to) { return .reshape }
        guard from.count == to.count else { return nil }
        if let permutation = permutation(layout, of: whole) { return .transpose(permutation) }
        guard let axis = try range(layout, from, to) else { return nil }
        // A part of a batch may have any size, and is no row.
        let isRow = to[axis] == 1 && axis > 0
        return isRow ? .keptRow(layout.offsets[axis], axis: axis) : .slice(layout.offsets[axis], axis: axis)
    }

    /// True where `node` is that form already.
    private func isWritten(_ form: Form, of source: ValueID, _ shape: [Dimension], by node: Node, in graph: Graph) throws -> Bool {
        if case .keptRow = form {
            guard node.op is Reshape, let row = node.input(0).flatMap(graph.producer) else { return false }
            return row.op is Gather && row.input(0) == source
        }
        guard node.input(0) == source else { return false }
        func stated() throws -> [Dimension]? { try node.input(1).flatMap { try graph.operand($0).integers() } }
        switch form {
        case .source, .keptRow: return false
        case .row(let index, let axis):
            guard let gather = node.op as? Gather, gather.axis == axis, node.input(1).map({ graph.shape(of: $0).isEmpty }) == true
            else { return false }
            return try stated()?.first == index
        case .reshape: return try node.op as? Reshape == Reshape(to: shape) && stated() == shape
        case .transpose(let permutation): return (node.op as? Transpose)?.permutation == permutation
        case .slice: return node.op is Slice && node.inputs.count <= 4
        }
    }

    /// A transpose of the source, reshaped, where the layout takes its axes whole, in another order.
    private func patch(_ output: ValueID, transposing view: View, by node: Node, in graph: Graph) throws -> Patch? {
        let (from, to) = (graph.shape(of: view.source), graph.shape(of: output))
        guard view.layout.isWhole else { return nil }
        let runs = view.layout.axes.flatMap { $0 }
        let long = from.indices.filter { from[$0] != 1 }
        guard runs.map(\.axis).sorted() == long, runs.allSatisfy({ $0.stride == 1 && $0.size == from[$0.axis] }) else { return nil }
        var patch = Patch(for: graph)
        let permutation = from.indices.filter { from[$0] == 1 } + runs.map(\.axis)
        let turned = patch.add(Transpose(permutation: permutation), [view.source], name: node.name)
        patch.replace(output, with: try patch.reshape(turned, to: to, name: node.name, outputName: graph.name(of: output)))
        return patch
    }

    /// The axis and index where the layout is one row of the source.
    private func row(_ layout: ViewLayout, of shape: [Dimension]) throws -> (Int, Dimension)? {
        for axis in shape.indices where shape[axis] != 1 {
            guard shape.indices.allSatisfy({ $0 == axis || layout.offsets[$0] == 0 }) else { continue }
            if try ViewLayout(of: shape).selected(axis, at: layout.offsets[axis]) == layout { return (axis, layout.offsets[axis]) }
        }
        return nil
    }

    private func permutation(_ layout: ViewLayout, of whole: ViewLayout) -> [Int]? {
        guard layout.isWhole else { return nil }
        let permutation = layout.axes.compactMap { axis in
            axis.count == 1 ? whole.axes.firstIndex(of: axis) : nil
        }
        return permutation.count == whole.axes.count && Set(permutation).count == permutation.count ? permutation : nil
    }

    /// The axis along which the layout is a slice of the source.
    private func range(_ layout: ViewLayout, _ from: [Dimension], _ to: [Dimension]) throws -> Int? {
        let differing = from.indices.filter { from[$0] != to[$0] }
        guard differing.count == 1, let axis = differing.first else { return nil }
        return try ViewLayout(of: from).sliced(axis, from: layout.offsets[axis], count: to[axis]) == layout ? axis : nil
    }
}

/// Lets operators that treat all rows alike work on the operand of a reshape or transpose instead of its result, so that
/// reshapes and transposes meet and cancel.
struct SinkViews: Rewrite {
    let name = "sink views"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        if let binary = node.op as? Binary { return try patch(binary, node, in: graph) }
        guard let view = try arranged(node.input(0), in: graph) else { return nil }
        let rowwise = node.op is Linear || node.op is LayerNorm || node.op is L2Normalize
        guard node.op is Unary || node.op is GELU || rowwise && view.layout.keepsLastAxis(of: graph.shape(of: view.source))
        else { return nil }
        var patch = Patch(for: graph)
        let inner = patch.add(node.op, [view.source] + node.inputs.dropFirst(), name: node.name)
        try patch.rearrange(inner, as: node.output, like: view.by, in: graph)
        return patch
    }

    private func patch(_ binary: Binary, _ node: Node, in graph: Graph) throws -> Patch? {
        guard let a = node.input(0), let b = node.input(1) else { return nil }
        var patch = Patch(for: graph)
        if let left = try arranged(a, in: graph), let right = try arranged(b, in: graph), graph.shape(of: a) == graph.shape(of: b),
            graph.shape(of: left.source) == graph.shape(of: right.source), left.layout == right.layout
        {
            let inner = patch.add(binary, [left.source, right.source], name: node.name)
            try patch.rearrange(inner, as: node.output, like: left.by, in: graph)
            return patch
        }
        for (index, other) in [(0, b), (1, a)] {
            guard graph.content(of: other) != nil, let view = try arranged(node.input(index), in: graph),
                graph.shape(of: node.output) == graph.shape(of: index == 0 ? a : b), spreads(other, view, in: graph)
            else { continue }
            let inner = patch.add(binary, index == 0 ? [view.source, other] : [other, view.source], name: node.name)
            try patch.rearrange(inner, as: node.output, like: view.by, in: graph)
            return patch
        }
        return nil
    }

    /// Whether a known operand means the same before and after the view: one number, or one row for all rows.
    private func spreads(_ known: ValueID, _ view: (source: ValueID, layout: ViewLayout, by: Node), in graph: Graph) -> Bool {
        let shape = graph.shape(of: known)
        if shape.allSatisfy({ $0 == 1 }) { return shape.count <= 1 }
        return shape.count == 1 && view.layout.keepsLastAxis(of: graph.shape(of: view.source))
    }

    /// The reshape or transpose behind a value.
    private func arranged(_ value: ValueID?, in graph: Graph) throws -> (source: ValueID, layout: ViewLayout, by: Node)? {
        guard let value, graph.content(of: value) == nil, let node = graph.producer(of: value),
            node.op is Reshape || node.op is Transpose,
            let view = try graph.views(of: value).first, view.source == node.input(0), graph.content(of: view.source) == nil
        else { return nil }
        return (view.source, view.layout, node)
    }
}

extension Patch {
    /// Puts the view that `node` makes behind `inner`, in place of `output`.
    fileprivate mutating func rearrange(_ inner: ValueID, as output: ValueID, like node: Node, in graph: Graph) throws {
        let outer =
            try node.op is Reshape
            ? reshape(inner, to: graph.shape(of: output), name: node.name) : add(node.op, [inner], name: node.name)
        replace(output, with: outer)
    }

    /// Adds what takes one row along an axis, which goes away.
    fileprivate mutating func row(_ index: Dimension, of value: ValueID, axis: Int, name: String, outputName: String? = nil) throws
        -> ValueID
    {
        add(
            Gather(axis: axis), [value, try add(sizes: [index], shape: [], name: "\(name).index")], name: name,
            outputName: outputName)
    }
}
