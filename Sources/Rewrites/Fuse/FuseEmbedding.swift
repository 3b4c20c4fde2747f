import ModelGraph
import Tensors

/// Rows of a table, and sums of such rows, become Embedding.
struct FuseEmbedding: Rewrite {
    let name = "embedding"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        if node.op is Gather { return try lookup(node, graph) }
        for (sum, addend) in graph.operandsInEitherOrder(of: node.outputs.first, .add) {
            guard let (embedding, op) = graph.producer(of: sum, Embedding.self), graph.hasOneUse(sum),
                graph.type(of: node.output) == graph.type(of: sum), isTable(addend, graph)
            else { continue }
            // One row for all positions is the token type's; as many rows as tokens are positions.
            let shape = graph.shape(of: addend)
            let slot = shape.dropLast().allSatisfy { $0 == 1 } && graph.shape(of: sum)[1] != 1 || embedding.input(2) != nil ? 3 : 2
            guard embedding.input(slot) == nil else { continue }
            var operands = (0..<4).map { embedding.input($0) }
            operands[slot] = addend
            while operands.last == .some(nil) { operands.removeLast() }
            var patch = Patch(for: graph)
            patch.replace(node, in: graph, with: op, operands, name: embedding.name)
            return patch
        }
        return nil
    }

    private func isTable(_ value: ValueID, _ graph: Graph) -> Bool {
        if graph.content(of: value) != nil { return true }
        guard let slice = graph.producer(of: value, Slice.self)?.node, let table = slice.input(0) else { return false }
        return graph.constant(of: table) != nil
    }

    private func lookup(_ node: Node, _ graph: Graph) throws -> Patch? {
        guard let gather = node.op as? Gather, let tableValue = node.input(0), let ids = node.input(1),
            let table = graph.constant(of: tableValue), table.shape.count == 2, table.dataType.isFloatingPoint,
            try resolveAxis(gather.axis, rank: 2) == 0, graph.type(of: ids).rank > 0
        else { return nil }
        var patch = Patch(for: graph)
        let (shape, outputName) = (graph.shape(of: node.output), graph.name(of: node.output))
        let result: ValueID
        if graph.content(of: ids) != nil {
            guard let rows = try knownRows(ids, of: table, graph) else { return nil }
            let value = patch.add(rows, name: "\(graph.name(of: tableValue)).rows")
            result = try rows.shape.map { Dimension($0) } == shape ? value : patch.expand(value, to: shape, name: node.name)
        } else if let inner = graph.producer(of: ids, Expand.self)?.node.input(0) {
            // Rows that are the same for all examples are looked up once.
            let rows = patch.add(gather, [tableValue, inner], name: node.name)
            result = try patch.expand(rows, to: shape, name: node.name, outputName: outputName)
        } else if let places = try consecutive(ids, in: table, graph) {
            let axis = graph.type(of: ids).rank - 1
            let rows = patch.add(
                try table.reshaped(Array(repeating: 1, count: axis) + table.shape), name: graph.name(of: tableValue))
            result = try patch.slice(rows, from: places.start, to: places.start.adding(places.count), axis: axis, name: node.name)
        } else {
            result = patch.add(Embedding(), [ids, tableValue], name: node.name, outputName: outputName)
        }
        patch.replace(node.output, with: result)
        return patch
    }

    /// What known indices choose of a table: one row for all of them, or a run of rows; nil where that is neither.
    private func knownRows(_ ids: ValueID, of table: Constant, _ graph: Graph) throws -> Constant? {
        guard let indices = try graph.elements(of: ids, atMost: 1 << 16)?.integers(), let first = indices.first, first >= 0,
            indices.allSatisfy({ $0 < table.shape[0] })
        else { return nil }
        if indices.allSatisfy({ $0 == first }) {
            return try table.rows(first..<first + 1).reshaped(graph.shape(of: ids).map { _ in 1 } + [table.shape[1]])
        }
        guard indices == Array(first..<first + indices.count), let shape = graph.type(of: ids).constantShape else { return nil }
        return try table.rows(first..<first + indices.count).reshaped(shape + [table.shape[1]])
    }

    /// Indices that count upwards along their last axis, up to a size that has a symbol.
    private func consecutive(_ ids: ValueID, in table: Constant, _ graph: Graph) throws -> (start: Dimension, count: Dimension)? {
        // Beyond the table the model could not run; of a table of one row, though, a slice would serve all the same.
        guard let count = graph.shape(of: ids).last, let places = try graph.affineIndices(ids), places.steps.last == 1,
            places.steps.dropLast().allSatisfy({ $0 == 0 }), graph.shape(of: ids).dropLast().allSatisfy({ $0 == 1 }),
            let start = places.first.lowerBound, start >= 0, start < table.shape[0] - 1,
            count.madeUpSymbols.isEmpty
        else { return nil }
        return (places.first, count)
    }
}
