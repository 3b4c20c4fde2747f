import Support

/// The nodes that the graph's outputs need, each after those whose outputs it reads: in the order given if
/// that is one.
/// - Throws: `data` where two values have one name, or where there is a cycle.
func ordered(_ nodes: [ONNXNode], for graph: ONNXGraph) throws -> [ONNXNode] {
    let producers = try producers(nodes, graph)
    let needed = needed(nodes, producers, graph)
    enum State { case waiting, open, done }
    var states = Array(repeating: State.waiting, count: nodes.count)
    var order: [ONNXNode] = []
    for root in nodes.indices where needed[root] {
        var pending = [root]
        while let index = pending.last {
            switch states[index] {
            case .done: pending.removeLast()
            case .open:
                states[index] = .done
                order.append(nodes[index])
                pending.removeLast()
            case .waiting:
                states[index] = .open
                let before = nodes[index].inputs.compactMap { producers[$0] }.filter { states[$0] != .done }
                // What is open waits for this node.
                guard before.allSatisfy({ states[$0] == .waiting }) else {
                    throw TripsError.data("the graph has a cycle", at: "node \"\(nodes[index].label)\"")
                }
                pending += before.reversed()
            }
        }
    }
    return order
}

/// The index of the node that computes each name.
private func producers(_ nodes: [ONNXNode], _ graph: ONNXGraph) throws -> [String: Int] {
    let given = Set(graph.inputs.map(\.name) + graph.initializers.map(\.name))
    var producers: [String: Int] = [:]
    for (index, node) in nodes.enumerated() {
        for output in node.outputs where !output.isEmpty {
            guard producers.updateValue(index, forKey: output) == nil, !given.contains(output) else {
                throw TripsError.data("two values have one name", at: "node \"\(node.label)\"", found: output)
            }
        }
    }
    return producers
}

private func needed(_ nodes: [ONNXNode], _ producers: [String: Int], _ graph: ONNXGraph) -> [Bool] {
    var needed = Array(repeating: false, count: nodes.count)
    var pending = graph.outputs.compactMap { producers[$0.name] }
    while let index = pending.popLast() {
        if needed[index] { continue }
        needed[index] = true
        pending += nodes[index].inputs.compactMap { producers[$0] }
    }
    return needed
}
