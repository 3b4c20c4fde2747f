import ModelGraph

/// Passes the original positions of the tokens from one selection to the next.
struct ThreadPositions: Rewrite {
    let name = "positions of selected patches"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let op = node.op as? PatchSelection, node.input(3) == nil, let tokens = node.input(0),
            let before = selection(before: tokens, graph),
            graph.shape(of: before.outputs[3]) == [graph.shape(of: tokens)[0], try graph.shape(of: tokens)[1].subtracting(1)]
        else { return nil }
        var patch = Patch(for: graph)
        let outputs = patch.add(
            op, (0..<3).map { node.input($0) } + [before.outputs[3]], name: node.name,
            outputNames: node.outputs.map { graph.name(of: $0) },
            outputCount: node.outputs.count)
        for (old, new) in zip(node.outputs, outputs) { patch.replace(old, with: new) }
        return patch
    }

    /// The selection whose stream these tokens are, some layers later.
    private func selection(before tokens: ValueID, _ graph: Graph) -> Node? {
        let shape = graph.shape(of: tokens)
        var pending = [tokens]
        var seen = Set(pending)
        while let value = pending.popLast() {
            guard graph.content(of: value) == nil, let node = graph.producer(of: value) else { continue }
            if node.op is PatchSelection { return node }
            for case let input? in node.inputs where graph.shape(of: input) == shape && seen.insert(input).inserted {
                pending.append(input)
            }
        }
        return nil
    }
}
