import ModelGraph
import Support
import Tensors

/// (1 - m) · c over a mask [B, L], however it is cast and given axes, becomes PaddingMask; a causal one where m is multiplied by what
/// hides later keys.
struct FusePaddingMask: Rewrite {
    let name = "padding mask"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let output = node.outputs.first, graph.type(of: output).dataType == .float32,
            let (kept, factor) = try graph.scaledInverse(output), factor < -1
        else { return nil }
        return try padding(kept, Float(factor), node, graph) ?? causal(kept, Float(factor), node, graph)
    }

    private func padding(_ kept: ValueID, _ factor: Float, _ node: Node, _ graph: Graph) throws -> Patch? {
        let target = graph.shape(of: node.output)
        // A triangle has two axes as well, and attention sees by itself that it is causal.
        guard graph.shape(of: kept) == target, let mask = mask(kept, graph), try !graph.isCausal(kept) else { return nil }
        let shape = graph.shape(of: mask)
        var patch = Patch(for: graph)
        let addend = patch.add(PaddingMask(maskedValue: factor), [mask], name: node.name)
        let isPlaced = target == [shape[0], 1, 1, shape[1]]
        patch.replace(node.output, with: isPlaced ? addend : try patch.reshape(addend, to: target, name: node.name))
        return patch
    }

    private func causal(_ kept: ValueID, _ factor: Float, _ node: Node, _ graph: Graph) throws -> Patch? {
        for (triangle, padding) in graph.operandsInEitherOrder(of: kept, .mul) {
            guard try graph.isCausal(triangle), let mask = mask(padding, graph) else { continue }
            let (batch, length) = (graph.shape(of: mask)[0], graph.shape(of: mask)[1])
            guard graph.shape(of: padding) == [batch, 1, 1, length], graph.shape(of: node.output) == [batch, 1, length, length]
            else { continue }
            var patch = Patch(for: graph)
            patch.replace(node, in: graph, with: PaddingMask(maskedValue: factor, causal: true), [mask])
            return patch
        }
        return nil
    }

    /// The mask of rank 2 that casts and reshapes made a value of.
    private func mask(_ value: ValueID, _ graph: Graph) -> ValueID? {
        var current = value
        while graph.content(of: current) == nil, let node = graph.producer(of: current), let inner = node.input(0) {
            if node.op is Cast {
                // What is neither one nor zero would change: fractions become integers, numbers become booleans.
                guard graph.type(of: inner).dataType == .bool || graph.type(of: current).dataType.isFloatingPoint else {
                    return nil
                }
            } else if !(node.op is Reshape || node.op is Unsqueeze || node.op is Squeeze) {
                break
            }
            current = inner
        }
        return graph.content(of: current) == nil && graph.type(of: current).rank == 2 ? current : nil
    }
}
