import struct Foundation.Data
import class Foundation.JSONDecoder
import class Foundation.JSONEncoder
import class Foundation.JSONSerialization
import ModelGraph
import Support
import Tensors
import TestSupport
import Testing

private let rows = ValueType(.float32, [Dimension(symbol: "n"), 4])

private func constant(_ numbers: [Float], _ shape: [Int]) throws -> Constant {
    Constant(try Tensor(numbers, shape: shape), identity: "\(numbers)")
}

/// y = relu(x · w) + b, and a part that nothing needs.
private func sample() throws -> Graph {
    var graph = Graph(name: "main")
    let x = try graph.addInput("x", rows)
    let w = try graph.addConstant(constant(Array(repeating: 1, count: 8), [4, 2]), name: "w")
    let b = try graph.addConstant(constant([1, 2], [2]), name: "b")
    let product = try graph.add(MatMul(), [x, w], name: "product")[0]
    let active = try graph.add(Unary(.relu), [product], name: "active")[0]
    try graph.add(Unary(.exp), [product], name: "unused")
    try graph.addOutput("y", graph.add(Binary(.add), [active, b], name: "sum")[0])
    graph.addTrace("mid", product)
    return graph
}

struct GraphTests {
    @Test func infersTypesWhileItGrows() throws {
        let graph = try sample()
        try graph.validate()
        let sum = try #require(graph.value(named: "sum"))
        #expect(graph.type(of: sum) == ValueType(.float32, [Dimension(symbol: "n"), 2]))
        #expect(graph.producer(of: sum)?.name == "sum")
        #expect(graph.consumers(of: try #require(graph.value(named: "product"))).map(\.name) == ["active", "unused"])
        #expect(try graph.multiplyAccumulates().description == "8*n")
    }

    @Test func examplesAreCountedByNameAndByPlace() throws {
        var graph = Graph(name: "main")
        for (name, sizes) in [("image", ["n", "height"]), ("hidden", ["layers", "Text_Batch"]), ("weights", ["choices"])] {
            _ = try graph.addInput(name, ValueType(.float32, sizes.map { Dimension(symbol: $0) }))
        }
        #expect(graph.batchSymbols == ["n", "layers", "Text_Batch"])
    }

    @Test func tracesMustBeComputed() throws {
        var graph = try sample()
        let unused = try #require(graph.value(named: "unused"))
        graph.prune()
        try graph.validate()
        graph.addTrace("late", unused)
        #expect { try graph.validate() } throws: { "\($0)".contains("a trace is not computed; found late") }
    }

    @Test func namesTheNodeInErrors() throws {
        var graph = try sample()
        let (x, w) = (graph.inputs[0], try #require(graph.value(named: "w")))
        #expect { try graph.add(MatMul(), [w, w], name: "wrong") } throws: { error in
            (error as? TripsError).map { $0.kind == .data && "\($0)".contains("MatMul \"wrong\"") } ?? false
        }
        #expect(throws: TripsError.self) { try graph.addInput("x", rows) }
        #expect(throws: TripsError.self) { try graph.addOutput("y", x) }
    }

    /// The rank of what is gathered by itself doubles each time.
    @Test func boundsRanksAndSizes() throws {
        var graph = Graph(name: "main")
        var x = try graph.addInput("x", ValueType(.int64, [2, 2]))
        #expect(throws: TripsError.self) { for _ in 0..<40 { x = try graph.add(Gather(), [x, x], name: "gather")[0] } }
        #expect(graph.type(of: x).rank <= 64)
        #expect(throws: TripsError.self) { try graph.addInput("negative", ValueType(.float32, [-1])) }
        let n = try graph.addInput("n", ValueType(.float32, [Dimension(symbol: "n")]))
        try graph.add(Pad(), [n, graph.addKnown(.dimensions([-3, 0]), ValueType(.int64, [2]), name: "pads")], name: "cropped")
        #expect(throws: TripsError.self) { try graph.bind(["n": 2]) }
    }

    @Test func prunesWhatNothingNeeds() throws {
        var graph = try sample()
        graph.prune()
        #expect(graph.nodes.map(\.name) == ["product", "active", "sum"])
        #expect(graph.traces.map(\.name) == ["mid"])
        try graph.validate()
    }

    @Test func ordersNodesBehindWhatTheyRead() throws {
        var graph = try sample()
        let product = try #require(graph.value(named: "product"))
        let late = try graph.add(Unary(.neg), [graph.inputs[0]], name: "late")[0]
        let node = try #require(graph.producer(of: product))
        graph.replace(graph.inputs[0], with: late, except: [try #require(graph.producer(of: late)).id])
        let names = try graph.topologicalOrder().map(\.name)
        #expect(try #require(names.firstIndex(of: "late")) < #require(names.firstIndex(of: node.name)))
        try graph.validate()
    }

    @Test func findsCycles() throws {
        var graph = try sample()
        graph.replace(graph.inputs[0], with: try #require(graph.value(named: "product")))
        #expect(throws: TripsError.self) { try graph.topologicalOrder() }
        #expect(throws: TripsError.self) { try graph.validate() }
    }

    @Test func bindsSymbols() throws {
        var graph = try sample()
        try graph.bind(["n": 3])
        #expect(graph.type(of: try #require(graph.value(named: "sum"))).constantShape == [3, 2])
        #expect(try graph.multiplyAccumulates() == 24)
    }

    @Test func givesUnknownSizesASymbolOfTheirOwn() throws {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", rows)
        let places = try ["places", "others", "places:0", "places_0", "places?0"].map { try graph.add(NonZero(), [x], name: $0)[0] }
        #expect(Set(places.map { graph.shape(of: $0)[1] }).count == places.count)
        #expect(graph.shape(of: places[0])[0] == 2)
        for place in places {
            let size = graph.shape(of: place)[1]
            #expect(try Dimension(parsing: size.description) == size)
        }
    }

    @Test func selectsOutputs() throws {
        var graph = try sample()
        #expect(throws: TripsError.self) { try graph.selectOutputs(["z"]) }
        try graph.selectOutputs([])
        graph.prune()
        #expect(graph.nodes.map(\.name) == ["product"], "what is traced stays")
        graph.removeTraces()
        graph.prune()
        graph.removeUnusedInputs()
        #expect(graph.nodes.isEmpty && graph.inputs.isEmpty)
    }
}

/// Two negations are none.
private struct DropDoubleNegation: Rewrite {
    let name = "drop-double-negation"
    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard node.op.isNegation, let inner = node.input(0).flatMap(graph.producer), inner.op.isNegation, let x = inner.input(0)
        else { return nil }
        var patch = Patch(for: graph)
        patch.replace(node.output, with: x)
        return patch
    }
}

/// A rewrite that would change a type.
private struct WrongCast: Rewrite {
    let name = "wrong-cast"
    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard node.op.isNegation, let x = node.input(0) else { return nil }
        var patch = Patch(for: graph)
        patch.replace(node.output, with: patch.add(Cast(to: .int32), [x], name: "cast"))
        return patch
    }
}

/// A rewrite that would change a shape.
private struct WrongShape: Rewrite {
    let shape: [Int]
    let name = "wrong-shape"
    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        var patch = Patch(for: graph)
        let same = patch.add(.splat(try Tensor(scalar: Float(0))), ValueType(.float32, shape.map { Dimension($0) }), name: "zeros")
        patch.replace(node.output, with: same)
        return patch
    }
}

/// A rewrite that takes its operator for one of two outputs.
private struct WrongCount: Rewrite {
    let name = "wrong-count"
    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        var patch = Patch(for: graph)
        patch.replace(node.output, with: patch.add(node.op, node.inputs, name: "twice", outputCount: 2)[0])
        return patch
    }
}

/// A rewrite that finds what it has left.
private struct Restless: Rewrite {
    let name = "restless"
    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        var patch = Patch(for: graph)
        patch.replace(node.output, with: patch.add(node.op, node.inputs, name: node.name))
        return patch
    }
}

extension Operator {
    fileprivate var isNegation: Bool { isEqual(to: Unary(.neg)) }
}

struct RewriteTests {
    private func negations(_ count: Int) throws -> Graph {
        var graph = Graph(name: "main")
        var value = try graph.addInput("x", rows)
        for index in 0..<count { value = try graph.add(Unary(.neg), [value], name: "n\(index)")[0] }
        try graph.addOutput("y", value)
        return graph
    }

    @Test func appliesPatchesUntilNoneIsLeft() throws {
        var graph = try negations(5)
        let trail = try graph.rewrite([DropDoubleNegation()], validating: true)
        #expect(trail == ["drop-double-negation": 2])
        #expect(graph.nodes.count == 1)
        var even = try negations(4)
        try even.rewrite([DropDoubleNegation()], validating: true)
        #expect(even.nodes.isEmpty && even.outputs[0].value == even.inputs[0])
    }

    @Test func refusesToChangeATypeAndNamesTheRewrite() throws {
        var graph = try negations(1)
        #expect { try graph.rewrite([WrongCast()]) } throws: { "\($0)".contains("wrong-cast") }
    }

    /// Another rank, another size, and other outputs than were announced.
    @Test(arguments: [[4], [1, 2, 3], [5, 8]] as [[Int]]) func refusesToChangeAShape(shape: [Int]) throws {
        var graph = Graph(name: "main")
        try graph.addOutput("y", graph.add(Unary(.neg), [graph.addInput("x", ValueType(.float32, [4, 8]))], name: "n")[0])
        #expect { try graph.rewrite([WrongShape(shape: shape)]) } throws: {
            "\($0)".contains("wrong-shape") && "\($0)".contains("changes the type")
        }
        #expect { try graph.rewrite([WrongCount()]) } throws: { "\($0)".contains("number of outputs") }
    }

    /// Each puts in place what it finds, for ever.
    @Test func rewritesThatFindTheirOwnWorkEnd() throws {
        var graph = try negations(1)
        let trail = try graph.rewrite([Restless()])
        #expect(try #require(trail["restless"]) >= 64 && graph.nodes.count == 1)
    }

    @Test func keepsWhatIsTraced() throws {
        var graph = try negations(2)
        graph.addTrace("mid", try #require(graph.value(named: "n0")))
        try graph.rewrite([DropDoubleNegation()], validating: true)
        #expect(graph.nodes.map(\.name) == ["n0"])
    }
}

struct GraphDocumentTests {
    private func written(_ graph: Graph) throws -> (document: GraphDocument, tensors: [String: Constant]) {
        var tensors: [String: Constant] = [:]
        let document = try graph.document { value, constant in
            tensors[graph.name(of: value)] = constant
            return graph.name(of: value)
        }
        return (document, tensors)
    }

    private func reread(_ document: GraphDocument, _ tensors: [String: Constant]) throws -> Graph {
        let data = try JSONEncoder().encode(document)
        return try Graph(JSONDecoder().decode(GraphDocument.self, from: data)) { name in
            try tensors[name] ?? { throw TripsError.data("no such tensor", found: name) }()
        }
    }

    @Test func readsWhatItWrites() throws {
        var graph = try sample()
        let zero = try graph.addKnown(.splat(Tensor(scalar: Float(0))), rows, name: "zero")
        let sizes = try graph.addKnown(.dimensions([Dimension(symbol: "n"), -1]), ValueType(.int64, [2]), name: "sizes")
        let padded = try graph.add(Binary(.add), [graph.inputs[0], zero], name: "padded")[0]
        try graph.addOutput("z", graph.add(Reshape(), [padded, sizes], name: "shaped")[0])
        graph.prune()
        let (document, tensors) = try written(graph)
        let again = try reread(document, tensors)
        #expect(again.description == graph.description)
        #expect(again.structure == graph.structure)
        #expect(again.traces.map(\.name) == ["mid"])
    }

    /// A size that nobody could tell bears the name of the value as it is called when it is written.
    @Test func unknownSizesFollowTheirValuesNames() throws {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", rows)
        _ = try graph.add(NonZero(), [x], name: "places")
        let places = try graph.add(NonZero(), [x], name: "places")[0]
        let sizes = try graph.addKnown(.dimensions([graph.shape(of: places)[1], 2]), ValueType(.int64, [2]), name: "sizes")
        try graph.addOutput("y", graph.add(Reshape(), [places, sizes], name: "y")[0])
        graph.prune()
        try graph.tidyNames()
        let (document, tensors) = try written(graph)
        let again = try reread(document, tensors)
        #expect(again.shape(of: again.outputs[0].value)[0] == again.shape(of: try #require(again.value(named: "places")))[1])
    }

    @Test func refusesDocumentsThatAreNoGraphs() throws {
        let (document, tensors) = try written(sample())
        func broken(_ change: (inout GraphDocument) -> Void) -> Bool {
            var copy = document
            change(&copy)
            do { _ = try reread(copy, tensors) } catch { return error is TripsError }
            return false
        }
        #expect(broken { $0.nodes.swapAt(0, 1) })
        #expect(broken { $0.nodes[0].inputs[0] = "nothing" })
        #expect(broken { $0.nodes[0].outputs = ["a", "b"] })
        #expect(broken { $0.nodes[1].outputs = $0.nodes[0].outputs })
        #expect(broken { $0.outputs[0].value = "nothing" })
        #expect(broken { $0.outputs += $0.outputs })
        #expect(broken { $0.inputs += $0.inputs })
        #expect(broken { $0.constants[0].tensor = "nothing" })
        #expect(broken { $0.constants[0].splat = .real(1) })
        #expect(broken { $0.constants[0].type = rows })
        #expect(broken { $0.inputs[0].type = ValueType(.bool, []) })
        #expect(broken { $0.nodes[0].outputs = [] })
        #expect(broken { $0.constants += $0.constants })
        #expect(broken { $0.constants[0].name = $0.inputs[0].name })
        #expect(broken { $0.traces += $0.traces })
        #expect(broken { $0.traces[0].value = "nothing" })
        // Sizes: an integer for each element.
        func sizes(_ type: ValueType, _ sizes: [Dimension]) -> (inout GraphDocument) -> Void {
            {
                var known = $0.constants[0]
                (known.name, known.type, known.tensor, known.sizes) = ("sizes", type, nil, sizes)
                $0.constants.append(known)
            }
        }
        #expect(!broken(sizes(ValueType(.int64, [2]), [1, 2])))
        #expect(broken(sizes(ValueType(.int64, [2]), [1])))
        #expect(broken(sizes(ValueType(.int64, [1]), [1, 2])))
        #expect(broken(sizes(ValueType(.float32, [2]), [1, 2])))
        #expect(broken(sizes(ValueType(.int64, [Dimension(symbol: "n")]), [1])))
        #expect(!broken(sizes(ValueType(.int8, [1]), [-128])))
        #expect(broken(sizes(ValueType(.int8, [1]), [128])))
        #expect(broken(sizes(ValueType(.uint64, [1]), [-1])))
        // Symbols: sizes of inputs, or of values.
        #expect(!broken(sizes(ValueType(.int64, [2]), [Dimension(symbol: "n"), Dimension(symbol: "?y.0")])))
        #expect(broken(sizes(ValueType(.int64, [1]), [Dimension(symbol: "m")])))
        // No more inputs than the operator has.
        #expect(broken { $0.nodes[0].inputs.append(nil) })
        #expect(broken { $0.nodes[0].inputs.append($0.inputs[0].name) })
    }

    @Test func aNumberForAllElementsIsOneThatTheTypeHas() throws {
        func read(_ number: String, _ type: DataType) throws -> Tensor {
            let known = #"{"name": "c", "type": {"dataType": "\#(type.rawValue)", "shape": ["n"]}, "splat": \#(number)}"#
            let document =
                #"{"name": "main", "inputs": [{"name": "x", "type": {"dataType": "F32", "shape": ["n"]}}],"#
                + #""constants": [\#(known)], "nodes": [], "outputs": [{"name": "y", "value": "c"}], "traces": []}"#
            let decoder = JSONDecoder()
            decoder.nonConformingFloatDecodingStrategy = .convertFromString(
                positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
            let graph = try Graph(decoder.decode(GraphDocument.self, from: Data(document.utf8))) { _ in
                Constant(try Tensor(scalar: 0))
            }
            guard case .splat(let scalar) = graph.content(of: graph.outputs[0].value) else { throw TripsError.data("no splat") }
            return scalar
        }
        for (number, type) in [
            ("9223372036854775807", DataType.int64), ("-9223372036854775808", .int64), ("18446744073709551615", .uint64),
            ("1e3", .int16), ("255", .uint8), ("0", .bool), ("1", .bool), ("0.1", .bfloat16), ("65519", .float16),
            ("\"inf\"", .float32),
            ("\"nan\"", .float16), ("9007199254740993", .float64),
        ] {
            #expect(try read(number, type).dataType == type, "\(number)")
        }
        for (number, type) in [
            ("9223372036854775808", DataType.int64), ("-1", .uint64), ("18446744073709551616", .uint64), ("1.5", .int64),
            ("300", .uint8),
            ("-129", .int8), ("2", .bool), ("0.5", .bool), ("\"inf\"", .int64), ("\"nan\"", .int64), ("1e39", .float32),
            ("65520", .float16), ("1e300", .int64),
        ] {
            #expect { try read(number, type) } throws: { "\($0)".contains("a number of \(type)") }
        }
    }

    @Test func refusesUnknownOperators() {
        #expect(throws: TripsError.self) {
            try JSONDecoder().decode(OperatorBox.self, from: Data(#"{"name": "Launch", "attributes": {}}"#.utf8))
        }
    }

    @Test func refusesUnknownAttributes() throws {
        func read(_ name: String, _ attributes: String) throws {
            let json = #"{"name": "\#(name)", "attributes": {\#(attributes)}}"#
            _ = try JSONDecoder().decode(OperatorBox.self, from: Data(json.utf8))
        }
        try read("Attention", #""heads": 2, "causal": false, "scale": null"#)
        try read("ConvInteger", #""convolution": {"window": {"autoPad": "NOTSET", "pads": [1, 1]}, "groups": 1}"#)
        for (name, attributes) in [
            ("Attention", #""heads": 2, "causal": false, "Scale": 0.5"#), ("Linear", #""bias": true"#),
            ("ConvInteger", #""convolution": {"window": {"autoPad": "NOTSET", "pad": [1, 1]}, "groups": 1}"#),
            ("ConvInteger", #""convolution": {"window": {"autoPad": "NOTSET"}, "groups": 1, "kernel": [1]}"#),
        ] {
            #expect { try read(name, attributes) } throws: { "\($0)".contains("unknown attribute") }
        }
    }

    @Test func attentionInFloatingPointIsWrittenWithoutItsPrecision() throws {
        for (activations, isWritten) in [(ActivationPrecision.float32, false), (.int8, true)] {
            let op = Attention(heads: 2, activations: activations)
            let json = try JSONEncoder().encode(op)
            #expect(String(decoding: json, as: UTF8.self).contains("activations") == isWritten)
            #expect(try JSONDecoder().decode(Attention.self, from: json) == op)
        }
    }

    /// Each operator once, with all attributes that may be absent.
    private static let operators: [any Operator] = [
        PatchEmbedding(), Linear(), QuantizedLinear(groupSize: 64, activations: .int8), LayerNorm(epsilon: 1e-12),
        Attention(heads: 2, scale: 0.5, activations: .int8, fullyMasked: .zero), GELU(.quick), Embedding(), QuantizedEmbedding(),
        L2Normalize(epsilon: 1e-12), PaddingMask(maskedValue: -10000, causal: true),
        PatchSelection(heads: 4, scale: 0.5, keepRate: 0.7, guidance: .imageCLS),
        Unary(.selu, alpha: 0.5, beta: 2), Binary(.mod), Where(), Clip(), Cast(to: .bool), Identity(),
        Shape(start: 1, end: -1), Size(), ConstantOfShape(), Arange(), Expand(), Tile(), Reshape(allowZero: true),
        Flatten(axis: -1),
        Squeeze(), Unsqueeze(), Transpose(permutation: [1, 0]), Concat(axis: 1), Split(axis: -1, outputs: 3), Slice(),
        Pad(mode: .wrap),
        Gather(axis: 1), GatherElements(axis: 1), GatherND(batchDimensions: 1), ScatterElements(axis: 1, reduction: .min),
        ScatterND(reduction: .max), TopK(axis: 0, largest: false), OneHot(axis: 0), NonZero(), Trilu(upper: false),
        Reduce(.logSumExp, keepDimensions: false), ArgReduce(.min, axis: 1, selectLastIndex: true), CumSum(reverse: true),
        Softmax(axis: 1), LogSoftmax(axis: 1),
        BatchNormalization(epsilon: 1e-3), LayerNormalization(statistics: true), RMSNormalization(), GroupNormalization(groups: 4),
        InstanceNormalization(), LpNormalization(p: 1),
        MatMul(), Gemm(alpha: 2, transposeB: true), Einsum(equation: "ij->ji"),
        OnnxAttention(queryHeads: 4, keyHeads: 2, scale: 0.5, scores: .masked),
        Conv(window: window, groups: 2, kernelShape: [3]),
        ConvTranspose(window: window, kernelShape: [3], outputPadding: [1], outputShape: [9]),
        MaxPool(kernelShape: [3], window: window, indices: true), AveragePool(kernelShape: [3], window: window, countPadding: true),
        GlobalPool(.max), Resize(mode: .cubic, axes: [2]),
        QuantizeLinear(outputType: .int8), DequantizeLinear(axis: 0, blockSize: 32), DynamicQuantizeLinear(), MatMulInteger(),
        ConvInteger(Conv(window: window, kernelShape: [3])),
    ]

    private static let window = Window(strides: [2], dilations: [1], pads: [1, 1], autoPad: .sameLower)

    @Test func writesEveryOperatorUnderANameOfItsOwn() throws {
        let names = OperatorTable.all.map { $0.name }
        #expect(Set(names).count == names.count)
        #expect(Self.operators.map { type(of: $0).name } == names)
        for op in Self.operators {
            let again = try JSONDecoder().decode(OperatorBox.self, from: JSONEncoder().encode(OperatorBox(op))).op
            #expect(again.isEqual(to: op), "\(op)")
        }
    }

    /// An operator has a section or a line of a table, which names its attributes; those of windows are listed once.
    @Test func theSpecificationHasEveryOperatorAndAttribute() throws {
        let text = try String(contentsOfFile: root + "/formats/operators.md", encoding: .utf8)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for op in Self.operators {
            let name = type(of: op).name
            let line = lines.first { $0.hasPrefix("| `\(name)` |") }.map { [$0] }
            let section = lines.drop { $0 != "### `\(name)`" }.dropFirst().prefix { !$0.hasPrefix("#") }
            let entry = (line ?? Array(section)).joined(separator: "\n")
            #expect(!entry.isEmpty, "\(name)")
            for attribute in try attributes(of: JSONSerialization.jsonObject(with: JSONEncoder().encode(op))) {
                let isListed =
                    attribute.isNested || name == "Resize"
                    ? text.contains("`\(attribute.name)`") : entry.contains("`\(attribute.name)`")
                #expect(isListed, "\(attribute.name) of \(name)")
            }
        }
    }

    private func attributes(of json: Any, isNested: Bool = false) -> [(name: String, isNested: Bool)] {
        guard let object = json as? [String: Any] else { return [] }
        return object.flatMap { name, value in [(name, isNested)] + attributes(of: value, isNested: true) }
    }
}
