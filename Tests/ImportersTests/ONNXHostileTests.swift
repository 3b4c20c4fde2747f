import Foundation
import Importers
import ModelGraph
import Support
import Tensors
import TestSupport
import Testing

@Suite struct ONNXHostileTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    /// A model that uses most of what the schema has.
    private static let sound = Onnx.model(
        Onnx.graph(
            [
                Onnx.node("Constant", [], ["c"], [Onnx.attribute("value", tensor: Onnx.floats("", [3], [1, 2, 3]))]),
                Onnx.node("F", ["x"], ["f"], domain: "local"), Onnx.node("Add", ["f", "c"], ["a"]),
                Onnx.node("MatMul", ["a", "w"], ["b"]), Onnx.node("Softmax", ["b"], ["y"], [Onnx.attribute("axis", int: -1)]),
            ],
            inputs: [Onnx.value("x", ["batch", 3])],
            initializers: [Onnx.floats("w", [3, 90], Array(repeating: 0.5, count: 270))]),
        functions: [Onnx.function("F", ["a"], ["b"], [Onnx.node("Relu", ["a"], ["b"])])])

    /// Imports and loads all constants; nil where the model is refused, as it may be.
    private func outcome(_ bytes: [UInt8]) throws -> Graph? {
        let path = try folder.write(bytes, "model.onnx")
        do {
            let graph = try importONNX(path: path).graphs[0]
            for node in graph.nodes {
                for case let input? in node.inputs { _ = try graph.constant(of: input)?.load() }
            }
            return graph
        } catch let error as TripsError {
            #expect(error.kind == .data, "\(error)")
            return nil
        }
    }

    private func refusal(_ bytes: [UInt8]) throws -> String {
        let path = try folder.write(bytes, "model.onnx")
        let error = #expect(throws: TripsError.self) { try importONNX(path: path) }
        #expect(error?.kind == .data)
        return error.map { "\($0)" } ?? ""
    }

    @Test func soundModelImports() throws { #expect(try outcome(Self.sound.bytes) != nil) }

    @Test func truncationAtEveryByteIsRefused() throws {
        let bytes = Self.sound.bytes
        // The functions and operator sets stand at the end: a model cut there may still be one, but not this one.
        for count in 0..<bytes.count { #expect(try outcome(Array(bytes.prefix(count))) == nil, "\(count) bytes") }
    }

    @Test func anyChangedByteIsRefusedOrRead() throws {
        let bytes = Self.sound.bytes
        var refused = 0
        for index in bytes.indices {
            for flip in [UInt8(1), 0x80] {
                var changed = bytes
                changed[index] ^= flip
                if try outcome(changed) == nil { refused += 1 }
            }
        }
        #expect(refused > 200)
    }

    // MARK: Wire format

    @Test func refusesMalformedWire() throws {
        #expect(try refusal([0x08, 0x80]).contains("bytes more"))
        #expect(try refusal([0x08] + Array(repeating: 0xFF, count: 10)).contains("more than 64 bits"))
        #expect(try refusal([0x3A, 0x7F, 0x00]).contains("at most 1"))
        #expect(try refusal([0x3A] + Array(repeating: 0xFF, count: 9) + [0x01]).contains("at most 0"))
        #expect(try refusal([0x3B]).contains("wire type"))
        #expect(try refusal([0x00]).contains("field number"))
        #expect(try refusal([0x38, 0x01]).contains("wire type"))
        #expect(try refusal([]).contains("no graph"))
        #expect(try refusal(Onnx.model(Onnx.graph([])).message(7, WireWriter()).bytes).contains("second GraphProto"))
    }

    @Test func deepNestingCostsNothing() throws {
        // If-branches in If-branches: the walker goes no deeper than its schema, and reports the operator.
        var graph = Onnx.graph([Onnx.node("Relu", ["x"], ["y"])])
        for _ in 0..<2000 {
            let branch = WireWriter().text(1, "then_branch").message(6, graph).int(20, 5)
            graph = Onnx.graph([Onnx.node("If", ["x"], ["y"], [branch])])
        }
        let message = try refusal(Onnx.model(graph).bytes)
        #expect(message.contains("If (ai.onnx 17), 1 of them") && message.contains("subgraphs are not read"))
    }

    @Test func refusesOtherTypesByName() throws {
        let relu = Onnx.node("Relu", ["x"], ["y"])
        func input(_ field: Int) -> WireWriter { WireWriter().text(1, "x").message(2, WireWriter().message(field, WireWriter())) }
        #expect(try refusal(Onnx.model(Onnx.graph([relu], inputs: [input(4)])).bytes).contains("a sequence"))
        #expect(try refusal(Onnx.model(Onnx.graph([relu], inputs: [input(5)])).bytes).contains("a map"))
        #expect(try refusal(Onnx.model(Onnx.graph([relu], inputs: [input(8)])).bytes).contains("a sparse tensor"))
        #expect(try refusal(Onnx.model(Onnx.graph([relu], inputs: [input(9)])).bytes).contains("an optional type"))
        #expect(try refusal(Onnx.model(Onnx.graph([relu]).message(15, WireWriter())).bytes).contains("sparse initializer"))
        for (type, name) in [
            (8, "string"), (17, "float8e4m3fn"), (22, "int4"), (14, "complex64"), (99, "type number 99"), (0, "no type"),
        ] {
            #expect(try refusal(Onnx.model(Onnx.graph([relu], inputs: [Onnx.value("x", [1], type: type)])).bytes).contains(name))
        }
        #expect(try refusal(Onnx.model(Onnx.graph([relu], inputs: [WireWriter().text(1, "x")])).bytes).contains("no tensor type"))
        #expect(try refusal(Onnx.model(Onnx.graph([relu], inputs: [Onnx.value("x", [-1])])).bytes).contains("found -1"))
    }

    /// What takes two bytes in the file or less, and many times that in memory.
    @Test func smallPartsAreNotMany() throws {
        /// 2ⁿ times the same.
        func repeating(_ bytes: [UInt8], _ exponent: Int) -> WireWriter {
            WireWriter(bytes: (0..<exponent).reduce(bytes) { bytes, _ in bytes + bytes })
        }
        let numbers = [UInt8](repeating: 1, count: 1 << 24)
        let graphs = [
            // Nodes; inputs, attributes, numbers of an attribute and texts of one; sizes.
            repeating([0x0A, 0], 20), WireWriter().message(1, repeating([0x0A, 0], 22)),
            WireWriter().message(1, repeating([0x2A, 0], 20)),
            WireWriter().message(1, WireWriter().message(5, WireWriter().blob(8, numbers))),
            WireWriter().message(1, WireWriter().message(5, repeating([0x4A, 0], 22))),
            WireWriter().message(5, WireWriter().blob(1, numbers)),
        ]
        for graph in graphs { #expect(try refusal(Onnx.model(graph).bytes).contains("too large without its weights")) }
        let type = String(repeating: "x", count: 5000)
        let long = try refusal(Onnx.model(Onnx.graph([Onnx.node(type, ["x"], ["y"])])).bytes)
        #expect(long.contains("NodeProto, field 4") && long.contains("5000 bytes; expected at most 4096"))
    }

    /// What would take hours where work grew with the square of what a file repeats.
    @Test func repetitionCostsNoMoreThanItsBytes() throws {
        let many = 20_000
        // A node that reads one value many times, which a node with as many operands computes.
        let sum = Onnx.node("Concat", Array(repeating: "x", count: many), ["s"], [Onnx.attribute("axis", int: 0)])
        let again = Onnx.node("Concat", Array(repeating: "s", count: many), ["y"], [Onnx.attribute("axis", int: 0)])
        #expect(try outcome(Onnx.model(Onnx.graph([again, sum], inputs: [Onnx.value("x", [1])])).bytes) != nil)
        // Sizes and values of one name.
        let sizes = (0..<64).map { "\(Character(UnicodeScalar(0x4E00 + $0)!))" }
        #expect(
            try outcome(Onnx.model(Onnx.graph([Onnx.node("Relu", ["x"], ["y"])], inputs: [Onnx.value("x", sizes)])).bytes) != nil)
        let rank = try refusal(
            Onnx.model(
                Onnx.graph([Onnx.node("Relu", ["x"], ["y"])], inputs: [Onnx.value("x", Array(repeating: "?", count: 65))])
            ).bytes)
        #expect(rank.contains("rank 65") && rank.contains("at most 1024 and 64"))
        let name = String(repeating: "x", count: 2000)
        let long = try refusal(
            Onnx.model(Onnx.graph([Onnx.node("Relu", [name], ["y"])], inputs: [Onnx.value(name, [1])])).bytes)
        #expect(long.contains("a name of 2000 bytes") && long.utf8.count < 1000)
        // Calls of a function that has operands and no nodes.
        let formals = (0..<many).map { "f\($0)" }
        let calls = (0..<many).map { Onnx.node("F", [], ["y\($0)"], domain: "local") }
        let empty = Onnx.model(Onnx.graph(calls), functions: [Onnx.function("F", formals, ["f0"], [])])
        #expect(try refusal(empty.bytes).contains("too many nodes"))
        let crowd = Array(repeating: Onnx.node("Relu", ["x"], [""]), count: 100_001)
        #expect(try refusal(Onnx.model(Onnx.graph(crowd)).bytes).contains("found 100001"))
    }

    /// Sizes that become known one after the other, each without a search through all values.
    @Test func sizesThatBecomeKnownCostTheirOwnPlacesOnly() throws {
        let nodes = (0..<10_000).flatMap { number in
            [
                Onnx.node("Floor", ["c"], ["f\(number)"]),
                Onnx.node("Cast", ["f\(number)"], ["s\(number)"], [Onnx.attribute("to", int: 7)]),
                Onnx.node("Reshape", ["x", "s\(number)"], ["y\(number)"]),
            ]
        }
        let sum = Onnx.node("Sum", (0..<10_000).map { "y\($0)" }, ["y"])
        let x = Onnx.value("x", ["batch"]), c = Onnx.floats("c", [1], [-1])
        let imported = try #require(try outcome(Onnx.model(Onnx.graph(nodes + [sum], inputs: [x], initializers: [c])).bytes))
        // A sum of n is n - 1 additions.
        #expect(imported.nodes.count == 39_999)
    }

    /// Small operands, a large result or a large one in between: nothing of that is made before the model runs.
    @Test func fewBytesStateNoWork() throws {
        let x = Onnx.value("x", ["batch", 3])
        let sizes = [
            Onnx.node("Shape", ["x"], ["s"]), Onnx.node("Reshape", ["s", "two"], ["r"]), Onnx.node("Expand", ["r", "wide"], ["y"]),
        ]
        let initializers = [Onnx.int64s("two", [2], [2, 1]), Onnx.int64s("wide", [2], [1, 500_000_000])]
        let graph = try #require(try outcome(Onnx.model(Onnx.graph(sizes, inputs: [x], initializers: initializers)).bytes))
        #expect(graph.nodes.contains { $0.op is Expand })
        let parts = (0..<65_535).map { _ in "" } + ["y"]
        let split = Onnx.node("Split", ["one"], parts, [Onnx.attribute("axis", int: 0)])
        #expect(
            try outcome(Onnx.model(Onnx.graph([split], inputs: [x], initializers: [Onnx.int64s("one", [1], [7])])).bytes) != nil)
    }

    @Test func refusesNamesThatAreNone() throws {
        #expect(try refusal(Onnx.model(Onnx.graph([Onnx.node("Relu", ["x"], ["y\0z"])])).bytes).contains("zero byte"))
        let invalid = WireWriter().blob(1, [0xFF, 0xFE])
        #expect(try refusal(Onnx.model(Onnx.graph([invalid])).bytes).contains("invalid UTF-8"))
    }

    @Test func refusesValuesWithoutANameOfTheirOwn() throws {
        let add = Onnx.node("Add", ["x", "w"], ["y"])
        let twice = [Onnx.value("x", [1]), Onnx.value("x", [1])]
        #expect(try refusal(Onnx.model(Onnx.graph([add], inputs: twice)).bytes).contains("two inputs have one name"))
        #expect(try refusal(Onnx.model(Onnx.graph([add], inputs: [Onnx.value("", [1])])).bytes).contains("or one has none"))
        #expect(
            try refusal(Onnx.model(Onnx.graph([add], initializers: [Onnx.floats("", [1], [1])])).bytes).contains(
                "an initializer has no name"))
        let weights = [Onnx.floats("w", [1], [1]), Onnx.floats("w", [1], [2])]
        #expect(try refusal(Onnx.model(Onnx.graph([add], initializers: weights)).bytes).contains("two initializers have one name"))
    }

    @Test func refusesFunctionsThatDoNotEndOrDoNotSuit() throws {
        let calling = Onnx.graph([Onnx.node("F0", ["x"], ["y"], domain: "local")])
        func chain(_ length: Int) -> [WireWriter] {
            (0..<length).map { number in
                let next =
                    number + 1 < length
                    ? Onnx.node("F\(number + 1)", ["a"], ["b"], domain: "local") : Onnx.node("Relu", ["a"], ["b"])
                return Onnx.function("F\(number)", ["a"], ["b"], [next])
            }
        }
        #expect(try outcome(Onnx.model(calling, functions: chain(32)).bytes) != nil)
        #expect(try refusal(Onnx.model(calling, functions: chain(33)).bytes).contains("too deeply"))
        let relu = Onnx.node("Relu", ["a"], ["b"])
        for (inputs, outputs) in [(["x", "x"], ["y"]), (["x"], ["y", "z"])] {
            let call = Onnx.graph([Onnx.node("F", inputs, outputs, domain: "local")])
            #expect(
                try refusal(Onnx.model(call, functions: [Onnx.function("F", ["a"], ["b"], [relu])]).bytes).contains(
                    "does not suit its function"))
        }
        // A long name, made longer by each call that it stands in.
        let long = String(repeating: "n", count: 4000)
        let nodes = (0..<1000).map { Onnx.node("Relu", ["a"], [$0 == 0 ? "b" : "c\($0)"], name: long) }
        let call = Onnx.node("F", ["x"], ["y"], domain: "local", name: long)
        let model = Onnx.model(Onnx.graph([call]), functions: [Onnx.function("F", ["a"], ["b"], nodes)])
        _ = try outcome(model.bytes)
        let calls = (0..<12).map { Onnx.node("F", ["x"], [$0 == 0 ? "y" : "z\($0)"], domain: "local", name: long) }
        #expect(
            try refusal(Onnx.model(Onnx.graph(calls), functions: [Onnx.function("F", ["a"], ["b"], nodes)]).bytes).contains(
                "too many nodes"))
    }

    @Test func refusesAttributesThatAreNoWordsOfTheOperator() throws {
        let gelu = Onnx.node("Gelu", ["x"], ["y"], [Onnx.attribute("approximate", text: "sigmoid")])
        #expect(try refusal(Onnx.model(Onnx.graph([gelu]), opset: 20).bytes).contains("attribute approximate; found \"sigmoid\""))
        let inputs = [Onnx.value("x", [1], type: 12), Onnx.value("w", [1], type: 12)]
        let shift = Onnx.node("BitShift", ["x", "w"], ["y"], [Onnx.attribute("direction", text: "UP")])
        #expect(try refusal(Onnx.model(Onnx.graph([shift], inputs: inputs)).bytes).contains("attribute direction; found \"UP\""))
        for opset in [10, 28] {
            #expect(try refusal(Onnx.model(Onnx.graph([Onnx.node("Relu", ["x"], ["y"])]), opset: opset).bytes).contains("11 to 27"))
        }
    }

    // MARK: Tensors

    @Test(arguments: [
        ("do not fill", Onnx.tensor("w", [2], type: 1).blob(9, [1, 2, 3])),
        ("do not fill", Onnx.tensor("w", [600], type: 1).blob(9, Array(repeating: 0, count: 2399))),
        ("do not fill", Onnx.tensor("w", [3], type: 1)),
        ("do not fill", Onnx.tensor("w", [1 << 40], type: 1).blob(9, [1, 2, 3, 4])),
        ("do not fill", Onnx.tensor("w", [5000], type: 7).packedInts(7, Array(repeating: 1, count: 2000))),
        ("do not fill", Onnx.tensor("w", [100], type: 7).packedInts(7, Array(repeating: 1, count: 2000))),
        ("negative dimension", Onnx.tensor("w", [-1], type: 1)),
        ("overflows", Onnx.tensor("w", [1 << 40, 1 << 40], type: 1)),
        ("overflows", Onnx.tensor("w", [.max, 2], type: 1)),
        ("several places", Onnx.tensor("w", [1], type: 1).blob(9, [0, 0, 0, 0]).blob(4, [0, 0, 0, 0])),
        ("several places", Onnx.tensor("w", [600], type: 1).blob(9, Array(repeating: 0, count: 2400)).blob(4, [0, 0, 0, 0])),
        (
            "several places",
            Onnx.tensor("w", [600], type: 1).blob(9, Array(repeating: 0, count: 2400)).blob(9, Array(repeating: 0, count: 2400))
        ),
        ("does not suit", Onnx.tensor("w", [1], type: 1).packedInts(7, [1])),
        ("does not suit", Onnx.tensor("w", [2000], type: 1).packedInts(7, Array(repeating: 1, count: 2000))),
        ("unsupported element type", Onnx.tensor("w", [1], type: 8).text(6, "text")),
        ("segments", Onnx.tensor("w", [1], type: 1).message(3, WireWriter())),
        ("data location", Onnx.tensor("w", [1], type: 1).int(14, 7)),
    ])
    func refusesTensorsThatAreNone(message: String, tensor: WireWriter) throws {
        let model = Onnx.model(
            Onnx.graph([Onnx.node("Add", ["x", "w"], ["y"])], inputs: [Onnx.value("x", ["n"])], initializers: [tensor]))
        #expect(try refusal(model.bytes).contains(message))
    }

    @Test func payloadsThatTheWalkerInventsAreNotTaken() throws {
        // The fields that state a payload's place are ours alone; a file's own are dropped.
        let forged = Onnx.tensor("w", [1000], type: 1).int(1001, 0).int(1002, 4000).int(1003, 9)
        let model = Onnx.model(
            Onnx.graph([Onnx.node("Add", ["x", "w"], ["y"])], inputs: [Onnx.value("x", ["n"])], initializers: [forged]))
        #expect(try refusal(model.bytes).contains("do not fill"))
    }

    // MARK: Operators

    @Test(arguments: [
        ("ConstantOfShape", [Onnx.int64s("a", [1], [-1])]),
        ("Expand", [Onnx.floats("a", [1], [1]), Onnx.int64s("b", [1], [-5])]),
        ("Tile", [Onnx.floats("a", [1], [1]), Onnx.int64s("b", [1], [-1])]),
        ("Range", [Onnx.int64s("a", [], [0]), Onnx.int64s("b", [], [5]), Onnx.int64s("c", [], [0])]),
        ("Reshape", [Onnx.floats("a", [2], [1, 1]), Onnx.int64s("b", [2], [-1, -1])]),
        ("Reshape", [Onnx.floats("a", [2], [1, 1]), Onnx.int64s("b", [1], [.min])]),
        (
            "Slice",
            [Onnx.floats("a", [2], [1, 1]), Onnx.int64s("b", [1], [0]), Onnx.int64s("c", [1], [1]), Onnx.int64s("d", [1], [7])]
        ),
        (
            "Slice",
            [
                Onnx.floats("a", [2], [1, 1]), Onnx.int64s("b", [1], [0]), Onnx.int64s("c", [1], [1]), Onnx.int64s("d", [1], [0]),
                Onnx.int64s("e", [1], [0]),
            ]
        ),
        ("Split", [Onnx.floats("a", [2], [1, 1]), Onnx.int64s("b", [1], [-7])]),
        ("Pad", [Onnx.floats("a", [2], [1, 1]), Onnx.int64s("b", [2], [-5, -5])]),
        ("Pad", [Onnx.floats("a", [2], [1, 1]), Onnx.int64s("b", [3], [0, 0, 0])]),
        ("Gather", [Onnx.floats("a", [], [1]), Onnx.int64s("b", [1], [0])]),
        ("Unsqueeze", [Onnx.floats("a", [1], [1]), Onnx.int64s("b", [2], [0, 0])]),
        ("TopK", [Onnx.floats("a", [2], [1, 1]), Onnx.int64s("b", [1], [3])]),
        ("MatMul", [Onnx.floats("a", [2], [1, 1]), Onnx.floats("b", [3], [1, 1, 1])]),
        ("Conv", [Onnx.floats("a", [1, 1, 2], [1, 1]), Onnx.floats("b", [1, 1, 1, 1], [1])]),
        ("Conv", [Onnx.floats("a", [1, 1, 1], [1]), Onnx.floats("b", [1, 1, 2], [1, 1])]),
    ])
    func refusesOperandsThatNoOperatorTakes(type: String, operands: [WireWriter]) throws {
        let names = ["a", "b", "c", "d", "e"].prefix(operands.count)
        let node = Onnx.node(type, Array(names), ["y"])
        _ = try refusal(Onnx.model(Onnx.graph([node], inputs: [], initializers: operands)).bytes)
    }

    @Test func bombsCostNothingBeforeTheyRun() throws {
        for (type, operands) in [
            ("ConstantOfShape", [Onnx.int64s("a", [1], [1 << 50])]),
            ("Expand", [Onnx.floats("a", [1], [1]), Onnx.int64s("b", [1], [1 << 50])]),
            ("Tile", [Onnx.floats("a", [1], [1]), Onnx.int64s("b", [1], [1 << 50])]),
            ("Range", [Onnx.int64s("a", [], [0]), Onnx.int64s("b", [], [1 << 50]), Onnx.int64s("c", [], [1])]),
        ] {
            let node = Onnx.node(type, Array(["a", "b", "c"].prefix(operands.count)), ["y"])
            let graph = try outcome(Onnx.model(Onnx.graph([node], inputs: [], initializers: operands)).bytes)
            #expect(graph?.shape(of: try #require(graph).outputs[0].value) == [Dimension(1 << 50)])
        }
    }
}

@Suite struct ONNXTensorTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private func constant(_ tensor: WireWriter, options: ONNXImportOptions = .init()) throws -> Constant {
        let model = Onnx.model(Onnx.graph([Onnx.node("Identity", ["w"], ["y"])], inputs: [], initializers: [tensor]))
        let graph = try importONNX(path: folder.write(model.bytes, "model.onnx"), options: options).graphs[0]
        return try #require(graph.constant(of: graph.outputs[0].value))
    }

    @Test(arguments: [3, 1000])
    func readsEveryFormOfNumbers(count: Int) throws {
        let numbers = (0..<count).map { $0 * 7 - 10 }
        let floats = numbers.map { Float($0) }
        func check<Element: TensorElement & Equatable>(_ tensor: WireWriter, _ expected: [Element], _ place: Int = #line) throws {
            let constant = try constant(tensor)
            #expect(constant.shape == [count] && constant.dataType == Element.dataType)
            #expect(try constant.load().elements() == expected, "line \(place)")
        }
        let shape = [count]
        try check(Onnx.floats("w", shape, floats), floats)
        try check(Onnx.tensor("w", shape, type: 1).blob(4, raw(floats)), floats)
        try check(floats.reduce(Onnx.tensor("w", shape, type: 1)) { $0.float(4, $1) }, floats)
        try check(Onnx.tensor("w", shape, type: 11).blob(10, raw(numbers.map { Double($0) })), numbers.map { Double($0) })
        try check(Onnx.tensor("w", shape, type: 7).packedInts(7, numbers), numbers.map { Int64($0) })
        try check(Onnx.tensor("w", shape, type: 7).ints(7, numbers), numbers.map { Int64($0) })
        try check(Onnx.tensor("w", shape, type: 6).packedInts(5, numbers), numbers.map { Int32($0) })
        try check(Onnx.tensor("w", shape, type: 5).packedInts(5, numbers), numbers.map { Int16(truncatingIfNeeded: $0) })
        try check(Onnx.tensor("w", shape, type: 3).packedInts(5, numbers), numbers.map { Int8(truncatingIfNeeded: $0) })
        try check(
            Onnx.tensor("w", shape, type: 2).packedInts(5, numbers.map { $0 & 0xFF }), numbers.map { UInt8(truncatingIfNeeded: $0) }
        )
        try check(
            Onnx.tensor("w", shape, type: 12).packedInts(11, numbers.map { $0 & 0xFFFF }), numbers.map { UInt32($0 & 0xFFFF) })
        try check(Onnx.tensor("w", shape, type: 13).packedInts(11, numbers), numbers.map { UInt64(bitPattern: Int64($0)) })
        // Bytes other than 0 and 1 are no booleans; they count as true.
        try check(
            Onnx.tensor("w", shape, type: 9).blob(9, numbers.map { UInt8(truncatingIfNeeded: $0) }), numbers.map { $0 & 0xFF != 0 })
        try check(Onnx.tensor("w", shape, type: 9).packedInts(5, numbers.map { $0 & 1 }), numbers.map { $0 & 1 == 1 })
    }

    @Test func readsHalfPrecisionAsBitPatterns() throws {
        let half = try constant(Onnx.tensor("w", [3], type: 10).packedInts(5, [0x3C00, 0xC000, 0x0000]))
        #expect(half.dataType == .float16)
        #expect(try half.load().converted(to: .float32).elements() == [Float(1), -2, 0])
        let brain = try constant(Onnx.tensor("w", [1000], type: 16).packedInts(5, Array(repeating: 0x3F80, count: 1000)))
        #expect(brain.dataType == .bfloat16)
        #expect(try brain.load().converted(to: .float32).elements() == Array(repeating: Float(1), count: 1000))
    }

    @Test func readsEmptyAndScalarTensors() throws {
        #expect(try constant(Onnx.tensor("w", [0, 4], type: 1)).load().count == 0)
        #expect(try constant(Onnx.tensor("w", [0], type: 7).blob(9, [])).load().shape == [0])
        #expect(try constant(Onnx.floats("w", [], [3])).load().elements() == [Float(3)])
    }

    @Test func leavesLargeConstantNodesInTheFile() throws {
        let numbers = (0..<1000).map { Float($0) }
        let node = Onnx.node("Constant", [], ["w"], [Onnx.attribute("value", tensor: Onnx.floats("", [1000], numbers))])
        let model = Onnx.model(Onnx.graph([node, Onnx.node("Identity", ["w"], ["y"])], inputs: []))
        let path = try folder.write(model.bytes, "model.onnx")
        let graph = try importONNX(path: path).graphs[0]
        let constant = try #require(graph.constant(of: graph.outputs[0].value))
        #expect(constant.identity.hasPrefix(path + "@"))
        #expect(try constant.load().elements() == numbers)
    }

    @Test func readsSerialisedTensors() throws {
        let path = try folder.write(Onnx.floats("image_feat", [2], [1, 2]).bytes, "output_0.pb")
        let (name, tensor) = try readTensorProto(path: path)
        #expect(name == "image_feat")
        #expect(try tensor.load().elements() == [Float(1), 2])
        let truncated = try folder.write(Array(Onnx.floats("image_feat", [2], [1, 2]).bytes.dropLast()), "output_1.pb")
        #expect(throws: TripsError.self) { try readTensorProto(path: truncated) }
    }

    // MARK: External data

    private func external(_ entries: [(String, String)], shape: [Int] = [2]) -> WireWriter {
        Onnx.tensor("w", shape, type: 1).int(14, 1).messages(13, entries.map { WireWriter().text(1, $0.0).text(2, $0.1) })
    }

    @Test func readsExternalData() throws {
        try folder.write(raw([Float(0), 1, 2, 3]), "weights.bin")
        let constant = try constant(external([("location", "weights.bin"), ("offset", "4"), ("length", "8"), ("checksum", "-")]))
        #expect(try constant.load().elements() == [Float(1), 2])
        try FileManager.default.createDirectory(atPath: folder["sub"], withIntermediateDirectories: true)
        try folder.write(raw([Float(5), 6]), "sub/weights.bin")
        #expect(try self.constant(external([("location", "sub/weights.bin")])).load().elements() == [Float(5), 6])
    }

    @Test(arguments: [
        [("location", "../weights.bin")], [("location", "sub/../../weights.bin")], [("location", "/etc/passwd")],
        [("location", "sub\\weights.bin")], [("location", "")], [], [("location", "weights.bin\0.txt")],
        [("location", "absent.bin")],
        [("location", "folder")], [("location", "pipe")], [("location", ".")],
        [("location", "weights.bin"), ("offset", "-4")], [("location", "weights.bin"), ("offset", "four")],
        [("location", "weights.bin"), ("offset", "")], [("location", "weights.bin"), ("offset", "12")],
        [("location", "weights.bin"), ("offset", "9223372036854775807")],
        [("location", "weights.bin"), ("offset", "99999999999999999999")],
        [("location", "weights.bin"), ("length", "-8")], [("location", "weights.bin"), ("length", "4")],
        [("location", "weights.bin"), ("length", "99999")], [("location", "weights.bin"), ("length", "0x8")],
    ])
    func refusesExternalData(entries: [(String, String)]) throws {
        try folder.write(raw([Float(0), 1, 2, 3]), "weights.bin")
        try FileManager.default.createDirectory(atPath: folder["folder"], withIntermediateDirectories: true)
        #expect(mkfifo(folder["pipe"], 0o600) == 0)
        let error = #expect(throws: TripsError.self) { try constant(external(entries)) }
        #expect(error?.kind == .data || error?.kind == .cannotOpen)
        #expect(error?.place.first == "model.onnx")
    }

    /// Following links is no leave to name what lies elsewhere.
    @Test(
        arguments: ["../weights.bin", "../\u{301}weights.bin", "sub/../../weights.bin", "/weights.bin", "sub\\weights.bin"],
        [false, true])
    func refusesLocationsElsewhere(location: String, followLinks: Bool) throws {
        let inner = folder["inner"]
        try FileManager.default.createDirectory(atPath: inner + "/sub", withIntermediateDirectories: true)
        for name in ["weights.bin", "inner/weights.bin", "inner/sub\\weights.bin"] {
            try folder.write(raw([Float(1), 2]), name)
        }
        let model = Onnx.model(
            Onnx.graph([Onnx.node("Identity", ["w"], ["y"])], inputs: [], initializers: [external([("location", location)])]))
        let path = try folder.write(model.bytes, "inner/model.onnx")
        #expect { try importONNX(path: path, options: .init(followsLinks: followLinks)) } throws: {
            ($0 as? TripsError)?.kind == .data && "\($0)".contains("a path inside the model's folder")
        }
    }

    @Test func confinesLinksToTheFolderUnlessToldOtherwise() throws {
        let elsewhere = try TemporaryFolder()
        let target = try elsewhere.write(raw([Float(8), 9]), "blob")
        let link = folder["weights.bin"]
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: target)
        let tensor = external([("location", "weights.bin")])
        let error = #expect(throws: TripsError.self) { try constant(tensor) }
        #expect(error?.message.contains("leaves the folder") == true)
        #expect(try constant(tensor, options: .init(followsLinks: true)).load().elements() == [Float(8), 9])

        try folder.write(raw([Float(3), 4]), "inside.bin")
        try FileManager.default.removeItem(atPath: link)
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: "inside.bin")
        #expect(try constant(tensor).load().elements() == [Float(3), 4])
    }

    @Test func refusesModelsThatAreNoFiles() throws {
        #expect(mkfifo(folder["pipe.onnx"], 0o600) == 0)
        for name in ["absent.onnx", "pipe.onnx", ""] {
            let error = #expect(throws: TripsError.self) { try importONNX(path: folder[name]) }
            #expect(error?.kind == .cannotOpen)
        }
    }
}
