import ModelGraph
import Operators
import PackageFormat
import Support
import Tensors
import Testing

import Runtime

/// Selection by kernels beside the operator's own computation in double precision.
@Suite struct SelectionInstructionTests {
    private func noise(_ shape: [Int], seed: UInt64) throws -> Tensor {
        var generator = SplitMix64(state: seed)
        return try Tensor((0..<shape.reduce(1, *)).map { _ in Float(generator.uniform() - 0.5) * 4 }, shape: shape)
    }

    private func run(_ op: PatchSelection, _ inputs: [Tensor], threads: Int) throws -> [Tensor] {
        var graph = Graph(name: "main")
        let values = try inputs.enumerated().map { index, tensor in
            try graph.addInput("input.\(index)", ValueType(tensor.dataType, tensor.shape.map { Dimension($0) }))
        }
        for (index, value) in try graph.add(op, values, name: "selection").enumerated() { try graph.addOutput("output.\(index)", value) }
        let session = Session(Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: threads)
        let results = try session.run(Dictionary(uniqueKeysWithValues: inputs.enumerated().map { ("input.\($0.offset)", $0.element) }))
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
                leading: leading)
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
}
