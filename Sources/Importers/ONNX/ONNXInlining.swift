import Support

/// Replaces calls of functions that the model defines by the functions' nodes, and gives every node the version of its
/// operator set.
struct ONNXInliner {
    private static let maximalDepth = 32
    /// What inlining may make, in nodes and in bytes of what they hold: functions that call functions grow a model exponentially.
    private static let maximalNodes = 100_000
    private static let maximalBytes = 64 << 20

    private struct Key: Hashable {
        var domain: String
        var name: String
        var overload: String
    }

    private let functions: [Key: ONNXFunction]
    private var taken: UniqueNames
    private var nodes: [ONNXNode] = []
    private var inlinedNodes = 0
    private var inlinedBytes = 0

    /// The graph's nodes without calls.
    /// - Throws: `data` where functions are defined twice, call themselves, or grow too large, and where there are more nodes than
    ///   any model has.
    static func inlined(_ model: ONNXModel) throws -> [ONNXNode] {
        guard model.graph.nodes.count <= maximalNodes else {
            throw TripsError.data("number of nodes", found: model.graph.nodes.count, expected: "at most \(maximalNodes)")
        }
        var inliner = try ONNXInliner(model)
        try inliner.append(model.graph.nodes, versions: model.operatorSets, calls: [])
        return inliner.nodes
    }

    private init(_ model: ONNXModel) throws {
        var functions: [Key: ONNXFunction] = [:]
        for function in model.functions {
            let key = Key(domain: function.domain, name: function.name, overload: function.overload)
            guard functions.updateValue(function, forKey: key) == nil else {
                throw TripsError.data("a function is defined twice", found: "\(function.domain).\(function.name)")
            }
        }
        self.functions = functions
        let given = model.graph.inputs.map(\.name) + model.graph.initializers.map(\.name)
        taken = UniqueNames(separator: "#", taken: given + model.graph.nodes.flatMap(\.outputs))
    }

    private mutating func append(_ added: [ONNXNode], versions: [String: Int], calls: [Key]) throws {
        for var node in added {
            let key = Key(domain: node.domain, name: node.type, overload: node.overload)
            if let function = functions[key] {
                guard !calls.contains(key), calls.count < ONNXInliner.maximalDepth else {
                    throw TripsError.data(
                        calls.contains(key) ? "a function calls itself" : "functions call each other too deeply",
                        at: "node \"\(node.label)\"", found: node.qualifiedType)
                }
                try append(try body(of: function, for: node), versions: function.operatorSets, calls: calls + [key])
            } else {
                node.version = versions[node.domain] ?? 0
                nodes.append(node)
            }
        }
    }

    /// The function's nodes with the call's values and attributes in place.
    private mutating func body(of function: ONNXFunction, for call: ONNXNode) throws -> [ONNXNode] {
        guard call.inputs.count <= function.inputs.count, call.outputs.count <= function.outputs.count else {
            throw TripsError.data(
                "a call does not suit its function", at: "node \"\(call.label)\"",
                found: "\(call.inputs.count) inputs, \(call.outputs.count) outputs",
                expected: "at most \(function.inputs.count) and \(function.outputs.count)")
        }
        try count(function, calledBy: call)
        var (actual, copies) = names(of: function, in: call)
        // Outputs first: nodes may be listed in any order.
        for output in function.nodes.flatMap(\.outputs) where actual[output] == nil {
            actual[output] = taken.unique("\(call.label)/\(output)")
        }
        var attributes: [String: ONNXAttribute] = [:]
        for attribute in function.defaults + call.attributes { attributes[attribute.name] = attribute }
        return try copies
            + function.nodes.map { node in
                var renamed = try locating(function.name) { try node.renamed(actual, attributes) }
                renamed.name = "\(call.label)/\(node.label)"
                return renamed
            }
    }

    /// The call's names for the function's inputs and outputs, and the nodes for outputs that are inputs handed through.
    private func names(of function: ONNXFunction, in call: ONNXNode) -> (actual: [String: String], copies: [ONNXNode]) {
        var actual: [String: String] = ["": ""]
        for (index, formal) in function.inputs.enumerated() {
            actual[formal] = index < call.inputs.count ? call.inputs[index] : ""
        }
        var copies: [ONNXNode] = []
        for (formal, output) in zip(function.outputs, call.outputs) where !output.isEmpty {
            guard let input = actual[formal] else {
                actual[formal] = output
                continue
            }
            copies.append(
                ONNXNode(
                    name: "\(call.label)/\(formal)", type: "Identity", domain: "", overload: "", inputs: [input],
                    outputs: [output], attributes: []))
        }
        return (actual, copies)
    }

    /// Counts the nodes and bytes that a call adds.
    private mutating func count(_ function: ONNXFunction, calledBy call: ONNXNode) throws {
        inlinedNodes += function.nodes.count
        let label = call.label.utf8.count
        var held = function.inputs.count + function.outputs.count + function.defaults.count + call.attributes.count
        for node in function.nodes {
            held += node.inputs.count + node.outputs.count + node.attributes.count
            inlinedBytes += label + node.label.utf8.count + node.outputs.reduce(0) { $0 + label + $1.utf8.count }
        }
        inlinedBytes += held * MemoryLayout<String>.stride
        guard inlinedNodes <= ONNXInliner.maximalNodes, inlinedBytes <= ONNXInliner.maximalBytes else {
            throw TripsError.data(
                "the model's functions make too many nodes", at: "node \"\(call.label.prefix(200))\"",
                found: "more than \(inlinedNodes - function.nodes.count)")
        }
    }
}

extension ONNXNode {
    /// A function's node with a call's values and attributes in place.
    fileprivate func renamed(_ actual: [String: String], _ attributes: [String: ONNXAttribute]) throws -> ONNXNode {
        var node = self
        node.inputs = try inputs.map { input in
            guard let name = actual[input] else {
                throw TripsError.data("a function reads a value that nothing defines", found: input)
            }
            return name
        }
        node.outputs = outputs.map { actual[$0] ?? $0 }
        node.attributes = self.attributes.compactMap { attribute in
            guard case .reference(let name) = attribute.value else { return attribute }
            return attributes[name].map { ONNXAttribute(name: attribute.name, value: $0.value) }
        }
        return node
    }
}
