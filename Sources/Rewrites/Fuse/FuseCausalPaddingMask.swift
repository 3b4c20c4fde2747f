import ModelGraph
import Tensors

/// (1 - m · t) · c, where t hides later keys, becomes a causal PaddingMask.
struct FuseCausalPaddingMask: Rewrite {
    let name = "causal padding mask"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let output = node.outputs.first, graph.type(of: output).dataType == .float32,
            let (inverse, factor) = try graph.scaled(output),
            factor < -1, let (one, kept) = graph.operands(of: inverse, .sub), try graph.number(one) == 1,
            let (a, b) = graph.operands(of: kept, .mul)
        else { return nil }
        for (triangle, padding) in [(a, b), (b, a)] {
            guard try graph.isCausal(triangle), let mask = FusePaddingMask.mask(padding, graph) else { continue }
            let (batch, length) = (graph.shape(of: mask)[0], graph.shape(of: mask)[1])
            guard graph.shape(of: padding) == [batch, 1, 1, length], graph.shape(of: output) == [batch, 1, length, length] else {
                continue
            }
            var patch = Patch(for: graph)
            patch.replace(node, in: graph, with: PaddingMask(maskedValue: Float(factor), causal: true), [mask])
            return patch
        }
        return nil
    }
}
