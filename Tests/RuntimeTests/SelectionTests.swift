import ModelGraph
import Operators
import PackageFormat
import Support
import Tensors
import TestSupport
import Testing

import Runtime

/// Selection by kernels beside the operator's own computation in double precision.
@Suite struct SelectionInstructionTests {
    /// Numbers below 2.
    private func noise(_ shape: [Int], seed: UInt64) throws -> Tensor { try TestSupport.noise(shape, seed: seed, scale: 2) }

    private func run(_ op: PatchSelection, _ inputs: [Tensor], threads: Int) throws -> [Tensor] {
        var graph = Graph(name: "main")
        let values = try inputs.enumerated().map { index, tensor in
            try graph.addInput("input.\(index)", ValueType(tensor.dataType, tensor.shape.map { Dimension($0) }))
        }
        for (index, value) in try graph.add(op, values, name: "selection").enumerated() {
            try graph.addOutput("output.\(index)", value)
        }
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: threads)
        let results = try session.run(
            Dictionary(uniqueKeysWithValues: inputs.enumerated().map { ("input.\($0.offset)", $0.element) }))
        return try (0..<4).map { try #require(results["output.\($0)"]) }
    }

    @Test(arguments: [PatchSelection.Guidance.text, .imageCLS], PatchSelection.Fusion.allCases)
    func kernelsAgreeWithTheOperator(_ guidance: PatchSelection.Guidance, _ fusion: PatchSelection.Fusion) throws {
        for (heads, batch, count, order, keyWidth, leading) in [
            (4, 1, 37, PatchSelection.Order.original, nil, nil), (3, 3, 16, .score, nil, nil), (2, 2, 1, .original, nil, nil),
            (3, 2, 20, .original, 41, nil), (3, 2, 16, .score, nil, 5), (2, 2, 9, .original, 31, 2),
        ] {
            let op = PatchSelection(
                heads: heads, keepRate: 0.6, guidance: guidance, fusion: fusion, order: order, sharesKeys: keyWidth != nil,
                leading: leading ?? 1)
            let tokens = count + (leading ?? 1)
            let width = heads * 12
            let positions = try Tensor((0..<batch * count).map { Int64($0 * 7 % 50) }, shape: [batch, count])
            let inputs = [
                try noise([batch, tokens, width], seed: 1), try noise([batch, tokens, keyWidth ?? width], seed: 2),
                try noise([batch, keyWidth.map { $0 * heads } ?? width], seed: 3), positions,
            ]
            let expected = try evaluate(op, inputs)
            for threads in [1, 3] {
                let found = try run(op, inputs, threads: threads)
                #expect(try found[1].elements(Int64.self) == expected[1].elements())
                #expect(try found[3].elements(Int64.self) == expected[3].elements())
                // Sums of some ten terms round in another order; numbers are below 2.
                for index in [0, 2] {
                    let pairs = zip(try found[index].elements(Float.self), try expected[index].elements(Float.self))
                    #expect(pairs.allSatisfy { abs($0 - $1) < 2e-6 })
                }
            }
        }
    }

    /// Where only a block's second half reads the selected tokens, the kept ones are looked up where they are. With an output more,
    /// they are moved. The numbers are the same, bit by bit; a second selection reads what the first one's block made.
    @Test(arguments: [false, true], PatchSelection.Fusion.allCases)
    func rowsAreLookedUp(_ quantized: Bool, _ fusion: PatchSelection.Fusion) throws {
        func run(moving: Bool, threads: Int) throws -> Tensor {
            var graph = Graph(name: "main")
            var stream = try graph.addInput("tokens", ValueType(.float32, [3, 21, 24]))
            let guide = try graph.addInput("guide", ValueType(.float32, [3, 24]))
            func constant(_ shape: [Int], _ seed: UInt64) throws -> ValueID {
                try graph.addConstant(Constant(noise(shape, seed: seed), identity: "constant \(seed)"), name: "constant.\(seed)")
            }
            func node(_ op: any Operator, _ inputs: ValueID...) throws -> ValueID {
                try graph.add(op, inputs, name: "node.\(graph.nodes.count)")[0]
            }
            func linear(_ input: ValueID, _ outputs: Int, _ inputs: Int, seed: UInt64) throws -> ValueID {
                guard quantized else { return try node(Linear(), input, constant([outputs, inputs], seed)) }
                let weight = try Tensor(
                    (0..<outputs * inputs).map { Int8(truncatingIfNeeded: $0 * 37 + Int(seed)) }, shape: [outputs, inputs])
                let values = try graph.addConstant(Constant(weight, identity: "weight \(seed)"), name: "weight.\(seed)")
                let scales = try graph.addConstant(
                    Constant(Tensor([Float](repeating: 0.01, count: outputs), shape: [outputs, 1]), identity: "scales \(seed)"),
                    name: "scales.\(seed)")
                return try node(QuantizedLinear(groupSize: inputs, activations: .int8), input, values, scales)
            }
            for block in 0..<2 as Range<UInt64> {
                let keys = try node(LayerNorm(epsilon: 1e-6), stream, constant([24], 10 * block + 1))
                let selected = try node(PatchSelection(heads: 2, keepRate: 0.6, fusion: fusion), stream, keys, guide)
                if moving { try graph.addOutput("selected.\(block)", selected) }
                let normed = try node(LayerNorm(epsilon: 1e-6), selected, constant([24], 10 * block + 2))
                let hidden = try node(GELU(.erf), linear(normed, 48, 24, seed: 10 * block + 3))
                stream = try node(Binary(.add), linear(hidden, 24, 48, seed: 10 * block + 4), selected)
            }
            try graph.addOutput("stream", stream)
            let session = Session(
                Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: threads)
            let results = try session.run(["tokens": noise([3, 21, 24], seed: 91), "guide": noise([3, 24], seed: 92)])
            return try #require(results["stream"])
        }
        let expected = try run(moving: true, threads: 1).elements(Float.self)
        #expect(expected.allSatisfy(\.isFinite) && Set(expected).count > 100)
        for threads in [1, 3] { #expect(try run(moving: false, threads: threads).elements(Float.self) == expected) }
    }
}
