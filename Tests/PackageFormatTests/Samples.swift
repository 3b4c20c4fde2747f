import Foundation
import ModelGraph
import PackageFormat
import Support
import Tensors

func bytes(of path: String) throws -> [UInt8] { try Array(Data(contentsOf: URL(fileURLWithPath: path))) }

enum Samples {
    /// Numbers distributed as weights are: many small, few large.
    static func weights(_ shape: [Int], seed: UInt64 = 1) throws -> Tensor {
        var random = SplitMix64(state: seed)
        let count = try elementCount(of: shape)
        let numbers = (0..<count).map { _ in (0..<4).reduce(Float(0)) { sum, _ in sum + Float(random.uniform() - 0.5) / 10 } }
        return try Tensor(numbers, shape: shape)
    }

    /// Random bytes as elements of any type.
    static func noise(_ type: DataType, _ shape: [Int], seed: UInt64 = 2) throws -> Tensor {
        var random = SplitMix64(state: seed)
        return try Tensor(type, shape) { bytes in
            for index in bytes.indices { bytes[index] = UInt8(random.next() >> (type == .bool ? 63 : 56)) }
        }
    }

    static func constant(_ tensor: Tensor, _ name: String) -> Constant { Constant(tensor, identity: name) }

    /// One tensor of each type, and sizes around the chunk's: none, one, a chunk, a chunk and some.
    static func tensors() throws -> [(name: String, constant: Constant)] {
        var tensors: [(String, Tensor)] = []
        for type in DataType.allCases { tensors.append(("type.\(type)", try noise(type, [21], seed: 5))) }
        tensors.append(("scalar", try Tensor(scalar: Float(0.1))))
        tensors.append(("empty", try Tensor(.float32, [0, 4]) { _ in }))
        tensors.append(("zeros", try Tensor(.float32, [300, 1000]) { _ in }))
        tensors.append(("one chunk", try weights([131072])))
        tensors.append(("chunk and one", try weights([131073])))
        tensors.append(("matrix", try weights([700, 600])))
        tensors.append(("int8 chunks", try noise(.int8, [1_500_000])))
        tensors.append(("ids", try Tensor((0..<100_000).map { Int64($0) }, shape: [100_000])))
        tensors.append(("naïve \"name\"\n/✓", try noise(.uint8, [9])))
        return tensors.map { ($0, constant($1, $0)) }
    }

    static var manifest: Manifest {
        var manifest = Manifest(tool: .init(name: "trips-test", version: "1"))
        manifest.source = .init(file: "model.onnx", format: "onnx", sha256: String(repeating: "ab", count: 32), producer: "none")
        manifest.architecture = "albef-retrieval"
        manifest.options = ["select": "5,10", "keep-rate": "0.7"]
        manifest.settings = [.init("vision-heads", "12", from: .released)]
        manifest.selections = [
            .init(
                block: 5, keepRate: 0.7, guidance: .text, fusion: .normalized, order: .original, tokensBefore: "256",
                tokensAfter: "181")
        ]
        manifest.quantization = .init(
            scheme: .int8, summary: "per channel",
            layers: [.init(name: "a", precision: .int8, groupSize: 64, snr: .infinity)])
        manifest.leftOut = [.init(reason: "momentum twins", count: 200, bytes: 1000)]
        manifest.preprocessing = .init(
            imageSize: 384, mean: [0.48, 0.45, 0.4], deviation: [0.26, 0.26, 0.27], resampling: .bicubic)
        return manifest
    }

    /// Two layers with one weight between them, an embedding and a constant of each kind.
    static func graph(named name: String = "main", output: String = "y", trace: String = "vision.1") throws -> Graph {
        var graph = Graph(name: name)
        let x = try graph.addInput("x", ValueType(.float32, [Dimension(symbol: "batch"), 96]))
        let tied = constant(try weights([96, 96], seed: 3), "tied")
        let first = try graph.addConstant(tied, name: "first.weight")
        let second = try graph.addConstant(tied, name: "second.weight")
        let bias = try graph.addConstant(constant(weights([96], seed: 4), "bias"), name: "bias")
        let hidden = try graph.add(Linear(), [x, first, bias], name: "first")
        let y = try graph.add(Linear(), [hidden[0], second, nil], name: "second")
        try graph.addOutput(output, y[0])
        graph.addTrace(trace, hidden[0])
        return graph
    }

    /// A table, a layer in int8 with groups and one without, and a weight that something else reads too.
    static func quantizedGraph() throws -> Graph {
        var graph = Graph(name: "quantized")
        let ids = try graph.addInput("ids", ValueType(.int64, [Dimension(symbol: "batch"), 5]))
        let table = try graph.addConstant(constant(weights([1400, 100], seed: 6), "table"), name: "table")
        var x = try graph.add(Embedding(), [ids, table], name: "words")[0]
        for (name, outputs, inputs, group) in [("grouped", 70, 100, 64), ("whole", 33, 70, 70)] {
            let weight = try graph.addConstant(constant(noise(.int8, [outputs, inputs], seed: 7), name), name: name)
            let groups = inputs.dividedRoundingUp(by: group)
            let scales = try graph.addConstant(
                constant(weights([outputs, groups], seed: 8), "\(name).scales"), name: "\(name).scales")
            x = try graph.add(QuantizedLinear(groupSize: group, activations: .int8), [x, weight, scales], name: name)[0]
        }
        let shared = try graph.addConstant(constant(weights([33, 33], seed: 9), "shared"), name: "shared")
        let y = try graph.add(Linear(), [x, shared], name: "last")[0]
        let twice = try graph.add(Binary(.add), [shared, shared], name: "twice")[0]
        try graph.addOutput("quantized", y)
        try graph.addOutput("twice", twice)
        return graph
    }
}
