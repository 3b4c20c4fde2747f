import ModelGraph
import Support
import Tensors

extension Graph {
    /// True where inputs leave open another size than the batch: the length of a text.
    package var hasOpenLength: Bool {
        !exampleSymbols.isSubset(of: batchSymbols)
    }

    /// Symbols in the inputs' shapes, but for the height and width of a picture: no size of it is usual.
    private var exampleSymbols: Set<String> {
        Set(inputs.flatMap { input in shape(of: input).prefix(type(of: input).rank == 4 ? 2 : .max).flatMap(\.symbols) })
            .filter { !$0.hasPrefix("?") }
    }

    /// The same graph with the open sizes that the package's other graphs determine, such as a decoder's number of image tokens.
    package func fed(by graphs: [Graph]) throws -> Graph {
        var known: [String: Dimension] = [:]
        for input in inputs {
            for other in graphs where other.name != name {
                guard let output = other.outputs.first(where: { $0.name == name(of: input) })?.value else { continue }
                for (own, given) in zip(shape(of: input), other.shape(of: output)) where given.madeUpSymbols.isEmpty {
                    if let symbol = own.symbols.first, own == Dimension(symbol: symbol) { known[symbol] = given }
                }
            }
        }
        var graph = self
        try graph.bind(known)
        return graph
    }

    /// What one example costs, with the longest usual text that the model takes, and its length; nil where sizes stay unknown.
    package func exampleCost() throws -> (multiplyAccumulates: Int, textLength: Int)? {
        for length in [40, 30, 20, 12, 8, 4] {
            if let count = try multiplyAccumulates(textLength: length) { return (count, length) }
        }
        return nil
    }

    /// Multiply-accumulate operations of one example with a text; nil where sizes stay unknown, or do not suit the model.
    package func multiplyAccumulates(textLength: Int) throws -> Int? {
        let batch = batchSymbols
        let bindings = exampleSymbols.map { ($0, batch.contains($0) ? 1 : textLength) }
        var bound = self
        do {
            try bound.bind(Dictionary(uniqueKeysWithValues: bindings))
            return try bound.multiplyAccumulates().constant
        } catch is TripsError {
            return nil
        }
    }
}
