/// Dropping what nothing needs.
extension Graph {
    /// Drops nodes that neither an output nor a trace needs; a session computes what is asked for only.
    package mutating func prune() {
        var needed = Set<NodeID>()
        var pending = outputs.map(\.value) + traces.map(\.value)
        var sources: [String: ValueID]?
        while let value = pending.popLast() {
            if let content = values[value.index].content {
                var sizes = values[value.index].type.shape
                if case .dimensions(let stated) = content { sizes += stated }
                let open = sizes.flatMap(\.madeUpSymbols)
                guard !open.isEmpty else { continue }
                if sources == nil { sources = sizeSources() }
                pending += open.compactMap { sources?.removeValue(forKey: $0) }
                continue
            }
            guard let id = values[value.index].producer, needed.insert(id).inserted, let node = nodeSlots[id.index] else {
                continue
            }
            pending += node.inputs.compactMap { $0 }
        }
        let unneeded = nodeSlots.compactMap { $0 }.filter { !needed.contains($0.id) }
        guard !unneeded.isEmpty else { return }
        for node in unneeded { removeNode(node) }
        for index in values.indices { values[index].consumers.removeAll { nodeSlots[$0.index] == nil } }
    }

    /// Maps each size that only a run determines to the value whose node determines it. Other nodes have it from an operand.
    private func sizeSources() -> [String: ValueID] {
        var sources: [String: ValueID] = [:]
        for node in nodes where node.outputs.contains(where: { values[$0.index].type.shape.contains(where: \.isMadeUp) }) {
            let operands = node.inputs.compactMap { $0.map { values[$0.index] } }
            let known = Set(
                operands.flatMap { operand in
                    if case .dimensions(let sizes) = operand.content { return (operand.type.shape + sizes).flatMap(\.symbols) }
                    return operand.type.shape.flatMap(\.symbols)
                })
            for output in node.outputs {
                for symbol in values[output.index].type.shape.filter(\.isMadeUp).flatMap(\.symbols) where !known.contains(symbol) {
                    sources[symbol] = output
                }
            }
        }
        return sources
    }

    /// Removes inputs that nothing reads, except those whose shapes determine a size that is needed.
    package mutating func removeUnusedInputs() {
        let read = inputs.filter { !values[$0.index].consumers.isEmpty || isOutput($0) }
        let known = nodes.flatMap { $0.inputs.compactMap { $0 } } + outputs.map(\.value) + traces.map(\.value)
        let sources = inputsDeterminingSizes(of: known, besides: read)
        inputs = inputs.filter { read.contains($0) || sources.contains($0) }
    }

    /// True where something reads what a node puts out.
    func isRead(_ node: Node) -> Bool {
        node.outputs.contains { !values[$0.index].consumers.isEmpty || isOutput($0) || isTraced($0) }
    }

    /// Removes `node` if nothing needs it any more, and then those that fed only it. What may determine a size is left to `prune`.
    mutating func removeIfUnused(_ id: NodeID) {
        var pending = [id]
        while let id = pending.popLast() {
            guard let node = nodeSlots[id.index],
                !isRead(node), !node.outputs.contains(where: { values[$0.index].type.shape.contains(where: \.isMadeUp) })
            else { continue }
            removeNode(node)
            for input in Set(node.inputs.compactMap { $0 }) { values[input.index].consumers.removeAll { $0 == id } }
            pending += Set(node.inputs.compactMap { $0.flatMap { values[$0.index].producer } })
        }
    }

    /// Takes a node out; it is still listed among the consumers of what it reads.
    private mutating func removeNode(_ node: Node) {
        nodeSlots[node.id.index] = nil
        for output in node.outputs {
            // The producer stays recorded: a value that was computed must not pass for an input or a constant.
            // What became known is still read, and keeps its name.
            if values[output.index].content == nil, names[values[output.index].name] == output {
                names[values[output.index].name] = nil
                if !lastNumbers.isEmpty { lastNumbers = [:] }
            }
        }
    }
}
