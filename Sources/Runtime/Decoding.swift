import ModelGraph
import Rewrites
import Support
import Tensors

/// The `decode` graph of one example, fed one token at a time.
///
/// What does not depend on the tokens, such as the keys and values of cross-attention, is computed once and stays where it is.
/// The keys and values of self-attention are kept, a row for each token, so that a step computes the rows of its own token only.
package final class Decoder {
    private let session: Session
    private let graph: IncrementalGraph
    private let fixed: [String: Tensor]
    private let shapes: [String: [Int]]
    private let plan: Plan
    /// Of each hypothesis, 0 for the kept rows that are its own, and `masked` for the others.
    private var masks: [[Float]]
    private var position = 0
    private let steps: Int

    /// - Parameters:
    ///   - hypotheses: continued side by side.
    ///   - steps: tokens that can be fed.
    package init(_ session: Session, _ inputs: [String: Tensor], hypotheses: Int, steps: Int) throws {
        let parts = try session.decoding()
        let computed = try session.compute(inputs, outputs: parts.fixed.filter { inputs[$0] == nil })
        let known = inputs.merging(computed) { given, _ in given }.filter { parts.fixed.contains($0.key) }
        for (name, tensor) in known where tensor.shape.first != 1 {
            throw TripsError.usage("generation takes one example", found: "\(name) of shape \(tensor.shape)")
        }
        self.session = parts.session
        self.steps = steps
        graph = parts.step
        fixed = try graph.accept(known) { parts.fixed.contains($0) }
        shapes = fixed.mapValues(\.shape).merging(graph.shapes(hypotheses: hypotheses, steps: steps)) { $1 }
        do {
            plan = try parts.session.takePlan(
                graph.graph, shapes, Continuation(fixed: Set(parts.fixed), states: Set(graph.kept.map(\.input))))
        } catch let error as TripsError where error.kind == .data || error.kind == .usage {
            throw graph.graph.refusalOfEmptyInputs(shapes) ?? error
        }
        masks = Array(repeating: Array(repeating: IncrementalGraph.masked, count: steps * hypotheses), count: hypotheses)
    }

    deinit { session.giveBack(plan, of: graph.graph, shapes) }

    /// Logits of the next token of each hypothesis.
    /// - Parameters:
    ///   - tokens: the newest token of each.
    ///   - rows: index of the previous hypothesis that each row extends.
    package func nextLogits(_ tokens: [Int], continuing rows: [Int]) throws -> [[Float]] {
        guard position < steps, tokens.count == masks.count, rows.count == masks.count, rows.allSatisfy(masks.indices.contains)
        else {
            throw TripsError.usage(
                "tokens to decode", found: "\(tokens) at \(position)",
                expected: "\(masks.count) that continue as many, \(steps) times at most")
        }
        var next = rows.map { masks[$0] }
        for row in next.indices { next[row][position * masks.count + row] = 0 }
        let given = try graph.accept([
            IncrementalGraph.tokens: Tensor(tokens.map { Int64($0) }, shape: [tokens.count, 1]),
            IncrementalGraph.position: Tensor([Int64(position)], shape: [1]),
            IncrementalGraph.mask: Tensor(Array(next.joined()), shape: [tokens.count, 1, 1, steps * tokens.count]),
        ]) { [IncrementalGraph.tokens, IncrementalGraph.position, IncrementalGraph.mask].contains($0) }
        let results = try session.run(plan, fixed.merging(given) { $1 }, continuing: position > 0)
        masks = next
        position += 1
        return try results.rows(of: "next_logits", [tokens.count])
    }
}

/// A package's `decode` graph, made ready for a loop.
struct DecodingParts {
    /// The inputs that do not change.
    let fixed: [String]
    let step: IncrementalGraph
    /// Over the step's graph.
    let session: Session

    /// - Throws: `usage` where the package does not generate; `data` where the graph cannot be fed by the token.
    init(_ session: Session) throws {
        guard let graph = session.model.graph("decode"), graph.outputs.contains(where: { $0.name == "next_logits" }) else {
            throw TripsError.usage("the package does not generate text", expected: "a graph decode with next_logits")
        }
        var single = try graph.reduced(to: ["next_logits"])
        _ = try single.fold()
        try single.fixBatch(besides: "decoder_ids")
        fixed = single.inputs.map(single.name(of:)).filter { $0 != "decoder_ids" }
        step = try IncrementalGraph(single, over: "decoder_ids")
        self.session = session.sharing([step.graph])
    }
}

extension Graph {
    /// Leaves the batch open for one input only: all others hold one example.
    /// - Throws: `usage` where there is no such input.
    fileprivate mutating func fixBatch(besides inputName: String) throws {
        guard let input = value(named: inputName) else { throw TripsError.usage("no such input", found: inputName) }
        let single = Dictionary(uniqueKeysWithValues: shape(of: input).prefix(1).flatMap(\.symbols).map { ($0, 1) })
        for other in inputs where other != input {
            setShape(of: other, try shape(of: other).map { try $0.substituting(single) })
        }
        try inferAgain()
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
/// looks at others: there the keys and values come from a cache of a fixed number of places, each with a row for every
/// hypothesis. A row stays where it was written: a mask tells each hypothesis which ones are its own. So one plan serves all
/// steps.
struct IncrementalGraph {
    /// Inputs: int64 [B, 1], the newest tokens.
    static let tokens = "decoder_token"
    /// int64 [1]: the newest token's position.
    static let position = "decoder_position"
    /// float32 [B, 1, 1, S * B]: 0 for the kept rows that a hypothesis looks at, `masked` for the others.
    static let mask = "decoder_mask"
    /// Gives a score no weight, and the sum with the score is finite.
    static let masked: Float = -1e30

    private(set) var graph: Graph
    /// Inputs float32 [S, B, width].
    private(set) var kept: [(input: String, width: Int)] = []
    /// Rows of the smallest table from which positions are cut; nil where there is none.
    private(set) var positions: Int?

    private var limits: [IndexLimit] = []
    private let batch: Dimension
    /// T of the prefix, and as the caches' places S of this graph.
    private let length: String
    private let positionInput, maskInput: ValueID
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
        positionInput = try graph.addInput(IncrementalGraph.position, ValueType(.int64, [1]))
        maskInput = try graph.addInput(
            IncrementalGraph.mask, ValueType(.float32, [batch, 1, 1, places.multiplied(by: batch)]))
        let outputs = graph.outputs
        try graph.selectOutputs([])
        for node in try graph.topologicalOrder() where node.inputs.contains(where: { $0.map { newest[$0] != nil } ?? false }) {
            let computed = try locating("\(type(of: node.op).name) \"\(node.name)\"") { try compute(node) }
            for (value, row) in zip(node.outputs, computed) { newest[value] = row }
        }
        for output in outputs { try graph.addOutput(output.name, newest[output.value] ?? output.value) }
        try graph.tidy()
        limits = graph.indexLimits()
    }

    /// The shapes of the inputs that each step is given, and of the kept rows.
    func shapes(hypotheses: Int, steps: Int) -> [String: [Int]] {
        let given = [
            IncrementalGraph.tokens: [hypotheses, 1], IncrementalGraph.position: [1],
            IncrementalGraph.mask: [hypotheses, 1, 1, steps * hypotheses],
        ]
        return kept.reduce(into: given) { $0[$1.input] = [steps, hypotheses, $1.width] }
    }

    /// The tensors for those inputs whose names are asked for.
    func accept(_ known: [String: Tensor], isAskedFor: (String) -> Bool) throws -> [String: Tensor] {
        try graph.accept(known, for: graph.inputs.filter { isAskedFor(graph.name(of: $0)) }, limits)
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
        // The mask hides the places that are not filled yet. To round all kept rows to 8 bits again for a few queries would take
        // longer than to read them as they are.
        var op = attention
        (op.causal, op.activations) = (false, .float32)
        return try graph.add(op, [newest[query], keep(key), keep(value), maskInput], name: node.name)
    }

    /// The kept rows of all hypotheses, the newest in their place.
    private mutating func keep(_ value: ValueID) throws -> ValueID {
        if let rows = keptRows[value] { return rows }
        let (name, type) = (graph.name(of: value), graph.type(of: value))
        guard let width = type.shape[2].constant, let row = newest[value] else {
            throw TripsError.data("width of a row", found: type)
        }
        let places = try graph.addInput("\(name).kept", ValueType(.float32, [type.shape[1], batch, type.shape[2]]))
        let rows = try graph.add(PlaceRows(), [places, row, positionInput], name: "\(name).rows")[0]
        kept.append((input: "\(name).kept", width: width))
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
