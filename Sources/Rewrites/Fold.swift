import ModelGraph
import Support
import Tensors

/// How often each rewrite of a stage was applied.
public struct AuditTrail: Sendable, CustomStringConvertible {
    public private(set) var counts: [(rewrite: String, count: Int)] = []

    mutating func add(_ rewrite: String, _ count: Int) {
        guard count > 0 else { return }
        if let index = counts.firstIndex(where: { $0.rewrite == rewrite }) {
            counts[index].count += count
        } else {
            counts.append((rewrite, count))
        }
    }

    mutating func add(_ trail: [String: Int]) {
        for (rewrite, count) in trail.sorted(by: { $0.key < $1.key }) { add(rewrite, count) }
    }

    public mutating func merge(_ other: AuditTrail) {
        for (rewrite, count) in other.counts { add(rewrite, count) }
    }

    public var description: String { counts.map { "\($0.count) × \($0.rewrite)" }.joined(separator: "\n") }
}

/// Computes what can be known before the model runs: constants, sizes, values that are the same everywhere; and drops
/// operators that do nothing. Weights stay where they are: what is made of them is computed when they are loaded.
/// - Parameter lookups: also look up constant indices in tables, which the recognition of embeddings must still see.
/// - Throws: `data` where an operator cannot take its operands.
@discardableResult
public func fold(_ graph: inout Graph, lookups: Bool = false) throws -> AuditTrail {
    var trail = AuditTrail()
    trail.add("widen to float32", try graph.promoteHalves())
    for _ in 0..<64 {
        let known = try graph.propagateKnown(lookups: lookups)
        trail.add("known values", known)
        graph.prune()
        let rewritten = try graph.rewrite([DropIdentities(), SimplifyViews()])
        trail.add(rewritten)
        graph.prune()
        if known == 0 && rewritten.isEmpty { break }
    }
    return trail
}

extension Graph {
    /// One pass over the nodes in order. Returns how many values became known.
    fileprivate mutating func propagateKnown(lookups: Bool) throws -> Int {
        var count = 0
        for node in try topologicalOrder() {
            if node.outputs.allSatisfy({ content(of: $0) != nil }) { continue }
            try inferAgain(node)
            let contents = try locating("folding \(node.name)") { try knownOutputs(of: node, lookups: lookups) }
            for (output, content) in zip(node.outputs, contents) {
                guard let content else { continue }
                setContent(content, of: output)
                count += 1
            }
        }
        return count
    }

    private func knownOutputs(of node: Node, lookups: Bool) throws -> [Content?] {
        let inputs = node.inputs.compactMap { $0 }
        if let x = inputs.first {
            if let shape = node.op as? Shape {
                return [try Content(sizes: Array(self.shape(of: x)[shape.axes(rank: type(of: x).rank)]), scalar: false)]
            }
            if node.op is Size { return [try Content(sizes: [product(shape(of: x))], scalar: true)] }
            // Hugging Face picks token types, all of them 0, by places, and asks of places whether they are 0 or more.
            if node.op is GatherElements, let scalar = try evenNumber(x) { return [.splat(scalar)] }
            if (node.op as? Binary)?.kind == .greaterOrEqual, try number(node.input(1)) == 0, try countsUpwards(x) {
                return [.splat(try Tensor(scalar: true))]
            }
        }
        guard inputs.allSatisfy({ content(of: $0) != nil }), !inputs.isEmpty else { return [] }
        if node.op is Gather, !lookups, let table = inputs.first, type(of: table).dataType.isFloatingPoint, type(of: table).rank == 2,
            let indices = node.input(1), type(of: indices).rank > 0 { return [] }
        if let splats = try uniformOutputs(of: node) { return splats }
        if let sizes = try sizeOutputs(of: node) { return sizes }
        return try computedOutputs(of: node)
    }

    /// True for places that begin with 0 or more.
    private func countsUpwards(_ value: ValueID) throws -> Bool {
        guard let (range, _) = producer(of: value, Arange.self), let start = try number(range.input(0)), let step = try number(range.input(2))
        else { return false }
        return start >= 0 && step > 0
    }

    // MARK: The same number everywhere

    private func uniformOutputs(of node: Node) throws -> [Content?]? {
        let chosen = try chosenOperand(node)
        guard let moved = chosen.map({ [$0] }) ?? movedOperands(node) ?? elementwiseOperands(node), !moved.isEmpty else { return nil }
        let scalars = try moved.map { try uniform($0) }
        guard scalars.allSatisfy({ $0 != nil }),
            node.op is ConstantOfShape || chosen != nil || moved.contains(where: isSplat) || isExpansion(node)
        else { return nil }
        let elements = scalars.compactMap { $0 }
        guard let scalar = try uniformResult(node, elements) else { return nil }
        return node.outputs.map { output in scalar.dataType == type(of: output).dataType ? .splat(scalar) : nil }
    }

    private func uniformResult(_ node: Node, _ elements: [Tensor]) throws -> Tensor? {
        if node.op is PaddingMask { return try execute(node.op, [elements[0].reshaped([1, 1])]).first?.reshaped([]) }
        if movedOperands(node) == nil {
            var rest = elements[...]
            return try execute(node.op, node.inputs.map { $0 == nil ? nil : rest.popFirst() }).first?.reshaped([])
        }
        guard let first = elements.first else { return nil }
        let bytes = first.withBytes { Array($0) }
        return elements.allSatisfy { $0.dataType == first.dataType && $0.withBytes { Array($0) } == bytes } ? first : nil
    }

    private func isSplat(_ value: ValueID) -> Bool {
        if case .splat = content(of: value) { return true }
        return false
    }

    private func isExpansion(_ node: Node) -> Bool {
        guard node.op is Expand || node.op is Tile, let x = node.input(0) else { return false }
        return shape(of: node.output) != shape(of: x)
    }

    /// The element, rank 0, that a value is made of.
    private func uniform(_ value: ValueID) throws -> Tensor? {
        switch content(of: value) {
        case .splat(let scalar): return scalar
        case .tensor(let constant): return try elementCount(of: constant.shape) == 1 ? constant.load().reshaped([]) : nil
        case .dimensions, nil: return nil
        }
    }

    /// The operands whose elements an operator only moves; nil where it computes.
    private func movedOperands(_ node: Node) -> [ValueID]? {
        switch node.op {
        case is Reshape, is Transpose, is Squeeze, is Unsqueeze, is Flatten, is Slice, is Gather, is Split, is Tile, is Expand, is Identity,
            is GatherElements, is GatherND:
            return node.input(0).map { [$0] }
        case is Concat: return node.inputs.compactMap { $0 }
        case is ConstantOfShape: return node.input(1).map { [$0] }
        case is Where: return [node.input(1), node.input(2)].compactMap { $0 }
        default: return nil
        }
    }

    /// The operand of Where that all elements come from, where that is known.
    private func chosenOperand(_ node: Node) throws -> ValueID? {
        guard node.op is Where, let condition = node.input(0), case .splat(let scalar) = content(of: condition) else { return nil }
        return try scalar.elements(Bool.self).first == true ? node.input(1) : node.input(2)
    }

    private func elementwiseOperands(_ node: Node) -> [ValueID]? {
        node.op is Unary || node.op is Binary || node.op is Cast || node.op is Clip || (node.op as? PaddingMask)?.causal == false
            ? node.inputs.compactMap { $0 } : nil
    }

    // MARK: Integers made of sizes

    /// Where an operand holds symbols: arithmetic on polynomials, or their movement.
    private func sizeOutputs(of node: Node) throws -> [Content?]? {
        let inputs = node.inputs.compactMap { $0 }
        guard inputs.contains(where: holdsSymbols) else { return nil }
        if let cast = node.op as? Cast { return try cast.to == .int64 || cast.to == .int32 ? moved(node) : [] }
        if let binary = node.op as? Binary { return try [arithmetic(binary.kind, node)] }
        if let unary = node.op as? Unary, unary.kind == .neg, let sizes = try integers(node.input(0)) {
            return [try Content(sizes: sizes.map { try Dimension(0).subtracting($0) }, type(of: node.output))]
        }
        if let reduce = node.op as? Reduce, [.prod, .sum].contains(reduce.kind), let sizes = try integers(node.input(0)),
            try product(shape(of: node.output)) == 1 {
            let result = try reduce.kind == .prod ? product(sizes) : sizes.reduce(Dimension(0)) { try $0.adding($1) }
            return [try Content(sizes: [result], type(of: node.output))]
        }
        return movedOperands(node)?.contains(where: holdsSymbols) == true ? try moved(node) : []
    }

    private func holdsSymbols(_ value: ValueID) -> Bool {
        guard case .dimensions(let sizes) = content(of: value) else { return false }
        return sizes.contains { $0.constant == nil }
    }

    private func integers(_ value: ValueID?) throws -> [Dimension]? {
        guard let value, type(of: value).dataType.isInteger || type(of: value).dataType == .bool,
            let count = try product(shape(of: value)).constant, count <= 4096
        else { return nil }
        return try operand(value).integers()
    }

    /// Runs an operator that moves elements on their numbers instead, and puts the elements themselves in their places.
    private func moved(_ node: Node) throws -> [Content?] {
        let data = movedOperands(node) ?? node.input(0).map { [$0] } ?? []
        var elements: [Dimension] = []
        var operands: [Tensor?] = []
        for input in node.inputs {
            guard let input else { operands.append(nil); continue }
            if data.contains(input) {
                guard let sizes = try integers(input), let shape = type(of: input).constantShape else { return [] }
                operands.append(try Tensor(sizes.indices.map { Int64(elements.count + $0) }, shape: shape))
                elements += sizes
            } else {
                guard let tensor = try smallTensor(input) else { return [] }
                operands.append(tensor)
            }
        }
        let op: any Operator = node.op is Cast ? Identity() : node.op
        return try zip(node.outputs, execute(op, operands)).map { output, places in
            let sizes = try places.elements(Int64.self).map { elements.indices.contains(Int($0)) ? elements[Int($0)] : Dimension(0) }
            return try Content(sizes: sizes, type(of: output))
        }
    }

    private func arithmetic(_ kind: Binary.Kind, _ node: Node) throws -> Content? {
        guard let a = try integers(node.input(0)), let b = try integers(node.input(1)), let shape = type(of: node.output).constantShape,
            let left = node.input(0).flatMap({ type(of: $0).constantShape }), let right = node.input(1).flatMap({ type(of: $0).constantShape })
        else { return nil }
        func places(_ shape: [Int], _ target: [Int]) throws -> [Int64] {
            let numbers = try Tensor((0..<elementCount(of: shape)).map { Int64($0) }, shape: shape)
            let sizes = try Tensor(target.map { Int64($0) }, shape: [target.count])
            return try execute(Expand(), [numbers, sizes])[0].elements()
        }
        let pairs = try zip(places(left, shape), places(right, shape))
        var results: [Dimension] = []
        for (first, second) in pairs {
            guard let result = try combine(kind, a[Int(first)], b[Int(second)]) else { return nil }
            results.append(result)
        }
        return try Content(sizes: results, type(of: node.output))
    }

    private func combine(_ kind: Binary.Kind, _ a: Dimension, _ b: Dimension) throws -> Dimension? {
        func truth(_ holds: Bool?) -> Dimension? { holds.map { $0 ? 1 : 0 } }
        let difference = try a.subtracting(b)
        let isAtLeast = (difference.lowerBound ?? -1) >= 0
        let isAtMost = (try b.subtracting(a).lowerBound ?? -1) >= 0
        let isAbove = (difference.lowerBound ?? 0) > 0
        let isBelow = (try b.subtracting(a).lowerBound ?? 0) > 0
        switch kind {
        case .add: return try a.adding(b)
        case .sub: return difference
        case .mul: return try a.multiplied(by: b)
        case .div:
            if let a = a.constant, let b = b.constant, b != 0, a != .min || b != -1 { return Dimension(a / b) }
            return a.divided(exactlyBy: b) ?? b.constant.flatMap { a.divided(roundingDownBy: $0) }
        case .mod: return a.divided(exactlyBy: b).map { _ in 0 }
        case .max: return isAtLeast ? a : isAtMost ? b : nil
        case .min: return isAtMost ? a : isAtLeast ? b : nil
        case .equal: return truth(difference == 0 ? true : isAbove || isBelow ? false : nil)
        case .less: return truth(isBelow ? true : isAtLeast ? false : nil)
        case .greater: return truth(isAbove ? true : isAtMost ? false : nil)
        case .lessOrEqual: return truth(isAtMost ? true : isAbove ? false : nil)
        case .greaterOrEqual: return truth(isAtLeast ? true : isBelow ? false : nil)
        default: return nil
        }
    }

    // MARK: Numbers

    private static let smallCount = 1 << 16

    private func smallTensor(_ value: ValueID) throws -> Tensor? {
        guard let shape = type(of: value).constantShape, try elementCount(of: shape) <= Graph.smallCount else { return nil }
        switch content(of: value) {
        case .tensor(let constant): return try constant.load()
        case .splat(let scalar):
            let sizes = try Tensor(shape.map { Int64($0) }, shape: [shape.count])
            return try execute(Expand(), [scalar, sizes])[0]
        case .dimensions(let sizes):
            let constants = sizes.compactMap(\.constant)
            guard constants.count == sizes.count else { return nil }
            return try Tensor(constants.map { Int64($0) }, shape: shape).converted(to: type(of: value).dataType)
        case nil: return nil
        }
    }

    /// As `smallTensor`, for values that no tensor holds.
    private func smallConstant(_ value: ValueID) throws -> Constant? {
        guard let tensor = try smallTensor(value) else { return nil }
        return switch content(of: value) {
        case .splat(let scalar): Constant(tensor, identity: "\(type(of: value)) of \(scalar.withBytes { Array($0) })")
        case .dimensions(let sizes): Constant(tensor, identity: "\(type(of: value)) \(sizes)")
        case .tensor, nil: nil
        }
    }

    private func computedOutputs(of node: Node) throws -> [Content?] {
        let types = node.outputs.map(type(of:))
        let isSmall = try types.allSatisfy { type in
            guard let shape = type.constantShape else { return node.op is NonZero }
            return try elementCount(of: shape) <= Graph.smallCount
        }
        if isSmall {
            let operands = try node.inputs.map { input -> Tensor?? in
                guard let input else { return .some(nil) }
                return try smallTensor(input).map { .some($0) }
            }
            if !operands.contains(where: { $0 == nil }) {
                return try execute(node.op, operands.map { $0 ?? nil }).map { .tensor(Constant($0)) }
            }
        }
        return try derivedOutput(of: node).map { [.tensor($0)] } ?? []
    }

    /// Computations, one inside the other, that loading one constant may take. Without a limit, sums of a weight and itself
    /// double them with each operator.
    private static let largestDerivation = 256

    /// What an operator makes of weights, computed when they are loaded; nil where that would take more room than they do.
    private func derivedOutput(of node: Node) throws -> Constant? {
        guard node.outputs.count == 1, let shape = type(of: node.output).constantShape else { return nil }
        let computations = node.inputs.reduce(1) { $0 + ($1.flatMap(constant(of:))?.computations ?? 0) }
        guard computations <= Graph.largestDerivation else { return nil }
        let dataType = type(of: node.output).dataType
        if let x = node.input(0), let constant = constant(of: x) {
            if node.op is Reshape || node.op is Squeeze || node.op is Unsqueeze || node.op is Flatten || node.op is Identity {
                return try constant.reshaped(shape)
            }
            if let transpose = node.op as? Transpose, try transpose.resolved(rank: constant.shape.count) == [1, 0] { return try constant.transposed() }
            if node.op is Cast { return constant.converted(to: dataType) }
        }
        var constants: [Constant] = []
        var places: [Int?] = []
        for input in node.inputs {
            guard let input else { places.append(nil); continue }
            places.append(constants.count)
            guard let constant = try constant(of: input) ?? smallConstant(input) else { return nil }
            constants.append(constant)
        }
        let room = try constants.reduce(0) { try $0 + $1.byteCount }
        guard try byteCount(of: dataType, shape) <= room else { return nil }
        let op = node.op
        return .derived("\(Swift.type(of: op).name) {\(attributeText(op))}", from: constants, dataType, shape) { [places] tensors in
            try execute(op, places.map { $0.map { tensors[$0] } })[0]
        }
    }
}

extension Content {
    /// Integers: a constant where all are numbers.
    init(sizes: [Dimension], scalar: Bool) throws {
        let constants = sizes.compactMap(\.constant)
        self = constants.count == sizes.count
            ? .tensor(try Constant(integers: constants, shape: scalar ? [] : [sizes.count])) : .dimensions(sizes)
    }

    init(sizes: [Dimension], _ type: ValueType) throws {
        let constants = sizes.compactMap(\.constant)
        if constants.count == sizes.count, let shape = type.constantShape {
            let tensor = try Tensor(constants.map { Int64($0) }, shape: shape).converted(to: type.dataType)
            self = .tensor(Constant(tensor, identity: "\(type.dataType) \(shape) \(constants)"))
        } else {
            self = .dimensions(sizes)
        }
    }
}

/// Drops operators whose result is an operand.
struct DropIdentities: Rewrite {
    let name = "drop identities"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let source = try unchanged(node, graph) else { return nil }
        let (from, to) = (graph.type(of: source), graph.type(of: node.output))
        var patch = Patch(for: graph)
        if from == to {
            patch.replace(node.output, with: source)
        } else if node.op is Binary, from.dataType == to.dataType {
            // Zeros may stand there for their shape alone: CLIP gives its class token a batch so.
            let sizes = try patch.add(sizes: to.shape, shape: [to.rank], name: "\(node.name).shape")
            patch.replace(node.output, with: patch.add(Expand(), [source, sizes], name: node.name))
        } else {
            return nil
        }
        return patch
    }

    /// The operand that an operator may hand through, types aside.
    private func unchanged(_ node: Node, _ graph: Graph) throws -> ValueID? {
        guard graph.content(of: node.output) == nil else { return nil }
        switch node.op {
        case is Identity, is Cast, is Expand: return node.input(0)
        case is Concat:
            let parts = node.inputs.compactMap { $0 }.filter { !graph.shape(of: $0).contains(0) }
            return parts.count == 1 ? parts[0] : nil
        case is Pad:
            return try node.input(1).flatMap { try graph.operand($0).constantIntegers() }?.allSatisfy { $0 == 0 } == true ? node.input(0) : nil
        case is Tile:
            return try node.input(1).flatMap { try graph.operand($0).constantIntegers() }?.allSatisfy { $0 == 1 } == true ? node.input(0) : nil
        case is Where:
            return try graph.number(node.input(0)).flatMap { $0 != 0 ? node.input(1) : node.input(2) }
        case let binary as Binary:
            return try neutral(binary.kind, node, graph)
        default: return nil
        }
    }

    /// x + 0, x - 0, x · 1, x / 1, x^1, x and true, x or false. The sum makes +0 of -0, which no other operator tells apart
    /// but division by it.
    private func neutral(_ kind: Binary.Kind, _ node: Node, _ graph: Graph) throws -> ValueID? {
        if kind == .and || kind == .or {
            let (a, b) = (try node.input(0).flatMap(graph.evenNumber), try node.input(1).flatMap(graph.evenNumber))
            func isNeutral(_ x: Tensor?) throws -> Bool { try x?.elements(Bool.self) == [kind == .and] }
            return try isNeutral(b) ? node.input(0) : isNeutral(a) ? node.input(1) : nil
        }
        let (a, b) = (try graph.number(node.input(0)), try graph.number(node.input(1)))
        switch kind {
        case .add: return b == 0 ? node.input(0) : a == 0 ? node.input(1) : nil
        case .mul: return b == 1 ? node.input(0) : a == 1 ? node.input(1) : nil
        case .sub: return b == 0 ? node.input(0) : nil
        case .div, .pow: return b == 1 ? node.input(0) : nil
        default: return nil
        }
    }
}
