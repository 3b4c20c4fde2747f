import Kernels
import ModelGraph
import Operators
import Support
import Tensors

/// Turns a graph of constant shapes into instructions, in an order in which they can run.
struct Lowering {
    let graph: Graph
    private(set) var instructions: [any Instruction] = []
    /// Values that are another value's memory under another shape.
    private(set) var aliases: [ValueID: ValueID] = [:]
    /// Of runs that continue each other, the first instruction that is part of every run.
    private(set) var firstRepeated: Int?
    private var done = Set<NodeID>()
    private var written = Set<ValueID>()

    init(_ graph: Graph) throws {
        self.graph = graph
        for node in try Lowering.order(graph) where !done.contains(node.id) {
            try locating("planning \"\(node.name)\"") { try lower(node) }
        }
    }

    /// Moves what depends on these inputs alone before all else, for runs that compute it once.
    mutating func continueRuns(fixed: Set<String>) {
        var varying = Set(graph.inputs.filter { !fixed.contains(graph.name(of: $0)) })
        var (once, repeated): ([any Instruction], [any Instruction]) = ([], [])
        for instruction in instructions {
            if instruction.reads.contains(where: { varying.contains(aliases.root(of: $0)) }) {
                varying.formUnion(instruction.writes)
                repeated.append(instruction)
            } else {
                once.append(instruction)
            }
        }
        (instructions, firstRepeated) = (once + repeated, once.count)
    }

    /// A topological order with the guides of patch selections first: no other tower then runs between the patches and their
    /// scoring, which finds them in cache.
    private static func order(_ graph: Graph) throws -> [Node] {
        let order = try graph.topologicalOrder()
        var guides = Set<NodeID>()
        for node in order.reversed() {
            let read = guides.contains(node.id) ? node.inputs : node.op is PatchSelection ? [node.input(2)] : []
            guides.formUnion(read.compactMap { $0.flatMap(graph.producer(of:))?.id })
        }
        return order.filter { guides.contains($0.id) } + order.filter { !guides.contains($0.id) }
    }

    private mutating func lower(_ node: Node) throws {
        if node.op.isLinear, var instruction = try linears(node) {
            if instruction.quantizesRows, let norm = instructions.last as? LayerNormInstruction, norm.writes == [instruction.input],
                norm.rows == instruction.rows
            {
                instructions.removeLast()
                instruction.norm = norm
                instruction.keepsNorm =
                    graph.isOutput(instruction.input) || graph.consumers(of: instruction.input).count > instruction.members.count
            }
            return emit(instruction)
        }
        done.insert(node.id)
        if let instruction = try attention(node) ?? layerNorm(node) ?? selection(node) ?? patchEmbedding(node) ?? convolution(node)
        {
            emit(instruction)
        } else if node.op.isReshape, let source = node.input(0), graph.content(of: source) == nil {
            aliases[node.output] = source
            written.insert(node.output)
        } else {
            if node.op is PlaceRows { aliases[node.output] = node.input(0) }
            guard let op = node.op as? any Computable else {
                throw TripsError.data("no computation is known for the operator", found: type(of: node.op).name)
            }
            emit(GenericInstruction(node: node, op: op, multiplyAccumulates: try cost(node), reads: variables(node)))
        }
    }

    private mutating func emit(_ instruction: any Instruction) {
        instructions.append(instruction)
        written.formUnion(instruction.writes)
    }

    // MARK: Linear layers

    /// All linear layers that read the input of `node`, each with the operators fused into it.
    private mutating func linears(_ node: Node) throws -> LinearInstruction? {
        guard let input = node.input(0), graph.content(of: input) == nil, graph.type(of: input).dataType == .float32,
            let shape = graph.type(of: input).constantShape, let width = shape.last, let first = try member(node)
        else { return nil }
        var instruction = LinearInstruction(
            input: input, rows: shape.dropLast().reduce(1, *), inputs: width, inputScale: rowScale(first.recipe), members: [])
        for other in graph.consumers(of: input) where other.op.isLinear && other.input(0) == input && !done.contains(other.id) {
            guard let member = try member(other), sharesRows(member.recipe, first.recipe) else { continue }
            done.insert(other.id)
            instruction.members.append(fusing(member))
        }
        return instruction
    }

    /// Products can share an instruction where they read the rows in the same form.
    private func sharesRows(_ left: ProductRecipe, _ right: ProductRecipe) -> Bool {
        left.quantizesRows == right.quantizesRows && rowScale(left)?.identity == rowScale(right)?.identity
    }

    private func rowScale(_ recipe: ProductRecipe) -> Constant? { recipe.quantizesRows ? recipe.inputScale : nil }

    /// The layer alone; nil where its weights are not constant.
    private func member(_ node: Node) throws -> LinearInstruction.Member? {
        guard let weight = node.input(1).flatMap(graph.constant) else { return nil }
        var recipe: ProductRecipe
        let bias: ValueID?
        if let op = node.op as? QuantizedLinear {
            guard let scales = node.input(2).flatMap(graph.constant) else { return nil }
            let form: ProductRecipe.Form =
                op.activations == .int8 ? .int8(groupSize: op.groupSize) : .widened(groupSize: op.groupSize)
            recipe = ProductRecipe(form: form, weight: weight, scales: scales)
            guard try recipe.suitsKernels() else { return nil }
            recipe.inputScale = node.input(4).flatMap(graph.constant)
            guard (node.input(4) == nil) == (recipe.inputScale == nil) else { return nil }
            bias = node.input(3)
        } else {
            guard weight.dataType == .float32 else { return nil }
            recipe = ProductRecipe(form: .float, weight: weight)
            bias = node.input(2)
        }
        if let bias, graph.content(of: bias) == nil { return nil }
        return LinearInstruction.Member(
            name: node.name, recipe: recipe, bias: bias, output: node.output, multiplyAccumulates: try cost(node),
            kind: type(of: node.op).name)
    }

    /// The layer with an activation and a residual fused, where they are the only readers of its result.
    private mutating func fusing(_ member: LinearInstruction.Member) -> LinearInstruction.Member {
        var member = member
        if let next = onlyConsumer(of: member.output), let activation = activation(next.op) {
            member.activation = activation
            member.output = next.output
            member.kind += "+\(type(of: next.op).name)"
            done.insert(next.id)
        }
        if let next = onlyConsumer(of: member.output), let residual = residual(of: next, beside: member.output) {
            member.residual = residual
            member.output = next.output
            member.kind += "+Add"
            done.insert(next.id)
        }
        return member
    }

    private func activation(_ op: any Operator) -> trips_activation? {
        (op as? GELU)?.activation ?? (op as? Unary)?.activation
    }

    // MARK: Convolutions

    /// A convolution with the activation and the residual that follow it, in either order.
    private mutating func convolution(_ node: Node) throws -> (any Instruction)? {
        guard let op = node.op as? Conv, isFloat(node), let input = node.input(0),
            let weight = node.input(1).flatMap(graph.constant),
            let x = graph.type(of: input).constantShape, let output = graph.type(of: node.output).constantShape,
            let layout = try ConvolutionLayout(op, x: x, weight: weight.shape, output: output)
        else { return nil }
        var instruction = ConvolutionInstruction(node, layout, input: input, weight: weight, multiplyAccumulates: try cost(node))
        while let next = onlyConsumer(of: instruction.output) {
            if !instruction.isActivated, let activation = try finishing(next) {
                instruction.fuse(activation, of: next)
            } else if !instruction.hasResidual, let residual = residual(of: next, beside: instruction.output) {
                instruction.fuse(residual: residual, of: next)
            } else {
                break
            }
            done.insert(next.id)
        }
        return instruction
    }

    /// The activation of a node in the kernels' form; nil for other operators.
    private func finishing(_ node: Node) throws -> trips_finishing? {
        if node.op is Clip {
            guard let low = try bound(node, 1, absent: -.infinity), let high = try bound(node, 2, absent: .infinity) else {
                return nil
            }
            return .line(low: low, high: high)
        }
        guard let op = node.op as? Unary else { return activation(node.op).map { .curve($0) } }
        switch op.kind {
        case .hardSwish: return .line(slope: 1 / 6, offset: 0.5, low: 0, high: 1, gated: true)
        case .hardSigmoid: return .line(slope: op.alpha ?? 0.2, offset: op.beta ?? 0.5, low: 0, high: 1)
        default: return activation(op).map { .curve($0) }
        }
    }

    /// A bound of a Clip; nil where it is not constant.
    private func bound(_ node: Node, _ index: Int, absent: Float) throws -> Float? {
        guard let value = node.input(index) else { return absent }
        return try graph.operand(value).tensor()?.elements(Float.self).first
    }

    /// The other operand of a sum, where it is computed before and has the shape of `value`.
    private func residual(of sum: Node, beside value: ValueID) -> ValueID? {
        guard sum.op as? Binary == Binary(.add), sum.inputs.count == 2,
            let residual = sum.inputs.compactMap({ $0 }).first(where: { $0 != value }), isReady(residual),
            graph.type(of: residual) == graph.type(of: value), graph.type(of: sum.output) == graph.type(of: value)
        else { return nil }
        return residual
    }

    // MARK: Other blocks

    private func attention(_ node: Node) throws -> (any Instruction)? {
        guard let op = node.op as? Attention, let inputs = constantShapes(node), inputs.count >= 3,
            let q = inputs[0], let k = inputs[1], inputs[2] == k, q[2] == k[2], isFloat(node),
            inputs.count < 4 || inputs[3].map({ $0.last == k[1] && $0.count <= 4 }) ?? true,
            let output = graph.type(of: node.output).constantShape, q[0] == output[0]
        else { return nil }
        // Single queries of several examples that share their keys are those of one example.
        let joinsExamples = q[1] == 1 && k[0] == 1 && !op.causal
        return AttentionInstruction(
            node: node, op: op, multiplyAccumulates: try cost(node), reads: variables(node), batch: joinsExamples ? 1 : q[0],
            queries: joinsExamples ? q[0] : q[1], keys: k[1], width: q[2], joinsExamples: joinsExamples)
    }

    private func patchEmbedding(_ node: Node) throws -> (any Instruction)? {
        guard node.op is PatchEmbedding, isFloat(node), let weight = node.input(1).flatMap(graph.constant),
            let image = node.input(0).flatMap({ graph.type(of: $0).constantShape }), node.input(0).flatMap(graph.content) == nil,
            let output = graph.type(of: node.output).constantShape, weight.shape.dropFirst().allSatisfy({ $0 > 0 })
        else { return nil }
        return PatchEmbeddingInstruction(
            node: node, recipe: ProductRecipe(form: .float, weight: weight), multiplyAccumulates: try cost(node),
            reads: variables(node),
            image: image, weight: weight.shape, tokens: output[1])
    }

    private func layerNorm(_ node: Node) throws -> (any Instruction)? {
        guard let op = node.op as? LayerNorm, let shape = constantShapes(node)?.first, let shape, let width = shape.last,
            isFloat(node)
        else { return nil }
        return LayerNormInstruction(
            node: node, op: op, reads: variables(node), rows: shape.dropLast().reduce(1, *), width: width)
    }

    private func selection(_ node: Node) throws -> (any Instruction)? {
        guard let op = node.op as? PatchSelection, op.guidance != .random, let tokens = node.input(0),
            let shape = graph.type(of: tokens).constantShape, shape[1] > op.leading,
            node.inputs.prefix(3).allSatisfy({ $0.map { graph.type(of: $0).dataType == .float32 } ?? false })
        else { return nil }
        return SelectionInstruction(
            node: node, op: op, multiplyAccumulates: try cost(node), reads: variables(node), batch: shape[0],
            count: shape[1] - op.leading, width: shape[2])
    }

    // MARK: Parts

    private func onlyConsumer(of value: ValueID) -> Node? {
        guard !graph.isOutput(value) else { return nil }
        let consumers = graph.consumers(of: value)
        guard consumers.count == 1, consumers[0].inputs.count(where: { $0 == value }) == 1, !done.contains(consumers[0].id) else {
            return nil
        }
        return consumers[0]
    }

    private func isReady(_ value: ValueID) -> Bool {
        graph.content(of: value) != nil || graph.producer(of: value) == nil || written.contains(value)
    }

    private func isFloat(_ node: Node) -> Bool {
        node.inputs.allSatisfy { $0.map { graph.type(of: $0).dataType == .float32 } ?? true }
    }

    private func constantShapes(_ node: Node) -> [[Int]?]? {
        node.inputs.map { $0.flatMap { graph.type(of: $0).constantShape } }
    }

    private func variables(_ node: Node) -> [ValueID] { node.inputs.compactMap { $0 }.filter { graph.content(of: $0) == nil } }

    private func cost(_ node: Node) throws -> Int {
        let types = node.inputs.map { $0.map(graph.type(of:)) }
        return try node.op.multiplyAccumulates(types, node.outputs.map(graph.type(of:)))?.constant ?? 0
    }
}
