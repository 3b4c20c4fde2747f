import ModelGraph

/// A large batch runs through a model in parts, so that a layer finds the results of the previous one in cache.
extension Graph {
    /// The symbol of the batch size where each example is computed apart from the others; nil where that is not certain.
    package func separableBatch() throws -> String? {
        guard let batch = inputs.first.flatMap({ shape(of: $0).first }), let symbol = batch.symbols.first,
            batch == Dimension(symbol: symbol)
        else { return nil }
        var carriers = Set(inputs)
        /// The size of a batch is that of its first axis, and no other follows it.
        func isBatch(_ value: ValueID) -> Bool {
            shape(of: value).first == batch && !shape(of: value).dropFirst().contains { $0.symbols.contains(symbol) }
        }
        guard inputs.allSatisfy(isBatch) else { return nil }
        for node in try topologicalOrder() where !node.outputs.allSatisfy({ content(of: $0) != nil }) {
            let read = node.inputs.compactMap { $0 }.filter(carriers.contains)
            // What depends on no input is the same for every example.
            guard !read.isEmpty || node.outputs.contains(where: { shape(of: $0).contains(where: { $0.symbols.contains(symbol) }) })
            else { continue }
            guard node.outputs.allSatisfy(isBatch), keepsExamplesApart(node, carriers) else { return nil }
            carriers.formUnion(node.outputs)
        }
        return outputs.allSatisfy { carriers.contains($0.value) } ? symbol : nil
    }

    /// Whether the node's row of an example depends on that example alone. `carriers` have the batch as their first axis.
    private func keepsExamplesApart(_ node: Node, _ carriers: Set<ValueID>) -> Bool {
        let rank = shape(of: node.output).count
        func isCarried(_ index: Int) -> Bool { node.input(index).map(carriers.contains) ?? false }
        /// For operands that broadcast to `rank` axes: the first of these must be a carrier's batch, and no other axis may meet it.
        func meetsBatchInPlace(_ rank: Int) -> (ValueID?) -> Bool {
            { value in
                guard let value else { return true }
                let shape = self.shape(of: value)
                return carriers.contains(value) ? shape.count == rank : shape.count < rank || shape.first == 1
            }
        }
        switch node.op {
        case is PatchEmbedding, is Embedding, is QuantizedEmbedding, is PaddingMask:
            return isCarried(0) && !node.inputs.indices.dropFirst().contains(where: isCarried)
        case is Linear, is QuantizedLinear, is LayerNorm, is GELU, is L2Normalize, is Unary, is Cast, is Identity:
            return rank > 1 && isCarried(0) && !node.inputs.indices.dropFirst().contains(where: isCarried)
        case is Attention:
            return node.inputs.prefix(3).allSatisfy(meetsBatchInPlace(3))
                && node.inputs.dropFirst(3).allSatisfy(meetsBatchInPlace(4))
        case let selection as PatchSelection: return selection.guidance != .random
        case is Reshape, is Squeeze, is Unsqueeze, is Flatten: return !isCarried(1)
        case let gather as Gather: return gather.axis > 0 && isCarried(0) && !isCarried(1)
        case let concat as Concat: return concat.axis > 0 && node.inputs.indices.allSatisfy(isCarried)
        case is MatMul: return isCarried(0) && !isCarried(1) && (rank == 2 || node.inputs.allSatisfy(meetsBatchInPlace(rank)))
        case is Binary, is Expand: return node.inputs.prefix(node.op is Expand ? 1 : 2).allSatisfy(meetsBatchInPlace(rank))
        default: return false
        }
    }

    /// Examples of a part: just enough for products to be efficient, so that their rows stay in cache.
    /// - Parameter shapes: of the inputs.
    func examplesAtOnce(_ batch: String, _ shapes: [String: [Int]]) throws -> Int {
        var symbols = symbols(for: shapes)
        symbols[batch] = 1
        var single = self
        try single.bind(symbols)
        let rows =
            single.nodes.filter { $0.op is Linear || $0.op is QuantizedLinear }.compactMap { node in
                single.type(of: node.output).constantShape?.dropLast().reduce(1, *)
            }.max() ?? 1
        return max(1, Graph.rowsAtOnce / max(1, rows))
    }

    /// Rows of activations that go through a layer at once: in fp32 and at a width of 3072 they take some megabytes.
    private static let rowsAtOnce = 640
}
