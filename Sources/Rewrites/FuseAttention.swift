import ModelGraph
import Support
import Tensors

/// softmax(q · kᵀ · scale + mask) · v becomes Attention, whatever reshapes, transposes, slices and splits cut the heads
/// out of the projections, wherever the scale is applied, and whether the projections are packed or not.
///
/// The parts of a packed projection become a Linear each, over rows of its weight. Operands that are no projections, such as
/// queries that were turned by their places or are known, are laid out as one. A mask that adds the same to all keys
/// of a query is dropped: the softmax does not see it. Where NaN among the weights is replaced by 0, as PyTorch's exporters do for
/// queries whose keys are all masked, the operator does so too.
struct FuseAttention: Rewrite {
    let isClose: Closeness
    let name = "attention"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard var parts = try node.op is MatMul ? products(node, graph) : onnx(node, graph), let output = node.outputs.first else { return nil }
        let views = try [(parts.q, false), (parts.k, parts.keysLast), (parts.v, false)].map { (value: $0, keysLast: $1, heads: try heads($0, keysLast: $1, graph)) }
        // A value [B · H, L, E] looks like one head of a larger batch.
        let count = views.compactMap(\.heads?.heads).max()
        let found = try views.compactMap { view in
            if let heads = view.heads, heads.heads == count { return heads }
            return try whole(view.value, keysLast: view.keysLast, heads: count, graph)
        }
        guard found.count == 3 else { return nil }
        let (q, k, v) = (found[0], found[1], found[2])
        guard q.heads == k.heads, k.heads == v.heads, q.headSize == k.headSize, [k, v].allSatisfy({ $0.batch == q.batch || $0.batch == 1 })
        else { return nil }
        var patch = Patch(for: graph)
        guard let (causal, mask) = try mask(parts, q, k, node, graph, &patch) else { return nil }
        if causal { parts.causal = true }
        let scale = parts.scale * q.scale * k.scale
        let attention = Attention(
            heads: q.heads, scale: isClose(scale * Double(q.headSize).squareRoot(), 1) ? nil : Float(scale), causal: parts.causal,
            fullyMasked: mask == nil && parts.fullyMasked == .zero ? nil : parts.fullyMasked)
        guard v.scale == 1 else { return nil }
        let operands = try [q, k, v].enumerated().map { index, part in
            try projection(part, suffix: ["query", "key", "value"][index], graph, &patch)
        }
        let made = patch.add(attention, operands + (mask.map { [$0] } ?? []), name: node.name)
        // [B, L, H · E] back into the place of [B, H, L, E].
        let shape = graph.shape(of: output)
        let (batch, length) = (q.batch, q.length)
        let cut = try patch.reshape(made, to: [batch, length, Dimension(v.heads), Dimension(v.headSize)], name: node.name)
        var placed = patch.add(Transpose(permutation: [0, 2, 1, 3]), [cut], name: node.name)
        if shape != [batch, Dimension(v.heads), length, Dimension(v.headSize)] {
            placed = try patch.reshape(placed, to: shape, name: node.name)
        }
        patch.replace(output, with: placed)
        return patch
    }

    /// What a pattern was found to multiply.
    private struct Parts {
        var q: ValueID
        var k: ValueID
        var v: ValueID
        /// k is [..., D, M] instead of [..., M, D].
        var keysLast: Bool
        var scale: Double
        /// What is added to the scores, and their shape there.
        var addends: [(value: ValueID, shape: [Dimension])] = []
        /// True where scores are replaced behind that.
        var replacement: (condition: ValueID, number: Double, whereTrue: Bool, shape: [Dimension])?
        var causal = false
        var fullyMasked: Attention.FullyMasked?
    }

    // MARK: Recognising

    private func products(_ node: Node, _ graph: Graph) throws -> Parts? {
        guard let v = node.input(1), let weights = node.input(0).map({ behindReshapes($0, graph) }) else { return nil }
        let guarded = try zeroForNaN(weights, graph)
        guard let softmax = graph.producer(of: guarded ?? weights, Softmax.self), let input = softmax.node.input(0),
            try resolveAxis(softmax.op.axis, rank: graph.type(of: input).rank) == graph.type(of: input).rank - 1
        else { return nil }
        var parts = Parts(q: v, k: v, v: v, keysLast: true, scale: 1, fullyMasked: guarded == nil ? nil : .zeroForNaN)
        var current = input
        for _ in 0..<10 {
            if let (product, _) = graph.producer(of: current, MatMul.self), let q = product.input(0), let k = product.input(1) {
                parts.q = q
                parts.k = k
                return parts
            }
            if let (inner, factor) = try graph.scaled(current) {
                parts.scale *= factor
                current = inner
                continue
            }
            // A scale found before the mask would scale the mask as well.
            if let (a, b) = graph.operands(of: current, .add) {
                guard parts.scale == 1 else { return nil }
                let scores = try isScores(a, graph) ? a : try isScores(b, graph) ? b : nil
                guard let scores, graph.shape(of: scores) == graph.shape(of: current) else { return nil }
                parts.addends.append((scores == a ? b : a, graph.shape(of: current)))
                current = scores
                continue
            }
            if let (choice, _) = graph.producer(of: current, Where.self), let condition = choice.input(0), let a = choice.input(1), let b = choice.input(2) {
                guard parts.addends.isEmpty, parts.replacement == nil, parts.scale == 1 else { return nil }
                let (scores, other) = try graph.number(a) == nil ? (a, b) : (b, a)
                guard let number = try graph.number(other), graph.shape(of: scores) == graph.shape(of: current) else { return nil }
                parts.replacement = (condition, number, other == a, graph.shape(of: current))
                current = scores
                continue
            }
            guard let inner = reshaped(current, graph) else { return nil }
            current = inner
        }
        return nil
    }

    /// The operand of a reshape that leaves the last two axes, queries and keys, as they are; any other would move rows between
    /// heads.
    private func reshaped(_ value: ValueID, _ graph: Graph) -> ValueID? {
        guard let inner = graph.producer(of: value, Reshape.self)?.node.input(0),
            graph.shape(of: inner).suffix(2) == graph.shape(of: value).suffix(2)
        else { return nil }
        return inner
    }

    /// x behind Where(IsNaN(x), 0, x).
    private func zeroForNaN(_ value: ValueID, _ graph: Graph) throws -> ValueID? {
        guard let (choice, _) = graph.producer(of: value, Where.self), let x = choice.input(2), try graph.number(choice.input(1)) == 0,
            graph.operand(of: choice.input(0), .isNaN) == x, graph.shape(of: x) == graph.shape(of: value)
        else { return nil }
        return x
    }

    private func behindReshapes(_ value: ValueID, _ graph: Graph) -> ValueID {
        var current = value
        while let inner = reshaped(current, graph) { current = inner }
        return current
    }

    /// True where a value leads to a product of matrices by scales, sums and reshapes.
    private func isScores(_ value: ValueID, _ graph: Graph, depth: Int = 8) throws -> Bool {
        if graph.producer(of: value, MatMul.self) != nil { return true }
        guard depth > 0 else { return false }
        func leads(_ inner: ValueID?) throws -> Bool { try inner.map { try isScores($0, graph, depth: depth - 1) } ?? false }
        if let (a, b) = graph.operands(of: value, .add) { return try leads(a) || leads(b) }
        return try leads(graph.scaled(value)?.value ?? reshaped(value, graph))
    }

    /// ONNX's own Attention, where it has no past and no cap.
    private func onnx(_ node: Node, _ graph: Graph) throws -> Parts? {
        guard let op = node.op as? OnnxAttention, op.outputs == 1, op.softcap == 0, node.inputs.dropFirst(4).allSatisfy({ $0 == nil }),
            let q = node.input(0), let k = node.input(1), let v = node.input(2), graph.type(of: q).rank == 4,
            let size = graph.shape(of: q)[3].constant, size > 0
        else { return nil }
        let scale = op.scale.map { Double($0) } ?? 1 / Double(size).squareRoot()
        var parts = Parts(q: q, k: k, v: v, keysLast: false, scale: scale, causal: op.causal, fullyMasked: .zero)
        let scores = [graph.shape(of: q)[0], graph.shape(of: q)[1], graph.shape(of: q)[2], graph.shape(of: k)[2]]
        if let mask = node.input(3) {
            // Behind a mask that is shorter than the keys they are hidden.
            guard let width = graph.shape(of: mask).last, width == 1 || width == scores[3] else { return nil }
            if graph.type(of: mask).dataType == .bool {
                parts.replacement = (mask, -.infinity, false, scores)
            } else {
                parts.addends = [(mask, scores)]
            }
        }
        return parts
    }

    // MARK: Masks

    /// Whether queries see no later keys, and what else is added to the scores; nil where that is unclear.
    private func mask(
        _ parts: Parts, _ q: Heads, _ k: Heads, _ node: Node, _ graph: Graph, _ patch: inout Patch
    ) throws -> (causal: Bool, addend: ValueID?)? {
        let addends = try parts.addends.filter { try !isEvenAlongLastAxis($0.value, graph) }
        let replacement = try parts.replacement.flatMap { hidden in
            try numbers(of: hidden.condition, graph)?.allSatisfy { ($0 != 0) != hidden.whereTrue } == true ? nil : hidden
        }
        if let only = addends.first?.value ?? replacement?.condition, addends.count + (replacement == nil ? 0 : 1) == 1,
            q.length == k.length, graph.shape(of: only).suffix(2) == [q.length, k.length] {
            if replacement == nil, try graph.hidesLaterKeys(only) { return (true, nil) }
            if let hidden = replacement, !hidden.whereTrue, hidden.number <= -10000, try graph.isCausal(only) { return (true, nil) }
        }
        var sum: ValueID?
        for (value, shape) in addends {
            guard graph.type(of: value).dataType == .float32, let addend = try aligned(value, with: shape, q, k, node, graph, &patch) else { return nil }
            sum = sum.map { patch.add(Binary(.add), [$0, addend], name: "\(node.name).mask") } ?? addend
        }
        guard let (condition, number, whereTrue, shape) = replacement else { return (false, sum) }
        // The number hides if its exponential is 0 in fp32. Scores vanish beside the addend that takes its place: a query all of
        // whose keys are hidden then looks at all of them alike, as it does where scores are replaced.
        guard number <= -10000, graph.type(of: node.output).dataType == .float32,
            let condition = try aligned(condition, with: shape, q, k, node, graph, &patch)
        else { return nil }
        let addend = min(number, -1e30)
        let hidden = patch.add(Constant(try Tensor(scalar: Float(addend)), identity: "float32 \(addend)"), name: "\(node.name).hidden")
        let shown = try sum ?? patch.add(Constant(Tensor(scalar: Float(0)), identity: "float32 0"), name: "\(node.name).shown")
        return (false, patch.add(Where(), [condition, whereTrue ? hidden : shown, whereTrue ? shown : hidden], name: "\(node.name).mask"))
    }

    /// A mask that broadcasts with [B, heads, L, M] as `value` does with the scores as they were shaped; nil where there is none.
    private func aligned(
        _ value: ValueID, with scores: [Dimension], _ q: Heads, _ k: Heads, _ node: Node, _ graph: Graph, _ patch: inout Patch
    ) throws -> ValueID? {
        let (mask, heads) = (graph.shape(of: value), Dimension(q.heads))
        if scores == [q.batch, heads, q.length, k.length] { return mask.count <= 4 ? value : nil }
        guard scores.count == 3, Array(scores[1...]) == [q.length, k.length] else { return nil }
        if mask.count <= 2 || mask[0] == 1 || q.batch == 1 { return value }
        guard mask[0] == scores[0], scores[0] == (try q.batch.multiplied(by: heads)) else { return nil }
        return try patch.reshape(value, to: [q.batch, heads] + mask[1...], name: "\(node.name).mask")
    }

    /// True where a known value is the same all along its last axis, so that a softmax over that axis does not see it. Numbers
    /// larger than the one that BERT hides with are seen: scores vanish beside them, and all keys look alike.
    private func isEvenAlongLastAxis(_ value: ValueID, _ graph: Graph) throws -> Bool {
        guard let numbers = try numbers(of: value, graph),
            let size = numbers.count == 1 ? 1 : graph.shape(of: value).last?.constant, size > 0
        else { return false }
        return stride(from: 0, to: numbers.count, by: size).allSatisfy { start in
            abs(numbers[start]) <= 10000 && numbers[start..<start + size].allSatisfy { $0 == numbers[start] }
        }
    }

    private func numbers(of value: ValueID, _ graph: Graph) throws -> [Float]? {
        try graph.elements(of: value, atMost: 1 << 22)?.converted(to: .float32).elements()
    }

    // MARK: Heads

    /// How an operand [..., L, D] of a product is cut out of a value whose last axis holds the heads side by side.
    private struct Heads {
        var source: ValueID
        var heads: Int
        var headSize: Int
        var batch: Dimension
        var length: Dimension
        /// The axes of the source that are the batch (nil: there is none, or it has size 1) and the tokens.
        var batchAxis: Int?
        var lengthAxis: Int
        /// Where the first head starts in the last axis.
        var offset: Int
        var scale: Double
        /// Of a source that holds heads along an axis of its own: its shape with an axis for each of batch, heads, tokens and
        /// elements, and the order that puts the heads behind the tokens.
        var turn: (shape: [Dimension], permutation: [Int])?
    }

    /// An operand that is no view of a projection: of a value [B, H, L, E] in any order of its axes, or of one [B · H, L, E], of
    /// whose number of heads another operand tells.
    private func whole(_ value: ValueID, keysLast: Bool, heads: Int?, _ graph: Graph) throws -> Heads? {
        var shape = graph.shape(of: value)
        if shape.count == 3, let heads, let batch = shape[0].divided(exactlyBy: Dimension(heads)) { shape = [batch, Dimension(heads)] + shape[1...] }
        guard shape.count == 4 else { return nil }
        let itself = View(source: value, layout: Layout(of: graph.shape(of: value)))
        for view in try ([itself] + graph.views(of: value, scaled: true)).reversed() {
            let from = view.source == value ? shape : graph.shape(of: view.source)
            let layout = view.source == value ? Layout(of: shape) : try view.layout.reshaped(shape)
            guard var order = layout?.permutation(of: from) else { continue }
            if keysLast { order.swapAt(2, 3) }
            guard let count = from[order[1]].constant, let size = from[order[3]].constant, count > 0, size > 0 else { continue }
            return Heads(
                source: view.source, heads: count, headSize: size, batch: from[order[0]], length: from[order[2]], batchAxis: nil, lengthAxis: 1,
                offset: 0, scale: view.scale, turn: (from, [order[0], order[2], order[1], order[3]]))
        }
        return nil
    }

    private func heads(_ value: ValueID, keysLast: Bool, _ graph: Graph) throws -> Heads? {
        let itself = View(source: value, layout: Layout(of: graph.shape(of: value)))
        for view in try ([itself] + graph.views(of: value, scaled: true)).reversed() {
            var layout = view.layout
            let rank = layout.axes.count
            guard rank >= 2 else { continue }
            if keysLast { layout = layout.transposed(Array(0..<rank - 2) + [rank - 1, rank - 2]) }
            if let heads = try heads(view, layout, graph.shape(of: view.source)) { return heads }
        }
        return nil
    }

    private func heads(_ view: View, _ layout: Layout, _ shape: [Dimension]) throws -> Heads? {
        let last = shape.count - 1
        guard shape.count == 2 || shape.count == 3 else { return nil }
        let depth = layout.axes[layout.axes.count - 1], tokens = layout.axes[layout.axes.count - 2]
        let outer = layout.axes.dropLast(2).flatMap { $0 }
        guard depth.count == 1, let run = depth.first, run.axis == last, run.stride == 1, let headSize = run.size.constant, headSize > 0 else { return nil }
        let headRuns = outer.filter { $0.axis == last }, batchRuns = outer.filter { $0.axis != last }
        guard headRuns.count <= 1, outer == batchRuns + headRuns else { return nil }
        var heads = 1
        if let run = headRuns.first {
            guard run.stride == Dimension(headSize), let count = run.size.constant else { return nil }
            heads = count
        }
        for run in batchRuns + tokens {
            guard run.size == shape[run.axis] else { return nil }
        }
        guard let offset = layout.offsets[last].constant else { return nil }
        let others = (0..<last).filter { $0 != batchRuns.first?.axis && $0 != tokens.first?.axis }
        // Axes of size 1 leave no trace in the layout; what is left over must be of that kind.
        // Rows of which each is an example of its own have no axis of tokens.
        guard others.allSatisfy({ shape[$0] == 1 }), let lengthAxis = tokens.first?.axis ?? others.last else { return nil }
        let batchAxis = (0..<last).first { $0 != lengthAxis }
        return Heads(
            source: view.source, heads: heads, headSize: headSize, batch: batchAxis.map { shape[$0] } ?? 1, length: shape[lengthAxis],
            batchAxis: batchAxis, lengthAxis: lengthAxis, offset: offset, scale: view.scale)
    }

    // MARK: Building

    /// The operand [B, L, D] for the heads: the projection itself, or its rows as a projection of their own.
    private func projection(_ part: Heads, suffix: String, _ graph: Graph, _ patch: inout Patch) throws -> ValueID {
        let width = part.heads * part.headSize
        var value = part.source
        let shape = graph.shape(of: value)
        if let turn = part.turn {
            let name = graph.name(of: value)
            if shape.count != 4 { value = try patch.reshape(value, to: turn.shape, name: name) }
            let turned = patch.add(Transpose(permutation: turn.permutation), [value], name: name)
            return try patch.reshape(turned, to: [part.batch, part.length, Dimension(width)], name: "\(name).\(suffix)")
        }
        var sizes = shape
        if shape[shape.count - 1] != Dimension(width) {
            sizes[shape.count - 1] = Dimension(width)
            let rows = part.offset..<part.offset + width
            if let made = try patch.addProjection(rows, of: value, suffix: suffix, in: graph) {
                value = made
            } else {
                value = try patch.slice(
                    value, from: Dimension(rows.lowerBound), to: Dimension(rows.upperBound), axis: shape.count - 1,
                    name: "\(graph.name(of: value)).\(suffix)")
            }
        }
        if shape.count == 2 {
            return try patch.reshape(value, to: [1] + sizes, name: "\(graph.name(of: part.source)).batch")
        }
        if part.lengthAxis == 0 {
            return patch.add(Transpose(permutation: [1, 0, 2]), [value], name: "\(graph.name(of: part.source)).batch")
        }
        return value
    }
}

/// Lets an attention whose operands are slices of a packed projection read projections of their own. FuseAttention makes
/// them itself, unless a view stood between the projection and the heads that goes away later.
struct UnpackProjections: Rewrite {
    let name = "packed projections"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard node.op is Attention else { return nil }
        for (operand, suffix) in zip(node.inputs, ["query", "key", "value"]) {
            guard let operand, let slice = graph.producer(of: operand, Slice.self)?.node, let packed = slice.input(0),
                let ranges = try graph.sliceRanges(slice), ranges.count == 1, ranges[0].axis == graph.type(of: packed).rank - 1,
                let start = ranges[0].start.constant, let count = ranges[0].count.constant
            else { continue }
            var patch = Patch(for: graph)
            guard let made = try patch.addProjection(start..<start + count, of: packed, suffix: suffix, in: graph) else { continue }
            patch.replace(operand, with: made)
            return patch
        }
        return nil
    }
}

extension Patch {
    /// Adds a Linear for some columns of a projection, over rows of its weight and bias; nil where `value` is no projection, or one
    /// whose weight or bias is not constant.
    fileprivate mutating func addProjection(_ rows: Range<Int>, of value: ValueID, suffix: String, in graph: Graph) throws -> ValueID? {
        guard let (linear, op) = graph.producer(of: value, Linear.self), let weight = linear.input(1), let matrix = graph.constant(of: weight),
            linear.input(2).map({ graph.constant(of: $0) != nil }) ?? true
        else { return nil }
        var operands = [linear.input(0), add(try matrix.rows(rows), name: "\(graph.name(of: weight)).\(suffix)")]
        if let bias = linear.input(2), let row = graph.constant(of: bias) {
            operands.append(add(try row.rows(rows), name: "\(graph.name(of: bias)).\(suffix)"))
        }
        return add(op, operands, name: "\(linear.name).\(suffix)")
    }
}
