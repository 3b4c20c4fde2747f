import ModelGraph
import Support
import Tensors

/// Builds the graph of an ONNX model: names become values, nodes become primitive operators.
final class ONNXGraphBuilder {
    let source: ONNXGraph
    let tensors: ONNXTensorReader
    var graph = Graph(name: "main")
    private var values: [String: ValueID] = [:]
    /// Initializers that nothing has read yet.
    private var initializers: [String: ONNXTensor] = [:]

    /// - Throws: `data` where names of inputs or initializers are missing or given twice.
    init(_ source: ONNXGraph, tensors: ONNXTensorReader) throws {
        self.source = source
        self.tensors = tensors
        for tensor in source.initializers {
            guard !tensor.name.isEmpty else { throw TripsError.data("an initializer has no name") }
            guard initializers.updateValue(tensor, forKey: tensor.name) == nil else {
                throw TripsError.data("two initializers have one name", found: tensor.name)
            }
        }
    }

    /// - Parameter nodes: the graph's nodes, functions inlined, all of known operators, each after those that it reads.
    func build(_ nodes: [ONNXNode]) throws -> Graph {
        try addInputs()
        for node in nodes {
            try locating("node \"\(node.label.prefix(200))\" (\(node.type))") { try add(node) }
        }
        guard !source.outputs.isEmpty else { throw TripsError.data("the graph has no outputs") }
        for output in source.outputs {
            guard let value = try value(output.name) else {
                throw TripsError.data("an output that nothing computes", found: "\"\(output.name)\"")
            }
            try graph.addOutput(output.name, value)
        }
        graph.prune()
        return graph
    }

    // MARK: Values

    /// The value with a name of the file; nil for the empty name.
    func value(_ name: String) throws -> ValueID? {
        if name.isEmpty { return nil }
        if let value = values[name] { return value }
        guard let tensor = initializers[name] else {
            throw TripsError.data("reads a value that nothing defines", found: "\"\(name)\"")
        }
        let value = try graph.addConstant(tensors.constant(tensor), name: name)
        values[name] = value
        return value
    }

    private func addInputs() throws {
        var symbols = SymbolNames()
        var seen = Set<String>()
        for input in source.inputs {
            guard !input.name.isEmpty, seen.insert(input.name).inserted else {
                throw TripsError.data("two inputs have one name, or one has none", found: "\"\(input.name)\"")
            }
            // A default for an input counts as a constant: it is how older files declare their weights.
            guard initializers[input.name] == nil else { continue }
            guard input.name.utf8.count <= Graph.maximalNameLength, input.shape?.count ?? 0 <= Graph.maximalRank else {
                throw TripsError.data(
                    "an input out of proportion", at: "input \"\(input.name.prefix(200))\"",
                    found: "a name of \(input.name.utf8.count) bytes, rank \(input.shape?.count ?? 0)",
                    expected: "at most \(Graph.maximalNameLength) and \(Graph.maximalRank)")
            }
            values[input.name] = try locating("input \"\(input.name)\"") {
                try graph.addInput(input.name, type(of: input, &symbols))
            }
        }
    }

    private func type(of input: ONNXValue, _ symbols: inout SymbolNames) throws -> ValueType {
        guard let elementType = input.elementType, let shape = input.shape else {
            throw TripsError.data(
                "type of an input", found: input.elementType == nil ? "no tensor type" : "no shape",
                expected: "element type and rank")
        }
        return ValueType(
            try DataType(onnx: elementType),
            try shape.enumerated().map { axis, size in
                switch size {
                case .constant(let number):
                    guard number >= 0 else { throw TripsError.data("size of axis \(axis)", found: number, expected: "0 or more") }
                    return Dimension(number)
                case .symbol(let name): return Dimension(symbol: symbols.symbol(for: name))
                case .unknown: return Dimension(symbol: symbols.symbol(for: "\(input.name).\(axis)"))
                }
            })
    }

    // MARK: Nodes

    private func add(_ node: ONNXNode) throws {
        guard let rule = ONNXRules.rule(for: node) else { throw TripsError.data("unknown operator", found: node.type) }
        let call = try ONNXCall(node, inputs: try node.inputs.map { try value($0) }, builder: self)
        let results = try rule.build(call)
        try call.checkAttributes()
        for (index, name) in node.outputs.enumerated() where !name.isEmpty {
            guard index < results.count else {
                throw TripsError.data("number of outputs", found: node.outputs.count, expected: "at most \(results.count)")
            }
            values[name] = results[index]
        }
    }

    func add(_ op: any Operator, _ operands: [ValueID?], name: String, outputNames: [String?] = []) throws -> [ValueID] {
        let results = try graph.add(op, operands, name: name, outputNames: outputNames)
        if let node = results.first.flatMap(graph.producer(of:)) { try graph.propagateSizes(through: node) }
        return results
    }
}

/// Symbols for the sizes that a file names in its own ways.
private struct SymbolNames {
    private var symbols: [String: String] = [:]
    private var unique = UniqueNames(separator: "_")

    /// The symbol for a name; different names get different symbols.
    mutating func symbol(for name: String) -> String {
        if let known = symbols[name] { return known }
        var base = String(name.prefix(100).map { $0.isASCII && ($0.isLetter || $0.isNumber || "_./".contains($0)) ? $0 : "_" })
        // "//" in a symbol means a quotient.
        base.replace("//", with: "__")
        if !(base.first?.isLetter ?? false) { base = "_" + base }
        let symbol = unique.unique(base)
        symbols[name] = symbol
        return symbol
    }
}
