import Support
import Tensors

extension Graph {
    /// Checks that this is a legal graph: no cycles; everything that is read is an input, a constant or computed by a node
    /// of the graph; consumers are recorded; types are what the shape rules give; inputs are not known; no two values, and no
    /// two outputs, have one name.
    /// - Throws: `data` naming the first value or node that breaks a rule.
    public func validate() throws {
        var defined = Set<ValueID>()
        var readers: [ValueID: Set<NodeID>] = [:]
        for input in inputs {
            guard content(of: input) == nil, producer(of: input) == nil else {
                throw TripsError.data("an input is also computed", found: name(of: input))
            }
            guard defined.insert(input).inserted else {
                throw TripsError.data("an input is declared twice", found: name(of: input))
            }
        }
        for node in try topologicalOrder() {
            try locating("node \"\(node.name)\"") { try validate(node, &defined, &readers) }
        }
        for (kind, results) in [("an output", outputs), ("a trace", traces)] {
            for (resultName, value) in results where !defined.contains(value) && content(of: value) == nil {
                throw TripsError.data("\(kind) is not computed", found: "\(resultName) = \(name(of: value))")
            }
        }
        guard Set(outputs.map(\.name)).count == outputs.count else { throw TripsError.data("two outputs have one name") }
        var names = Set<String>()
        for value in defined.union(readers.keys).union((outputs + traces).map(\.value)).sorted()
        where !names.insert(name(of: value)).inserted {
            throw TripsError.data("two values have one name", found: name(of: value))
        }
    }

    /// - Parameter readers: the recorded consumers of values met so far.
    private func validate(_ node: Node, _ defined: inout Set<ValueID>, _ readers: inout [ValueID: Set<NodeID>]) throws {
        for case let input? in node.inputs {
            guard defined.contains(input) || content(of: input) != nil else {
                throw TripsError.data("reads a value that nothing defines", found: name(of: input))
            }
            if readers[input] == nil { readers[input] = Set(consumers(of: input).map(\.id)) }
            guard readers[input]?.contains(node.id) ?? false else {
                throw TripsError.data("is not among the consumers of what it reads", found: name(of: input))
            }
        }
        let types = try node.op.infer(node.inputs.map { $0.map(operand) })
        guard types.count == node.outputs.count else {
            throw TripsError.data("number of outputs", found: node.outputs.count, expected: types.count)
        }
        for (output, type) in zip(node.outputs, types) {
            guard defined.insert(output).inserted else {
                throw TripsError.data("a value is computed twice", found: name(of: output))
            }
            let recorded = self.type(of: output)
            guard recorded.dataType == type.dataType, recorded.rank == type.rank,
                zip(recorded.shape, type.shape).allSatisfy({ $0 == $1 || $1.symbols.contains("?") })
            else { throw TripsError.data("type of \(name(of: output))", found: recorded, expected: type) }
        }
    }
}
