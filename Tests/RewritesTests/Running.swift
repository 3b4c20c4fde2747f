import Goldens
import Importers
import ModelGraph
import Rewrites
import Tensors
import TestSupport
import Testing

/// A graph bound to its inputs' sizes, and the numbers of all its values.
///
/// - Parameter folding: tell sizes that only folding can tell.
func run(_ graph: Graph, _ inputs: [String: Tensor], folding: Bool = true) throws -> (graph: Graph, numbers: [ValueID: Tensor]) {
    var bound = graph
    var symbols: [String: Int] = [:]
    for input in graph.inputs {
        guard let tensor = inputs[graph.name(of: input)] else { continue }
        for (dimension, size) in zip(graph.shape(of: input), tensor.shape) where dimension.constant == nil {
            symbols[dimension.description] = size
        }
    }
    try bound.bind(symbols)
    if folding { try bound.fold(lookups: true) }
    return (bound, try bound.evaluated(inputs))
}

/// The outputs by name.
func outputs(_ graph: Graph, _ inputs: [String: Tensor], folding: Bool = true) throws -> [String: Tensor] {
    let (graph, numbers) = try run(graph, inputs, folding: folding)
    return Dictionary(uniqueKeysWithValues: graph.outputs.compactMap { output in numbers[output.value].map { (output.name, $0) } })
}

/// The traced intermediates by name.
func intermediates(_ graph: Graph, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
    let (graph, numbers) = try run(graph, inputs)
    return Dictionary(uniqueKeysWithValues: graph.traces.compactMap { trace in numbers[trace.value].map { (trace.name, $0) } })
}

/// By how much the worst element lies beyond `absolute` + `relative` · |expected|; infinity where shapes or types differ, or NaN
/// stands on one side alone.
func excess(_ x: Tensor?, _ expected: Tensor?, _ absolute: Double, _ relative: Double) throws -> Double {
    guard let x, let expected, x.shape == expected.shape, x.dataType == expected.dataType else { return .infinity }
    let pairs = try zip(x.numbers(), expected.numbers())
    return pairs.reduce(-absolute) { worst, pair in
        if pair.0 == pair.1 || pair.0.isNaN && pair.1.isNaN { return worst }
        let beyond = abs(pair.0 - pair.1) - absolute - relative * abs(pair.1)
        return beyond.isNaN ? .infinity : max(worst, beyond)
    }
}

func golden(_ path: String) throws -> GoldenSet {
    try #require(GoldenReference.references(at: path).first).load()
}

/// A model as `fold` and `fuse` leave it, checked after each rewrite.
func blocks(_ path: String) throws -> [Graph] {
    var graphs = try path.hasSuffix(".onnx") ? importONNX(path: path).graphs : importCheckpoint(path: path).graphs
    for index in graphs.indices {
        try graphs[index].fold()
        try graphs[index].fuse()
        try graphs[index].nameIntermediates()
        try graphs[index].validate()
    }
    return graphs
}

/// Where the structures of two graphs first differ.
func firstDifference(_ left: Graph, _ right: Graph) -> String? {
    let (left, right) = (left.structure.split(separator: "\n"), right.structure.split(separator: "\n"))
    if let pair = zip(left, right).first(where: { $0 != $1 }) { return "\(pair.0) / \(pair.1)" }
    return left.count == right.count ? nil : "\(left.count) / \(right.count) lines"
}
