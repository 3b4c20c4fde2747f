import ModelGraph
import Tensors

/// Drops operators whose result is an operand.
struct DropIdentities: Rewrite {
    let name = "drop identities"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let source = try unchanged(node, graph) else { return nil }
        let (from, to) = (graph.type(of: source), graph.type(of: node.output))
        var patch = Patch(for: graph)
        if from == to {
            patch.replace(node.output, with: source)
        } else if node.op is Binary, from.dataType == to.dataType, graph.tellsSizes(of: node.output, by: [source]) {
            // Zeros may be added for their shape alone: CLIP gives its class token a batch that way.
            patch.replace(node.output, with: try patch.expand(source, to: to.shape, name: node.name))
        } else {
            return nil
        }
        return patch
    }

    /// The operand that an operator returns unchanged if the types are equal.
    private func unchanged(_ node: Node, _ graph: Graph) throws -> ValueID? {
        guard graph.content(of: node.output) == nil else { return nil }
        switch node.op {
        case is Identity, is Cast, is Expand: return node.input(0)
        case is Concat:
            let parts = node.inputs.compactMap { $0 }.filter { !graph.shape(of: $0).contains(0) }
            return parts.count == 1 ? parts[0] : nil
        case is Pad, is Tile:
            let neutral = node.op is Pad ? 0 : 1
            return try graph.constantIntegers(node.input(1))?.allSatisfy { $0 == neutral } == true ? node.input(0) : nil
        case is Where:
            return try graph.number(node.input(0)).flatMap { $0 != 0 ? node.input(1) : node.input(2) }
        case let binary as Binary:
            return try neutral(binary.kind, node, graph)
        default: return nil
        }
    }

    /// x + 0, x - 0, x · 1, x / 1, x^1, x and true, x or false. The sum makes +0 of -0, which no other operator distinguishes
    /// but division by it.
    private func neutral(_ kind: Binary.Kind, _ node: Node, _ graph: Graph) throws -> ValueID? {
        if kind == .and || kind == .or {
            func isNeutral(_ index: Int) throws -> Bool {
                try node.input(index).flatMap { try graph.uniformNumber($0) }?.elements(Bool.self) == [kind == .and]
            }
            return try isNeutral(1) ? node.input(0) : isNeutral(0) ? node.input(1) : nil
        }
        let (a, b) = (try graph.number(node.input(0)), try graph.number(node.input(1)))
        switch kind {
        case .add: return b == 0 ? node.input(0) : a == 0 ? node.input(1) : nil
        case .mul: return b == 1 ? node.input(0) : a == 1 ? node.input(1) : nil
        case .sub: return b == 0 ? node.input(0) : nil
        case .div, .pow: return b == 1 ? node.input(0) : nil
        default: return nil
        }
    }
}
