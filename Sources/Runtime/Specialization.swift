import ModelGraph
import Rewrites
import Support
import Tensors

extension Graph {
    /// The graph for inputs of these shapes: symbols are replaced by numbers, and what became constant is folded.
    /// - Parameters:
    ///   - shapes: of all inputs.
    ///   - known: inputs that are taken as constants.
    /// - Throws: `usage` where the shapes are not those of the inputs; `data` where operators cannot take them.
    package func specialized(to shapes: [String: [Int]], knowing known: [String: Tensor] = [:]) throws -> Graph {
        try bound(to: shapes, knowing: known).specialized()
    }

    /// As `specialized`, for shapes that a caller states: where operators cannot take them, the request is at fault.
    /// - Throws: `usage` where the shapes do not suit the graph.
    func specialized(toGiven shapes: [String: [Int]]) throws -> Graph {
        let bound: Graph
        do {
            bound = try self.bound(to: shapes)
        } catch let error as TripsError where error.kind == .data {
            throw error.asKind(.usage)
        }
        return try bound.specialized()
    }

    /// The error for the first input without elements; nil where there is none.
    func refusalOfEmptyInputs(_ shapes: [String: [Int]]) -> TripsError? {
        for input in inputs {
            guard let shape = shapes[name(of: input)], shape.contains(0) else { continue }
            return .usage("input \(name(of: input)) is empty", found: "\(shape)", expected: type(of: input))
        }
        return nil
    }

    /// With numbers for the inputs' symbols.
    private func bound(to shapes: [String: [Int]], knowing known: [String: Tensor] = [:]) throws -> Graph {
        var graph = self
        for input in inputs {
            let name = name(of: input)
            if let tensor = known[name] { graph.setContent(.tensor(Constant(tensor, identity: "input \(name)")), of: input) }
        }
        for input in inputs { try graph.checkShape(of: input, shapes) { $0.rank == $1.count } }
        // Inputs that are taken as constants have lost the symbols that other values share with them.
        try graph.bind(symbols(for: shapes))
        for input in inputs { try graph.checkShape(of: input, shapes) { $0.constantShape == $1 } }
        return graph
    }

    /// With what its sizes make constant folded.
    private func specialized() throws -> Graph {
        var graph = self
        try graph.fold(lookups: true)
        graph.prune()
        return graph
    }

    private func checkShape(of input: ValueID, _ shapes: [String: [Int]], suits: (ValueType, [Int]) -> Bool) throws {
        guard let shape = shapes[name(of: input)] else { throw TripsError.usage("an input is missing", found: name(of: input)) }
        guard suits(type(of: input), shape) else {
            throw TripsError.usage("shape of input \(name(of: input))", found: "\(shape)", expected: type(of: input))
        }
    }

    /// The values of the symbols in the inputs' types, for inputs of these shapes.
    package func symbols(for shapes: [String: [Int]]) -> [String: Int] {
        var symbols: [String: Int] = [:]
        for input in inputs {
            for (size, dimension) in zip(shapes[name(of: input)] ?? [], shape(of: input)) {
                guard let symbol = dimension.symbols.first, dimension == Dimension(symbol: symbol) else { continue }
                symbols[symbol] = symbols[symbol] ?? size
            }
        }
        return symbols
    }

    /// Elements up to which an input may state sizes by its numbers.
    package static let smallInput = 64

    /// The first value of a specialized graph in which a size is left open: it depends on the numbers of inputs. nil where there is
    /// none.
    var openValue: ValueID? {
        let values = nodes.lazy.flatMap { node in node.inputs.compactMap { $0 } + node.outputs }
        return values.first(where: isOpen) ?? outputs.map(\.value).first(where: isOpen)
    }

    func place(of value: ValueID) -> String { producer(of: value)?.name ?? name(of: value) }

    private func isOpen(_ value: ValueID) -> Bool {
        if case .dimensions(let sizes) = content(of: value), sizes.contains(where: { $0.constant == nil }) { return true }
        return type(of: value).constantShape == nil
    }

    /// Checks that memory for a specialized graph can be laid out.
    /// - Throws: `data` where a size is left open, or a value is larger than the machine's memory.
    package func checkSizes() throws {
        if let open = openValue {
            throw TripsError.data(
                "a size depends on the inputs' numbers", at: place(of: open), found: type(of: open),
                expected: "sizes that follow from shapes, or from inputs of at most \(Graph.smallInput) elements")
        }
        for value in nodes.flatMap({ node in node.inputs.compactMap { $0 } + node.outputs }) {
            if let shape = type(of: value).constantShape { try AlignedMemory.check(byteCount(of: type(of: value).dataType, shape)) }
        }
    }
}
