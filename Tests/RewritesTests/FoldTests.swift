import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

struct FoldTests {
    /// On the right; some on the left, too.
    @Test(
        arguments: [(.add, 0, true), (.sub, 0, false), (.mul, 1, true), (.div, 1, false), (.pow, 1, false)]
            as [(Binary.Kind, Float, Bool)])
    func neutralNumbersAreDropped(kind: Binary.Kind, number: Float, onLeft: Bool) throws {
        for isLeft in [true, false] {
            var m = Exported()
            let (x, neutral) = (try m.input("x", [2, 3]), try m.scalar(number))
            try m.output(isLeft ? m.binary(kind, neutral, x) : m.binary(kind, x, neutral))
            #expect(try m.fused() == (isLeft && !onLeft ? ["Binary"] : []), "\(kind), left: \(isLeft)")
        }
    }

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

    @Test func nonZeroElementsOfConstantsAreCountedUnlessTheyAreMany() throws {
        var m = Exported()
        let places = try m.node(NonZero(), [m.constant([5000])])
        #expect(m.graph.type(of: places).constantShape?.count == 2)
        try m.output(places)
        try m.graph.fold()
        #expect(m.graph.constant(of: places)?.shape == m.graph.type(of: places).constantShape)
        let many = Constant.derived("unread", from: [], .float32, [1 << 23]) { _ in throw TripsError.data("is read") }
        let open = try m.node(NonZero(), [m.graph.addConstant(many, name: "many")])
        #expect(m.graph.type(of: open).constantShape == nil)
        try m.graph.validate()
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
        try graph.fold()
        let largest = graph.nodes.flatMap(\.inputs).compactMap { $0.flatMap(graph.constant(of:))?.identity.utf8.count }.max() ?? 0
        #expect(largest < 1 << 16)
        #expect(graph.nodes.count > 30)
    }

    /// The distances of 300 places to each other, from 600 numbers.
    @Test(arguments: [300, 400]) func tablesOfIntegersAreKnown(count: Int) throws {
        var m = Exported()
        let places = (0..<count).map { Int64($0) }
        let column = try m.graph.addConstant(Constant(Tensor(places, shape: [count, 1]), identity: "column"), name: "column")
        let row = try m.graph.addConstant(Constant(Tensor(places, shape: [1, count]), identity: "row"), name: "row")
        let table = try m.binary(.sub, column, row)
        try m.output(m.node(Gather(axis: 0), [table, m.mask("ids", [[1, 2]])]))
        // A larger one is left for the run.
        #expect(try m.fused() == (count == 300 ? ["Gather"] : ["Binary", "Gather"]))
    }

    /// Where a slice begins or ends depends on what the symbols are: it counts from the end, or may lie beyond it.
    @Test(arguments: [(-100, 2), (-5, .max), (100, .max), (.max, -2), (0, 100), (-3, -1), (nil, .max)] as [(Int?, Int)])
    func slicesBySymbolsKeepTheirNumbers(start: Int?, end: Int) throws {
        var m = Exported()
        let (x, text) = (
            try m.input("x", [2, 4, 4], dimensions: [2, Dimension(symbol: "m"), 4]),
            try m.input("text", [3, 4], dimensions: [Dimension(symbol: "n"), 4])
        )
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
        for part in try m.graph.add(Split(outputs: 2), [x, m.integers([3, 1])], name: "split") {
            try m.output(m.node(Flatten(axis: 0), [part]))
        }
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
        try graph.fold()
        try graph.fuse()
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
    @Test(arguments: [[8, 12], [11, 14]]) func patchesOfAnOpenPictureAreCounted(sizes: [Int]) throws {
        var m = Exported()
        let dimensions = [Dimension(symbol: "batch"), 3, Dimension(symbol: "height"), Dimension(symbol: "width")]
        let image = try m.input("image", [2, 3] + sizes, dimensions: dimensions)
        let map = try m.node(Conv(window: Window(strides: [4, 4])), [image, m.constant([8, 3, 4, 4]), m.constant([8])])
        let shape = try m.node(Shape(), [image])
        func size(_ axis: Int) throws -> ValueID { try m.node(Gather(axis: 0), [shape, m.integers([axis])]) }
        let (batch, down, across) = (
            try size(0), try m.binary(.div, size(2), m.integers([4])), try m.binary(.div, size(3), m.integers([4]))
        )
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
}
