import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// (1 - t · m) · -10000, where t is a triangle made in one way or another, and m shows what is no padding.
private struct CausalMask: Staged {
    var m = Exported()
    var made: [AnyKeyPath: ValueID] = [:]
    /// What has sizes that are known is a constant.
    var length = Dimension(symbol: "length")
    var (one, hidden) = (Float(1), Float(-10000))
    var type = DataType.float32

    var mask: Stage = { try $0.m.mask("mask", [[1, 1, 1, 0], [1, 1, 0, 0]], dimensions: [2, $0.length]) }
    var size: Stage = { try $0.m.node(Gather(axis: 0), [$0.m.node(Shape(), [$0.make(\.mask)]), $0.m.integers([1])]) }
    var triangle: Stage = { try $0.trilu() }
    var padding: Stage = { try $0.m.node(Unsqueeze(), [$0.make(\.mask), $0.m.integers([1, 2])]) }
    var shown: Stage = {
        let triangle = try $0.make(\.triangle)
        let axes = try $0.m.integers([[0, 1], [1], []][$0.m.graph.type(of: triangle).rank - 2])
        return try $0.m.binary(.mul, $0.cast($0.m.node(Unsqueeze(), [triangle, axes])), $0.cast($0.make(\.padding)))
    }
    var addends: Stage = {
        try $0.m.binary(.mul, $0.m.binary(.sub, $0.number($0.one), $0.make(\.shown)), $0.number($0.hidden))
    }

    mutating func cast(_ value: ValueID) throws -> ValueID { try m.node(Cast(to: type), [value]) }

    mutating func number(_ number: Float) throws -> ValueID {
        let tensor = try Tensor(scalar: number).converted(to: type)
        return try m.graph.addConstant(Constant(tensor, identity: "\(type) \(number)"), name: "number")
    }

    /// As many rows as there are tokens, and as many columns unless stated, of one number.
    mutating func even(_ number: Float = 1, columns: ValueID? = nil) throws -> ValueID {
        let sizes = try [make(\.size), columns ?? make(\.size)]
        return try m.node(ConstantOfShape(), [m.node(Concat(axis: 0), sizes), m.scalar(number)])
    }

    mutating func trilu(of matrix: ValueID? = nil, upper: Bool = false, diagonal: Int? = nil) throws -> ValueID {
        try m.node(Trilu(upper: upper), [matrix ?? even(), diagonal.map { try m.integers([$0], scalar: true) }])
    }

    mutating func tiled(_ count: Int) throws -> ValueID {
        try m.node(Tile(), [m.node(Unsqueeze(), [trilu(), m.integers([0])]), m.integers([count, 1, 1])])
    }

    private mutating func places(from start: Int, axis: Int) throws -> ValueID {
        let end = try m.binary(.add, m.reshape(make(\.size), []), m.integers([start], scalar: true))
        let places = try m.node(Arange(), [m.integers([start], scalar: true), end, m.integers([1], scalar: true)])
        return try m.node(Unsqueeze(), [places, m.integers([axis])])
    }

    /// Places as a column.
    mutating func queries(from start: Int = 0) throws -> ValueID { try places(from: start, axis: 1) }

    /// Places as a row.
    mutating func keys(from start: Int = 0) throws -> ValueID { try places(from: start, axis: 0) }

    /// The triangle of four tokens as a constant.
    mutating func known(_ shape: [Int], without place: Int? = nil) throws -> ValueID {
        let numbers: [Float] = (0..<16).map { $0 % 4 <= $0 / 4 && $0 != place ? 1 : 0 }
        return try m.graph.addConstant(Constant(Tensor(numbers, shape: shape), identity: "\(numbers)"), name: "triangle")
    }
}

/// Masks that differ from those of attention in one respect stay, with their numbers.
struct MaskNearMissTests {
    enum AlmostPadding: CaseIterable { case twoMinus, float64, roundedNumbers, smallNumber, anotherRank }

    @Test(arguments: AlmostPadding.allCases) func whatIsAlmostAPaddingMaskStays(change: AlmostPadding) throws {
        var m = Exported()
        let type: DataType = change == .float64 ? .float64 : .float32
        func number(_ value: Float, _ shape: [Int] = []) throws -> ValueID {
            let tensor = try Tensor([value], shape: shape).converted(to: type)
            return try m.graph.addConstant(Constant(tensor, identity: "\(type) \(value) \(shape)"), name: "number")
        }
        let mask =
            try change == .roundedNumbers
            ? m.node(Cast(to: .int64), [m.binary(.mul, m.input("mask", [2, 3]), m.scalar(5))])
            : m.mask("mask", [[1, 1, 0], [1, 0, 0]])
        let one = try number(change == .twoMinus ? 2 : 1, change == .anotherRank ? [1, 1, 1] : [])
        let kept = try m.node(Cast(to: type), [mask])
        try m.output(m.binary(.mul, m.binary(.sub, one, kept), number(change == .smallNumber ? -0.5 : -10000)))
        #expect(try !m.fused().contains("PaddingMask"))
    }

    @Test func paddingMasksMayBeBoolean() throws {
        var m = Exported()
        let mask = try m.graph.addInput("mask", ValueType(.bool, [2, 3]))
        m.inputs["mask"] = try Tensor([true, true, false, true, false, false], shape: [2, 3])
        try m.output(m.binary(.mul, m.binary(.sub, m.scalar(1), m.node(Cast(to: .float32), [mask])), m.scalar(-10000)))
        #expect(try m.fused() == ["PaddingMask", "Reshape"])
    }

    enum Causal: CaseIterable {
        case triangle, triangleTimesOne, oneTimesTriangle, upper, diagonal, ownDiagonal, ofTwos, timesTwo, column, tiled,
            tiledForMoreExamples
        case notGreater, notLess, notEqual, greaterOrEqual, less, keysBeforeQueries, keysFromOne, queriesFromOne, otherPlaces,
            placesOfTwo
        case constant, otherConstant, reshaped, twoMinus, smallNumber, paddingOfQueries, float64

        var isCausal: Bool {
            switch self {
            case .triangle, .triangleTimesOne, .oneTimesTriangle, .ownDiagonal, .tiled, .notGreater, .notLess, .greaterOrEqual,
                .constant, .reshaped:
                true
            default: false
            }
        }

        fileprivate func replaceStages(_ s: inout CausalMask) {
            switch self {
            case .triangle: break
            case .triangleTimesOne: s.triangle = { try $0.m.binary(.mul, $0.trilu(), $0.even()) }
            case .oneTimesTriangle: s.triangle = { try $0.m.binary(.mul, $0.even(), $0.trilu()) }
            case .upper: s.triangle = { try $0.trilu(upper: true) }
            case .diagonal: s.triangle = { try $0.trilu(diagonal: 1) }
            case .ownDiagonal: s.triangle = { try $0.trilu(diagonal: 0) }
            case .ofTwos: s.triangle = { try $0.trilu(of: $0.even(2)) }
            case .timesTwo: s.triangle = { try $0.m.binary(.mul, $0.trilu(), $0.m.scalar(2)) }
            case .column: s.triangle = { try $0.trilu(of: $0.even(columns: $0.m.integers([1]))) }
            case .tiled: s.triangle = { try $0.tiled(2) }
            case .tiledForMoreExamples:
                s.triangle = { try $0.tiled(3) }
                s.mask = { try $0.m.mask("mask", [[1, 1, 1, 0]], dimensions: [1, $0.length]) }

            case .notGreater: s.triangle = { try $0.m.unary(.not, $0.m.binary(.greater, $0.keys(), $0.queries())) }
            case .notLess: s.triangle = { try $0.m.unary(.not, $0.m.binary(.less, $0.queries(), $0.keys())) }
            case .notEqual: s.triangle = { try $0.m.unary(.not, $0.m.binary(.equal, $0.queries(), $0.keys())) }
            case .greaterOrEqual: s.triangle = { try $0.m.binary(.greaterOrEqual, $0.queries(), $0.keys()) }
            case .less: s.triangle = { try $0.m.binary(.less, $0.keys(), $0.queries()) }
            case .keysBeforeQueries: s.triangle = { try $0.m.binary(.lessOrEqual, $0.queries(), $0.keys()) }
            case .keysFromOne: s.triangle = { try $0.m.binary(.lessOrEqual, $0.keys(from: 1), $0.queries()) }
            case .queriesFromOne: s.triangle = { try $0.m.binary(.lessOrEqual, $0.keys(), $0.queries(from: 1)) }
            case .otherPlaces:
                s.length = 4
                s.triangle = {
                    let keys = try $0.m.reshape($0.m.integers([0, 1, 2, 3]), [1, 4])
                    return try $0.m.binary(.lessOrEqual, keys, $0.m.reshape($0.m.integers([0, 1, 3, 3]), [4, 1]))
                }
            case .placesOfTwo:
                s.triangle = {
                    let places = try $0.m.binary(.add, $0.queries(), $0.m.reshape($0.m.integers([0, 1]), [2, 1, 1]))
                    return try $0.m.node(Unsqueeze(), [$0.m.binary(.lessOrEqual, $0.keys(), places), $0.m.integers([1])])
                }

            case .constant: (s.length, s.triangle) = (4, { try $0.known([4, 4]) })
            case .otherConstant: (s.length, s.triangle) = (4, { try $0.known([4, 4], without: 8) })
            case .reshaped: (s.length, s.triangle) = (4, { try $0.m.reshape($0.known([2, 8]), [4, 4]) })
            case .twoMinus: s.one = 2
            case .smallNumber: s.hidden = -0.5
            case .paddingOfQueries: s.padding = { try $0.m.node(Unsqueeze(), [$0.make(\.mask), $0.m.integers([1, 3])]) }
            case .float64: s.type = .float64
            }
        }
    }

    @Test(arguments: Causal.allCases) func onlyTrianglesOfAllTokensAreCausal(form: Causal) throws {
        var s = CausalMask()
        form.replaceStages(&s)
        try s.m.output(s.make(\.addends))
        #expect(try s.m.fused().contains("PaddingMask") == form.isCausal)
    }

    enum OpenMask: CaseIterable {
        case product, smallProduct, twoMinus, choice, smallChoice, otherChoice, upperChoice, condition, smallCondition,
            upperCondition
    }

    /// Masks of a length that is open, made of a triangle.
    @Test(arguments: OpenMask.allCases) func onlyTrianglesThatHideAreCausal(form: OpenMask) throws {
        var a = try Attending(isOpen: true)
        let size = try a.m.node(Gather(axis: 0), [a.m.node(Shape(), [a.x]), a.m.integers([1])])
        let isUpper = form == .upperChoice || form == .upperCondition
        let even = try a.m.node(ConstantOfShape(), [a.m.node(Concat(axis: 0), [size, size]), a.m.scalar(1)])
        let triangle = try a.m.node(Trilu(upper: isUpper), [even])
        let condition = try a.m.node(Cast(to: .bool), [triangle])
        func product(_ one: Float, _ factor: Float) throws -> ValueID {
            try a.m.binary(.mul, a.m.binary(.sub, a.m.scalar(one), triangle), a.m.scalar(factor))
        }
        func choice(_ shown: Float, _ hidden: Float) throws -> ValueID {
            try a.m.node(Where(), [condition, a.m.scalar(shown), a.m.scalar(hidden)])
        }
        let scores = try a.scores()
        let masked =
            switch form {
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
        try graph.fold()
        try graph.fuse()
        let isCausal = form == .product || form == .choice || form == .condition
        #expect(graph.nodes.contains { ($0.op as? Attention)?.causal == true } == isCausal)
    }
}
