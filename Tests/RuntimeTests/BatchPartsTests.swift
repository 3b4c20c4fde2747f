import ModelGraph
import Runtime
import Tensors
import Testing

@Suite struct BatchPartsTests {
    private let batch = Dimension(symbol: "batch")

    /// The symbol of the batch of a graph that reads x [batch, 4, 8] and gives what `build` makes of it.
    private func separable(_ build: (inout Graph, ValueID) throws -> ValueID) throws -> String? {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [batch, 4, 8]))
        try graph.addOutput("y", build(&graph, x))
        try graph.validate()
        return try graph.separableBatch()
    }

    private func weight(_ graph: inout Graph, _ shape: [Int]) throws -> ValueID {
        let tensor = try Tensor([Float](repeating: 0.5, count: shape.reduce(1, *)), shape: shape)
        return try graph.addConstant(Constant(tensor, identity: "w\(shape)"), name: "w")
    }

    private func integers(_ graph: inout Graph, _ numbers: [Int64]) throws -> ValueID {
        try graph.addConstant(Constant(Tensor(numbers, shape: [numbers.count]), identity: "i\(numbers)"), name: "i")
    }

    @Test func layersKeepExamplesApart() throws {
        #expect(try separable { graph, x in
            let w = try weight(&graph, [8, 8])
            let y = try graph.add(Linear(), [x, w], name: "linear")[0]
            let z = try graph.add(Attention(heads: 2), [y, x, x], name: "attention")[0]
            let sum = try graph.add(Binary(.add), [z, x], name: "sum")[0]
            return try graph.add(Gather(axis: 1), [sum, integers(&graph, [0])], name: "first")[0]
        } == "batch")
    }

    @Test func sumsOverTheBatchMixExamples() throws {
        #expect(try separable { graph, x in
            let mean = try graph.add(Reduce(.mean), [x, integers(&graph, [0])], name: "mean")[0]
            return try graph.add(Binary(.sub), [x, mean], name: "centred")[0]
        } == nil)
    }

    /// The model is one of square matrices: with fewer rows they would have fewer columns.
    @Test func aSizeThatIsNotTheBatchAloneMixesExamples() throws {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [batch, batch]))
        try graph.addOutput("y", graph.add(Unary(.exp), [x], name: "exp")[0])
        #expect(try graph.separableBatch() == nil)
        #expect(try separable { graph, x in
            let sizes = try graph.addKnown(.dimensions([batch, batch, 4, 8]), ValueType(.int64, [4]), name: "sizes")
            let one = try graph.add(Unsqueeze(), [x, integers(&graph, [1])], name: "one")[0]
            return try graph.add(Expand(), [one, sizes], name: "pairs")[0]
        } == nil)
    }

    @Test func examplesMetByOthersAreNotApart() throws {
        // x · xᵀ over rows of the batch, as a contrastive loss has it.
        #expect(try separable { graph, x in
            let first = try graph.add(Gather(axis: 1), [x, integers(&graph, [0])], name: "first")[0]
            let rows = try graph.add(Squeeze(), [first, integers(&graph, [1])], name: "rows")[0]
            let columns = try graph.add(Transpose(permutation: [1, 0]), [rows], name: "columns")[0]
            return try graph.add(MatMul(), [rows, columns], name: "all pairs")[0]
        } == nil)
        #expect(try separable { graph, x in try graph.add(Gather(axis: 0), [x, integers(&graph, [0])], name: "one")[0] } == nil)
        #expect(try separable { graph, x in try graph.add(Concat(axis: 0), [x, x], name: "twice")[0] } == nil)
    }
}
