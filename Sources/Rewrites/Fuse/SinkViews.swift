import ModelGraph

/// Makes operators that treat all rows alike work on the operand of a reshape or transpose instead of its result, so that
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

    /// The reshape or transpose that computes a value.
    private func arranged(_ value: ValueID?, in graph: Graph) throws -> (source: ValueID, layout: ViewLayout, by: Node)? {
        guard let value, graph.content(of: value) == nil, let node = graph.producer(of: value),
            node.op is Reshape || node.op is Transpose,
            let view = try graph.views(of: value).first, view.source == node.input(0), graph.content(of: view.source) == nil
        else { return nil }
        return (view.source, view.layout, node)
    }
}

extension Patch {
    /// Replaces `output` by the view of `inner` that `node` makes of its operand.
    fileprivate mutating func rearrange(_ inner: ValueID, as output: ValueID, like node: Node, in graph: Graph) throws {
        let outer =
            try node.op is Reshape
            ? reshape(inner, to: graph.shape(of: output), name: node.name) : add(node.op, [inner], name: node.name)
        replace(output, with: outer)
    }
}
