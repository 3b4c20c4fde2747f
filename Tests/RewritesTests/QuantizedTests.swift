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
        let integers =
            change == .unsignedAround128
            ? try Tensor(levels.map { UInt8(bitPattern: $0) ^ 0x80 }, shape: [8, 6]) : try Tensor(levels, shape: [8, 6])
        var weight = try m.graph.addConstant(Constant(integers, identity: "levels"), name: "levels")
        if change == .openWeight { weight = try m.node(Cast(to: .int8), [m.input("w", [8, 6])]) }
        let quantized = try m.graph.add(DynamicQuantizeLinear(), [x], name: "quantize")
        let other = try m.graph.add(DynamicQuantizeLinear(), [m.binary(.add, x, m.scalar(1))], name: "quantize")
        let zero = change == .unsignedAround128 ? try m.graph.addConstant(Constant(Tensor(scalar: UInt8(128))), name: "zero") : nil
        let sums = try m.node(MatMulInteger(), [quantized[0], weight, (change == .otherZeroPoint ? other : quantized)[2], zero])
        let numbers = try m.node(Cast(to: .float32), [sums])
        let own = (change == .scaleOfAnother ? other : quantized)[1]
        let scale =
            switch change {
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
    @Test(arguments: Change.allCases) func productsOfIntegersAreLinear(change: Change) throws {
        var m = Exported()
        try m.output(m.binary(.add, product(&m, change), m.constant([6])))
        let found = try m.fused(tolerance: 0.04)
        guard [.none, .scalesOneByOne, .scaleOfEachOutput, .unsignedAround128].contains(change) else {
            return #expect(found.contains("MatMulInteger") && !found.contains("Linear"))
        }
        #expect(found == ["Linear"])
    }

    /// Weights of a batch, as those that stand for distances of places, are no layer's.
    @Test func productsOfBatchesOfIntegersAreNoLinear() throws {
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
        try graph.fold()
        try graph.fuse()
        let numbers = try outputs(graph, m.inputs)
        try graph.readScaledIntegers(arithmetic: SourceArithmetic(layers: .float32))
        try graph.validate()
        let layer = try #require(graph.nodes.first)
        #expect(graph.nodes.count == 1 && layer.op as? QuantizedLinear == QuantizedLinear(groupSize: 8, activations: .float32))
        let weight = try #require(layer.input(1).flatMap(graph.constant(of:))).load()
        let levels = try Tensor((0..<48).map { Int8($0 * 37 % 255 - 127) }, shape: [8, 6])
        #expect(try weight.elements(Int8.self) == levels.transposed().elements())
        #expect(try excess(outputs(graph, m.inputs)["y0"], numbers["y0"], 1e-6, 1e-6) <= 0)
    }

    /// uint8 around another zero point is int8 where all integers fit, as those of seven bits do.
    @Test(arguments: [2, 5]) func layersWithOtherZeroPointsReadTheIntegersThatFit(step: Int) throws {
        var m = Exported()
        let x = try m.input("x", [5, 8])
        let levels = try m.levels((0..<48).map { UInt8($0 * step) }, [8, 6])
        let zero = try m.graph.addConstant(Constant(Tensor(scalar: UInt8(100))), name: "zero")
        try m.output(m.node(MatMul(), [x, m.node(DequantizeLinear(), [levels, m.scalar(0.01), zero])]))
        #expect(try m.fused() == ["Linear"])
        var graph = m.graph
        try graph.fold()
        try graph.fuse()
        try graph.readScaledIntegers(arithmetic: SourceArithmetic(layers: .float32))
        #expect(graph.nodes.map { $0.op is QuantizedLinear } == [step == 2])
        #expect(try excess(outputs(graph, m.inputs)["y0"], outputs(m.graph, m.inputs)["y0"], 1e-6, 1e-6) <= 0)
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

    @Test func convolutionsOfIntegersAreFused() throws {
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

    @Test func lookupsReadTheIntegers() throws {
        var m = Exported()
        let ids = try m.mask("ids", [[1, 3, 2], [0, 3, 1]])
        let levels = try m.levels((0..<20).map { Int8($0 * 9 - 90) }, [4, 5])
        let rows = try m.node(Gather(axis: 0), [levels, ids])
        try m.output(m.node(DequantizeLinear(), [rows, m.scalar(0.02)]))
        #expect(try m.fused() == ["Embedding"])
        var graph = m.graph
        try graph.fold()
        try graph.fuse()
        try graph.readScaledIntegers(arithmetic: SourceArithmetic(layers: .int8))
        #expect(graph.nodes.map { $0.op is QuantizedEmbedding } == [true])
        #expect(try excess(outputs(graph, m.inputs)["y0"], outputs(m.graph, m.inputs)["y0"], 1e-6, 0) <= 0)
    }

    /// What the zero point stands for is added to the rows: quantizers write tables as uint8 from the smallest number to the
    /// largest.
    @Test(arguments: [100, 128, 145]) func lookupsAddWhatTheZeroPointStandsFor(zero: UInt8) throws {
        var m = Exported()
        let ids = try m.mask("ids", [[1, 3, 2], [0, 3, 1]])
        let levels = try m.levels((0..<20).map { UInt8($0 * 13) }, [4, 5])
        let rows = try m.node(Gather(axis: 0), [levels, ids])
        let point = try m.graph.addConstant(Constant(Tensor(scalar: zero)), name: "zero")
        try m.output(m.node(DequantizeLinear(), [rows, m.scalar(0.02), point]))
        var graph = m.graph
        try graph.fold()
        try graph.fuse()
        try graph.readScaledIntegers(arithmetic: SourceArithmetic(layers: .int8))
        try graph.validate()
        #expect(graph.nodes.map { "\(type(of: $0.op))" }.sorted() == (zero == 128 ? [] : ["Binary"]) + ["QuantizedEmbedding"])
        #expect(try excess(outputs(graph, m.inputs)["y0"], outputs(m.graph, m.inputs)["y0"], 1e-6, 0) <= 0)
    }

    @Test(arguments: [
        ([1, 4, 1, 1], true), ([4, 1, 1], true), ([1, 1, 1, 4], false), ([4], false), ([2, 4, 1, 1], false), ([1, 4, 1, 4], false),
    ])
    func numbersForEachChannelAreABias(shape: [Int], isBias: Bool) throws {
        var m = Exported()
        let sums = try m.node(Conv(), [m.input("x", [2, 3, 5, 5]), m.constant([4, 3, 2, 2])])
        try m.output(m.binary(.add, m.constant(shape), sums))
        #expect(try m.fused() == (isBias ? ["Conv"] : ["Binary", "Conv"]))
    }

    // MARK: Fixed roundings

    /// Integers of a fixed range, and numbers again.
    private func rounded(
        _ m: inout Exported, _ x: ValueID, step: Float = 2 / 255, zero: UInt8 = 128, back: (step: Float, zero: UInt8)? = nil,
        between: (inout Exported, ValueID) throws -> ValueID = { $1 }
    ) throws -> ValueID {
        func point(_ zero: UInt8) throws -> ValueID { try m.graph.addConstant(Constant(Tensor(scalar: zero)), name: "zero") }
        let integers = try m.node(QuantizeLinear(), [x, m.scalar(step), point(zero)])
        return try m.node(DequantizeLinear(), [between(&m, integers), m.scalar(back?.step ?? step), point(back?.zero ?? zero)])
    }

    /// What static quantization leaves of attention: roundings around each product, the softmax and the scaling. All numbers lie
    /// within the ranges. Queries, keys and values are sums of eight numbers below 1 times weights below 0.5; half a step of 1/255
    /// of their range in each, and in scores and weights, leaves less than 0.05 in the result.
    @Test func attentionBetweenFixedRoundingsIsFused() throws {
        var m = Exported()
        let x = try rounded(&m, m.input("x", [2, 5, 8]))
        func heads() throws -> ValueID { try rounded(&m, m.heads(x), step: 9 / 255) }
        let (q, k, v) = (try heads(), try heads(), try heads())
        let turned = try rounded(&m, m.transpose(k, [0, 1, 3, 2]), step: 9 / 255)
        let products = try rounded(&m, m.node(MatMul(), [q, turned]), step: 160 / 255)
        let scores = try rounded(&m, m.binary(.mul, products, m.scalar(0.05)), step: 8 / 255)
        let weights = try rounded(&m, m.node(Softmax(axis: -1), [scores]), step: 1 / 255, zero: 0)
        let result = try rounded(&m, m.node(MatMul(), [weights, v]), step: 9 / 255)
        try m.output(m.reshape(m.transpose(result, [0, 2, 1, 3]), [2, 5, 8]))
        #expect(try m.fused(tolerance: 0.05) == ["Attention", "Linear", "Linear", "Linear"])
        #expect(SourceArithmetic(of: m.graph).attention == .int8 && SourceArithmetic(of: m.graph).layers == .int8)
    }

    /// What a product of integers that ONNX Runtime fused is taken apart into. Eight numbers, each rounded by half of 2/255, times
    /// weights of 0.5.
    @Test func roundingsAsTheModelRunsAreLeftToTheLayer() throws {
        var m = Exported()
        let rounding = try m.graph.add(DynamicQuantizeLinear(), [m.input("x", [5, 8])], name: "round")
        try m.output(m.node(MatMul(), [m.node(DequantizeLinear(), rounding), m.constant([8, 6])]))
        #expect(SourceArithmetic(of: m.graph).layers == .int8)
        #expect(try m.fused(tolerance: 0.016) == ["Linear"])
    }

    enum Rounding: CaseIterable { case usual, infiniteStep, oneStepForAll, otherStep, otherZero, ofEachColumn }

    @Test(arguments: Rounding.allCases) func roundingsAreLeftOutWhereTheyAreFixed(_ rounding: Rounding) throws {
        var m = Exported()
        let x = try m.input("x", [5, 8])
        let numbers =
            switch rounding {
            case .usual: try rounded(&m, x)
            // Quantizers write it where a mask holds the lowest number of all: 0 times infinity is none.
            case .infiniteStep: try rounded(&m, x, step: .infinity, zero: 0)
            case .oneStepForAll: try rounded(&m, x) { try $0.transpose($1, [1, 0]) }
            case .otherStep: try rounded(&m, x, back: (3 / 255, 128))
            case .otherZero: try rounded(&m, x, back: (2 / 255, 127))
            case .ofEachColumn:
                try m.node(
                    DequantizeLinear(),
                    [
                        m.node(QuantizeLinear(), [x, m.constant([8], scale: 0.01)]), m.constant([8], scale: 0.01),
                    ])
            }
        try m.output(m.unary(.tanh, numbers))
        var graph = m.graph
        try graph.fold()
        let trail = try graph.fuse(validating: true)
        let isLeftOut = [.usual, .infiniteStep, .oneStepForAll].contains(rounding)
        #expect(trail.count(of: fixedRoundings) == (isLeftOut ? 1 : 0))
        #expect(!graph.nodes.contains { $0.op is QuantizeLinear || $0.op is DequantizeLinear } == isLeftOut)
        guard rounding == .usual else { return }
        // Half a step, and tanh is nowhere steeper than 1.
        #expect(try excess(outputs(graph, m.inputs)["y0"], outputs(m.graph, m.inputs)["y0"], 1 / 255, 0) <= 0)
    }

    /// A range from 0 on may stand for a ReLU, or a clip, that the quantizer left out; but not where numbers that are 0 or more are
    /// computed in steps.
    @Test(arguments: [true, false]) func rangesFromZeroOnClip(isLayer: Bool) throws {
        var m = Exported()
        let x = try m.input("x", [5, 8])
        let front = try isLayer ? m.linear(x, 8, 6) : m.binary(.add, m.unary(.exp, x), m.scalar(0.1))
        try m.output(m.unary(.sqrt, rounded(&m, front, step: 1 / 255, zero: 0)))
        var graph = m.graph
        try graph.fold()
        try graph.fuse(validating: true)
        let found = graph.nodes.map { "\(type(of: $0.op))" }.sorted()
        #expect(found == (isLayer ? ["Clip", "Linear", "Unary"] : ["Binary", "Unary", "Unary"]))
        guard isLayer else { return }
        // The root of half a step: what is nearly 0 may be 0.
        #expect(try excess(outputs(graph, m.inputs)["y0"], outputs(m.graph, m.inputs)["y0"], 0.05, 0) <= 0)
    }

    /// A range of a round width may stand for a clip.
    @Test(arguments: [Float(0.5), 0.513, 7]) func rangesOfRoundWidthsClip(width: Float) throws {
        var m = Exported()
        try m.output(m.unary(.tanh, rounded(&m, m.linear(m.input("x", [5, 8]), 8, 6), step: width / 255)))
        var graph = m.graph
        try graph.fold()
        try graph.fuse(validating: true)
        let found = graph.nodes.map { "\(type(of: $0.op))" }.sorted()
        #expect(found == (width == 0.513 ? ["Linear", "Unary"] : ["Clip", "Linear", "Unary"]))
        guard width != 0.513 else { return }
        // Half a step.
        #expect(try excess(outputs(graph, m.inputs)["y0"], outputs(m.graph, m.inputs)["y0"], Double(width) / 500, 0) <= 0)
    }

    /// Between the operators of integers a model moves them about.
    @Test func roundingsAroundMovedIntegersAreLeftOut() throws {
        var m = Exported()
        let x = try m.input("x", [4, 6])
        let moved = try rounded(&m, x) { m, integers in
            let halves = try m.graph.add(Split(axis: 1, outputs: 2), [integers], name: "split")
            let joined = try m.node(Concat(axis: 0), [halves[1], halves[0]])
            return try m.reshape(m.transpose(joined, [1, 0]), [2, 12])
        }
        try m.output(moved)
        // Half a step.
        let found = try m.fused(tolerance: 1 / 255)
        #expect(!found.contains("QuantizeLinear") && !found.contains("DequantizeLinear") && found.contains("Concat"))
    }

    /// Integers are interpolated as the numbers that they stand for, but are rounded once more.
    @Test(arguments: [Resize.Mode.nearest, .linear]) func roundingsAroundResizedIntegersAreLeftOut(mode: Resize.Mode) throws {
        var m = Exported()
        let x = try m.input("x", [1, 2, 4, 4])
        let resized = try rounded(&m, x) { m, integers in
            try m.node(Resize(mode: mode), [integers, nil, nil, m.integers([1, 2, 8, 6])])
        }
        try m.output(m.unary(.tanh, resized))
        // Half a step, and a whole one: interpolated integers are cut off.
        #expect(try m.fused(tolerance: mode == .nearest ? 1 / 255 : 3 / 255) == ["Resize", "Unary"])
    }

    /// What an image library rounds, it rounds.
    @Test func integersThatAreGivenAreResizedAsSuch() throws {
        for (coordinates, isNearest) in [(Resize.Coordinates.halfPixel, false), (.tfCropAndResize, true), (.halfPixel, true)] {
            var m = Exported()
            let pixels = try m.node(Cast(to: .uint8), [m.input("x", [1, 2, 4, 4])])
            let op = Resize(mode: isNearest ? .nearest : .linear, coordinates: coordinates)
            let roi = coordinates == .tfCropAndResize ? try m.constant([8], scale: 1) : nil
            let resized = try m.node(op, [pixels, roi, nil, m.integers([1, 2, 8, 6])])
            try m.output(m.node(DequantizeLinear(), [resized, m.scalar(0.1)]))
            var graph = m.graph
            try graph.fold()
            try graph.fuse(validating: true)
            let last = graph.outputs.first.flatMap { graph.producer(of: $0.value) }
            #expect(last?.op is Resize == (isNearest && coordinates == .halfPixel), "\(coordinates)")
            #expect(try excess(outputs(graph, m.inputs)["y0"], outputs(m.graph, m.inputs)["y0"], 1e-6, 1e-6) <= 0)
        }
    }

    /// A mask of nothing, quantized.
    @Test func roundingsOfTheSameNumberEverywhereGoAway() throws {
        var m = Exported()
        let x = try m.input("x", [2, 3], dimensions: [Dimension(symbol: "batch"), 3])
        let zeros = try m.node(Expand(), [m.scalar(0), m.node(Shape(), [x])])
        try m.output(m.binary(.add, x, rounded(&m, zeros)))
        #expect(try m.fused() == [])
    }

    @Test func attentionOverInt8ValuesIsInt8WhereTheSourceIs() throws {
        var m = Exported()
        let x = try rounded(&m, m.input("x", [2, 5, 8]))
        func heads(_ stride: Int) throws -> ValueID {
            let levels = try Tensor((0..<64).map { Int8($0 * stride % 255 - 127) }, shape: [8, 8])
            let weight = try m.graph.addConstant(Constant(levels, identity: "levels \(stride)"), name: "levels")
            let product = try m.node(MatMul(), [x, m.node(DequantizeLinear(), [weight, m.scalar(0.004)])])
            return try rounded(&m, m.transpose(m.reshape(product, [2, 5, 2, 4]), [0, 2, 1, 3]), step: 9 / 255)
        }
        try m.output(m.attend(heads(37), heads(41), heads(43)) { $1 })
        var graph = m.graph
        try graph.fold()
        try graph.fuse()
        for attention in [ActivationPrecision.int8, .float32] {
            var read = graph
            try read.readScaledIntegers(arithmetic: SourceArithmetic(layers: .int8, attention: attention))
            #expect(read.nodes.compactMap { $0.op as? Attention }.map { $0.activations == .int8 } == [attention == .int8])
            #expect(read.nodes.count { $0.op is QuantizedLinear } == 3)
        }
    }
}
