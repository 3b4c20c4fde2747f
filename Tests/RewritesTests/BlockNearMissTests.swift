import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// What differs from a pattern in one respect stays, with its numbers: fused, it would give others.
struct BlockNearMissTests {
    // MARK: GELU

    enum AlmostGELU: CaseIterable {
        case twiceTheQuickOne, twiceTheFunction, argumentAsItIs, argumentMoved, argumentDivided, otherCubic, aSquare, aFourthPower,
            openPower, anotherShape, anotherSwish
    }

    @Test(arguments: AlmostGELU.allCases) func whatIsAlmostGELUStays(change: AlmostGELU) throws {
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
        let y =
            switch change {
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
                try erf(
                    m.binary(
                        .mul, x,
                        m.graph.addConstant(
                            Constant(Tensor([Float(0.70710678)], shape: [1, 1, 1]), identity: "root"), name: "root")))
            case .anotherSwish: try m.node(Unary(.swish, alpha: 1.7), [x])
            }
        try m.output(y)
        #expect(try !m.fused().contains("GELU"))
    }

    @Test func otherWaysToWriteAGELUAreFused() throws {
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
    @Test func productsOfManyFactorsStay() throws {
        var graph = Graph(name: "main")
        var x = try graph.addInput("x", ValueType(.float32, [3]))
        let factor = try graph.addConstant(Constant(Tensor(scalar: Float(1.0001))), name: "factor")
        for _ in 0..<3_000 { x = try graph.add(Binary(.mul), [x, factor], name: "product")[0] }
        try graph.addOutput("y", x)
        try graph.fuse()
        #expect(graph.nodes.count == 3_000)
    }

    // MARK: LayerNorm

    enum AlmostNorm: CaseIterable {
        case sumForMean, sumOfSquares, meanOfAnother, spreadOfAnother, productOfTwo, fourthPower, otherRoot, otherInverse,
            twoThroughRoot
        case meanOfAnotherAxis, meanOfBothAxes, spreadOfAnotherAxis, meanInAnotherPlace, spreadInAnotherPlace, weightOfAnotherRank
    }

    /// Of [8, 8], so that a mean without its axis still broadcasts, along the other one.
    @Test(arguments: AlmostNorm.allCases) func whatIsAlmostLayerNormStays(change: AlmostNorm) throws {
        var m = Exported()
        let (x, y) = (try m.input("x", [8, 8]), try m.input("y", [8, 8]))
        func mean(_ value: ValueID, _ kind: Reduce.Kind = .mean, axis: Int = -1, keeping: Bool = true) throws -> ValueID {
            try m.node(Reduce(kind, keepDimensions: keeping), [value, m.integers([axis])])
        }
        let center =
            switch change {
            case .sumForMean: try mean(x, .sum)
            case .meanOfAnother: try mean(y)
            case .meanOfAnotherAxis: try mean(x, axis: 0)
            case .meanInAnotherPlace: try mean(x, keeping: false)
            case .meanOfBothAxes: try m.node(Reduce(.mean), [x, m.integers([-1, 0])])
            default: try mean(x)
            }
        let centered = try m.binary(.sub, x, center)
        let square =
            switch change {
            case .spreadOfAnother: try m.node(Binary(.pow), [m.binary(.sub, y, mean(y)), m.scalar(2)])
            case .productOfTwo: try m.binary(.mul, centered, m.binary(.sub, y, mean(y)))
            case .fourthPower: try m.node(Binary(.pow), [centered, m.scalar(4)])
            default: try m.node(Binary(.pow), [centered, m.scalar(2)])
            }
        let spread =
            switch change {
            case .sumOfSquares: try mean(square, .sum)
            case .spreadOfAnotherAxis: try mean(square, axis: 0)
            case .spreadInAnotherPlace: try mean(square, keeping: false)
            default: try mean(square)
            }
        let variance = try m.binary(.add, spread, m.scalar(2))
        let normed =
            switch change {
            case .otherRoot: try m.binary(.div, centered, m.node(Binary(.pow), [variance, m.scalar(0.4)]))
            case .otherInverse: try m.binary(.mul, centered, m.node(Binary(.pow), [variance, m.scalar(-0.4)]))
            case .twoThroughRoot: try m.binary(.mul, centered, m.binary(.div, m.scalar(2), m.unary(.sqrt, variance)))
            default: try m.binary(.div, centered, m.unary(.sqrt, variance))
            }
        try m.output(m.binary(.mul, normed, m.constant(change == .weightOfAnotherRank ? [1, 1, 8] : [8])))
        #expect(try !m.fused().contains("LayerNorm"))
    }

    @Test(arguments: 0..<3) func otherWaysToWriteALayerNormAreFused(variant: Int) throws {
        var m = Exported()
        let x = try m.input("x", [2, 3, 8])
        func centered(axis: Int) throws -> ValueID { try m.binary(.sub, x, m.node(Reduce(.mean), [x, m.integers([axis])])) }
        let (difference, again) = (try centered(axis: 2), try centered(axis: -1))
        let variance = try m.binary(.add, m.scalar(1e-6), m.node(Reduce(.mean), [m.binary(.mul, again, again), m.integers([2])]))
        let normed =
            switch variant {
            case 0: try m.binary(.div, difference, m.node(Binary(.pow), [variance, m.scalar(0.5)]))
            case 1: try m.binary(.mul, difference, m.binary(.div, m.scalar(1), m.unary(.sqrt, variance)))
            default: try m.binary(.mul, m.unary(.reciprocal, m.node(Binary(.pow), [variance, m.scalar(0.5)])), difference)
            }
        try m.output(m.binary(.mul, normed, m.constant([8])))
        #expect(try m.fused() == ["LayerNorm"])
    }

    /// A bias joins the norm where nothing else reads what is in front of it, and where it does not change the rank.
    @Test(arguments: [false, true]) func biasesThatDoNotSuitANormStay(isReadTwice: Bool) throws {
        var m = Exported()
        let norm = try m.node(LayerNorm(epsilon: 1e-6), [m.input("x", [3, 8]), m.constant([8])])
        if isReadTwice { try m.output(norm) }
        try m.output(m.binary(.add, norm, m.constant(isReadTwice ? [8] : [1, 1, 8])))
        #expect(try m.fused() == ["Binary", "LayerNorm"])
    }

    @Test(
        arguments: [(1, [8], [8]), (-1, [1], [8]), (-1, [8], [3, 8]), (-1, [3, 8], [8]), (-1, [8], [1])] as [(Int, [Int], [Int])])
    func onnxNormsOfOtherShapesStay(axis: Int, scale: [Int], bias: [Int]) throws {
        var m = Exported()
        try m.output(m.node(LayerNormalization(axis: axis), [m.input("x", [2, 3, 8]), m.constant(scale), m.constant(bias)]))
        #expect(try m.fused() == ["LayerNormalization"])
    }

    /// The operator has no statistics; where nothing reads them they are no hindrance.
    @Test(arguments: 0..<3) func onnxNormsWhoseStatisticsAreReadStay(reader: Int) throws {
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
        case bounded, ofAnother, otherNorm, withoutItsAxis, otherAxis, productsWithAnother, productsOfAnother, meanOfSquares,
            squaresOfAnother, fourthPower, otherRoot
        case sumWithoutItsAxis, sumOfAnotherAxis, boundOfAnotherRank, boundBelowZero
    }

    /// Of [8, 8], so that a length without its axis still broadcasts, along the other one.
    @Test(arguments: AlmostL2.allCases) func whatIsAlmostL2NormalizationStays(change: AlmostL2) throws {
        var m = Exported()
        let (x, y) = (try m.input("x", [8, 8]), try m.input("y", [8, 8]))
        func reduce(_ value: ValueID, _ kind: Reduce.Kind, axis: Int = -1, keeping: Bool = true) throws -> ValueID {
            try m.node(Reduce(kind, keepDimensions: keeping), [value, m.integers([axis])])
        }
        func root(_ sum: ValueID) throws -> ValueID { try m.unary(.sqrt, sum) }
        let square = try m.binary(.mul, x, x)
        let length =
            switch change {
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
        let divisor =
            switch change {
            case .bounded: try m.node(Clip(), [length, m.scalar(1e-12), m.scalar(0.5)])
            case .boundOfAnotherRank:
                try m.binary(
                    .max, length,
                    m.graph.addConstant(Constant(Tensor([Float(1e-12)], shape: [1, 1, 1]), identity: "bound"), name: "bound"))
            case .boundBelowZero: try m.node(Clip(), [length, m.scalar(-1), nil])
            default: try m.node(Clip(), [length, m.scalar(1e-12), nil])
            }
        try m.output(m.binary(.div, x, divisor))
        #expect(try !m.fused().contains("L2Normalize"))
    }

    @Test(arguments: 0..<3) func otherWaysToWriteAnL2NormalizationAreFused(variant: Int) throws {
        var m = Exported()
        let x = try m.input("x", [2, 8])
        func sum(_ value: ValueID, _ kind: Reduce.Kind = .sum) throws -> ValueID {
            try m.node(Reduce(kind), [value, m.integers([1])])
        }
        let length =
            switch variant {
            case 0: try m.unary(.sqrt, sum(x, .sumSquare))
            case 1: try m.node(Binary(.pow), [sum(m.binary(.mul, x, x)), m.scalar(0.5)])
            default: try m.unary(.sqrt, sum(m.node(Binary(.pow), [x, m.scalar(2)])))
            }
        try m.output(m.binary(.div, x, length))
        #expect(try m.fused() == ["L2Normalize"])
    }

    // MARK: Linear

    @Test(
        arguments: [
            (Gemm(alpha: 2), [3, 8], [4]), (Gemm(transposeA: true), [8, 3], [4]), (Gemm(beta: 2), [3, 8], [4]),
            (Gemm(), [3, 8], [3, 4]),
        ] as [(Gemm, [Int], [Int])])
    func gemmsThatAreNoLinearStay(op: Gemm, x: [Int], bias: [Int]) throws {
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
    @Test(arguments: AlmostBias.allCases) func biasesThatDoNotSuitALinearStay(form: AlmostBias) throws {
        var m = Exported()
        let product = try m.node(MatMul(), [m.input("x", [3, 8]), m.constant([8, 4])])
        if form == .readTwice { try m.output(product) }
        if form == .traced { m.graph.addTrace("product", product) }
        let shape =
            switch form {
            case .readTwice, .traced: [4]
            case .ofAnotherRank: [1, 1, 4]
            case .oneNumber: [1]
            case .oneForEachRow: [3, 1]
            }
        try m.output(m.binary(.add, product, m.constant(shape)))
        #expect(try m.fused() == ["Binary", "Linear"])
    }
}
