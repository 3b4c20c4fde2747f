import ModelGraph
import Tensors

/// A convolution in steps of its kernel size whose result is laid out as rows of patches becomes PatchEmbedding, and so does
/// a projection of patches that reshapes and transposes cut out of the image, as einops writes them.
struct FusePatchEmbedding: Rewrite {
    let name = "patch embedding"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        if node.op is Linear { return try projection(node, graph) }
        guard let output = node.outputs.first, node.outputs.count == 1 else { return nil }
        for view in try graph.views(of: output) {
            guard let (conv, op) = graph.producer(of: view.source, Conv.self), let image = conv.input(0),
                let weightValue = conv.input(1),
                graph.constant(of: weightValue) != nil, op.cutsPatches(graph.shape(of: weightValue))
            else { continue }
            let shape = graph.shape(of: view.source)
            let rows = try ViewLayout(of: shape).transposed([0, 2, 3, 1])
                .reshaped([shape[0], shape[2].multiplied(by: shape[3]), shape[1]])
            guard let rows, view.layout == rows else { return nil }
            var patch = Patch(for: graph)
            var operands = [image, weightValue]
            if let bias = conv.input(2) {
                guard let row = try graph.row(bias, width: shape[1]) else { return nil }
                operands.append(patch.add(row, name: "\(conv.name).bias"))
            }
            patch.replace(node, in: graph, with: PatchEmbedding(), operands, name: conv.name)
            return patch
        }
        return nil
    }

    private func projection(_ node: Node, _ graph: Graph) throws -> Patch? {
        guard let patches = node.input(0), let weight = node.input(1), graph.constant(of: weight) != nil else { return nil }
        for view in try graph.views(of: patches) {
            let shape = graph.shape(of: view.source)
            guard shape.count == 4, view.layout.axes.count == 3, let elements = view.layout.axes.last,
                let channels = elements.firstIndex(where: { $0.axis == 1 }),
                let lines = elements.firstIndex(where: { $0.axis == 2 }),
                let columns = elements.firstIndex(where: { $0.axis == 3 }), elements.count == 3,
                let height = shape[2].divided(exactlyBy: elements[lines].size),
                let width = shape[3].divided(exactlyBy: elements[columns].size)
            else { continue }
            let cut = try ViewLayout(of: shape)
                .reshaped([shape[0], shape[1], height, elements[lines].size, width, elements[columns].size])
            let rows = try cut?.transposed([0, 2, 4] + elements.map { [1, 3, 5][$0.axis - 1] })
                .reshaped([shape[0], height.multiplied(by: width), product(elements.map(\.size))])
            guard view.layout == rows else { continue }
            var patch = Patch(for: graph)
            let sizes = [graph.shape(of: weight)[0]] + elements.map(\.size)
            let split = try patch.reshape(weight, to: sizes, name: node.name)
            let kernel = patch.add(
                Transpose(permutation: [0, channels + 1, lines + 1, columns + 1]), [split], name: graph.name(of: weight))
            patch.replace(node, in: graph, with: PatchEmbedding(), [view.source, kernel] + node.inputs.dropFirst(2))
            return patch
        }
        return nil
    }
}

extension Conv {
    /// True where the windows of a picture are patches: they lie side by side, as PatchEmbedding cuts them.
    /// - Parameter weight: its shape.
    func cutsPatches(_ weight: [Dimension]) -> Bool {
        weight.count == 4 && groups == 1 && (window.strides ?? []).map { Dimension($0) } == Array(weight.dropFirst(2))
            && (window.pads ?? []).allSatisfy { $0 == 0 } && (window.dilations ?? []).allSatisfy { $0 == 1 }
            && !window.autoPad.isSame
    }
}
