import Foundation
import Importers
import ModelGraph
import Operators
import Support
import Tensors
import TestSupport
import Testing

/// The graph that a model of these parts becomes.
func imported(_ model: WireWriter) throws -> Graph {
    let folder = try TemporaryFolder()
    return try withExtendedLifetime(folder) {
        let graph = try #require(try importONNX(path: folder.write(model.bytes, "model.onnx")).graphs.first)
        try graph.validate()
        return graph
    }
}

private func operators(_ graph: Graph) -> [String] { graph.nodes.map { type(of: $0.op).name } }

@Suite struct ONNXImportTests {
    @Test func keepsNamesAndSymbols() throws {
        let graph = try imported(
            Onnx.model(
                Onnx.graph(
                    [Onnx.node("Add", ["image", "bias"], ["image_feat"], name: "add")],
                    inputs: [Onnx.value("image", ["batch", "text length", 3, ""])], outputs: [Onnx.value("image_feat", [1, 99])],
                    initializers: [Onnx.floats("bias", [1], [0.5])])))
        #expect(graph.inputs.map(graph.name(of:)) == ["image"])
        #expect(graph.type(of: graph.inputs[0]).description == "float32[batch, text_length, 3, image.3]")
        #expect(graph.outputs.map(\.name) == ["image_feat"])
        // What a file declares of its outputs is not trusted.
        #expect(graph.shape(of: graph.outputs[0].value) == graph.shape(of: graph.inputs[0]))
        #expect(graph.nodes.map(\.name) == ["add"])
    }

    @Test func keepsUnlikeSymbolsApart() throws {
        let graph = try imported(
            Onnx.model(
                Onnx.graph(
                    [Onnx.node("Relu", ["x"], ["y"])], inputs: [Onnx.value("x", ["a b", "a-b", "a b", "1"])])))
        #expect(graph.type(of: graph.inputs[0]).description == "float32[a_b, a_b_2, a_b, _1]")
    }

    @Test func readsNodesInAnyOrder() throws {
        let graph = try imported(
            Onnx.model(
                Onnx.graph([
                    Onnx.node("Relu", ["b"], ["y"]), Onnx.node("Exp", ["a"], ["b"]), Onnx.node("Neg", ["x"], ["a"]),
                ])))
        #expect(graph.nodes.compactMap { ($0.op as? Unary)?.kind } == [.neg, .exp, .relu])
    }

    @Test func takesDefaultsOfInputsAsConstants() throws {
        let graph = try imported(
            Onnx.model(
                Onnx.graph(
                    [Onnx.node("Mul", ["x", "scale"], ["y"])], inputs: [Onnx.value("x", [2, 3]), Onnx.value("scale", [1])],
                    initializers: [Onnx.floats("scale", [1], [2])])))
        #expect(graph.inputs.count == 1)
    }

    @Test func dropsWhatNothingReads() throws {
        let graph = try imported(Onnx.model(Onnx.graph([Onnx.node("Exp", ["x"], ["unused"]), Onnx.node("Relu", ["x"], ["y"])])))
        #expect(operators(graph) == ["Unary"])
    }

    @Test func followsShapesThatAreComputed() throws {
        let graph = try imported(
            Onnx.model(
                Onnx.graph(
                    [
                        Onnx.node("Shape", ["x"], ["shape"]), Onnx.node("Gather", ["shape", "zero"], ["batch"]),
                        Onnx.node("Unsqueeze", ["batch", "axes"], ["batch1"]),
                        Onnx.node("Concat", ["batch1", "rest"], ["target"], [Onnx.attribute("axis", int: 0)]),
                        Onnx.node("Reshape", ["x", "target"], ["y"]),
                    ],
                    inputs: [Onnx.value("x", ["batch", 4, 6])],
                    initializers: [
                        Onnx.int64s("zero", [], [0]), Onnx.int64s("axes", [1], [0]), Onnx.int64s("rest", [3], [2, -1, 6]),
                    ])))
        #expect(operators(graph) == ["Reshape"])
        #expect(graph.type(of: graph.outputs[0].value).description == "float32[batch, 2, 2, 6]")
    }

    /// What exporters write for "the smaller of two sizes" and for "each size from here on".
    @Test func followsComparisonsAndRangesOfSizes() throws {
        let graph = try imported(
            Onnx.model(
                Onnx.graph(
                    [
                        Onnx.node("Shape", ["x"], ["shape"]), Onnx.node("Gather", ["shape", "zero"], ["batch"]),
                        Onnx.node("Add", ["batch", "two"], ["more"]),
                        Onnx.node("Less", ["batch", "more"], ["isLess"]),
                        Onnx.node("Where", ["isLess", "batch", "more"], ["smaller"]),
                        Onnx.node("Mul", ["smaller", "two"], ["twice"]), Onnx.node("Range", ["twice", "end", "two"], ["range"]),
                        Onnx.node("Add", ["twice", "two"], ["end"]),
                        Onnx.node("Concat", ["range", "rest"], ["target"], [Onnx.attribute("axis", int: 0)]),
                        Onnx.node("Reshape", ["x", "target"], ["y"]),
                    ],
                    inputs: [Onnx.value("x", ["batch", 4, 6])],
                    initializers: [Onnx.int64s("zero", [], [0]), Onnx.int64s("two", [], [2]), Onnx.int64s("rest", [2], [2, 6])])))
        #expect(operators(graph) == ["Reshape"])
        #expect(graph.type(of: graph.outputs[0].value).description == "float32[2*batch, 2, 6]")
    }

    /// `table[ids]` of PyTorch's newer exporter.
    @Test func rowsOfATableAreGathered() throws {
        let graph = try imported(
            Onnx.model(
                Onnx.graph(
                    [Onnx.node("Unsqueeze", ["ids", "last"], ["indices"]), Onnx.node("GatherND", ["table", "indices"], ["y"])],
                    inputs: [Onnx.value("ids", ["batch", 5], type: 7)],
                    initializers: [Onnx.int64s("last", [1], [-1]), Onnx.floats("table", [3, 2], [1, 2, 3, 4, 5, 6])])))
        #expect(operators(graph) == ["Unsqueeze", "Squeeze", "Gather"])
        #expect(graph.type(of: graph.outputs[0].value).description == "float32[batch, 5, 2]")
    }

    // MARK: Versions of operators

    @Test func readsAxesFromEitherPlace() throws {
        let old = try imported(
            Onnx.model(
                Onnx.graph([
                    Onnx.node("Unsqueeze", ["x"], ["a"], [Onnx.attribute("axes", ints: [0])]),
                    Onnx.node("ReduceSum", ["a"], ["y"], [Onnx.attribute("axes", ints: [2]), Onnx.attribute("keepdims", int: 0)]),
                ]), opset: 11))
        let new = try imported(
            Onnx.model(
                Onnx.graph(
                    [
                        Onnx.node("Unsqueeze", ["x", "first"], ["a"]),
                        Onnx.node("ReduceSum", ["a", "last"], ["y"], [Onnx.attribute("keepdims", int: 0)]),
                    ], initializers: [Onnx.int64s("first", [1], [0]), Onnx.int64s("last", [1], [2])])))
        #expect(old.structure == new.structure)
        #expect(old.type(of: old.outputs[0].value).description == "float32[1, 2]")
    }

    /// Where it is 1.702, the factor is what makes x · sigmoid(αx) the quick GELU.
    @Test func readsSwishWithItsFactor() throws {
        let graph = try imported(
            Onnx.model(
                Onnx.graph([Onnx.node("Swish", ["x"], ["y"], [Onnx.attribute("alpha", float: 1.702)])]), opset: 24))
        #expect(graph.nodes.map { $0.op as? Unary } == [Unary(.swish, alpha: 1.702)])
        #expect(graph.name(of: graph.outputs[0].value) == "y")
    }

    /// A window changes what each query sees; so does the number of keys that are no padding, which the operator takes.
    @Test func readsOfNewerAttentionWhatTheOperatorTakes() throws {
        func attention(_ attributes: [WireWriter], _ inputs: [String] = []) -> WireWriter {
            let heads = ["q_num_heads", "kv_num_heads"].map { Onnx.attribute($0, int: 2) }
            return Onnx.model(
                Onnx.graph(
                    [Onnx.node("Attention", ["x", "x", "x"] + inputs, ["y"], heads + attributes)],
                    inputs: [Onnx.value("x", [1, 3, 8])],
                    initializers: [Onnx.int64s("n", [1], [2])]), opset: 25)
        }
        let graph = try imported(attention([Onnx.attribute("left_window_size", int: -1)]))
        #expect(operators(graph).contains("OnnxAttention"))
        #expect { try imported(attention([Onnx.attribute("right_window_size", int: 0)])) } throws: {
            "\($0)".contains("attribute right_window_size; found 0")
        }
        let padded = try imported(attention([], ["", "", "", "n"]))
        #expect(padded.nodes.first { $0.op is OnnxAttention }?.input(6) != nil)
    }

    /// What a node of known operands gives, as onnx.reference and ONNX Runtime computed it.
    private func result(
        _ type: String, _ operands: [String], _ attributes: [WireWriter] = [], domain: String = ""
    ) throws -> [Double] {
        func scalar(_ name: String, _ number: UInt8, type: Int = 2) -> WireWriter {
            Onnx.tensor(name, [], type: type).blob(9, [number])
        }
        let tensors = [
            Onnx.tensor("image", [1, 2, 3, 3], type: 2).blob(9, raw((0..<18).map { UInt8(50 + 5 * $0) })),
            Onnx.tensor("kernel", [3, 2, 2, 2], type: 3).blob(9, raw((0..<24).map { Int8($0 - 12) })),
            Onnx.tensor("kernel_bias", [3], type: 6).blob(9, raw([Int32(4), -8, 0])),
            Onnx.floats("deep", [1, 8, 3, 3], (0..<72).map { Float($0) }),
            Onnx.tensor("a", [2, 3], type: 2).blob(9, [90, 109, 100, 103, 97, 80]),
            Onnx.tensor("b", [2, 3], type: 2).blob(9, [95, 91, 120, 64, 93, 99]),
            Onnx.tensor("m", [3, 2], type: 3).blob(9, raw([Int8(1), -4, 2, 5, -3, 6])),
            Onnx.tensor("c", [2], type: 6).blob(9, raw([Int32(8), -3])),
            Onnx.tensor("which", [2, 3], type: 9).blob(9, [1, 0, 1, 0, 0, 1]),
            scalar("z", 93), scalar("zero", 0), scalar("one", 1, type: 3),
            Onnx.floats("half", [], [0.5]), Onnx.floats("quarter", [], [0.25]), Onnx.floats("large", [], [4.1]),
            Onnx.floats("odd", [], [0.53]), Onnx.floats("small", [], [0.013]), Onnx.floats("scales", [3], [0.25, 0.5, 1]),
        ]
        let node = Onnx.node(type, operands, ["y"], attributes, domain: domain)
        let graph = try imported(Onnx.model(Onnx.graph([node], inputs: [Onnx.value("unread", [1])], initializers: tensors)))
        return try #require(graph.evaluated()[graph.outputs[0].value]).numbers()
    }

    /// Products of the numbers that the integers stand for; a bias is in the scale of the sums.
    @Test func readsProductsOfIntegers() throws {
        let convolved = try result("QLinearConv", ["image", "half", "z", "kernel", "scales", "", "large", "z", "kernel_bias"])
        #expect(convolved == [128, 118, 97, 87, 121, 120, 118, 116, 69, 105, 178, 215])
        let product = ["a", "half", "z", "m", "quarter", "one", "odd", "z"]
        #expect(try result("QLinearMatMul", product) == [90, 120, 106, 70])
        #expect(throws: TripsError.self) { try result("QLinearMatMul", product + ["kernel_bias"]) }
    }

    @Test func readsWhatONNXRuntimeAddsForIntegers() throws {
        func own(_ type: String, _ operands: [String], _ attributes: [WireWriter] = []) throws -> [Double] {
            try result(type, operands, attributes, domain: "com.microsoft")
        }
        let (a, b) = (["a", "half", "z"], ["b", "quarter", "z"])
        #expect(try own("DequantizeLinear", a) == [-1.5, 8, 3.5, 5, 2, -6.5])
        #expect(try own("DequantizeLinear", ["kernel_bias", "scales"], [Onnx.attribute("axis", int: 0)]) == [1, -4, 0])
        #expect(try own("QuantizeLinear", ["scales", "quarter", "z"]) == [94, 95, 97])
        #expect(try own("QLinearWhere", ["which"] + a + b + ["odd", "z"]) == [90, 92, 100, 79, 93, 81])
        let window = [Onnx.attribute("kernel_shape", ints: [2, 2]), Onnx.attribute("pads", ints: [1, 0, 0, 1])]
        let pooled = try own("QLinearAveragePool", ["image", "half", "z", "odd", "z"], window)
        #expect(pooled == [55, 60, 62, 62, 67, 69, 76, 81, 83, 97, 102, 104, 104, 109, 111, 118, 123, 126])
        #expect(try own("QLinearAdd", a + b + ["odd", "z"]) == [91, 107, 112, 89, 97, 84])
        #expect(try own("QLinearMul", a + b + ["odd", "z"]) == [92, 85, 138, 25, 93, 75])
        #expect(try own("QLinearSigmoid", a + ["small", "zero"]) == [14, 77, 75, 76, 68, 0])
        #expect(
            try own("QLinearLeakyRelu", a + ["odd", "z"], [Onnx.attribute("alpha", float: 0.2)]) == [92, 108, 100, 102, 97, 91])
        let joined = try own("QLinearConcat", ["odd", "z"] + a + b, [Onnx.attribute("axis", int: 0)])
        #expect(joined == [90, 108, 100, 102, 97, 81, 94, 92, 106, 79, 93, 96])
        let product = a + ["m", "quarter", "one", "c"]
        #expect(try own("QGemm", product + ["odd", "z"]) == [92, 119, 108, 69])
        #expect(try own("QGemm", product) == [-0.5, 13.875, 8, -12.75])
        // ONNX Runtime takes exponentials from a table of integers.
        let softmax = (["a", "quarter", "z", "small", "zero"], [Onnx.attribute("axis", int: -1)])
        let found = try own("QLinearSoftmax", softmax.0, softmax.1 + [Onnx.attribute("opset", int: 13)])
        #expect(zip(found, [1, 68, 7, 62, 14, 0]).allSatisfy { abs($0 - $1) <= 1 })
        let older = [Onnx.attribute("axis", int: 0), Onnx.attribute("opset", int: 11)]
        #expect(throws: TripsError.self) { try own("QLinearSoftmax", softmax.0, older) }
        #expect(throws: TripsError.self) { try own("QLinearAdd", a) }
    }

    /// By ONNX's definitions: of channels that hold blocks first or last, and the way back.
    @Test func movesBlocksBetweenChannelsAndPlaces() throws {
        let side = 3
        let size = [Onnx.attribute("blocksize", int: 2)]
        func element(_ channel: Int, _ row: Int, _ column: Int) -> Double { Double((channel * side + row) * side + column) }
        for (mode, isFirst) in [("DCR", true), ("CRD", false)] {
            var expected: [Double] = []
            for (channel, row, column) in (0..<72).map({ ($0 / 36, $0 / 6 % 6, $0 % 6) }) {
                let block = row % 2 * 2 + column % 2
                expected.append(element(isFirst ? block * 2 + channel : channel * 4 + block, row / 2, column / 2))
            }
            #expect(try result("DepthToSpace", ["deep"], size + [Onnx.attribute("mode", text: mode)]) == expected)
        }
        let open = try imported(
            Onnx.model(
                Onnx.graph(
                    [Onnx.node("DepthToSpace", ["x"], ["a"], size), Onnx.node("SpaceToDepth", ["a"], ["y"], size)],
                    inputs: [Onnx.value("x", ["batch", 8, "height", "width"])])))
        #expect(open.type(of: open.outputs[0].value).description == "float32[batch, 8, height, width]")
        let x = try Tensor((0..<72).map { Float($0) }, shape: [1, 8, 3, 3])
        var numbers = [open.inputs[0]: x]
        var bound = open
        try bound.bind(["batch": 1, "height": 3, "width": 3])
        for node in bound.nodes {
            let operands = try node.inputs.map { input in try input.flatMap { try numbers[$0] ?? bound.operand($0).tensor() } }
            numbers[node.output] = try evaluate(node.op, operands)[0]
        }
        #expect(try numbers[bound.outputs[0].value]?.elements(Float.self) == x.elements())
        for refused in [
            [], [Onnx.attribute("blocksize", int: 0)], [Onnx.attribute("blocksize", int: 3)],
            [Onnx.attribute("blocksize", int: .max)],
        ] {
            #expect(throws: TripsError.self) { try result("DepthToSpace", ["deep"], refused) }
        }
        #expect(throws: TripsError.self) { try result("SpaceToDepth", ["deep"], size) }
        #expect(throws: TripsError.self) { try result("SpaceToDepth", ["a"], size) }
    }

    @Test func onesAlongADiagonal() throws {
        #expect(try result("EyeLike", ["a"], [Onnx.attribute("k", int: 1)]) == [0, 1, 0, 0, 0, 1])
        #expect(
            try result("EyeLike", ["m"], [Onnx.attribute("k", int: -1), Onnx.attribute("dtype", int: 1)]) == [0, 0, 1, 0, 0, 1])
        #expect(try result("EyeLike", ["a"], [Onnx.attribute("k", int: .max)]) == [0, 0, 0, 0, 0, 0])
        #expect(throws: TripsError.self) { try result("EyeLike", ["image"]) }
        let open = try imported(
            Onnx.model(Onnx.graph([Onnx.node("EyeLike", ["x"], ["y"])], inputs: [Onnx.value("x", ["rows", "columns"], type: 7)])))
        #expect(open.type(of: open.outputs[0].value).description == "int64[rows, columns]")
    }

    @Test func normalisesOldSoftmaxOverAMatrix() throws {
        func model(_ opset: Int, _ attributes: [WireWriter]) -> WireWriter {
            Onnx.model(
                Onnx.graph([Onnx.node("Softmax", ["x"], ["y"], attributes)], inputs: [Onnx.value("x", [2, 3, 4])]), opset: opset)
        }
        let old = try imported(model(11, []))
        #expect(operators(old).sorted() == ["Flatten", "Reshape", "Softmax"])
        #expect(old.type(of: old.outputs[0].value).description == "float32[2, 3, 4]")
        #expect(operators(try imported(model(11, [Onnx.attribute("axis", int: 2)]))) == ["Softmax"])
        #expect((try imported(model(13, [])).nodes[0].op as? Softmax)?.axis == -1)
    }

    @Test func splitsByAttributeOperandAndCount() throws {
        for (opset, attributes, inputs) in [
            (11, [Onnx.attribute("axis", int: 1), Onnx.attribute("split", ints: [1, 2])], ["x"]),
            (13, [Onnx.attribute("axis", int: 1)], ["x", "sizes"]),
            (18, [Onnx.attribute("axis", int: -1), Onnx.attribute("num_outputs", int: 2)], ["x"]),
        ] {
            let graph = try imported(
                Onnx.model(
                    Onnx.graph(
                        [Onnx.node("Split", inputs, ["y", "z"], attributes)], outputs: [Onnx.value("y", []), Onnx.value("z", [])],
                        initializers: [Onnx.int64s("sizes", [2], [1, 2])]), opset: opset))
            let shapes = graph.outputs.map { graph.type(of: $0.value).description }
            #expect(shapes == (opset == 18 ? ["float32[2, 2]", "float32[2, 1]"] : ["float32[2, 1]", "float32[2, 2]"]))
        }
    }

    @Test func dropoutIsNothingOutsideTraining() throws {
        let graph = try imported(
            Onnx.model(
                Onnx.graph(
                    [Onnx.node("Dropout", ["x", "", "training"], ["a", "mask"]), Onnx.node("Relu", ["a"], ["y"])],
                    outputs: [Onnx.value("y", []), Onnx.value("mask", [])],
                    initializers: [Onnx.tensor("training", [], type: 9).blob(9, [0])])))
        #expect(operators(graph) == ["Unary"])
        #expect(graph.type(of: graph.outputs[1].value).description == "bool[2, 3]")
        #expect(throws: TripsError.self) {
            try imported(
                Onnx.model(
                    Onnx.graph(
                        [Onnx.node("Dropout", ["x", "", "training"], ["y"])],
                        initializers: [Onnx.tensor("training", [], type: 9).blob(9, [1])])))
        }
    }

    /// Four of six elements are turned, in heads that have an axis of their own or lie side by side, by rows of tables.
    @Test(arguments: [false, true], [false, true]) func turnsPairsByTheirPlaces(interleaved: Bool, flat: Bool) throws {
        let (tokens, width, places) = (3, 6, [2, 0, 1])
        let shape = flat ? [1, tokens, 2 * width] : [1, 2, tokens, width]
        let (cosines, sines) = ([0.5, 2, 3, -1, 0.25, 1] as [Float], [4, 1, -2, 0.5, 3, 2] as [Float])
        let graph = try imported(
            Onnx.model(
                Onnx.graph(
                    [
                        Onnx.node(
                            "RotaryEmbedding", ["x", "cosines", "sines", "places"], ["y"],
                            [
                                Onnx.attribute("interleaved", int: interleaved ? 1 : 0),
                                Onnx.attribute("num_heads", int: flat ? 2 : 0),
                                Onnx.attribute("rotary_embedding_dim", int: 4),
                            ])
                    ],
                    inputs: [Onnx.value("x", shape)], outputs: [Onnx.value("y", shape)],
                    initializers: [
                        Onnx.floats("cosines", [3, 2], cosines), Onnx.floats("sines", [3, 2], sines),
                        Onnx.int64s("places", [1, 3], places.map { Int64($0) }),
                    ]), opset: 23))
        let x = (0..<2 * tokens * width).map { Float($0 * 7 % 11) - 4 }
        var expected = x
        for (head, token, pair) in (0..<12).map({ ($0 / 6, $0 / 2 % 3, $0 % 2) }) {
            let start = flat ? (token * 2 + head) * width : (head * tokens + token) * width
            let (a, b) = interleaved ? (start + 2 * pair, start + 2 * pair + 1) : (start + pair, start + pair + 2)
            let (cosine, sine) = (cosines[places[token] * 2 + pair], sines[places[token] * 2 + pair])
            (expected[a], expected[b]) = (x[a] * cosine - x[b] * sine, x[a] * sine + x[b] * cosine)
        }
        let y = try #require(graph.evaluated(["x": Tensor(x, shape: shape)])[graph.outputs[0].value])
        #expect(try y.shape == shape && y.elements(Float.self) == expected)
    }

    @Test func refusesAttributesThatItDoesNotKnow() throws {
        #expect(throws: TripsError.self) {
            try imported(Onnx.model(Onnx.graph([Onnx.node("Relu", ["x"], ["y"], [Onnx.attribute("slope", float: 1)])])))
        }
        #expect(throws: TripsError.self) {
            try imported(Onnx.model(Onnx.graph([Onnx.node("Relu", ["x", "x"], ["y"])])))
        }
    }

    // MARK: Functions

    @Test func inlinesFunctions() throws {
        let leaky = Onnx.function(
            "Leaky", ["a"], ["b"],
            [
                Onnx.node("LeakyRelu", ["a"], ["t"], [Onnx.attribute("alpha", reference: "slope", type: 1)]),
                Onnx.node("Neg", ["t"], ["b"]),
            ], defaults: [Onnx.attribute("slope", float: 0.25)])
        let twice = Onnx.function(
            "Twice", ["a"], ["b"],
            [
                Onnx.node("Leaky", ["a"], ["t"], [Onnx.attribute("slope", float: 0.5)], domain: "local"),
                Onnx.node("Leaky", ["t"], ["b"], domain: "local"),
            ])
        let graph = try imported(
            Onnx.model(
                Onnx.graph([Onnx.node("Twice", ["x"], ["y"], domain: "local", name: "call")]), functions: [leaky, twice]))
        let kinds = graph.nodes.compactMap { $0.op as? Unary }
        #expect(kinds.map(\.kind) == [.leakyRelu, .neg, .leakyRelu, .neg])
        #expect(kinds.compactMap(\.alpha) == [0.5, 0.25])
    }

    @Test func refusesFunctionsThatCallThemselvesOrExplode() throws {
        let call = Onnx.graph([Onnx.node("F0", ["x"], ["y"], domain: "local")])
        let loop = Onnx.function("F0", ["a"], ["b"], [Onnx.node("F0", ["a"], ["b"], domain: "local")])
        #expect { try imported(Onnx.model(call, functions: [loop])) } throws: { "\($0)".contains("calls itself") }
        let bomb = (0..<30).map { level in
            Onnx.function(
                "F\(level)", ["a"], ["b"],
                [
                    Onnx.node(level == 29 ? "Relu" : "F\(level + 1)", ["a"], ["t"], domain: level == 29 ? "" : "local"),
                    Onnx.node(level == 29 ? "Relu" : "F\(level + 1)", ["t"], ["b"], domain: level == 29 ? "" : "local"),
                ])
        }
        #expect { try imported(Onnx.model(call, functions: bomb)) } throws: { "\($0)".contains("too many nodes") }
    }

    // MARK: What is refused

    @Test func reportsAllUnsupportedOperatorsAtOnce() throws {
        // The unused Loop is in the inventory, but in nobody's way.
        let model = Onnx.model(
            Onnx.graph([
                Onnx.node("Loop", ["x"], ["unused"]), Onnx.node("LSTM", ["x"], ["a"], name: "first"),
                Onnx.node("LSTM", ["a"], ["b"]),
                Onnx.node("Gelu", ["b"], ["c"]), Onnx.node("FusedGelu", ["c"], ["y"], domain: "com.microsoft"),
                Onnx.node("Relu", ["x"], ["d"]),
            ]))
        let folder = try TemporaryFolder()
        let path = try folder.write(model.bytes, "model.onnx")
        let error = #expect(throws: TripsError.self) { try importONNX(path: path) }
        #expect(
            error?.description == """
                model.onnx: unsupported operators
                  Gelu (ai.onnx 17), 1 of them, first "c": not in the operator set before version 20
                  LSTM (ai.onnx 17), 2 of them, first "first": unknown operator
                  FusedGelu (com.microsoft 0), 1 of them, first "y": unknown operator
                """)
        let inventory = try operatorInventory(path: path)
        #expect(inventory.map(\.name) == ["Gelu", "LSTM", "Loop", "Relu", "FusedGelu"])
        #expect(inventory.map(\.count) == [1, 2, 1, 1, 1])
        #expect(inventory.map(\.isSupported) == [false, false, false, true, false])
    }

    @Test(arguments: [4, 12, 14]) func readsOldAndNewFiles(ir: Int) throws {
        let graph = try imported(Onnx.model(Onnx.graph([Onnx.node("Relu", ["x"], ["y"])]), opset: 17, ir: ir))
        #expect(operators(graph) == ["Unary"])
    }

    @Test(arguments: [(17, 3), (17, 15), (10, 8), (28, 8)])
    func refusesOtherVersions(opset: Int, ir: Int) throws {
        #expect { try imported(Onnx.model(Onnx.graph([Onnx.node("Relu", ["x"], ["y"])]), opset: opset, ir: ir)) } throws: { error in
            let error = try #require(error as? TripsError)
            return error.kind == .data && error.found == "\(ir == 8 ? opset : ir)"
                && error.expected == (ir == 8 ? "11 to 27" : "4 to 14")
        }
    }

    @Test(arguments: [
        ("cycle", [Onnx.node("Add", ["x", "b"], ["a"]), Onnx.node("Relu", ["a"], ["b"]), Onnx.node("Relu", ["b"], ["y"])]),
        ("nothing defines", [Onnx.node("Add", ["x", "ghost"], ["y"])]),
        ("nothing defines", [Onnx.node("Relu", ["x"], ["z"])]),
        ("two values have one name", [Onnx.node("Relu", ["x"], ["y"]), Onnx.node("Exp", ["x"], ["y"])]),
        ("two values have one name", [Onnx.node("Relu", ["x"], ["x"]), Onnx.node("Relu", ["x"], ["y"])]),
        ("input 1", [Onnx.node("Add", ["x"], ["y"])]),
        ("number of inputs; found 2; expected at most 1", [Onnx.node("Relu", ["x", "x"], ["y"])]),
        ("number of inputs; found 3; expected at most 2", [Onnx.node("MatMul", ["x", "x", "x"], ["y"])]),
        ("number of outputs", [Onnx.node("Relu", ["x"], ["y", "z"])]),
        ("twice", [Onnx.node("Flatten", ["x"], ["y"], [Onnx.attribute("axis", int: 0), Onnx.attribute("axis", int: 1)])]),
        ("attribute axis", [Onnx.node("Flatten", ["x"], ["y"], [Onnx.attribute("axis", float: 0)])]),
        ("axis out of range", [Onnx.node("Flatten", ["x"], ["y"], [Onnx.attribute("axis", int: .max)])]),
        ("axis out of range", [Onnx.node("Softmax", ["x"], ["y"], [Onnx.attribute("axis", int: .min)])]),
        ("permutation", [Onnx.node("Transpose", ["x"], ["y"], [Onnx.attribute("perm", ints: [0])])]),
        ("given twice", [Onnx.node("Transpose", ["x"], ["y"], [Onnx.attribute("perm", ints: [0, 0])])]),
    ])
    func refusesGraphsThatAreNone(message: String, nodes: [WireWriter]) throws {
        #expect { try imported(Onnx.model(Onnx.graph(nodes))) } throws: { error in
            "\(error)".contains(message) && (error as? TripsError)?.kind == .data
        }
    }

    /// What an attribute asks for, and what of it is computed.
    @Test(
        arguments: [
            ("BatchNormalization", ["x", "w", "w", "w", "w"], "training_mode", 1, 17, "training mode"),
            ("BatchNormalization", ["x", "w", "w", "w", "w"], "training_mode", 0, 17, nil),
            ("LayerNormalization", ["x", "w"], "stash_type", 10, 17, "stash_type"),
            ("LayerNormalization", ["x", "w"], "stash_type", 1, 17, nil),
            ("Attention", ["q", "q", "q"], "softmax_precision", 11, 23, "softmax_precision"),
            ("Attention", ["q", "q", "q"], "softmax_precision", 1, 23, nil),
            ("Attention", ["q", "q", "q"], "qk_matmul_output_mode", 4, 23, "0 to 3"),
            ("Attention", ["q", "q", "q"], "qk_matmul_output_mode", 3, 23, nil),
            ("QuantizeLinear", ["x", "s"], "precision", 10, 23, "precision"),
            ("QuantizeLinear", ["x", "s"], "precision", 1, 23, nil),
            ("DequantizeLinear", ["i", "s"], "output_dtype", 10, 23, "output_dtype"),
            ("DequantizeLinear", ["i", "s"], "output_dtype", 1, 23, nil),
            ("Split", ["x"], "num_outputs", 2, 18, "num_outputs"), ("Split", ["x"], "num_outputs", 1, 18, nil),
        ] as [(String, [String], String, Int, Int, String?)])
    func refusesAttributesOfWhatIsNotComputed(
        type: String, operands: [String], attribute: String, number: Int, opset: Int, refusal: String?
    )
        throws
    {
        let model = Onnx.model(
            Onnx.graph(
                [Onnx.node(type, operands, ["y"], [Onnx.attribute(attribute, int: number)])],
                inputs: [Onnx.value("x", [2, 3]), Onnx.value("q", [1, 2, 5, 4]), Onnx.value("i", [2, 3], type: 3)],
                initializers: [Onnx.floats("w", [3], [1, 1, 1]), Onnx.floats("s", [], [1])]), opset: opset)
        guard let refusal else {
            #expect(try imported(model).outputs.count == 1)
            return
        }
        #expect { try imported(model) } throws: { ($0 as? TripsError)?.kind == .data && "\($0)".contains(refusal) }
    }

    @Test func readsAttributesThatAreWords() throws {
        func made(_ type: String, _ operands: [String], _ attribute: String, _ word: String) throws -> Node? {
            try imported(
                Onnx.model(
                    Onnx.graph(
                        [Onnx.node(type, operands, ["y"], [Onnx.attribute(attribute, text: word)])],
                        inputs: [Onnx.value("x", [2, 3]), Onnx.value("u", [2, 3], type: 2)]), opset: 20)
            ).nodes.first
        }
        #expect(try made("Gelu", ["x"], "approximate", "none")?.op as? GELU == GELU(.erf))
        #expect(try made("Gelu", ["x"], "approximate", "tanh")?.op as? GELU == GELU(.tanh))
        #expect(try made("BitShift", ["u", "u"], "direction", "LEFT")?.op as? Binary == Binary(.shiftLeft))
        #expect(try made("BitShift", ["u", "u"], "direction", "RIGHT")?.op as? Binary == Binary(.shiftRight))
        for (type, operands, attribute) in [("Gelu", ["x"], "approximate"), ("BitShift", ["u", "u"], "direction")] {
            #expect { try made(type, operands, attribute, "sigmoid") } throws: { "\($0)".contains("attribute \(attribute)") }
        }
    }

    /// Extremes, sums and means of any number of values, each beside the next; and places that pooling puts out where they are asked for.
    @Test func takesOperatorsOfAnyNumberOfValues() throws {
        func graph(_ type: String, _ operands: [String], _ results: [String], _ attributes: [WireWriter] = []) throws -> Graph {
            try imported(
                Onnx.model(
                    Onnx.graph(
                        [Onnx.node(type, operands, results, attributes)],
                        inputs: [Onnx.value("x", [1, 2, 4]), Onnx.value("z", [1, 2, 4])],
                        outputs: results.filter { !$0.isEmpty }.map { Onnx.value($0, []) })))
        }
        #expect(try operators(graph("Max", ["x", "z", "x"], ["y"])) == ["Binary", "Binary"])
        #expect(try operators(graph("Mean", ["x", "z", "x"], ["y"])) == ["Binary", "Binary", "Binary"])
        #expect(try graph("Max", ["x", "z", "x"], ["y"]).outputs.map(\.name) == ["y"])
        let kernel = [Onnx.attribute("kernel_shape", ints: [2])]
        for (results, isAsked) in [(["y"], false), (["y", ""], false), (["y", "places"], true)] {
            let pooled = try graph("MaxPool", ["x"], results, kernel)
            #expect((pooled.nodes.first?.op as? MaxPool)?.indices == isAsked)
            #expect(pooled.outputs.count == (isAsked ? 2 : 1))
        }
    }

    /// Whether what was dropped is known: with a ratio of 0 nothing is, in training either.
    @Test(arguments: [(0, true), (0.5, false)] as [(Float, Bool)]) func refusesDropoutInTrainingUnlessItDropsNothing(
        ratio: Float, isNothing: Bool
    ) throws {
        let model = Onnx.model(
            Onnx.graph(
                [Onnx.node("Dropout", ["x", "ratio", "training"], ["a"]), Onnx.node("Relu", ["a"], ["y"])],
                initializers: [Onnx.floats("ratio", [], [ratio]), Onnx.tensor("training", [], type: 9).blob(9, [1])]))
        if isNothing {
            #expect(try operators(imported(model)) == ["Unary"])
        } else {
            #expect { try imported(model) } throws: { "\($0)".contains("training_mode of Dropout") }
        }
    }

    @Test func refusesTwoNamesOfOneKind() throws {
        let relu = Onnx.node("Relu", ["x"], ["y"])
        let one = Onnx.floats("w", [1], [1])
        #expect(throws: TripsError.self) { try imported(Onnx.model(Onnx.graph([relu], initializers: [one, one]))) }
        let x = Onnx.value("x", [1])
        #expect(throws: TripsError.self) { try imported(Onnx.model(Onnx.graph([relu], inputs: [x, x]))) }
        let y = Onnx.value("y", [1])
        #expect(throws: TripsError.self) { try imported(Onnx.model(Onnx.graph([relu], outputs: [y, y]))) }
        #expect(throws: TripsError.self) { try imported(Onnx.model(Onnx.graph([relu], outputs: []))) }
    }
}
