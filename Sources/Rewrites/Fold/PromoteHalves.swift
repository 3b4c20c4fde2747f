import ModelGraph
import Support
import Tensors

extension Graph {
    /// Makes a graph of 16-bit floating point compute in float32. Weights stay narrow where they lie and are widened when
    /// they are loaded; inputs and outputs keep their types. The results are at least as exact as the source's.
    /// - Returns: how many nodes were widened.
    mutating func promoteHalves() throws -> Int {
        let halves = nodes.count { node in node.outputs.contains { type(of: $0).dataType.isHalf } }
        guard halves > 0 || inputs.contains(where: { type(of: $0).dataType.isHalf }) else { return 0 }
        var widening = Widening(self)
        try widening.addInputs()
        for node in try topologicalOrder() where !node.outputs.allSatisfy({ content(of: $0) != nil }) { try widening.add(node) }
        try widening.addOutputs()
        self = widening.wide
        return halves
    }
}

/// A graph of which each value gets a twin in another graph, float32 where it is a half.
private struct Widening {
    private let narrow: Graph
    private(set) var wide: Graph
    private var twins: [ValueID: ValueID] = [:]

    init(_ graph: Graph) {
        narrow = graph
        wide = Graph(name: graph.name)
    }

    mutating func addInputs() throws {
        for input in narrow.inputs {
            let (name, type) = (narrow.name(of: input), narrow.type(of: input))
            let twin = try wide.addInput(name, type)
            twins[input] = try type.dataType.isHalf ? wide.add(Cast(to: .float32), [twin], name: "\(name).wide")[0] : twin
        }
    }

    mutating func add(_ node: Node) throws {
        let op: any Operator = (node.op as? Cast).map { Cast(to: $0.to.isHalf ? .float32 : $0.to) } ?? node.op
        let inputs = try node.inputs.map { try $0.map { try twin(of: $0) } }
        let outputs = try wide.add(op, inputs, name: node.name, outputNames: node.outputs.map(narrow.name(of:)))
        for (output, twin) in zip(node.outputs, outputs) { twins[output] = twin }
    }

    mutating func addOutputs() throws {
        for (name, value) in narrow.outputs {
            let (twin, type) = (try twin(of: value), narrow.type(of: value).dataType)
            try wide.addOutput(name, type.isHalf ? wide.add(Cast(to: type), [twin], name: "\(name).narrow")[0] : twin)
        }
        for (name, value) in narrow.traces { wide.addTrace(name, try twin(of: value)) }
    }

    /// The twin of a value that is computed before; a known one gets it now.
    private mutating func twin(of value: ValueID) throws -> ValueID {
        if let twin = twins[value] { return twin }
        let name = narrow.name(of: value)
        guard let content = narrow.content(of: value) else {
            throw TripsError.data("a value is read before it is computed", found: name)
        }
        var type = narrow.type(of: value)
        if type.dataType.isHalf { type.dataType = .float32 }
        let twin =
            switch content {
            case .tensor(let constant): try wide.addConstant(constant.converted(to: type.dataType), name: name)
            case .splat(let scalar): try wide.addKnown(.splat(scalar.converted(to: type.dataType)), type, name: name)
            case .dimensions: try wide.addKnown(content, type, name: name)
            }
        twins[value] = twin
        return twin
    }
}
