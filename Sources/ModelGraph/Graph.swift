import Support
import Tensors

/// An application of an operator.
public struct Node: Sendable {
    /// Names the node in its graph.
    public let id: NodeID
    /// Where it comes from, for messages: the source's node name, or the layer.
    public let name: String
    /// What it computes.
    public internal(set) var op: any Operator
    /// nil: an optional input that is absent.
    public internal(set) var inputs: [ValueID?]
    /// The values that it computes, in the order in which its operator has them.
    public let outputs: [ValueID]

    /// The first output: that of most operators is the only one.
    public var output: ValueID { outputs[0] }

    /// The input at `index`, nil where it is absent.
    public func input(_ index: Int) -> ValueID? { index < inputs.count ? inputs[index] : nil }
}

/// A directed acyclic graph of operators over named values, with constants that are read when they are needed.
///
/// Nodes are added, and values replaced by others; what is then of no use is dropped by `prune()`.
///
/// A value belongs to one graph and its copies. Asking another graph about it traps, or answers for a value of that graph.
public struct Graph: Sendable {
    /// Such as `main`, `encode` or `decode`.
    public let name: String
    /// What the caller gives, in order.
    public internal(set) var inputs: [ValueID] = []
    /// What the graph computes, in order, under the names that the caller knows.
    public private(set) var outputs: [(name: String, value: ValueID)] = []
    /// Intermediates under their canonical names, such as `vision.3`, in order.
    public private(set) var traces: [(name: String, value: ValueID)] = []

    // What follows is for the files of this type alone.
    var values: [ValueRecord] = []
    /// nil where a node was removed.
    var nodeSlots: [Node?] = []
    var names: [String: ValueID] = [:]
    /// By symbol that was made up, the values that mention it in their type or content, or did: each size that becomes known
    /// would otherwise take a search through all values.
    var mentions: [String: Set<ValueID>] = [:]
    /// The last numbers that `freeName` gave, since names were last set free.
    var lastNumbers: [String: Int] = [:]

    struct ValueRecord: Sendable {
        var name: String
        /// The name that was asked for, where a number had to be appended to it.
        var wantedName: String?
        var type: ValueType
        var content: Content?
        var producer: NodeID?
        var consumers: [NodeID] = []
    }

    /// An empty graph.
    package init(name: String) { self.name = name }

    // MARK: Looking

    /// The value's name, unlike that of all other values of the graph.
    public func name(of value: ValueID) -> String { values[value.index].name }

    /// The value's data type and shape.
    public func type(of value: ValueID) -> ValueType { values[value.index].type }

    /// The sizes of the value's axes.
    public func shape(of value: ValueID) -> [Dimension] { values[value.index].type.shape }

    /// What is known of the value before the model runs; nil where nothing is.
    public func content(of value: ValueID) -> Content? { values[value.index].content }

    /// The value as shape rules see it: its type and what is known of it.
    public func operand(_ value: ValueID) -> Operand { Operand(type(of: value), content: content(of: value)) }

    /// The constant that a value is, where it is one.
    public func constant(of value: ValueID) -> Constant? {
        if case .tensor(let constant) = content(of: value) { return constant }
        return nil
    }

    /// The node that computes a value; nil for inputs and constants.
    public func producer(of value: ValueID) -> Node? { values[value.index].producer.flatMap { nodeSlots[$0.index] } }

    /// The nodes that read a value, each once, in the order in which they were added.
    public func consumers(of value: ValueID) -> [Node] { values[value.index].consumers.compactMap { nodeSlots[$0.index] } }

    /// As `consumers(of:)`, of the first `count` readers alone.
    package func consumers(of value: ValueID, atMost count: Int) -> [Node] {
        values[value.index].consumers.prefix(count).compactMap { nodeSlots[$0.index] }
    }

    /// The node, nil where it was removed.
    public func node(_ id: NodeID) -> Node? { id.index < nodeSlots.count ? nodeSlots[id.index] : nil }

    /// The value of this name; nil where the graph has none.
    public func value(named name: String) -> ValueID? { names[name] }

    /// True where the value is one of the graph's outputs.
    public func isOutput(_ value: ValueID) -> Bool { outputs.contains { $0.value == value } }

    /// True where the value has a canonical name.
    public func isTraced(_ value: ValueID) -> Bool { traces.contains { $0.value == value } }

    /// All nodes, in the order in which they were added.
    public var nodes: [Node] { nodeSlots.compactMap { $0 } }

    /// The number of values ever made: the next value's index.
    var valueCount: Int { values.count }

    // MARK: Building

    /// Adds an input. Its name must be free.
    package mutating func addInput(_ name: String, _ type: ValueType) throws -> ValueID {
        let value = try addValue(name, type)
        inputs.append(value)
        return value
    }

    /// Makes an output an input of the same name: whatever reads it reads what is given. A value that had this name gets a number.
    /// - Throws: `usage` where there is no such output.
    package mutating func takeOutput(_ name: String) throws {
        guard let output = outputs.first(where: { $0.name == name })?.value else {
            throw TripsError.usage("no such output", found: name, expected: outputs.map(\.name).joined(separator: ", "))
        }
        if let holder = names[name] {
            let other = freeName(name)
            values[holder.index].name = other
            names[other] = holder
            names[name] = nil
        }
        replace(output, with: try addInput(name, type(of: output)))
    }

    /// Adds a constant; a number is appended to a name that is taken.
    package mutating func addConstant(_ constant: Constant, name: String) throws -> ValueID {
        let type = ValueType(constant.dataType, constant.shape.map { Dimension($0) })
        return try addValue(name, type, content: .tensor(constant), isNumbered: true)
    }

    /// Adds a value that is known, in any of the forms of `Content`.
    package mutating func addKnown(_ content: Content, _ type: ValueType, name: String) throws -> ValueID {
        try addValue(name, type, content: content, isNumbered: true)
    }

    /// Adds a node and the values that it computes; their types come from the operator's shape rule.
    /// - Parameter outputNames: names for the first outputs; nil or missing ones are made from the node's name.
    /// - Throws: what the shape rule throws, with the node's name and operator as the place.
    @discardableResult
    package mutating func add(
        _ op: any Operator, _ inputs: [ValueID?], name: String, outputNames: [String?] = []
    ) throws -> [ValueID] {
        let id = NodeID(nodeSlots.count)
        let types = try inferTypes(op, inputs, name: name)
        var results: [ValueID] = []
        for (index, type) in types.enumerated() {
            let base = index < outputNames.count ? outputNames[index] : nil
            let valueName = base ?? (types.count == 1 ? name : "\(name).\(index)")
            results.append(try addValue(valueName, type, producer: id, isNumbered: true))
        }
        nodeSlots.append(Node(id: id, name: name, op: op, inputs: inputs, outputs: results))
        for input in Set(inputs.compactMap { $0 }) { values[input.index].consumers.append(id) }
        return results
    }

    /// The longest name of a value, in bytes; longer ones are cut.
    package static let maximalNameLength = 1024

    /// A limit for files: no model has as many outputs, or traces.
    static let maximalOutputs = 10_000

    /// Declares an output of the graph. Output names are a namespace of their own.
    /// - Throws: `data` where the name is taken, or there are more than 10000 outputs.
    package mutating func addOutput(_ name: String, _ value: ValueID) throws {
        guard outputs.count < Graph.maximalOutputs else {
            throw TripsError.data(
                "number of outputs", found: "more than \(Graph.maximalOutputs)", expected: "at most \(Graph.maximalOutputs)")
        }
        guard !outputs.contains(where: { $0.name == name }) else {
            throw TripsError.data("two outputs have one name", found: name)
        }
        outputs.append((name, value))
    }

    /// Gives an intermediate its canonical name; a name given before moves to this value.
    package mutating func addTrace(_ name: String, _ value: ValueID) {
        traces.removeAll { $0.name == name }
        traces.append((name, value))
    }

    /// Drops all traces.
    package mutating func removeTraces() { traces = [] }

    /// States the sizes of an input. Types that follow from them are inferred again by `inferAgain`.
    package mutating func setShape(of input: ValueID, _ shape: [Dimension]) {
        values[input.index].type.shape = shape
        noteMentions(in: input)
    }

    /// States what a value holds, so that nothing has to compute it.
    package mutating func setContent(_ content: Content, of value: ValueID) {
        values[value.index].content = content
        if case .tensor(let constant) = content {
            values[value.index].type = ValueType(constant.dataType, constant.shape.map { Dimension($0) })
        }
        noteMentions(in: value)
    }

    // MARK: Changing

    /// Makes everything that reads `old`, outputs and traces too, read `new` instead.
    package mutating func replace(_ old: ValueID, with new: ValueID, except kept: Set<NodeID> = []) {
        guard old != new else { return }
        let moving = values[old.index].consumers.filter { !kept.contains($0) }
        for id in moving {
            guard var node = nodeSlots[id.index] else { continue }
            node.inputs = node.inputs.map { $0 == old ? new : $0 }
            nodeSlots[id.index] = node
            if !values[new.index].consumers.contains(id) { values[new.index].consumers.append(id) }
        }
        values[old.index].consumers.removeAll { !kept.contains($0) }
        for index in outputs.indices where outputs[index].value == old { outputs[index].value = new }
        for index in traces.indices where traces[index].value == old { traces[index].value = new }
    }

    /// Gives a node other inputs. The types of its outputs stay as they were until `inferAgain`.
    /// - Throws: what the shape rule throws.
    package mutating func setInputs(of id: NodeID, _ inputs: [ValueID?]) throws {
        guard var node = nodeSlots[id.index] else { return }
        _ = try inferTypes(node.op, inputs, name: node.name)
        for input in Set(node.inputs.compactMap { $0 }) { values[input.index].consumers.removeAll { $0 == id } }
        node.inputs = inputs
        nodeSlots[id.index] = node
        for input in Set(inputs.compactMap { $0 }) { values[input.index].consumers.append(id) }
    }

    /// Gives a node another operator. The types of its outputs stay as they were until `inferAgain`.
    package mutating func setOperator(of id: NodeID, _ op: any Operator) { nodeSlots[id.index]?.op = op }

    /// Keeps only the outputs with these names, in this order.
    /// - Throws: `usage` where one does not exist.
    package mutating func selectOutputs(_ names: [String]) throws {
        outputs = try names.map { name in
            guard let output = outputs.first(where: { $0.name == name }) else {
                throw TripsError.usage("no such output", found: name, expected: outputs.map(\.name).joined(separator: ", "))
            }
            return output
        }
    }

    private mutating func addValue(
        _ wantedName: String, _ type: ValueType, content: Content? = nil, producer: NodeID? = nil, isNumbered: Bool = false
    ) throws -> ValueID {
        try checkType(type)
        let id = ValueID(values.count)
        let wantedName = isNumbered ? Graph.shortened(wantedName) : wantedName
        let name = isNumbered ? freeName(wantedName) : wantedName
        guard names.updateValue(id, forKey: name) == nil else { throw TripsError.data("two values have one name", found: name) }
        let named = producer == nil ? type : naming(type, after: name)
        values.append(
            ValueRecord(
                name: name, wantedName: name == wantedName ? nil : wantedName, type: named, content: content, producer: producer))
        noteMentions(in: id)
        return id
    }

    /// Symbols repeat the name of their value, once for each axis.
    private static func shortened(_ name: String) -> String {
        name.utf8.count <= maximalNameLength ? name : String(decoding: name.utf8.prefix(maximalNameLength), as: UTF8.self)
    }

    private mutating func freeName(_ base: String) -> String {
        if names[base] == nil { return base }
        var number = lastNumbers[base] ?? 0
        repeat { number += 1 } while names["\(base).\(number)"] != nil
        lastNumbers[base] = number
        return "\(base).\(number)"
    }
}
