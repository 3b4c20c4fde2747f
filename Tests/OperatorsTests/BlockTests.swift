import ModelGraph
import Support
import Tensors
import TestSupport
import Testing

import Operators

/// Each block against the primitives that it stands for.
struct BlockTests {
    /// What a package may hold can be run.
    @Test func everyOperatorIsComputed() {
        for type in OperatorTable.all { #expect(type is any Computable.Type, "\(type.name)") }
    }

    @Test func projects() throws {
        let (x, w, b) = (try noise([2, 3, 5]), try noise([4, 5], seed: 2), try noise([4], seed: 3))
        let expected = try run(Binary(.add), run(MatMul(), x, run(Transpose(), w)), b)
        try expect(run(Linear(), x, w, b), [2, 3, 4], expected.numbers())
        try expect(run(Linear(), x, w, nil), [2, 3, 4], run(MatMul(), x, run(Transpose(), w)).numbers())
        let half = try run(Linear(), x.converted(to: .float16), w.converted(to: .float16), nil)
        // Inputs of 11 bits: five products, each off by up to 2^-10.
        try expect(half, [2, 3, 4], run(MatMul(), x, run(Transpose(), w)).numbers(), tolerance: 5e-3)
        try expectRefusal(Linear(), x.converted(to: .float64), w, b)
    }

    /// What reads elements of one width must not get elements of another.
    @Test func refusesTypesThatItDoesNotCompute() throws {
        let x = try noise([1, 4, 4])
        let (bytes, doubles) = (try x.converted(to: .int8), try x.converted(to: .float64))
        let row = try noise([4])
        for other in [bytes, doubles] {
            let otherRow = try row.converted(to: other.dataType)
            try expectRefusal(Linear(), x, other.reshaped([4, 4]), nil)
            try expectRefusal(Linear(), x, x.reshaped([4, 4]), otherRow)
            try expectRefusal(LayerNorm(epsilon: 1e-5), x, otherRow, nil)
            try expectRefusal(LayerNorm(epsilon: 1e-5), x, row, otherRow)
            try expectRefusal(Attention(heads: 2), x, other, x)
            try expectRefusal(Attention(heads: 2), x, x, other)
            try expectRefusal(Attention(heads: 2), x, x, x, other)
            try expectRefusal(
                PatchEmbedding(), x.reshaped([1, 1, 4, 4]), x.reshaped([1, 1, 4, 4]), nil, nil, otherRow.reshaped([1, 1, 4]))
            try expectRefusal(PatchSelection(heads: 2, keepRate: 0.5), x, other, x)
            try expectRefusal(PatchSelection(heads: 2, keepRate: 0.5), x, x, row.reshaped([1, 4]), other.reshaped([1, 16]))
            try expectRefusal(
                QuantizedLinear(groupSize: 4, activations: .int8), other, bytes.reshaped([4, 4]), row.reshaped([4, 1]))
            try expectRefusal(
                QuantizedLinear(groupSize: 4, activations: .int8), x, bytes.reshaped([4, 4]), otherRow.reshaped([4, 1]))
            try expectRefusal(
                QuantizedLinear(groupSize: 4, activations: .int8), x, bytes.reshaped([4, 4]), row.reshaped([4, 1]), nil, otherRow)
            try expectRefusal(QuantizedEmbedding(), integers([1], [1, 1]), bytes.reshaped([4, 4]), otherRow)
            try expectRefusal(Embedding(), integers([1], [1, 1]), x.reshaped([4, 4]), otherRow)
        }
        for op: any Operator in [GELU(.erf), L2Normalize(epsilon: 1e-12)] { try expectRefusal(op, bytes) }
        try expectRefusal(LayerNorm(epsilon: 1e-5), bytes, bytes.reshaped([16]), nil)
        try expectRefusal(Linear(), bytes, bytes.reshaped([4, 4]), nil)
        try expectRefusal(Attention(heads: 2), bytes, bytes, bytes)
    }

    @Test func looksUpIdsOfAnyIntegerType() throws {
        let (table, ids) = (try counting([200, 3]), (0..<600).map { Int64($0 % 100) })
        let levels = try table.converted(to: .int8)
        let wide = try Tensor(ids, shape: [2, 300])
        let (expected, expectedLevels) = (
            try run(Embedding(), wide, table), try run(QuantizedEmbedding(), wide, levels, floats(Array(repeating: 2, count: 200)))
        )
        for type in [DataType.int8, .uint8, .int16, .uint64, .int32] {
            let narrow = try wide.converted(to: type)
            try expect(run(Embedding(), narrow, table), [2, 300, 3], expected.numbers())
            try expect(
                run(QuantizedEmbedding(), narrow, levels, floats(Array(repeating: 2, count: 200))), [2, 300, 3],
                expectedLevels.numbers())
        }
    }

    @Test func projectsWithIntegerWeights() throws {
        let x = try noise([3, 7])
        let weight = try Tensor((0..<14).map { Int8(truncatingIfNeeded: $0 * 37 - 100) }, shape: [2, 7])
        let scales = try floats([0.01, 0.02, 0.03, 0.04], [2, 2])
        let wide = try floats(
            (0..<14).map { Float(Int8(truncatingIfNeeded: $0 * 37 - 100)) * [0.01, 0.02, 0.03, 0.04][$0 / 7 * 2 + $0 % 7 / 4] },
            [2, 7])
        let (bias, inputScale) = (try floats([1, 2]), try noise([7], seed: 9))
        let expected = try run(Linear(), run(Binary(.mul), x, inputScale), wide, bias)
        try expect(
            run(QuantizedLinear(groupSize: 4, activations: .float32), x, weight, scales, bias, inputScale), [3, 2],
            expected.numbers()
        )
        // Activations of 8 bits: seven products, each off by up to 1/254 of the largest input times the weight.
        try expect(
            run(QuantizedLinear(groupSize: 4, activations: .int8), x, weight, scales, bias, inputScale), [3, 2], expected.numbers(),
            tolerance: 0.05)
    }

    @Test func quantizesRowsToTheNearestLevelAndSumsExactly() throws {
        // The largest magnitude is 127 levels of 0.5; 0.75 lies between two levels and goes to the even one.
        let x = try floats([63.5, 0.75, -1], [1, 3])
        let weight = try Tensor([Int8(1), 10, 100], shape: [1, 3])
        try expect(
            run(QuantizedLinear(groupSize: 3, activations: .int8), x, weight, floats([2], [1, 1])), [1, 1],
            [(127.0 + 20 - 200) * 0.5 * 2])
        let zeros = try floats([0, 0, 0], [1, 3])
        try expect(run(QuantizedLinear(groupSize: 3, activations: .int8), zeros, weight, floats([2], [1, 1])), [1, 1], [0])
    }

    /// Groups of 3 are the plain form's, groups of 4 the kernels'.
    @Test(arguments: [3, 4]) func rowsOfTinyNumbersAreZeroAndThoseWithNaNAreNaN(groupSize: Int) throws {
        let x = try floats([1e-36, 1, .nan, 2, .infinity, 3].flatMap { [$0, 0.5e-36, 0, 1e-37] }, [6, 4])
        let weight = try Tensor((0..<8).map { Int8($0) }, shape: [2, 4])
        let scales = try floats(
            Array(repeating: 1, count: 2 * ((4 + groupSize - 1) / groupSize)), [2, (4 + groupSize - 1) / groupSize])
        let found = try run(QuantizedLinear(groupSize: groupSize, activations: .int8), x, weight, scales).elements(Float.self)
        #expect(found[0] == 0 && found[1] == 0, "a row of tiny numbers")
        for row in [2, 4] { #expect(found[2 * row].isNaN && found[2 * row + 1].isNaN) }
        for row in [1, 3, 5] { #expect(found[2 * row].isFinite && found[2 * row + 1] != 0) }
    }

    @Test func normalizes() throws {
        let (x, w, b) = (try noise([4, 9]), try noise([9], seed: 2), try noise([9], seed: 3))
        try expect(run(LayerNorm(epsilon: 1e-5), x, w, b), [4, 9], run(LayerNormalization(epsilon: 1e-5), x, w, b).numbers())
        try expect(run(L2Normalize(epsilon: 1e-12), floats([3, 4, 0, 0], [2, 2])), [2, 2], [0.6, 0.8, 0, 0])
        try expect(run(L2Normalize(epsilon: 10), floats([3, 4])), [2], [0.3, 0.4])
    }

    @Test(arguments: [
        (GELU.Form.erf, [-0.1586553, 0, 0.8413447]), (.tanh, [-0.1588080, 0, 0.8411920]), (.quick, [-0.1542088, 0, 0.8457912]),
    ])
    func activates(_ form: GELU.Form, _ expected: [Double]) throws {
        try expect(run(GELU(form), floats([-1, 0, 1])), [3], expected)
    }

    @Test func looksUpRows() throws {
        let table = try counting([4, 2])
        let ids = try integers([3, 0], [1, 2])
        try expect(run(Embedding(), ids, table), [1, 2, 2], [6, 7, 0, 1])
        try expect(
            run(Embedding(), ids, table, floats([10, 20], [1, 2, 1]), floats([100, 200])), [1, 2, 2], [116, 217, 120, 221])
        let levels = try Tensor([Int8(1), -2, 3, 4], shape: [2, 2])
        try expect(
            run(QuantizedEmbedding(), integers([1, 0], [1, 2]), levels, floats([0.5, 2]), floats([10, 10])), [1, 2, 2],
            [16, 18, 10.5, 9])
        try expectRefusal(Embedding(), integers([4], [1, 1]), table)
        #expect { try evaluate(Embedding(), [integers([0, 0, 0], [1, 3]), table, floats([1, 1, 1, 1], [1, 2, 2])]) } throws: {
            "\($0)".contains("more tokens than positions; found 3; expected at most 2")
        }
        #expect {
            try evaluate(Embedding(), [integers([0, 0], [1, 2]), table, floats([1, 1, 1, 1, 1, 1], [1, 2, 3])])
        } throws: {
            "\($0)".contains("shape of positions beside the ids; found float32[1, 2, 3]; expected broadcasting to [1, 2, 2]")
        }
        try expectRefusal(QuantizedEmbedding(), integers([2], [1, 1]), levels, floats([0.5, 2]))
    }

    @Test func makesMasks() throws {
        let mask = try integers([1, 0], [1, 2])
        try expect(run(PaddingMask(maskedValue: -10), mask), [1, 1, 1, 2], [0, -10])
        try expect(
            run(PaddingMask(maskedValue: -10, causal: true), integers([1, 1, 0], [1, 3])), [1, 1, 3, 3],
            [0, -10, -10, 0, 0, -10, 0, 0, -10])
    }

    @Test func embedsPatches() throws {
        let (image, weight) = (try noise([2, 3, 5, 4]), try noise([6, 3, 2, 2], seed: 2))
        let (bias, token, positions) = (try noise([6], seed: 3), try noise([1, 1, 6], seed: 4), try noise([1, 5, 6], seed: 5))
        let maps = try run(Conv(window: Window(strides: [2, 2])), image, weight, bias)
        let rows = try run(Transpose(permutation: [0, 2, 1]), run(Reshape(), maps, integers([2, 6, 4])))
        try expect(run(PatchEmbedding(), image, weight, bias), [2, 4, 6], rows.numbers())
        let joined = try run(Concat(axis: 1), run(Expand(), token, integers([2, 1, 6])), rows)
        try expect(
            run(PatchEmbedding(), image, weight, bias, token, positions), [2, 5, 6], run(Binary(.add), joined, positions).numbers())
    }

    /// Attention by primitives; heads lie side by side in the last axis.
    private func attention(_ q: Tensor, _ k: Tensor, _ v: Tensor, mask: Tensor?, heads: Int, scale: Float) throws -> Tensor {
        func split(_ x: Tensor, _ permutation: [Int]) throws -> Tensor {
            let shape = try integers([0, 0, Int64(heads), -1])
            return try run(Transpose(permutation: permutation), run(Reshape(), x, shape))
        }
        var scores = try run(Binary(.mul), run(MatMul(), split(q, [0, 2, 1, 3]), split(k, [0, 2, 3, 1])), scalar(scale))
        if let mask { scores = try run(Binary(.add), scores, mask) }
        let mixed = try run(MatMul(), run(Softmax(), scores), split(v, [0, 2, 1, 3]))
        return try run(Reshape(), run(Transpose(permutation: [0, 2, 1, 3]), mixed), integers([0, 0, -1]))
    }

    @Test func attends() throws {
        let (q, k, v) = (try noise([2, 3, 8]), try noise([2, 5, 8], seed: 2), try noise([2, 5, 4], seed: 3))
        let mask = try noise([2, 1, 1, 5], seed: 4)
        try expect(
            run(Attention(heads: 2), q, k, v, mask), [2, 3, 4], attention(q, k, v, mask: mask, heads: 2, scale: 0.5).numbers())
        try expect(
            run(Attention(heads: 4, scale: 2), q, k, v, nil), [2, 3, 4], attention(q, k, v, mask: nil, heads: 4, scale: 2).numbers()
        )
        // One example of keys for all queries, and a mask of lower rank.
        let (k1, v1, flat) = (try noise([1, 5, 8], seed: 5), try noise([1, 5, 4], seed: 6), try noise([5], seed: 7))
        try expect(
            run(Attention(heads: 2), q, k1, v1, flat), [2, 3, 4], attention(q, k1, v1, mask: flat, heads: 2, scale: 0.5).numbers())
        let square = try noise([1, 3, 8], seed: 8)
        let ahead = try floats([0, -.infinity, -.infinity, 0, 0, -.infinity, 0, 0, 0], [3, 3])
        try expect(
            run(Attention(heads: 2, causal: true), square, square, square), [1, 3, 8],
            attention(square, square, square, mask: ahead, heads: 2, scale: 0.5).numbers())
    }
}

struct SelectionTests {
    /// One head, width 1: scores are the softmax of the keys behind the first.
    private func select(_ op: PatchSelection, _ x: [Float], _ keys: [Float], positions: [Int64]? = nil) throws -> [Tensor] {
        try evaluate(
            op,
            [
                floats(x, [1, x.count, 1]), floats(keys, [1, keys.count, 1]), op.guidance == .random ? nil : floats([1], [1, 1]),
                positions.map { try integers($0, [1, $0.count]) },
            ])
    }
    private let x: [Float] = [100, 1, 2, 3, 4]
    /// Weights 1, 4, 2, 3 of ten, behind the class token.
    private let keys: [Float] = [5, 0, 1.3862944, 0.6931472, 1.0986123]

    @Test func keepsTheBestInOrderAndFusesTheOthers() throws {
        let outputs = try select(PatchSelection(heads: 1, scale: 1, keepRate: 0.5), x, keys)
        try expect(outputs[0], [1, 4, 1], [100, 2, 4, (0.1 * 1 + 0.2 * 3) / 0.3])
        try expect(outputs[1], [1, 2], [1, 3])
        try expect(outputs[2], [1, 4], [0.1, 0.4, 0.2, 0.3])
        try expect(outputs[3], [1, 3], [1, 3, -1])
    }

    @Test func takesEveryOption() throws {
        let weighted = try select(PatchSelection(heads: 1, scale: 1, keepRate: 0.5, fusion: .weighted), x, keys)
        try expect(weighted[0], [1, 4, 1], [100, 2, 4, 0.1 * 1 + 0.2 * 3])
        let dropped = try select(PatchSelection(heads: 1, scale: 1, keepRate: 0.5, fusion: .none), x, keys)
        try expect(dropped[0], [1, 3, 1], [100, 2, 4])
        try expect(dropped[3], [1, 2], [1, 3])
        let byScore = try select(
            PatchSelection(heads: 1, scale: 1, keepRate: 0.75, order: .score), x, keys, positions: [7, -1, 5, 9])
        try expect(byScore[0], [1, 5, 1], [100, 2, 4, 3, 1])
        try expect(byScore[1], [1, 3], [1, 2, 3])
        try expect(byScore[3], [1, 4], [-1, 9, 5, -1])
    }

    @Test func countsTheClassTokenInItsOwnGuidance() throws {
        let outputs = try select(
            PatchSelection(heads: 1, scale: 1, keepRate: 0.5, guidance: .imageCLS), x,
            [2.3025851, 0, 1.3862944, 0.6931472, 1.0986123])
        try expect(outputs[2], [1, 4], [0.05, 0.2, 0.1, 0.15])
        try expect(outputs[0], [1, 4, 1], [100, 2, 4, (1 + 2 * 3) / 3])
    }

    /// Registers beside the class token are neither scored nor dropped; in its own guidance it sees them.
    @Test func keepsLeadingTokens() throws {
        let (x, keys) = ([100, 200, 300] + self.x[1...], [5, 9, 9] + self.keys[1...])
        let outputs = try select(PatchSelection(heads: 1, scale: 1, keepRate: 0.5, leading: 3), x, keys)
        try expect(outputs[0], [1, 6, 1], [100, 200, 300, 2, 4, (0.1 * 1 + 0.2 * 3) / 0.3])
        try expect(outputs[1], [1, 2], [1, 3])
        try expect(outputs[2], [1, 4], [0.1, 0.4, 0.2, 0.3])
        try expect(outputs[3], [1, 3], [1, 3, -1])
        let own = PatchSelection(heads: 1, scale: 1, keepRate: 0.5, guidance: .imageCLS, leading: 3)
        try expect(select(own, x, [2.3025851, 2.3025851, 2.9957323] + self.keys[1...])[2], [1, 4], [0.02, 0.08, 0.04, 0.06])
        let random = PatchSelection(heads: 1, keepRate: 0.5, guidance: .random, fusion: .none, leading: 3)
        #expect(try select(random, x, keys)[0].numbers().prefix(3) == [100, 200, 300])
    }

    @Test func leavesEverythingAtRateOneAndPrefersLowerIndices() throws {
        let all = try select(PatchSelection(heads: 1, keepRate: 1), x, keys)
        try expect(all[0], [1, 5, 1], x.map { Double($0) })
        try expect(all[3], [1, 4], [0, 1, 2, 3])
        let byScore = try select(PatchSelection(heads: 1, keepRate: 1, order: .score), x, keys)
        try expect(byScore[0], [1, 5, 1], x.map { Double($0) })
        try expect(byScore[3], [1, 4], [0, 1, 2, 3])
        let ties = try select(PatchSelection(heads: 1, keepRate: 0.5), x, [0, 1, 1, 1, 1])
        try expect(ties[1], [1, 2], [0, 1])
    }

    @Test func takesThePlainMeanWhereAllScoresVanish() throws {
        let outputs = try select(PatchSelection(heads: 1, scale: 1, keepRate: 0.5), x, [0, 0, 500, 0, 500])
        try expect(outputs[0], [1, 4, 1], [100, 2, 4, 2])
    }

    @Test func averagesOverHeads() throws {
        let keys = try floats([0, 0, 0, 1.0986123, 1.0986123, 0], [1, 3, 2])
        let outputs = try evaluate(
            PatchSelection(heads: 2, scale: 1, keepRate: 0.5), [counting([1, 3, 2]), keys, floats([1, 1], [1, 2]), nil])
        try expect(outputs[2], [1, 2], [0.5, 0.5])
    }

    @Test func drawsTheSameNumbersFromTheSameSeed() throws {
        let op = PatchSelection(heads: 1, keepRate: 0.5, guidance: .random, seed: 5)
        let (first, second) = (try select(op, x, keys), try select(op, x, keys))
        #expect(try first[2].numbers() == second[2].numbers())
        let other = try select(PatchSelection(heads: 1, keepRate: 0.5, guidance: .random, seed: 6), x, keys)
        #expect(try first[2].numbers() != other[2].numbers())
        // The generator's published first number for the seed 0.
        var generator = SplitMix64(state: 0)
        #expect(generator.next() == 0xE220_A839_7B1D_CDAF)
    }

    @Test func refusesWhatCannotBe() throws {
        let (tokens, keys, query) = (try counting([1, 3, 2]), try counting([1, 3, 2]), try floats([1, 1], [1, 2]))
        try expectRefusal(PatchSelection(heads: 3, keepRate: 0.5), tokens, keys, query)
        try expectRefusal(PatchSelection(heads: 1, keepRate: 0), tokens, keys, query)
        try expectRefusal(PatchSelection(heads: 1, keepRate: .nan), tokens, keys, query)
        try expectRefusal(PatchSelection(heads: 1, keepRate: 0.5), tokens, keys, nil)
        try expectRefusal(PatchSelection(heads: 1, keepRate: 0.5), counting([1, 1, 2]), counting([1, 1, 2]), query)
        for leading in [0, -1, 3, .max] {
            try expectRefusal(PatchSelection(heads: 1, keepRate: 0.5, leading: leading), tokens, keys, query)
        }
    }
}
