import Foundation
import Goldens
import ModelGraph
import PackageFormat
import Preprocessing
import Runtime
import Support
import Tensors
import TestSupport
import Testing
import ToolSupport
import Trips
import Verification

/// Writes a safetensors file.
private func write(_ tensors: [(String, Tensor)], to path: String) throws {
    var (header, data) = ([String](), Data())
    for (name, tensor) in tensors {
        let start = data.count
        tensor.withBytes { data.append(contentsOf: $0) }
        header.append(
            "\"\(name)\":{\"dtype\":\"\(tensor.dataType.rawValue)\",\"shape\":\(tensor.shape),\"data_offsets\":[\(start),\(data.count)]}"
        )
    }
    let text = Data("{\(header.joined(separator: ","))}".utf8)
    let length = withUnsafeBytes(of: UInt64(text.count).littleEndian) { Data($0) }
    try (length + text + data).write(to: URL(fileURLWithPath: path))
}

private func repeated(_ tensor: Tensor, _ count: Int) throws -> Tensor {
    try Tensor(tensor.dataType, [count] + tensor.shape.dropFirst()) { target in
        tensor.withBytes { bytes in
            for copy in 0..<count {
                UnsafeMutableRawBufferPointer(rebasing: target[copy * bytes.count..<(copy + 1) * bytes.count]).copyMemory(
                    from: bytes)
            }
        }
    }
}

@Test func rightAnswersAreCountedAlsoWhereExamplesShareAnImage() throws {
    let folder = fixtures + "/albef-ve"
    let scratch = try TemporaryFolder()
    let path = scratch["test-set.safetensors"]
    let golden = try GoldenReference.references(at: folder + "/golden.safetensors")[0].load()
    let prediction = try #require(golden.outputs["prediction"]).elements(Float.self)
    let answer = Int64(try #require(prediction.indices.max { prediction[$0] < prediction[$1] }))
    let wrong = (answer + 1) % 3
    // Twelve examples: more than a batch, the last one short.
    let labels = [answer, answer, answer, wrong, answer, wrong] + [Int64](repeating: answer, count: 6)
    let (image, ids, mask) = try (
        #require(golden.inputs["image"]), #require(golden.inputs["input_ids"]), #require(golden.inputs["attention_mask"])
    )
    try write(
        [
            ("labels", Tensor(labels, shape: [12])), ("index.image", Tensor([Int64](repeating: 1, count: 12), shape: [12])),
            ("in.image", repeated(image, 2)), ("in.input_ids", repeated(ids, 12)), ("in.attention_mask", repeated(mask, 12)),
        ], to: path)

    let model = Model(
        graphs: try prepare(folder + "/checkpoint.safetensors").graphs, manifest: .init(tool: .init(name: "test", version: "0")))
    let testSet = try TestSet(path: path)
    let accuracy = try Accuracy.measure(model, on: testSet, output: "prediction")
    #expect(accuracy.right == 10 && accuracy.count == 12)
    #expect(accuracy.halves == [4.0 / 6, 1])
    #expect { try Accuracy.measure(model, on: testSet, output: "nosuch") } throws: { ($0 as? TripsError)?.kind == .usage }

    try write([("labels", Tensor(labels, shape: [12])), ("in.image", repeated(image, 2))], to: path)
    #expect { try TestSet(path: path) } throws: { ($0 as? TripsError)?.kind == .data }
}

@Test func testSetsWhoseTensorsDoNotBelongTogetherAreRefused() throws {
    let scratch = try TemporaryFolder()
    let path = scratch["test-set.safetensors"]
    func integers(_ numbers: Int64...) throws -> Tensor { try Tensor(numbers, shape: [numbers.count]) }
    func refuses(_ text: String, _ tensors: (String, Tensor)...) throws {
        try write(tensors, to: path)
        #expect { try TestSet(path: path) } throws: { ($0 as? TripsError)?.kind == .data && "\($0)".contains(text) }
    }
    let (labels, x) = (("labels", try integers(0, 1)), ("in.x", try Tensor([Float](repeating: 1, count: 6), shape: [2, 3])))
    try write([labels, x, ("index.x", integers(1, 1))], to: path)
    let testSet = try TestSet(path: path)
    #expect(testSet.count == 2)
    for range in [-1..<1, 1..<3, 2..<4] {
        #expect { try testSet.batch(range) } throws: { ($0 as? TripsError)?.kind == .usage && "\($0)".contains("0 ..< 2") }
    }
    for example in [-1, 2] {
        #expect { try testSet.label(of: example, among: 2) } throws: { ($0 as? TripsError)?.kind == .usage }
    }
    try refuses("a test set", labels)
    try refuses("a test set", x)
    try refuses("a test set", ("labels", Tensor([Int64](), shape: [0])), x)
    try refuses("expected integers [N]", ("labels", Tensor([0, 1] as [Int64], shape: [2, 1])), x)
    try refuses("expected integers [N]", ("labels", Tensor([0, 1] as [Float], shape: [2])), x)
    for index in [try integers(1), try integers(0, 1, 1)] { try refuses("examples of in.x", labels, x, ("index.x", index)) }
    try refuses("index.x; found 2; expected rows below 2", labels, x, ("index.x", integers(0, 2)))
    try refuses("index.x; found -1; expected rows below 2", labels, x, ("index.x", integers(-1, 0)))
}

@Test func aModelForNoExamplesDoesNotKeepTheCountAtItsStart() throws {
    let scratch = try TemporaryFolder()
    let path = scratch["test-set.safetensors"]
    try write(
        [("labels", Tensor([Int64(0), 1], shape: [2])), ("in.x", Tensor([Float](repeating: 1, count: 6), shape: [2, 3]))], to: path)
    var graph = Graph(name: "main")
    try graph.addOutput("prediction", graph.add(Unary(.relu), [graph.addInput("x", ValueType(.float32, [0, 3]))], name: "relu")[0])
    let model = Model(graphs: [graph], manifest: .init(tool: .init(name: "test", version: "0")))
    #expect(throws: TripsError.self) { try Accuracy.measure(model, on: TestSet(path: path), output: "prediction") }
}

@Test func theLastBatchIsAsLargeAsThePackageTakes() throws {
    let scratch = try TemporaryFolder()
    let path = scratch["test-set.safetensors"]
    // The third and the fifth answer are wrong.
    let x = try Tensor([1, 0, 0, 1, 1, 0, 1, 0, 0, 1] as [Float], shape: [5, 2])
    try write([("labels", Tensor([Int64(0), 1, 1, 0, 0], shape: [5])), ("in.x", x)], to: path)
    func measured(batch: Int) throws -> Accuracy {
        var graph = Graph(name: "main")
        try graph.addOutput(
            "prediction",
            graph.add(Unary(.relu), [graph.addInput("x", ValueType(.float32, [Dimension(batch), 2]))], name: "relu")[0])
        let model = Model(graphs: [graph], manifest: .init(tool: .init(name: "test", version: "0")))
        return try Accuracy.measure(model, on: TestSet(path: path), output: "prediction")
    }
    for batch in [1, 2, 3, 4, 5] {
        let found = try measured(batch: batch)
        #expect(found.right == 3 && found.count == 5 && found.halves == [1, 1.0 / 3], "batches of \(batch)")
    }
    #expect(throws: TripsError.self, "too few for one batch") { try measured(batch: 6) }
}

/// A model that answers with its inputs, negated.
private func echo(classes: Int) throws -> Model {
    var graph = Graph(name: "main")
    let x = try graph.addInput("x", ValueType(.float32, [Dimension(symbol: "batch"), Dimension(classes)]))
    try graph.addOutput("prediction", graph.add(Unary(.neg), [x], name: "neg")[0])
    return Model(graphs: [graph], manifest: .init(tool: .init(name: "test", version: "0")))
}

/// The model takes three classes.
@Test func inputsThatDoNotSuitTheModelAreBadData() throws {
    let scratch = try TemporaryFolder()
    let path = scratch["test-set.safetensors"]
    let numbers = try Tensor([Float](repeating: 1, count: 6), shape: [2, 3])
    for (name, input) in [
        ("in.y", numbers), ("in.x", try numbers.reshaped([3, 2])), ("in.x", try numbers.converted(to: .float64)),
    ] {
        let labels = try Tensor([Int64](repeating: 0, count: input.shape[0]), shape: [input.shape[0]])
        try write([("labels", labels), (name, input)], to: path)
        #expect { try Accuracy.measure(echo(classes: 3), on: TestSet(path: path), output: "prediction") } throws: {
            ($0 as? TripsError)?.kind == .data
        }
    }
}

@Test func aRowOfNaNIsNoRightAnswer() throws {
    let scratch = try TemporaryFolder()
    let path = scratch.path + "/test-set.safetensors"
    let nan = Float.nan
    let x = try Tensor([nan, nan, nan, nan, -1, nan, -1, nan, -.infinity, nan, nan, .infinity], shape: [4, 3])
    for (labels, right) in [([0, 1, 2, 2] as [Int64], 3), ([1, 0, 0, 0], 0)] {
        try write([("labels", Tensor(labels, shape: [4])), ("in.x", x)], to: path)
        #expect(try Accuracy.measure(echo(classes: 3), on: TestSet(path: path), output: "prediction").right == right)
    }
}

@Test func whatATestSetHoldsBesideItsInputsIsIgnoredAndWhatItLacksIsData() throws {
    let scratch = try TemporaryFolder()
    let path = scratch["test-set.safetensors"]
    let labels = ("labels", try Tensor([Int64(2), 2], shape: [2]))
    let x = try Tensor([1, 1, 0, 1, 1, 0] as [Float], shape: [2, 3])
    try write([labels, ("in.x", x), ("in.note", x)], to: path)
    #expect(try Accuracy.measure(echo(classes: 3), on: TestSet(path: path), output: "prediction").right == 2)
    try write([labels, ("in.note", x)], to: path)
    #expect { try Accuracy.measure(echo(classes: 3), on: TestSet(path: path), output: "prediction") } throws: {
        ($0 as? TripsError)?.kind == .data && "\($0)".contains("input x is missing")
    }
}

@Test(arguments: [-1, 3, .max, .min] as [Int64]) func aLabelThatIsNoClassIsNamed(label: Int64) throws {
    let scratch = try TemporaryFolder()
    let path = scratch.path + "/test-set.safetensors"
    var labels = [Int64](repeating: 2, count: 20)
    labels[17] = label
    let x = try Tensor([Float](repeating: 1, count: 60), shape: [20, 3])
    try write([("labels", Tensor(labels, shape: [20])), ("in.x", x)], to: path)
    #expect { try Accuracy.measure(echo(classes: 3), on: TestSet(path: path), output: "prediction") } throws: {
        ($0 as? TripsError)?.kind == .data
            && "\($0)".contains("test-set.safetensors: label of example 17; found \(label); expected 0 ..< 3")
    }
}

@Test func onlyRowsOfClassesAreAnswers() throws {
    let scratch = try TemporaryFolder()
    let path = scratch["test-set.safetensors"]
    for shape in [[2, 3, 1], [2, 0], [2]] {
        let x = try Tensor([Float](repeating: 1, count: shape.reduce(1, *)), shape: shape)
        try write([("labels", Tensor([Int64(0), 1], shape: [2])), ("in.x", x)], to: path)
        var graph = Graph(name: "main")
        let type = ValueType(.float32, [Dimension(symbol: "batch")] + shape.dropFirst().map { Dimension($0) })
        try graph.addOutput("prediction", graph.add(Unary(.relu), [graph.addInput("x", type)], name: "relu")[0])
        let model = Model(graphs: [graph], manifest: .init(tool: .init(name: "test", version: "0")))
        #expect { try Accuracy.measure(model, on: TestSet(path: path), output: "prediction") } throws: {
            ($0 as? TripsError)?.kind == .usage && "\($0)".contains("[batch, classes]")
        }
    }
}

@Test func imagesAreTakenAsThePackageSays() throws {
    let picture = try Picture(path: fixtures + "/preprocessing/colour.png")
    var preprocessing = Manifest.Preprocessing.released(imageSize: 24)
    preprocessing.resampling = .bilinear
    let input = try picture.modelInput(preprocessing)
    #expect(
        try input.elements(Float.self)
            == picture.modelInput(
                size: 24, mean: preprocessing.mean, deviation: preprocessing.deviation, .bilinear
            ).elements(Float.self))
}

@Test(arguments: [1 << 40, .max, 1]) func whatAPackageSaysOfItselfMayBeAnything(textLength: Int) throws {
    var graph = Graph(name: "main")
    let ids = try graph.addInput("input_ids", ValueType(.int64, [1, Dimension(textLength)]))
    try graph.addOutput("y", graph.add(Unary(.neg), [ids], name: "neg")[0])
    graph.addTrace("text.0", ids)
    graph.addTrace("text.1", try graph.addInput("mask", ValueType(.int64, [3])))
    graph.addTrace("text.2", try graph.addInput("states", ValueType(.float32, [1, 9, 16])))
    #expect(towerSummary(graph) == ["text: 2 blocks, width 16, tokens 9"])

    let model = Model(graphs: [graph], manifest: .init(tool: .init(name: "test", version: "0")))
    let tokenizer = try WordPiece(vocabulary: "[PAD]\n[UNK]\n[CLS]\n[SEP]")
    let options = try ExampleOptions.parse(["--text", "a dog"])
    #expect { try options.inputs(for: model, tokenizer: tokenizer) } throws: { ($0 as? TripsError)?.kind == .data }
}
