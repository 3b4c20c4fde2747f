import ModelGraph
import Rewrites
import Support
import Tensors

/// The `decode` graph of one example, fed one token at a time.
///
/// What does not depend on the tokens, such as the keys and values of cross-attention, is computed once. The keys and values
/// of self-attention are kept, a row for each token, so that a step computes the rows of its own token only.
package struct Decoder {
    private let session: Session
    private let graph: IncrementalGraph
    /// Inputs that stay the same over all steps.
    private let fixed: [String: Tensor]
    private var cache: [String: Tensor]
    private var position = 0

    /// - Parameters:
    ///   - hypotheses: continued side by side.
    ///   - steps: tokens that can be fed.
    package init(_ session: Session, _ inputs: [String: Tensor], hypotheses: Int, steps: Int) throws {
        let parts = try session.decoding()
        let needed = parts.fixed.inputs.map(parts.fixed.name(of:))
        let computed = try session.compute(inputs, outputs: needed.filter { inputs[$0] == nil })
        let given = inputs.merging(computed) { given, _ in given }.filter { needed.contains($0.key) }
        for (name, tensor) in given where tensor.shape.first != 1 {
            throw TripsError.usage("generation takes one example", found: "\(name) of shape \(tensor.shape)")
        }
        self.session = parts.session
        graph = parts.step
        fixed = try parts.session.compute(given, outputs: parts.fixed.outputs.map(\.name))
        cache = try Dictionary(
            uniqueKeysWithValues: graph.caches.map { cache in
                (cache.input, try Tensor(.float32, [hypotheses, steps, cache.width]) { _ in })
            })
    }

    /// Logits of the next token of each hypothesis.
    /// - Parameters:
    ///   - tokens: the newest token of each.
    ///   - rows: index of the previous hypothesis that each row extends.
    package mutating func nextLogits(_ tokens: [Int], continuing rows: [Int]) throws -> [[Float]] {
        let steps = cache.values.first?.shape[1] ?? position + 1
        guard position < steps else {
            throw TripsError.usage("tokens to decode", found: position + 1, expected: "at most \(steps)")
        }
        var inputs = fixed.merging(cache) { $1 }
        inputs[IncrementalGraph.tokens] = try Tensor(tokens.map { Int64($0) }, shape: [tokens.count, 1])
        inputs[IncrementalGraph.rows] = try Tensor(rows.map { Int64($0) }, shape: [rows.count])
        inputs[IncrementalGraph.position] = try Tensor([Int64(position)], shape: [1])
        inputs[IncrementalGraph.isCurrent] = try Tensor((0..<steps).map { $0 == position }, shape: [1, steps, 1])
        inputs[IncrementalGraph.mask] = try Tensor(
            (0..<steps).map { $0 <= position ? Float(0) : IncrementalGraph.masked }, shape: [1, 1, 1, steps])
        let results = try session.compute(inputs, outputs: graph.graph.outputs.map(\.name))
        for name in graph.caches { cache[name.input] = results[name.output] }
        position += 1
        return try results.rows(of: "next_logits", [tokens.count])
    }
}

/// A package's `decode` graph, made ready for a loop.
struct DecodingParts {
    /// Computes what does not depend on the tokens.
    let fixed: Graph
    let step: IncrementalGraph
    /// Over both graphs.
    let session: Session

    /// - Throws: `usage` where the package does not generate; `data` where the graph cannot be fed by the token.
    init(_ session: Session) throws {
        guard let graph = session.model.graph("decode"), graph.outputs.contains(where: { $0.name == "next_logits" }) else {
            throw TripsError.usage("the package does not generate text", expected: "a graph decode with next_logits")
        }
        var folded = try graph.reduced(to: ["next_logits"])
        _ = try folded.fold()
        let (fixed, step) = try folded.split(by: "decoder_ids")
        self.fixed = fixed
        self.step = try IncrementalGraph(step, over: "decoder_ids")
        self.session = session.sharing([fixed, self.step.graph])
    }
}

extension Graph {
    /// Parts the graph into what does not depend on an input, and the rest, which takes the former's outputs as inputs
    /// for a batch of one.
    /// - Throws: `usage` where there is no such input.
    package func split(by inputName: String) throws -> (fixed: Graph, step: Graph) {
        guard let input = value(named: inputName) else { throw TripsError.usage("no such input", found: inputName) }
        // What only follows the number of tokens, such as their positions, changes with each step as well.
        let lengths = Set(shape(of: input).dropFirst().flatMap(\.symbols))
        var dependent: Set<ValueID> = [input]
        var border: [ValueID] = []
        for node in try topologicalOrder() {
            let reads = node.inputs.compactMap { $0 }.filter { content(of: $0) == nil }
            let followsLength = node.outputs.contains { value in shape(of: value).contains { !$0.symbols.isDisjoint(with: lengths) }
            }
            guard followsLength || reads.contains(where: dependent.contains) else { continue }
            dependent.formUnion(node.outputs)
            for value in reads where !dependent.contains(value) && !border.contains(value) { border.append(value) }
        }
        var (fixed, step) = (self, self)
        try fixed.selectOutputs([])
        let single = Dictionary(uniqueKeysWithValues: shape(of: input).prefix(1).flatMap(\.symbols).map { ($0, 1) })
        for (index, value) in border.enumerated() {
            let name = "fixed.\(index)"
            try fixed.addOutput(name, value)
            var type = type(of: value)
            type.shape = try type.shape.map { try $0.substituting(single) }
            step.replace(value, with: try step.addInput(name, type))
        }
        try fixed.tidy()
        try step.tidy()
        return (fixed, step)
    }

    fileprivate mutating func tidy() throws {
        prune()
        removeUnusedInputs()
        try inferAgain()
    }
}

/// A decoder over a whole prefix, turned into one over its newest token and the cached rows of the tokens before it.
///
/// All that such a decoder computes for a token depends on that token and those before it, and only causal self-attention
/// looks at others: there the keys and values come from a cache of a fixed number of places, in which the newest token's
/// replace the rows at its position. So one plan serves all steps.
struct IncrementalGraph {
    /// Inputs: int64 [B, 1], the newest tokens.
    static let tokens = "decoder_token"
    /// int64 [B]: index of the previous hypothesis that each row extends.
    static let rows = "decoder_rows"
    /// int64 [1]: the newest token's position.
    static let position = "decoder_position"
    /// bool [1, S, 1]: true at that position.
    static let isCurrent = "decoder_is_current"
    /// float32 [1, 1, 1, S]: 0 up to that position, `masked` after it.
    static let mask = "decoder_mask"
    /// Gives a score no weight, and the sum with the score is finite.
    static let masked: Float = -1e30

    private(set) var graph: Graph
    /// Inputs and outputs float32 [B, S, width].
    private(set) var caches: [(input: String, output: String, width: Int)] = []
    /// Rows of the smallest table from which positions are cut; nil where there is none.
    private(set) var positions: Int?

    private let batch: Dimension
    /// T of the prefix, and as the caches' places S of this graph.
    private let length: String
    private let rowsInput, positionInput, currentInput, maskInput: ValueID
    /// Of each value that depends on the tokens, its counterpart for the newest token.
    private var newest: [ValueID: ValueID] = [:]
    private var keptRows: [ValueID: ValueID] = [:]

    /// - Parameters:
    ///   - prefixGraph: with the outputs that a step shall have.
    ///   - ids: its input int64 [B, T] with the whole prefix.
    /// - Throws: `data` where an operator looks at several tokens and is no causal self-attention.
    init(_ prefixGraph: Graph, over ids: String) throws {
        graph = prefixGraph
        guard let prefix = graph.value(named: ids), graph.shape(of: prefix).count == 2,
            let length = graph.shape(of: prefix)[1].symbols.first, graph.shape(of: prefix)[1] == Dimension(symbol: length)
        else { throw TripsError.data("the decoder's input", found: ids, expected: "[batch, tokens], any number of tokens") }
        let places = Dimension(symbol: length)
        self.length = length
        batch = graph.shape(of: prefix)[0]
        newest[prefix] = try graph.addInput(IncrementalGraph.tokens, ValueType(.int64, [batch, 1]))
        rowsInput = try graph.addInput(IncrementalGraph.rows, ValueType(.int64, [batch]))
        positionInput = try graph.addInput(IncrementalGraph.position, ValueType(.int64, [1]))
        currentInput = try graph.addInput(IncrementalGraph.isCurrent, ValueType(.bool, [1, places, 1]))
        maskInput = try graph.addInput(IncrementalGraph.mask, ValueType(.float32, [1, 1, 1, places]))
        let outputs = graph.outputs
        try graph.selectOutputs([])
        for node in try graph.topologicalOrder() where node.inputs.contains(where: { $0.map { newest[$0] != nil } ?? false }) {
            let computed = try locating("\(type(of: node.op).name) \"\(node.name)\"") { try compute(node) }
            for (value, row) in zip(node.outputs, computed) { newest[value] = row }
        }
        for output in outputs { try graph.addOutput(output.name, newest[output.value] ?? output.value) }
        try graph.tidy()
    }

    /// The node's outputs for the newest token.
    private mutating func compute(_ node: Node) throws -> [ValueID] {
        if let attention = node.op as? Attention, attention.causal { return try attend(node, attention) }
        if try takesLastRow(node), let indices = node.input(1), let rows = node.input(0) {
            let first = try graph.addKnown(.dimensions([0]), graph.type(of: indices), name: "\(node.name).row")
            return try graph.add(node.op, [newest[rows], first], name: node.name)
        }
        guard isRowwise(node) else {
            throw TripsError.data("an operator over several tokens", expected: "causal self-attention only")
        }
        return try graph.add(node.op, node.inputs.map { try $0.map { try newest[$0] ?? rowOfLength($0) } }, name: node.name)
    }

    /// Attention of the newest token to the rows that are kept, its own among them.
    private mutating func attend(_ node: Node, _ attention: Attention) throws -> [ValueID] {
        guard node.input(3) == nil, let query = node.input(0), let key = node.input(1), let value = node.input(2),
            [query, key, value].allSatisfy(isByToken)
        else { throw TripsError.data("causal attention", expected: "queries, keys and values of the same tokens, no mask") }
        // The mask hides the places that are not filled yet.
        var op = attention
        op.causal = false
        return try graph.add(op, [newest[query], keep(key), keep(value), maskInput], name: node.name)
    }

    /// The rows of the hypotheses that are continued, with the newest in its place.
    private mutating func keep(_ value: ValueID) throws -> ValueID {
        if let rows = keptRows[value] { return rows }
        let (name, type) = (graph.name(of: value), graph.type(of: value))
        guard let width = type.shape[2].constant, let row = newest[value] else {
            throw TripsError.data("width of a row", found: type)
        }
        let kept = try graph.addInput("\(name).kept", type)
        let continued = try graph.add(Gather(axis: 0), [kept, rowsInput], name: "\(name).continued")[0]
        let rows = try graph.add(Where(), [currentInput, row, continued], name: "\(name).rows")[0]
        try graph.addOutput("\(name).rows", rows)
        caches.append((input: "\(name).kept", output: "\(name).rows", width: width))
        keptRows[value] = rows
        return rows
    }

    /// A value that depends on the number of tokens, at the newest position; others as they are.
    private mutating func rowOfLength(_ value: ValueID) throws -> ValueID {
        guard let axis = tokenAxes(value).first else { return value }
        if let cut = graph.producer(of: value), cut.op is Slice, let table = cut.input(0),
            graph.shape(of: table).indices.contains(axis),
            let rows = graph.shape(of: table)[axis].constant
        {
            positions = min(positions ?? rows, rows)
        }
        return try graph.add(Gather(axis: axis), [value, positionInput], name: "\(graph.name(of: value)).newest")[0]
    }

    private func takesLastRow(_ node: Node) throws -> Bool {
        guard node.op as? Gather == Gather(axis: 1), let rows = node.input(0), isByToken(rows), let indices = node.input(1) else {
            return false
        }
        return try graph.operand(indices).integers() == [Dimension(symbol: length).subtracting(1)]
    }

    /// True where what the node computes for a token depends on no other token.
    private func isRowwise(_ node: Node) -> Bool {
        let values = node.inputs.compactMap { $0 } + node.outputs
        if values.allSatisfy({ tokenAxes($0).isEmpty }) { return true }
        if node.op is Attention, let query = node.input(0) {
            return isByToken(query)
                && node.inputs.dropFirst().allSatisfy { $0.map { newest[$0] == nil && tokenAxes($0).isEmpty } ?? true }
        }
        return node.op.isRowwise && node.outputs.allSatisfy(isByToken)
            && node.inputs.allSatisfy { input in
                input.map { newest[$0] == nil ? tokenAxes($0).count < 2 : tokenAxes($0) == [1] } ?? true
            }
    }

    /// [B, T, D]
    private func isByToken(_ value: ValueID) -> Bool { graph.shape(of: value).count == 3 && tokenAxes(value) == [1] }

    private func tokenAxes(_ value: ValueID) -> [Int] {
        graph.shape(of: value).indices.filter { graph.shape(of: value)[$0].symbols.contains(length) }
    }
}
