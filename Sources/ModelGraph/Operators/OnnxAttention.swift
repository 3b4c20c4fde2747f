import Support
import Tensors

/// ONNX's own Attention: scaled dot products of queries and keys weigh the values.
///
/// Inputs: q; k; v, all [B, heads, L, D] or all [B, L, heads · D]; optional mask, boolean or additive, that broadcasts to
/// [B, heads, L, M]; optional past key and past value [B, heads, P, D]; optional number of keys of each example that are
/// no padding, int64 [B]. Outputs: y as q; present key and present value [B, heads, P + M, D]; scores
/// [B, heads, L, P + M]: the first `outputs` of them.
package struct OnnxAttention: Operator {
    package static let maximalInputs: Int? = 7
    /// Which scores are put out.
    package enum Scores: Int, Sendable, Hashable, Codable, CaseIterable {
        case products = 0, capped, masked, softmax
    }
    /// Needed where the operands have rank 3.
    package var queryHeads: Int?
    package var keyHeads: Int?
    /// nil: 1 / sqrt(D)
    package var scale: Float?
    /// Queries see no later keys.
    package var causal: Bool
    /// Scores become softcap · tanh(score / softcap); 0: they stay.
    package var softcap: Float
    /// Of the fourth output.
    package var scores: Scores
    /// 1 ... 4
    package var outputs: Int

    package init(
        queryHeads: Int? = nil, keyHeads: Int? = nil, scale: Float? = nil, causal: Bool = false, softcap: Float = 0,
        scores: Scores = .products, outputs: Int = 1
    ) {
        self.queryHeads = queryHeads
        self.keyHeads = keyHeads
        self.scale = scale
        self.causal = causal
        self.softcap = softcap
        self.scores = scores
        self.outputs = outputs
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let q = try inputs.required(0, "q").floating("q").type
        let k = try inputs.required(1, "k").floating("k").ranked(q.rank, "k").type
        let v = try inputs.required(2, "v").floating("v").ranked(q.rank, "v").type
        guard (1...4).contains(outputs) else { throw TripsError.data("number of outputs", found: outputs, expected: "1 ... 4") }
        let (queries, keys, values) = (try headed(q, queryHeads, "q"), try headed(k, keyHeads, "k"), try headed(v, keyHeads, "v"))
        try checkHeads(queries, keys, values)
        try checkMask(inputs, batch: queries[0])
        let length = try keys[2].adding(pastLength(inputs, keys, values))
        let y = q.rank == 4 ? queries.dropLast() + [values[3]] : [queries[0], queries[2], try queries[1].multiplied(by: values[3])]
        let all = [
            ValueType(q.dataType, y),
            ValueType(k.dataType, [keys[0], keys[1], length, keys[3]]),
            ValueType(v.dataType, [values[0], values[1], length, values[3]]),
            ValueType(q.dataType, [queries[0], queries[1], queries[2], length]),
        ]
        return Array(all.prefix(outputs))
    }

    private func checkHeads(_ q: [Dimension], _ k: [Dimension], _ v: [Dimension]) throws {
        guard mayBeEqual(q[0], k[0]), mayBeEqual(k[0], v[0]), mayBeEqual(k[1], v[1]), mayBeEqual(k[2], v[2]),
            mayBeEqual(q[3], k[3])
        else { throw TripsError.data("shapes of q, k and v", found: "\(q), \(k), \(v)", expected: "heads that fit") }
        if let queries = q[1].constant, let keys = k[1].constant, keys <= 0 || queries % keys != 0 {
            throw TripsError.data("heads", found: "\(queries) and \(keys)", expected: "a multiple")
        }
    }

    /// Keys that come before those of this run.
    private func pastLength(_ inputs: [Operand?], _ k: [Dimension], _ v: [Dimension]) throws -> Dimension {
        let past = inputs.optional(4)
        guard (past == nil) == (inputs.optional(5) == nil) else {
            throw TripsError.data("past key without past value, or the reverse")
        }
        guard let past else { return 0 }
        let length = try past.ranked(4, "past key").type.shape[2]
        try past.shaped([k[0], k[1], length, k[3]], "past key")
        try inputs.required(5, "past value").shaped([v[0], v[1], length, v[3]], "past value")
        return length
    }

    private func checkMask(_ inputs: [Operand?], batch: Dimension) throws {
        if let mask = inputs.optional(3)?.type,
            mask.rank > 4 || mask.rank < 1 || (mask.dataType != .bool && !mask.dataType.isFloatingPoint)
        {
            throw TripsError.data("mask", found: mask, expected: "booleans or floating point, rank 1 ... 4")
        }
        try inputs.optional(6)?.typed(.int64, "number of keys").shaped([batch], "number of keys")
    }

    /// The shape as [B, heads, L, D].
    private func headed(_ type: ValueType, _ heads: Int?, _ name: String) throws -> [Dimension] {
        if type.rank == 4 { return type.shape }
        guard type.rank == 3, let heads, heads > 0, let width = type.shape[2].divided(exactlyBy: Dimension(heads)) else {
            throw TripsError.data(
                "shape of \(name)", found: type, expected: "rank 4, or rank 3 and a number of heads that divides the width")
        }
        return [type.shape[0], Dimension(heads), type.shape[1], width]
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard let q = inputs[0], let k = inputs[1], let v = inputs[2] else { return nil }
        let (query, key, value) = (try headed(q, queryHeads, "q"), try headed(k, keyHeads, "k"), try headed(v, keyHeads, "v"))
        var length = key[2]
        if inputs.count > 4, let past = inputs[4] { length = try length.adding(past.shape[2]) }
        return try product(query[..<3]).multiplied(by: length).multiplied(by: query[3].adding(value[3]))
    }
}
