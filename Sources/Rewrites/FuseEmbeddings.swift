import ModelGraph
import Support
import Tensors

/// A convolution in steps of its kernel size whose result is laid out as rows of patches becomes PatchEmbedding, and so does
/// a projection of patches that reshapes and transposes cut out of the image, as einops writes them.
struct FusePatchEmbedding: Rewrite {
    let name = "patch embedding"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        if node.op is Linear { return try projection(node, graph) }
        guard let output = node.outputs.first, node.outputs.count == 1 else { return nil }
        for view in try graph.views(of: output) {
            guard let (conv, op) = graph.producer(of: view.source, Conv.self), let image = conv.input(0),
                let weightValue = conv.input(1),
                graph.constant(of: weightValue) != nil, op.cutsPatches(graph.shape(of: weightValue))
            else { continue }
            let shape = graph.shape(of: view.source)
            let rows = try ViewLayout(of: shape).transposed([0, 2, 3, 1])
                .reshaped([shape[0], shape[2].multiplied(by: shape[3]), shape[1]])
            guard let rows, view.layout == rows else { return nil }
            var patch = Patch(for: graph)
            var operands = [image, weightValue]
            if let bias = conv.input(2) {
                guard let row = try graph.row(bias, width: shape[1]) else { return nil }
                operands.append(patch.add(row, name: "\(conv.name).bias"))
            }
            patch.replace(node, in: graph, with: PatchEmbedding(), operands, name: conv.name)
            return patch
        }
        return nil
    }

    private func projection(_ node: Node, _ graph: Graph) throws -> Patch? {
        guard let patches = node.input(0), let weight = node.input(1), graph.constant(of: weight) != nil else { return nil }
        for view in try graph.views(of: patches) {
            let shape = graph.shape(of: view.source)
            guard shape.count == 4, view.layout.axes.count == 3, let elements = view.layout.axes.last,
                let channels = elements.firstIndex(where: { $0.axis == 1 }),
                let lines = elements.firstIndex(where: { $0.axis == 2 }),
                let columns = elements.firstIndex(where: { $0.axis == 3 }), elements.count == 3,
                let height = shape[2].divided(exactlyBy: elements[lines].size),
                let width = shape[3].divided(exactlyBy: elements[columns].size)
            else { continue }
            let cut = try ViewLayout(of: shape)
                .reshaped([shape[0], shape[1], height, elements[lines].size, width, elements[columns].size])
            let rows = try cut?.transposed([0, 2, 4] + elements.map { [1, 3, 5][$0.axis - 1] })
                .reshaped([shape[0], height.multiplied(by: width), product(elements.map(\.size))])
            guard view.layout == rows else { continue }
            var patch = Patch(for: graph)
            let sizes = [graph.shape(of: weight)[0]] + elements.map(\.size)
            let split = try patch.reshape(weight, to: sizes, name: node.name)
            let kernel = patch.add(
                Transpose(permutation: [0, channels + 1, lines + 1, columns + 1]), [split], name: graph.name(of: weight))
            patch.replace(node, in: graph, with: PatchEmbedding(), [view.source, kernel] + node.inputs.dropFirst(2))
            return patch
        }
        return nil
    }
}

extension Conv {
    /// True where the windows of a picture are patches: they lie side by side, as PatchEmbedding cuts them.
    /// - Parameter weight: its shape.
    func cutsPatches(_ weight: [Dimension]) -> Bool {
        weight.count == 4 && groups == 1 && (window.strides ?? []).map { Dimension($0) } == Array(weight.dropFirst(2))
            && (window.pads ?? []).allSatisfy { $0 == 0 } && (window.dilations ?? []).allSatisfy { $0 == 1 }
            && (window.autoPad == .notSet || window.autoPad == .valid)
    }
}

/// The class token in front of the patches, and then the positions, join the patch embedding.
struct FuseTokens: Rewrite {
    let name = "class token and positions"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        if let concat = node.op as? Concat { return try classToken(concat, node, graph) }
        guard let (a, b) = graph.operands(of: node.outputs.first, .add) else { return nil }
        for (tokens, positions) in [(a, b), (b, a)] {
            guard let (embedding, op) = graph.producer(of: tokens, PatchEmbedding.self), embedding.input(4) == nil,
                graph.hasOneUse(tokens),
                let table = graph.constant(of: positions),
                let shape = ValueType(.int64, Array(graph.shape(of: tokens)[1...])).constantShape,
                table.shape.drop(while: { $0 == 1 }).elementsEqual(shape.drop(while: { $0 == 1 })), table.shape.count <= 3
            else { continue }
            var patch = Patch(for: graph)
            let rows = patch.add(try table.reshaped([1] + shape), name: graph.name(of: positions))
            let operands = (0..<4).map { embedding.input($0) } + [rows]
            patch.replace(node, in: graph, with: op, operands, name: embedding.name)
            return patch
        }
        return nil
    }

    private func classToken(_ concat: Concat, _ node: Node, _ graph: Graph) throws -> Patch? {
        guard node.inputs.count == 2, let first = node.inputs[0], let tokens = node.inputs[1],
            let (embedding, op) = graph.producer(of: tokens, PatchEmbedding.self), embedding.input(3) == nil,
            embedding.input(4) == nil,
            graph.hasOneUse(tokens), try resolveAxis(concat.axis, rank: 3) == 1, graph.shape(of: first)[1] == 1
        else { return nil }
        let token = (graph.producer(of: first, Expand.self)?.node ?? graph.producer(of: first, Tile.self)?.node)?.input(0) ?? first
        guard let row = try graph.row(token, width: graph.shape(of: tokens)[2]) ?? repeatedRow(token, graph) else { return nil }
        var patch = Patch(for: graph)
        let operands = (0..<3).map { embedding.input($0) } + [patch.add(row, name: graph.name(of: token))]
        patch.replace(node, in: graph, with: op, operands, name: embedding.name)
        return patch
    }
}

/// The row of which a constant [B, 1, D] consists, written once for each example of a batch of constant size.
private func repeatedRow(_ value: ValueID, _ graph: Graph) throws -> Constant? {
    guard let constant = graph.constant(of: value), constant.shape.count == 3, constant.shape[1] == 1, constant.shape[0] > 0,
        constant.dataType == .float32, let width = constant.shape.last, try elementCount(of: constant.shape) <= 1 << 20
    else { return nil }
    let numbers = try constant.load().elements(Float.self)
    guard numbers.indices.allSatisfy({ numbers[$0] == numbers[$0 % width] }) else { return nil }
    return try constant.rows(0..<1).reshaped([width])
}

/// Rows of a table, and sums of such rows, become Embedding.
struct FuseEmbedding: Rewrite {
    let name = "embedding"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        if node.op is Gather { return try lookup(node, graph) }
        guard let (a, b) = graph.operands(of: node.outputs.first, .add) else { return nil }
        for (sum, addend) in [(a, b), (b, a)] {
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
        let made: ValueID
        if graph.content(of: ids) != nil {
            guard let rows = try knownRows(ids, of: table, graph) else { return nil }
            let value = patch.add(rows, name: "\(graph.name(of: tableValue)).rows")
            made = try rows.shape.map { Dimension($0) } == shape ? value : patch.expand(value, to: shape, name: node.name)
        } else if let inner = graph.producer(of: ids, Expand.self)?.node.input(0) {
            // Rows that are the same for all examples are looked up once.
            let rows = patch.add(gather, [tableValue, inner], name: node.name)
            made = try patch.expand(rows, to: shape, name: node.name, outputName: outputName)
        } else if let places = try consecutive(ids, in: table, graph) {
            let axis = graph.type(of: ids).rank - 1
            let rows = patch.add(
                try table.reshaped(Array(repeating: 1, count: axis) + table.shape), name: graph.name(of: tableValue))
            made = try patch.slice(rows, from: places.start, to: places.start.adding(places.count), axis: axis, name: node.name)
        } else {
            made = patch.add(Embedding(), [ids, tableValue], name: node.name, outputName: outputName)
        }
        patch.replace(node.output, with: made)
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
        guard let count = graph.shape(of: ids).last, let places = try graph.places(ids), places.steps.last == 1,
            places.steps.dropLast().allSatisfy({ $0 == 0 }), graph.shape(of: ids).dropLast().allSatisfy({ $0 == 1 }),
            let start = places.first.lowerBound, start >= 0, start < table.shape[0] - 1,
            count.madeUpSymbols.isEmpty
        else { return nil }
        return (places.first, count)
    }
}
