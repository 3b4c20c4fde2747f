import ModelGraph
import Support
import Tensors

/// (1 - m) · c over a mask [B, L], however it is cast and given axes, becomes PaddingMask.
struct FusePaddingMask: Rewrite {
    let name = "padding mask"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let output = node.outputs.first, let (inverse, factor) = try graph.scaled(output), factor < -1,
            let (one, kept) = graph.operands(of: inverse, .sub), try graph.number(one) == 1,
            graph.shape(of: kept) == graph.shape(of: output),
            graph.type(of: output).dataType == .float32
        else { return nil }
        // A triangle has two axes as well, and attention sees by itself that it is causal.
        guard let mask = Self.mask(kept, graph), try !graph.isCausal(kept) else { return nil }
        let shape = graph.shape(of: mask)
        var patch = Patch(for: graph)
        let addend = patch.add(PaddingMask(maskedValue: Float(factor)), [mask], name: node.name)
        let target = graph.shape(of: output)
        if target == [shape[0], 1, 1, shape[1]] {
            patch.replace(output, with: addend)
        } else {
            patch.replace(output, with: try patch.reshape(addend, to: target, name: node.name))
        }
        return patch
    }

    /// The mask of rank 2 that casts and reshapes made a value of.
    static func mask(_ value: ValueID, _ graph: Graph) -> ValueID? {
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
