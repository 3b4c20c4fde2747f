import ModelGraph

/// A lookup of all rows in their order is the table itself, in the shape of the indices. Hugging Face's masks read the padding
/// that way, by the places of the example and of the key.
struct DropLookups: Rewrite {
    let name = "lookups in order"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let x = node.input(0), let indices = node.input(1), graph.content(of: x) == nil,
            let (places, depth) = try rows(node, of: x, indices, graph)
        else { return nil }
        let shape = graph.shape(of: node.output)
        var (rows, sizes) = (Dimension(1), shape)
        for (axis, step) in places.steps.enumerated().reversed() {
            guard step != 0 else { sizes[axis] = 1; continue }
            guard step == rows else { return nil }
            rows = try rows.multiplied(by: shape[axis])
        }
        guard places.first == 0, try rows == product(graph.shape(of: x).prefix(depth)) else { return nil }
        var patch = Patch(for: graph)
        let arranged = try patch.reshape(x, to: sizes, name: node.name)
        patch.replace(
            node.output, with: try patch.expand(arranged, to: shape, name: node.name, outputName: graph.name(of: node.output)))
        return patch
    }

    /// The places of the rows that are looked up, and how many axes of the table they run over.
    private func rows(_ node: Node, of x: ValueID, _ indices: ValueID, _ graph: Graph) throws -> (AffineIndices, Int)? {
        switch node.op {
        case let gather as Gather where try resolveAxis(gather.axis, rank: graph.type(of: x).rank) == 0:
            return try graph.affineIndices(indices).map { ($0, 1) }
        case let gather as GatherND where gather.batchDimensions == 0:
            guard let depth = graph.shape(of: indices).last?.constant, depth > 0 else { return nil }
            return try graph.affineIndices(ofTuples: indices, along: Array(graph.shape(of: x).prefix(depth))).map { ($0, depth) }
        default: return nil
        }
    }
}
