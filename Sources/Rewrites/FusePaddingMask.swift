import ModelGraph
import Support
import Tensors

/// (1 - m) · c over a mask [B, L], however it is cast and given axes, becomes PaddingMask.
struct FusePaddingMask: Rewrite {
    let name = "padding mask"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let output = node.outputs.first, let (inverse, factor) = try graph.scaled(output), factor < -1,
            let (one, kept) = graph.operands(of: inverse, .sub), try graph.number(one) == 1, graph.shape(of: kept) == graph.shape(of: output),
            graph.type(of: output).dataType == .float32
        else { return nil }
        guard let mask = Self.mask(kept, graph) else { return nil }
        let shape = graph.shape(of: mask)
        var patch = Patch(for: graph)
        let made = patch.add(PaddingMask(maskedValue: Float(factor)), [mask], name: node.name)
        let target = graph.shape(of: output)
        if target == [shape[0], 1, 1, shape[1]] {
            patch.replace(output, with: made)
        } else {
            let sizes = try patch.add(sizes: target, shape: [target.count], name: "\(node.name).shape")
            patch.replace(output, with: patch.add(Reshape(), [made, sizes], name: node.name))
        }
        return patch
    }

    /// The mask of rank 2 behind casts and reshapes.
    static func mask(_ value: ValueID, _ graph: Graph) -> ValueID? {
        var current = value
        while graph.content(of: current) == nil, let node = graph.producer(of: current), let inner = node.input(0) {
            if node.op is Cast {
                // What is neither one nor zero would change: fractions become integers, numbers become booleans.
                guard graph.type(of: inner).dataType == .bool || graph.type(of: current).dataType.isFloatingPoint else { return nil }
            } else if !(node.op is Reshape || node.op is Unsqueeze || node.op is Squeeze) {
                break
            }
            current = inner
        }
        return graph.content(of: current) == nil && graph.type(of: current).rank == 2 ? current : nil
    }
}

/// Takes away expansions that broadcasting makes anyway.
struct DropExpansions: Rewrite {
    let name = "drop expansions"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard node.op is Binary || node.op is Where else { return nil }
        for (index, operand) in node.inputs.enumerated() {
            guard let operand, let expand = graph.producer(of: operand, Expand.self)?.node, let inner = expand.input(0) else { continue }
            var shapes = node.inputs.compactMap { $0 }.map(graph.shape(of:))
            shapes[index] = graph.shape(of: inner)
            guard try broadcastShape(shapes) == graph.shape(of: node.output) else { continue }
            var inputs = node.inputs
            inputs[index] = inner
            var patch = Patch(for: graph)
            patch.replace(node.output, with: patch.add(node.op, inputs, name: node.name, outputName: graph.name(of: node.output)))
            return patch
        }
        return nil
    }
}
