import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// What differs from a pattern in one respect stays, with its numbers: fused, it would give others.
struct NearMissTests {
    // MARK: GELU

    enum AlmostGELU: CaseIterable {
        case twiceTheQuickOne, twiceTheFunction, argumentAsItIs, argumentMoved, argumentDivided, otherCubic, aSquare, aFourthPower, openPower, anotherShape, anotherSwish
    }

    @Test(arguments: AlmostGELU.allCases) func gelu(change: AlmostGELU) throws {
        var m = Exported()
        let x = try m.input("x", [3, 8])
        let half = try m.binary(.mul, x, m.scalar(0.5))
        func gated(_ function: ValueID) throws -> ValueID { try m.binary(.mul, half, m.binary(.add, function, m.scalar(1))) }
        func erf(_ argument: ValueID) throws -> ValueID { try gated(m.unary(.erf, argument)) }
        func tanh(_ cube: ValueID, _ coefficient: Float = 0.044715) throws -> ValueID {
            let sum = try m.binary(.add, x, m.binary(.mul, cube, m.scalar(coefficient)))
            return try gated(m.unary(.tanh, m.binary(.mul, sum, m.scalar(0.7978845608))))
        }
        let divided = try m.binary(.div, x, m.scalar(1.4142135))
        let y = switch change {
        case .twiceTheQuickOne:
            try m.binary(.mul, m.binary(.mul, x, m.scalar(2)), m.unary(.sigmoid, m.binary(.mul, x, m.scalar(1.702))))
        case .twiceTheFunction: try gated(m.binary(.mul, m.unary(.erf, divided), m.scalar(2)))
        case .argumentAsItIs: try erf(x)
        case .argumentMoved: try erf(m.binary(.add, divided, m.scalar(0.1)))
        case .argumentDivided: try erf(m.binary(.div, x, m.binary(.add, x, m.scalar(1.4142135))))
        case .otherCubic: try tanh(m.node(Binary(.pow), [x, m.scalar(3)]), 0.05)
        case .aSquare: try tanh(m.node(Binary(.pow), [x, m.scalar(2)]))
        case .aFourthPower: try tanh(m.node(Binary(.pow), [x, m.scalar(4)]))
        case .openPower: try tanh(m.node(Binary(.pow), [x, m.binary(.add, x, m.scalar(3))]))
        case .anotherShape:
            try erf(m.binary(.mul, x, m.graph.addConstant(Constant(Tensor([Float(0.70710678)], shape: [1, 1, 1]), identity: "root"), name: "root")))
        case .anotherSwish: try m.node(Unary(.swish, alpha: 1.7), [x])
        }
        try m.output(y)
        #expect(try !m.fused().contains("GELU"))
    }

    @Test func otherWaysToWriteAGELU() throws {
        var m = Exported()
        let x = try m.input("x", [3, 8])
        try m.output(m.node(Unary(.swish, alpha: 1.702), [x]))
        // x (1 + 0.044715 x²)
        let scaled = try m.binary(.mul, m.node(Binary(.pow), [x, m.scalar(2)]), m.scalar(0.044715))
        let argument = try m.binary(.mul, m.binary(.mul, x, m.scalar(0.7978845608)), m.binary(.add, scaled, m.scalar(1)))
        try m.output(m.binary(.mul, m.binary(.mul, x, m.scalar(0.5)), m.binary(.add, m.scalar(1), m.unary(.tanh, argument))))
        #expect(try m.fused() == ["GELU", "GELU"])
    }

    /// A second is ample, unless each factor leads to all those before it.
    @Test func productsOfManyFactors() throws {
        var graph = Graph(name: "main")
        var x = try graph.addInput("x", ValueType(.float32, [3]))
        let factor = try graph.addConstant(Constant(Tensor(scalar: Float(1.0001))), name: "factor")
        for _ in 0..<3_000 { x = try graph.add(Binary(.mul), [x, factor], name: "product")[0] }
        try graph.addOutput("y", x)
        try fuse(&graph)
        #expect(graph.nodes.count == 3_000)
    }

    // MARK: LayerNorm

    enum AlmostNorm: CaseIterable {
        case sumForMean, sumOfSquares, meanOfAnother, spreadOfAnother, productOfTwo, fourthPower, otherRoot, otherInverse, twoThroughRoot
        case meanOfAnotherAxis, meanOfBothAxes, spreadOfAnotherAxis, meanInAnotherPlace, spreadInAnotherPlace, weightOfAnotherRank
    }

    /// Of [8, 8], so that a mean without its axis still broadcasts, along the other one.
    @Test(arguments: AlmostNorm.allCases) func layerNorm(change: AlmostNorm) throws {
        var m = Exported()
        let (x, y) = (try m.input("x", [8, 8]), try m.input("y", [8, 8]))
        func mean(_ value: ValueID, _ kind: Reduce.Kind = .mean, axis: Int = -1, keeping: Bool = true) throws -> ValueID {
            try m.node(Reduce(kind, keepDimensions: keeping), [value, m.integers([axis])])
        }
        let center = switch change {
        case .sumForMean: try mean(x, .sum)
        case .meanOfAnother: try mean(y)
        case .meanOfAnotherAxis: try mean(x, axis: 0)
        case .meanInAnotherPlace: try mean(x, keeping: false)
        case .meanOfBothAxes: try m.node(Reduce(.mean), [x, m.integers([-1, 0])])
        default: try mean(x)
        }
        let centered = try m.binary(.sub, x, center)
        let square = switch change {
        case .spreadOfAnother: try m.node(Binary(.pow), [m.binary(.sub, y, mean(y)), m.scalar(2)])
        case .productOfTwo: try m.binary(.mul, centered, m.binary(.sub, y, mean(y)))
        case .fourthPower: try m.node(Binary(.pow), [centered, m.scalar(4)])
        default: try m.node(Binary(.pow), [centered, m.scalar(2)])
        }
        let spread = switch change {
        case .sumOfSquares: try mean(square, .sum)
        case .spreadOfAnotherAxis: try mean(square, axis: 0)
        case .spreadInAnotherPlace: try mean(square, keeping: false)
        default: try mean(square)
        }
        let variance = try m.binary(.add, spread, m.scalar(2))
        let normed = switch change {
        case .otherRoot: try m.binary(.div, centered, m.node(Binary(.pow), [variance, m.scalar(0.4)]))
        case .otherInverse: try m.binary(.mul, centered, m.node(Binary(.pow), [variance, m.scalar(-0.4)]))
        case .twoThroughRoot: try m.binary(.mul, centered, m.binary(.div, m.scalar(2), m.unary(.sqrt, variance)))
        default: try m.binary(.div, centered, m.unary(.sqrt, variance))
        }
        try m.output(m.binary(.mul, normed, m.constant(change == .weightOfAnotherRank ? [1, 1, 8] : [8])))
        #expect(try !m.fused().contains("LayerNorm"))
    }

    @Test(arguments: 0..<3) func otherWaysToWriteALayerNorm(variant: Int) throws {
        var m = Exported()
        let x = try m.input("x", [2, 3, 8])
        func centered(axis: Int) throws -> ValueID { try m.binary(.sub, x, m.node(Reduce(.mean), [x, m.integers([axis])])) }
        let (difference, again) = (try centered(axis: 2), try centered(axis: -1))
        let variance = try m.binary(.add, m.scalar(1e-6), m.node(Reduce(.mean), [m.binary(.mul, again, again), m.integers([2])]))
        let normed = switch variant {
        case 0: try m.binary(.div, difference, m.node(Binary(.pow), [variance, m.scalar(0.5)]))
        case 1: try m.binary(.mul, difference, m.binary(.div, m.scalar(1), m.unary(.sqrt, variance)))
        default: try m.binary(.mul, m.unary(.reciprocal, m.node(Binary(.pow), [variance, m.scalar(0.5)])), difference)
        }
        try m.output(m.binary(.mul, normed, m.constant([8])))
        #expect(try m.fused() == ["LayerNorm"])
    }

    /// A bias joins the norm where nothing else reads what is in front of it, and where it does not change the rank.
    @Test(arguments: [false, true]) func biasesOfANorm(isReadTwice: Bool) throws {
        var m = Exported()
        let norm = try m.node(LayerNorm(epsilon: 1e-6), [m.input("x", [3, 8]), m.constant([8])])
        if isReadTwice { try m.output(norm) }
        try m.output(m.binary(.add, norm, m.constant(isReadTwice ? [8] : [1, 1, 8])))
        #expect(try m.fused() == ["Binary", "LayerNorm"])
    }

    @Test(arguments: [(1, [8], [8]), (-1, [1], [8]), (-1, [8], [3, 8]), (-1, [3, 8], [8]), (-1, [8], [1])] as [(Int, [Int], [Int])])
    func onnxNormsOfOtherShapes(axis: Int, scale: [Int], bias: [Int]) throws {
        var m = Exported()
        try m.output(m.node(LayerNormalization(axis: axis), [m.input("x", [2, 3, 8]), m.constant(scale), m.constant(bias)]))
        #expect(try m.fused() == ["LayerNormalization"])
    }

    /// The operator has no statistics; where nothing reads them they are no hindrance.
    @Test(arguments: 0..<3) func onnxNormsWithStatistics(reader: Int) throws {
        var m = Exported()
        let x = try m.input("x", [2, 3, 8])
        let made = try m.graph.add(LayerNormalization(statistics: true), [x, m.constant([8]), m.constant([8])], name: "norm")
        try m.output(made[0])
        if reader == 1 { try m.output(made[1]) }
        if reader == 2 { try m.output(m.binary(.add, x, made[2])) }
        #expect(try m.fused().contains("LayerNorm") == (reader == 0))
    }

    // MARK: L2 normalisation

    enum AlmostL2: CaseIterable {
        case bounded, ofAnother, otherNorm, withoutItsAxis, otherAxis, productsWithAnother, productsOfAnother, meanOfSquares, squaresOfAnother, fourthPower, otherRoot
        case sumWithoutItsAxis, sumOfAnotherAxis, boundOfAnotherRank, boundBelowZero
    }

    /// Of [8, 8], so that a length without its axis still broadcasts, along the other one.
    @Test(arguments: AlmostL2.allCases) func l2Normalize(change: AlmostL2) throws {
        var m = Exported()
        let (x, y) = (try m.input("x", [8, 8]), try m.input("y", [8, 8]))
        func reduce(_ value: ValueID, _ kind: Reduce.Kind, axis: Int = -1, keeping: Bool = true) throws -> ValueID {
            try m.node(Reduce(kind, keepDimensions: keeping), [value, m.integers([axis])])
        }
        func root(_ sum: ValueID) throws -> ValueID { try m.unary(.sqrt, sum) }
        let square = try m.binary(.mul, x, x)
        let length = switch change {
        case .ofAnother: try reduce(y, .l2)
        case .otherNorm: try reduce(x, .l1)
        case .withoutItsAxis: try reduce(x, .l2, keeping: false)
        case .otherAxis: try reduce(x, .l2, axis: 0)
        case .productsWithAnother: try root(reduce(m.binary(.mul, x, y), .sum))
        case .productsOfAnother: try root(reduce(m.binary(.mul, y, x), .sum))
        case .meanOfSquares: try root(reduce(square, .mean))
        case .squaresOfAnother: try root(reduce(m.binary(.mul, y, y), .sum))
        case .fourthPower: try root(reduce(m.node(Binary(.pow), [x, m.scalar(4)]), .sum))
        case .otherRoot: try m.node(Binary(.pow), [reduce(square, .sum), m.scalar(0.4)])
        case .sumWithoutItsAxis: try root(reduce(square, .sum, keeping: false))
        case .sumOfAnotherAxis: try root(reduce(square, .sum, axis: 0))
        default: try reduce(x, .l2)
        }
        let divisor = switch change {
        case .bounded: try m.node(Clip(), [length, m.scalar(1e-12), m.scalar(0.5)])
        case .boundOfAnotherRank:
            try m.binary(.max, length, m.graph.addConstant(Constant(Tensor([Float(1e-12)], shape: [1, 1, 1]), identity: "bound"), name: "bound"))
        case .boundBelowZero: try m.node(Clip(), [length, m.scalar(-1), nil])
        default: try m.node(Clip(), [length, m.scalar(1e-12), nil])
        }
        try m.output(m.binary(.div, x, divisor))
        #expect(try !m.fused().contains("L2Normalize"))
    }

    @Test(arguments: 0..<3) func otherWaysToWriteAnL2Normalization(variant: Int) throws {
        var m = Exported()
        let x = try m.input("x", [2, 8])
        func sum(_ value: ValueID, _ kind: Reduce.Kind = .sum) throws -> ValueID { try m.node(Reduce(kind), [value, m.integers([1])]) }
        let length = switch variant {
        case 0: try m.unary(.sqrt, sum(x, .sumSquare))
        case 1: try m.node(Binary(.pow), [sum(m.binary(.mul, x, x)), m.scalar(0.5)])
        default: try m.unary(.sqrt, sum(m.node(Binary(.pow), [x, m.scalar(2)])))
        }
        try m.output(m.binary(.div, x, length))
        #expect(try m.fused() == ["L2Normalize"])
    }

    // MARK: Linear

    @Test(arguments: [(Gemm(alpha: 2), [3, 8], [4]), (Gemm(transposeA: true), [8, 3], [4]), (Gemm(beta: 2), [3, 8], [4]), (Gemm(), [3, 8], [3, 4])] as [(Gemm, [Int], [Int])])
    func gemmsThatAreNoLinear(op: Gemm, x: [Int], bias: [Int]) throws {
        var m = Exported()
        try m.output(m.node(op, [m.input("x", x), m.constant([8, 4]), m.constant(bias)]))
        #expect(try m.fused() == ["Gemm"])
    }

    @Test func productsOfOtherNumbersAreNoLinear() throws {
        var m = Exported()
        let x = try m.graph.addInput("x", ValueType(.float64, [3, 8]))
        m.inputs["x"] = try m.numbers([3, 8]).converted(to: .float64)
        let weight = Constant(try m.numbers([8, 4]).converted(to: .float64), identity: "weight")
        try m.output(m.node(MatMul(), [x, m.graph.addConstant(weight, name: "weight")]))
        try m.output(m.node(MatMul(), [m.input("row", [8]), m.constant([8, 4])]))
        #expect(try m.fused() == ["MatMul", "MatMul"])
    }

    enum AlmostBias: CaseIterable { case readTwice, traced, ofAnotherRank, oneNumber, oneForEachRow }

    /// A product that is read without its bias too, and what is added to it otherwise.
    @Test(arguments: AlmostBias.allCases) func biasesThatStay(form: AlmostBias) throws {
        var m = Exported()
        let product = try m.node(MatMul(), [m.input("x", [3, 8]), m.constant([8, 4])])
        if form == .readTwice { try m.output(product) }
        if form == .traced { m.graph.addTrace("product", product) }
        let shape = switch form {
        case .readTwice, .traced: [4]
        case .ofAnotherRank: [1, 1, 4]
        case .oneNumber: [1]
        case .oneForEachRow: [3, 1]
        }
        try m.output(m.binary(.add, product, m.constant(shape)))
        #expect(try m.fused() == ["Binary", "Linear"])
    }

    // MARK: Masks

    enum AlmostPadding: CaseIterable { case twoMinus, float64, roundedNumbers, smallNumber, anotherRank }

    @Test(arguments: AlmostPadding.allCases) func paddingMask(change: AlmostPadding) throws {
        var m = Exported()
        let type: DataType = change == .float64 ? .float64 : .float32
        func number(_ value: Float, _ shape: [Int] = []) throws -> ValueID {
            let tensor = try Tensor([value], shape: shape).converted(to: type)
            return try m.graph.addConstant(Constant(tensor, identity: "\(type) \(value) \(shape)"), name: "number")
        }
        let mask = try change == .roundedNumbers
            ? m.node(Cast(to: .int64), [m.binary(.mul, m.input("mask", [2, 3]), m.scalar(5))]) : m.mask("mask", [[1, 1, 0], [1, 0, 0]])
        let one = try number(change == .twoMinus ? 2 : 1, change == .anotherRank ? [1, 1, 1] : [])
        let kept = try m.node(Cast(to: type), [mask])
        try m.output(m.binary(.mul, m.binary(.sub, one, kept), number(change == .smallNumber ? -0.5 : -10000)))
        #expect(try !m.fused().contains("PaddingMask"))
    }

    @Test func paddingMaskOfBooleans() throws {
        var m = Exported()
        let mask = try m.graph.addInput("mask", ValueType(.bool, [2, 3]))
        m.inputs["mask"] = try Tensor([true, true, false, true, false, false], shape: [2, 3])
        try m.output(m.binary(.mul, m.binary(.sub, m.scalar(1), m.node(Cast(to: .float32), [mask])), m.scalar(-10000)))
        #expect(try m.fused() == ["PaddingMask", "Reshape"])
    }

    // MARK: Attention

    /// softmax(q · kᵀ / 2) · v over two heads of four numbers each, cut out of projections.
    private struct Attending {
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
            try m.binary(.div, m.node(MatMul(), [q, m.transpose(k, m.graph.type(of: k).rank == 4 ? [0, 1, 3, 2] : [0, 2, 1])]), m.scalar(2))
        }

        mutating func finish(_ scores: ValueID, axis: Int = -1) throws { try m.output(m.node(MatMul(), [m.node(Softmax(axis: axis), [scores]), v])) }

        /// Whether it is recognised; the numbers stay in any case.
        func isFused() throws -> Bool { try m.fused().contains("Attention") }
    }

    enum AlmostAttention: CaseIterable {
        case scaledValues, scaleOfAnotherRank, scaledByAnotherRank, quotientOfAnotherRank, otherSoftmax
        case keysOfOneHead, valuesOfOneHead, keysAndValuesOfOneHead, twoMasks, maskAndReplacement, replacementAndMask, twoReplacements
        case scaledReplacement, maskOfMoreExamples, conditionOfMoreExamples, nothingHiddenOfMoreExamples, guardOfAnother, guardOfAnotherRank
    }

    @Test(arguments: AlmostAttention.allCases) func attention(change: AlmostAttention) throws {
        let isOneExample = change == .maskOfMoreExamples || change == .conditionOfMoreExamples || change == .nothingHiddenOfMoreExamples
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
        case .scaledReplacement: try a.finish(a.m.binary(.mul, a.m.node(Where(), [hidden, a.m.scalar(-10000), scores]), a.m.scalar(1e-4)))
        case .maskOfMoreExamples: try a.finish(masked(scores))
        case .conditionOfMoreExamples: try a.finish(replaced(scores))
        case .nothingHiddenOfMoreExamples:
            let none = try a.m.graph.addConstant(Constant(Tensor([Bool](repeating: false, count: 10), shape: [2, 1, 1, 5]), identity: "none"), name: "none")
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
        case interleaved, twiceCut, headsFirst, channels, tokensAndChannels, shuffledChannels, everySecondChannel, partsOfHeads, allExamples
        case oneExample, firstTokens, lastTokens
    }

    /// Heads that do not lie side by side in the last axis of what they are cut from, one example after the other, are laid out so.
    @Test(arguments: Cut.allCases) func heads(cut: Cut) throws {
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
                try a.m.transpose(a.m.reshape(a.m.node(Gather(axis: 0), [x, a.m.integers([1], scalar: true)]), [5, 2, 4]), [1, 0, 2])
            case .firstTokens, .lastTokens:
                try a.m.transpose(a.m.reshape(part(x, cut == .firstTokens ? 0 : 1, 4, axis: 1), [2, 4, 2, 4]), [0, 2, 1, 3])
            case .channels: try a.m.transpose(x, [0, 2, 1])
            case .shuffledChannels: try a.m.reshape(a.m.transpose(a.m.reshape(x, [2, 5, 4, 2]), [0, 1, 3, 2]), [2, 5, 8])
            case .everySecondChannel: try a.m.node(Gather(axis: 3), [a.m.reshape(x, [2, 5, 4, 2]), a.m.integers([0], scalar: true)])
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
    @Test(arguments: 0..<4) func operandsWithoutHeads(form: Int) throws {
        var a = try Attending()
        switch form {
        case 0: (a.q, a.k, a.v) = (try a.m.input("q", [1, 2, 5, 4]), try a.m.input("k", [1, 2, 5, 4]), try a.m.input("v", [1, 2, 5, 4]))
        case 1: (a.q, a.k, a.v) = (try a.m.input("q", [2, 2, 5, 4]), try a.m.input("k", [2, 2, 5, 4]), try a.m.input("v", [2, 2, 5, 4]))
        case 2:
            let source = try a.m.input("source", [2, 7, 8])
            a.q = try a.m.reshape(a.m.linear(a.x, 8, 8), [2, 5, 1, 8])
            (a.k, a.v) = (try a.m.reshape(a.m.linear(source, 8, 8), [2, 1, 7, 8]), try a.m.reshape(a.m.linear(source, 8, 8), [2, 1, 7, 8]))
        default:
            let scores = try a.m.node(MatMul(), [a.m.input("tokens", [5, 4]), a.m.input("query", [4])])
            try a.m.output(a.m.node(MatMul(), [a.m.node(Softmax(axis: -1), [scores]), a.m.input("values", [5, 3])]))
        }
        if form < 3 { try a.finish(a.scores()) }
        #expect(try a.isFused() == (form < 2))
    }

    /// Parts of a packed projection, of fewer tokens.
    @Test func packedProjectionsOfFewerTokens() throws {
        var a = try Attending()
        let packed = try a.m.linear(a.x, 8, 24)
        func heads(_ index: Int) throws -> ValueID {
            let part = try a.m.node(Slice(), [packed, a.m.integers([index * 8, 1]), a.m.integers([index * 8 + 8, 5]), a.m.integers([2, 1])])
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
    @Test(arguments: MaskForm.allCases) func squareMasks(form: MaskForm) throws {
        var a = try Attending()
        let scores = try a.scores()
        func square(_ number: (Int, Int) -> Float) throws -> ValueID {
            try a.number("square", (0..<25).map { number($0 / 5, $0 % 5) }, [1, 1, 5, 5])
        }
        func condition(_ isTrue: (Int, Int) -> Bool) throws -> ValueID {
            try a.m.node(Cast(to: .bool), [square { isTrue($0, $1) ? 1 : 0 }])
        }
        let masked = switch form {
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
        try fold(&graph)
        try fuse(&graph)
        let attention = graph.nodes.lazy.compactMap { node in (node.op as? Attention).map { (op: $0, inputs: node.inputs.count) } }.first
        #expect(attention.map(\.op.causal) ?? false == (form == .causalWhere || form == .triangle))
        #expect(attention.map(\.inputs) ?? 0 == (form == .causalButSmall ? 0 : form == .even || form == .causalWhere || form == .triangle ? 3 : 4))
    }

    /// Scores of examples and heads in one axis: a mask of one row fits, and so does one that tells them apart.
    @Test(arguments: [(2, [5, 5]), (2, [1, 5, 5]), (2, [4, 5, 5]), (1, [2, 5, 5]), (1, [1, 2, 5, 5])] as [(Int, [Int])])
    func masksOfScoresWithThreeAxes(batch: Int, mask: [Int]) throws {
        var a = try Attending(batch: batch)
        func heads() throws -> ValueID { try a.m.reshape(a.heads(a.x, batch, 5), [2 * batch, 5, 4]) }
        (a.q, a.k, a.v) = (try heads(), try heads(), try heads())
        try a.finish(a.m.binary(.add, a.scores(), a.m.input("mask", mask)))
        #expect(try a.isFused() == (mask.count < 4))
    }

    @Test func masksOfScoresWithOtherNumbersOfAxes() throws {
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
    @Test func oneSourceForAllExamples() throws {
        var a = try Attending()
        let source = try a.m.input("source", [1, 7, 8])
        (a.k, a.v) = (try a.heads(source, 1, 7), try a.heads(source, 1, 7))
        try a.finish(a.scores())
        #expect(try a.isFused())
    }

    /// The heads of all examples would be taken for rows of each other.
    @Test(arguments: [false, true]) func scoresThatAreArrangedAnew(behindSoftmax: Bool) throws {
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
    @Test(arguments: [false, true], [false, true]) func examplesOfOneToken(isOpen: Bool, sharesKeys: Bool) throws {
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

    @Test(arguments: OnnxForm.allCases) func onnxAttention(form: OnnxForm) throws {
        var a = try Attending()
        if form == .rankThree {
            try a.m.output(a.m.node(OnnxAttention(queryHeads: 2, keyHeads: 2), [a.m.linear(a.x, 8, 8), a.m.linear(a.x, 8, 8), a.m.linear(a.x, 8, 8)]))
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

    // MARK: Causal masks

    enum Causal: CaseIterable {
        case triangle, triangleTimesOne, oneTimesTriangle, upper, diagonal, ownDiagonal, ofTwos, timesTwo, column, tiled, tiledForMoreExamples
        case notGreater, notLess, notEqual, greaterOrEqual, less, keysBeforeQueries, keysFromOne, queriesFromOne, otherPlaces, placesOfTwo
        case constant, otherConstant, reshaped, twoMinus, smallNumber, paddingOfQueries, float64
    }

    /// (1 - t · m) · -10000, where t is a triangle made in one way or another.
    @Test(arguments: Causal.allCases) func causalMasks(form: Causal) throws {
        var m = Exported()
        // What has sizes that are known is a constant.
        let isKnown = form == .constant || form == .otherConstant || form == .reshaped || form == .otherPlaces
        let length = isKnown ? 4 : Dimension(symbol: "length")
        let mask = try m.mask("mask", form == .tiledForMoreExamples ? [[1, 1, 1, 0]] : [[1, 1, 1, 0], [1, 1, 0, 0]], dimensions: [form == .tiledForMoreExamples ? 1 : 2, length])
        let size = try m.node(Gather(axis: 0), [m.node(Shape(), [mask]), m.integers([1])])
        func range(_ axis: Int, from start: Int = 0) throws -> ValueID {
            let count = try m.binary(.add, m.reshape(size, []), m.integers([start], scalar: true))
            let made = try m.node(Arange(), [m.integers([start], scalar: true), count, m.integers([1], scalar: true)])
            return try m.node(Unsqueeze(), [made, m.integers([axis == 0 ? 1 : 0])])
        }
        func places(_ axis: Int, _ numbers: [Int]) throws -> ValueID { try m.reshape(m.integers(numbers), axis == 0 ? [4, 1] : [1, 4]) }
        func constant(_ shape: [Int], without hidden: Int? = nil) throws -> ValueID {
            let numbers: [Float] = (0..<16).map { $0 % 4 <= $0 / 4 && $0 != hidden ? 1 : 0 }
            return try m.graph.addConstant(Constant(Tensor(numbers, shape: shape), identity: "\(numbers)"), name: "triangle")
        }
        func trilu(_ number: Float = 1, upper: Bool = false, diagonal: Int? = nil, isColumn: Bool = false) throws -> ValueID {
            let sizes = try m.node(Concat(axis: 0), [size, isColumn ? m.integers([1]) : size])
            return try m.node(Trilu(upper: upper), [m.node(ConstantOfShape(), [sizes, m.scalar(number)]), diagonal.map { try m.integers([$0], scalar: true) }])
        }
        func tiled(_ count: Int) throws -> ValueID {
            try m.node(Tile(), [m.node(Unsqueeze(), [trilu(), m.integers([0])]), m.integers([count, 1, 1])])
        }
        let triangle = switch form {
        case .triangleTimesOne: try m.binary(.mul, trilu(), m.node(ConstantOfShape(), [m.node(Concat(axis: 0), [size, size]), m.scalar(1)]))
        case .oneTimesTriangle: try m.binary(.mul, m.node(ConstantOfShape(), [m.node(Concat(axis: 0), [size, size]), m.scalar(1)]), trilu())
        case .upper: try trilu(upper: true)
        case .diagonal: try trilu(diagonal: 1)
        case .ownDiagonal: try trilu(diagonal: 0)
        case .ofTwos: try trilu(2)
        case .timesTwo: try m.binary(.mul, trilu(), m.scalar(2))
        case .column: try trilu(isColumn: true)
        case .tiled: try tiled(2)
        case .tiledForMoreExamples: try tiled(3)
        case .notGreater: try m.unary(.not, m.binary(.greater, range(1), range(0)))
        case .notLess: try m.unary(.not, m.binary(.less, range(0), range(1)))
        case .notEqual: try m.unary(.not, m.binary(.equal, range(0), range(1)))
        case .greaterOrEqual: try m.binary(.greaterOrEqual, range(0), range(1))
        case .less: try m.binary(.less, range(1), range(0))
        case .keysBeforeQueries: try m.binary(.lessOrEqual, range(0), range(1))
        case .keysFromOne: try m.binary(.lessOrEqual, range(1, from: 1), range(0))
        case .queriesFromOne: try m.binary(.lessOrEqual, range(1), range(0, from: 1))
        case .otherPlaces: try m.binary(.lessOrEqual, places(1, [0, 1, 2, 3]), places(0, [0, 1, 3, 3]))
        case .placesOfTwo: try m.node(Unsqueeze(), [m.binary(.lessOrEqual, range(1), m.binary(.add, range(0), m.reshape(m.integers([0, 1]), [2, 1, 1]))), m.integers([1])])
        case .constant: try constant([4, 4])
        case .otherConstant: try constant([4, 4], without: 8)
        case .reshaped: try m.reshape(constant([2, 8]), [4, 4])
        default: try trilu()
        }
        let type: DataType = form == .float64 ? .float64 : .float32
        let axes = try m.integers([[0, 1], [1], []][m.graph.type(of: triangle).rank - 2])
        let wide = try m.node(Cast(to: type), [m.node(Unsqueeze(), [triangle, axes])])
        let padding = try m.node(Cast(to: type), [m.node(Unsqueeze(), [mask, m.integers(form == .paddingOfQueries ? [1, 3] : [1, 2])])])
        func number(_ number: Float) throws -> ValueID {
            try m.graph.addConstant(Constant(Tensor(scalar: number).converted(to: type), identity: "\(type) \(number)"), name: "number")
        }
        let inverse = try m.binary(.sub, number(form == .twoMinus ? 2 : 1), m.binary(.mul, wide, padding))
        try m.output(m.binary(.mul, inverse, number(form == .smallNumber ? -0.5 : -10000)))
        let isCausal = switch form {
        case .triangle, .triangleTimesOne, .oneTimesTriangle, .ownDiagonal, .tiled, .notGreater, .notLess, .greaterOrEqual, .constant, .reshaped: true
        default: false
        }
        #expect(try m.fused().contains("PaddingMask") == isCausal)
    }

    enum OpenMask: CaseIterable { case product, smallProduct, twoMinus, choice, smallChoice, otherChoice, upperChoice, condition, smallCondition, upperCondition }

    /// Masks of a length that is open, made of a triangle.
    @Test(arguments: OpenMask.allCases) func openMasks(form: OpenMask) throws {
        var a = try Attending(isOpen: true)
        let size = try a.m.node(Gather(axis: 0), [a.m.node(Shape(), [a.x]), a.m.integers([1])])
        let isUpper = form == .upperChoice || form == .upperCondition
        let even = try a.m.node(ConstantOfShape(), [a.m.node(Concat(axis: 0), [size, size]), a.m.scalar(1)])
        let triangle = try a.m.node(Trilu(upper: isUpper), [even])
        let condition = try a.m.node(Cast(to: .bool), [triangle])
        func product(_ one: Float, _ factor: Float) throws -> ValueID { try a.m.binary(.mul, a.m.binary(.sub, a.m.scalar(one), triangle), a.m.scalar(factor)) }
        func choice(_ shown: Float, _ hidden: Float) throws -> ValueID { try a.m.node(Where(), [condition, a.m.scalar(shown), a.m.scalar(hidden)]) }
        let scores = try a.scores()
        let masked = switch form {
        case .product: try a.m.binary(.add, scores, product(1, -10000))
        case .smallProduct: try a.m.binary(.add, scores, product(1, -2))
        case .twoMinus: try a.m.binary(.add, scores, product(2, -10000))
        case .choice, .upperChoice: try a.m.binary(.add, scores, choice(0, -.infinity))
        case .smallChoice: try a.m.binary(.add, scores, choice(0, -2))
        case .otherChoice: try a.m.binary(.add, scores, choice(-10000, -20000))
        case .condition, .upperCondition: try a.m.node(Where(), [condition, scores, a.m.scalar(-.infinity)])
        case .smallCondition: try a.m.node(Where(), [condition, scores, a.m.scalar(-2)])
        }
        try a.finish(masked)
        #expect(try a.isFused() == (form != .smallCondition))
        var graph = a.m.graph
        try fold(&graph)
        try fuse(&graph)
        let isCausal = form == .product || form == .choice || form == .condition
        #expect(graph.nodes.contains { ($0.op as? Attention)?.causal == true } == isCausal)
    }

    // MARK: Embeddings

    enum Patches: CaseIterable {
        case plain, withoutBias, valid, grouped, padded, spread, sameSize, oneAxis, moved, flat
    }

    @Test(arguments: Patches.allCases) func patches(form: Patches) throws {
        var m = Exported()
        let kernel = form == .spread ? 2 : 4
        let window = Window(
            strides: form == .oneAxis ? [4] : [kernel, kernel], dilations: form == .spread ? [2, 2] : nil,
            pads: form == .padded ? [2, 2, 2, 2] : nil, autoPad: form == .valid ? .valid : form == .sameSize ? .sameUpper : .notSet)
        let image = try m.input("image", form == .oneAxis ? [2, 3, 8] : form == .sameSize ? [2, 3, 6, 6] : [2, 3, 8, 8])
        let weight = try m.constant(form == .oneAxis ? [6, 3, 4] : [6, form == .grouped ? 1 : 3, kernel, kernel])
        let map = try m.node(Conv(window: window, groups: form == .grouped ? 3 : 1), [image, weight] + (form == .withoutBias ? [] : [m.constant([6])]))
        let rows = try m.transpose(m.reshape(map, [2, 6, -1]), form == .moved ? [2, 0, 1] : [0, 2, 1])
        try m.output(form == .flat ? m.reshape(rows, [8, 6]) : rows)
        let isFused = form == .plain || form == .withoutBias || form == .valid
        #expect(try m.fused().contains("PatchEmbedding") == isFused)
    }

    enum Tokens: CaseIterable {
        case each, eachAnother, two, twice, behindPositions, otherAxis, readTwice, rowForAll, positionsOfAnotherRank, positionsTwice
    }

    /// Tokens in front of patches, and positions, that the operator does not have.
    @Test(arguments: Tokens.allCases) func tokens(form: Tokens) throws {
        var m = Exported()
        let size = form == .otherAxis ? 4 : 8
        // An expansion of sizes that are known is a constant.
        let image = try m.input("image", [2, 3, size, size], dimensions: [form == .two ? Dimension(symbol: "batch") : 2, 3, Dimension(size), Dimension(size)])
        let patches = try m.node(PatchEmbedding(), [image, m.constant([6, 3, 4, 4]), m.constant([6])])
        let row = try m.numbers([6]).elements(Float.self)
        func token(_ shape: [Int]) throws -> ValueID {
            let count = shape.dropLast().reduce(1, *)
            return try m.graph.addConstant(Constant(Tensor((0..<count).flatMap { _ in row }, shape: shape), identity: "token \(shape)"), name: "token")
        }
        func joined(_ first: ValueID, _ rest: ValueID, axis: Int = 1) throws -> ValueID { try m.node(Concat(axis: axis), [first, rest]) }
        if form == .readTwice { try m.output(m.unary(.exp, patches)) }
        let y = switch form {
        case .each, .readTwice: try joined(token([2, 1, 6]), patches)
        case .eachAnother: try joined(m.constant([2, 1, 6]), patches)
        case .two:
            try joined(m.node(Expand(), [token([1, 1, 6]), m.node(Concat(axis: 0), [m.node(Shape(start: 0, end: 1), [image]), m.integers([2, 6])])]), patches)
        case .twice: try joined(token([2, 1, 6]), joined(token([2, 1, 6]), patches))
        case .behindPositions: try joined(token([2, 1, 6]), m.binary(.add, patches, m.constant([1, 4, 6])))
        case .otherAxis: try joined(token([1, 1, 6]), patches, axis: 0)
        case .rowForAll: try m.binary(.add, patches, m.constant([6]))
        case .positionsOfAnotherRank: try m.binary(.add, patches, m.constant([1, 1, 4, 6]))
        case .positionsTwice: try m.binary(.add, m.constant([4, 6]), m.binary(.add, patches, m.constant([4, 6])))
        }
        try m.output(y)
        let operators = try m.fused()
        #expect(operators.count { $0 == "PatchEmbedding" } == 1 && (operators.count == 1) == (form == .each))
    }

    enum Lookup: CaseIterable {
        case oneAxis, integers, otherAxis, oneWord, readTwice, addendOfAnotherRank, threeAddends, backwards, shuffled, openShuffled, openRows, rowsOfRows, addendsOfExamples
    }

    @Test(arguments: Lookup.allCases) func lookups(form: Lookup) throws {
        var m = Exported()
        let ids = try m.mask("ids", [[3, 1, 4, 1], [5, 0, 2, 5]])
        let text = try m.input("text", [3, 6], dimensions: [Dimension(symbol: "n"), 6])
        let length = try m.node(Shape(start: 0, end: 1), [text])
        func open(_ numbers: ValueID, axis: Int) throws -> ValueID { try m.node(Slice(), [numbers, m.integers([0]), length, m.integers([axis])]) }
        func words() throws -> ValueID { try m.node(Gather(), [m.constant([6, 6]), ids]) }
        switch form {
        case .oneAxis: try m.output(m.node(Gather(), [m.constant([6]), ids]))
        case .integers:
            let table = try Tensor((0..<12).map { Int64($0 * $0) }, shape: [6, 2])
            try m.output(m.node(Gather(), [m.graph.addConstant(Constant(table, identity: "table"), name: "table"), ids]))
        case .otherAxis: try m.output(m.node(Gather(axis: 1), [m.constant([3, 6]), ids]))
        case .oneWord:
            let id = try m.graph.addInput("id", ValueType(.int64, []))
            m.inputs["id"] = try Tensor(scalar: Int64(4))
            try m.output(m.node(Gather(), [m.constant([6, 6]), id]))
        case .readTwice:
            let words = try words()
            try m.output(words)
            try m.output(m.binary(.add, words, m.constant([4, 6])))
        case .addendOfAnotherRank: try m.output(m.binary(.add, words(), m.constant([1, 1, 4, 6])))
        case .addendsOfExamples: try m.output(m.binary(.add, words(), m.constant([2, 4, 6])))
        case .threeAddends: try m.output(m.binary(.add, m.binary(.add, m.binary(.add, words(), m.constant([4, 6])), m.constant([6])), m.constant([4, 6])))
        case .backwards: try m.output(m.binary(.add, words(), m.node(Gather(), [m.constant([60, 6]), m.integers([-4, -3, -2, -1])])))
        case .shuffled: try m.output(m.binary(.add, words(), m.node(Gather(), [m.constant([60, 6]), m.integers([0, 2, 1, 3])])))
        case .openShuffled: try m.output(m.binary(.add, text, m.node(Gather(), [m.constant([60, 6]), open(m.integers([0, 2, 1, 3]), axis: 0)])))
        case .openRows: try m.output(m.node(Gather(), [m.constant([60, 6]), open(m.reshape(m.integers(Array(0..<8)), [4, 2]), axis: 0)]))
        case .rowsOfRows: try m.output(m.node(Gather(), [m.constant([60, 6]), open(m.reshape(m.integers(Array(0..<8)), [2, 4]), axis: 1)]))
        }
        let operators = try m.fused()
        let expected = switch form {
        case .oneAxis, .integers, .otherAxis, .oneWord: ["Gather"]
        case .readTwice, .addendOfAnotherRank, .threeAddends: ["Binary", "Embedding"]
        case .addendsOfExamples, .backwards, .shuffled: ["Embedding"]
        case .openShuffled: ["Binary", "Embedding", "Slice"]
        case .openRows, .rowsOfRows: ["Embedding", "Slice"]
        }
        #expect(operators == expected)
    }
}
