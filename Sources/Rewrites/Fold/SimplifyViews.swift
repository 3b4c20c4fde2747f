import ModelGraph

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
            // A chain of three views or more may be a transpose and a reshape.
            for view in views.dropFirst(2).reversed() {
                if let patch = try patch(output, transposing: view, by: node, in: graph) { return patch }
            }
        }
        return nil
    }

    /// The views that take one operator, or two.
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
        let simplified: ValueID
        switch form {
        case .source: simplified = view.source
        case .row(let index, let axis):
            simplified = try patch.row(index, of: view.source, axis: axis, name: name, outputName: outputName)
        case .reshape: simplified = try patch.reshape(view.source, to: to, name: name, outputName: outputName)
        case .transpose(let permutation):
            simplified = patch.add(Transpose(permutation: permutation), [view.source], name: name, outputName: outputName)
        case .keptRow(let index, let axis):
            let row = try patch.row(index, of: view.source, axis: axis, name: name)
            simplified = try patch.reshape(row, to: to, name: name, outputName: outputName)
        case .slice(let start, let axis):
            let end = try start.adding(to[axis])
            // A split states its parts' sizes; those of a slice of a size that is a symbol may be unknown.
            guard try Slice.range(of: from[axis], start, end)?.count == to[axis] else { return nil }
            simplified = try patch.slice(view.source, from: start, to: end, axis: axis, name: name, outputName: outputName)
        }
        patch.replace(output, with: simplified)
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
        // That a part of a batch has one example does not make it a row.
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
        let transposed = patch.add(Transpose(permutation: permutation), [view.source], name: node.name)
        patch.replace(output, with: try patch.reshape(transposed, to: to, name: node.name, outputName: graph.name(of: output)))
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

extension Patch {
    /// Adds a Gather of one row along an axis, which it removes.
    fileprivate mutating func row(_ index: Dimension, of value: ValueID, axis: Int, name: String, outputName: String? = nil) throws
        -> ValueID
    {
        add(
            Gather(axis: axis), [value, try add(sizes: [index], shape: [], name: "\(name).index")], name: name,
            outputName: outputName)
    }
}
