import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

extension Exported {
    /// Integers that stand for numbers.
    fileprivate mutating func levels<Level: TensorElement>(_ levels: [Level], _ shape: [Int]) throws -> ValueID {
        try graph.addConstant(Constant(Tensor(levels, shape: shape), identity: "levels"), name: "levels")
    }
}

/// What quantizers of ONNX models write, and how it becomes layers.
struct QuantizedTests {
    enum Change: CaseIterable {
        case none, scalesOneByOne, scaleOfEachOutput, unsignedAround128
        /// What follows does not stand for a product of x.
        case otherZeroPoint, noScaleOfTheWeight, scaleOfAnother, openWeight, scaleOfRows
    }

    /// x is quantized as the model runs, multiplied as integers, and scaled.
    private func product(_ m: inout Exported, _ change: Change) throws -> ValueID {
        let x = try m.input("x", [5, 8])
        let levels = (0..<48).map { Int8($0 * 37 % 255 - 127) }
        let integers = change == .unsignedAround128
            ? try Tensor(levels.map { UInt8(bitPattern: $0) ^ 0x80 }, shape: [8, 6]) : try Tensor(levels, shape: [8, 6])
        var weight = try m.graph.addConstant(Constant(integers, identity: "levels"), name: "levels")
        if change == .openWeight { weight = try m.node(Cast(to: .int8), [m.input("w", [8, 6])]) }
        let quantized = try m.graph.add(DynamicQuantizeLinear(), [x], name: "quantize")
        let other = try m.graph.add(DynamicQuantizeLinear(), [m.binary(.add, x, m.scalar(1))], name: "quantize")
        let zero = change == .unsignedAround128 ? try m.graph.addConstant(Constant(Tensor(scalar: UInt8(128))), name: "zero") : nil
        let sums = try m.node(MatMulInteger(), [quantized[0], weight, (change == .otherZeroPoint ? other : quantized)[2], zero])
        let numbers = try m.node(Cast(to: .float32), [sums])
        let own = (change == .scaleOfAnother ? other : quantized)[1]
        let scale = switch change {
        case .scaleOfEachOutput: try m.constant([6], scale: 0.01)
        case .scaleOfRows: try m.constant([5, 1], scale: 0.01)
        default: try m.scalar(0.003)
        }
        if change == .noScaleOfTheWeight { return try m.binary(.mul, numbers, own) }
        if change == .scalesOneByOne { return try m.binary(.mul, scale, m.binary(.mul, numbers, own)) }
        return try m.binary(.mul, numbers, m.binary(.mul, own, scale))
    }

    /// The largest number of x is below 1, and so is a step of its 255 below 2/255, of which rounding loses half at most: eight of
    /// these, times weights of 127 · 0.01, make 0.04.
    @Test(arguments: Change.allCases) func productsOfIntegers(change: Change) throws {
        var m = Exported()
        try m.output(m.binary(.add, product(&m, change), m.constant([6])))
        let found = try m.fused(tolerance: 0.04)
        guard [.none, .scalesOneByOne, .scaleOfEachOutput, .unsignedAround128].contains(change) else {
            return #expect(found.contains("MatMulInteger") && !found.contains("Linear"))
        }
        #expect(found == ["Linear"])
    }

    /// Weights of a batch, as those that stand for distances of places, are no layer's.
    @Test func productsOfBatchesOfIntegers() throws {
        var m = Exported()
        let quantized = try m.graph.add(DynamicQuantizeLinear(), [m.input("x", [2, 5, 4])], name: "quantize")
        let levels = try m.levels((0..<24).map { Int8($0 * 10 - 120) }, [2, 4, 3])
        let sums = try m.node(MatMulInteger(), [quantized[0], levels, quantized[2]])
        try m.output(m.binary(.mul, m.node(Cast(to: .float32), [sums]), m.binary(.mul, quantized[1], m.constant([3], scale: 0.01))))
        // Four numbers, each rounded by up to 1/255, times weights of 120 · 0.01.
        #expect(try m.fused(tolerance: 0.02) == ["MatMul"])
    }

    /// The integers stay as they are; rows are rounded by themselves.
    @Test(arguments: [Change.none, .scaleOfEachOutput, .unsignedAround128]) func layersReadTheIntegers(change: Change) throws {
        var m = Exported()
        try m.output(m.binary(.add, product(&m, change), m.constant([6])))
        var graph = m.graph
        try fold(&graph)
        try fuse(&graph)
        let numbers = try outputs(graph, m.inputs)
        try readScaledIntegers(&graph, activations: .float32)
        try graph.validate()
        let layer = try #require(graph.nodes.first)
        #expect(graph.nodes.count == 1 && layer.op as? QuantizedLinear == QuantizedLinear(groupSize: 8, activations: .float32))
        let weight = try #require(layer.input(1).flatMap(graph.constant(of:))).load()
        let levels = try Tensor((0..<48).map { Int8($0 * 37 % 255 - 127) }, shape: [8, 6])
        #expect(try weight.elements(Int8.self) == levels.transposed().elements())
        #expect(try excess(outputs(graph, m.inputs)["y0"], numbers["y0"], 1e-6, 1e-6) <= 0)
    }

    /// uint8 around another zero point is nothing that a layer of int8 could read.
    @Test func otherZeroPointsBecomeNumbers() throws {
        var m = Exported()
        let x = try m.input("x", [5, 8])
        let levels = try m.levels((0..<48).map { UInt8($0 * 5) }, [8, 6])
        let zero = try m.graph.addConstant(Constant(Tensor(scalar: UInt8(100))), name: "zero")
        try m.output(m.node(MatMul(), [x, m.node(DequantizeLinear(), [levels, m.scalar(0.01), zero])]))
        #expect(try m.fused() == ["Linear"])
        var graph = m.graph
        try fold(&graph)
        try fuse(&graph)
        try readScaledIntegers(&graph, activations: .int8)
        #expect(graph.nodes.map { $0.op is Linear } == [true])
    }

    /// A matrix larger than what folding computes, and a kernel: the numbers are made when they are loaded, not in each run.
    @Test(arguments: [[300, 300], [4, 3, 2, 2]]) func weightsBecomeNumbersOnce(shape: [Int]) throws {
        var m = Exported()
        let levels = try Tensor((0..<shape.reduce(1, *)).map { UInt8(truncatingIfNeeded: $0 &* 37) }, shape: shape)
        let zero = try m.graph.addConstant(Constant(Tensor(scalar: UInt8(7))), name: "zero")
        let value = try m.graph.addConstant(Constant(levels, identity: "levels"), name: "levels")
        let weight = try m.node(DequantizeLinear(), [value, m.scalar(0.01), zero])
        let isKernel = shape.count == 4
        try m.output(m.node(isKernel ? Conv() : MatMul(), [m.input("x", isKernel ? [1, 3, 5, 5] : [2, 300]), weight]))
        #expect(try m.fused(tolerance: 1e-4) == [isKernel ? "Conv" : "Linear"])
    }

    @Test func convolutionsOfIntegers() throws {
        var m = Exported()
        let x = try m.input("x", [1, 3, 6, 6])
        let quantized = try m.graph.add(DynamicQuantizeLinear(), [x], name: "quantize")
        let levels = try Tensor((0..<48).map { Int8($0 * 5 - 120) }, shape: [4, 3, 2, 2])
        let weight = try m.graph.addConstant(Constant(levels, identity: "levels"), name: "levels")
        let sums = try m.node(ConvInteger(Conv(window: Window(pads: [1, 0, 0, 1]))), [quantized[0], weight, quantized[2]])
        let scale = try m.binary(.mul, quantized[1], m.scalar(0.005))
        let product = try m.binary(.mul, m.node(Cast(to: .float32), [sums]), scale)
        try m.output(m.binary(.add, product, m.constant([1, 4, 1, 1])))
        // Twelve numbers, each rounded by up to 1/255, times weights of 120 · 0.005.
        #expect(try m.fused(tolerance: 0.03) == ["Conv"])
    }

    @Test func lookupsOfIntegers() throws {
        var m = Exported()
        let ids = try m.mask("ids", [[1, 3, 2], [0, 3, 1]])
        let levels = try m.levels((0..<20).map { Int8($0 * 9 - 90) }, [4, 5])
        let rows = try m.node(Gather(axis: 0), [levels, ids])
        try m.output(m.node(DequantizeLinear(), [rows, m.scalar(0.02)]))
        #expect(try m.fused() == ["Embedding"])
        var graph = m.graph
        try fold(&graph)
        try fuse(&graph)
        try readScaledIntegers(&graph, activations: .int8)
        #expect(graph.nodes.map { $0.op is QuantizedEmbedding } == [true])
        #expect(try excess(outputs(graph, m.inputs)["y0"], outputs(m.graph, m.inputs)["y0"], 1e-6, 0) <= 0)
    }

    @Test(arguments: [
        ([1, 4, 1, 1], true), ([4, 1, 1], true), ([1, 1, 1, 4], false), ([4], false), ([2, 4, 1, 1], false), ([1, 4, 1, 4], false),
    ])
    func numbersAddedToConvolutions(shape: [Int], isBias: Bool) throws {
        var m = Exported()
        let sums = try m.node(Conv(), [m.input("x", [2, 3, 5, 5]), m.constant([4, 3, 2, 2])])
        try m.output(m.binary(.add, m.constant(shape), sums))
        #expect(try m.fused() == (isBias ? ["Conv"] : ["Binary", "Conv"]))
    }
}
