import struct Foundation.Data
import class Foundation.JSONDecoder
import class Foundation.JSONEncoder
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
    }

    @Test func refusesUnknownOperators() {
        #expect(throws: TripsError.self) {
            try JSONDecoder().decode(OperatorBox.self, from: Data(#"{"name": "Launch", "attributes": {}}"#.utf8))
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

    @Test func writesEveryOperatorUnderANameOfItsOwn() throws {
        let names = OperatorTable.all.map { $0.name }
        #expect(Set(names).count == names.count)
        let samples: [any Operator] = [
            Unary(.leakyRelu, alpha: 0.5), Binary(.mod), Transpose(permutation: [1, 0]), Slice(), Pad(mode: .wrap),
            Resize(mode: .cubic, axes: [2]),
            Conv(window: Window(strides: [2], autoPad: .sameLower)), OnnxAttention(scores: .masked), ScatterND(reduction: .max),
            Arange(),
            Reduce(.logSumExp, keepDimensions: false), QuantizeLinear(outputType: .int8), Einsum(equation: "ij->ji"),
            PatchSelection(heads: 4, keepRate: 0.7, guidance: .imageCLS),
        ]
        for op in samples {
            let again = try JSONDecoder().decode(OperatorBox.self, from: JSONEncoder().encode(OperatorBox(op))).op
            #expect(again.isEqual(to: op), "\(op)")
        }
    }
}
