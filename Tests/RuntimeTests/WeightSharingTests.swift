import Foundation
import ModelGraph
import Operators
import Runtime
import Synchronization
import Tensors
import Testing

/// Counts how often its numbers are asked for.
private final class CountedSource: ConstantSource {
    let loads = Mutex(0)

    func load(_: DataType, _ shape: [Int]) throws -> Tensor {
        loads.withLock { $0 += 1 }
        return try Tensor(Array(repeating: Float(0.5), count: shape.reduce(1, *)), shape: shape)
    }

    func readParts(
        _ dataType: DataType, _ shape: [Int], _ body: @Sendable (Int, UnsafeRawBufferPointer) throws -> Void
    ) throws {
        let tensor = try load(dataType, shape)
        try tensor.withBytes { try body(0, $0) }
    }
}

/// Workers of a server make their first run at about the same time.
@Test func sessionsThatStartTogetherLoadWeightsOnce() throws {
    let sources = (0..<8).map { _ in CountedSource() }
    var graph = Graph(name: "main")
    var x = try graph.addInput("x", ValueType(.float32, [2, 256]))
    for (index, source) in sources.enumerated() {
        let weight = Constant(.float32, [256, 256], storedAs: .float32, identity: "\(index)", source: source)
        x = try graph.add(Linear(), [x, graph.addConstant(weight, name: "w\(index)")], name: "layer \(index)")[0]
    }
    try graph.addOutput("y", x)
    let model = Model(graphs: [graph])
    let input = try Tensor(Array(repeating: Float(1), count: 512), shape: [2, 256])
    let failures = Mutex(0)
    DispatchQueue.concurrentPerform(iterations: 6) { _ in
        do { _ = try Session(model, threads: 1).run(["x": input]) } catch { failures.withLock { $0 += 1 } }
    }
    #expect(failures.withLock { $0 } == 0)
    #expect(sources.map { $0.loads.withLock { $0 } } == Array(repeating: 1, count: 8))
}
