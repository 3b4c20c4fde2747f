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
        #expect(
            try separable { graph, x in
                let w = try weight(&graph, [8, 8])
                let y = try graph.add(Linear(), [x, w], name: "linear")[0]
                let z = try graph.add(Attention(heads: 2), [y, x, x], name: "attention")[0]
                let sum = try graph.add(Binary(.add), [z, x], name: "sum")[0]
                return try graph.add(Gather(axis: 1), [sum, integers(&graph, [0])], name: "first")[0]
            } == "batch")
    }

    @Test func sumsOverTheBatchMixExamples() throws {
        #expect(
            try separable { graph, x in
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
        #expect(
            try separable { graph, x in
                let sizes = try graph.addKnown(.dimensions([batch, batch, 4, 8]), ValueType(.int64, [4]), name: "sizes")
                let one = try graph.add(Unsqueeze(), [x, integers(&graph, [1])], name: "one")[0]
                return try graph.add(Expand(), [one, sizes], name: "pairs")[0]
            } == nil)
        #expect(
            try separable { graph, x in
                let half = try #require(batch.divided(roundingDownBy: 2))
                let sizes = try graph.addKnown(.dimensions([batch, half, 4, 8]), ValueType(.int64, [4]), name: "sizes")
                let one = try graph.add(Unsqueeze(), [x, integers(&graph, [1])], name: "one")[0]
                return try graph.add(Expand(), [one, sizes], name: "halves")[0]
            } == nil)
    }

    @Test func examplesMetByOthersAreNotApart() throws {
        // x · xᵀ over rows of the batch, as a contrastive loss has it.
        #expect(
            try separable { graph, x in
                let first = try graph.add(Gather(axis: 1), [x, integers(&graph, [0])], name: "first")[0]
                let rows = try graph.add(Squeeze(), [first, integers(&graph, [1])], name: "rows")[0]
                let columns = try graph.add(Transpose(permutation: [1, 0]), [rows], name: "columns")[0]
                return try graph.add(MatMul(), [rows, columns], name: "all pairs")[0]
            } == nil)
        #expect(try separable { graph, x in try graph.add(Gather(axis: 0), [x, integers(&graph, [0])], name: "one")[0] } == nil)
        #expect(try separable { graph, x in try graph.add(Concat(axis: 0), [x, x], name: "twice")[0] } == nil)
    }

    @Test func batchesThatAreNotTheirSymbolAlone() throws {
        var graph = Graph(name: "main")
        let x = try graph.addInput("x", ValueType(.float32, [batch.multiplied(by: 2), 8]))
        try graph.addOutput("y", graph.add(Unary(.exp), [x], name: "exp")[0])
        #expect(try graph.separableBatch() == nil)
    }

    enum Meeting: CaseIterable {
        case gains, positions, maskOfRankThree, keysOfAll, oneRowForAll, sharedSummand, factorsOfAll, factorOfAnother,
            addedAtAnotherAxis
    }

    /// Operands that bring one example's numbers to another, or that a part of the batch would have to be cut from as well. A
    /// size that is stated may be that of the batch.
    @Test(arguments: Meeting.allCases) func operandsOfOtherExamplesAreNotApart(form: Meeting) throws {
        let found = try separable { graph, x in
            func add(_ op: any Operator, _ inputs: [ValueID?]) throws -> ValueID {
                try graph.add(op, inputs, name: "\(type(of: op))")[0]
            }
            func input(_ name: String, _ rest: Dimension..., type: DataType = .float32) throws -> ValueID {
                try graph.addInput(name, ValueType(type, [batch] + rest))
            }
            func same(_ rest: Dimension...) throws -> ValueID {
                try graph.addKnown(.splat(Tensor(scalar: Float(0.5))), ValueType(.float32, [batch] + rest), name: "same")
            }
            switch form {
            case .gains: return try add(LayerNorm(epsilon: 1e-5), [x, input("gains")])
            case .positions:
                return try add(Embedding(), [input("ids", 4, type: .int64), weight(&graph, [9, 8]), input("positions", 8)])
            case .maskOfRankThree: return try add(Attention(heads: 4), [x, x, x, input("mask", 4, 4)])
            case .keysOfAll: return try add(Attention(heads: 2), [x, same(4, 8), same(4, 8)])
            case .oneRowForAll:
                let first = try graph.addKnown(.splat(Tensor(scalar: Int64(0))), ValueType(.int64, [batch]), name: "first")
                return try add(Gather(axis: 0), [x, first])
            case .sharedSummand: return try add(Binary(.add), [x, same(4, 8)])
            case .factorsOfAll: return try add(MatMul(), [x, same(8, 3)])
            case .factorOfAnother: return try add(MatMul(), [input("rows", 4), input("factor", 3)])
            case .addedAtAnotherAxis: return try add(Binary(.add), [x, input("row", 8)])
            }
        }
        #expect(found == nil)
    }

    @Test func productsOfOneRowKeepExamplesApart() throws {
        #expect(
            try separable { graph, x in
                let row = try graph.add(
                    Gather(axis: 1), [x, graph.addKnown(.dimensions([0]), ValueType(.int64, []), name: "first")], name: "row")[0]
                return try graph.add(MatMul(), [row, weight(&graph, [8, 3])], name: "product")[0]
            } == "batch")
    }
}
