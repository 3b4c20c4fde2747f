import ModelGraph
import Operators
import PackageFormat
import Support
import Tensors
import Testing

import Runtime

/// A graph whose values are computed by their operators as they are added.
struct Sample {
    var graph = Graph(name: "main")
    var numbers: [ValueID: Tensor] = [:]
    private var generator = SplitMix64(state: 9)

    mutating func random(_ shape: [Int], _ type: DataType = .float32) throws -> Tensor {
        try Tensor((0..<shape.reduce(1, *)).map { _ in Float(generator.uniform() - 0.5) }, shape: shape).converted(to: type)
    }

    mutating func input(_ name: String, _ shape: [Int], _ type: DataType = .float32) throws -> ValueID {
        let value = try graph.addInput(name, ValueType(type, shape.map { Dimension($0) }))
        numbers[value] = try random(shape, type)
        return value
    }

    mutating func constant(_ tensor: Tensor) throws -> ValueID {
        let value = try graph.addConstant(Constant(tensor, identity: "constant \(numbers.count)"), name: "constant")
        numbers[value] = tensor
        return value
    }

    mutating func constant(_ shape: [Int], _ type: DataType = .float32) throws -> ValueID { try constant(random(shape, type)) }

    mutating func add(_ op: any Operator, _ inputs: [ValueID?]) throws -> ValueID {
        let made = try graph.add(op, inputs, name: "\(Swift.type(of: op)) \(numbers.count)")
        for (value, tensor) in zip(made, try evaluate(op, inputs.map { try $0.map { try #require(numbers[$0]) } })) {
            numbers[value] = tensor
        }
        return made[0]
    }

    /// Runs the graph with these outputs, and expects of them what the operators gave.
    func check(_ outputs: [ValueID], tolerance: Double = 1e-5) throws {
        let (session, inputs) = try session(outputs)
        let found = try session.run(inputs)
        for (index, value) in outputs.enumerated() {
            let (tensor, expected) = (try #require(found["y\(index)"]), try #require(numbers[value]))
            #expect(tensor.shape == expected.shape && tensor.dataType == expected.dataType)
            let pairs = zip(
                try tensor.numbers(), try expected.numbers()
            )
            // Sums of few numbers below 1 in another order.
            #expect(pairs.allSatisfy { abs($0 - $1) <= tolerance || $0.isNaN && $1.isNaN }, "y\(index)")
        }
    }

    /// The operators of the steps that a plan takes for these outputs, joined by `+` where they are computed as one.
    func kinds(_ outputs: [ValueID]) throws -> [String] {
        let (session, inputs) = try session(outputs)
        return try session.profile(inputs, runs: 1).map(\.kind)
    }

    /// The numbers of these outputs where so many threads share out the work.
    func results(_ outputs: [ValueID], threads: Int) throws -> [[Float]] {
        let (session, inputs) = try session(outputs, threads: threads)
        let found = try session.run(inputs)
        return try outputs.indices.map { try #require(found["y\($0)"]).elements(Float.self) }
    }

    private func session(_ outputs: [ValueID], threads: Int = 2) throws -> (Session, [String: Tensor]) {
        var graph = graph
        for (index, value) in outputs.enumerated() { try graph.addOutput("y\(index)", value) }
        try graph.validate()
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: threads)
        let inputs = Dictionary(uniqueKeysWithValues: graph.inputs.map { (graph.name(of: $0), numbers[$0]) }).compactMapValues {
            $0
        }
        return (session, inputs)
    }
}
