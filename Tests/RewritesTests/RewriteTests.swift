import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// Builds small graphs of primitives, as exporters write them, with numbers that do not repeat.
struct Exported {
    var graph = Graph(name: "main")
    var inputs: [String: Tensor] = [:]
    private var seed: UInt64 = 42

    mutating func numbers(_ shape: [Int], scale: Double = 1) throws -> Tensor {
        let values = try (0..<elementCount(of: shape)).map { _ -> Float in
            seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Float((Double(seed >> 40) / Double(1 << 24) - 0.5) * 2 * scale)
        }
        return try Tensor(values, shape: shape)
    }

    mutating func input(_ name: String, _ shape: [Int], dimensions: [Dimension]? = nil) throws -> ValueID {
        inputs[name] = try numbers(shape)
        return try graph.addInput(name, ValueType(.float32, dimensions ?? shape.map { Dimension($0) }))
    }

    mutating func mask(_ name: String, _ rows: [[Int64]], dimensions: [Dimension]? = nil) throws -> ValueID {
        let shape = [rows.count, rows.first?.count ?? 0]
        inputs[name] = try Tensor(rows.flatMap { $0 }, shape: shape)
        return try graph.addInput(name, ValueType(.int64, dimensions ?? shape.map { Dimension($0) }))
    }

    mutating func constant(_ shape: [Int], scale: Double = 0.5) throws -> ValueID {
        let tensor = try numbers(shape, scale: scale)
        return try graph.addConstant(Constant(tensor, identity: "constant \(seed)"), name: "constant")
    }

    mutating func scalar(_ number: Float) throws -> ValueID {
        try graph.addConstant(Constant(Tensor(scalar: number), identity: "float \(number)"), name: "scalar")
    }

    mutating func integers(_ numbers: [Int], scalar: Bool = false) throws -> ValueID {
        let tensor = try Tensor(numbers.map { Int64($0) }, shape: scalar ? [] : [numbers.count])
        return try graph.addConstant(Constant(tensor, identity: "integers \(numbers) \(scalar)"), name: "integers")
    }

    mutating func node(_ op: any Operator, _ inputs: [ValueID?]) throws -> ValueID {
        try graph.add(op, inputs, name: "\(type(of: op))")[0]
    }

    mutating func binary(_ kind: Binary.Kind, _ a: ValueID, _ b: ValueID) throws -> ValueID { try node(Binary(kind), [a, b]) }
    mutating func unary(_ kind: Unary.Kind, _ x: ValueID) throws -> ValueID { try node(Unary(kind), [x]) }
    mutating func reshape(_ x: ValueID, _ shape: [Int]) throws -> ValueID { try node(Reshape(), [x, integers(shape)]) }
    mutating func transpose(_ x: ValueID, _ permutation: [Int]) throws -> ValueID { try node(Transpose(permutation: permutation), [x]) }

    /// start, start + 1, … up to the size of an axis of `x`, of rank 1
    mutating func places(_ x: ValueID, axis: Int, from start: Int = 0) throws -> ValueID {
        let size = try node(Gather(axis: 0), [node(Shape(), [x]), integers([axis], scalar: true)])
        let limit = try start == 0 ? size : binary(.add, size, integers([start], scalar: true))
        return try node(Arange(), [integers([start], scalar: true), limit, integers([1], scalar: true)])
    }

    /// x · W + b
    mutating func linear(_ x: ValueID, _ from: Int, _ to: Int) throws -> ValueID {
        try binary(.add, constant([to]), node(MatMul(), [x, constant([from, to])]))
    }

    mutating func output(_ value: ValueID) throws { try graph.addOutput("y\(graph.outputs.count)", value) }

    /// The operators that fold and fuse leave, sorted; the numbers must have stayed.
    func fused(tolerance: Double = 1e-5) throws -> [String] {
        let before = try outputs(graph, inputs, folding: false)
        var graph = graph
        try fold(&graph)
        try fuse(&graph, validating: true)
        let after = try outputs(graph, inputs)
        for (name, expected) in before {
            let beyond = try excess(after[name], expected, tolerance, tolerance)
            #expect(beyond <= 0, "\(name) by \(beyond)")
        }
        return graph.nodes.map { "\(type(of: $0.op))" }.sorted()
    }
}

struct RewriteTests {
    // MARK: Folding

    @Test func shapeArithmeticDisappears() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8], dimensions: [Dimension(symbol: "batch"), Dimension(symbol: "length"), 8])
        let shape = try m.node(Shape(), [x])
        let batch = try m.node(Gather(axis: 0), [shape, m.integers([0])])
        let length = try m.node(Gather(axis: 0), [shape, m.integers([1])])
        let product = try m.binary(.mul, batch, length)
        let target = try m.node(Concat(axis: 0), [product, m.integers([2, 4])])
        try m.output(m.node(Reshape(), [x, target]))
        #expect(try m.fused() == ["Reshape"])
    }

    @Test func expandsToItsOwnShapeDisappear() throws {
        var m = Exported()
        let x = try m.input("x", [2, 3], dimensions: [Dimension(symbol: "batch"), 3])
        let sizes = try m.integers([-1, 3])
        let ones = try m.node(ConstantOfShape(), [m.integers([2]), m.integers([1])])
        let open = try m.binary(.equal, sizes, m.binary(.mul, ones, m.integers([-1], scalar: true)))
        let target = try m.node(Where(), [open, ones, sizes])
        try m.output(m.node(Expand(), [x, target]))
        #expect(try m.fused() == [])
    }

    @Test func whatIsTheSameEverywhereIsKnown() throws {
        var m = Exported()
        let x = try m.input("x", [2, 3], dimensions: [Dimension(symbol: "batch"), 3])
        let ones = try m.node(ConstantOfShape(), [m.node(Shape(), [x]), m.integers([1])])
        let zeros = try m.binary(.sub, m.scalar(1), m.node(Cast(to: .float32), [ones]))
        try m.output(m.binary(.add, x, m.binary(.mul, zeros, m.scalar(-10000))))
        #expect(try m.fused() == [])
    }

    /// A choice is known where its condition is, though not where it is one of several.
    @Test(arguments: [0, 1]) func whatIsTheSameEverywhereIsChosen(condition: Int) throws {
        var m = Exported()
        let x = try m.input("x", [2, 3], dimensions: [Dimension(symbol: "batch"), 3])
        let same = try m.node(Cast(to: .bool), [m.node(ConstantOfShape(), [m.node(Shape(), [x]), m.integers([condition])])])
        try m.output(m.binary(.add, x, m.node(Where(), [same, m.scalar(0), m.scalar(-5)])))
        #expect(try m.fused() == (condition == 1 ? [] : ["Binary"]))
        try m.output(m.node(Where(), [same, m.scalar(0), m.constant([3])]))
        #expect(try m.fused().contains("Where") == (condition == 0))
    }

    /// A bound that is absent does not let the other take its place.
    @Test func whatIsTheSameEverywhereIsClipped() throws {
        var m = Exported()
        let x = try m.input("x", [2, 3], dimensions: [Dimension(symbol: "batch"), 3])
        let fives = try m.node(ConstantOfShape(), [m.node(Shape(), [x]), m.scalar(5)])
        try m.output(m.binary(.mul, x, m.node(Clip(), [fives, nil, m.scalar(3)])))
        try m.output(m.binary(.mul, x, m.node(Clip(), [fives, m.scalar(7)])))
        #expect(try m.fused() == ["Binary", "Binary"])
    }

    /// Each sum of a weight and itself takes twice the computations of the one before.
    @Test func derivationsOfWeightsStaySmall() throws {
        var m = Exported()
        let x = try m.input("x", [300, 300])
        var weight = try m.constant([300, 300])
        for _ in 0..<40 { weight = try m.binary(.add, weight, weight) }
        try m.output(m.binary(.add, x, weight))
        var graph = m.graph
        try fold(&graph)
        let largest = graph.nodes.flatMap(\.inputs).compactMap { $0.flatMap(graph.constant(of:))?.identity.utf8.count }.max() ?? 0
        #expect(largest < 1 << 16)
        #expect(graph.nodes.count > 30)
    }

    /// Where a slice begins or ends depends on what the symbols are: it counts from the end, or may lie beyond it.
    @Test(arguments: [(-100, 2), (-5, .max), (100, .max), (.max, -2), (0, 100), (-3, -1), (nil, .max)] as [(Int?, Int)])
    func slicesBySymbolsKeepTheirNumbers(start: Int?, end: Int) throws {
        var m = Exported()
        let (x, text) = (try m.input("x", [2, 4, 4], dimensions: [2, Dimension(symbol: "m"), 4]), try m.input("text", [3, 4], dimensions: [Dimension(symbol: "n"), 4]))
        // nil: -n
        let first = try start.map { try m.integers([$0]) } ?? m.unary(.neg, m.node(Shape(start: 0, end: 1), [text]))
        let part = try m.node(Slice(), [x, first, m.integers([end]), m.integers([1]), m.integers([1])])
        try m.output(m.unary(.exp, part))
        #expect(try m.fused() == ["Slice", "Unary"])
    }

    /// Parts whose sizes only the operator tells, once the input's size is known.
    @Test func splitsOfSymbolsStay() throws {
        var m = Exported()
        let x = try m.input("x", [5, 4], dimensions: [Dimension(symbol: "n"), 4])
        for part in try m.graph.add(Split(outputs: 2), [x], name: "split") { try m.output(m.unary(.exp, part)) }
        #expect(try m.fused() == ["Split", "Unary", "Unary"])
    }

    /// A slice could not tell that there are three rows.
    @Test func partsOfStatedSizesKeepThem() throws {
        var m = Exported()
        let x = try m.input("x", [4, 2], dimensions: [Dimension(symbol: "n"), 2])
        for part in try m.graph.add(Split(outputs: 2), [x, m.integers([3, 1])], name: "split") { try m.output(m.node(Flatten(axis: 0), [part])) }
        #expect(try m.fused() == ["Reshape", "Split"])
    }

    @Test func weightsStayWhereTheyAre() throws {
        var m = Exported()
        let x = try m.input("x", [2, 300])
        let weight = Constant.derived("unread", from: [], .float32, [300, 300]) { _ in
            throw TripsError.data("a weight was read while folding")
        }
        let value = try m.graph.addConstant(weight, name: "weight")
        let turned = try m.node(Transpose(permutation: [1, 0]), [value])
        let halves = try m.node(Slice(), [turned, m.integers([0]), m.integers([150]), m.integers([1])])
        try m.output(m.node(MatMul(), [x, halves]))
        var graph = m.graph
        try fold(&graph)
        try fuse(&graph)
        #expect(graph.nodes.map { "\(type(of: $0.op))" } == ["Linear"])
    }

    @Test func sixteenBitsComputeInFloat32() throws {
        var m = Exported()
        let x = try m.graph.addInput("x", ValueType(.float16, [2, 8]))
        m.inputs["x"] = try m.numbers([2, 8]).converted(to: .float16)
        let weight = Constant(try m.numbers([8, 4]).converted(to: .float16), identity: "half")
        try m.output(m.node(MatMul(), [x, m.graph.addConstant(weight, name: "weight")]))
        // The unfused graph rounds each product to 11 bits.
        #expect(try m.fused(tolerance: 2e-3) == ["Cast", "Cast", "Linear"])
    }

    @Test func whatAddsNothingButAShapeIsAnExpand() throws {
        var m = Exported()
        let image = try m.input("image", [2, 3, 8, 8], dimensions: [Dimension(symbol: "batch"), 3, 8, 8])
        let window = Window(strides: [4, 4], dilations: [1, 1], pads: [0, 0, 0, 0])
        let map = try m.node(Conv(window: window), [image, m.constant([6, 3, 4, 4]), m.constant([6])])
        let rows = try m.transpose(m.node(Reshape(), [map, m.integers([0, 6, -1])]), [0, 2, 1])
        let batch = try m.node(Gather(axis: 0), [m.node(Shape(), [image]), m.integers([0])])
        let zeros = try m.node(ConstantOfShape(), [m.node(Concat(axis: 0), [batch, m.integers([1, 6])]), m.scalar(0)])
        let token = try m.binary(.add, m.constant([6]), zeros)
        try m.output(m.binary(.add, m.node(Concat(axis: 1), [token, rows]), m.constant([1, 5, 6])))
        #expect(try m.fused() == ["PatchEmbedding"])
    }

    /// The patches of a picture of open size are counted by the exporter, and follow from the convolution.
    @Test(arguments: [[8, 12], [11, 14]]) func patchesOfAnOpenPicture(sizes: [Int]) throws {
        var m = Exported()
        let dimensions = [Dimension(symbol: "batch"), 3, Dimension(symbol: "height"), Dimension(symbol: "width")]
        let image = try m.input("image", [2, 3] + sizes, dimensions: dimensions)
        let map = try m.node(Conv(window: Window(strides: [4, 4])), [image, m.constant([8, 3, 4, 4]), m.constant([8])])
        let shape = try m.node(Shape(), [image])
        func size(_ axis: Int) throws -> ValueID { try m.node(Gather(axis: 0), [shape, m.integers([axis])]) }
        let (batch, down, across) = (try size(0), try m.binary(.div, size(2), m.integers([4])), try m.binary(.div, size(3), m.integers([4])))
        let count = try m.binary(.mul, down, across)
        let rows = try m.transpose(m.node(Reshape(), [map, m.node(Concat(axis: 0), [batch, m.integers([8]), count])]), [0, 2, 1])
        let split = try m.node(Concat(axis: 0), [batch, count, m.integers([-1, 4])])
        func heads() throws -> ValueID { try m.transpose(m.node(Reshape(), [m.linear(rows, 8, 8), split]), [0, 2, 1, 3]) }
        let (q, k, v) = (try heads(), try heads(), try heads())
        let scores = try m.binary(.mul, m.node(MatMul(), [q, m.transpose(k, [0, 1, 3, 2])]), m.scalar(0.5))
        let mixed = try m.transpose(m.node(MatMul(), [m.node(Softmax(axis: -1), [scores]), v]), [0, 2, 1, 3])
        let joined = try m.node(Reshape(), [mixed, m.node(Concat(axis: 0), [batch, count, m.integers([8])])])
        try m.output(m.binary(.add, rows, m.linear(joined, 8, 8)))
        #expect(try m.fused() == ["Attention", "Binary", "Linear", "Linear", "Linear", "Linear", "PatchEmbedding"])
    }

    // MARK: Views

    @Test func viewsThatCancelDisappear() throws {
        var m = Exported()
        let x = try m.input("x", [2, 6, 8])
        let heads = try m.transpose(m.reshape(x, [2, 6, 2, 4]), [0, 2, 1, 3])
        try m.output(m.reshape(m.transpose(heads, [0, 2, 1, 3]), [2, 6, 8]))
        #expect(try m.fused() == [])
    }

    @Test func aRowIsAGather() throws {
        var m = Exported()
        let x = try m.input("x", [2, 6, 8])
        let slice = try m.node(Slice(), [x, m.integers([2]), m.integers([3]), m.integers([1])])
        try m.output(m.node(Squeeze(), [slice, m.integers([1])]))
        #expect(try m.fused() == ["Gather"])
    }

    /// Adding the size once for each that is missing would take long, and end at a row that nobody asked for.
    @Test(arguments: [-8, .min, 5]) func aRowBeyondTheAxisStaysOne(index: Int) throws {
        var m = Exported()
        try m.output(m.node(Gather(axis: 1), [m.input("x", [2, 5, 3]), m.integers([index], scalar: true)]))
        try fold(&m.graph)
        try fuse(&m.graph, validating: true)
        #expect { try outputs(m.graph, m.inputs) } throws: { "\($0)".contains("found \(index)") }
    }

    @Test func transposesMoveBehindRowwiseOperatorsAndCancel() throws {
        var m = Exported()
        let x = try m.input("x", [2, 6, 8])
        let turned = try m.transpose(x, [1, 0, 2])
        let sum = try m.binary(.add, turned, m.linear(turned, 8, 8))
        try m.output(m.transpose(sum, [1, 0, 2]))
        #expect(try m.fused() == ["Binary", "Linear"])
    }

    @Test func rowsFlattenedInAnotherOrderMoveBehindLinear() throws {
        var m = Exported()
        let batch = Dimension(symbol: "batch")
        let x = try m.input("x", [2, 6, 8], dimensions: [batch, 6, 8])
        // As torch's MultiheadAttention writes it: heads apart, tokens first, all rows in one axis.
        let turned = try m.transpose(m.node(Reshape(), [x, m.integers([0, 0, 2, 4])]), [1, 0, 2, 3])
        let flat = try m.linear(m.node(Reshape(), [turned, m.integers([-1, 8])]), 8, 8)
        try m.output(m.transpose(m.node(Reshape(), [flat, m.integers([6, -1, 8])]), [1, 0, 2]))
        #expect(try m.fused() == ["Linear"])
    }

    @Test func anAxisOfOneElementIsNotMistakenForAnother() throws {
        var m = Exported()
        let x = try m.input("x", [3, 6, 1, 1])
        try m.output(m.linear(m.transpose(x, [1, 3, 0, 2]), 1, 8))
        #expect(try m.fused().contains("Linear"))
    }

    @Test func duplicatesAreComputedOnce() throws {
        var m = Exported()
        let x = try m.input("x", [2, 8])
        try m.output(m.binary(.add, m.unary(.exp, x), m.unary(.exp, x)))
        #expect(try m.fused() == ["Binary", "Unary"])
    }

    /// The same operands in other places make something else of a weight.
    @Test func boundsBelowAndAboveAreNoDuplicates() throws {
        var m = Exported()
        let (x, weight, bound) = (try m.input("x", [2, 300]), try m.constant([300, 300]), try m.scalar(-0.25))
        for bounds in [[bound], [nil, bound]] { try m.output(m.node(MatMul(), [x, m.node(Clip(), [weight] + bounds)])) }
        #expect(try m.fused() == ["Linear", "Linear"])
    }

    // MARK: Blocks

    @Test(arguments: 0..<6) func gelu(variant: Int) throws {
        var m = Exported()
        let x = try m.input("x", [3, 8])
        func gate(_ function: ValueID) throws -> ValueID { try m.binary(.add, function, m.scalar(1)) }
        func cubic() throws -> ValueID {
            let cube = variant == 3 ? try m.node(Binary(.pow), [x, m.scalar(3)]) : try m.binary(.mul, x, m.binary(.mul, x, x))
            let sum = try m.binary(.add, x, m.binary(.mul, cube, m.scalar(0.044715)))
            return try m.unary(.tanh, m.binary(.mul, sum, m.scalar(0.7978845608)))
        }
        let y = switch variant {
        case 0: try m.binary(.mul, m.binary(.mul, x, gate(m.unary(.erf, m.binary(.div, x, m.scalar(1.4142135))))), m.scalar(0.5))
        case 1: try m.binary(.mul, x, m.binary(.mul, m.scalar(0.5), gate(m.unary(.erf, m.binary(.mul, x, m.scalar(0.70710678))))))
        case 2: try m.binary(.mul, m.binary(.mul, m.scalar(0.5), x), gate(m.unary(.erf, m.binary(.div, x, m.scalar(1.4142135)))))
        case 3, 4: try m.binary(.mul, m.binary(.mul, x, m.scalar(0.5)), gate(cubic()))
        default: try m.binary(.mul, x, m.unary(.sigmoid, m.binary(.mul, x, m.scalar(1.702))))
        }
        try m.output(y)
        #expect(try m.fused() == ["GELU"])
    }

    @Test func almostGELUStays() throws {
        var m = Exported()
        let x = try m.input("x", [3, 8])
        try m.output(m.binary(.mul, x, m.unary(.sigmoid, m.binary(.mul, x, m.scalar(1.7)))))
        #expect(try !m.fused().contains("GELU"))
    }

    @Test(arguments: 0..<4) func layerNorm(variant: Int) throws {
        var m = Exported()
        let x = try m.input("x", [2, 3, 8])
        func mean(_ value: ValueID) throws -> ValueID { try m.node(Reduce(.mean), [value, m.integers([-1])]) }
        let centered = try m.binary(.sub, x, mean(x))
        let square = variant == 0 ? try m.binary(.mul, centered, centered) : try m.node(Binary(.pow), [centered, m.scalar(2)])
        let variance = try m.binary(.add, mean(square), m.scalar(1e-6))
        let normed = switch variant {
        case 2: try m.binary(.mul, centered, m.unary(.reciprocal, m.unary(.sqrt, variance)))
        case 3: try m.binary(.mul, centered, m.node(Binary(.pow), [variance, m.scalar(-0.5)]))
        default: try m.binary(.div, centered, m.unary(.sqrt, variance))
        }
        try m.output(m.binary(.add, m.binary(.mul, m.constant([8]), normed), m.constant([8])))
        #expect(try m.fused() == ["LayerNorm"])
    }

    @Test func gemmIsLinear() throws {
        for transposed in [false, true] {
            var m = Exported()
            let x = try m.input("x", [3, 8])
            try m.output(m.node(Gemm(transposeB: transposed), [x, m.constant(transposed ? [4, 8] : [8, 4]), m.constant([1, 4])]))
            #expect(try m.fused() == ["Linear"])
        }
    }

    @Test func linearOverFlattenedRowsKeepsItsShape() throws {
        var m = Exported()
        let x = try m.input("x", [2, 3, 8])
        let flat = try m.node(Gemm(), [m.reshape(x, [6, 8]), m.constant([8, 4]), m.constant([4])])
        try m.output(m.reshape(flat, [2, 3, 4]))
        #expect(try m.fused() == ["Linear"])
    }

    @Test(arguments: 0..<3) func l2Normalize(variant: Int) throws {
        var m = Exported()
        let x = try m.input("x", [2, 8])
        let length = variant == 1
            ? try m.unary(.sqrt, m.node(Reduce(.sum), [m.binary(.mul, x, x), m.integers([1])])) : try m.node(Reduce(.l2), [x, m.integers([-1])])
        let bounded = variant == 2 ? try m.binary(.max, length, m.scalar(1e-12)) : try m.node(Clip(), [length, m.scalar(1e-12), nil])
        try m.output(m.binary(.div, x, m.node(Expand(), [bounded, m.node(Shape(), [x])])))
        #expect(try m.fused() == ["L2Normalize"])
    }

    @Test(arguments: 0..<3) func paddingMask(variant: Int) throws {
        var m = Exported()
        let mask = try m.mask("mask", [[1, 1, 0], [1, 0, 0]])
        func wide(_ x: ValueID) throws -> ValueID { try m.node(Unsqueeze(), [x, m.integers([1, 2])]) }
        func cast(_ x: ValueID) throws -> ValueID { try m.node(Cast(to: .float32), [x]) }
        func addends(_ x: ValueID) throws -> ValueID { try m.binary(.mul, m.binary(.sub, m.scalar(1), x), m.scalar(-10000)) }
        let made = switch variant {
        case 0: try addends(cast(wide(mask)))
        case 1: try addends(wide(cast(mask)))
        default: try wide(addends(cast(mask)))
        }
        try m.output(made)
        #expect(try m.fused() == ["PaddingMask"])
    }

    @Test func aTriangleTimesAMaskIsCausal() throws {
        var m = Exported()
        let length = Dimension(symbol: "length")
        let mask = try m.mask("mask", [[1, 1, 1, 0], [1, 1, 0, 0]], dimensions: [Dimension(symbol: "batch"), length])
        let count = try m.node(Gather(axis: 0), [m.node(Shape(), [mask]), m.integers([1], scalar: true)])
        let places = try m.node(Arange(), [m.integers([0], scalar: true), count, m.integers([1], scalar: true)])
        let lower = try m.binary(.lessOrEqual, m.node(Unsqueeze(), [places, m.integers([0])]), m.node(Unsqueeze(), [places, m.integers([1])]))
        let triangle = try m.node(Unsqueeze(), [m.node(Cast(to: .float32), [lower]), m.integers([0, 1])])
        let padding = try m.node(Cast(to: .float32), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
        try m.output(m.binary(.mul, m.binary(.sub, m.scalar(1), m.binary(.mul, triangle, padding)), m.scalar(-10000)))
        #expect(try m.fused() == ["PaddingMask"])
    }

    // MARK: Attention

    /// softmax(q · kᵀ) · v over heads [B, H, L, d], and back to [B, L, D].
    /// - Parameter guard: what weights that are NaN (inverted: that are not) are replaced by.
    private func attend(
        _ m: inout Exported, _ q: ValueID, _ k: ValueID, _ v: ValueID, guard: (number: Float, inverted: Bool)? = nil,
        length: Int = 5, scores: (inout Exported, ValueID) throws -> ValueID
    ) throws -> ValueID {
        let turned = try m.transpose(k, [0, 1, 3, 2])
        var weights = try m.node(Softmax(axis: -1), [scores(&m, m.node(MatMul(), [q, turned]))])
        if let (number, inverted) = `guard` {
            let (isNaN, replaced) = (try m.unary(.isNaN, weights), try m.scalar(number))
            weights = try m.node(Where(), inverted ? [isNaN, weights, replaced] : [isNaN, replaced, weights])
        }
        return try m.reshape(m.transpose(m.node(MatMul(), [weights, v]), [0, 2, 1, 3]), [2, length, 8])
    }

    private func heads(_ m: inout Exported, _ x: ValueID, _ length: Int = 5) throws -> ValueID {
        try m.transpose(m.reshape(m.linear(x, 8, 8), [2, length, 2, 4]), [0, 2, 1, 3])
    }

    enum Scoring: CaseIterable {
        case divided, scaledBefore, scaledOnBoth, evenMask, additiveMask, hiddenByWhere, unscaled, causalConstant
    }

    @Test(arguments: Scoring.allCases) func separateProjections(scoring: Scoring) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        var (q, k) = (try heads(&m, x), try heads(&m, x))
        let v = try heads(&m, x)
        if scoring == .scaledBefore { q = try m.binary(.mul, q, m.scalar(0.5)) }
        if scoring == .scaledOnBoth {
            q = try m.binary(.mul, q, m.scalar(0.70710678))
            k = try m.binary(.mul, m.scalar(0.70710678), k)
        }
        let mask = scoring == .additiveMask || scoring == .hiddenByWhere ? try m.mask("mask", [[1, 1, 1, 0, 1], [1, 0, 1, 1, 1]]) : nil
        let y = try attend(&m, q, k, v) { m, scores in
            switch scoring {
            case .scaledBefore, .scaledOnBoth, .unscaled: return scores
            case .divided: return try m.binary(.div, scores, m.scalar(2))
            case .evenMask:
                let zeros = try m.graph.addConstant(Constant(Tensor(Array(repeating: Float(-0.0), count: 5), shape: [1, 1, 1, 5]), identity: "zeros"), name: "zeros")
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
                let mask = try m.graph.addConstant(Constant(Tensor(addends, shape: [1, 1, 5, 5]), identity: "causal"), name: "causal")
                return try m.binary(.add, m.binary(.mul, scores, m.scalar(0.5)), mask)
            }
        }
        try m.output(y)
        let expected = switch scoring {
        case .additiveMask: ["Attention", "Linear", "Linear", "Linear", "PaddingMask"]
        case .hiddenByWhere: ["Attention", "Cast", "Linear", "Linear", "Linear", "Reshape", "Where"]
        default: ["Attention", "Linear", "Linear", "Linear"]
        }
        #expect(try m.fused() == expected)
    }

    /// PyTorch's exporters write a Boolean mask so: addends, and weights of 0 for queries whose keys are all masked.
    @Test(arguments: [-Float.infinity, -.greatestFiniteMagnitude], [false, true])
    func booleanMask(hidden: Float, guarded: Bool) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]])
        let (q, k, v) = (try heads(&m, x), try heads(&m, x), try heads(&m, x))
        let shown = try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
        let addends = try m.node(Where(), [shown, m.scalar(0), m.scalar(hidden)])
        try m.output(attend(&m, q, k, v, guard: guarded ? (0, false) : nil) { m, scores in
            try m.binary(.add, m.binary(.div, scores, m.scalar(2)), addends)
        })
        #expect(try m.fused() == ["Attention", "Cast", "Linear", "Linear", "Linear", "Reshape", "Where"])
    }

    @Test func weightsThatAreNoneForNoneAreNotNeededWithoutAMask() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let (q, k, v) = (try heads(&m, x), try heads(&m, x), try heads(&m, x))
        try m.output(attend(&m, q, k, v, guard: (0, false)) { m, scores in try m.binary(.div, scores, m.scalar(2)) })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
        var graph = m.graph
        try fuse(&graph)
        #expect(graph.nodes.contains { ($0.op as? Attention)?.fullyMasked == nil && $0.op is Attention })
    }

    /// Another number than 0, or the weights where they are NaN.
    @Test(arguments: [(1, false), (0, true)] as [(Float, Bool)]) func weightsThatAreReplacedOtherwiseStay(number: Float, inverted: Bool) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]])
        let (q, k, v) = (try heads(&m, x), try heads(&m, x), try heads(&m, x))
        let shown = try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
        try m.output(attend(&m, q, k, v, guard: (number, inverted)) { m, scores in
            try m.node(Where(), [shown, m.binary(.div, scores, m.scalar(2)), m.scalar(-.infinity)])
        })
        #expect(try !m.fused().contains("Attention"))
    }

    /// Hugging Face's BERT writes its padding mask out for each query; it hides no later keys all the same.
    @Test func aMaskWrittenOutForEachQueryIsOneRow() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [1, 0, 1, 1, 1]])
        let (q, k, v) = (try heads(&m, x), try heads(&m, x), try heads(&m, x))
        let wide = try m.node(Expand(), [m.node(Unsqueeze(), [mask, m.integers([1, 2])]), m.integers([2, 1, 5, 5])])
        let hidden = try m.binary(.sub, m.scalar(1), m.node(Cast(to: .float32), [wide]))
        let addends = try m.node(Where(), [m.node(Cast(to: .bool), [hidden]), m.scalar(-3e38), hidden])
        try m.output(attend(&m, q, k, v) { m, scores in try m.binary(.add, m.binary(.div, scores, m.scalar(2)), addends) })
        let operators = try m.fused()
        #expect(operators.contains("Attention") && !operators.contains("Expand"))
    }

    /// Hugging Face's encoders ask of each query whether its place is 0 or more, and of each key whether it is no padding.
    @Test(arguments: [false, true]) func aMaskOfQueriesThatAllCountIsOneRow(open: Bool) throws {
        var m = Exported()
        let length = open ? Dimension(symbol: "length") : 5
        let x = try m.input("x", [2, 5, 8], dimensions: [2, length, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]], dimensions: [2, length])
        let size = try m.node(Gather(axis: 0), [m.node(Shape(), [x]), m.integers([1], scalar: true)])
        let places = try m.node(Arange(), [m.integers([0], scalar: true), size, m.integers([1], scalar: true)])
        let counts = try m.node(Unsqueeze(), [m.binary(.greaterOrEqual, places, m.integers([0], scalar: true)), m.integers([0, 1, 3])])
        let shown = try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
        let addends = try m.node(Where(), [m.binary(.and, counts, shown), m.scalar(0), m.scalar(-.infinity)])
        func heads(_ m: inout Exported) throws -> ValueID {
            try m.transpose(m.reshape(m.linear(x, 8, 8), [2, -1, 2, 4]), [0, 2, 1, 3])
        }
        let (q, k, v) = (try heads(&m), try heads(&m), try heads(&m))
        try m.output(attend(&m, q, k, v, guard: (0, false), length: -1) { m, scores in
            try m.binary(.add, m.binary(.div, scores, m.scalar(2)), addends)
        })
        #expect(try m.fused() == ["Attention", "Cast", "Linear", "Linear", "Linear", "Reshape", "Where"])
    }

    /// Hugging Face picks as many token types as there are tokens, by their places, from a row of zeros.
    @Test func elementsPickedFromZerosAreZeros() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5], dimensions: [2, Dimension(symbol: "length")])
        let size = try m.node(Gather(axis: 0), [m.node(Shape(), [x]), m.integers([1])])
        let places = try m.node(Slice(), [m.node(Unsqueeze(), [m.integers(Array(0..<9)), m.integers([0])]), m.integers([0]), size, m.integers([1])])
        let zeros = try m.node(Unsqueeze(), [m.integers(Array(repeating: 0, count: 9)), m.integers([0])])
        let picked = try m.node(GatherElements(axis: 1), [zeros, places])
        try m.output(m.binary(.add, x, m.node(Cast(to: .float32), [picked])))
        #expect(try m.fused() == [])
        // Numbers that only a double takes for the same one.
        let near = try m.node(Unsqueeze(), [m.integers((0..<9).map { $0 + 1 << 53 }), m.integers([0])])
        try m.output(m.node(GatherElements(axis: 1), [near, places]))
        #expect(try m.fused().contains("GatherElements"))
    }

    /// A mask of ones for an image's tokens, of a batch that is open.
    @Test(arguments: [1, 0]) func oneChoiceEverywhereIsKnown(condition: Int) throws {
        var m = Exported()
        let mask = try m.mask("mask", [[1, 1, 0], [1, 0, 1]], dimensions: [Dimension(symbol: "batch"), 3])
        let same = try m.node(Cast(to: .bool), [m.node(ConstantOfShape(), [m.node(Shape(), [mask]), m.integers([condition])])])
        let choice = try m.node(Where(), condition == 1 ? [same, m.scalar(0), m.scalar(-.infinity)] : [same, m.scalar(-.infinity), m.scalar(0)])
        try m.output(m.binary(.add, m.node(Cast(to: .float32), [mask]), choice))
        #expect(try m.fused() == ["Cast"])
    }

    /// Hugging Face writes masks as rules over places; a rule that holds everywhere leaves the padding.
    @Test func aRuleThatHoldsEverywhereIsNone() throws {
        for isStated in [true, false] {
            var m = Exported()
            let length = Dimension(symbol: "length")
            let mask = try m.mask("mask", [[1, 1, 0, 1], [1, 0, 1, 1]], dimensions: isStated ? [2, 4] : [Dimension(symbol: "batch"), length])
            let rule: ValueID
            if isStated {
                let truths = try Tensor([UInt8](repeating: 1, count: 4), shape: [1, 1, 4, 1]).converted(to: .bool)
                rule = try m.graph.addConstant(Constant(truths, identity: "truths"), name: "truths")
            } else {
                let count = try m.node(Gather(axis: 0), [m.node(Shape(), [mask]), m.integers([1], scalar: true)])
                let places = try m.node(Arange(), [m.integers([0], scalar: true), count, m.integers([1], scalar: true)])
                rule = try m.binary(.greaterOrEqual, m.node(Unsqueeze(), [places, m.integers([0, 1, 3])]), m.integers([0], scalar: true))
            }
            let shown = try m.binary(.and, rule, m.node(Unsqueeze(), [m.node(Cast(to: .bool), [mask]), m.integers([1, 2])]))
            try m.output(m.node(Where(), [shown, m.scalar(0), m.scalar(-1e30)]))
            #expect(try m.fused() == ["Cast", "Expand", "Reshape", "Where"])
        }
    }

    @Test func aRuleThatFailsSomewhereStays() throws {
        var m = Exported()
        let mask = try m.mask("mask", [[1, 1, 0, 1]])
        let places = try m.node(Arange(), [m.integers([0], scalar: true), m.integers([4], scalar: true), m.integers([1], scalar: true)])
        let rule = try m.binary(.greaterOrEqual, places, m.integers([1], scalar: true))
        try m.output(m.node(Cast(to: .float32), [m.binary(.and, rule, m.node(Cast(to: .bool), [mask]))]))
        #expect(try m.fused().contains("Binary"))
    }

    /// Hugging Face's masks read the padding at the places of the example and the key: by their sum from flattened rows, as
    /// TorchScript's exporter writes it, or by pairs of them.
    @Test(arguments: [false, true], [false, true]) func paddingThatIsReadInOrder(pairs: Bool, open: Bool) throws {
        var m = Exported()
        let mask = try m.mask(
            "mask", [[1, 1, 0, 1], [1, 0, 1, 1]], dimensions: open ? [Dimension(symbol: "batch"), Dimension(symbol: "length")] : nil)
        let example = try m.node(Unsqueeze(), [m.places(mask, axis: 0), m.integers([1, 2, 3])])
        let key = try m.node(Unsqueeze(), [m.places(mask, axis: 1), m.integers([0, 1, 2])])
        let read: ValueID
        if pairs {
            let shape = try m.node(Concat(axis: 0), [
                m.node(Shape(start: 0, end: 1), [mask]), m.integers([1, 1]), m.node(Shape(start: 1, end: 2), [mask]),
            ])
            let parts = try [example, key].map { try m.node(Unsqueeze(), [m.node(Expand(), [$0, shape]), m.integers([-1])]) }
            read = try m.node(GatherND(), [mask, m.node(Concat(axis: -1), parts)])
        } else {
            let length = try m.node(Gather(axis: 0), [m.node(Shape(), [mask]), m.integers([1], scalar: true)])
            let place = try m.binary(.add, m.binary(.mul, example, length), key)
            read = try m.node(Gather(axis: 0), [m.reshape(mask, [-1]), place])
        }
        try m.output(m.node(Cast(to: .float32), [read]))
        #expect(try m.fused() == ["Cast", "Reshape"])
    }

    /// One for each query as well, whose place does not tell.
    @Test func paddingThatIsReadInOrderForEachQuery() throws {
        var m = Exported()
        let (mask, x) = (try m.mask("mask", [[1, 1, 0, 1], [1, 0, 1, 1]]), try m.input("x", [2, 3, 4]))
        let places = try m.graph.addConstant(
            Constant(Tensor((0..<24).map { Int64($0 / 12 * 4 + $0 % 4) }, shape: [2, 3, 4]), identity: "places"), name: "places")
        try m.output(m.binary(.mul, x, m.node(Cast(to: .float32), [m.node(Gather(axis: 0), [m.reshape(mask, [8]), places])])))
        #expect(try m.fused() == ["Binary", "Cast", "Reshape"])
    }

    /// Backwards, by columns, without the first, and fewer than all.
    @Test(arguments: [[3, 2, 1, 0], [0, 2, 1, 3], [1, 2, 3, 3], [0, 1], [0, 0, 1, 1]]) func rowsInAnotherOrderStay(rows: [Int]) throws {
        var m = Exported()
        let x = try m.input("x", [4, 2])
        try m.output(m.node(Gather(axis: 0), [x, m.integers(rows)]))
        #expect(try m.fused() == ["Gather"])
    }

    @Test func aMaskThatIsScaledToo() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.input("addends", [2, 1, 1, 5])
        let (q, k, v) = (try heads(&m, x), try heads(&m, x), try heads(&m, x))
        try m.output(attend(&m, q, k, v) { m, scores in try m.binary(.mul, m.binary(.add, scores, mask), m.scalar(0.5)) })
        #expect(try !m.fused().contains("Attention"))
    }

    /// Attention whose hidden scores are replaced by a number: of a text, and of one all of whose keys are hidden.
    private func replacing(by number: Float) throws -> Exported {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]])
        let (q, k, v) = (try heads(&m, x), try heads(&m, x), try heads(&m, x))
        try m.output(attend(&m, q, k, v) { m, scores in
            let shown = try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
            return try m.node(Where(), [shown, m.binary(.mul, scores, m.scalar(0.5)), m.scalar(number)])
        })
        return m
    }

    @Test(arguments: [-10_000, -1e9] as [Float]) func scoresReplacedByALargeNumber(number: Float) throws {
        #expect(try replacing(by: number).fused() == ["Attention", "Cast", "Linear", "Linear", "Linear", "Reshape", "Where"])
    }

    @Test func scoresReplacedByASmallNumberStay() throws {
        #expect(try !replacing(by: -100).fused().contains("Attention"))
    }

    /// A mask of ones for an image's tokens.
    @Test func scoresOfWhichNoneIsReplaced() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let (q, k, v) = (try heads(&m, x), try heads(&m, x), try heads(&m, x))
        let none = try m.graph.addConstant(Constant(Tensor([Bool](repeating: false, count: 10), shape: [2, 1, 1, 5]), identity: "none"), name: "none")
        try m.output(attend(&m, q, k, v) { m, scores in
            try m.node(Where(), [none, m.scalar(-.infinity), m.binary(.mul, scores, m.scalar(0.5))])
        })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    /// Heads that are never moved before the others.
    @Test func attentionByEinsum() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let parts = try (0..<3).map { _ in try m.reshape(m.linear(x, 8, 8), [2, 5, 2, 4]) }
        let scores = try m.binary(.div, m.node(Einsum(equation: "bihd,bjhd->bhij"), [parts[0], parts[1]]), m.scalar(2))
        let sums = try m.node(Einsum(equation: "bhij, bjhd -> bihd"), [m.node(Softmax(axis: -1), [scores]), parts[2]])
        try m.output(m.reshape(sums, [2, 5, 8]))
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    @Test(arguments: [("ij,jk->ki", [3, 4], [4, 5]), ("bij,bjk->bik", [2, 3, 4], [2, 4, 5]), ("...ij,...kj->...ik", [2, 3, 4], [2, 5, 4]), ("abc,bad->dbc", [2, 3, 4], [3, 2, 5])])
    func einsumsThatAreProductsOfMatrices(equation: String, left: [Int], right: [Int]) throws {
        var m = Exported()
        try m.output(m.node(Einsum(equation: equation), [m.input("a", left), m.input("b", right)]))
        let operators = try m.fused()
        #expect(operators.contains("MatMul") && !operators.contains("Einsum"))
    }

    /// Sums over no axis or two, diagonals, axes that one operand alone sums or has besides, and one of size 1 beside a longer one.
    @Test(arguments: [("ij,ij->ij", [3, 4], [3, 4]), ("ij,ij->i", [3, 4], [3, 4]), ("iij,jk->ik", [3, 3, 4], [4, 5]), ("ijl,jk->ik", [3, 4, 2], [4, 5]), ("bij,bij->b", [2, 3, 4], [2, 3, 4]), ("ij,jkk->ik", [3, 4], [4, 5, 5]), ("ij,jkl->ikl", [3, 4], [4, 5, 2]), ("ij,jk->i", [3, 4], [4, 5]), ("ij,jk->ik", [2, 1], [3, 4])])
    func otherEinsumsStay(equation: String, left: [Int], right: [Int]) throws {
        var m = Exported()
        try m.output(m.node(Einsum(equation: equation), [m.input("a", left), m.input("b", right)]))
        #expect(try m.fused() == ["Einsum"])
    }

    @Test func packedByGather() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let packed = try m.transpose(m.reshape(m.linear(x, 8, 24), [2, 5, 3, 2, 4]), [2, 0, 3, 1, 4])
        let parts = try (0..<3).map { try m.node(Gather(axis: 0), [packed, m.integers([$0], scalar: true)]) }
        try m.output(attend(&m, parts[0], parts[1], parts[2]) { m, scores in try m.binary(.mul, scores, m.scalar(0.5)) })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    @Test func packedBySplit() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let packed = try m.linear(x, 8, 24)
        let parts = try m.graph.add(Split(axis: 2, outputs: 3), [packed, m.integers([8, 8, 8])], name: "split")
        let cut = try parts.map { try m.transpose(m.reshape($0, [2, 5, 2, 4]), [0, 2, 1, 3]) }
        try m.output(attend(&m, cut[0], cut[1], cut[2]) { m, scores in try m.binary(.mul, scores, m.scalar(0.5)) })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    /// onnxsim makes a Gemm over flattened rows of a product and a sum.
    @Test func packedOverFlattenedRows() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let flat = try m.node(Gemm(), [m.reshape(x, [10, 8]), m.constant([8, 24]), m.constant([24])])
        let packed = try m.transpose(m.reshape(m.transpose(m.reshape(flat, [2, 5, 24]), [1, 0, 2]), [5, 2, 3, 2, 4]), [2, 1, 3, 0, 4])
        let parts = try (0..<3).map { try m.node(Gather(axis: 0), [packed, m.integers([$0], scalar: true)]) }
        try m.output(attend(&m, parts[0], parts[1], parts[2]) { m, scores in try m.binary(.mul, scores, m.scalar(0.5)) })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    @Test func tokensFirstWithBatchAndHeadsTogether() throws {
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

    @Test func onnxAttention() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let (q, k, v) = (try heads(&m, x), try heads(&m, x), try heads(&m, x))
        let made = try m.node(OnnxAttention(causal: true), [q, k, v])
        try m.output(m.reshape(m.transpose(made, [0, 2, 1, 3]), [2, 5, 8]))
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    /// ONNX's operator gives 0 to a query whose keys are all masked, whether by a Boolean or by -∞.
    @Test(arguments: [false, true]) func onnxAttentionWithAMask(boolean: Bool) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]])
        let (q, k, v) = (try heads(&m, x), try heads(&m, x), try heads(&m, x))
        let shown = try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
        let given = try boolean ? shown : m.node(Where(), [shown, m.scalar(0), m.scalar(-.infinity)])
        try m.output(m.reshape(m.transpose(m.node(OnnxAttention(), [q, k, v, given]), [0, 2, 1, 3]), [2, 5, 8]))
        #expect(try m.fused() == ["Attention", "Cast", "Linear", "Linear", "Linear", "Reshape", "Where"])
    }

    /// Such as a picture's, all of whose patches count.
    @Test(arguments: [false, true]) func aMaskThatShowsAllGoesAway(onnx: Bool) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let (q, k, v) = (try heads(&m, x), try heads(&m, x), try heads(&m, x))
        let shown = try m.node(Cast(to: .bool), [m.node(ConstantOfShape(), [m.integers([2, 1, 1, 5]), m.integers([1])])])
        if onnx {
            try m.output(m.reshape(m.transpose(m.node(OnnxAttention(), [q, k, v, shown]), [0, 2, 1, 3]), [2, 5, 8]))
        } else {
            try m.output(attend(&m, q, k, v) { m, scores in
                try m.binary(.add, m.binary(.div, scores, m.scalar(2)), m.node(Where(), [shown, m.scalar(0), m.scalar(-.infinity)]))
            })
        }
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
    @Test(arguments: [2, 1], [5, 1]) func headsThatAreNoViewsOfProjections(batch: Int, queries: Int) throws {
        var m = Exported()
        let (x, y) = (try m.input("x", [batch, queries, 8]), try m.input("y", [batch, 5, 8]))
        func turned(_ m: inout Exported, _ x: ValueID, _ length: Int) throws -> ValueID {
            let heads = try m.transpose(m.reshape(m.linear(x, 8, 8), [batch, length, 2, 4]), [0, 2, 1, 3])
            return try m.binary(.mul, heads, m.constant([1, 1, length, 4]))
        }
        let q = try m.node(LayerNorm(epsilon: 1e-6), [m.reshape(m.linear(x, 8, 8), [batch, queries, 2, 4]), m.constant([4]), m.constant([4])])
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
    @Test(arguments: [false, true]) func queriesThatAreKnown(masked: Bool) throws {
        var m = Exported()
        let x = try m.input("x", [5, 2, 8])
        let addends = try m.reshape(m.node(Expand(), [m.reshape(m.input("addends", [2, 5]), [2, 1, 1, 5]), m.integers([2, 2, 1, 5])]), [4, 1, 5])
        func cut(_ m: inout Exported) throws -> ValueID { try m.transpose(m.reshape(m.linear(x, 8, 8), [5, 4, 4]), [1, 0, 2]) }
        let (k, v) = (try cut(&m), try cut(&m))
        var scores = try m.node(MatMul(), [m.constant([4, 1, 4]), m.transpose(k, [0, 2, 1])])
        if masked { scores = try m.binary(.add, scores, addends) }
        try m.output(m.reshape(m.transpose(m.node(MatMul(), [m.node(Softmax(), [scores]), v]), [1, 0, 2]), [1, 2, 8]))
        let operators = try m.fused()
        #expect(operators.contains("Attention") && !operators.contains("Softmax"))
    }

    enum Addends: CaseIterable { case positions, positionsAndHidden, hiddenThenPositions }

    /// A term for the distance of places beside the padding's; positions behind hidden scores would show those.
    @Test(arguments: Addends.allCases) func severalTermsOfAMask(kind: Addends) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]])
        let (q, k, v) = (try heads(&m, x), try heads(&m, x), try heads(&m, x))
        let (positions, shown) = (try m.constant([1, 2, 5, 5]), try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])]))
        try m.output(attend(&m, q, k, v) { m, scores in
            let scores = try m.binary(.div, scores, m.scalar(2))
            switch kind {
            case .positions:
                let addends = try m.node(Where(), [shown, m.scalar(0), m.scalar(-.greatestFiniteMagnitude)])
                return try m.binary(.add, m.binary(.add, scores, positions), addends)
            case .positionsAndHidden: return try m.node(Where(), [shown, m.binary(.add, positions, scores), m.scalar(-1e9)])
            case .hiddenThenPositions: return try m.binary(.add, m.node(Where(), [shown, scores, m.scalar(-1e9)]), positions)
            }
        })
        #expect(try m.fused().contains("Attention") == (kind != .hiddenThenPositions))
    }

    @Test func crossAttention() throws {
        var m = Exported()
        let (x, source) = (try m.input("x", [2, 5, 8]), try m.input("source", [2, 7, 8]))
        let (q, k, v) = (try heads(&m, x), try heads(&m, source, 7), try heads(&m, source, 7))
        try m.output(attend(&m, q, k, v) { m, scores in try m.binary(.div, scores, m.scalar(2)) })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    // MARK: Embeddings

    /// Rows from the table's end, up to a number that has a symbol.
    @Test func rowsThatCountFromTheEndStay() throws {
        var m = Exported()
        let text = try m.input("text", [3, 4], dimensions: [Dimension(symbol: "n"), 4])
        let length = try m.node(Shape(start: 0, end: 1), [text])
        let places = try m.reshape(m.integers([-3, -2, -1]), [1, 3])
        let first = try m.node(Slice(), [places, m.integers([0]), length, m.integers([1])])
        try m.output(m.binary(.add, text, m.node(Gather(), [m.constant([6, 4]), first])))
        #expect(try m.fused() == ["Binary", "Embedding", "Slice"])
    }

    @Test func patches() throws {
        var m = Exported()
        let image = try m.input("image", [2, 3, 8, 8])
        let window = Window(strides: [4, 4], dilations: [1, 1], pads: [0, 0, 0, 0])
        let map = try m.node(Conv(window: window), [image, m.constant([6, 3, 4, 4]), m.constant([6])])
        let rows = try m.transpose(m.reshape(map, [2, 6, -1]), [0, 2, 1])
        let token = try m.node(Expand(), [m.constant([1, 1, 6]), m.integers([2, 1, 6])])
        try m.output(m.binary(.add, m.node(Concat(axis: 1), [token, rows]), m.constant([1, 5, 6])))
        #expect(try m.fused() == ["PatchEmbedding"])
    }

    /// As einops cuts patches: their elements in any order.
    @Test(arguments: [[0, 2, 4, 3, 5, 1], [0, 2, 4, 1, 3, 5], [0, 2, 4, 5, 1, 3]]) func patchesOfReshapes(order: [Int]) throws {
        var m = Exported()
        let image = try m.input("image", [2, 3, 8, 6])
        let cut = try m.transpose(m.reshape(image, [2, 3, 2, 4, 3, 2]), order)
        let tokens = try m.linear(m.reshape(cut, [2, 6, 24]), 24, 6)
        let token = try m.node(Tile(), [m.constant([1, 1, 6]), m.integers([2, 1, 1])])
        try m.output(m.binary(.add, m.node(Concat(axis: 1), [token, tokens]), m.constant([1, 7, 6])))
        #expect(try m.fused() == ["PatchEmbedding"])
    }

    /// Columns before rows, or parts of patches.
    @Test(arguments: [[0, 4, 2, 3, 5, 1], [0, 2, 5, 3, 4, 1]]) func otherPartsOfAnImageStay(order: [Int]) throws {
        var m = Exported()
        let image = try m.input("image", [2, 3, 8, 8])
        let cut = try m.transpose(m.reshape(image, [2, 3, 2, 4, 2, 4]), order)
        try m.output(m.linear(m.reshape(cut, [2, -1, 48]), 48, 6))
        #expect(try !m.fused().contains("PatchEmbedding"))
    }

    /// How many patches a picture has whose height no shape rule tells is counted from the convolution that the patch embedding
    /// takes the place of: it stays until the picture's size is known, for nothing else tells.
    @Test func patchesOfAnOpenPictureAreCounted() throws {
        var m = Exported()
        let whole = try m.input("image", [2, 3, 15, 12], dimensions: [2, 3, Dimension(symbol: "height"), Dimension(symbol: "width")])
        let everyOther = [try m.integers([0]), try m.integers([.max]), try m.integers([2]), try m.integers([2])]
        let image = try m.node(Slice(), [whole] + everyOther)
        let map = try m.node(Conv(window: Window(strides: [4, 4])), [image, m.constant([8, 3, 4, 4]), m.constant([8])])
        let patches = try m.transpose(m.reshape(map, [2, 8, -1]), [0, 2, 1])
        let sizes = try m.node(Shape(start: 2, end: 4), [map])
        let count = try m.node(Reduce(.prod, keepDimensions: false), [sizes, m.integers([0])])
        let places = try m.node(Arange(), [m.integers([0], scalar: true), count, m.integers([1], scalar: true)])
        try m.output(m.binary(.add, patches, m.node(Unsqueeze(), [m.node(Cast(to: .float32), [places]), m.integers([0, 2])])))
        let operators = try m.fused()
        #expect(operators.contains("PatchEmbedding") && operators.contains("Conv"))
    }

    @Test func convolutionsThatOverlapStay() throws {
        var m = Exported()
        let image = try m.input("image", [2, 3, 8, 8])
        let map = try m.node(Conv(window: Window(strides: [2, 2])), [image, m.constant([6, 3, 4, 4]), m.constant([6])])
        try m.output(m.transpose(m.reshape(map, [2, 6, -1]), [0, 2, 1]))
        #expect(try m.fused().contains("Conv"))
    }

    @Test func wordsTypesAndPositions() throws {
        var m = Exported()
        let ids = try m.mask("ids", [[3, 1, 4, 1], [5, 9, 2, 6]], dimensions: [Dimension(symbol: "batch"), Dimension(symbol: "length")])
        let shape = try m.node(Shape(), [ids])
        let words = try m.node(Gather(axis: 0), [m.constant([10, 6]), ids])
        let none = try m.node(ConstantOfShape(), [shape, m.integers([0])])
        let types = try m.node(Gather(axis: 0), [m.constant([2, 6]), none])
        let length = try m.node(Gather(axis: 0), [shape, m.integers([1])])
        let table = try Tensor((0..<8).map { Int64($0) }, shape: [1, 8])
        let places = try m.graph.addConstant(Constant(table, identity: "places"), name: "places")
        let used = try m.node(Slice(), [places, m.integers([0]), length, m.integers([1])])
        let positions = try m.node(Gather(axis: 0), [m.constant([8, 6]), used])
        try m.output(m.binary(.add, m.binary(.add, words, types), positions))
        #expect(try m.fused() == ["Embedding", "Slice"])
    }

    /// Positions that are counted as the model runs, for all examples alike; OPT's start at 2.
    @Test(arguments: [0, 2], [false, true]) func positionsThatAreCounted(start: Int, forEach: Bool) throws {
        var m = Exported()
        let ids = try m.mask("ids", [[3, 1, 4, 1], [5, 9, 2, 6]], dimensions: [Dimension(symbol: "batch"), Dimension(symbol: "length")])
        var places = try m.node(Unsqueeze(), [m.places(ids, axis: 1, from: start), m.integers([0])])
        if forEach { places = try m.node(Expand(), [places, m.node(Shape(), [ids])]) }
        let words = try m.node(Gather(axis: 0), [m.constant([10, 6]), ids])
        try m.output(m.binary(.add, words, m.node(Gather(axis: 0), [m.constant([8, 6]), places])))
        #expect(try m.fused() == ["Embedding", "Slice"])
    }

    /// A table of one row would serve all where it is cut, and refuses where it is looked up.
    @Test func positionsOfOneRowStay() throws {
        var m = Exported()
        let x = try m.input("x", [1, 6], dimensions: [Dimension(symbol: "length"), 6])
        try m.output(m.binary(.add, x, m.node(Gather(axis: 0), [m.constant([1, 6]), m.places(x, axis: 0)])))
        #expect(try !m.fused().contains("Slice"))
    }

    /// Hugging Face's BERT reads its token types, all of them 0, from a table of 0, at places that a RoBERTa computes.
    @Test func typesThatAreReadFromZeros() throws {
        var m = Exported()
        let ids = try m.mask("ids", [[3, 1, 4, 1], [5, 9, 2, 6]], dimensions: [Dimension(symbol: "batch"), Dimension(symbol: "length")])
        let zeros = try m.graph.addConstant(Constant(Tensor([Int64](repeating: 0, count: 24), shape: [2, 12]), identity: "zeros"), name: "zeros")
        let types = try m.node(Gather(axis: 0), [m.constant([2, 6]), m.node(GatherElements(axis: 1), [zeros, ids])])
        try m.output(m.binary(.add, m.node(Gather(axis: 0), [m.constant([10, 6]), ids]), types))
        #expect(try m.fused() == ["Embedding"])
    }

    // MARK: Towers

    private func norm(_ m: inout Exported, _ x: ValueID) throws -> ValueID {
        try m.node(LayerNorm(epsilon: 1e-6), [x, m.constant([8]), m.constant([8])])
    }

    private func attention(_ m: inout Exported, _ x: ValueID) throws -> ValueID {
        let attended = try attend(&m, heads(&m, x), heads(&m, x), heads(&m, x)) { m, scores in try m.binary(.div, scores, m.scalar(2)) }
        return try m.linear(attended, 8, 8)
    }

    enum Activation: CaseIterable { case relu, silu, swiglu }

    private func feedForward(_ m: inout Exported, _ x: ValueID, _ activation: Activation = .relu) throws -> ValueID {
        let hidden = try m.linear(x, 8, activation == .swiglu ? 24 : 12)
        switch activation {
        case .relu: return try m.linear(m.unary(.relu, hidden), 12, 8)
        case .silu: return try m.linear(m.binary(.mul, hidden, m.unary(.sigmoid, hidden)), 12, 8)
        case .swiglu:
            let halves = try m.graph.add(Split(axis: -1, outputs: 2), [hidden, m.integers([12, 12])], name: "halves")
            return try m.linear(m.binary(.mul, m.binary(.mul, halves[0], m.unary(.sigmoid, halves[0])), halves[1]), 12, 8)
        }
    }

    /// A layer over words whose positions are looked up as they are.
    private func text(_ m: inout Exported, _ ids: ValueID) throws -> ValueID {
        let places = try m.mask("places of \(m.graph.name(of: ids))", [[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]])
        let words = try m.node(Gather(axis: 0), [m.constant([10, 8]), ids])
        return try layer(&m, norm(&m, m.binary(.add, words, m.node(Gather(axis: 0), [m.constant([10, 8]), places]))))
    }

    private func layer(_ m: inout Exported, _ x: ValueID) throws -> ValueID {
        let y = try norm(&m, m.binary(.add, attention(&m, x), x))
        return try norm(&m, m.binary(.add, feedForward(&m, y), y))
    }

    /// A layer over a class token and four patches.
    private func vision(_ m: inout Exported, _ activation: Activation = .relu, of name: String = "image") throws -> ValueID {
        let image = try m.input(name, [2, 3, 8, 8])
        let map = try m.node(Conv(window: Window(strides: [4, 4])), [image, m.constant([8, 3, 4, 4]), m.constant([8])])
        let patches = try m.transpose(m.reshape(map, [2, 8, 4]), [0, 2, 1])
        let token = try m.node(Expand(), [m.constant([1, 1, 8]), m.integers([2, 1, 8])])
        let x = try m.node(Concat(axis: 1), [token, patches])
        let y = try m.binary(.add, x, attention(&m, norm(&m, x)))
        return try m.binary(.add, y, feedForward(&m, norm(&m, y), activation))
    }

    /// The names of the states between layers of the towers that are recognised.
    private func layers(_ m: inout Exported) throws -> [String] {
        try fold(&m.graph)
        try fuse(&m.graph, validating: true)
        try m.graph.nameIntermediates()
        return m.graph.traces.map(\.name)
    }

    @Test(arguments: Activation.allCases) func layersWithGatesAreATower(activation: Activation) throws {
        var m = Exported()
        try m.output(vision(&m, activation))
        #expect(try layers(&m) == ["vision.0", "vision.1"])
    }

    @Test func sumsOfEmbeddingsEnterATextTower() throws {
        var m = Exported()
        try m.output(text(&m, m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]])))
        #expect(try layers(&m) == ["text.0", "text.1"])
    }

    /// MPNet's layers add a term for the distance of places to each head's scores, which does not make them a decoder's.
    @Test(arguments: [false, true]) func layersWithTermsForDistances(causal: Bool) throws {
        var m = Exported()
        let ids = try m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]])
        let x = try norm(&m, m.binary(.add, m.node(Gather(axis: 0), [m.constant([10, 8]), ids]), m.constant([5, 8])))
        let triangle = (0..<25).map { Float($0 % 5 <= $0 / 5 ? 0 : -10000) }
        let later = try m.graph.addConstant(Constant(Tensor(triangle, shape: [1, 1, 5, 5]), identity: "later"), name: "later")
        let attended = try attend(&m, heads(&m, x), heads(&m, x), heads(&m, x)) { m, scores in
            let scores = try m.binary(.add, m.binary(.div, scores, m.scalar(2)), m.constant([1, 2, 5, 5]))
            return try causal ? m.binary(.add, scores, m.binary(.mul, later, m.node(Cast(to: .float32), [m.reshape(m.mask("ones", [[1]]), [1, 1, 1, 1])]))) : scores
        }
        let y = try norm(&m, m.binary(.add, m.linear(attended, 8, 8), x))
        try m.output(norm(&m, m.binary(.add, feedForward(&m, y), y)))
        let kind = causal ? "decoder" : "text"
        #expect(try layers(&m) == ["\(kind).0", "\(kind).1"])
    }

    /// A second road through the layers behind one of them.
    @Test func aForkIsNoOtherText() throws {
        var m = Exported()
        let state = try text(&m, m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]]))
        for _ in 0..<2 { try m.output(layer(&m, state)) }
        #expect(try layers(&m) == ["text.0", "text.1", "text.2"])
    }

    /// Features of regions, which nothing tells from others, and a layer behind the text that sees them.
    @Test func layersThatSeeANamedTowerDoNotGuideIt() throws {
        var m = Exported()
        let token = try m.node(Expand(), [m.constant([1, 1, 8]), m.integers([2, 1, 8])])
        let x = try m.node(Concat(axis: 1), [token, m.linear(m.input("regions", [2, 4, 6]), 6, 8)])
        let y = try m.binary(.add, x, attention(&m, norm(&m, x)))
        let image = try m.binary(.add, y, feedForward(&m, norm(&m, y)))
        let state = try text(&m, m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]]))
        let read = try norm(&m, m.binary(.add, attention(&m, state), state))
        let seen = try attend(&m, heads(&m, read), heads(&m, image), heads(&m, image)) { m, scores in try m.binary(.div, scores, m.scalar(2)) }
        let joined = try norm(&m, m.binary(.add, m.linear(seen, 8, 8), read))
        try m.output(norm(&m, m.binary(.add, feedForward(&m, joined), joined)))
        try fold(&m.graph)
        try fuse(&m.graph, validating: true)
        let entering = try #require(m.graph.nodes.first { $0.op is Concat })
        try select(&m.graph, options: SelectionOptions(blocks: [1], keepRates: [0.5], visionTower: m.graph.name(of: entering.output)))
        let selection = try #require(m.graph.nodes.first { $0.op is PatchSelection })
        let query = try #require(selection.input(2))
        let regions = m.graph.inputs.filter { m.graph.name(of: $0) == "regions" }
        #expect(!m.graph.dependents(of: regions).contains(query))
    }

    /// A layer over a token of its own, the image and the text, as FLAVA's: its mask, ones for both of the former in one part
    /// beside the text's, gets its axes behind that.
    @Test func aMaskOfFewerPartsThanItsKeysFollowsTheSelection() throws {
        func joint(masked: Bool) throws -> [String: Tensor] {
            var m = Exported()
            let (image, words) = (try vision(&m), try text(&m, m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]])))
            let token = try m.node(Expand(), [m.constant([1, 1, 8]), m.integers([2, 1, 8])])
            let x = try m.node(Concat(axis: 1), [token, m.node(Concat(axis: 1), [image, words])])
            let (q, k, v) = (try heads(&m, x, 11), try heads(&m, x, 11), try heads(&m, x, 11))
            let ones = try m.node(ConstantOfShape(), [m.integers([2, 6]), m.integers([1])])
            let shown = try m.node(Cast(to: .bool), [m.node(Concat(axis: 1), [ones, m.mask("mask", [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]])])])
            let addends = try m.node(Where(), [m.node(Unsqueeze(), [shown, m.integers([1, 2])]), m.scalar(0), m.scalar(-1e30)])
            try m.output(m.node(Gather(axis: 1), [attend(&m, q, k, v, length: 11) { m, scores in
                try masked ? m.binary(.add, m.binary(.div, scores, m.scalar(2)), addends) : m.binary(.div, scores, m.scalar(2))
            }, m.integers([0], scalar: true)]))
            try fold(&m.graph)
            try fuse(&m.graph, validating: true)
            try select(&m.graph, options: SelectionOptions(blocks: [1], keepRates: [0.5]))
            return try outputs(m.graph, m.inputs)
        }
        #expect(try excess(joint(masked: true)["y0"], joint(masked: false)["y0"], 1e-6, 1e-6) <= 0)
    }

    /// Without [CLS], the first patch would stand for it.
    @Test func patchesWithoutAClassTokenAreNoTowerToSelectIn() throws {
        var m = Exported()
        let image = try m.input("image", [2, 3, 20, 4])
        let map = try m.node(Conv(window: Window(strides: [4, 4])), [image, m.constant([8, 3, 4, 4]), m.constant([8])])
        let x = try m.transpose(m.reshape(map, [2, 8, 5]), [0, 2, 1])
        let y = try m.binary(.add, x, attention(&m, norm(&m, x)))
        try m.output(m.binary(.add, y, feedForward(&m, norm(&m, y))))
        try fold(&m.graph)
        try fuse(&m.graph, validating: true)
        let options = SelectionOptions(blocks: [1], keepRates: [0.5], guidance: .imageCLS)
        let error = try #require(#expect(throws: TripsError.self) { try select(&m.graph, options: options) })
        #expect(error.kind == .usage && "\(error)".contains("no class token") && "\(error)".contains("--vision-tower"), "\(error)")
    }

    /// Two pictures: in which of them to select must be said, by a name of the tower's patches or layers.
    @Test func oneOfSeveralTowersIsSelectedInByName() throws {
        var m = Exported()
        for name in ["left", "right"] { try m.output(vision(&m, of: name)) }
        try fold(&m.graph)
        try fuse(&m.graph, validating: true)
        func options(_ name: String?) -> SelectionOptions { SelectionOptions(blocks: [1], keepRates: [0.5], guidance: .imageCLS, visionTower: name) }
        let error = try #require(#expect(throws: TripsError.self) { try select(&m.graph, options: options(nil)) })
        #expect(error.kind == .usage && "\(error)".contains("several vision towers") && "\(error)".contains("--vision-tower"), "\(error)")
        func isRight(_ value: ValueID, _ graph: Graph) -> Bool {
            graph.dependents(of: graph.inputs.filter { graph.name(of: $0) == "right" }).contains(value)
        }
        let entering = try #require(m.graph.nodes.first { $0.op is PatchEmbedding && isRight($0.output, m.graph) })
        for value in [entering.output, m.graph.outputs[1].value] {
            var graph = m.graph
            try select(&graph, options: options(graph.name(of: value)))
            let selections = graph.nodes.filter { $0.op is PatchSelection }
            #expect(selections.count == 1 && isRight(selections[0].output, graph), "\(m.graph.name(of: value))")
        }
        #expect(throws: TripsError.self) { try select(&m.graph, options: options("middle")) }
    }

    /// The text's query goes through the tower's own projection.
    @Test func guidesOfAnotherWidthOrRankAreRefused() throws {
        var m = Exported()
        try m.output(vision(&m))
        let state = try text(&m, m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]]))
        try m.output(m.linear(state, 8, 12))
        try m.output(m.reshape(state, [2, 5, 2, 4]))
        try m.output(m.node(Gather(axis: 1), [state, m.integers([0], scalar: true)]))
        try fold(&m.graph)
        try fuse(&m.graph, validating: true)
        func refusal(_ guide: String) throws -> String {
            var graph = m.graph
            let options = SelectionOptions(blocks: [1], keepRates: [0.5], textGuide: guide)
            return "\(try #require(#expect(throws: TripsError.self) { try select(&graph, options: options) }))"
        }
        let widths = try refusal("y1")
        #expect(widths.contains("text 12, vision 8") && widths.contains("image-cls"), "\(widths)")
        #expect(try refusal("y2").contains("no text guide of that name"))
        // A row that was read already is as good as the states.
        try select(&m.graph, options: SelectionOptions(blocks: [1], keepRates: [0.5], textGuide: "y3"))
        #expect(m.graph.nodes.contains { $0.op is PatchSelection })
    }

    /// Behind pre-norm layers the last norm's rows guide, if there is one. A norm that begins the first fusion layer is none.
    @Test(arguments: [false, true]) func preNormTextsGuideByTheirLastState(hasLastNorm: Bool) throws {
        var m = Exported()
        let image = try vision(&m)
        let words = try m.node(Gather(axis: 0), [m.constant([10, 8]), m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]])])
        let x = try m.binary(.add, words, m.constant([1, 5, 8]))
        let y = try m.binary(.add, x, attention(&m, norm(&m, x)))
        let last = try m.binary(.add, y, feedForward(&m, norm(&m, y)))
        let state = try hasLastNorm ? norm(&m, last) : last
        let fused = try m.binary(.add, state, attention(&m, norm(&m, state)))
        let seen = try attend(&m, heads(&m, norm(&m, fused)), heads(&m, image), heads(&m, image)) { m, scores in
            try m.binary(.div, scores, m.scalar(2))
        }
        try m.output(m.binary(.add, fused, m.linear(seen, 8, 8)))
        try m.output(state)
        try fold(&m.graph)
        try fuse(&m.graph, validating: true)
        func selected(_ guide: String?) throws -> Tensor? {
            var graph = m.graph
            try select(&graph, options: SelectionOptions(blocks: [1], keepRates: [0.5], textGuide: guide))
            return try outputs(graph, m.inputs)["y0"]
        }
        #expect(try excess(selected(nil), selected("y1"), 1e-6, 1e-6) <= 0)
    }

    /// Two texts, such as a question and a candidate: which of them guides must be said.
    @Test func oneOfSeveralTextsGuidesByName() throws {
        var m = Exported()
        try m.output(vision(&m))
        for name in ["question", "answer"] { try m.output(text(&m, m.mask(name, [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]]))) }
        try fold(&m.graph)
        try fuse(&m.graph, validating: true)
        let error = try #require(#expect(throws: TripsError.self) { try select(&m.graph, options: SelectionOptions(blocks: [1], keepRates: [0.5])) })
        #expect(error.kind == .usage && "\(error)".contains("several text encoders") && "\(error)".contains("--text-guide"), "\(error)")
        try select(&m.graph, options: SelectionOptions(blocks: [1], keepRates: [0.5], textGuide: "y1"))
        let selection = try #require(m.graph.nodes.first { $0.op is PatchSelection })
        let query = try #require(selection.input(2))
        let reads = { (name: String) in m.graph.dependents(of: m.graph.inputs.filter { m.graph.name(of: $0) == name }).contains(query) }
        #expect(reads("question") && !reads("answer"))
    }
}
