import ModelGraph
import Operators
import PackageFormat
import Runtime
import Support
import Tensors

/// One run on random tokens, of what depends on tokens alone.
///
/// Random tokens give a text encoder's channels about the ranges that real ones do, so such a run shows them without anyone's
/// data. (Noise in place of a picture does not: there `normStatistics` is the better estimate.) Weights are loaded node by
/// node and dropped again: the pass needs little memory.
enum SyntheticPass {
    /// Tokens of the made-up text.
    private static let textLength = 32

    /// - Parameter visit: is called with each output, as soon as it is there, and its name.
    /// - Throws: what an operator throws.
    static func run(_ graphs: [Graph], visit: (String, Tensor) throws -> Void) throws {
        let model = Model(graphs: graphs)
        var known = try Session(model, threads: 1).syntheticInputs(batch: 1, length: textLength)
        for graph in graphs {
            for (name, tensor) in try run(graph, known, visit) where known[name] == nil { known[name] = tensor }
        }
    }

    private static func run(
        _ graph: Graph, _ known: [String: Tensor], _ visit: (String, Tensor) throws -> Void
    ) throws -> [String: Tensor] {
        var graph = graph
        // Sizes of a picture may be all that is needed of it: a query of its pooling is repeated for each.
        try graph.bind(graph.symbols(for: known.mapValues(\.shape)))
        let fromTokens = graph.outputs.filter { output in
            graph.inputs(behind: [output.value]).allSatisfy { !graph.type(of: $0).dataType.isFloatingPoint }
        }
        graph = try graph.reduced(to: fromTokens.map(\.name))
        let inputs = graph.inputs.compactMap { value in known[graph.name(of: value)].map { (graph.name(of: value), $0) } }
        guard inputs.count == graph.inputs.count else { return [:] }
        graph = try graph.specialized(to: Dictionary(uniqueKeysWithValues: inputs).mapValues(\.shape))
        try graph.checkSizes()
        var values: [ValueID: Tensor] = [:]
        for value in graph.inputs { values[value] = known[graph.name(of: value)] }
        var results: [String: Tensor] = [:]
        let order = try graph.topologicalOrder()
        var uses: [ValueID: Int] = [:]
        for node in order { for case let input? in node.inputs { uses[input, default: 0] += 1 } }
        let names = Dictionary(grouping: graph.outputs, by: \.value).mapValues { $0.map(\.name) }
        for node in order {
            let operands = try node.inputs.map { input in try input.map { try values[$0] ?? constant($0, in: graph) } }
            for (output, tensor) in zip(node.outputs, try evaluate(node.op, operands)) {
                values[output] = tensor
                for name in names[output] ?? [] {
                    try visit(name, tensor)
                    results[name] = tensor
                }
            }
            for case let input? in node.inputs {
                uses[input, default: 0] -= 1
                if uses[input] == 0 { values[input] = nil }
            }
        }
        return results
    }

    private static func constant(_ value: ValueID, in graph: Graph) throws -> Tensor {
        guard let tensor = try graph.operand(value).tensor() else {
            throw TripsError.data("a value is read before it is computed", found: graph.name(of: value))
        }
        return tensor
    }
}
