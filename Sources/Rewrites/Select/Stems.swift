import ModelGraph

/// What the states of a tower come from.
extension Graph {
    /// The node of this type that a value comes from through operators that keep the tokens apart, sums of them included.
    func stem(of value: ValueID, _ kind: any Operator.Type, depth: Int = 8) -> Node? {
        guard depth > 0, content(of: value) == nil, let node = producer(of: value) else { return nil }
        if Swift.type(of: node.op) == kind { return node }
        if (node.op as? Binary)?.kind == .add {
            // All addends must lead there, or residual sums would lead through whole layers. Positions that are resized in the
            // graph do not count.
            let addends = node.inputs.compactMap { $0 }.filter(readsInputs)
            let stems = addends.compactMap { stem(of: $0, kind, depth: depth - 1) }
            return stems.count == addends.count ? stems.first : nil
        }
        if kind == PatchEmbedding.self, let leading = try? leadingParts(of: node) {
            return stem(of: leading.patches, kind, depth: depth - 1)
        }
        guard node.op is LayerNorm || node.op is Linear || isRowwise(node, of: [node.input(0) ?? value]), let inner = node.input(0)
        else { return nil }
        return stem(of: inner, kind, depth: depth - 1)
    }

    /// How many tokens come before the patches that a value [B, T, D] is made of: a class token, others that models learn
    /// beside it for distillation or as registers. 0 where it comes from none.
    func leadingTokens(of value: ValueID, depth: Int = 8) throws -> Int {
        guard depth > 0, content(of: value) == nil, let node = producer(of: value) else { return 0 }
        if node.op is PatchEmbedding { return node.input(3) == nil ? 0 : 1 }
        if let parts = try leadingParts(of: node) { return try parts.change + leadingTokens(of: parts.patches, depth: depth - 1) }
        let inner = (node.op as? Binary)?.kind == .add ? node.inputs.compactMap { $0 }.first(where: readsInputs) : node.input(0)
        return try inner.map { try leadingTokens(of: $0, depth: depth - 1) } ?? 0
    }

    /// Where a node puts tokens that are the same for all pictures in front of patches, or cuts leading ones off: how many more
    /// there are then, and what patches come from.
    private func leadingParts(of node: Node) throws -> (patches: ValueID, change: Int)? {
        guard type(of: node.output).rank == 3 else { return nil }
        if let concat = node.op as? Concat, concat.axis == 1 || concat.axis == -2, let patches = node.inputs.last ?? nil {
            var count = 0
            for case let part? in node.inputs.dropLast() {
                guard let size = shape(of: part)[1].constant, try !readsInputs(part) || isLeading(part) else { return nil }
                count += size
            }
            return (patches, count)
        }
        guard node.op is Slice, let tokens = node.input(0), let range = try sliceRanges(node), range.count == 1, range[0].axis == 1,
            let start = range[0].start.constant, try 0...leadingTokens(of: tokens) ~= start,
            try range[0].start.adding(range[0].count) == shape(of: tokens)[1]
        else { return nil }
        return (tokens, -start)
    }

    /// True for the first of leading tokens, however they are cut off.
    private func isLeading(_ value: ValueID) throws -> Bool {
        guard let count = shape(of: value)[1].constant else { return false }
        return try views(of: value).contains { view in
            let whole = shape(of: view.source)
            guard whole.count == 3, try ViewLayout(of: whole).sliced(1, from: 0, count: Dimension(count)) == view.layout
            else { return false }
            return try count <= leadingTokens(of: view.source)
        }
    }

    /// False for a value that is known, or computed of such values and of sizes alone.
    private func readsInputs(_ value: ValueID) -> Bool {
        var (pending, seen) = ([value], Set<ValueID>())
        while let value = pending.popLast() {
            guard content(of: value) == nil, seen.insert(value).inserted else { continue }
            guard let node = producer(of: value) else { return true }
            pending += node.inputs.compactMap { $0 }
        }
        return false
    }
}
