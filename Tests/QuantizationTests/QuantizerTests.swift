import Foundation
import Goldens
import ModelGraph
import PackageFormat
import Quantization
import Runtime
import Support
import Tensors
import TestSupport
import Testing

/// LayerNorm with loud channels, two projections of it, GELU, and a projection back: a block's feed-forward part.
private func block(_ name: String = "main") throws -> Graph {
    var generator = SplitMix64(state: 11)
    func constant(_ shape: [Int], _ name: String, _ value: (Int) -> Float) throws -> Constant {
        Constant(try Tensor((0..<shape.reduce(1, *)).map(value), shape: shape), identity: name)
    }
    var graph = Graph(name: name)
    let x = try graph.addInput("x", ValueType(.float32, [Dimension(symbol: "batch"), 64]))
    let gain = try graph.addConstant(constant([64], "gain") { $0 % 16 == 0 ? 8 : 1 }, name: "gain")
    let normal = try graph.add(LayerNorm(epsilon: 1e-6), [x, gain], name: "norm")[0]
    let up = try graph.addConstant(constant([96, 64], "up") { _ in Float(generator.uniform() - 0.5) }, name: "up.weight")
    let side = try graph.addConstant(constant([64, 64], "side") { _ in Float(generator.uniform() - 0.5) }, name: "side.weight")
    let down = try graph.addConstant(constant([64, 96], "down") { _ in Float(generator.uniform() - 0.5) }, name: "down.weight")
    let hidden = try graph.add(GELU(.erf), graph.add(Linear(), [normal, up], name: "up"), name: "gelu")[0]
    let sum = try graph.add(
        Binary(.add),
        [graph.add(Linear(), [normal, side], name: "side")[0], graph.add(Linear(), [hidden, down], name: "down")[0]], name: "sum")[
            0]
    try graph.addOutput("y", sum)
    return graph
}

private func samples(_ count: Int) throws -> [GoldenSet] {
    var generator = SplitMix64(state: 12)
    return try (0..<count).map { number in
        let x = try Tensor((0..<20 * 64).map { _ in Float(generator.uniform() - 0.5) }, shape: [20, 64])
        return GoldenSet(name: "sample \(number)", inputs: ["x": x])
    }
}

private func run(_ graphs: [Graph], _ inputs: [String: Tensor]) throws -> [Float] {
    let model = Model(graphs: graphs, manifest: Manifest(tool: .init(name: "test", version: "")))
    return try Session(model, threads: 1).run(inputs)["y"]?.elements(Float.self) ?? []
}

@Suite struct QuantizerTests {
    @Test func layersThatReadOneInputShareItsScale() throws {
        let (graphs, report) = try quantize([block()], QuantizationOptions(.int8))
        try graphs[0].validate()
        let scales = graphs[0].nodes.compactMap { node in
            node.op is QuantizedLinear ? node.input(4).flatMap(graphs[0].constant)?.identity : nil
        }
        #expect(scales.count == 2 && Set(scales).count == 1, "up and side; down has no normalisation in front")
        #expect(report.layers.map(\.precision) == [.int8, .int8, .int8])
        #expect(report.bytesAfter < report.bytesBefore / 3)
    }

    /// A mask that hides by the lowest number of float32 stays; a weight out of range is refused by name when it is read.
    @Test func halfPrecisionLeavesMasks() throws {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [2, 2]))
        func constant(_ numbers: [Float], _ name: String) throws -> ValueID {
            try graph.addConstant(Constant(Tensor(numbers, shape: [2, 2]), identity: name), name: name)
        }
        let (good, wide) = (try constant([1, 0.1, 2, 3], "good"), try constant([1, 1e6, 0, 0], "wide"))
        let mask = try constant([0, -.greatestFiniteMagnitude, 0, 0], "mask")
        let product = try graph.add(Linear(), [graph.add(Linear(), [x, good], name: "first")[0], wide], name: "second")[0]
        try graph.addOutput("y", graph.add(Binary(.add), [product, mask], name: "masked")[0])
        let (graphs, report) = try quantize([graph], QuantizationOptions(.f16))
        func numbers(_ name: String) throws -> [Float]? {
            try graphs[0].value(named: name).flatMap(graphs[0].constant)?.load().elements(Float.self)
        }
        #expect(try numbers("good") == [1, 0.099975586, 2, 3] && numbers("mask") == [0, -.greatestFiniteMagnitude, 0, 0])
        #expect(report.layers.map(\.precision) == [.float16, .float16, .float32] && report.layers[2].note != nil)
        #expect(throws: TripsError.self) { try numbers("wide") }
    }

    @Test func moreIsKnownMoreIsKept() throws {
        let graph = try block()
        let test = try samples(1)[0].inputs
        let exact = try run([graph], test)
        var calibrated = QuantizationOptions(.int8)
        calibrated.calibration = try samples(4)
        var narrow = QuantizationOptions(.int8)
        narrow.weightsOnly = true
        let plain = signalToNoise(exact, try run(quantize([graph], QuantizationOptions(.int8)).graphs, test))
        let better = signalToNoise(exact, try run(quantize([graph], calibrated).graphs, test))
        let weights = signalToNoise(exact, try run(quantize([graph], narrow).graphs, test))
        let bf16 = signalToNoise(exact, try run(quantize([graph], QuantizationOptions(.bf16)).graphs, test))
        // 8 bits with a scale per row hold about 40 dB of a row; bf16's 8 significant bits hold about 54.
        #expect(plain > 30 && better > plain && weights > plain && bf16 > 45)
    }

    @Test func whatIsKeptStaysAsItIs() throws {
        var options = QuantizationOptions(.int8)
        options.keep = ["*own.weight"]
        let (graphs, report) = try quantize([block()], options)
        #expect(report.layers.first { $0.name == "down.weight" }?.precision == .float32)
        #expect(graphs[0].nodes.count(where: { $0.op is Linear }) == 1)
        options.keep = ["no such layer"]
        #expect { try quantize([block()], options) } throws: {
            ($0 as? TripsError)?.kind == .usage && "\($0)".contains("no such layer")
        }
    }

    /// A large table of numbers that bfloat16 does not hold, once looked up in and once added from.
    private func tables() throws -> (graph: Graph, inputs: [String: Tensor]) {
        var (generator, graph) = (SplitMix64(state: 15), Graph(name: "main"))
        func constant(_ name: String, _ shape: [Int]) throws -> ValueID {
            let numbers = (0..<shape.reduce(1, *)).map { _ in Float(generator.uniform() - 0.5) }
            return try graph.addConstant(Constant(Tensor(numbers, shape: shape), identity: name), name: name)
        }
        let ids = try graph.addInput("ids", ValueType(.int64, [1, 5]))
        let bounds = try [[0], [5], [0]].map { try graph.addConstant(Constant(integers: $0, shape: [1]), name: "bound \($0)") }
        let places = try graph.add(Slice(), [constant("places", [300, 64])] + bounds, name: "cut")[0]
        let words = try graph.add(Embedding(), [ids, constant("words", [300, 64])], name: "look up")[0]
        let sum = try graph.add(Binary(.add), [words, places], name: "sum")[0]
        try graph.addOutput("y", graph.add(Linear(), [sum, constant("weight", [64, 64])], name: "layer")[0])
        return (graph, ["ids": try Tensor([3, 1, 4, 1, 5] as [Int64], shape: [1, 5])])
    }

    @Test func tablesThatAreKeptStayAsTheyAre() throws {
        let (graph, _) = try tables()
        var options = QuantizationOptions(.int8)
        options.keep = ["words"]
        let (graphs, report) = try quantize([graph], options)
        let lookup = try #require(graphs[0].nodes.first { $0.op is Embedding })
        #expect(lookup.input(1).flatMap(graphs[0].constant)?.storedType == .float32)
        #expect(report.layers.first { $0.name == "words" }?.precision == .float32)
    }

    @Test func whatIsStoredIn16BitsIsReportedAndCanBeKept() throws {
        let (graph, _) = try tables()
        let places = try #require(quantize([graph], QuantizationOptions(.int8)).report.layers.first { $0.name == "places" })
        #expect(places.precision == .bfloat16 && places.bytesAfter * 2 == places.bytesBefore)
        var options = QuantizationOptions(.int8)
        options.keep = ["pla*"]
        let (graphs, report) = try quantize([graph], options)
        #expect(report.layers.first { $0.name == "places" }?.precision == .float32)
        let slice = try #require(graphs[0].nodes.first { $0.op is Slice })
        #expect(slice.input(0).flatMap(graphs[0].constant)?.storedType == .float32)
    }

    @Test func whatIsStoredIn16BitsIsPutBackLast() throws {
        let (graph, inputs) = try tables()
        var options = QuantizationOptions(.int8)
        options.calibration = [GoldenSet(name: "g", inputs: inputs)]
        func places(_ graphs: [Graph]) -> DataType? {
            graphs[0].nodes.first { $0.op is Slice }?.input(0).flatMap(graphs[0].constant)?.storedType
        }
        options.minimalSNR = 45
        let enough = try quantize([graph], options)
        #expect(places(enough.graphs) == .bfloat16 && (enough.report.outputSNR["y"] ?? 0) >= 45)
        options.minimalSNR = 100
        let exact = try quantize([graph], options)
        #expect(places(exact.graphs) == .float32 && (exact.report.outputSNR["y"] ?? 0) >= 100)
    }

    @Test func layersOfOneWeightKeepTheirOwnBiases() throws {
        var (generator, graph) = (SplitMix64(state: 16), Graph(name: "main"))
        func constant(_ name: String, _ shape: [Int], _ scale: Double) throws -> ValueID {
            let numbers = (0..<shape.reduce(1, *)).map { _ in Float((generator.uniform() - 0.5) * scale) }
            return try graph.addConstant(Constant(Tensor(numbers, shape: shape), identity: name), name: name)
        }
        let x = try graph.addInput("x", ValueType(.float32, [.init(symbol: "batch"), 64]))
        let weight = try constant("weight", [32, 64], 1)
        let layers = try ["first", "second"].map { name in
            try graph.add(Linear(), [x, weight, constant("\(name).bias", [32], 20)], name: name)[0]
        }
        try graph.addOutput("y", graph.add(Binary(.sub), layers, name: "difference")[0])
        var options = QuantizationOptions(.int8)
        options.calibration = try samples(2)
        let test = try samples(1)[0].inputs
        // Equal layers: what rounding takes from both is the same, and the biases are not rounded.
        #expect(try signalToNoise(run([graph], test), run(quantize([graph], options).graphs, test)) > 100)
    }

    /// Such as the rows of padding that attends to nothing.
    @Test func rowsThatAreNotFiniteTellNothing() throws {
        var (generator, graph) = (SplitMix64(state: 17), Graph(name: "main"))
        func numbers(_ count: Int, _ first: Float = 0) -> [Float] { (0..<count).map { _ in first + Float(generator.uniform()) } }
        let x = try graph.addInput("x", ValueType(.float32, [.init(symbol: "batch"), 64]))
        let weight = try graph.addConstant(
            Constant(Tensor(numbers(32 * 64, -0.5), shape: [32, 64]), identity: "weight"), name: "weight")
        try graph.addOutput("y", graph.add(Linear(), [graph.add(Unary(.sqrt), [x], name: "root")[0], weight], name: "layer")[0])
        let finite = try Tensor(numbers(20 * 64), shape: [20, 64])
        let broken = try Tensor.joined([finite, Tensor([Float](repeating: -1, count: 64), shape: [1, 64])])
        func quantized(_ sample: Tensor) throws -> [Float] {
            var options = QuantizationOptions(.int8)
            options.calibration = [GoldenSet(name: "g", inputs: ["x": sample])]
            return try run(quantize([graph], options).graphs, ["x": finite])
        }
        #expect(try quantized(broken) == quantized(finite))
    }

    /// What tells how the inputs go together takes the square of their number.
    @Test func layersOfVeryManyInputsAreRoundedByThemselves() throws {
        let inputs = 200_000
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [1, .init(inputs)]))
        let row = try Tensor((0..<inputs).map { Float($0 % 7) - 3 }, shape: [1, inputs])
        try graph.addOutput(
            "y", graph.add(Linear(), [x, graph.addConstant(Constant(row, identity: "w"), name: "weight")], name: "layer")[0])
        var options = QuantizationOptions(.int8)
        options.calibration = [GoldenSet(name: "g", inputs: ["x": row])]
        #expect(try quantize([graph], options).report.layers.map(\.precision) == [.int8])
    }

    @Test func layersArePutBackUntilTheOutputsAreGoodEnough() throws {
        var options = QuantizationOptions(.int8)
        options.calibration = try samples(2)
        options.minimalSNR = 60
        var told: [[Int]] = []
        let (_, report) = try quantize([block()], options) { told.append([$0, $1]) }
        #expect(!report.putBack.isEmpty && (report.outputSNR["y"] ?? 0) >= 60)
        // The rounding, then the trial of each layer alone.
        let layers = report.layers.count
        #expect(told.map { $0[0] } == told.map { $0[0] }.sorted())
        #expect(told.contains([layers, 2 * layers]) && told.last == [2 * layers, 2 * layers])
        options.calibration = []
        #expect { try quantize([block()], options) } throws: { ($0 as? TripsError)?.kind == .usage }
    }

    /// One linear layer, [outputs, inputs].
    private func linear(_ weight: Tensor) throws -> Graph {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [Dimension(symbol: "batch"), Dimension(weight.shape[1])]))
        let constant = try graph.addConstant(Constant(weight, identity: "weight"), name: "weight")
        try graph.addOutput("y", graph.add(Linear(), [x, constant], name: "linear")[0])
        return graph
    }

    /// A conversion for each group is worth it where half of the inputs have far smaller weights, so that a scale of their own
    /// takes away their error.
    @Test func scalesForGroupsAreTakenWhereTheyNearlyHalveTheError() throws {
        func groupSize(quiet: Float) throws -> Int? {
            var generator = SplitMix64(state: 8)
            let weights = (0..<16 * 256).map { Float(generator.uniform() - 0.5) * ($0 % 256 < 128 ? 1 : quiet) }
            return try quantize([linear(Tensor(weights, shape: [16, 256]))], QuantizationOptions(.int8)).report.layers.first?
                .groupSize
        }
        #expect(try groupSize(quiet: 0.01) == 128)
        #expect(try groupSize(quiet: 0.9) == 256)
    }

    /// Without calibration, made-up tokens show what the channels behind a lookup table are like.
    @Test func tokensAreMadeUpWhereNoneAreGiven() throws {
        var generator = SplitMix64(state: 10)
        func weight(_ rows: Int, _ name: String, loud: Float) throws -> Constant {
            let numbers = (0..<rows * 64).map { Float(generator.uniform() - 0.5) * ($0 % 64 == 7 ? loud : 1) }
            return Constant(try Tensor(numbers, shape: [rows, 64]), identity: name)
        }
        var graph = Graph(name: "main")
        let ids = try graph.addInput("input_ids", ValueType(.int64, [Dimension(symbol: "batch"), Dimension(symbol: "length")]))
        let words = try graph.addConstant(weight(100, "words", loud: 30), name: "words")
        let states = try graph.add(Embedding(), [ids, words], name: "embedding")[0]
        let matrix = try graph.addConstant(weight(32, "matrix", loud: 1), name: "matrix")
        try graph.addOutput("y", graph.add(Linear(), [states, matrix], name: "linear")[0])
        let layer = try #require(quantize([graph], QuantizationOptions(.int8)).report.layers.first { $0.name == "matrix" })
        #expect(layer.note == nil && layer.outlierRatio ?? 0 > 10 && layer.scalingStrength ?? 0 > 0)
    }

    @Test func anOutputThatIsNoLongerFiniteIsTheWorst() throws {
        func graph(_ kind: Unary.Kind) throws -> Graph {
            var graph = Graph(name: "main")
            try graph.addOutput("y", graph.add(Unary(kind), [graph.addInput("x", ValueType(.float32, [2]))], name: "y")[0])
            return graph
        }
        let judge = try OutputJudge(
            [graph(.abs)], [GoldenSet(name: "", inputs: ["x": Tensor([1, -4] as [Float], shape: [2])])], .shared)
        #expect(try judge.worst([graph(.abs)]) == .infinity && judge.worst([graph(.relu)]).isFinite)
        #expect(try judge.worst([graph(.sqrt)]) == -.infinity)
    }

    /// Patches move up where one in front of them is dropped.
    @Test func imageTokensAreComparedByPatch() throws {
        func keeping(_ patches: [Int64]) throws -> Graph {
            var graph = Graph(name: "main")
            let image = try graph.addInput("image", ValueType(.float32, [2, 6, 4]))
            let numbers = try graph.addInput("numbers", ValueType(.int64, [2, 5]))
            func rows(_ value: ValueID, _ rows: [Int64]) throws -> ValueID {
                let indices = try graph.addConstant(Constant(Tensor(rows, shape: [rows.count]), identity: "\(rows)"), name: "rows")
                return try graph.add(Gather(axis: 1), [value, indices], name: "kept")[0]
            }
            // [CLS] and the patches.
            try graph.addOutput("tokens", rows(image, [0] + patches.map { $0 + 1 }))
            graph.addTrace("selection.1.positions", try rows(numbers, patches))
            return graph
        }
        var generator = SplitMix64(state: 5)
        let image = try Tensor((0..<48).map { _ in Float(generator.uniform()) }, shape: [2, 6, 4])
        let numbers = try Tensor((0..<2).flatMap { _ in (0..<5).map { Int64($0) } }, shape: [2, 5])
        let judge = try OutputJudge(
            [keeping([0, 1, 3])], [GoldenSet(name: "", inputs: ["image": image, "numbers": numbers])], .shared)
        let found = try judge.compare([keeping([1, 3, 4])])
        #expect(found.pooled == ["tokens": .infinity] && found.overlap == ["selection.1.positions": 0.5])
        // All rows have a partner, and each is another's.
        #expect(try judge.compare([keeping([3, 1, 0])]).pooled == ["tokens": .infinity])
        // The two last are fused tokens, of an earlier selection and of this one.
        let fused = try Tensor([0, 1, 2, -1, -1, 0, 1, 2, -1, -1] as [Int64], shape: [2, 5])
        let twice = try OutputJudge(
            [keeping([0, 1, 3, 4])], [GoldenSet(name: "", inputs: ["image": image, "numbers": fused])], .shared)
        #expect(try twice.compare([keeping([0, 2, 3, 4])]).pooled == ["tokens": .infinity])
    }

    /// A distillation token stands between [CLS] and the patches, and a word behind them.
    @Test func leadingTokensAndWordsKeepTheirPlaces() throws {
        func selecting(_ seed: Int) throws -> Graph {
            var graph = Graph(name: "main")
            let tokens = try graph.addInput("tokens", ValueType(.float32, [2, 8, 4]))
            let words = try graph.addInput("words", ValueType(.float32, [2, Dimension(symbol: "length"), 4]))
            let op = PatchSelection(heads: 1, keepRate: 0.5, guidance: .random, fusion: .none, seed: seed, leading: 2)
            let selected = try graph.add(op, [tokens, tokens], name: "select")
            try graph.addOutput("image", selected[0])
            try graph.addOutput("question", graph.add(Concat(axis: 1), [selected[0], words], name: "question")[0])
            for (part, value) in zip(SelectionTrace.Part.allCases, selected.dropFirst()) {
                graph.addTrace(SelectionTrace(layer: 1, part).name, value)
            }
            return graph
        }
        let golden = GoldenSet(name: "", inputs: ["tokens": try noise([2, 8, 4]), "words": try noise([2, 1, 4], seed: 2)])
        let found = try OutputJudge([selecting(1)], [golden], .shared).compare([selecting(2)])
        // Other patches are kept; those that both keep, and all other tokens, are the same.
        #expect(found.overlap.allSatisfy { $0.value < 1 } && found.overlap.count == 1)
        #expect(found.pooled == ["image": .infinity, "question": .infinity])
    }

    /// As golden sets have them: one for `encode`, one for `decode` that states what `encode` gives.
    @Test func eachGraphIsCalibratedOnTheInputsThatSufficeForIt() throws {
        let decode = try block("decode")
        var encode = Graph(name: "encode")
        let image = try encode.addInput("image", ValueType(.float32, [Dimension(symbol: "batch"), 64]))
        let weight = Constant(try Tensor((0..<64 * 64).map { Float($0 % 7) - 3 }, shape: [64, 64]), identity: "states")
        try encode.addOutput(
            "x", encode.add(Linear(), [image, encode.addConstant(weight, name: "states.weight")], name: "states")[0])
        var options = QuantizationOptions(.int8)
        let states = try samples(1)[0]
        options.calibration = [GoldenSet(name: "image", inputs: ["image": try #require(states.inputs["x"])]), states]
        let (_, report) = try quantize([encode, decode], options)
        #expect(Set(report.outputSNR.keys) == ["x", "y"] && report.outputSNR.values.allSatisfy { $0 > 30 && $0 < 80 })
        #expect(report.layers.allSatisfy { $0.outputSNR != nil } && report.unmeasuredOutputs.isEmpty)
        options.calibration = [states]
        let part = try quantize([encode, decode], options).1
        #expect(part.outputSNR.keys.sorted() == ["y"] && part.unmeasuredOutputs == ["x"])
    }

    @Test func calibrationInputsThatDoNotSuitAreBadDataOfTheirFile() throws {
        var options = QuantizationOptions(.int8)
        options.calibration =
            try samples(1) + [GoldenSet(name: "narrow", inputs: ["x": Tensor([1, 2, 3] as [Float], shape: [1, 3])])]
        #expect { try quantize([block()], options) } throws: { error in
            (error as? TripsError)?.kind == .data && (error as? TripsError)?.place.first == "narrow"
        }
        options.calibration[1].inputs["x"] = try Tensor([Float](repeating: .infinity, count: 64), shape: [1, 64])
        #expect { try quantize([block()], options) } throws: { error in
            (error as? TripsError)?.kind == .data
                && "\(error)" == "narrow: calibration input x; found NaN or infinity; expected finite numbers"
        }
        options.calibration = [try GoldenSet(name: "other", inputs: ["z": Tensor([1] as [Float], shape: [1])])]
        #expect { try quantize([block()], options) } throws: {
            ($0 as? TripsError)?.kind == .data && "\($0)".contains("found z; expected inputs of y")
        }
    }

    /// Without data there is none to ask for: places computed from ids may lie beyond their table, and a layer may read what
    /// is repeated for each picture, of which a text tells nothing.
    @Test func layersThatMadeUpTokensDoNotReachAreQuantizedToo() throws {
        var graph = Graph(name: "main")
        let images: ModelGraph.Dimension = .init(symbol: "images")
        let ids = try graph.addInput("ids", ValueType(.int64, [Dimension(symbol: "texts"), Dimension(symbol: "length")]))
        _ = try graph.addInput("image", ValueType(.float32, [images, 3, 8, 8]))
        func constant(_ name: String, _ shape: [Int]) throws -> ValueID {
            let numbers = (0..<shape.reduce(1, *)).map { Float($0 % 7) - 3 }
            return try graph.addConstant(Constant(Tensor(numbers, shape: shape), identity: name), name: name)
        }
        let far = try graph.add(
            Binary(.mul), [ids, graph.addConstant(Constant(integers: [100], shape: []), name: "100")], name: "far")[0]
        let rows = try graph.add(Embedding(), [far, constant("table", [16, 64])], name: "rows")[0]
        try graph.addOutput("words", graph.add(Linear(), [rows, constant("word.weight", [64, 64])], name: "word")[0])
        let sizes = try graph.addKnown(Content(sizes: [images, 1, 64], scalar: false), ValueType(.int64, [3]), name: "sizes")
        let queries = try graph.add(Expand(), [constant("query", [1, 1, 64]), sizes], name: "queries")[0]
        try graph.addOutput("pooled", graph.add(Linear(), [queries, constant("pool.weight", [64, 64])], name: "pool")[0])
        let (_, report) = try quantize([graph], QuantizationOptions(.int8))
        #expect(report.layers.map { "\($0.name) \($0.precision)" } == ["table int8", "word.weight int8", "pool.weight int8"])
    }

    /// As behind a ReLU: were silence taken for a range, the channel's first word would drown all others.
    @Test func channelsThatCalibrationLeftSilentMaySpeak() throws {
        var (generator, graph) = (SplitMix64(state: 7), Graph(name: "main"))
        func numbers(_ count: Int) -> [Float] { (0..<count).map { _ in Float(generator.uniform() - 0.5) } }
        let x = try graph.addInput("x", ValueType(.float32, [.init(symbol: "batch"), 64]))
        let weight = try graph.addConstant(Constant(Tensor(numbers(64 * 64), shape: [64, 64]), identity: "weight"), name: "weight")
        try graph.addOutput("y", graph.add(Linear(), [graph.add(Unary(.relu), [x], name: "relu")[0], weight], name: "linear")[0])
        let spoken = try Tensor(numbers(20 * 64), shape: [20, 64])
        let silent = try Tensor(spoken.elements(Float.self).enumerated().map { $0 % 64 < 4 ? -1 : $1 }, shape: [20, 64])
        var options = QuantizationOptions(.int8)
        options.calibration = [GoldenSet(name: "silent", inputs: ["x": silent])]
        let quantized = try quantize([graph], options).graphs
        #expect(try signalToNoise(run([graph], ["x": spoken]), run(quantized, ["x": spoken])) > 30)
    }

    @Test func weightsThatNoIntegerStandsForAreRefused() throws {
        func layer(_ weights: [Float], _ shape: [Int]) throws -> Graph {
            var graph = Graph(name: "main")
            let x = try graph.addInput("x", ValueType(.float32, [2, Dimension(shape[1])]))
            let weight = try graph.addConstant(Constant(Tensor(weights, shape: shape), identity: "w"), name: "weight")
            try graph.addOutput("y", graph.add(Linear(), [x, weight], name: "layer")[0])
            return graph
        }
        for number in [Float.nan, .infinity] {
            #expect { try quantize([layer([1, number], [1, 2])], QuantizationOptions(.int8)) } throws: { error in
                "\(error)" == "weight: weights to quantize; found NaN or infinity; expected finite numbers"
            }
        }
        let error = #expect(throws: TripsError.self) { try quantize([layer([], [3, 0])], QuantizationOptions(.int8)) }
        #expect(error?.kind == .usage && error?.message == "no layer can be quantized")
    }

    @Test func channelsThatAreTakenOutOfANormalisationAreNotTakenForItsOwn() throws {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [2, 64]))
        func known(_ tensor: Tensor, _ name: String) throws -> ValueID {
            try graph.addConstant(Constant(tensor, identity: name), name: name)
        }
        let gain = try known(Tensor([Float](repeating: 1, count: 64), shape: [64]), "gain")
        let normal = try graph.add(LayerNorm(epsilon: 1e-6), [x, gain], name: "norm")[0]
        let bounds = try [[0], [16], [1]].map { try known(Tensor($0.map { Int64($0) }, shape: [1]), "bound \($0)") }
        let part = try graph.add(Slice(), [normal] + bounds, name: "part")[0]
        let weight = try known(Tensor((0..<128).map { Float($0) }, shape: [8, 16]), "weight")
        try graph.addOutput("y", graph.add(Linear(), [part, weight], name: "layer")[0])
        let layer = try #require(try quantize([graph], QuantizationOptions(.int8)).report.layers.first)
        #expect(layer.note == "nothing is known of its input" && layer.outlierRatio == nil)
    }

    /// The sums over calibration data that rounding would look at grow with the square of the inputs.
    @Test func layersTooWideForTheCalibrationSaySo() throws {
        let inputs = 16385
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [1, Dimension(inputs)]))
        let numbers = (0..<inputs).map { Float($0 % 7) - 3 }
        let weight = try graph.addConstant(Constant(Tensor(numbers, shape: [1, inputs]), identity: "w"), name: "weight")
        try graph.addOutput("y", graph.add(Linear(), [x, weight], name: "layer")[0])
        var options = QuantizationOptions(.int8)
        #expect(try quantize([graph], options).report.layers.first?.note == "nothing is known of its input")
        options.calibration = [GoldenSet(name: "sample", inputs: ["x": try Tensor(numbers, shape: [1, inputs])])]
        #expect(
            try quantize([graph], options).report.layers.first?.note == "more than 16384 inputs: each weight is rounded by itself")
    }

    @Test func tracesThatAreNoPositionsAreNotCompared() throws {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [2, 4]))
        let weight = try graph.addConstant(
            Constant(Tensor((0..<16).map { Float($0) }, shape: [4, 4]), identity: "w"), name: "weight")
        try graph.addOutput("y", graph.add(Linear(), [x, weight], name: "layer")[0])
        graph.addTrace("selection.1.positions", try graph.add(Shape(), [x], name: "shape")[0])
        var options = QuantizationOptions(.int8)
        options.calibration = [GoldenSet(name: "g", inputs: ["x": try Tensor((0..<8).map { Float($0) }, shape: [2, 4])])]
        #expect(try quantize([graph], options).report.selectionOverlap.isEmpty)
    }

    /// As the verifier judges them: a sample of small numbers that loses much counts as much as one of large numbers.
    @Test func theWorstSampleDecides() throws {
        func graph(_ offset: Float, _ type: DataType) throws -> Graph {
            var graph = Graph(name: "main")
            let x = try graph.addInput("x", ValueType(.float32, [Dimension(symbol: "n")]))
            let added = try graph.addConstant(Constant(Tensor([offset] as [Float], shape: [1]), identity: "\(offset)"), name: "c")
            let sum = try graph.add(Binary(.add), [x, added], name: "sum")[0]
            try graph.addOutput("y", graph.add(Cast(to: type), [sum], name: "y")[0])
            return graph
        }
        func sample(_ numbers: [Float]) throws -> GoldenSet {
            GoldenSet(name: "", inputs: ["x": try Tensor(numbers, shape: [numbers.count])])
        }
        for type in [DataType.float32, .float16] {
            let judge = try OutputJudge([graph(0, type)], [sample([1000, -1000]), sample([1, -1])], .shared)
            let found = try judge.compare([graph(1, type)])
            // 0 dB for the second alone; its noise is as large as the first one's.
            #expect(found.lowest["y"] == 0 && abs((found.pooled["y"] ?? 0) - 57) < 0.1)
            #expect(try judge.worst([graph(1, type)]) == 0)
        }
        #expect(throws: TripsError.self) { try OutputJudge([graph(0, .float32)], [sample([])], .shared) }
    }

    @Test func aModelWithoutLayersIsRefused() throws {
        var graph = Graph(name: "main")
        try graph.addOutput("y", graph.add(Unary(.abs), [graph.addInput("x", ValueType(.float32, [2]))], name: "y")[0])
        let error = #expect(throws: TripsError.self) { try quantize([graph], QuantizationOptions(.int8)) }
        #expect(error?.kind == .usage)
    }

    @Test func aRatioWithNaNIsNaN() {
        #expect(snr([1, .nan], reference: [1, 2]).isNaN && snr([1], reference: [.infinity]).isNaN)
        #expect(snr([1, .nan, -.infinity], reference: [1, .nan, -.infinity]) == .infinity)
    }

    @Test func attentionOverQuantizedValuesIsQuantizedToo() throws {
        var generator = SplitMix64(state: 14)
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [2, 70, 32]))
        func projected(_ name: String) throws -> ValueID {
            let numbers = (0..<32 * 32).map { _ in Float(generator.uniform() - 0.5) }
            let weight = try graph.addConstant(Constant(Tensor(numbers, shape: [32, 32]), identity: name), name: name)
            return try graph.add(Linear(), [x, weight], name: "\(name) projection")[0]
        }
        let (q, k, v) = (try projected("query"), try projected("key"), try projected("value"))
        try graph.addOutput("y", graph.add(Attention(heads: 2), [q, k, v], name: "attention")[0])
        func attention(_ graphs: [Graph]) -> Attention? { graphs[0].nodes.compactMap { $0.op as? Attention }.first }

        let (graphs, report) = try quantize([graph], QuantizationOptions(.int8))
        #expect(report.attentions == 1 && attention(graphs)?.activations == .int8)
        let copy = try JSONDecoder().decode(Attention.self, from: JSONEncoder().encode(attention(graphs)))
        #expect(copy.activations == .int8)
        let older = try JSONDecoder().decode(Attention.self, from: Data(#"{"heads": 2, "causal": false}"#.utf8))
        #expect(older == Attention(heads: 2), "packages from before say nothing of it: in floating point")

        let input = ["x": try Tensor((0..<2 * 70 * 32).map { _ in Float(generator.uniform() - 0.5) }, shape: [2, 70, 32])]
        let model = Model(graphs: graphs, manifest: Manifest(tool: .init(name: "test", version: "")))
        let outputs = try [1, 3].map { try Session(model, threads: $0).run(input)["y"]?.elements(Float.self) ?? [] }
        #expect(!outputs[0].isEmpty && outputs[0].map(\.bitPattern) == outputs[1].map(\.bitPattern))
        // 8 bits for weights, rows, queries, keys, values and weights of the sum hold about 40 dB each.
        #expect(signalToNoise(try run([graph], input), outputs[0]) > 30)

        var narrow = QuantizationOptions(.int8)
        narrow.weightsOnly = true
        #expect(try attention(quantize([graph], narrow).graphs)?.activations == .float32)
        var keeping = QuantizationOptions(.int8)
        keeping.keep = ["value"]
        #expect(try attention(quantize([graph], keeping).graphs)?.activations == .float32)
    }

    @Test func patchScoresStayInFullPrecisionWhileTheirKeysAreQuantized() throws {
        var generator = SplitMix64(state: 13)
        var graph = Graph(name: "main")
        let tokens = try graph.addInput("tokens", ValueType(.float32, [1, 9, 16]))
        let guide = try graph.addInput("guide", ValueType(.float32, [1, 16]))
        func weight(_ name: String) throws -> ValueID {
            let numbers = (0..<256).map { _ in Float(generator.uniform() - 0.5) }
            return try graph.addConstant(Constant(Tensor(numbers, shape: [16, 16]), identity: name), name: name)
        }
        let bias = try graph.addConstant(
            Constant(Tensor([Float](repeating: 0.5, count: 16), shape: [16]), identity: "bias"), name: "bias")
        let keys = try graph.add(Linear(), [tokens, weight("key"), bias], name: "key")[0]
        let query = try graph.add(Linear(), [guide, weight("query")], name: "query")[0]
        let selected = try graph.add(PatchSelection(heads: 2, keepRate: 0.5), [tokens, keys, query], name: "selection")
        try graph.addOutput("scores", selected[2])
        try graph.addOutput("keys", keys)
        try graph.addOutput("y", graph.add(Linear(), [selected[0], weight("after")], name: "after")[0])
        let (quantized, report) = try quantize([graph], QuantizationOptions(.int8))
        #expect(report.layers.filter { $0.precision == .float32 }.map(\.name) == ["query"])
        let inputs = [
            "tokens": try Tensor((0..<144).map { _ in Float(generator.uniform() - 0.5) * 4 }, shape: [1, 9, 16]),
            "guide": try Tensor((0..<16).map { _ in Float(generator.uniform() - 0.5) * 4 }, shape: [1, 16]),
        ]
        func run(_ graphs: [Graph]) throws -> [String: Tensor] {
            try Session(Model(graphs: graphs, manifest: Manifest(tool: .init(name: "test", version: "")))).run(inputs)
        }
        let (before, after) = (try run([graph]), try run(quantized))
        func largestDifference(_ name: String) throws -> Float {
            let pairs = zip(try #require(before[name]).elements(Float.self), try #require(after[name]).elements(Float.self))
            return pairs.map { abs($0 - $1) }.max() ?? 0
        }
        // Another order of the same fp32 sums, against the rounding of int8.
        #expect(try largestDifference("scores") < 1e-6 && largestDifference("keys") > 1e-4)
    }
}
