import Importers
import ModelGraph
import Operators
import Support
import Tensors
import TestSupport
import Testing

/// The operators that ONNX Runtime's optimizers write, beside the numbers that ONNX Runtime 1.32 computed without optimizing.
@Suite struct ONNXOptimizedTests {
    private static let tensors: [WireWriter] = {
        func scalar(_ name: String, _ number: UInt8) -> WireWriter { Onnx.tensor(name, [], type: 2).blob(9, [number]) }
        func ints(_ name: String, _ shape: [Int], _ numbers: [Int32]) -> WireWriter {
            Onnx.tensor(name, shape, type: 6).blob(9, raw(numbers))
        }
        let (x, y): ([Float], [Float]) = ([0.5, -1, 2, 1.5, 0.25, -0.75], [1, 0.5, -0.25, -2, 0, 0.75])
        return [
            Onnx.floats("x", [2, 3], x), Onnx.floats("y", [2, 3], y),
            Onnx.floats("x3", [1, 2, 3], x), Onnx.floats("y3", [1, 2, 3], y),
            Onnx.floats("row", [3], [0.5, -0.5, 1]), Onnx.floats("pair", [2], [0.5, -1]), Onnx.floats("gain", [3], [1, 2, 0.5]),
            Onnx.floats("w", [3, 2], [1, -0.5, 0.25, 2, -1, 0.75]),
            Onnx.tensor("a", [2, 3], type: 2).blob(9, [90, 109, 100, 103, 97, 80]),
            Onnx.tensor("m", [3, 2], type: 3).blob(9, raw([Int8(1), -4, 2, 5, -3, 6])),
            Onnx.tensor("around128", [3, 2], type: 2).blob(9, [129, 124, 130, 133, 125, 134]), scalar("z", 93), scalar("z128", 128),
            Onnx.floats("half", [], [0.5]), Onnx.floats("quarter", [], [0.25]), Onnx.floats("eighth", [], [0.125]),
            Onnx.floats("tenth", [], [0.1]), Onnx.floats("scales", [2], [0.25, 0.5]),
            ints("ids", [1, 3], [2, 0, 1]), ints("kind", [1, 3], [0, 1, 1]),
            ints("seen", [1, 3], [1, 1, 0]), ints("lengths", [1], [2]),
            Onnx.floats("words", [3, 3], (0..<9).map { Float($0 * $0) / 8 }),
            Onnx.floats("places", [4, 3], [0.5, 0, -1, 1, 1, 0, 0, -0.5, 0.25, 3, 3, 3]),
            Onnx.floats("kinds", [2, 3], [0, 0.25, 0.5, -0.5, 0, 1]),
            Onnx.floats("rows", [1, 3, 4], [0.5, -1, 2, 1.5, 0.25, -0.75, 1, 0, -0.5, 0.75, 0.5, -0.25]),
            Onnx.tensor("integers", [1, 3, 4], type: 2).blob(9, [133, 108, 168, 158, 133, 113, 148, 128, 118, 143, 138, 123]),
            Onnx.floats("qkv", [4, 12], (0..<48).map { Float($0 * 7 % 11 - 5) / 8 }),
            Onnx.tensor("levels", [4, 12], type: 3).blob(9, raw((0..<48).map { Int8($0 * 7 % 11 - 5) })),
            Onnx.floats("qkv_bias", [12], (0..<12).map { Float($0 % 5 - 2) / 4 }),
            Onnx.floats("addend", [1, 2, 3, 3], (0..<18).map { Float($0 % 4 - 1) / 2 }),
            Onnx.floats("memory", [1, 2, 4], [0.75, -0.25, 0.5, 0, -0.5, 0.25, 1, -0.75]),
            Onnx.floats("memory_heads", [1, 2, 2, 2], [0.75, -0.25, -0.5, 0.25, 0.5, 0, 1, -0.75]),
            Onnx.floats("memory_addend", [1, 2, 3, 2], (0..<12).map { Float($0 % 4 - 1) / 2 }),
            Onnx.floats(
                "memory_pairs", [1, 2, 2, 2, 2],
                [0.75, -0.25, 0.75, -0.25, 0.5, 0, 0.5, 0, -0.5, 0.25, -0.5, 0.25, 1, -0.75, 1, -0.75]),
            Onnx.floats(
                "rows_packed", [1, 3, 2, 3, 2],
                [[0.5, -1], [2, 1.5], [0.25, -0.75], [1, 0], [-0.5, 0.75], [0.5, -0.25]].flatMap { $0 + $0 + $0 }),
            ints("last_seen", [1, 2], [0, 1]), ints("first", [1], [1]),
            ints("seen_by_row", [1, 3, 3], [1, 0, 0, 1, 1, 0, 0, 1, 1]),
            Onnx.floats("image", [1, 2, 3, 3], (0..<18).map { Float($0 * 5 % 9 - 4) / 4 }),
            Onnx.floats("kernel", [2, 2, 2, 2], (0..<16).map { Float($0 * 3 % 7 - 3) / 4 }),
            Onnx.floats("image_sum", [1, 2, 2, 2], (0..<8).map { Float($0 - 3) / 2 }),
        ]
    }()

    private func outputs(
        _ type: String, _ operands: [String], _ attributes: [WireWriter] = [], named names: [String] = ["r"],
        domain: String = "com.microsoft"
    ) throws -> [[Float]] {
        let node = Onnx.node(type, operands, names, attributes, domain: domain)
        let results = names.filter { !$0.isEmpty }.map { Onnx.value($0, []) }
        let graph = try imported(
            Onnx.model(
                Onnx.graph([node], inputs: [Onnx.value("unread", [1])], outputs: results, initializers: Self.tensors)))
        let numbers = try graph.evaluated()
        return try graph.outputs.map { try #require(numbers[$0.value]).converted(to: .float32).elements() }
    }

    /// What stands there has five decimals.
    private func isClose(_ found: [Float], _ expected: [Float]) -> Bool {
        found.count == expected.count && zip(found, expected).allSatisfy { abs($0 - $1) <= 2e-5 }
    }

    private func expect(
        _ type: String, _ operands: [String], _ attributes: [WireWriter] = [], gives expected: [Float],
        at place: SourceLocation = #_sourceLocation
    ) throws {
        let found = try outputs(type, operands, attributes)[0]
        #expect(isClose(found, expected), "\(type) \(operands) gives \(found)", sourceLocation: place)
    }

    @Test func readsActivations() throws {
        try expect("Gelu", ["x"], gives: [0.34573, -0.15866, 1.9545, 1.39979, 0.14968, -0.16997])
        try expect("FastGelu", ["x"], gives: [0.34571, -0.15881, 1.9546, 1.39957, 0.14968, -0.17004])
        try expect("FastGelu", ["x", "row"], gives: [0.84119, -0.10043, 2.99636, 1.9546, -0.10032, 0.14968])
        try expect("BiasGelu", ["x", "row"], gives: [0.84134, -0.10021, 2.99595, 1.9545, -0.10032, 0.14968])
        try expect("QuickGelu", ["x"], gives: [0.35039, -0.1542, 1.93566, 1.39166, 0.1512, -0.16361])
        let swish = [Onnx.attribute("alpha", float: 1)]
        try expect("QuickGelu", ["x"], swish, gives: [0.31123, -0.26894, 1.76159, 1.22636, 0.14054, -0.24062])
    }

    @Test func readsProducts() throws {
        let half = [Onnx.attribute("alpha", float: 0.5)]
        try expect("FusedMatMul", ["x", "y"], half + [Onnx.attribute("transB", int: 1)], gives: [-0.25, 0.25, 0.90625, -1.78125])
        try expect(
            "FusedMatMul",
            [
                "x", "y",
            ], [Onnx.attribute("transA", int: 1)],
            gives: [
                -2.5, 0.25,
                1, -1.5, -0.5, 0.4375, 3.5, 1, -1.0625,
            ])
        #expect(throws: TripsError.self) { try outputs("FusedMatMul", ["x", "y"], [Onnx.attribute("transBatchA", int: 1)]) }
        #expect(throws: TripsError.self) { try outputs("FusedMatMul", ["x", "half"], [Onnx.attribute("transB", int: 1)]) }
        let layer = ["x", "w", "pair"]
        let tanh = half + [Onnx.attribute("activation", text: "Tanh")]
        try expect("FusedGemm", layer, tanh, gives: [-0.35836, -0.87983, 0.92971, -0.8867])
        try expect("FusedGemm", layer, [Onnx.attribute("activation", text: "Relu")], gives: [0, 0, 2.8125, 0])
        #expect(throws: TripsError.self) { try outputs("FusedGemm", layer, [Onnx.attribute("activation", text: "Elu")]) }
    }

    @Test func readsFusedConvolutions() throws {
        func activation(_ name: String, _ numbers: [Float] = []) -> [WireWriter] {
            [Onnx.attribute("activation", text: name)]
                + (numbers.isEmpty ? [] : [Onnx.attribute("activation_params", floats: numbers)])
        }
        let layer = ["image", "kernel", "pair"]
        try expect("FusedConv", ["image", "kernel"], activation("Relu"), gives: [1.125, 0, 0, 0.75, 0, 0, 0, 0])
        try expect("FusedConv", layer + ["image_sum"], activation("Relu"), gives: [0.125, 0, 0, 1.25, 0, 0, 0.5, 1])
        try expect(
            "FusedConv", ["image", "kernel", "", "image_sum"], gives: [-0.375, -1.9375, -1.625, 0.75, 0.5, 1, 1.5, 2])
        let others: [(String, [Float], [Float])] = [
            ("LeakyRelu", [0.1], [1.625, -0.04375, -0.0625, 1.25, -0.1, -0.1, -0.1, -0.1]),
            ("Clip", [-0.5, 1], [1, -0.4375, -0.5, 1, -0.5, -0.5, -0.5, -0.5]),
            ("HardSigmoid", [0.2, 0.5], [0.825, 0.4125, 0.375, 0.75, 0.3, 0.3, 0.3, 0.3]),
            ("Tanh", [], [0.92535, -0.41157, -0.5546, 0.84828, -0.76159, -0.76159, -0.76159, -0.76159]),
        ]
        for (name, numbers, expected) in others {
            try expect("FusedConv", layer, activation(name, numbers), gives: expected)
        }
        for refused in [activation("Softplus"), activation("LeakyRelu"), activation("Clip", [1])] {
            #expect(throws: TripsError.self) { try outputs("FusedConv", layer, refused) }
        }
        let image = Onnx.graph([Onnx.node("Conv", ["x", "x"], ["y"], domain: "com.microsoft.nchwc")])
        #expect { try imported(Onnx.model(image)) } throws: { "\($0)".contains("extended level of optimization") }
    }

    /// Those of floating-point rows may be rounded on the way: 8 bits of a range of 3 leave a step of 0.012.
    @Test func readsProductsOfIntegers() throws {
        try expect("MatMulIntegerToFloat", ["a", "m", "half", "quarter", "z", "", "pair"], gives: [1.5, 15.75, 7.625, -13.25])
        try expect("MatMulIntegerToFloat", ["a", "around128", "half", "quarter", "z", "z128"], gives: [1, 16.75, 7.125, -12.25])
        try expect("MatMulIntegerToFloat", ["a", "m", "half", "scales", "z"], gives: [1, 33.5, 7.125, -24.5])
        try expect("DynamicQuantizeMatMul", ["x", "m", "quarter", "", "pair"], gives: [-1.37647, 0.25588, 1.56471, -3.32647])
        try expect("DynamicQuantizeMatMul", ["x", "around128", "quarter", "z128"], gives: [-1.87647, 1.25588, 1.06471, -2.32647])
    }

    /// ONNX Runtime writes the operator into models of operator sets that do not have it.
    @Test(arguments: [11, 16]) func readsLayerNormalizationOfOlderOperatorSets(opset: Int) throws {
        let node = Onnx.node("LayerNormalization", ["x", "gain", "row"], ["y"], [Onnx.attribute("epsilon", float: 0.01)])
        let graph = try imported(
            Onnx.model(
                Onnx.graph(
                    [node], initializers: [Onnx.floats("gain", [3], [1, 2, 0.5]), Onnx.floats("row", [3], [0.5, -0.5, 1])]),
                opset: opset))
        #expect((graph.nodes.first?.op as? LayerNormalization)?.epsilon == 0.01)
    }

    @Test func readsNormalisedSums() throws {
        let epsilon = [Onnx.attribute("epsilon", float: 0.01)]
        let skipped = try outputs("SkipLayerNormalization", ["x3", "y3", "gain", "row"], epsilon, named: ["r", "", "", "sum"])
        #expect(isClose(skipped[0], [1.07649, -3.30009, 1.41178, -0.77247, 1.53595, 1.12725]))
        #expect(skipped[1] == [1.5, -0.5, 1.75, -0.5, 0.25, 0])
        try expect(
            "SkipLayerNormalization", ["x3", "y3", "gain", "row", "row"], epsilon,
            gives: [0.96203, -3.27219, 1.46203, 0.04483, -2.32069, 1.68276])
        #expect(throws: TripsError.self) { try outputs("SkipLayerNormalization", ["x3", "y3", "gain"], named: ["r", "mean"]) }
        for domain in ["", "com.microsoft"] {
            let simplified = try outputs("SimplifiedLayerNormalization", ["x3", "gain"], epsilon, domain: domain)[0]
            #expect(isClose(simplified, [0.37689, -1.50756, 0.75378, 1.52433, 0.50811, -0.38108]))
        }
        let both = try outputs("SkipSimplifiedLayerNormalization", ["x3", "y3", "gain"], epsilon, named: ["r", "", "", "sum"])
        #expect(isClose(both[0], [1.09862, -0.73242, 0.64086, -1.47979, 1.47979, 0]))
        #expect(both[1] == [1.5, -0.5, 1.75, -0.5, 0.25, 0])
        try expect(
            "SkipSimplifiedLayerNormalization", ["x3", "y3", "gain", "row"], epsilon,
            gives: [0.97619, -0.97619, 0.67113, 0, -0.82855, 0.82855])
        let tables = ["ids", "kind", "words", "places", "kinds", "gain", "row"]
        let embedded = try outputs("EmbedLayerNormalization", tables, epsilon, named: ["r", "count", "sum"])
        #expect(isClose(embedded[0], [-0.75746, -0.33775, 1.58817, -0.77623, -0.10731, 1.53994, -0.46055, -1.33075, 1.68796]))
        #expect(embedded[1] == [0] && embedded[2] == [5, 6.375, 7.5, 0.5, 1.125, 1.5, 0.625, 1.5, 4.375])
        let places = ["ids", "", "words", "places", "", "gain", "row", "", "ids"]
        try expect(
            "EmbedLayerNormalization", places, epsilon,
            gives: [-0.53214, -1.13516, 1.67486, 1.57989, -0.10731, 0.36189, -0.87068, 0.59654, 1.4112])
        #expect(try outputs("EmbedLayerNormalization", tables + ["seen"], epsilon, named: ["r", "count"])[1] == [2])
    }

    @Test func readsAttention() throws {
        let (heads, operands) = ([Onnx.attribute("num_heads", int: 2)], ["rows", "qkv", "qkv_bias"])
        try expect(
            "Attention", operands + ["seen"], heads,
            gives: [-0.54575, 0.0367, 0.1875, -0.61455, -0.64857, 0.02666, 0.1875, -0.6173, -0.94376, -0.00214, 0.1875, -0.60501])
        try expect(
            "Attention", operands + ["lengths"], heads,
            gives: [-0.54575, 0.0367, 0.1875, -0.61455, -0.64857, 0.02666, 0.1875, -0.6173, -0.94376, -0.00214, 0.1875, -0.60501])
        try expect(
            "Attention", operands + ["seen_by_row"], heads,
            gives: [-1.5625, -0.0625, 0.1875, -0.375, -0.64857, 0.02666, 0.1875, -0.6173, 0.28251, -0.04416, -0.28017, -0.42446])
        try expect(
            "Attention", operands, heads + [Onnx.attribute("unidirectional", int: 1), Onnx.attribute("scale", float: 0.25)],
            gives: [-1.5625, -0.0625, 0.1875, -0.375, -0.81953, 0.00998, 0.1875, -0.61218, -0.33994, -0.05156, -0.11783, -0.41357])
        try expect(
            "Attention", operands + ["", "", "addend"], heads,
            gives: [
                0.72071, -0.13286, -0.24895, -0.36322, 0.20996, -0.10978,
                -0.30041, -0.32803, -0.59634, -0.00605, -0.02751, -0.3567,
            ])
        let integers = ["integers", "levels", "qkv_bias", "tenth", "eighth"]
        try expect(
            "QAttention", integers + ["", "z128"], heads,
            gives: [
                1.49336, -0.81127, 0.19053, -0.43191, 1.47563, -0.80821,
                -0.0866, -0.3091, -1.37941, -0.66891, -0.01324, -0.35015,
            ])
        try expect(
            "QAttention", integers + ["seen", "z128"], heads,
            gives: [
                -0.84085, -0.38036, 0.90565, -0.82458, -0.89692, -0.39097,
                0.90256, -0.88639, -2.16019, -0.62997, 0.90273, -0.88298,
            ])
        for refused in [
            operands + ["pair"], operands + ["addend"], operands + ["", "addend"], operands + ["", "", "", "lengths"],
        ] {
            #expect(throws: TripsError.self) { try outputs("Attention", refused, heads) }
        }
        #expect(throws: TripsError.self) { try outputs("Attention", operands) }
        #expect { try outputs("Attention", operands, [Onnx.attribute("num_heads", int: 0)]) } throws: {
            "\($0)".contains("attribute num_heads; found 0; expected 1 or more")
        }
        #expect(throws: TripsError.self) { try outputs("Attention", operands, heads + [Onnx.attribute("do_rotary", int: 1)]) }
    }

    @Test func attentionOfProjections() throws {
        let (heads, operands) = ([Onnx.attribute("num_heads", int: 2)], ["rows", "memory", "memory"])
        func expect(
            _ operands: [String], _ attributes: [WireWriter] = [], gives expected: [Float],
            at place: SourceLocation = #_sourceLocation
        ) throws {
            try self.expect("MultiHeadAttention", operands, heads + attributes, gives: expected, at: place)
        }
        let plain: [Float] = [
            0.36126, -0.09451, 0.73896, -0.35844, 0.27399, -0.0596, 0.79374, -0.44061, -0.0872, 0.08488, 0.78836, -0.43255,
        ]
        let biased: [Float] = [
            0.5109, 0.44564, 0.22249, -0.58374, 0.41637, 0.48345, 0.27751, -0.66626, 0.07148, 0.62141, 0.27204, -0.65806,
        ]
        try expect(operands, gives: plain)
        try expect(operands + ["qkv_bias"], gives: biased)
        try expect(
            operands + ["qkv_bias", "last_seen"], gives: [-0.25, 0.75, 0.5, -1, -0.25, 0.75, 0.5, -1, -0.25, 0.75, 0.5, -1])
        try expect(operands + ["qkv_bias", "first"], gives: [1, 0.25, 0, -0.25, 1, 0.25, 0, -0.25, 1, 0.25, 0, -0.25])
        try expect(
            operands + ["", "", "memory_addend"], [Onnx.attribute("scale", float: 0.25)],
            gives: [0.05691, 0.02724, 0.80754, -0.46132, 0.02337, 0.04065, 0.82568, -0.48852, -0.09897, 0.08959, 0.8239, -0.48585])
        let own = ["rows", "rows", "rows", "qkv_bias", "seen_by_row"]
        try expect(
            own, [Onnx.attribute("unidirectional", int: 1)],
            gives: [0.75, -0.5, 1.5, 1.25, 0.63327, -0.38327, 1.22557, 0.83836, -0.05711, 0.86423, 0.27204, -0.36398])
        try expect(["rows", "memory_heads", "memory_heads"], gives: plain)
        try expect(
            ["rows", "memory_heads", "memory_heads", "qkv_bias"],
            gives: [
                0.2609, -0.05436, 0.72249, -0.33374, 0.16637, -0.01655, 0.77751, -0.41626, -0.17852, 0.12141, 0.77204, -0.40806,
            ])
        try expect(["rows", "memory_pairs", "", "qkv_bias"], gives: biased)
        let packed = ["rows_packed", "", "", "qkv_bias", "seen_by_row"]
        #expect(try outputs("MultiHeadAttention", packed, heads) == outputs("MultiHeadAttention", own, heads))
    }

    @Test func refusesAttentionThatKeepsKeys() throws {
        let (heads, operands) = ([Onnx.attribute("num_heads", int: 2)], ["rows", "memory", "memory"])
        for (refused, found) in [(["", "", "", "memory_heads"], "past key"), (["", "", "", "", "memory_heads"], "past value")] {
            #expect { try outputs("MultiHeadAttention", operands + refused, heads) } throws: { "\($0)".contains("found \(found)") }
        }
        #expect { try outputs("MultiHeadAttention", operands, heads, named: ["r", "keys"]) } throws: {
            "\($0)".contains("present keys")
        }
        for refused in [["rows", "row", "memory"], ["row"], ["rows", "memory"], operands + ["pair"], operands + ["", "pair"]] {
            #expect(throws: TripsError.self) { try outputs("MultiHeadAttention", refused, heads) }
        }
        #expect(throws: TripsError.self) { try outputs("MultiHeadAttention", operands) }
    }
}
