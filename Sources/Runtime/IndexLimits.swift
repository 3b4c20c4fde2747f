import ModelGraph
import Support
import Tensors

/// An input whose numbers are indices into a table, such as ids in a vocabulary.
struct IndexLimit {
    let input: ValueID
    /// Rows of the table.
    let size: Int
}

extension Graph {
    /// The inputs that are read as indices, with the number of rows. They are checked before a run: the operators find a wrong index
    /// as well, but know neither the input's name nor, where a batch is run in parts, the index's position in it.
    func indexLimits() -> [IndexLimit] {
        nodes.compactMap { node in
            guard let lookup = lookup(node), let table = lookup.table, let indices = lookup.indices.map(origin(ofIntegers:)),
                inputs.contains(indices), let axis = try? resolveAxis(lookup.axis, rank: type(of: table).rank),
                let size = shape(of: table)[axis].constant
            else { return nil }
            return IndexLimit(input: indices, size: size)
        }
    }

    /// The table, its axis and the indices of an operator that looks up rows.
    func lookup(_ node: Node) -> (table: ValueID?, axis: Int, indices: ValueID?)? {
        switch node.op {
        case is Embedding, is QuantizedEmbedding: (node.input(1), 0, node.input(0))
        case let gather as Gather: (node.input(0), gather.axis, node.input(1))
        default: nil
        }
    }

    /// The first value that holds the same integers in the same order.
    private func origin(ofIntegers value: ValueID) -> ValueID {
        var current = value
        while let node = producer(of: current), node.op.isReshape || node.op is Cast, let source = node.input(0),
            type(of: source).dataType.isInteger, type(of: source).dataType.isExact(in: type(of: current).dataType)
        {
            current = source
        }
        return current
    }
}

extension IndexLimit {
    /// - Throws: `usage` where a number is out of range; negative ones count from the end.
    func check(_ tensor: Tensor, name: String) throws {
        let numbers = try tensor.integers()
        guard let place = numbers.firstIndex(where: { $0 < -size || $0 >= size }) else { return }
        throw TripsError.usage(
            "element \(coordinates(of: place, in: tensor.shape)) of input \(name)", found: numbers[place],
            expected: "-\(size) ..< \(size)")
    }
}
