import ModelGraph
import Tensors

/// Zeros around the input of a convolution become its padding. Patches have none: zeros around a picture stay.
struct FusePadding: Rewrite {
    let name = "padding"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let op = node.op as? Conv, let x = node.input(0),
            let (pad, padOp) = graph.producer(of: x, Pad.self), padOp.mode == .constant,
            try pad.input(2) == nil || graph.number(pad.input(2)) == 0, let source = pad.input(0),
            let weight = node.input(1), !op.cutsPatches(graph.shape(of: weight)),
            let added = try amounts(pad, graph, rank: graph.shape(of: x).count), let window = padded(op.window, by: added)
        else { return nil }
        var fused = op
        fused.window = window
        var patch = Patch(for: graph)
        patch.replace(node, in: graph, with: fused, [source] + node.inputs.dropFirst())
        return patch
    }

    /// All begins, then all ends, of the spatial axes; nil where they are not known, where something is cut off, or batch or
    /// channels are padded.
    private func amounts(_ pad: Node, _ graph: Graph, rank: Int) throws -> [Int]? {
        guard let stated = try pad.input(1).flatMap({ try graph.operand($0).constantIntegers() }) else { return nil }
        var axes = Array(0..<rank)
        if let value = pad.input(3) {
            guard let named = try graph.operand(value).constantIntegers() else { return nil }
            axes = try resolveAxes(named, rank: rank)
        }
        guard stated.count == 2 * axes.count, stated.allSatisfy({ 0...Window.limit ~= $0 }) else { return nil }
        var amounts = Array(repeating: 0, count: 2 * rank)
        for (index, axis) in axes.enumerated() {
            (amounts[axis], amounts[rank + axis]) = (stated[index], stated[axes.count + index])
        }
        guard [0, 1, rank, rank + 1].allSatisfy({ amounts[$0] == 0 }) else { return nil }
        return Array(amounts[2..<rank] + amounts[(rank + 2)...])
    }

    private func padded(_ window: Window, by added: [Int]) -> Window? {
        guard window.autoPad == .notSet || window.autoPad == .valid else { return nil }
        let own = window.autoPad == .notSet ? window.pads ?? [] : []
        let pads = own.isEmpty ? added : zip(own, added).map { $0 + $1 }
        guard own.isEmpty || own.count == added.count, pads.allSatisfy({ $0 <= Window.limit }) else { return nil }
        var window = window
        (window.pads, window.autoPad) = (pads, .notSet)
        return window
    }
}

/// Convolution + constant number for each channel becomes a convolution with bias.
struct FuseConvolutionBias: Rewrite {
    let name = "convolution's bias"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let (a, b) = graph.operands(of: node.outputs.first, .add) else { return nil }
        for (sum, numbers) in [(a, b), (b, a)] {
            guard let (conv, op) = graph.producer(of: sum, Conv.self), conv.input(2) == nil, graph.hasOneUse(sum),
                let bias = try channels(numbers, like: graph.shape(of: sum), graph)
            else { continue }
            var patch = Patch(for: graph)
            let operands = [conv.input(0), conv.input(1), patch.add(bias, name: graph.name(of: numbers))]
            patch.replace(node.output, with: patch.add(op, operands, name: conv.name, outputName: graph.name(of: node.output)))
            return patch
        }
        return nil
    }

    /// A constant [1, C, 1, ...], the first axis or not, as [C].
    private func channels(_ value: ValueID, like shape: [Dimension], _ graph: Graph) throws -> Constant? {
        guard let constant = graph.constant(of: value), constant.shape.count <= shape.count, let count = shape[1].constant,
            constant.shape.count >= shape.count - 1
        else { return nil }
        let axis = constant.shape.count - shape.count + 1
        guard constant.shape.indices.allSatisfy({ constant.shape[$0] == ($0 == axis ? count : 1) }) else { return nil }
        return try constant.reshaped([count])
    }
}

/// A convolution that is normalised by stated statistics becomes one with other weights.
struct FuseBatchNormalization: Rewrite {
    let name = "batch normalization"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let op = node.op as? BatchNormalization, let x = node.input(0), let (conv, convOp) = graph.producer(of: x, Conv.self),
            graph.hasOneUse(x), let weight = conv.input(1), let outputs = graph.shape(of: weight).first,
            let scale = node.input(1), let shift = node.input(2), let mean = node.input(3), let variance = node.input(4),
            ([weight, scale, shift, mean, variance] + [conv.input(2)].compactMap { $0 }).allSatisfy({ isWeight($0, graph) })
        else { return nil }
        var patch = Patch(for: graph)
        func made(_ kind: Binary.Kind, _ a: ValueID, _ b: ValueID) -> ValueID {
            patch.add(Binary(kind), [a, b], name: node.name)
        }
        let number = Constant(try Tensor(scalar: op.epsilon), identity: "float32 \(op.epsilon)")
        let epsilon = patch.add(number, name: "\(node.name).epsilon")
        let deviation = patch.add(Unary(.sqrt), [made(.add, variance, epsilon)], name: node.name)
        let factor = made(.div, scale, deviation)
        let ones = Array(repeating: Dimension(1), count: graph.shape(of: weight).count - 1)
        let rows = try patch.reshape(factor, to: [outputs] + ones, name: node.name)
        let start = conv.input(2).map { made(.sub, $0, mean) } ?? patch.add(Unary(.neg), [mean], name: node.name)
        let bias = made(.add, made(.mul, start, factor), shift)
        let scaled = made(.mul, weight, rows)
        patch.replace(node, in: graph, with: convOp, [conv.input(0), scaled, bias], name: conv.name)
        return patch
    }

    private func isWeight(_ value: ValueID, _ graph: Graph) -> Bool {
        graph.content(of: value) != nil && graph.type(of: value).dataType == .float32 && graph.type(of: value).constantShape != nil
    }
}

/// x · sigmoid(x)
struct FuseSwish: Rewrite {
    let name = "swish"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        let factors = graph.operands(of: node.outputs.first, .mul)
        guard let (x, gate) = graph.sorted(factors, where: { graph.operand(of: $0, .sigmoid) == nil }),
            graph.operand(of: gate, .sigmoid) == x, graph.hasOneUse(gate)
        else { return nil }
        var patch = Patch(for: graph)
        patch.replace(node, in: graph, with: Unary(.swish), [x])
        return patch
    }
}
