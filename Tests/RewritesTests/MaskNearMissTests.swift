import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// Masks that differ from those of attention in one respect stay, with their numbers.
struct MaskNearMissTests {
    enum AlmostPadding: CaseIterable { case twoMinus, float64, roundedNumbers, smallNumber, anotherRank }

    @Test(arguments: AlmostPadding.allCases) func paddingMask(change: AlmostPadding) throws {
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

    @Test func paddingMaskOfBooleans() throws {
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
    }

    /// (1 - t · m) · -10000, where t is a triangle made in one way or another.
    @Test(arguments: Causal.allCases) func causalMasks(form: Causal) throws {
        var m = Exported()
        // What has sizes that are known is a constant.
        let isKnown = form == .constant || form == .otherConstant || form == .reshaped || form == .otherPlaces
        let length = isKnown ? 4 : Dimension(symbol: "length")
        let mask = try m.mask(
            "mask", form == .tiledForMoreExamples ? [[1, 1, 1, 0]] : [[1, 1, 1, 0], [1, 1, 0, 0]],
            dimensions: [form == .tiledForMoreExamples ? 1 : 2, length])
        let size = try m.node(Gather(axis: 0), [m.node(Shape(), [mask]), m.integers([1])])
        func range(_ axis: Int, from start: Int = 0) throws -> ValueID {
            let count = try m.binary(.add, m.reshape(size, []), m.integers([start], scalar: true))
            let made = try m.node(Arange(), [m.integers([start], scalar: true), count, m.integers([1], scalar: true)])
            return try m.node(Unsqueeze(), [made, m.integers([axis == 0 ? 1 : 0])])
        }
        func places(_ axis: Int, _ numbers: [Int]) throws -> ValueID {
            try m.reshape(m.integers(numbers), axis == 0 ? [4, 1] : [1, 4])
        }
        func constant(_ shape: [Int], without hidden: Int? = nil) throws -> ValueID {
            let numbers: [Float] = (0..<16).map { $0 % 4 <= $0 / 4 && $0 != hidden ? 1 : 0 }
            return try m.graph.addConstant(Constant(Tensor(numbers, shape: shape), identity: "\(numbers)"), name: "triangle")
        }
        func trilu(_ number: Float = 1, upper: Bool = false, diagonal: Int? = nil, isColumn: Bool = false) throws -> ValueID {
            let sizes = try m.node(Concat(axis: 0), [size, isColumn ? m.integers([1]) : size])
            return try m.node(
                Trilu(upper: upper),
                [m.node(ConstantOfShape(), [sizes, m.scalar(number)]), diagonal.map { try m.integers([$0], scalar: true) }])
        }
        func tiled(_ count: Int) throws -> ValueID {
            try m.node(Tile(), [m.node(Unsqueeze(), [trilu(), m.integers([0])]), m.integers([count, 1, 1])])
        }
        let triangle =
            switch form {
            case .triangleTimesOne:
                try m.binary(.mul, trilu(), m.node(ConstantOfShape(), [m.node(Concat(axis: 0), [size, size]), m.scalar(1)]))
            case .oneTimesTriangle:
                try m.binary(.mul, m.node(ConstantOfShape(), [m.node(Concat(axis: 0), [size, size]), m.scalar(1)]), trilu())
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
            case .placesOfTwo:
                try m.node(
                    Unsqueeze(),
                    [
                        m.binary(.lessOrEqual, range(1), m.binary(.add, range(0), m.reshape(m.integers([0, 1]), [2, 1, 1]))),
                        m.integers([1]),
                    ])
            case .constant: try constant([4, 4])
            case .otherConstant: try constant([4, 4], without: 8)
            case .reshaped: try m.reshape(constant([2, 8]), [4, 4])
            default: try trilu()
            }
        let type: DataType = form == .float64 ? .float64 : .float32
        let axes = try m.integers([[0, 1], [1], []][m.graph.type(of: triangle).rank - 2])
        let wide = try m.node(Cast(to: type), [m.node(Unsqueeze(), [triangle, axes])])
        let padding = try m.node(
            Cast(to: type), [m.node(Unsqueeze(), [mask, m.integers(form == .paddingOfQueries ? [1, 3] : [1, 2])])])
        func number(_ number: Float) throws -> ValueID {
            try m.graph.addConstant(
                Constant(Tensor(scalar: number).converted(to: type), identity: "\(type) \(number)"), name: "number")
        }
        let inverse = try m.binary(.sub, number(form == .twoMinus ? 2 : 1), m.binary(.mul, wide, padding))
        try m.output(m.binary(.mul, inverse, number(form == .smallNumber ? -0.5 : -10000)))
        let isCausal =
            switch form {
            case .triangle, .triangleTimesOne, .oneTimesTriangle, .ownDiagonal, .tiled, .notGreater, .notLess, .greaterOrEqual,
                .constant, .reshaped:
                true
            default: false
            }
        #expect(try m.fused().contains("PaddingMask") == isCausal)
    }

    enum OpenMask: CaseIterable {
        case product, smallProduct, twoMinus, choice, smallChoice, otherChoice, upperChoice, condition, smallCondition,
            upperCondition
    }

    /// Masks of a length that is open, made of a triangle.
    @Test(arguments: OpenMask.allCases) func openMasks(form: OpenMask) throws {
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
