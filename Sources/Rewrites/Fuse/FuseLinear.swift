import ModelGraph
import Tensors

/// x · W with constant W, as MatMul or as Gemm, becomes Linear; its weight is W transposed, read in place.
struct FuseLinear: Rewrite {
    let name = "linear"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let x = node.input(0), graph.content(of: x) == nil, let matrix = node.input(1).flatMap(graph.constant(of:)),
            matrix.shape.count == 2, matrix.dataType == .float32, let weightValue = node.input(1)
        else { return nil }
        var weight = matrix
        var bias: Constant?
        if let gemm = node.op as? Gemm {
            guard gemm.alpha == 1, !gemm.transposeA else { return nil }
            if !gemm.transposeB { weight = try matrix.transposed() }
            if let c = node.input(2) {
                guard gemm.beta == 1, let row = try graph.row(c, width: Dimension(weight.shape[0])) else { return nil }
                bias = row
            }
        } else if node.op is MatMul, graph.type(of: x).rank >= 2 {
            weight = try matrix.transposed()
        } else {
            return nil
        }
        var patch = Patch(for: graph)
        let operands =
            [patch.add(weight, name: graph.name(of: weightValue))] + (bias.map { [patch.add($0, name: "\(node.name).bias")] } ?? [])
        patch.replace(node, in: graph, with: Linear(), [x] + operands)
        return patch
    }
}
