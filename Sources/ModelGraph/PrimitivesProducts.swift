import Support
import Tensors

/// The product of matrices, with broadcast batches (NumPy's matmul). Inputs: a [..., M, K]; b [..., K, N].
public struct MatMul: Operator {
    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let a = try inputs.required(0, "a").type
        let b = try inputs.required(1, "b").typed(a.dataType, "b").type
        guard a.dataType != .bool, let inner = a.shape.last, b.rank > 0 else {
            throw TripsError.data("factors", found: "\(a) and \(b)", expected: "numbers of rank 1 or more")
        }
        guard mayBeEqual(inner, b.shape[max(0, b.rank - 2)]) else {
            throw TripsError.data("inner sizes of a product", found: "\(a) and \(b)", expected: "equal")
        }
        var shape = try broadcastShape([a.shape.dropLast(2), b.shape.dropLast(2)].map { Array($0) })
        if a.rank > 1 { shape.append(a.shape[a.rank - 2]) }
        if b.rank > 1 { shape.append(b.shape[b.rank - 1]) }
        return [ValueType(a.dataType, shape)]
    }

    public func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard let inner = inputs[0]?.shape.last, let y = outputs.first else { return nil }
        return try product(y.shape).multiplied(by: inner)
    }
}

/// alpha · a' · b' + beta · c. Inputs: matrices a; b; optional c, which broadcasts to the output.
public struct Gemm: Operator {
    public var alpha: Float
    public var beta: Float
    public var transposeA: Bool
    public var transposeB: Bool

    public init(alpha: Float = 1, beta: Float = 1, transposeA: Bool = false, transposeB: Bool = false) {
        self.alpha = alpha
        self.beta = beta
        self.transposeA = transposeA
        self.transposeB = transposeB
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let a = try inputs.required(0, "a").ranked(2, "a").type
        let b = try inputs.required(1, "b").ranked(2, "b").typed(a.dataType, "b").type
        guard a.dataType != .bool, mayBeEqual(a.shape[transposeA ? 0 : 1], b.shape[transposeB ? 1 : 0]) else {
            throw TripsError.data("inner sizes of a product", found: "\(a) and \(b)", expected: "equal")
        }
        let shape = [a.shape[transposeA ? 1 : 0], b.shape[transposeB ? 0 : 1]]
        try inputs.optional(2)?.typed(a.dataType, "c").broadcasting(to: shape, "c")
        return [ValueType(a.dataType, shape)]
    }

    public func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard let a = inputs[0], let y = outputs.first else { return nil }
        return try product(y.shape).multiplied(by: a.shape[transposeA ? 0 : 1])
    }
}

/// Sums of products over named axes (Einstein's notation). Inputs: one tensor for each term of the equation.
public struct Einsum: Operator {
    public var equation: String

    public init(equation: String) { self.equation = equation }

    /// The axes of each operand and of the result, as numbers that stand for the names.
    package struct Plan: Sendable {
        /// For each operand the name of each axis.
        package var terms: [[Int]]
        package var output: [Int]
        package var names: Int
    }

    /// Reads the equation for operands of these ranks.
    /// - Throws: `data` where it is malformed or fits other operands.
    package func plan(ranks: [Int]) throws -> Plan {
        func malformed() -> TripsError {
            .data("equation", found: "\"\(equation.prefix(200))\"", expected: "one that fits ranks \(ranks)")
        }
        let text = equation.filter { !$0.isWhitespace }
        let sides = text.split(separator: "->", omittingEmptySubsequences: false)
        guard text.utf8.count <= 4096, sides.count <= 2, let left = sides.first else { throw malformed() }
        let parts = left.split(separator: ",", omittingEmptySubsequences: false).map { String($0) }
        guard parts.count == ranks.count else { throw malformed() }
        let hidden = try zip(parts, ranks).map { part, rank -> Int in
            let letters = part.filter { $0 != "." }.count
            guard part.contains("...") ? letters <= rank : letters == rank else { throw malformed() }
            return rank - letters
        }
        let ellipsis = hidden.max() ?? 0
        // Names 0 ..< ellipsis are the hidden axes; letters follow in the order of the alphabet.
        let letters = Set(left.filter { $0.isLetter }).sorted()
        func axes(_ part: String, hidden: Int) throws -> [Int] {
            guard let range = part.firstRange(of: "...") else {
                return try part.map { try letters.firstIndex(of: $0).map { $0 + ellipsis } ?? { throw malformed() }() }
            }
            guard !part[range.upperBound...].contains(".") else { throw malformed() }
            return try axes(String(part[..<range.lowerBound]), hidden: 0) + Array((ellipsis - hidden)..<ellipsis)
                + axes(String(part[range.upperBound...]), hidden: 0)
        }
        let terms = try zip(parts, hidden).map { try axes($0, hidden: $1) }
        let output: [Int]
        if sides.count == 2 {
            output = try axes(String(sides[1]), hidden: ellipsis)
        } else {
            let once = letters.filter { letter in left.count { $0 == letter } == 1 }
            output = Array(0..<ellipsis) + once.compactMap { letters.firstIndex(of: $0) }.map { $0 + ellipsis }
        }
        guard Set(output).count == output.count, Set(output).isSubset(of: terms.joined()) else { throw malformed() }
        return Plan(terms: terms, output: output, names: ellipsis + letters.count)
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let types = try inputs.indices.map { try inputs.required($0, "operand").type }
        guard let first = types.first, types.allSatisfy({ $0.dataType == first.dataType }), first.dataType != .bool else {
            throw TripsError.data("operands", found: "\(types)", expected: "one numeric type")
        }
        let plan = try plan(ranks: types.map(\.rank))
        let sizes = try Einsum.sizes(plan, types)
        return [ValueType(first.dataType, plan.output.map { sizes[$0] })]
    }

    private static func sizes(_ plan: Plan, _ types: [ValueType]) throws -> [Dimension] {
        var sizes = Array(repeating: Dimension(1), count: plan.names)
        for (term, type) in zip(plan.terms, types) {
            for (name, size) in zip(term, type.shape) { sizes[name] = try broadcast(sizes[name], size) }
        }
        return sizes
    }

    public func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        let types = inputs.compactMap { $0 }
        guard types.count > 1 else { return nil }
        return try product(Einsum.sizes(plan(ranks: types.map(\.rank)), types))
    }
}

/// ONNX's own Attention: scaled dot products of queries and keys weigh the values.
///
/// Inputs: q; k; v, all [B, heads, L, D] or all [B, L, heads · D]; optional mask, boolean or additive, that broadcasts to
/// [B, heads, L, M]; optional past key and past value [B, heads, P, D]; optional number of keys of each example that are
/// no padding, int64 [B]. Outputs: y as q; present key and present value [B, heads, P + M, D]; scores
/// [B, heads, L, P + M]: the first `outputs` of them.
public struct OnnxAttention: Operator {
    /// Which scores are put out.
    public enum Scores: Int, Sendable, Hashable, Codable, CaseIterable {
        case products = 0, capped, masked, softmax
    }
    /// Needed where the operands have rank 3.
    public var queryHeads: Int?
    public var keyHeads: Int?
    /// nil: 1 / sqrt(D)
    public var scale: Float?
    public var causal: Bool
    /// Scores become softcap · tanh(score / softcap); 0: they stay.
    public var softcap: Float
    public var scores: Scores
    /// 1 ... 4
    public var outputs: Int

    public init(
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

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let q = try inputs.required(0, "q").floating("q").type
        let k = try headed(inputs.required(1, "k").floating("k").ranked(q.rank, "k").type, keyHeads, "k")
        let v = try headed(inputs.required(2, "v").floating("v").ranked(q.rank, "v").type, keyHeads, "v")
        let heads = try headed(q, queryHeads, "q")
        guard (1...4).contains(outputs) else { throw TripsError.data("number of outputs", found: outputs, expected: "1 ... 4") }
        guard mayBeEqual(heads[0], k[0]), mayBeEqual(k[0], v[0]), mayBeEqual(k[1], v[1]), mayBeEqual(k[2], v[2]),
            mayBeEqual(heads[3], k[3])
        else {
            throw TripsError.data("shapes of q, k and v", found: "\(heads), \(k), \(v)", expected: "heads that fit")
        }
        if let queries = heads[1].constant, let keys = k[1].constant, keys <= 0 || queries % keys != 0 {
            throw TripsError.data("heads", found: "\(queries) and \(keys)", expected: "a multiple")
        }
        var keys = k[2]
        let past = inputs.optional(4)
        guard (past == nil) == (inputs.optional(5) == nil) else {
            throw TripsError.data("past key without past value, or the reverse")
        }
        if let past {
            let length = try past.ranked(4, "past key").type.shape[2]
            try past.shaped([k[0], k[1], length, k[3]], "past key")
            try inputs.required(5, "past value").shaped([v[0], v[1], length, v[3]], "past value")
            keys = try keys.adding(length)
        }
        if let mask = inputs.optional(3),
            mask.type.rank > 4 || mask.type.rank < 1 || (mask.type.dataType != .bool && !mask.type.dataType.isFloatingPoint)
        {
            throw TripsError.data("mask", found: mask.type, expected: "booleans or floating point, rank 1 ... 4")
        }
        try inputs.optional(6)?.typed(.int64, "number of keys").shaped([heads[0]], "number of keys")
        let y = q.rank == 4 ? [heads[0], heads[1], heads[2], v[3]] : [heads[0], heads[2], try heads[1].multiplied(by: v[3])]
        let all = [
            ValueType(q.dataType, y),
            ValueType(try inputs.required(1, "k").type.dataType, [k[0], k[1], keys, k[3]]),
            ValueType(try inputs.required(2, "v").type.dataType, [v[0], v[1], keys, v[3]]),
            ValueType(q.dataType, [heads[0], heads[1], heads[2], keys]),
        ]
        return Array(all.prefix(outputs))
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

    public func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard let q = inputs[0], let k = inputs[1], let v = inputs[2] else { return nil }
        let (query, key, value) = (try headed(q, queryHeads, "q"), try headed(k, keyHeads, "k"), try headed(v, keyHeads, "v"))
        var length = key[2]
        if inputs.count > 4, let past = inputs[4] { length = try length.adding(past.shape[2]) }
        return try product(query[..<3]).multiplied(by: length).multiplied(by: query[3].adding(value[3]))
    }
}
