import Support

/// The order of the nodes, and what depends on what.
extension Graph {
    /// All nodes, each after those whose outputs it reads.
    /// - Throws: `data` where there is a cycle.
    public func topologicalOrder() throws -> [Node] {
        var waiting = nodeSlots.map { node in
            node.map { Set($0.inputs.compactMap { $0.flatMap { self.producer(of: $0)?.id } }).count } ?? -1
        }
        var order: [Node] = []
        var ready = waiting.indices.filter { waiting[$0] == 0 }.reversed().map { $0 }
        while let index = ready.popLast() {
            guard let node = nodeSlots[index] else { continue }
            order.append(node)
            for consumer in Set(node.outputs.flatMap { values[$0.index].consumers }).sorted(by: >) {
                waiting[consumer.index] -= 1
                if waiting[consumer.index] == 0 { ready.append(consumer.index) }
            }
        }
        guard order.count == nodeSlots.count(where: { $0 != nil }) else {
            let stuck = nodeSlots.compactMap { $0 }.first { waiting[$0.id.index] > 0 }
            throw TripsError.data("the graph has a cycle", at: stuck?.name)
        }
        return order
    }

    /// Everything that is computed from any of `values`, they themselves among it.
    package func dependents(of values: [ValueID]) -> Set<ValueID> {
        var reached = Set(values)
        var pending = values
        while let value = pending.popLast() {
            for node in consumers(of: value) {
                for output in node.outputs where content(of: output) == nil && reached.insert(output).inserted {
                    pending.append(output)
                }
            }
        }
        return reached
    }

    /// True for what a product multiplies by, or a lookup reads. Other constants, such as masks, are no weights.
    package func isWeight(_ value: ValueID) -> Bool {
        consumers(of: value).contains { node in
            node.op is Linear || node.op is MatMul || node.op is Gemm || node.op is Einsum || node.op is Conv
                || node.op is ConvTranspose || node.op is PatchEmbedding || node.op is Embedding
        }
    }

    /// Inputs that are needed for their shapes alone: these values, or their shapes, depend on sizes that these inputs' shapes
    /// determine and those of no input among `read` do.
    package func inputsDeterminingSizes(of values: some Sequence<ValueID>, besides read: some Sequence<ValueID>) -> [ValueID] {
        /// Those that are a size by themselves.
        func symbols(of input: ValueID) -> Set<String> {
            Set(shape(of: input).flatMap { size in size.symbols.filter { size == Dimension(symbol: $0) } })
        }
        let known = Set(read.flatMap(symbols))
        guard !inputs.allSatisfy({ symbols(of: $0).isSubset(of: known) }) else { return [] }
        var needed = Set(
            values.flatMap { value in
                let sizes: [Dimension] = if case .dimensions(let sizes) = content(of: value) { sizes } else { [] }
                return (shape(of: value) + sizes).flatMap(\.symbols)
            })
        needed.subtract(known)
        return inputs.filter { input in
            let determined = symbols(of: input).intersection(needed)
            needed.subtract(determined)
            return !determined.isEmpty
        }
    }
}
