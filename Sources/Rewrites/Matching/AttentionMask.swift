import ModelGraph
import Support
import Tensors

/// The sizes of an attention's scores [batch, heads, queries, keys].
struct AttentionScores {
    let batch: Dimension
    let heads: Int
    let queries: Dimension
    let keys: Dimension

    var shape: [Dimension] { [batch, Dimension(heads), queries, keys] }
}

/// What hides keys from queries, as the operator Attention takes it.
struct AttentionMask {
    /// Whether queries see no later keys.
    var isCausal = false
    /// What else is added to the scores: broadcasts to them, float32.
    var addend: ValueID?

    /// - Parameter node: the one that ends the pattern.
    /// - Returns: nil where it is unclear what the pattern hides.
    init?(_ pattern: AttentionPattern, _ scores: AttentionScores, at node: Node, in graph: Graph, _ patch: inout Patch) throws {
        let addends = try pattern.addends.filter { try !graph.isUniformAlongLastAxis($0.value) }
        let replacement = try pattern.replacement.flatMap { try graph.replacesNothing($0) ? nil : $0 }
        if try graph.isCausalRule(addends.map(\.value), replacement, scores) {
            isCausal = true
            return
        }
        for (value, shape) in addends {
            guard graph.type(of: value).dataType == .float32,
                let mask = try graph.aligned(value, with: shape, scores, at: node, &patch)
            else { return nil }
            addend = addend.map { patch.add(Binary(.add), [$0, mask], name: "\(node.name).mask") } ?? mask
        }
        guard let replacement else { return }
        guard let mask = try graph.hiding(replacement, besides: addend, scores, at: node, &patch) else { return nil }
        addend = mask
    }
}

extension Graph {
    /// True where all that hides keys is that they come after the query.
    fileprivate func isCausalRule(
        _ addends: [ValueID], _ replacement: AttentionPattern.Replacement?, _ scores: AttentionScores
    ) throws -> Bool {
        let masks = addends + (replacement.map { [$0.condition] } ?? [])
        guard let only = masks.first, masks.count == 1, scores.queries == scores.keys,
            shape(of: only).suffix(2) == [scores.queries, scores.keys]
        else { return false }
        guard let replacement else { return try hidesLaterKeys(only) }
        return try !replacement.whereTrue && replacement.number <= Attention.maskedScore && isCausal(only)
    }

    /// An addend that hides the keys whose scores are replaced; nil where the number that replaces them does not hide them.
    fileprivate func hiding(
        _ replacement: AttentionPattern.Replacement, besides sum: ValueID?, _ scores: AttentionScores, at node: Node,
        _ patch: inout Patch
    ) throws -> ValueID? {
        // The number hides if its exponential is 0 in fp32. Scores vanish beside the addend that takes its place: a query all of
        // whose keys are hidden then looks at all of them alike, as it does where scores are replaced.
        guard replacement.number <= Attention.maskedScore, type(of: node.output).dataType == .float32,
            let condition = try aligned(replacement.condition, with: replacement.scores, scores, at: node, &patch)
        else { return nil }
        let number = min(replacement.number, -1e30)
        let constant = Constant(try Tensor(scalar: Float(number)), identity: "float32 \(number)")
        let hidden = patch.add(constant, name: "\(node.name).hidden")
        let shown = try sum ?? patch.add(Constant(Tensor(scalar: Float(0)), identity: "float32 0"), name: "\(node.name).shown")
        let choices = replacement.whereTrue ? [hidden, shown] : [shown, hidden]
        return patch.add(Where(), [condition] + choices, name: "\(node.name).mask")
    }

    /// A mask that broadcasts with the scores as `value` does with the scores as they were shaped; nil where there is none.
    fileprivate func aligned(
        _ value: ValueID, with shaped: [Dimension], _ scores: AttentionScores, at node: Node, _ patch: inout Patch
    ) throws -> ValueID? {
        let mask = shape(of: value)
        if shaped == scores.shape { return mask.count <= 4 ? value : nil }
        guard shaped.count == 3, Array(shaped[1...]) == [scores.queries, scores.keys] else { return nil }
        if mask.count <= 2 || mask[0] == 1 || scores.batch == 1 { return value }
        let heads = Dimension(scores.heads)
        guard mask[0] == shaped[0], shaped[0] == (try scores.batch.multiplied(by: heads)) else { return nil }
        return try patch.reshape(value, to: [scores.batch, heads] + mask[1...], name: "\(node.name).mask")
    }

    /// True where a known value is the same all along its last axis, so that it does not change a softmax over that axis. Numbers
    /// beyond `maskedScore` do: adding them to scores rounds these away.
    fileprivate func isUniformAlongLastAxis(_ value: ValueID) throws -> Bool {
        guard let numbers = try numbers(of: value), let size = numbers.count == 1 ? 1 : shape(of: value).last?.constant, size > 0
        else { return false }
        return stride(from: 0, to: numbers.count, by: size).allSatisfy { start in
            abs(Double(numbers[start])) <= -Attention.maskedScore
                && numbers[start..<start + size].allSatisfy { $0 == numbers[start] }
        }
    }

    /// True where a condition is known, and scores are replaced nowhere.
    fileprivate func replacesNothing(_ replacement: AttentionPattern.Replacement) throws -> Bool {
        try numbers(of: replacement.condition)?.allSatisfy { ($0 != 0) != replacement.whereTrue } ?? false
    }

    private func numbers(of value: ValueID) throws -> [Float]? {
        try elements(of: value, atMost: Graph.largestMask)?.converted(to: .float32).elements()
    }
}
