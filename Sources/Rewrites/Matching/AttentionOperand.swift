import ModelGraph
import Support

/// How an operand [..., L, E] of an attention's products is cut out of another value: heads, their size, and where they lie.
struct AttentionOperand {
    /// The value out of which the operand is cut.
    let source: ValueID
    let heads: Int
    let headSize: Int
    let batch: Dimension
    let length: Dimension
    /// A number by which the source is multiplied on the way.
    let scale: Double
    let form: Form

    enum Form {
        /// Of a value [B, L, ...] or [L, ...] whose last axis holds the heads side by side, from column `offset` on; [L, B, ...]
        /// with `lengthFirst`.
        case projection(offset: Int, lengthFirst: Bool)
        /// Of a value that holds the heads along an axis of its own: its shape with an axis for each of batch, heads, tokens and
        /// elements, and the order that puts the heads after the tokens.
        case axes(shape: [Dimension], permutation: [Int])
    }
}

// MARK: Recognising

extension Graph {
    /// Queries, keys and values with their heads; nil where these are not recognised, or do not fit each other.
    func headedOperands(of pattern: AttentionPattern) throws -> (q: AttentionOperand, k: AttentionOperand, v: AttentionOperand)? {
        let operands = [(pattern.q, false), (pattern.k, pattern.keysLast), (pattern.v, false)]
        let projections = try operands.map { try projectedOperand($0, isTransposed: $1) }
        // A value [B · H, L, E] looks like one head of a larger batch.
        let heads = projections.compactMap { $0?.heads }.max()
        let found = try zip(operands, projections).compactMap { operand, projection in
            if let projection, projection.heads == heads { return projection }
            return try operandWithHeadAxis(operand.0, isTransposed: operand.1, heads: heads)
        }
        guard found.count == 3 else { return nil }
        let (q, k, v) = (found[0], found[1], found[2])
        guard q.heads == k.heads, k.heads == v.heads, q.headSize == k.headSize,
            [k, v].allSatisfy({ $0.batch == q.batch || $0.batch == 1 })
        else { return nil }
        return (q, k, v)
    }

    /// A value and those of which it is a view, the farthest first.
    private func sources(of value: ValueID) throws -> [View] {
        let itself = View(source: value, layout: ViewLayout(of: shape(of: value)))
        return try ([itself] + views(of: value, scaled: true)).reversed()
    }

    /// An operand that is no view of a projection: of a value [B, H, L, E] in any order of its axes, or of one [B · H, L, E], of
    /// whose number of heads another operand shows.
    private func operandWithHeadAxis(_ value: ValueID, isTransposed: Bool, heads: Int?) throws -> AttentionOperand? {
        var shape = shape(of: value)
        if shape.count == 3, let heads, let batch = shape[0].divided(exactlyBy: Dimension(heads)) {
            shape = [batch, Dimension(heads)] + shape[1...]
        }
        guard shape.count == 4 else { return nil }
        for view in try sources(of: value) {
            let from = view.source == value ? shape : self.shape(of: view.source)
            let layout = view.source == value ? ViewLayout(of: shape) : try view.layout.reshaped(shape)
            guard var order = layout?.permutation(of: from) else { continue }
            if isTransposed { order.swapAt(2, 3) }
            guard let count = from[order[1]].constant, let size = from[order[3]].constant, count > 0, size > 0 else { continue }
            return AttentionOperand(
                source: view.source, heads: count, headSize: size, batch: from[order[0]], length: from[order[2]], scale: view.scale,
                form: .axes(shape: from, permutation: [order[0], order[2], order[1], order[3]]))
        }
        return nil
    }

    /// An operand whose heads lie side by side along the last axis of a source.
    /// - Parameter isTransposed: whether the operand is [..., E, L].
    private func projectedOperand(_ value: ValueID, isTransposed: Bool) throws -> AttentionOperand? {
        for view in try sources(of: value) {
            let rank = view.layout.axes.count
            guard rank >= 2 else { continue }
            let transposed = Array(0..<rank - 2) + [rank - 1, rank - 2]
            let layout = isTransposed ? view.layout.transposed(transposed) : view.layout
            if let operand = AttentionOperand(layout, of: view, shape: shape(of: view.source)) { return operand }
        }
        return nil
    }
}

extension AttentionOperand {
    /// - Parameters:
    ///   - layout: the operand's, [..., L, E].
    ///   - shape: the source's.
    fileprivate init?(_ layout: ViewLayout, of view: View, shape: [Dimension]) {
        guard shape.count == 2 || shape.count == 3 else { return nil }
        let last = shape.count - 1
        let elements = layout.axes[layout.axes.count - 1], tokens = layout.axes[layout.axes.count - 2]
        let outer = layout.axes.dropLast(2).flatMap { $0 }
        let headRuns = outer.filter { $0.axis == last }, batchRuns = outer.filter { $0.axis != last }
        guard outer == batchRuns + headRuns, let (heads, headSize) = AttentionOperand.heads(headRuns, elements, lastAxis: last),
            (batchRuns + tokens).allSatisfy({ $0.size == shape[$0.axis] }), let offset = layout.offsets[last].constant
        else { return nil }
        let others = (0..<last).filter { $0 != batchRuns.first?.axis && $0 != tokens.first?.axis }
        // Axes of size 1 leave no trace in the layout; what is left over must be of that kind.
        // Where each row is an example by itself, there is no axis of tokens.
        guard others.allSatisfy({ shape[$0] == 1 }), let lengthAxis = tokens.first?.axis ?? others.last else { return nil }
        let batchAxis = (0..<last).first { $0 != lengthAxis }
        self.init(
            source: view.source, heads: heads, headSize: headSize, batch: batchAxis.map { shape[$0] } ?? 1,
            length: shape[lengthAxis],
            scale: view.scale, form: .projection(offset: offset, lengthFirst: shape.count == 3 && lengthAxis == 0))
    }

    /// How many heads lie side by side along the last axis, and of which size.
    private static func heads(_ heads: [ViewLayout.Run], _ elements: [ViewLayout.Run], lastAxis: Int) -> (count: Int, size: Int)? {
        guard elements.count == 1, heads.count <= 1, let run = elements.first, run.axis == lastAxis, run.stride == 1,
            let size = run.size.constant, size > 0
        else { return nil }
        guard let run = heads.first else { return (1, size) }
        guard run.stride == Dimension(size), let count = run.size.constant else { return nil }
        return (count, size)
    }
}

// MARK: Building

extension AttentionOperand {
    /// Adds the operand [B, L, D] of an Attention: the projection itself, its rows as a projection of their own, or the source
    /// with its axes in this order.
    func laidOut(suffix: String, in graph: Graph, _ patch: inout Patch) throws -> ValueID {
        switch form {
        case .projection(let offset, let lengthFirst):
            return try projected(offset, lengthFirst, suffix, graph, &patch)
        case .axes(let shape, let permutation):
            let name = graph.name(of: source)
            let value = graph.shape(of: source).count == 4 ? source : try patch.reshape(source, to: shape, name: name)
            let transposed = patch.add(Transpose(permutation: permutation), [value], name: name)
            return try patch.reshape(transposed, to: [batch, length, Dimension(heads * headSize)], name: "\(name).\(suffix)")
        }
    }

    private func projected(
        _ offset: Int, _ lengthFirst: Bool, _ suffix: String, _ graph: Graph, _ patch: inout Patch
    ) throws -> ValueID {
        let (name, shape) = (graph.name(of: source), graph.shape(of: source))
        let columns = try self.columns(offset, suffix, graph, &patch)
        if shape.count == 2 {
            return try patch.reshape(columns, to: [1, shape[0], Dimension(heads * headSize)], name: "\(name).batch")
        }
        return lengthFirst ? patch.add(Transpose(permutation: [1, 0, 2]), [columns], name: "\(name).batch") : columns
    }

    /// The source's columns that the heads take.
    private func columns(_ offset: Int, _ suffix: String, _ graph: Graph, _ patch: inout Patch) throws -> ValueID {
        let shape = graph.shape(of: source)
        let columns = offset..<offset + heads * headSize
        if shape.last == Dimension(columns.count) { return source }
        if let projection = try patch.addProjection(columns, of: source, suffix: suffix, in: graph) { return projection }
        return try patch.slice(
            source, from: Dimension(columns.lowerBound), to: Dimension(columns.upperBound), axis: shape.count - 1,
            name: "\(graph.name(of: source)).\(suffix)")
    }
}
