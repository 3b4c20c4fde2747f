import ModelGraph

extension Graph {
    /// The part that computes these outputs and traces, all as outputs.
    package func reduced(to results: [String]) throws -> Graph {
        var graph = self
        let values = results.compactMap { name in value(ofResult: name).map { (name, $0) } }
        try graph.selectOutputs([])
        for (name, value) in values { try graph.addOutput(name, value) }
        graph.removeTraces()
        graph.prune()
        graph.removeUnusedInputs()
        return graph
    }

    /// The inputs on which the values depend, for their numbers or for their sizes, in the graph's order.
    package func inputs(behind wanted: [ValueID]) -> [ValueID] {
        var reached = Set<ValueID>()
        var pending = wanted
        while let value = pending.popLast() {
            guard reached.insert(value).inserted, content(of: value) == nil else { continue }
            pending += producer(of: value)?.inputs.compactMap { $0 } ?? []
        }
        reached.formUnion(inputsDeterminingSizes(of: reached, besides: inputs.filter(reached.contains)))
        return inputs.filter(reached.contains)
    }

    /// The value of an output or a trace.
    func value(ofResult name: String) -> ValueID? {
        outputs.first { $0.name == name }?.value ?? traces.first { $0.name == name }?.value
    }
}
