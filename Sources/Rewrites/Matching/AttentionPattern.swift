import ModelGraph
import Support
import Tensors

/// softmax(q · kᵀ · scale + mask) · v as a graph has it.
struct AttentionPattern {
    /// [..., L, D]
    var q: ValueID
    /// [..., M, D]; [..., D, M] with `keysLast`.
    var k: ValueID
    /// [..., M, E]
    var v: ValueID
    var keysLast: Bool
    var scale = 1.0
    /// What is added to the scores, and their shape there.
    var addends: [(value: ValueID, scores: [Dimension])] = []
    /// What replaces scores after that.
    var replacement: Replacement?
    var causal = false
    var fullyMasked: Attention.FullyMasked?

    /// A number that replaces scores where a condition holds, or where it does not.
    struct Replacement {
        let condition: ValueID
        let number: Double
        let whereTrue: Bool
        /// The scores' shape there.
        let scores: [Dimension]
    }
}

extension Graph {
    /// The attention whose last node is this product with the values, or ONNX's own operator; nil where there is none.
    func attentionPattern(at node: Node) throws -> AttentionPattern? {
        if let op = node.op as? OnnxAttention { return onnxAttention(op, node) }
        guard node.op is MatMul, let v = node.input(1), let weights = node.input(0).map(behindReshapes) else { return nil }
        let guarded = try zeroForNaN(weights)
        guard var scores = try softmaxOperand(guarded ?? weights) else { return nil }
        var pattern = AttentionPattern(q: v, k: v, v: v, keysLast: true, fullyMasked: guarded == nil ? nil : .zeroForNaN)
        for _ in 0..<10 {
            if let (product, _) = producer(of: scores, MatMul.self), let q = product.input(0), let k = product.input(1) {
                (pattern.q, pattern.k) = (q, k)
                return pattern
            }
            guard let inner = try pattern.scores(behind: scores, in: self) else { return nil }
            scores = inner
        }
        return nil
    }

    /// What a softmax over the last axis is taken of.
    private func softmaxOperand(_ value: ValueID) throws -> ValueID? {
        guard let softmax = producer(of: value, Softmax.self), let input = softmax.node.input(0),
            try resolveAxis(softmax.op.axis, rank: type(of: input).rank) == type(of: input).rank - 1
        else { return nil }
        return input
    }

    /// x of Where(IsNaN(x), 0, x).
    private func zeroForNaN(_ value: ValueID) throws -> ValueID? {
        guard let (choice, _) = producer(of: value, Where.self), let x = choice.input(2), try number(choice.input(1)) == 0,
            operand(of: choice.input(0), .isNaN) == x, shape(of: x) == shape(of: value)
        else { return nil }
        return x
    }

    /// The operand of a reshape that leaves the last two axes, queries and keys, as they are; any other would move rows between
    /// heads.
    fileprivate func reshaped(_ value: ValueID) -> ValueID? {
        guard let inner = producer(of: value, Reshape.self)?.node.input(0), shape(of: inner).suffix(2) == shape(of: value).suffix(2)
        else { return nil }
        return inner
    }

    private func behindReshapes(_ value: ValueID) -> ValueID {
        var current = value
        while let inner = reshaped(current) { current = inner }
        return current
    }

    /// True where a value is a product of matrices, through scales, sums and reshapes.
    fileprivate func isScores(_ value: ValueID, depth: Int = 8) throws -> Bool {
        if producer(of: value, MatMul.self) != nil { return true }
        guard depth > 0 else { return false }
        func leads(_ inner: ValueID?) throws -> Bool { try inner.map { try isScores($0, depth: depth - 1) } ?? false }
        if let (a, b) = operands(of: value, .add) { return try leads(a) || leads(b) }
        return try leads(scaled(value)?.value ?? reshaped(value))
    }

    /// ONNX's own Attention, where it has no past and no cap.
    private func onnxAttention(_ op: OnnxAttention, _ node: Node) -> AttentionPattern? {
        guard op.outputs == 1, op.softcap == 0, node.inputs.dropFirst(4).allSatisfy({ $0 == nil }),
            let q = node.input(0), let k = node.input(1), let v = node.input(2), type(of: q).rank == 4,
            let size = shape(of: q)[3].constant, size > 0
        else { return nil }
        let scale = op.scale.map { Double($0) } ?? 1 / Double(size).squareRoot()
        var pattern = AttentionPattern(q: q, k: k, v: v, keysLast: false, scale: scale, causal: op.causal, fullyMasked: .zero)
        guard let mask = node.input(3) else { return pattern }
        let scores = [shape(of: q)[0], shape(of: q)[1], shape(of: q)[2], shape(of: k)[2]]
        // Keys beyond a mask that is shorter are hidden, which no Attention here does.
        guard let width = shape(of: mask).last, width == 1 || width == scores[3] else { return nil }
        if type(of: mask).dataType == .bool {
            pattern.replacement = .init(condition: mask, number: -.infinity, whereTrue: false, scores: scores)
        } else {
            pattern.addends = [(mask, scores)]
        }
        return pattern
    }
}

extension AttentionPattern {
    /// The scores of which a scale, a mask or a reshape made these; it is added to the pattern. nil where they come from anything
    /// else.
    fileprivate mutating func scores(behind scores: ValueID, in graph: Graph) throws -> ValueID? {
        if let (inner, factor) = try graph.scaled(scores) {
            scale *= factor
            return inner
        }
        if let (a, b) = graph.operands(of: scores, .add) { return try takeAddend(a, b, sum: scores, graph) }
        if let (choice, _) = graph.producer(of: scores, Where.self) { return try takeReplacement(choice, graph) }
        return graph.reshaped(scores)
    }

    private mutating func takeAddend(_ a: ValueID, _ b: ValueID, sum: ValueID, _ graph: Graph) throws -> ValueID? {
        // A scale found before the mask would scale the mask as well.
        guard scale == 1, let scores = try graph.isScores(a) ? a : graph.isScores(b) ? b : nil,
            graph.shape(of: scores) == graph.shape(of: sum)
        else { return nil }
        addends.append((scores == a ? b : a, graph.shape(of: sum)))
        return scores
    }

    private mutating func takeReplacement(_ choice: Node, _ graph: Graph) throws -> ValueID? {
        guard let condition = choice.input(0), let a = choice.input(1), let b = choice.input(2),
            addends.isEmpty, replacement == nil, scale == 1
        else { return nil }
        let (scores, other) = try graph.number(a) == nil ? (a, b) : (b, a)
        guard let number = try graph.number(other), graph.shape(of: scores) == graph.shape(of: choice.output) else { return nil }
        replacement = Replacement(
            condition: condition, number: number, whereTrue: other == a, scores: graph.shape(of: choice.output))
        return scores
    }
}
