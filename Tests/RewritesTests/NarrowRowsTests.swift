import ModelGraph
import Rewrites
import Tensors
import Testing

@Suite struct NarrowRowsTests {
    /// A post-norm block over states [2, 5, 8] that attends to [1, 7, 8], and the choice of one row of what it gives.
    private func block(scalarIndex: Bool, readingAllRows: Bool = false) throws -> Exported {
        var m = Exported()
        let (x, image) = (try m.input("x", [2, 5, 8]), try m.input("image", [1, 7, 8]))
        let keys = try m.node(Linear(), [image, m.constant([8, 8])])
        let attended = try m.node(Attention(heads: 2), [m.node(Linear(), [x, m.constant([8, 8])]), keys, keys])
        let sum = try m.binary(.add, m.node(Linear(), [attended, m.constant([8, 8]), m.constant([8])]), x)
        let states = try m.node(LayerNorm(epsilon: 1e-5), [sum, m.constant([8])])
        let hidden = try m.node(GELU(.erf), [m.node(Linear(), [states, m.constant([16, 8])])])
        let output = try m.binary(.add, states, m.node(Linear(), [hidden, m.constant([8, 16])]))
        try m.output(m.node(Gather(axis: 1), [output, m.integers([3], scalar: scalarIndex)]))
        if readingAllRows { try m.output(output) }
        return m
    }

    @Test(arguments: [true, false]) func oneRowIsComputedAloneAndStays(scalarIndex: Bool) throws {
        let m = try block(scalarIndex: scalarIndex)
        var graph = m.graph
        #expect(try graph.narrowRows() == 1)
        try graph.validate()
        let wide = graph.nodes.filter { graph.shape(of: $0.output).dropFirst().first == 5 }
        #expect(wide.isEmpty, "\(wide.map(\.name))")
        let (before, after) = (try outputs(m.graph, m.inputs), try outputs(graph, m.inputs))
        // The same sums of at most 16 products, but BLAS may take their terms in another order for one row than for five:
        // a few roundings of numbers around 1.
        #expect(try excess(after["y0"], before["y0"], 2e-6, 2e-6) <= 0)
    }

    /// Positions that are added on the way differ from row to row.
    @Test(arguments: [[1, 5, 8], [5, 8]]) func rowsOfConstantsKeepTheirPlaces(shape: [Int]) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let sum = try m.binary(.add, m.node(GELU(.erf), [x]), m.constant(shape))
        try m.output(m.node(Gather(axis: 1), [m.node(GELU(.erf), [sum]), m.integers([3], scalar: true)]))
        var graph = m.graph
        try graph.narrowRows()
        try graph.validate()
        #expect(try excess(outputs(graph, m.inputs)["y0"], outputs(m.graph, m.inputs)["y0"], 1e-6, 1e-6) <= 0)
    }

    @Test func rowsThatAreReadElsewhereStay() throws {
        var graph = try block(scalarIndex: true, readingAllRows: true).graph
        #expect(try graph.narrowRows() == 0)
    }

    /// What a query sees may depend on its place: by a mask of its own, or as it sees no later keys.
    @Test(
        arguments: [([2, 1, 1, 5], false), ([5], false), ([2, 1, 5, 5], false), ([5, 5], false), (nil, true)] as [([Int]?, Bool)])
    func queriesKeepWhatTheySee(mask: [Int]?, causal: Bool) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let addends = try mask.map { [try m.input("mask", $0)] } ?? []
        let attended = try m.node(Attention(heads: 2, causal: causal), [m.node(GELU(.erf), [x]), x, x] + addends)
        try m.output(m.node(Gather(axis: 1), [m.node(GELU(.tanh), [attended]), m.integers([2], scalar: true)]))
        var graph = m.graph
        try graph.narrowRows()
        try graph.validate()
        #expect(try excess(outputs(graph, m.inputs)["y0"], outputs(m.graph, m.inputs)["y0"], 1e-6, 1e-6) <= 0)
        let isNarrow = graph.nodes.contains { $0.op is Attention && graph.shape(of: $0.output)[1] == 1 }
        #expect(isNarrow == (mask.map { $0.count < 2 || $0[$0.count - 2] == 1 } ?? false))
    }

    @Test func twoRowsAndRowsThatAreTracedStay() throws {
        for isTraced in [false, true] {
            var m = Exported()
            let states = try m.node(GELU(.erf), [m.input("x", [2, 5, 8])])
            if isTraced { m.graph.addTrace("states", states) }
            try m.output(m.node(Gather(axis: 1), [states, m.integers(isTraced ? [2] : [2, 4])]))
            var graph = m.graph
            #expect(try graph.narrowRows() == 0)
        }
    }
}
