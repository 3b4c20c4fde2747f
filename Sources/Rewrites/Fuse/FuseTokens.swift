import ModelGraph
import Tensors

/// The class token before the patches, and then the positions, become operands of the patch embedding.
struct FuseTokens: Rewrite {
    let name = "class token and positions"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        if let concat = node.op as? Concat { return try classToken(concat, node, graph) }
        for (tokens, positions) in graph.operandsInEitherOrder(of: node.outputs.first, .add) {
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

/// The row that a constant [B, 1, D] repeats for each example of a batch of constant size.
private func repeatedRow(_ value: ValueID, _ graph: Graph) throws -> Constant? {
    guard let constant = graph.constant(of: value), constant.shape.count == 3, constant.shape[1] == 1, constant.shape[0] > 0,
        constant.dataType == .float32, let width = constant.shape.last, try elementCount(of: constant.shape) <= 1 << 20
    else { return nil }
    let numbers = try constant.load().elements(Float.self)
    guard numbers.indices.allSatisfy({ numbers[$0] == numbers[$0 % width] }) else { return nil }
    return try constant.rows(0..<1).reshaped([width])
}
