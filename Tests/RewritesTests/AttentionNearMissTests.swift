import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// softmax(q · kᵀ / 2) · v over two heads of four numbers each, cut out of projections.
struct Attending {
    var m = Exported()
    var q: ValueID
    var k: ValueID
    var v: ValueID
    var x: ValueID

    init(batch: Int = 2, length: Int = 5, isOpen: Bool = false) throws {
        x = try m.input("x", [batch, length, 8], dimensions: isOpen ? [Dimension(batch), Dimension(symbol: "length"), 8] : nil)
        let length = isOpen ? -1 : length
        (q, k, v) = (x, x, x)
        q = try heads(x, batch, length)
        k = try heads(x, batch, length)
        v = try heads(x, batch, length)
    }

    mutating func heads(_ x: ValueID, _ batch: Int, _ length: Int, count: Int = 2) throws -> ValueID {
        try m.transpose(m.reshape(m.linear(x, 8, count * 4), [batch, length, count, 4]), [0, 2, 1, 3])
    }

    mutating func number(_ name: String, _ numbers: [Float], _ shape: [Int]) throws -> ValueID {
        try m.graph.addConstant(Constant(Tensor(numbers, shape: shape), identity: name), name: name)
    }

    mutating func scores() throws -> ValueID {
        try m.binary(
            .div, m.node(MatMul(), [q, m.transpose(k, m.graph.type(of: k).rank == 4 ? [0, 1, 3, 2] : [0, 2, 1])]), m.scalar(2))
    }

    mutating func finish(_ scores: ValueID, axis: Int = -1) throws {
        try m.output(m.node(MatMul(), [m.node(Softmax(axis: axis), [scores]), v]))
    }

    /// Whether it is recognised; the numbers stay in any case.
    func isFused() throws -> Bool { try m.fused().contains("Attention") }
}

/// What differs from attention in one respect stays, with its numbers.
struct AttentionNearMissTests {
    enum AlmostAttention: CaseIterable {
        case scaledValues, scaleOfAnotherRank, scaledByAnotherRank, quotientOfAnotherRank, otherSoftmax
        case keysOfOneHead, valuesOfOneHead, keysAndValuesOfOneHead, twoMasks, maskAndReplacement, replacementAndMask,
            twoReplacements
        case scaledReplacement, maskOfMoreExamples, conditionOfMoreExamples, nothingHiddenOfMoreExamples, guardOfAnother,
            guardOfAnotherRank
    }

    @Test(arguments: AlmostAttention.allCases) func whatIsAlmostAttentionStays(change: AlmostAttention) throws {
        let isOneExample =
            change == .maskOfMoreExamples || change == .conditionOfMoreExamples || change == .nothingHiddenOfMoreExamples
        var a = try Attending(batch: isOneExample ? 1 : 2)
        switch change {
        case .scaledValues: a.v = try a.m.binary(.mul, a.v, a.m.scalar(3))
        case .keysOfOneHead: a.k = try a.heads(a.x, 2, 5, count: 1)
        case .valuesOfOneHead: a.v = try a.heads(a.x, 2, 5, count: 1)
        case .keysAndValuesOfOneHead: (a.k, a.v) = (try a.heads(a.x, 2, 5, count: 1), try a.heads(a.x, 2, 5, count: 1))
        default: break
        }
        var scores = try a.scores()
        let half = try a.number("half", [0.5], [1, 1, 1, 1, 1])
        if change == .scaleOfAnotherRank { scores = try a.m.binary(.mul, half, scores) }
        if change == .scaledByAnotherRank { scores = try a.m.binary(.mul, scores, half) }
        if change == .quotientOfAnotherRank { scores = try a.m.binary(.div, scores, half) }
        let addends = try a.m.input("addends", [2, 1, 1, 5])
        let hidden = try a.m.binary(.greater, a.m.input("hidden", [2, 1, 1, 5]), a.m.scalar(0))
        func replaced(_ scores: ValueID) throws -> ValueID { try a.m.node(Where(), [hidden, a.m.scalar(-1e9), scores]) }
        func masked(_ scores: ValueID) throws -> ValueID { try a.m.binary(.add, scores, addends) }
        switch change {
        case .twoMasks: try a.finish(a.m.binary(.add, masked(scores), a.m.input("others", [2, 1, 1, 5])))
        case .maskAndReplacement: try a.finish(replaced(masked(scores)))
        case .replacementAndMask: try a.finish(masked(replaced(scores)))
        case .twoReplacements:
            let others = try a.m.binary(.greater, a.m.input("others", [2, 1, 1, 5]), a.m.scalar(0))
            try a.finish(a.m.node(Where(), [others, a.m.scalar(-1e9), replaced(scores)]))
        case .scaledReplacement:
            try a.finish(a.m.binary(.mul, a.m.node(Where(), [hidden, a.m.scalar(-10000), scores]), a.m.scalar(1e-4)))
        case .maskOfMoreExamples: try a.finish(masked(scores))
        case .conditionOfMoreExamples: try a.finish(replaced(scores))
        case .nothingHiddenOfMoreExamples:
            let none = try a.m.graph.addConstant(
                Constant(Tensor([Bool](repeating: false, count: 10), shape: [2, 1, 1, 5]), identity: "none"), name: "none")
            try a.finish(a.m.node(Where(), [none, a.m.scalar(-1e9), scores]))
        case .guardOfAnother, .guardOfAnotherRank:
            let weights = try a.m.node(Softmax(axis: -1), [scores])
            let asked = try change == .guardOfAnother ? a.m.unary(.log, a.m.input("asked", [1, 1, 1, 5])) : weights
            let zero = try change == .guardOfAnother ? a.m.scalar(0) : a.number("zero", [0], [1, 1, 1, 1, 1])
            try a.m.output(a.m.node(MatMul(), [a.m.node(Where(), [a.m.unary(.isNaN, asked), zero, weights]), a.v]))
        default: try a.finish(scores, axis: change == .otherSoftmax ? 2 : -1)
        }
        // Addends add up, and where scores are replaced behind them, so is their sum.
        #expect(try a.isFused() == (change == .twoMasks || change == .maskAndReplacement))
    }

    /// The mask that would take the place of the condition is of float32.
    @Test func replacedScoresOfDoublesStay() throws {
        var a = try Attending()
        a.q = try a.m.node(Cast(to: .float64), [a.q])
        a.k = try a.m.node(Cast(to: .float64), [a.k])
        a.v = try a.m.node(Cast(to: .float64), [a.v])
        let hidden = try a.m.binary(.greater, a.m.input("hidden", [2, 1, 1, 5]), a.m.scalar(0))
        let number = try a.m.node(Cast(to: .float64), [a.m.scalar(-1e9)])
        let scores = try a.m.node(MatMul(), [a.q, a.m.transpose(a.k, [0, 1, 3, 2])])
        try a.finish(a.m.node(Where(), [hidden, number, scores]))
        #expect(try !a.isFused())
    }

    enum Cut: CaseIterable {
        case interleaved, twiceCut, headsFirst, channels, tokensAndChannels, shuffledChannels, everySecondChannel, partsOfHeads,
            allExamples
        case oneExample, firstTokens, lastTokens
    }

    /// Heads that do not lie side by side in the last axis of what they are cut from, one example after the other, are laid out so.
    @Test(arguments: Cut.allCases) func headsThatLieOtherwiseAreLaidOut(cut: Cut) throws {
        var a = try Attending()
        func part(_ x: ValueID, _ start: Int, _ count: Int, axis: Int) throws -> ValueID {
            try a.m.node(Slice(), [x, a.m.integers([start]), a.m.integers([start + count]), a.m.integers([axis])])
        }
        func heads() throws -> ValueID {
            let x = try a.m.linear(a.x, 8, 8)
            return switch cut {
            case .interleaved: try a.m.transpose(a.m.reshape(x, [2, 5, 4, 2]), [0, 3, 1, 2])
            case .twiceCut: try a.m.reshape(a.m.transpose(a.m.reshape(x, [2, 5, 2, 2, 2]), [0, 3, 2, 1, 4]), [2, 4, 5, 2])
            case .headsFirst: try a.m.transpose(a.m.reshape(x, [2, 5, 2, 4]), [2, 0, 1, 3])
            case .oneExample:
                try a.m.transpose(
                    a.m.reshape(a.m.node(Gather(axis: 0), [x, a.m.integers([1], scalar: true)]), [5, 2, 4]), [1, 0, 2])
            case .firstTokens, .lastTokens:
                try a.m.transpose(a.m.reshape(part(x, cut == .firstTokens ? 0 : 1, 4, axis: 1), [2, 4, 2, 4]), [0, 2, 1, 3])
            case .channels: try a.m.transpose(x, [0, 2, 1])
            case .shuffledChannels: try a.m.reshape(a.m.transpose(a.m.reshape(x, [2, 5, 4, 2]), [0, 1, 3, 2]), [2, 5, 8])
            case .everySecondChannel:
                try a.m.node(Gather(axis: 3), [a.m.reshape(x, [2, 5, 4, 2]), a.m.integers([0], scalar: true)])
            case .partsOfHeads: try a.m.transpose(part(a.m.reshape(x, [2, 5, 2, 4]), 0, 2, axis: 3), [0, 2, 1, 3])
            case .allExamples: try a.m.reshape(x, [1, 10, 8])
            case .tokensAndChannels: try a.m.reshape(x, [2, 2, 5, 4])
            }
        }
        (a.q, a.k, a.v) = (try heads(), try heads(), try heads())
        try a.finish(a.scores())
        #expect(try a.isFused())
    }

    /// Operands that nothing cuts out of rows are laid out as if they were; not so a query for each token alone, nor one for all.
    @Test(arguments: 0..<4) func operandsWithoutHeadsAreLaidOut(form: Int) throws {
        var a = try Attending()
        switch form {
        case 0:
            (a.q, a.k, a.v) = (
                try a.m.input("q", [1, 2, 5, 4]), try a.m.input("k", [1, 2, 5, 4]), try a.m.input("v", [1, 2, 5, 4])
            )
        case 1:
            (a.q, a.k, a.v) = (
                try a.m.input("q", [2, 2, 5, 4]), try a.m.input("k", [2, 2, 5, 4]), try a.m.input("v", [2, 2, 5, 4])
            )
        case 2:
            let source = try a.m.input("source", [2, 7, 8])
            a.q = try a.m.reshape(a.m.linear(a.x, 8, 8), [2, 5, 1, 8])
            (a.k, a.v) = (
                try a.m.reshape(a.m.linear(source, 8, 8), [2, 1, 7, 8]), try a.m.reshape(a.m.linear(source, 8, 8), [2, 1, 7, 8])
            )
        default:
            let scores = try a.m.node(MatMul(), [a.m.input("tokens", [5, 4]), a.m.input("query", [4])])
            try a.m.output(a.m.node(MatMul(), [a.m.node(Softmax(axis: -1), [scores]), a.m.input("values", [5, 3])]))
        }
        if form < 3 { try a.finish(a.scores()) }
        #expect(try a.isFused() == (form < 2))
    }

    /// Parts of a packed projection, of fewer tokens.
    @Test func packedProjectionsOfFewerTokensAreFused() throws {
        var a = try Attending()
        let packed = try a.m.linear(a.x, 8, 24)
        func heads(_ index: Int) throws -> ValueID {
            let part = try a.m.node(
                Slice(), [packed, a.m.integers([index * 8, 1]), a.m.integers([index * 8 + 8, 5]), a.m.integers([2, 1])])
            return try a.m.transpose(a.m.reshape(part, [2, 4, 2, 4]), [0, 2, 1, 3])
        }
        (a.q, a.k, a.v) = (try heads(0), try heads(1), try heads(2))
        try a.finish(a.scores())
        #expect(try a.isFused())
    }

    enum MaskForm: CaseIterable {
        case even, evenButLarge, evenButHidden, evenWithNaN, unevenSquare, otherTriangle, triangle, causalWhere, causalWhereTrue
        case causalButSmall, anyWhere
    }

    /// Square masks, of which only those that hide the later keys and no others are causal.
    @Test(arguments: MaskForm.allCases) func squareMasksThatHideTheLaterKeysAreCausal(form: MaskForm) throws {
        var a = try Attending()
        let scores = try a.scores()
        func square(_ number: (Int, Int) -> Float) throws -> ValueID {
            try a.number("square", (0..<25).map { number($0 / 5, $0 % 5) }, [1, 1, 5, 5])
        }
        func condition(_ isTrue: (Int, Int) -> Bool) throws -> ValueID {
            try a.m.node(Cast(to: .bool), [square { isTrue($0, $1) ? 1 : 0 }])
        }
        let masked =
            switch form {
            case .even: try a.m.binary(.add, scores, square { row, _ in Float(row) })
            case .evenButLarge: try a.m.binary(.add, scores, square { row, _ in row == 3 ? -1e9 : 0 })
            case .evenButHidden: try a.m.binary(.add, scores, square { row, _ in row == 3 ? -.infinity : 0 })
            case .evenWithNaN: try a.m.binary(.add, scores, square { row, _ in row == 3 ? .nan : 0 })
            case .unevenSquare: try a.m.binary(.add, scores, square { Float($0 * $1) / 10 })
            case .otherTriangle: try a.m.binary(.add, scores, square { $1 < $0 ? -10000 : 0 })
            case .triangle: try a.m.binary(.add, scores, square { $1 > $0 ? -10000 : 0 })
            case .causalWhere: try a.m.node(Where(), [condition { $1 <= $0 }, scores, a.m.scalar(-10000)])
            case .causalWhereTrue: try a.m.node(Where(), [condition { $1 <= $0 }, a.m.scalar(-1e9), scores])
            case .causalButSmall: try a.m.node(Where(), [condition { $1 <= $0 }, scores, a.m.scalar(-100)])
            case .anyWhere: try a.m.node(Where(), [condition { ($0 + $1) % 3 != 1 }, scores, a.m.scalar(-1e9)])
            }
        try a.finish(masked)
        #expect(try a.isFused() == (form != .causalButSmall))
        var graph = a.m.graph
        try graph.fold()
        try graph.fuse()
        let attention = graph.nodes.lazy.compactMap { node in (node.op as? Attention).map { (op: $0, inputs: node.inputs.count) } }
            .first
        #expect(attention.map(\.op.causal) ?? false == (form == .causalWhere || form == .triangle))
        #expect(
            attention.map(\.inputs) ?? 0
                == (form == .causalButSmall ? 0 : form == .even || form == .causalWhere || form == .triangle ? 3 : 4))
    }

    /// Scores of examples and heads in one axis: a mask of one row fits, and so does one that tells them apart.
    @Test(arguments: [(2, [5, 5]), (2, [1, 5, 5]), (2, [4, 5, 5]), (1, [2, 5, 5]), (1, [1, 2, 5, 5])] as [(Int, [Int])])
    func masksOfScoresWithThreeAxesAreFused(batch: Int, mask: [Int]) throws {
        var a = try Attending(batch: batch)
        func heads() throws -> ValueID { try a.m.reshape(a.heads(a.x, batch, 5), [2 * batch, 5, 4]) }
        (a.q, a.k, a.v) = (try heads(), try heads(), try heads())
        try a.finish(a.m.binary(.add, a.scores(), a.m.input("mask", mask)))
        #expect(try a.isFused() == (mask.count < 4))
    }

    @Test func masksOfScoresWithOtherNumbersOfAxesStay() throws {
        var a = try Attending()
        let wide = try a.m.reshape(a.scores(), [1, 2, 2, 5, 5])
        try a.finish(a.m.reshape(a.m.binary(.add, wide, a.m.input("mask", [1, 2, 1, 5, 5])), [2, 2, 5, 5]))
        #expect(try !a.isFused())
    }

    @Test func oneExampleMayHaveNoAxis() throws {
        var a = try Attending()
        let x = try a.m.input("tokens", [5, 8])
        func heads() throws -> ValueID { try a.m.transpose(a.m.reshape(a.m.linear(x, 8, 8), [5, 2, 4]), [1, 0, 2]) }
        (a.q, a.k, a.v) = (try heads(), try heads(), try heads())
        try a.finish(a.scores())
        #expect(try a.isFused())
    }

    /// Keys and values of one example serve all queries.
    @Test func oneSourceServesAllExamples() throws {
        var a = try Attending()
        let source = try a.m.input("source", [1, 7, 8])
        (a.k, a.v) = (try a.heads(source, 1, 7), try a.heads(source, 1, 7))
        try a.finish(a.scores())
        #expect(try a.isFused())
    }

    /// The heads of all examples would be taken for rows of each other.
    @Test(arguments: [false, true]) func scoresThatAreArrangedAnewStay(behindSoftmax: Bool) throws {
        var a = try Attending(length: 3)
        let source = try a.m.input("source", [1, 7, 8])
        (a.k, a.v) = (try a.heads(source, 1, 7), try a.heads(source, 1, 7))
        var scores = try a.scores()
        if !behindSoftmax { scores = try a.m.reshape(scores, [1, 2, 6, 7]) }
        let weights = try a.m.node(Softmax(axis: -1), [scores])
        try a.m.output(a.m.node(MatMul(), [behindSoftmax ? a.m.reshape(weights, [1, 2, 6, 7]) : weights, a.v]))
        #expect(try !a.isFused())
    }

    /// Rows [B, D] that are examples of one token each are none of one example, whether keys are shared or not.
    @Test(arguments: [false, true], [false, true]) func examplesOfOneTokenAreFused(isOpen: Bool, sharesKeys: Bool) throws {
        var a = try Attending()
        let rows = try a.m.input("rows", [3, 8], dimensions: isOpen ? [Dimension(symbol: "batch"), 8] : nil)
        func heads() throws -> ValueID { try a.m.reshape(a.m.linear(rows, 8, 8), [-1, 2, 1, 4]) }
        (a.q, a.k, a.v) = (try heads(), try heads(), try heads())
        if sharesKeys {
            let source = try a.m.input("source", [1, 7, 8])
            (a.k, a.v) = (try a.heads(source, 1, 7), try a.heads(source, 1, 7))
        }
        try a.finish(a.scores())
        #expect(try a.isFused())
    }

    enum OnnxForm: CaseIterable { case capped, withScores, withPast, rankThree, shorterMask, shorterCondition }

    @Test(arguments: OnnxForm.allCases) func onnxAttentionOfOtherKindsStays(form: OnnxForm) throws {
        var a = try Attending()
        if form == .rankThree {
            try a.m.output(
                a.m.node(
                    OnnxAttention(queryHeads: 2, keyHeads: 2),
                    [a.m.linear(a.x, 8, 8), a.m.linear(a.x, 8, 8), a.m.linear(a.x, 8, 8)]))
        } else {
            var others = try form == .withPast ? [nil, a.m.input("keys", [2, 2, 3, 4]), a.m.input("values", [2, 2, 3, 4])] : []
            if form == .shorterMask || form == .shorterCondition {
                let mask = try a.m.input("mask", [5, 3])
                others = try [form == .shorterMask ? mask : a.m.binary(.greater, mask, a.m.scalar(0))]
            }
            let op = OnnxAttention(softcap: form == .capped ? 0.1 : 0, outputs: form == .withScores ? 4 : 1)
            try a.m.output(a.m.graph.add(op, [a.q, a.k, a.v] + others, name: "attention")[0])
        }
        #expect(try !a.isFused())
    }
}
