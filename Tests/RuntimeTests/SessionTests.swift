import ModelGraph
import Operators
import PackageFormat
import Rewrites
import Support
import Synchronization
import Tensors
import TestSupport
import Testing

import Runtime

/// Two graphs: `encode` gives states from x, `decode` an answer from the states and y.
private func twoGraphs() throws -> Model {
    var generator = SplitMix64(state: 3)
    func weight(_ rows: Int, _ columns: Int, _ name: String) throws -> Constant {
        let numbers = (0..<rows * columns).map { _ in Float(generator.uniform() - 0.5) }
        return Constant(try Tensor(numbers, shape: [rows, columns]), identity: name)
    }
    var encode = Graph(name: "encode")
    let x = try encode.addInput("x", ValueType(.float32, [Dimension(symbol: "batch"), Dimension(symbol: "length"), 40]))
    let w1 = try encode.addConstant(weight(72, 40, "w1"), name: "w1")
    let w2 = try encode.addConstant(weight(40, 72, "w2"), name: "w2")
    let hidden = try encode.add(GELU(.erf), encode.add(Linear(), [x, w1], name: "up"), name: "gelu")[0]
    let sum = try encode.add(Binary(.add), [x, encode.add(Linear(), [hidden, w2], name: "down")[0]], name: "sum")[0]
    try encode.addOutput("states", sum)
    try encode.addOutput("hidden", hidden)
    encode.addTrace("vision.1", sum)

    var decode = Graph(name: "decode")
    let states = try decode.addInput("states", ValueType(.float32, [Dimension(symbol: "batch"), Dimension(symbol: "length"), 40]))
    let y = try decode.addInput("y", ValueType(.float32, [Dimension(symbol: "batch"), 3, 40]))
    let read = try decode.add(Attention(heads: 4), [y, states, states], name: "read")[0]
    try decode.addOutput("answer", read)
    for graph in [encode, decode] { try graph.validate() }
    return Model(graphs: [encode, decode], manifest: Manifest(tool: .init(name: "test", version: "")))
}

/// Numbers below 1/2.
private func noise(_ shape: [Int], seed: UInt64) throws -> Tensor { try TestSupport.noise(shape, seed: seed, scale: 0.5) }

/// Copies nothing, and cancels the task in which it runs.
private struct Cancelling: Computable {
    static let computed = Mutex(0)

    func infer(_ inputs: [Operand?]) throws -> [ValueType] { [try inputs.required(0, "x").type] }

    func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) {
        Cancelling.computed.withLock { $0 += 1 }
        withUnsafeCurrentTask { $0?.cancel() }
    }
}

/// Keeps the largest batch that it was given.
private struct BatchRecord: Computable {
    static let largest = Mutex(0)

    func infer(_ inputs: [Operand?]) throws -> [ValueType] { [try inputs.required(0, "x").type] }

    func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        BatchRecord.largest.withLock { $0 = max($0, outputs[0].shape[0]) }
        if let x = inputs.first.flatMap({ $0 }) {
            outputs[0].bytes.copyMemory(from: x.bytes, byteCount: x.count * x.dataType.byteWidth)
        }
    }
}

@Test func theValuesAskedForLastAreKept() {
    var values = RecentValues<Int, String>()
    for key in 0..<8 { values.keep("\(key)", for: key) }
    #expect(values.value(for: 0) == "0")
    values.keep("8", for: 8)
    #expect(values.value(for: 1) == nil && values.value(for: 0) == "0" && values.value(for: 2) { "new" } == "2")
    #expect(values.value(for: 1) { "made" } == "made" && values.value(for: 1) == "made" && values.value(for: 3) == nil)
}

@Suite struct SessionTests {
    @Test func resultsDoNotDependOnThreadsOrOnWhatElseIsAsked() throws {
        let model = try twoGraphs()
        let inputs = ["x": try noise([2, 137, 40], seed: 1), "y": try noise([2, 3, 40], seed: 2)]
        let alone = try Session(model, threads: 1).run(inputs)
        let together = try Session(model, threads: 3).run(inputs, outputs: ["answer", "hidden"], traces: ["vision.1"])
        #expect(Set(alone.keys) == ["states", "hidden", "answer"])
        #expect(Set(together.keys) == ["answer", "hidden", "vision.1"])
        #expect(try together["answer"]?.elements(Float.self) == alone["answer"]?.elements(Float.self))
        #expect(try together["vision.1"]?.elements(Float.self) == alone["states"]?.elements(Float.self))
    }

    @Test func onlyWhatIsNeededIsAskedFor() throws {
        let session = Session(try twoGraphs(), threads: 1)
        #expect(try session.inputs(for: ["states"]).map(\.name) == ["x"])
        #expect(try session.inputs(for: ["answer"]).map(\.name) == ["x", "y"])
        let states = try noise([1, 5, 40], seed: 4)
        let answer = try session.run(["states": states, "y": noise([1, 3, 40], seed: 5)], outputs: ["answer"])
        #expect(answer["answer"]?.shape == [1, 3, 40])
    }

    /// `sizes` are made of the shapes of x and y alone; a session asks for both, and for no more.
    @Test func outputsThatAreSizesComeFromShapesAlone() throws {
        var graph = Graph(name: "main")
        func input(_ name: String, _ size: String) throws -> ValueID {
            try graph.addInput(name, ValueType(.float32, [Dimension(symbol: "batch"), Dimension(symbol: size)]))
        }
        let x = try input("x", "width")
        for name in ["y", "z"] { _ = try input(name, "length") }
        let sizes = [Dimension(symbol: "batch"), Dimension(symbol: "width"), try Dimension(symbol: "length").adding(1)]
        try graph.addOutput("sizes", graph.addKnown(.dimensions(sizes), ValueType(.int64, [3]), name: "sizes"))
        try graph.addOutput("negative", graph.add(Unary(.neg), [x], name: "neg")[0])
        let ones = ValueType(.float32, [Dimension(symbol: "length")])
        try graph.addOutput("ones", graph.addKnown(.splat(Tensor(scalar: Float(1))), ones, name: "ones"))
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        #expect(try session.inputs(for: ["sizes"]).map(\.name) == ["x", "y"])
        #expect(try session.inputs(for: ["negative"]).map(\.name) == ["x"])
        let inputs = ["x": try noise([2, 3], seed: 1), "y": try noise([2, 5], seed: 2)]
        #expect(try session.run(inputs, outputs: ["sizes"])["sizes"]?.elements(Int64.self) == [2, 3, 6])
        #expect(try session.run(["y": noise([1, 4], seed: 3)])["ones"]?.elements(Float.self) == [1, 1, 1, 1])
        #expect(try Set(session.run(inputs).keys) == ["sizes", "negative", "ones"])
        #expect { try session.run(["x": noise([2, 3], seed: 1)], outputs: ["sizes"]) } throws: {
            "\($0)".hasPrefix("input y is missing")
        }
    }

    /// What is made of an input's sizes alone needs that input, though not those that other outputs are made of.
    @Test func sizesOfInputsSuffice() throws {
        var graph = Graph(name: "main")
        let (length, batch) = (Dimension(symbol: "length"), Dimension(symbol: "batch"))
        let x = try graph.addInput("x", ValueType(.float32, [batch, length]))
        let y = try graph.addInput("y", ValueType(.float32, [batch, 2]))
        func scalar(_ number: Int64) throws -> ValueID { try graph.addConstant(Constant(Tensor(scalar: number)), name: "number") }
        let count = try graph.add(Gather(axis: 0), [graph.add(Shape(), [x], name: "shape")[0], scalar(1)], name: "length")[0]
        try graph.addOutput("places", graph.add(Arange(), [scalar(0), count, scalar(1)], name: "places")[0])
        try graph.addOutput("z", graph.add(Unary(.neg), [y], name: "z")[0])
        try graph.fold()
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        #expect(try session.inputs(for: ["places"]).map(\.name) == ["x"])
        #expect(try session.inputs(for: ["z"]).map(\.name) == ["y"])
        #expect(try session.run(["x": noise([2, 3], seed: 1)])["places"]?.elements(Int64.self) == [0, 1, 2])
    }

    @Test func narrowerInputsAreWidened() throws {
        var graph = Graph(name: "main")
        let (x, mask) = (try graph.addInput("x", ValueType(.float32, [2])), try graph.addInput("mask", ValueType(.int64, [2])))
        try graph.addOutput("y", graph.add(Unary(.neg), [x], name: "neg")[0])
        try graph.addOutput("z", graph.add(Unary(.neg), [mask], name: "neg of mask")[0])
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        for type in [DataType.float32, .float16, .bfloat16] {
            let given = try Tensor([Float(1.5), -3], shape: [2]).converted(to: type)
            #expect(try session.run(["x": given])["y"]?.elements(Float.self) == [-1.5, 3])
        }
        for type in [DataType.int64, .int32, .uint32, .uint8, .bool] {
            let given = try Tensor([Int64(1), 0], shape: [2]).converted(to: type)
            #expect(try session.run(["mask": given])["z"]?.elements(Int64.self) == [-1, 0])
        }
        for (name, type) in [("x", DataType.float64), ("x", .int8), ("mask", .float32), ("mask", .uint64)] {
            let given = try Tensor([Float(1), 0], shape: [2]).converted(to: type)
            #expect { try session.run([name: given]) } throws: { "\($0)".hasPrefix("data type of input \(name); found \(type)") }
        }
    }

    @Test func allThatTheInputsSufficeForIsComputed() throws {
        let session = Session(try twoGraphs(), threads: 1)
        let (x, states, y) = (try noise([1, 5, 40], seed: 4), try noise([1, 5, 40], seed: 5), try noise([1, 3, 40], seed: 6))
        #expect(try Set(session.run(["x": x]).keys) == ["states", "hidden"])
        #expect(try Set(session.run(["states": states, "y": y]).keys) == ["answer"])
        #expect(try Set(session.run(["x": x, "y": y]).keys) == ["states", "hidden", "answer"])
    }

    /// The value behind the output `hidden` has the same name, and another output reads it.
    @Test func outputsThatAreGivenAreNotComputed() throws {
        var graph = Graph(name: "main")
        let (batch, length) = (Dimension(symbol: "batch"), Dimension(symbol: "length"))
        let x = try graph.addInput("x", ValueType(.float32, [batch, length]))
        let y = try graph.addInput("y", ValueType(.float32, [batch, 1]))
        let hidden = try graph.add(Unary(.neg), [x], name: "hidden")[0]
        let sum = try graph.add(Binary(.add), [hidden, y], name: "sum")[0]
        for (name, value) in [("hidden", hidden), ("sum", sum), ("twice", try graph.add(Unary(.neg), [hidden], name: "twice")[0])] {
            try graph.addOutput(name, value)
        }
        graph.addTrace("vision.1", sum)
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        func numbers(_ inputs: [String: Tensor], _ outputs: [String]? = nil, traces: [String] = []) throws -> [String: [Float]] {
            try session.run(inputs, outputs: outputs, traces: traces).mapValues { try $0.elements(Float.self) }
        }
        let given = ["hidden": try Tensor([Float(1), 2], shape: [1, 2]), "y": try Tensor([Float(10)], shape: [1, 1])]
        #expect(try numbers(given) == ["sum": [11, 12], "twice": [-1, -2]])
        #expect(try numbers(given, [], traces: ["vision.1"]) == ["vision.1": [11, 12]])
        #expect(try numbers(given.mapValues { try $0.converted(to: .float16) }, ["sum"]) == ["sum": [11, 12]])
        let all = given.merging(["x": try Tensor([Float(5), 6], shape: [1, 2])]) { $1 }
        #expect(try numbers(all, ["sum"]) == ["sum": [11, 12]])
        // An output that is asked for is computed.
        #expect(try numbers(all) == ["hidden": [-5, -6], "sum": [5, 4], "twice": [5, 6]])
        #expect(try session.inputs(for: ["sum"], given: ["hidden"]).map(\.name) == ["y", "hidden"])
        #expect(try session.inputs(for: ["sum"], given: ["twice"]).map(\.name) == ["x", "y"])
        #expect { try session.inputs(for: ["sum"], given: ["vision.1"]) } throws: { "\($0)".hasPrefix("no such output") }
        #expect { try session.run(given, outputs: ["hidden"]) } throws: { "\($0)".hasPrefix("input x is missing") }
        let wide = given.merging(["hidden": try Tensor([Float](repeating: 0, count: 2), shape: [2])]) { $1 }
        #expect { try session.run(wide, outputs: ["sum"]) } throws: { "\($0)".hasPrefix("shape of input hidden") }
    }

    @Test(arguments: [[1, 1 << 40], [1 << 31, 9], [.max, 1]]) func noInputsAreMadeUpOutOfProportion(shape: [Int]) throws {
        for type in [DataType.float32, .int64] {
            var graph = Graph(name: "main")
            let x = try graph.addInput("x", ValueType(type, shape.map { Dimension($0) }))
            try graph.addOutput("y", graph.add(Unary(.neg), [x], name: "neg")[0])
            let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
            #expect { try session.syntheticInputs(batch: 1, length: 9) } throws: { ($0 as? TripsError)?.kind == .data }
        }
    }

    /// OPT's positions start at row 2 of their table.
    @Test(arguments: [0, 2]) func aTextIsMadeUpNoLongerThanItsPositions(start: Int) throws {
        var graph = Graph(name: "main")
        let length = Dimension(symbol: "length")
        let ids = try graph.addInput("ids", ValueType(.int64, [Dimension(symbol: "batch"), length]))
        func table(_ shape: [Int]) throws -> ValueID {
            try graph.addConstant(Constant(noise(shape, seed: 1), identity: "table \(shape)"), name: "table")
        }
        func sizes(_ size: Dimension) throws -> ValueID {
            try graph.addKnown(Content(sizes: [size], scalar: false), ValueType(.int64, [1]), name: "range")
        }
        let range = try [Dimension(start), length.adding(Dimension(start)), 1].map(sizes)
        let positions = try graph.add(Slice(), [table([1, 8, 4])] + range, name: "positions")[0]
        try graph.addOutput("y", graph.add(Embedding(), [ids, table([10, 4]), positions], name: "words")[0])
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        let inputs = try session.syntheticInputs(batch: 1, length: 9)
        #expect(inputs["ids"]?.shape == [1, 8 - start])
        #expect(try session.run(inputs)["y"]?.shape == [1, 8 - start, 4])
    }

    /// RoBERTa counts its tokens from row 2 on.
    @Test func aTextIsMadeUpNoLongerThanWhatCountsIt() throws {
        var graph = Graph(name: "main")
        let ids = try graph.addInput("ids", ValueType(.int64, [Dimension(symbol: "batch"), Dimension(symbol: "length")]))
        let (one, axis) = try (
            graph.addConstant(Constant(integers: [1], shape: []), name: "one"),
            graph.addConstant(Constant(integers: [1], shape: []), name: "axis")
        )
        let words = try graph.add(Cast(to: .int64), [graph.add(Binary(.greater), [ids, one], name: "words")[0]], name: "words")[0]
        let counts = try graph.add(Binary(.mul), [graph.add(CumSum(), [words, axis], name: "counts")[0], words], name: "counts")[0]
        let places = try graph.add(Binary(.add), [counts, one], name: "places")[0]
        let table = try graph.addConstant(Constant(noise([8, 4], seed: 1), identity: "table"), name: "table")
        let rows = try graph.add(Embedding(), [places, table], name: "rows")[0]
        let vocabulary = try graph.addConstant(Constant(noise([50, 4], seed: 2), identity: "vocabulary"), name: "vocabulary")
        let sum = try graph.add(Binary(.add), [rows, graph.add(Embedding(), [ids, vocabulary], name: "ids")[0]], name: "sum")[0]
        try graph.addOutput("y", sum)
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        let inputs = try session.syntheticInputs(batch: 2, length: 9)
        #expect(inputs["ids"]?.shape == [2, 6])
        #expect(try session.run(inputs)["y"]?.shape == [2, 6, 4])
        let longest = try Tensor([Int64](repeating: 9, count: 6), shape: [1, 6])
        #expect(try session.run(["ids": longest])["y"]?.shape == [1, 6, 4])
        #expect(throws: TripsError.self) { try session.run(["ids": Tensor([Int64](repeating: 9, count: 8), shape: [1, 8])]) }
    }

    /// Rows that only quantized products read are normalised where each thread quantizes them; others are put where all find them.
    @Test(arguments: [37, 400]) func normalisedRowsAreTheSameWhereOthersReadThemToo(rows: Int) throws {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [Dimension(rows), 40]))
        let gain = try graph.addConstant(Constant(noise([40], seed: 1), identity: "gain"), name: "gain")
        let normal = try graph.add(LayerNorm(epsilon: 1e-6), [x, gain], name: "normal")[0]
        for (name, seed) in [("up", UInt64(2)), ("side", 3)] {
            let levels = try noise([100, 40], seed: seed).elements(Float.self).map { Int8($0 * 254) }
            let weight = try graph.addConstant(Constant(Tensor(levels, shape: [100, 40]), identity: name), name: name + ".weight")
            let scales = try graph.addConstant(
                Constant(noise([100, 1], seed: seed + 9), identity: name + ".scales"), name: name + ".scales")
            let op = QuantizedLinear(groupSize: 40, activations: .int8)
            try graph.addOutput(name, graph.add(op, [normal, weight, scales], name: name)[0])
        }
        try graph.addOutput("normal", normal)
        let model = Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: "")))
        let rowsOfX = try noise([rows, 40], seed: 7), inputs = ["x": rowsOfX]
        let (apart, all) = (
            try Session(model, threads: 3).run(inputs, outputs: ["up", "side"]), try Session(model, threads: 1).run(inputs)
        )
        for name in ["up", "side"] {
            let numbers = try #require(all[name]).elements(Float.self)
            #expect(numbers.contains { $0 != 0 })
            #expect(try apart[name]?.elements(Float.self) == numbers)
        }
        let gains = try noise([40], seed: 1)
        let exact = try evaluate(LayerNorm(epsilon: 1e-6), [rowsOfX, gains])[0].elements(Float.self)
        // Sums of 40 numbers in another order.
        #expect(try zip(#require(all["normal"]).elements(Float.self), exact).allSatisfy { abs($0 - $1) < 1e-5 })
    }

    /// Where only another product reads them, rows of 512 numbers get space in between, and none where they are an output.
    @Test func rowsWithSpaceBetweenThemKeepTheNumbers() throws {
        var generator = SplitMix64(state: 4)
        var graph = Graph(name: "main")
        func weight(_ rows: Int, _ columns: Int) throws -> ValueID {
            let numbers = (0..<rows * columns).map { _ in Float(generator.uniform() - 0.5) }
            return try graph.addConstant(
                Constant(Tensor(numbers, shape: [rows, columns]), identity: "\(rows) x \(columns)"), name: "w")
        }
        let x = try graph.addInput("x", ValueType(.float32, [1, Dimension(symbol: "length"), 40]))
        let hidden = try graph.add(GELU(.erf), graph.add(Linear(), [x, weight(512, 40)], name: "up"), name: "gelu")[0]
        try graph.addOutput("hidden", hidden)
        try graph.addOutput("y", graph.add(Linear(), [hidden, weight(40, 512)], name: "down")[0])
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 2)
        let inputs = ["x": try noise([1, 33, 40], seed: 5)]
        let alone = try session.run(inputs, outputs: ["y"]), both = try session.run(inputs)
        #expect(both["hidden"]?.shape == [1, 33, 512])
        #expect(try alone["y"]?.elements(Float.self) == both["y"]?.elements(Float.self))
    }

    /// 400 rows an example are taken one at a time, 130 four at a time.
    @Test(arguments: [400, 130]) func aBatchTakenInPartsKeepsTheNumbers(length: Int) throws {
        let session = Session(try twoGraphs(), threads: 2)
        let examples = try (0..<5).map { (x: try noise([1, length, 40], seed: $0), y: try noise([1, 3, 40], seed: $0 + 50)) }
        func batch(_ tensors: [Tensor]) throws -> Tensor {
            try Tensor(tensors.flatMap { try $0.elements(Float.self) }, shape: [tensors.count] + tensors[0].shape.dropFirst())
        }
        let together = try session.run(["x": batch(examples.map(\.x)), "y": batch(examples.map(\.y))])
        let alone = try examples.map { try session.run(["x": $0.x, "y": $0.y]) }
        for name in ["states", "hidden", "answer"] {
            #expect(together[name]?.shape.first == 5)
            #expect(
                try together[name]?.elements(Float.self) == alone.flatMap { try $0[name]?.elements(Float.self) ?? [] }, "\(name)")
        }
    }

    @Test func aSessionTakesOtherShapesInTurn() throws {
        let session = Session(try twoGraphs(), threads: 2)
        let first = try noise([1, 4, 40], seed: 6)
        let expected = try session.run(["x": first], outputs: ["states"])["states"]?.elements(Float.self)
        for length in 1...12 { _ = try session.run(["x": noise([length % 3 + 1, length, 40], seed: 7)], outputs: ["states"]) }
        #expect(try session.run(["x": first], outputs: ["states"])["states"]?.elements(Float.self) == expected)
    }

    @Test func aCancelledTaskStopsBehindTheStepThatRuns() async throws {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [2]))
        try graph.addOutput("y", graph.add(Cancelling(), graph.add(Cancelling(), [x], name: "first"), name: "second")[0])
        let model = Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: "")))
        let inputs = ["x": try noise([2], seed: 1)]
        let computed = await Task {
            let session = Session(model, threads: 1)
            // The second run finds the task cancelled.
            return (0..<2).map { _ in
                Cancelling.computed.withLock { $0 = 0 }
                #expect(throws: CancellationError.self) { try session.run(inputs) }
                return Cancelling.computed.withLock { $0 }
            }
        }.value
        #expect(computed == [1, 0])
    }

    @Test func mistakesOfTheCallerAreNamed() throws {
        let session = Session(try twoGraphs(), threads: 1)
        func message(_ inputs: [String: Tensor], _ outputs: [String]) -> String {
            do {
                _ = try session.run(inputs, outputs: outputs)
                return ""
            } catch {
                return (error as? TripsError)?.kind == .usage ? "\(error)" : "another kind of error"
            }
        }
        #expect(try message(["x": noise([1, 2, 40], seed: 1)], ["nothing"]).contains("nothing"))
        #expect(message([:], ["states"]).contains("x is missing; found none"))
        #expect(try message(["y": noise([1, 3, 40], seed: 1)], ["states"]).contains("x is missing; found y"))
        let misspelled = try ["x": noise([1, 2, 40], seed: 1), "why": noise([1, 3, 40], seed: 1)]
        #expect(message(misspelled, ["states"]) == "no such input; found why; expected x, y")
        #expect(try session.compute(misspelled, outputs: ["states"])["states"]?.shape == [1, 2, 40])
        #expect { try session.run(["x": noise([1, 2, 40], seed: 1)], outputs: [], traces: ["vision.9"]) } throws: {
            "\($0)" == "no such output or trace; found vision.9; expected states, hidden, answer, vision.1"
        }
        for (batch, length) in [(-1, 2), (0, 2), (1, 0)] {
            #expect { try session.syntheticInputs(batch: batch, length: length) } throws: {
                ($0 as? TripsError)?.kind == .usage && "\($0)".contains("expected 1 or more")
            }
        }
        #expect { try session.run(["pixels": noise([1, 2, 40], seed: 1)]) } throws: {
            ($0 as? TripsError)?.kind == .usage && "\($0)".contains("found pixels; expected x")
        }
        #expect(try message(["x": noise([1, 40], seed: 1)], ["states"]).contains("[1, 40]"))
        #expect(try message(["x": noise([1, 2, 41], seed: 1)], ["states"]).contains("41"))
        #expect(try message(["x": Tensor([Int64](repeating: 0, count: 80), shape: [1, 2, 40])], ["states"]).contains("int64"))
    }

    /// Query i sees the keys 0 ... i, however many there are.
    @Test(arguments: [(3, 5), (5, 3), (4, 4)]) func causalAttentionCountsFromTheFirstKey(queries: Int, keys: Int) throws {
        let inputs = [
            "q": try noise([2, queries, 16], seed: 1), "k": try noise([2, keys, 16], seed: 2),
            "v": try noise([2, keys, 16], seed: 3),
        ]
        var graph = Graph(name: "main")
        let values = try ["q", "k", "v"].map { name in
            try graph.addInput(name, ValueType(.float32, inputs[name]!.shape.map { Dimension($0) }))
        }
        let op = Attention(heads: 2, causal: true)
        try graph.addOutput("y", graph.add(op, values, name: "attention")[0])
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 2)
        let found = try #require(try session.run(inputs)["y"]).elements(Float.self)
        let expected = try evaluate(op, ["q", "k", "v"].map { inputs[$0] })[0].elements(Float.self)
        // Sums of at most eight products of numbers below 1/2, in another order.
        #expect(zip(found, expected).allSatisfy { abs($0 - $1) < 1e-5 })
    }

    /// The first example's queries see no key.
    @Test(arguments: [nil, .zero, .zeroForNaN] as [Attention.FullyMasked?], [ActivationPrecision.float32, .int8])
    func queriesWithoutKeysGetZerosWhereAskedFor(fullyMasked: Attention.FullyMasked?, activations: ActivationPrecision) throws {
        var inputs = try Dictionary(
            uniqueKeysWithValues: ["q", "k", "v"].enumerated().map { ($1, try noise([2, 5, 16], seed: UInt64($0))) })
        inputs["mask"] = try Tensor((0..<10).map { Float($0 < 5 || $0 == 7 ? -Float.infinity : 0) }, shape: [2, 1, 1, 5])
        var graph = Graph(name: "main")
        let names = ["q", "k", "v", "mask"]
        let values = try names.map { name in
            try graph.addInput(name, ValueType(.float32, inputs[name]!.shape.map { Dimension($0) }))
        }
        let op = Attention(heads: 2, activations: activations, fullyMasked: fullyMasked)
        try graph.addOutput("y", graph.add(op, values, name: "attention")[0])
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 2)
        let found = try #require(try session.run(inputs)["y"]).elements(Float.self)
        let expected = try evaluate(op, names.map { inputs[$0] })[0].elements(Float.self)
        #expect(found.prefix(80).allSatisfy { fullyMasked != nil ? $0 == 0 : $0.isNaN })
        #expect(expected.prefix(80).allSatisfy { fullyMasked != nil ? $0 == 0 : $0.isNaN })
        // Sums of eight products of numbers below 1/2, in another order; in 8 bits a value's rounding, 1/254, twice for the weights.
        #expect(zip(found, expected).dropFirst(80).allSatisfy { abs($0 - $1) < (activations == .int8 ? 0.01 : 1e-5) })
    }

    /// The first query of the second example is no number.
    @Test(arguments: [nil, .zero, .zeroForNaN] as [Attention.FullyMasked?], [ActivationPrecision.float32, .int8])
    func queriesThatAreNoNumbersReachNoOtherRow(fullyMasked: Attention.FullyMasked?, activations: ActivationPrecision) throws {
        var inputs = try Dictionary(
            uniqueKeysWithValues: ["q", "k", "v"].enumerated().map { ($1, try noise([2, 5, 16], seed: UInt64($0))) })
        var numbers = try #require(inputs["q"]).elements(Float.self)
        (numbers[80], numbers[88]) = (.nan, .nan)
        inputs["q"] = try Tensor(numbers, shape: [2, 5, 16])
        var graph = Graph(name: "main")
        let values = try ["q", "k", "v"].map { try graph.addInput($0, ValueType(.float32, [2, 5, 16])) }
        let op = Attention(heads: 2, activations: activations, fullyMasked: fullyMasked)
        try graph.addOutput("y", graph.add(op, values, name: "attention")[0])
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 2)
        let found = try #require(try session.run(inputs)["y"]).elements(Float.self)
        let expected = try evaluate(op, ["q", "k", "v"].map { inputs[$0] })[0].elements(Float.self)
        for result in [found, expected] {
            #expect(result[80..<96].allSatisfy { fullyMasked == .zeroForNaN ? $0 == 0 : $0.isNaN })
            #expect((result[..<80] + result[96...]).allSatisfy { $0.isFinite })
        }
    }

    /// Groups that are no whole steps of the kernels, and rows longer than their sums take, are computed in the plain form.
    @Test(arguments: [(3, 8), (6, 40), (1, 9), (1 << 17, 1 << 17), (4, 8)]) func groupsOfAnySizeKeepTheNumbers(
        groupSize: Int, inputs: Int
    ) throws {
        let groups = inputs.dividedRoundingUp(by: groupSize)
        let weight = try Tensor(
            [Int8](repeating: 127, count: inputs) + (0..<4 * inputs).map { Int8($0 % 251 - 125) }, shape: [5, inputs])
        let (x, scales) = (try noise([6, inputs], seed: 1), try noise([5, groups], seed: 2))
        let op = QuantizedLinear(groupSize: groupSize, activations: .int8)
        var graph = Graph(name: "main")
        let input = try graph.addInput("x", ValueType(.float32, [6, Dimension(inputs)]))
        let constants = try [weight, scales].enumerated().map {
            try graph.addConstant(Constant($1, identity: "\($0)"), name: "c\($0)")
        }
        try graph.addOutput("y", graph.add(op, [input] + constants, name: "layer")[0])
        let model = Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: "")))
        let found = try #require(try Session(model, threads: 2).run(["x": x])["y"]).elements(Float.self)
        let exact = try evaluate(op, [x, weight, scales])[0].elements(Float.self)
        // The same integers; their sums are scaled in another order.
        #expect(zip(found, exact).allSatisfy { abs($0 - $1) <= 1e-5 * max(1, abs($1)) }, "\(found) \(exact)")
    }

    /// Queries, keys and values that nothing but an attention reads are bytes as products write them; where they are outputs they are
    /// numbers, which become the same bytes. Keys and values of one example may serve all.
    @Test(arguments: [32, 64, 96, 20], [1, 2]) func headsAsBytesKeepTheNumbers(headSize: Int, keyBatch: Int) throws {
        let (heads, inputs) = (3, 40)
        let width = heads * headSize
        var graph = Graph(name: "main")
        func layer(_ name: String, _ x: ValueID, seed: UInt64) throws -> ValueID {
            let levels = try noise([width, inputs], seed: seed).elements(Float.self).map { Int8($0 * 254) }
            let weight = try graph.addConstant(
                Constant(Tensor(levels, shape: [width, inputs]), identity: name), name: name + ".weight")
            let scales = try graph.addConstant(
                Constant(noise([width, 1], seed: seed + 9), identity: name + ".scales"), name: name + ".scales")
            let bias = try graph.addConstant(
                Constant(noise([width], seed: seed + 5), identity: name + ".bias"), name: name + ".bias")
            return try graph.add(QuantizedLinear(groupSize: inputs, activations: .int8), [x, weight, scales, bias], name: name)[0]
        }
        let x = try graph.addInput("x", ValueType(.float32, [2, 37, Dimension(inputs)]))
        let memory = try graph.addInput("memory", ValueType(.float32, [Dimension(keyBatch), 90, Dimension(inputs)]))
        let (q, k, v) = (try layer("q", x, seed: 1), try layer("k", memory, seed: 2), try layer("v", memory, seed: 3))
        try graph.addOutput("y", graph.add(Attention(heads: heads, activations: .int8), [q, k, v], name: "attention")[0])
        for (name, value) in [("q", q), ("k", k), ("v", v)] { try graph.addOutput(name, value) }
        let model = Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: "")))
        let tensors = ["x": try noise([2, 37, inputs], seed: 7), "memory": try noise([keyBatch, 90, inputs], seed: 8)]
        let numbers = try #require(try Session(model, threads: 1).run(tensors)["y"]).elements(Float.self)
        #expect(Set(numbers).count > 1000)
        for names in [["y"], ["y", "q"], ["y", "v"]] {
            #expect(try Session(model, threads: 3).run(tensors, outputs: names)["y"]?.elements(Float.self) == numbers, "\(names)")
        }
    }

    /// A sum over no keys is 0, such as for a text of no words.
    @Test(arguments: [ActivationPrecision.float32, .int8]) func noKeysGiveZero(activations: ActivationPrecision) throws {
        let inputs = ["q": try noise([2, 3, 16], seed: 1), "k": try noise([2, 0, 16], seed: 2)]
        var graph = Graph(name: "main")
        let q = try graph.addInput("q", ValueType(.float32, [2, 3, 16]))
        let k = try graph.addInput("k", ValueType(.float32, [2, Dimension(symbol: "keys"), 16]))
        let op = Attention(heads: 2, activations: activations)
        try graph.addOutput("y", graph.add(op, [q, k, k], name: "attention")[0])
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 2)
        let zeros = [Float](repeating: 0, count: 96)
        #expect(try session.run(inputs)["y"]?.elements(Float.self) == zeros)
        #expect(try evaluate(op, [inputs["q"], inputs["k"], inputs["k"]])[0].elements(Float.self) == zeros)
    }

    /// A small input may state sizes: a plan is then one for its numbers. A large one may not, nor may numbers that are computed.
    @Test func onlySmallInputsStateSizes() throws {
        func session(counts: Int, _ sizes: (inout Graph, ValueID) throws -> ValueID) throws -> Session {
            var graph = Graph(name: "main")
            let x = try graph.addInput("x", ValueType(.float32, [1, 2]))
            let input = try graph.addInput("counts", ValueType(.int64, [Dimension(counts)]))
            try graph.addOutput("y", graph.add(Tile(), [x, sizes(&graph, input)], name: "tiles")[0])
            return Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        }
        let x = try Tensor([Float(1), 2], shape: [1, 2])
        let small = try session(counts: 2) { $1 }
        for (counts, shape) in [([2, 1], [2, 2]), ([3, 2], [3, 4]), ([2, 1], [2, 2])] as [([Int64], [Int])] {
            let y = try small.run(["x": x, "counts": Tensor(counts, shape: [2])])["y"]
            #expect(y?.shape == shape)
            #expect(try y?.elements(Float.self) == (0..<shape[0] * shape[1]).map { $0 % 2 == 0 ? 1 : 2 })
        }
        let large = try session(counts: 100) { graph, counts in
            let range = try [0, 2].map { try graph.addConstant(Constant(integers: [$0], shape: [1]), name: "range") }
            return try graph.add(Slice(), [counts] + range, name: "first")[0]
        }
        #expect { try large.run(["x": x, "counts": Tensor([Int64](repeating: 1, count: 100), shape: [100])]) } throws: {
            ($0 as? TripsError)?.kind == .data && "\($0)".contains("tiles") && "\($0)".contains("a size depends on")
        }
    }

    /// A size depends on the numbers of an input whose own sizes occur in other values.
    @Test func sizesThatInputsStateAndHave() throws {
        var graph = Graph(name: "main")
        let sizes = [Dimension(symbol: "batch"), Dimension(symbol: "length")]
        let ids = try graph.addInput("ids", ValueType(.int64, sizes))
        let shape = try graph.addKnown(.dimensions(sizes), ValueType(.int64, [2]), name: "shape")
        let one = try graph.addConstant(Constant(Tensor([Float(1)], shape: [1])), name: "one")
        let places = try graph.add(NonZero(), [ids], name: "places")[0]
        let count = try graph.add(Shape(start: 1), [places], name: "count")[0]
        try graph.addOutput("counted", graph.add(Expand(), [one, count], name: "counted")[0])
        try graph.addOutput("shaped", graph.add(Expand(), [one, shape], name: "shaped")[0])
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        let results = try session.run(["ids": Tensor([Int64(1), 0, 2, 0, 0, 3], shape: [2, 3])])
        #expect(results["counted"]?.shape == [3] && results["shaped"]?.shape == [2, 3])
        let size = try #require(graph.sizeOfNumbers())
        #expect(size.inputs == ["ids"] && size.place == "places", "\(size)")
        #expect { try session.run(["ids": Tensor([Int64](repeating: 1, count: 65), shape: [1, 65])]) } throws: {
            "\($0)".contains("inputs of at most 64 elements")
        }
    }

    /// A sum tells its sizes only when those of its operands are known: an expansion to them would have to know them before.
    @Test(arguments: [(1, 1), (2, 2), (1, 3), (3, 1)]) func sizesThatSumsTell(rows: Int, others: Int) throws {
        var graph = Graph(name: "main")
        let (n, m) = (Dimension(symbol: "n"), Dimension(symbol: "m"))
        let x = try graph.addInput("x", ValueType(.float32, [n, 1]))
        let y = try graph.addInput("y", ValueType(.float32, [m, 4]))
        let shape = try graph.addKnown(.dimensions([n, 4]), ValueType(.int64, [2]), name: "shape")
        let zeros = try graph.addKnown(.splat(Tensor(scalar: Float(0))), ValueType(.float32, [m, 4]), name: "zeros")
        let wide = try graph.add(Expand(), [x, shape], name: "wide")[0]
        try graph.addOutput("sum", graph.add(Binary(.add), [wide, y], name: "sum")[0])
        try graph.addOutput("same", graph.add(Binary(.add), [x, zeros], name: "same")[0])
        let inputs = ["x": try noise([rows, 1], seed: 1), "y": try noise([others, 4], seed: 2)]
        let manifest = Manifest(tool: .init(name: "test", version: ""))
        let expected = try Session(Model(graphs: [graph], manifest: manifest), threads: 1).run(inputs)
        try graph.fold()
        try graph.fuse()
        let found = try Session(Model(graphs: [graph], manifest: manifest), threads: 1).run(inputs)
        for name in ["sum", "same"] {
            #expect(found[name]?.shape == [max(rows, others), 4])
            #expect(try found[name]?.elements(Float.self) == expected[name]?.elements())
        }
    }

    /// The places of ones are known, and so is their number, once it is known how many ones there are.
    @Test func sizesOfWhatBecomesKnown() throws {
        var graph = Graph(name: "main")
        let n = Dimension(symbol: "n")
        let x = try graph.addInput("x", ValueType(.float32, [1, n]))
        let ones = try graph.addKnown(.splat(Tensor(scalar: Int64(1))), ValueType(.int64, [n]), name: "ones")
        let places = try graph.add(NonZero(), [ones], name: "places")[0]
        let count = try graph.add(Shape(start: 1), [places], name: "count")[0]
        let axis = try graph.addConstant(Constant(integers: [0], shape: [1]), name: "axis")
        let sizes = try graph.add(
            Concat(axis: 0), [count, graph.addConstant(Constant(integers: [1], shape: [1]), name: "one")], name: "sizes")[0]
        try graph.addOutput("y", graph.add(Reshape(), [x, sizes], name: "column")[0])
        try graph.addOutput("first", graph.add(Squeeze(), [places, axis], name: "first")[0])
        try graph.fold()
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        #expect(try session.run(["x": noise([1, 100], seed: 1)])["y"]?.shape == [100, 1])
    }

    /// What the package says is known has a size that nothing tells.
    @Test func sizesThatNothingTellsAreRefused() throws {
        let open = Dimension(symbol: "nowhere")
        let contents: [(Content, ValueType)] = [
            (.splat(try Tensor(scalar: Float(1))), ValueType(.float32, [open])),
            (.dimensions(Array(repeating: open, count: 8)), ValueType(.int64, [8])),
        ]
        for (content, type) in contents {
            var graph = Graph(name: "main")
            let x = try graph.addInput("x", ValueType(.float32, [1, 8]))
            let known = try graph.addKnown(content, type, name: "known")
            if type.dataType == .float32 {
                let weight = try graph.addConstant(Constant(noise([8, 8], seed: 1)), name: "weight")
                try graph.addOutput("y", graph.add(Linear(), [x, weight, known], name: "linear")[0])
            } else {
                let integers = try graph.add(Cast(to: .int64), [x], name: "integers")[0]
                try graph.addOutput("y", graph.add(Binary(.add), [integers, known], name: "sum")[0])
            }
            try graph.addOutput("known", known)
            let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
            for output in ["y", "known"] {
                #expect { try session.run(["x": noise([1, 8], seed: 2)], outputs: [output]) } throws: {
                    ($0 as? TripsError)?.kind == .data
                }
            }
        }
    }

    /// Graphs of a package that put out other shapes than the search for an answer takes for granted.
    @Test(arguments: [[1, 2, 5], [2, 5], [2, 1, 5]]) func answersOfOtherShapesAreRefused(shape: [Int]) throws {
        var encode = Graph(name: "encode")
        let x = try encode.addInput("x", ValueType(.float32, [1, 4]))
        try encode.addOutput("question_states", encode.add(Unary(.exp), [x], name: "states")[0])
        var decode = Graph(name: "decode")
        let ids = try decode.addInput("answer_ids", ValueType(.int64, [Dimension(symbol: "batch"), Dimension(symbol: "length")]))
        let sum = try decode.add(Reduce(.sum), [decode.add(Cast(to: .float32), [ids], name: "numbers")[0]], name: "sum")[0]
        let sizes = try decode.addKnown(
            .dimensions(shape.map { Dimension($0) }), ValueType(.int64, [Dimension(shape.count)]), name: "sizes")
        try decode.addOutput("answer_logits", decode.add(Expand(), [sum, sizes], name: "logits")[0])
        let session = Session(
            Model(graphs: [encode, decode], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        let answers = try Tensor([Int64](repeating: 1, count: 6), shape: [2, 3])
        let inputs = ["x": try noise([1, 4], seed: 1), "answer_ids": answers, "answer_mask": answers]
        #expect { try session.rankAnswers(inputs, k: 2) } throws: { ($0 as? TripsError)?.kind == .data }
    }

    /// The logits of all answers at once would take memory without bounds.
    @Test func manyAnswersAreRankedInParts() throws {
        var encode = Graph(name: "encode")
        let x = try encode.addInput("x", ValueType(.float32, [1, 4]))
        try encode.addOutput("question_states", encode.add(Unary(.exp), [x], name: "states")[0])
        var decode = Graph(name: "decode")
        let ids = try decode.addInput("answer_ids", ValueType(.int64, [Dimension(symbol: "batch"), Dimension(symbol: "length")]))
        let table = try decode.addConstant(Constant(noise([50, 50], seed: 3), identity: "table"), name: "table")
        let kept = try decode.add(BatchRecord(), [ids], name: "record")[0]
        try decode.addOutput("answer_logits", decode.add(Embedding(), [kept, table], name: "logits")[0])
        let session = Session(
            Model(graphs: [encode, decode], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        let answers = (0..<40).flatMap { [Int64(1), Int64($0), Int64(49 - $0)] }
        var inputs = ["x": try noise([1, 4], seed: 1), "answer_ids": try Tensor(answers, shape: [40, 3])]
        inputs["answer_mask"] = try Tensor([Int64](repeating: 1, count: 120), shape: [40, 3])
        let ranked = try session.rankAnswers(inputs, k: 40)
        #expect(BatchRecord.largest.withLock { $0 } == 16)
        // Nothing of the model depends on other answers: pairs compare as they do alone.
        inputs["answer_ids"] = try Tensor([1, 30, 19, 1, 31, 18] as [Int64], shape: [2, 3])
        inputs["answer_mask"] = try Tensor([Int64](repeating: 1, count: 6), shape: [2, 3])
        let pair = try session.rankAnswers(inputs, k: 2).indices.map { 30 + $0 }
        #expect(ranked.indices.filter { [30, 31].contains($0) } == pair)
        #expect(Set(ranked.indices).count == 40)
    }

    /// Two examples that are taken one after the other: the place is that in the whole batch.
    @Test func anIDOutsideOfTheVocabularyIsFoundInItsInput() throws {
        var graph = Graph(name: "main")
        let ids = try graph.addInput("input_ids", ValueType(.int32, [Dimension(symbol: "batch"), Dimension(symbol: "length")]))
        let table = try graph.addConstant(Constant(noise([9, 40], seed: 3), identity: "table"), name: "table")
        let weight = try graph.addConstant(Constant(noise([40, 40], seed: 4), identity: "weight"), name: "weight")
        let wide = try graph.add(Cast(to: .int64), [ids], name: "cast")[0]
        let rows = try graph.add(Embedding(), [wide, table], name: "embedding")[0]
        try graph.addOutput("states", graph.add(Linear(), [rows, weight], name: "linear")[0])
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        func run(_ bad: Int32) throws {
            var numbers = [Int32](repeating: 8, count: 1400)
            numbers[703] = bad
            _ = try session.run(["input_ids": Tensor(numbers, shape: [2, 700])])
        }
        for bad: Int32 in [9, -10, .max] {
            #expect { try run(bad) } throws: {
                "\($0)" == "element [1, 3] of input input_ids; found \(bad); expected -9 ..< 9"
                    && ($0 as? TripsError)?.kind == .usage
            }
        }
        try run(-9)
    }

    /// Sizes that a model's own tables forbid are the caller's mistake, not the package's.
    @Test func sizesThatOperatorsCannotTakeAreUsage() throws {
        var graph = Graph(name: "main")
        let ids = try graph.addInput("ids", ValueType(.int64, [1, Dimension(symbol: "length")]))
        let table = try graph.addConstant(Constant(noise([9, 4], seed: 3), identity: "table"), name: "table")
        let places = try graph.addConstant(Constant(noise([6, 4], seed: 4), identity: "places"), name: "places")
        let words = try graph.add(Embedding(), [ids, table, places], name: "words")[0]
        let first = try graph.addKnown(.dimensions([0]), ValueType(.int64, [1]), name: "first")
        try graph.addOutput("y", graph.add(Gather(axis: 1), [words, first], name: "guide")[0])
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
        func refused(_ length: Int, _ words: String) throws {
            #expect { try session.run(["ids": Tensor([Int64](repeating: 1, count: length), shape: [1, length])]) } throws: {
                ($0 as? TripsError)?.kind == .usage && "\($0)".contains(words)
            }
        }
        try refused(7, "more tokens than positions; found 7; expected at most 6")
        try refused(0, "input ids is empty; found [1, 0]")
        #expect(try session.run(["ids": Tensor([Int64](repeating: 1, count: 6), shape: [1, 6])])["y"]?.shape == [1, 1, 4])
    }

    /// Where the first row is read as the model runs, and is not there.
    @Test func inputsWithoutRowsAreUsage() throws {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [Dimension(symbol: "length"), 4]))
        let place = try graph.addInput("place", ValueType(.int64, [1]))
        try graph.addOutput("y", graph.add(Gather(axis: 0), [x, place], name: "first")[0])
        let session = Session(Model(graphs: [graph]), threads: 1)
        let inputs = ["x": try Tensor([Float](), shape: [0, 4]), "place": try Tensor([Int64(0)], shape: [1])]
        let error = #expect(throws: TripsError.self) { try session.run(inputs) }
        #expect(error?.kind == .usage && error?.message == "input x is empty")
    }

    @Test func noRunsTakeNoTimes() throws {
        let session = Session(try twoGraphs(), threads: 1)
        #expect(try measureInTurn([session, session], [:], runs: -1) == [[], []])
    }

    @Test func theTokenizerIsMadeOnce() throws {
        let model = Model(graphs: [], vocabulary: Constant(try Tensor([UInt8(97)], shape: [1])))
        var made = 0
        for _ in 0..<3 {
            let count = try model.tokenizer { vocabulary in
                made += 1
                return vocabulary.shape[0]
            }
            #expect(count == 1)
        }
        #expect(made == 1)
        #expect(try Model(graphs: []).tokenizer { $0.shape[0] } == nil)
    }
}

/// Plans whose runs continue each other, as the steps of a decoder do.
@Suite struct ContinuedRunTests {
    private static let shapes = ["states": [1, 6, 8], "row": [2, 1, 8], "position": [1], "kept": [3, 2, 8]]

    /// What is computed once stands after what each run computes, and its memory would be free by then in an ordinary plan.
    private func graph() throws -> Graph {
        var graph = Graph(name: "step")
        func input(_ name: String, _ type: DataType = .float32) throws -> ValueID {
            try graph.addInput(name, ValueType(type, try #require(Self.shapes[name]).map { Dimension($0) }))
        }
        let (row, kept, position) = (try input("row"), try input("kept"), try input("position", .int64))
        let states = try input("states")
        func add(_ op: any Operator, _ inputs: ValueID...) throws -> ValueID { try graph.add(op, inputs, name: op.label)[0] }
        let rows = try add(PlaceRows(), kept, row, position)
        let own = try add(Attention(heads: 2), add(GELU(.erf), row), rows, rows)
        let once = try add(GELU(.tanh), add(GELU(.erf), states))
        let crossed = try add(Attention(heads: 2), add(Binary(.add), own, row), once, once)
        try graph.addOutput("y", add(Binary(.add), add(GELU(.quick), crossed), add(GELU(.erf), own)))
        return graph
    }

    @Test func computeOnceWhatStays() throws {
        let graph = try graph()
        let session = Session(Model(graphs: [graph]), threads: 2)
        let continuation = Continuation(fixed: ["states"], states: ["kept"])
        let plan = try session.takePlan(graph, Self.shapes, continuation)
        let states = try noise([1, 6, 8], seed: 1)
        let unread = try Tensor([Float](repeating: .nan, count: 48), shape: [1, 6, 8])
        for sequence in 0..<2 {
            var kept = [Float](repeating: 0, count: 48)
            for step in 0..<3 {
                var inputs = ["states": states, "row": try noise([2, 1, 8], seed: UInt64(10 * sequence + step))]
                inputs["position"] = try Tensor([Int64(step)], shape: [1])
                let whole = inputs.merging(["kept": try Tensor(kept, shape: [3, 2, 8])]) { $1 }
                let expected: [Float] = try #require(session.run(whole)["y"]).elements()
                if step > 0 { inputs["states"] = unread }
                let found: [Float] = try #require(session.run(plan, inputs, continuing: step > 0)["y"]).elements()
                #expect(found == expected, "step \(step) of sequence \(sequence)")
                kept.replaceSubrange(step * 16..<step * 16 + 16, with: try #require(inputs["row"]).elements(Float.self))
            }
        }
        session.giveBack(plan, of: graph, Self.shapes)
        #expect(try session.takePlan(graph, Self.shapes, continuation) === plan)
        #expect(try session.takePlan(graph, Self.shapes, continuation) !== plan)
    }

    @Test func rowsAreKeptWithinTheirPlaces() throws {
        let (kept, row) = (try noise([3, 2, 8], seed: 1), try noise([2, 1, 8], seed: 2))
        func place(_ position: Int64) throws -> Tensor {
            try evaluate(PlaceRows(), [kept, row, Tensor([position], shape: [1])])[0]
        }
        let placed = try place(1)
        #expect(placed.shape == [1, 6, 8])
        let expected = try kept.elements(Float.self)
        #expect(
            try placed.elements(Float.self)
                == expected[..<16] + row.elements(Float.self) + expected[32...])
        for position: Int64 in [-1, 3, .max, .min] {
            #expect { try place(position) } throws: { "\($0)".contains("expected 0 ..< 3") }
        }
        #expect(throws: TripsError.self) { try evaluate(PlaceRows(), [kept, kept, Tensor([Int64(0)], shape: [1])]) }
    }
}

extension Operator {
    fileprivate var label: String { "\(self)" }
}
