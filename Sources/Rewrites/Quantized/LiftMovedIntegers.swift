import ModelGraph
import Operators

/// A dequantization after an operator that only moves elements, or that resizes what was just quantized, is done before it, next to
/// the quantization that made the integers.
struct LiftMovedIntegers: Rewrite {
    let name = "moved integers"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let op = node.op as? DequantizeLinear, op.blockSize == 0, let integers = node.input(0),
            graph.content(of: integers) == nil, let mover = graph.producer(of: integers),
            !(mover.op is Where || mover.op is ConstantOfShape), let count = movedOperands(of: mover, in: graph),
            let index = mover.outputs.firstIndex(of: integers),
            node.inputs.dropFirst().allSatisfy({ $0.map { graph.shape(of: $0).isOne } ?? true })
        else { return nil }
        var patch = Patch(for: graph)
        let numbers = mover.inputs.prefix(count).map { operand in
            operand.map { patch.add(op, [$0] + node.inputs.dropFirst(), name: node.name, outputName: graph.name(of: $0)) }
        }
        let names = mover.outputs.map { $0 == integers ? graph.name(of: node.output) : nil }
        let operands = numbers + mover.inputs.dropFirst(count)
        let moved = patch.add(mover.op, operands, name: mover.name, outputNames: names, outputCount: mover.outputs.count)
        patch.replace(node.output, with: moved[index])
        return patch
    }

    /// The number of operands that are moved, which are the first.
    private func movedOperands(of node: Node, in graph: Graph) -> Int? {
        guard let resize = node.op as? Resize else { return node.movedOperands?.count }
        // Interpolation rounds integers again. Its weights add up to 1, so but for this it may as well be of the numbers.
        let isRounding = node.input(0).flatMap(graph.producer(of:))?.op is QuantizeLinear
        return resize.coordinates != .tfCropAndResize && (resize.mode == .nearest || isRounding) ? 1 : nil
    }
}

extension [ModelGraph.Dimension] {
    /// True for [], [1], [1, 1], ...
    fileprivate var isOne: Bool { allSatisfy { $0 == 1 } }
}
