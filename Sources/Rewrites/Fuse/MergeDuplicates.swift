import ModelGraph
import Support
import Tensors

/// Computes once what a graph computes twice: the same operator over the same operands.
struct MergeDuplicates: Rewrite {
    let name = "merge duplicates"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let x = node.inputs.first(where: { $0.map { graph.content(of: $0) == nil } ?? false }) ?? nil else { return nil }
        // Among very many readers of one value, which no exporter makes, only the first are looked through.
        for other in graph.consumers(of: x, atMost: 256)
        where other.id < node.id && other.op.isEqual(to: node.op) && other.inputs.count == node.inputs.count {
            guard try zip(other.inputs, node.inputs).allSatisfy({ try isSame($0, $1, graph) }) else { continue }
            var patch = Patch(for: graph)
            for (old, new) in zip(node.outputs, other.outputs) { patch.replace(old, with: new) }
            return patch
        }
        return nil
    }

    private func isSame(_ left: ValueID?, _ right: ValueID?, _ graph: Graph) throws -> Bool {
        guard left != right else { return true }
        guard let left, let right, graph.type(of: left) == graph.type(of: right) else { return false }
        switch (graph.content(of: left), graph.content(of: right)) {
        case (.tensor(let a), .tensor(let b)):
            if a.identity == b.identity { return true }
            guard try elementCount(of: a.shape) <= 16 else { return false }
            return try bytes(a.load()) == bytes(b.load())
        case (.dimensions(let a), .dimensions(let b)): return a == b
        case (.splat(let a), .splat(let b)): return bytes(a) == bytes(b)
        default: return false
        }
    }

    private func bytes(_ tensor: Tensor) -> [UInt8] { tensor.withBytes { Array($0) } }
}
