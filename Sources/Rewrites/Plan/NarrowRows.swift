import ModelGraph
import Support
import Tensors

extension Graph {
    /// Makes a tower compute only the row that is read: where all that is used of states [B, T, D] is one token, such as [CLS],
    /// what comes before that choice is computed for this token alone, back to the keys and values of the last attention.
    ///
    /// For graphs of constant shapes whose outputs are chosen.
    /// - Returns: how many choices were moved.
    /// - Throws: what shape rules throw.
    @discardableResult
    package mutating func narrowRows() throws -> Int {
        var moved = 0
        for choice in try topologicalOrder() where choice.op as? Gather == Gather(axis: 1) {
            guard let states = choice.input(0), let index = choice.input(1), shape(of: states).count == 3,
                let row = try constantIntegers(index), row.count == 1
            else { continue }
            let nodes = try nodes(readOnlyFor: choice)
            guard !nodes.isEmpty else { continue }
            let rowIndex = try addKnown(.dimensions([Dimension(row[0])]), ValueType(.int64, [1]), name: "\(choice.name).row")
            var narrow: [ValueID: ValueID] = [:]
            for node in nodes {
                let inputs = try node.inputs.enumerated().map { place, input -> ValueID? in
                    guard let input, isNarrowed(place, of: node) else { return input }
                    if let known = narrow[input] { return known }
                    let chosen = try add(Gather(axis: 1), [input, rowIndex], name: "\(name(of: input)).row")[0]
                    narrow[input] = chosen
                    return chosen
                }
                narrow[node.output] = try add(node.op, inputs, name: node.name)[0]
            }
            let only = try addKnown(.dimensions([0]), type(of: index), name: "\(choice.name).only")
            try setInputs(of: choice.id, [narrow[states], only])
            moved += 1
        }
        if moved > 0 { prune() }
        return moved
    }

    /// The nodes whose rows nothing but the choice needs, in order.
    private func nodes(readOnlyFor choice: Node) throws -> [Node] {
        var found: [NodeID: Node] = [choice.id: choice]
        var nodes: [Node] = []
        for node in try topologicalOrder().reversed() where node.outputs.count == 1 && canNarrow(node) {
            let value = node.output
            guard !isOutput(value), !isTraced(value), content(of: value) == nil, !consumers(of: value).isEmpty,
                consumers(of: value).allSatisfy({ reader in
                    found[reader.id] != nil
                        && reader.inputs.indices.allSatisfy { reader.inputs[$0] != value || isNarrowed($0, of: reader) }
                })
            else { continue }
            found[node.id] = node
            nodes.append(node)
        }
        return nodes.reversed()
    }

    private func canNarrow(_ node: Node) -> Bool {
        guard shape(of: node.output).count == 3 else { return false }
        if let attention = node.op as? Attention {
            let mask = node.input(3).map(shape(of:)) ?? []
            return !attention.causal && (mask.count < 2 || mask[mask.count - 2] == 1)
        }
        if node.op is Binary {
            // An operand that is not a state must be the same for each row.
            return node.inputs.indices.allSatisfy { place in
                let rows = node.input(place).flatMap { shape(of: $0).dropLast().last }
                return isNarrowed(place, of: node) || rows == nil || rows == 1
            }
        }
        return node.op.isRowwise && !(node.op is Embedding) && !(node.op is QuantizedEmbedding)
    }

    /// True for an input that gives a row for each row of the output.
    private func isNarrowed(_ place: Int, of node: Node) -> Bool {
        if node.op is Attention || node.op is Gather { return place == 0 }
        guard let input = node.input(place), content(of: input) == nil else { return false }
        return shape(of: input).count == 3 && shape(of: input)[1] != 1
    }
}
