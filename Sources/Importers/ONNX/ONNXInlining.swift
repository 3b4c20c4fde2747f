import Support

/// Replaces calls of functions that the model defines by the functions' nodes, and gives every node the version of its
/// operator set.
struct ONNXInliner {
    private static let maximalDepth = 32
    /// What inlining may make, in nodes and in bytes of names: functions that call functions grow a model exponentially.
    private static let maximalNodes = 100_000
    private static let maximalNames = 64 << 20

    private struct Key: Hashable {
        var domain: String
        var name: String
        var overload: String
    }

    private let functions: [Key: ONNXFunction]
    private var names: Set<String>
    private var nodes: [ONNXNode] = []
    private var inlinedNodes = 0
    private var inlinedNames = 0

    /// The graph's nodes without calls.
    /// - Throws: `data` where functions are defined twice, call themselves, or grow too large.
    static func inlined(_ model: ONNXModel) throws -> [ONNXNode] {
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
        names = Set(model.graph.nodes.flatMap(\.outputs) + model.graph.inputs.map(\.name) + model.graph.initializers.map(\.name))
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
        var attributes: [String: ONNXAttribute] = [:]
        for attribute in function.defaults + call.attributes { attributes[attribute.name] = attribute }
        var actual: [String: String] = ["": ""]
        for (index, formal) in function.inputs.enumerated() {
            actual[formal] = index < call.inputs.count ? call.inputs[index] : ""
        }
        var copies: [ONNXNode] = []
        for (formal, output) in zip(function.outputs, call.outputs) where !output.isEmpty {
            if let input = actual[formal] {
                copies.append(
                    ONNXNode(
                        name: "\(call.label)/\(formal)", type: "Identity", domain: "", overload: "", inputs: [input],
                        outputs: [output],
                        attributes: []))
            } else {
                actual[formal] = output
            }
        }
        // Outputs first: nodes may stand in any order.
        for output in function.nodes.flatMap(\.outputs) where actual[output] == nil {
            actual[output] = freshName("\(call.label)/\(output)")
        }
        try count(function, calledBy: call.label)
        return try copies
            + function.nodes.map { node in
                var node = node
                node.name = "\(call.label)/\(node.label)"
                node.inputs = try node.inputs.map { input in
                    guard let name = actual[input] else {
                        throw TripsError.data("a function reads a value that nothing defines", at: function.name, found: input)
                    }
                    return name
                }
                node.outputs = node.outputs.map { actual[$0] ?? $0 }
                node.attributes = node.attributes.compactMap { attribute in
                    guard case .reference(let name) = attribute.value else { return attribute }
                    return attributes[name].map { ONNXAttribute(name: attribute.name, value: $0.value) }
                }
                return node
            }
    }

    /// Adds what a call makes to what all calls have made.
    private mutating func count(_ function: ONNXFunction, calledBy label: String) throws {
        inlinedNodes += function.nodes.count
        for node in function.nodes {
            inlinedNames += 2 * label.utf8.count + node.label.utf8.count + node.outputs.reduce(0) { $0 + $1.utf8.count }
        }
        guard inlinedNodes <= ONNXInliner.maximalNodes, inlinedNames <= ONNXInliner.maximalNames else {
            throw TripsError.data("the model's functions make too many nodes", found: "more than \(inlinedNodes - 1)")
        }
    }

    private mutating func freshName(_ base: String) -> String {
        var (name, number) = (base, 1)
        while !names.insert(name).inserted {
            number += 1
            name = "\(base)#\(number)"
        }
        return name
    }
}
