import ModelGraph

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
        let named = try pad.input(3) == nil ? Array(0..<rank) : graph.constantIntegers(pad.input(3))
        guard let stated = try graph.constantIntegers(pad.input(1)), let named else { return nil }
        let axes = try resolveAxes(named, rank: rank)
        guard stated.count == 2 * axes.count, stated.allSatisfy({ 0...Window.limit ~= $0 }) else { return nil }
        var amounts = Array(repeating: 0, count: 2 * rank)
        for (index, axis) in axes.enumerated() {
            (amounts[axis], amounts[rank + axis]) = (stated[index], stated[axes.count + index])
        }
        guard [0, 1, rank, rank + 1].allSatisfy({ amounts[$0] == 0 }) else { return nil }
        return Array(amounts[2..<rank] + amounts[(rank + 2)...])
    }

    private func padded(_ window: Window, by added: [Int]) -> Window? {
        guard !window.autoPad.isSame else { return nil }
        let own = window.autoPad == .notSet ? window.pads ?? [] : []
        let pads = own.isEmpty ? added : zip(own, added).map { $0 + $1 }
        guard own.isEmpty || own.count == added.count, pads.allSatisfy({ $0 <= Window.limit }) else { return nil }
        var window = window
        (window.pads, window.autoPad) = (pads, .notSet)
        return window
    }
}
