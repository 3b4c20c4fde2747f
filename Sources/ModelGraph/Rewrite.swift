import Support
import Tensors

/// A local change of a graph that keeps its numbers: given a node where a pattern may end, what to put in its place.
package protocol Rewrite: Sendable {
    /// The name in the audit trail.
    var name: String { get }

    /// The patch for the pattern that ends at `node`; nil where there is none, or where keeping the numbers cannot be proved.
    func patch(at node: Node, in graph: Graph) throws -> Patch?
}

/// Nodes and constants to add to a graph, and values to replace by them.
package struct Patch: Sendable {
    fileprivate enum Addition: Sendable {
        case node(any Operator, [ValueID?], name: String, outputNames: [String?], outputCount: Int)
        case constant(Constant, name: String)
        case known(Content, ValueType, name: String)
    }
    fileprivate var additions: [Addition] = []
    fileprivate var replacements: [(old: ValueID, new: ValueID)] = []
    private var nextIndex: Int

    /// A patch for `graph` as it is now; it must be applied before the graph changes otherwise.
    package init(for graph: Graph) { nextIndex = graph.valueCount }

    /// Adds a node with one output.
    package mutating func add(_ op: any Operator, _ inputs: [ValueID?], name: String, outputName: String? = nil) -> ValueID {
        add(op, inputs, name: name, outputNames: [outputName], outputCount: 1)[0]
    }

    /// Adds a node with `outputCount` outputs.
    package mutating func add(
        _ op: any Operator, _ inputs: [ValueID?], name: String, outputNames: [String?] = [], outputCount: Int
    ) -> [ValueID] {
        additions.append(.node(op, inputs, name: name, outputNames: outputNames, outputCount: outputCount))
        return (0..<outputCount).map { _ in nextID() }
    }

    /// Adds a constant.
    package mutating func add(_ constant: Constant, name: String) -> ValueID {
        additions.append(.constant(constant, name: name))
        return nextID()
    }

    /// Adds a value that is known, in any of the forms of `Content`.
    package mutating func add(_ content: Content, _ type: ValueType, name: String) -> ValueID {
        additions.append(.known(content, type, name: name))
        return nextID()
    }

    /// Makes everything that reads `old` read `new`, which must have the same type.
    package mutating func replace(_ old: ValueID, with new: ValueID) { replacements.append((old, new)) }

    private mutating func nextID() -> ValueID {
        defer { nextIndex += 1 }
        return ValueID(nextIndex)
    }
}

extension Graph {
    /// Applies `rewrites` everywhere, again and again, until none finds its pattern, or until there were about
    /// sixty patches for each node.
    /// - Parameter validating: check the whole graph after each patch (for tests).
    /// - Returns: the audit trail: how often each rewrite was applied.
    /// - Throws: `data` where a patch would change a type, which is a mistake in the rewrite.
    @discardableResult
    package mutating func rewrite(_ rewrites: [any Rewrite], validating: Bool = false) throws -> [String: Int] {
        var trail: [String: Int] = [:]
        var changed = true
        // Far more than any model takes: rewrites that undo each other on some odd graph must not go on for ever.
        let limit = 64 * nodes.count + 1024
        while changed {
            changed = false
            for visited in try topologicalOrder() {
                for rewrite in rewrites {
                    // What nothing reads any more may still determine a size; it stays as it is.
                    guard let node = node(visited.id), isRead(node) else { break }
                    guard let patch = try rewrite.patch(at: node, in: self) else { continue }
                    try locating("rewrite \(rewrite.name) at \(node.name)") { try apply(patch, at: node) }
                    trail[rewrite.name, default: 0] += 1
                    changed = true
                    if trail.values.reduce(0, +) >= limit { return trail }
                    if validating { try validate() }
                }
            }
        }
        return trail
    }

    private mutating func apply(_ patch: Patch, at node: Node) throws {
        for addition in patch.additions {
            switch addition {
            case .node(let op, let inputs, let name, let outputNames, let outputCount):
                let results = try add(op, inputs, name: name, outputNames: outputNames)
                guard results.count == outputCount else {
                    throw TripsError.data(
                        "number of outputs of \(Swift.type(of: op).name)", found: results.count, expected: outputCount)
                }
            case .constant(let constant, let name): _ = try addConstant(constant, name: name)
            case .known(let content, let type, let name): _ = try addKnown(content, type, name: name)
            }
        }
        for (old, new) in patch.replacements {
            let (before, after) = (type(of: old), type(of: new))
            guard before.dataType == after.dataType, before.rank == after.rank,
                zip(before.shape, after.shape).allSatisfy({ mayBeEqual($0, $1) })
            else { throw TripsError.data("a patch changes the type of \(name(of: old))", found: after, expected: before) }
            let producer = producer(of: old)
            replace(old, with: new)
            if let producer { removeIfUnused(producer.id) }
        }
        removeIfUnused(node.id)
    }
}
