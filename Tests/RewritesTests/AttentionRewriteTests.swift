import ModelGraph
import Rewrites
import Tensors
import Testing

struct AttentionRewriteTests {
    enum Scoring: CaseIterable {
        case divided, scaledBefore, scaledOnBoth, evenMask, additiveMask, hiddenByWhere, unscaled, causalConstant
    }

    @Test(arguments: Scoring.allCases) func separateProjectionsAreFused(scoring: Scoring) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        var (q, k) = (try m.heads(x), try m.heads(x))
        let v = try m.heads(x)
        if scoring == .scaledBefore { q = try m.binary(.mul, q, m.scalar(0.5)) }
        if scoring == .scaledOnBoth {
            q = try m.binary(.mul, q, m.scalar(0.70710678))
            k = try m.binary(.mul, m.scalar(0.70710678), k)
        }
        let mask =
            scoring == .additiveMask || scoring == .hiddenByWhere ? try m.mask("mask", [[1, 1, 1, 0, 1], [1, 0, 1, 1, 1]]) : nil
        let y = try m.attend(q, k, v) { m, scores in
            switch scoring {
            case .scaledBefore, .scaledOnBoth, .unscaled: return scores
            case .divided: return try m.binary(.div, scores, m.scalar(2))
            case .evenMask:
                let zeros = try m.graph.addConstant(
                    Constant(Tensor(Array(repeating: Float(-0.0), count: 5), shape: [1, 1, 1, 5]), identity: "zeros"), name: "zeros"
                )
                return try m.binary(.add, m.binary(.div, scores, m.scalar(2)), zeros)
            case .additiveMask:
                let wide = try m.node(Cast(to: .float32), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
                let addends = try m.binary(.mul, m.binary(.sub, m.scalar(1), wide), m.scalar(-10000))
                return try m.binary(.add, m.binary(.div, scores, m.scalar(2)), addends)
            case .hiddenByWhere:
                let shown = try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
                return try m.node(Where(), [shown, m.binary(.div, scores, m.scalar(2)), m.scalar(-.infinity)])
            case .causalConstant:
                let addends = (0..<25).map { Float($0 % 5 <= $0 / 5 ? 0 : -10000) }
                let mask = try m.graph.addConstant(
                    Constant(Tensor(addends, shape: [1, 1, 5, 5]), identity: "causal"), name: "causal")
                return try m.binary(.add, m.binary(.mul, scores, m.scalar(0.5)), mask)
            }
        }
        try m.output(y)
        let expected =
            switch scoring {
            case .additiveMask: ["Attention", "Linear", "Linear", "Linear", "PaddingMask"]
            case .hiddenByWhere: ["Attention", "Cast", "Linear", "Linear", "Linear", "Reshape", "Where"]
            default: ["Attention", "Linear", "Linear", "Linear"]
            }
        #expect(try m.fused() == expected)
    }

    /// Heads that are never moved before the others.
    @Test func einsumsAreFused() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let parts = try (0..<3).map { _ in try m.reshape(m.linear(x, 8, 8), [2, 5, 2, 4]) }
        let scores = try m.binary(.div, m.node(Einsum(equation: "bihd,bjhd->bhij"), [parts[0], parts[1]]), m.scalar(2))
        let sums = try m.node(Einsum(equation: "bhij, bjhd -> bihd"), [m.node(Softmax(axis: -1), [scores]), parts[2]])
        try m.output(m.reshape(sums, [2, 5, 8]))
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    @Test func packedProjectionsPartedByGatherAreFused() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let packed = try m.transpose(m.reshape(m.linear(x, 8, 24), [2, 5, 3, 2, 4]), [2, 0, 3, 1, 4])
        let parts = try (0..<3).map { try m.node(Gather(axis: 0), [packed, m.integers([$0], scalar: true)]) }
        try m.output(m.attend(parts[0], parts[1], parts[2]) { m, scores in try m.binary(.mul, scores, m.scalar(0.5)) })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    @Test func packedProjectionsPartedBySplitAreFused() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let packed = try m.linear(x, 8, 24)
        let parts = try m.graph.add(Split(axis: 2, outputs: 3), [packed, m.integers([8, 8, 8])], name: "split")
        let cut = try parts.map { try m.transpose(m.reshape($0, [2, 5, 2, 4]), [0, 2, 1, 3]) }
        try m.output(m.attend(cut[0], cut[1], cut[2]) { m, scores in try m.binary(.mul, scores, m.scalar(0.5)) })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    /// onnxsim makes a Gemm over flattened rows of a product and a sum.
    @Test func packedProjectionsOfFlattenedRowsAreFused() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let flat = try m.node(Gemm(), [m.reshape(x, [10, 8]), m.constant([8, 24]), m.constant([24])])
        let packed = try m.transpose(
            m.reshape(m.transpose(m.reshape(flat, [2, 5, 24]), [1, 0, 2]), [5, 2, 3, 2, 4]), [2, 1, 3, 0, 4])
        let parts = try (0..<3).map { try m.node(Gather(axis: 0), [packed, m.integers([$0], scalar: true)]) }
        try m.output(m.attend(parts[0], parts[1], parts[2]) { m, scores in try m.binary(.mul, scores, m.scalar(0.5)) })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    @Test func tokensBeforeExamplesAreFused() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let turned = try m.transpose(x, [1, 0, 2])
        func cut(_ m: inout Exported) throws -> ValueID {
            try m.transpose(m.reshape(m.linear(turned, 8, 8), [5, 4, 4]), [1, 0, 2])
        }
        let (q, k, v) = (try m.binary(.mul, cut(&m), m.scalar(0.5)), try cut(&m), try cut(&m))
        let weights = try m.node(Softmax(axis: -1), [m.node(MatMul(), [q, m.transpose(k, [0, 2, 1])])])
        let rows = try m.reshape(m.transpose(m.node(MatMul(), [weights, v]), [1, 0, 2]), [5, 2, 8])
        try m.output(m.transpose(m.linear(rows, 8, 8), [1, 0, 2]))
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear", "Linear"])
    }

    @Test func onnxAttentionIsFused() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let (q, k, v) = (try m.heads(x), try m.heads(x), try m.heads(x))
        let made = try m.node(OnnxAttention(causal: true), [q, k, v])
        try m.output(m.reshape(m.transpose(made, [0, 2, 1, 3]), [2, 5, 8]))
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    /// Queries that are the same for all examples, where the operator wants some for each.
    @Test func queriesThatAreSharedStay() throws {
        var m = Exported()
        let (x, queries) = (try m.input("x", [3, 5, 8]), try m.input("queries", [1, 2, 8]))
        let q = try m.transpose(m.reshape(m.linear(queries, 8, 8), [1, 2, 2, 4]), [0, 2, 1, 3])
        let k = try m.transpose(m.reshape(m.linear(x, 8, 8), [3, 5, 2, 4]), [0, 2, 3, 1])
        let v = try m.transpose(m.reshape(m.linear(x, 8, 8), [3, 5, 2, 4]), [0, 2, 1, 3])
        let weights = try m.node(Softmax(), [m.binary(.mul, m.node(MatMul(), [q, k]), m.scalar(0.5))])
        try m.output(m.node(MatMul(), [weights, v]))
        #expect(try !m.fused().contains("Attention"))
    }

    /// Queries and keys whose heads were turned or normalised one by one, as with rotary positions, and keys that serve several
    /// heads. With a batch of one, or one query, axes do not tell which they are.
    @Test(arguments: [2, 1], [5, 1]) func headsThatAreNoViewsOfProjectionsAreFused(batch: Int, queries: Int) throws {
        var m = Exported()
        let (x, y) = (try m.input("x", [batch, queries, 8]), try m.input("y", [batch, 5, 8]))
        func turned(_ m: inout Exported, _ x: ValueID, _ length: Int) throws -> ValueID {
            let heads = try m.transpose(m.reshape(m.linear(x, 8, 8), [batch, length, 2, 4]), [0, 2, 1, 3])
            return try m.binary(.mul, heads, m.constant([1, 1, length, 4]))
        }
        let q = try m.node(
            LayerNorm(epsilon: 1e-6), [m.reshape(m.linear(x, 8, 8), [batch, queries, 2, 4]), m.constant([4]), m.constant([4])])
        let k = try m.binary(.mul, turned(&m, y, 5), m.scalar(0.5))
        let shared = try m.reshape(m.linear(y, 8, 4), [batch, 1, 1, 5, 4])
        let v = try m.reshape(m.node(Expand(), [shared, m.integers([batch, 1, 2, 5, 4])]), [batch, 2, 5, 4])
        let weights = try m.node(Softmax(), [m.node(MatMul(), [m.transpose(q, [0, 2, 1, 3]), m.transpose(k, [0, 1, 3, 2])])])
        try m.output(m.reshape(m.transpose(m.node(MatMul(), [weights, v]), [0, 2, 1, 3]), [batch, queries, 8]))
        let operators = try m.fused()
        #expect(operators.contains("Attention") && !operators.contains("Softmax"))
    }

    /// SigLIP's pooling asks with a query that is known, so that only the keys tell how many heads there are; the others of a
    /// mask for each example and head, as PyTorch's own attention writes it.
    @Test(arguments: [false, true]) func queriesThatAreKnownAreFused(masked: Bool) throws {
        var m = Exported()
        let x = try m.input("x", [5, 2, 8])
        let addends = try m.reshape(
            m.node(Expand(), [m.reshape(m.input("addends", [2, 5]), [2, 1, 1, 5]), m.integers([2, 2, 1, 5])]), [4, 1, 5])
        func cut(_ m: inout Exported) throws -> ValueID { try m.transpose(m.reshape(m.linear(x, 8, 8), [5, 4, 4]), [1, 0, 2]) }
        let (k, v) = (try cut(&m), try cut(&m))
        var scores = try m.node(MatMul(), [m.constant([4, 1, 4]), m.transpose(k, [0, 2, 1])])
        if masked { scores = try m.binary(.add, scores, addends) }
        try m.output(m.reshape(m.transpose(m.node(MatMul(), [m.node(Softmax(), [scores]), v]), [1, 0, 2]), [1, 2, 8]))
        let operators = try m.fused()
        #expect(operators.contains("Attention") && !operators.contains("Softmax"))
    }

    @Test func crossAttentionIsFused() throws {
        var m = Exported()
        let (x, source) = (try m.input("x", [2, 5, 8]), try m.input("source", [2, 7, 8]))
        let (q, k, v) = (try m.heads(x), try m.heads(source, 7), try m.heads(source, 7))
        try m.output(m.attend(q, k, v) { m, scores in try m.binary(.div, scores, m.scalar(2)) })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }
}
