import Support
import Tensors

/// An application of an operator.
public struct Node: Sendable {
    public let id: NodeID
    /// Where it comes from, for messages: the source's node name, or the layer.
    public let name: String
    public let op: any Operator
    /// nil stands for an optional input that is absent.
    public fileprivate(set) var inputs: [ValueID?]
    public let outputs: [ValueID]

    /// The first output: that of most operators is the only one.
    public var output: ValueID { outputs[0] }

    /// The input at `index`, nil where it is absent.
    public func input(_ index: Int) -> ValueID? { index < inputs.count ? inputs[index] : nil }
}

/// A directed acyclic graph of operators over named values, with constants that are read when they are needed.
///
/// Nodes are added, and values replaced by others; what is then of no use is dropped by `prune()`.
public struct Graph: Sendable {
    public let name: String
    /// What the caller gives, in order.
    public private(set) var inputs: [ValueID] = []
    /// What the graph computes, in order, under the names that the caller knows.
    public private(set) var outputs: [(name: String, value: ValueID)] = []
    /// Intermediates under their canonical names, such as `vision.3`, in order.
    public private(set) var traces: [(name: String, value: ValueID)] = []

    private var values: [ValueRecord] = []
    private var nodeSlots: [Node?] = []
    private var names: [String: ValueID] = [:]

    private struct ValueRecord: Sendable {
        var name: String
        /// The name without the number that tells it from others.
        var wantedName: String?
        var type: ValueType
        var content: Content?
        var producer: NodeID?
        var consumers: [NodeID] = []
    }

    public init(name: String) { self.name = name }

    // MARK: Looking

    public func name(of value: ValueID) -> String { values[value.index].name }
    public func type(of value: ValueID) -> ValueType { values[value.index].type }
    public func shape(of value: ValueID) -> [Dimension] { values[value.index].type.shape }
    public func content(of value: ValueID) -> Content? { values[value.index].content }
    public func operand(_ value: ValueID) -> Operand { Operand(type(of: value), content: content(of: value)) }

    /// The constant behind a value, where it is one.
    public func constant(of value: ValueID) -> Constant? {
        if case .tensor(let constant) = content(of: value) { return constant }
        return nil
    }

    /// The node that computes a value; nil for inputs and constants.
    public func producer(of value: ValueID) -> Node? { values[value.index].producer.flatMap { nodeSlots[$0.index] } }

    /// The nodes that read a value, each once, in the order in which they were added.
    public func consumers(of value: ValueID) -> [Node] { values[value.index].consumers.compactMap { nodeSlots[$0.index] } }

    /// True for what a product multiplies by, or a lookup reads. Other constants, such as masks, are no weights.
    package func isWeight(_ value: ValueID) -> Bool {
        consumers(of: value).contains { node in
            node.op is Linear || node.op is MatMul || node.op is Gemm || node.op is Einsum || node.op is Conv
                || node.op is ConvTranspose || node.op is PatchEmbedding || node.op is Embedding
        }
    }

    /// The first that read a value, as `consumers(of:)`.
    package func consumers(of value: ValueID, atMost count: Int) -> [Node] {
        values[value.index].consumers.prefix(count).compactMap { nodeSlots[$0.index] }
    }

    public func node(_ id: NodeID) -> Node? { id.index < nodeSlots.count ? nodeSlots[id.index] : nil }
    public func value(named name: String) -> ValueID? { names[name] }
    public func isOutput(_ value: ValueID) -> Bool { outputs.contains { $0.value == value } }
    public func isTraced(_ value: ValueID) -> Bool { traces.contains { $0.value == value } }

    /// All nodes, in the order in which they were added.
    public var nodes: [Node] { nodeSlots.compactMap { $0 } }

    /// The number of values ever made: the next value's index.
    var valueCount: Int { values.count }

    /// All nodes, each behind those whose outputs it reads.
    /// - Throws: `data` where there is a cycle.
    public func topologicalOrder() throws -> [Node] {
        var waiting = nodeSlots.map { node in
            node.map { Set($0.inputs.compactMap { $0.flatMap { self.producer(of: $0)?.id } }).count } ?? -1
        }
        var order: [Node] = []
        var ready = waiting.indices.filter { waiting[$0] == 0 }.reversed().map { $0 }
        while let index = ready.popLast() {
            guard let node = nodeSlots[index] else { continue }
            order.append(node)
            for consumer in Set(node.outputs.flatMap { values[$0.index].consumers }).sorted(by: >) {
                waiting[consumer.index] -= 1
                if waiting[consumer.index] == 0 { ready.append(consumer.index) }
            }
        }
        guard order.count == nodeSlots.count(where: { $0 != nil }) else {
            let stuck = nodeSlots.compactMap { $0 }.first { waiting[$0.id.index] > 0 }
            throw TripsError.data("the graph has a cycle", at: stuck?.name)
        }
        return order
    }

    /// Everything that is computed from any of `values`, they themselves among it.
    package func dependents(of values: [ValueID]) -> Set<ValueID> {
        var reached = Set(values)
        var pending = values
        while let value = pending.popLast() {
            for node in consumers(of: value) {
                for output in node.outputs where content(of: output) == nil && reached.insert(output).inserted { pending.append(output) }
            }
        }
        return reached
    }

    // MARK: Building

    /// Adds an input. Its name must be free.
    public mutating func addInput(_ name: String, _ type: ValueType) throws -> ValueID {
        let value = try addValue(name, type)
        inputs.append(value)
        return value
    }

    /// Adds a constant; a name that is taken gets a number behind it.
    public mutating func addConstant(_ constant: Constant, name: String) throws -> ValueID {
        let type = ValueType(constant.dataType, constant.shape.map { Dimension($0) })
        return try addValue(name, type, content: .tensor(constant), isNumbered: true)
    }

    /// Adds a value that is known, in any of the forms of `Content`.
    public mutating func addKnown(_ content: Content, _ type: ValueType, name: String) throws -> ValueID {
        try addValue(name, type, content: content, isNumbered: true)
    }

    /// Adds a node and the values that it computes; their types come from the operator's shape rule.
    /// - Parameter outputNames: names for the first outputs; nil or missing ones are made from the node's name.
    /// - Throws: what the shape rule throws, with the node's name and operator as the place.
    @discardableResult
    public mutating func add(
        _ op: any Operator, _ inputs: [ValueID?], name: String, outputNames: [String?] = []
    ) throws -> [ValueID] {
        let id = NodeID(nodeSlots.count)
        let types = try inferTypes(op, inputs, name: name)
        var made: [ValueID] = []
        for (index, type) in types.enumerated() {
            let base = index < outputNames.count ? outputNames[index] : nil
            let valueName = base ?? (types.count == 1 ? name : "\(name).\(index)")
            made.append(try addValue(valueName, type, producer: id, isNumbered: true))
        }
        nodeSlots.append(Node(id: id, name: name, op: op, inputs: inputs, outputs: made))
        for input in Set(inputs.compactMap { $0 }) { values[input.index].consumers.append(id) }
        return made
    }

    /// More outputs, or traces, than this are no model's.
    static let maximalOutputs = 10_000

    /// Declares an output of the graph. Output names are a namespace of their own.
    /// - Throws: `data` where the name is taken, or there are more than 10000 outputs.
    public mutating func addOutput(_ name: String, _ value: ValueID) throws {
        guard outputs.count < Graph.maximalOutputs else {
            throw TripsError.data("number of outputs", found: "more than \(Graph.maximalOutputs)", expected: "at most \(Graph.maximalOutputs)")
        }
        guard !outputs.contains(where: { $0.name == name }) else {
            throw TripsError.data("two outputs have one name", found: name)
        }
        outputs.append((name, value))
    }

    /// Gives an intermediate its canonical name; a name given before moves to this value.
    public mutating func addTrace(_ name: String, _ value: ValueID) {
        traces.removeAll { $0.name == name }
        traces.append((name, value))
    }

    /// Drops all traces.
    public mutating func removeTraces() { traces = [] }

    /// States what a value holds, so that nothing has to compute it.
    public mutating func setContent(_ content: Content, of value: ValueID) {
        values[value.index].content = content
        if case .tensor(let constant) = content {
            values[value.index].type = ValueType(constant.dataType, constant.shape.map { Dimension($0) })
        }
    }

    // MARK: Changing

    /// Lets everything that reads `old`, outputs and traces too, read `new` instead.
    public mutating func replace(_ old: ValueID, with new: ValueID, except kept: Set<NodeID> = []) {
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

    /// Gives a node other inputs, of which its operator makes outputs of perhaps other types; `inferAgain` follows them.
    /// - Throws: what the shape rule throws.
    package mutating func setInputs(of id: NodeID, _ inputs: [ValueID?]) throws {
        guard var node = nodeSlots[id.index] else { return }
        _ = try inferTypes(node.op, inputs, name: node.name)
        for input in Set(node.inputs.compactMap { $0 }) { values[input.index].consumers.removeAll { $0 == id } }
        node.inputs = inputs
        nodeSlots[id.index] = node
        for input in Set(inputs.compactMap { $0 }) { values[input.index].consumers.append(id) }
    }

    /// Keeps only the outputs with these names, in this order.
    /// - Throws: `usage` where one does not exist.
    public mutating func selectOutputs(_ names: [String]) throws {
        outputs = try names.map { name in
            guard let output = outputs.first(where: { $0.name == name }) else {
                throw TripsError.usage("no such output", found: name, expected: outputs.map(\.name).joined(separator: ", "))
            }
            return output
        }
    }

    /// Removes inputs that nothing reads, except those whose shapes tell a size that is needed.
    public mutating func removeUnusedInputs() {
        let read = inputs.filter { !values[$0.index].consumers.isEmpty || isOutput($0) }
        let known = nodes.flatMap { $0.inputs.compactMap { $0 } } + outputs.map(\.value) + traces.map(\.value)
        let tellers = inputsTellingSizes(of: known, besides: read)
        inputs = inputs.filter { read.contains($0) || tellers.contains($0) }
    }

    /// Inputs that are needed for their shapes alone: these values, or their shapes, depend on sizes that they tell and that no
    /// input among `read` does.
    package func inputsTellingSizes(of values: some Sequence<ValueID>, besides read: some Sequence<ValueID>) -> [ValueID] {
        func sizesTold(by input: ValueID) -> Set<String> {
            Set(shape(of: input).flatMap { size in size.symbols.filter { size == Dimension(symbol: $0) } })
        }
        var needed = Set(values.flatMap { value in
            let sizes: [Dimension] = if case .dimensions(let sizes) = content(of: value) { sizes } else { [] }
            return (shape(of: value) + sizes).flatMap(\.symbols)
        })
        needed.subtract(read.flatMap(sizesTold))
        return inputs.filter { input in
            let told = sizesTold(by: input).intersection(needed)
            needed.subtract(told)
            return !told.isEmpty
        }
    }

    /// Drops nodes that neither an output nor a trace needs; a session computes what is asked for only.
    public mutating func prune() {
        var needed = Set<NodeID>()
        var pending = outputs.map(\.value) + traces.map(\.value)
        var tellers: [String: ValueID]?
        while let value = pending.popLast() {
            if case .dimensions(let sizes) = values[value.index].content {
                let open = sizes.flatMap(\.madeUpSymbols)
                guard !open.isEmpty else { continue }
                if tellers == nil { tellers = sizeTellers() }
                pending += open.compactMap { tellers?.removeValue(forKey: $0) }
                continue
            }
            guard values[value.index].content == nil, let id = values[value.index].producer, needed.insert(id).inserted, let node = nodeSlots[id.index] else { continue }
            pending += node.inputs.compactMap { $0 }
        }
        let unneeded = nodeSlots.compactMap { $0 }.filter { !needed.contains($0.id) }
        guard !unneeded.isEmpty else { return }
        for node in unneeded { removeNode(node) }
        for index in values.indices { values[index].consumers.removeAll { nodeSlots[$0.index] == nil } }
    }

    /// For each size that no shape rule could tell, the value whose node finds it out when it runs; other nodes have it from an
    /// operand.
    private func sizeTellers() -> [String: ValueID] {
        var tellers: [String: ValueID] = [:]
        for node in nodes where node.outputs.contains(where: { values[$0.index].type.shape.contains(where: \.isMadeUp) }) {
            let operands = node.inputs.compactMap { $0.map { values[$0.index] } }
            let known = Set(operands.flatMap { operand in
                if case .dimensions(let sizes) = operand.content { return (operand.type.shape + sizes).flatMap(\.symbols) }
                return operand.type.shape.flatMap(\.symbols)
            })
            for output in node.outputs {
                for symbol in values[output.index].type.shape.filter(\.isMadeUp).flatMap(\.symbols) where !known.contains(symbol) { tellers[symbol] = output }
            }
        }
        return tellers
    }

    /// True where something reads what a node puts out.
    func isRead(_ node: Node) -> Bool {
        node.outputs.contains { !values[$0.index].consumers.isEmpty || isOutput($0) || isTraced($0) }
    }

    /// Removes `node` if nothing needs it any more, and then those that fed only it. What may tell a size is left to `prune`.
    mutating func removeIfUnused(_ id: NodeID) {
        var pending = [id]
        while let id = pending.popLast() {
            guard let node = nodeSlots[id.index],
                !isRead(node), !node.outputs.contains(where: { values[$0.index].type.shape.contains(where: \.isMadeUp) })
            else { continue }
            removeNode(node)
            for input in Set(node.inputs.compactMap { $0 }) { values[input.index].consumers.removeAll { $0 == id } }
            pending += Set(node.inputs.compactMap { $0.flatMap { values[$0.index].producer } })
        }
    }

    /// Takes a node out; it still stands among the consumers of what it reads.
    private mutating func removeNode(_ node: Node) {
        nodeSlots[node.id.index] = nil
        for output in node.outputs {
            // The producer stays recorded: a value that was computed must not pass for an input or a constant.
            // What became known is still read, and keeps its name.
            if values[output.index].content == nil, names[values[output.index].name] == output { names[values[output.index].name] = nil }
        }
    }

    /// Runs the shape rules again, in order, so that types follow what was changed upstream.
    /// - Throws: what a shape rule throws, with node and operator as the place.
    public mutating func inferAgain() throws {
        for node in try topologicalOrder() { try inferAgain(node) }
    }

    /// Runs one node's shape rule again. A size that could not be told before, and can now, is replaced wherever it is used.
    /// - Returns: whether a type changed.
    @discardableResult
    package mutating func inferAgain(_ node: Node) throws -> Bool {
        var changed = false
        var told: [String: Dimension] = [:]
        for (output, type) in zip(node.outputs, try inferTypes(node.op, node.inputs, name: node.name)) where content(of: output) == nil {
            let named = naming(type, after: values[output.index].name)
            guard values[output.index].type != named else { continue }
            for (old, new) in zip(values[output.index].type.shape, named.shape) where old.isMadeUp && new.madeUpSymbols.isEmpty {
                if let symbol = old.symbols.first { told[symbol] = new }
            }
            values[output.index].type = named
            changed = true
        }
        if !told.isEmpty { try substitute(told) }
        return changed
    }

    /// Replaces symbols by numbers in the inputs' types and in what is known, and runs the shape rules again.
    public mutating func bind(_ symbols: [String: Int]) throws { try bind(symbols.mapValues { Dimension($0) }) }

    /// The same, for sizes that follow from other symbols.
    package mutating func bind(_ symbols: [String: Dimension]) throws {
        try substitute(symbols)
        try inferAgain()
    }

    private mutating func substitute(_ symbols: [String: Dimension]) throws {
        for index in values.indices {
            values[index].type.shape = try values[index].type.shape.map { try $0.substituting(symbols) }
            if case .dimensions(let dimensions) = values[index].content {
                values[index].content = .dimensions(try dimensions.map { try $0.substituting(symbols) })
            }
        }
    }

    /// Gives values the names that were wanted for them, where a number had to be put behind a name and the other value of that
    /// name is gone. Symbols that were made up for their sizes follow: a reader of the graph makes them from the names.
    /// - Throws: `data` where a size overflows.
    package mutating func tidyNames() throws {
        let used = Set(inputs + outputs.map(\.value) + traces.map(\.value) + nodes.flatMap { $0.inputs.compactMap { $0 } + $0.outputs })
        names = [:]
        for value in used { names[values[value.index].name] = value }
        var symbols: [String: Dimension] = [:]
        for value in used.sorted() {
            let (name, shape) = (values[value.index].name, values[value.index].type.shape)
            guard let wanted = values[value.index].wantedName, names[wanted] == nil else { continue }
            names[name] = nil
            values[value.index].name = wanted
            names[wanted] = value
            for axis in shape.indices where shape[axis] == Dimension(symbol: madeUpSymbol(name, axis)) {
                symbols[madeUpSymbol(name, axis)] = Dimension(symbol: madeUpSymbol(wanted, axis))
            }
        }
        if !symbols.isEmpty { try substitute(symbols) }
    }

    // MARK: Parts

    private func inferTypes(_ op: any Operator, _ inputs: [ValueID?], name: String) throws -> [ValueType] {
        try locating("\(Swift.type(of: op).name) \"\(name)\"") {
            let types = try op.infer(inputs.map { $0.map(operand) })
            try types.forEach(checkType)
            return types
        }
    }

    /// NumPy's limit. Without one, indices of indices double the rank with each operator.
    private static let maximalRank = 64

    private func checkType(_ type: ValueType) throws {
        guard type.rank <= Graph.maximalRank, type.shape.allSatisfy({ ($0.constant ?? 0) >= 0 }) else {
            throw TripsError.data("shape", found: type, expected: "at most \(Graph.maximalRank) sizes of 0 or more")
        }
    }

    /// Unknown sizes become symbols that are named after the value and the axis.
    private func naming(_ type: ValueType, after valueName: String) -> ValueType {
        var type = type
        for (axis, size) in type.shape.enumerated() where size.symbols.contains("?") {
            type.shape[axis] = Dimension(symbol: madeUpSymbol(valueName, axis))
        }
        return type
    }

    /// Other names give other symbols: what a symbol cannot hold is written as its number.
    private func madeUpSymbol(_ valueName: String, _ axis: Int) -> String {
        let safe = valueName.map { character in
            if character.isLetter || character.isNumber || "_./".contains(character) { return String(character) }
            return "?\(character.unicodeScalars.map { String($0.value, radix: 16) }.joined(separator: "?"))?"
        }
        return "?\(safe.joined()).\(axis)"
    }

    private mutating func addValue(
        _ wantedName: String, _ type: ValueType, content: Content? = nil, producer: NodeID? = nil, isNumbered: Bool = false
    ) throws -> ValueID {
        try checkType(type)
        let id = ValueID(values.count)
        let name = isNumbered ? freeName(wantedName) : wantedName
        guard names.updateValue(id, forKey: name) == nil else { throw TripsError.data("two values have one name", found: name) }
        let named = producer == nil ? type : naming(type, after: name)
        values.append(ValueRecord(
            name: name, wantedName: name == wantedName ? nil : wantedName, type: named, content: content, producer: producer))
        return id
    }

    private func freeName(_ base: String) -> String {
        if names[base] == nil { return base }
        var number = 1
        while names["\(base).\(number)"] != nil { number += 1 }
        return "\(base).\(number)"
    }
}
