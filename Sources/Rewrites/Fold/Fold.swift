import ModelGraph
import Operators
import Support
import Tensors

extension Graph {
    /// Computes what can be known before the model runs: constants, sizes, values that are the same everywhere; and drops
    /// operators that do nothing. Weights stay in their files: what is made of them is computed when they are loaded.
    /// - Parameter lookups: also look up constant indices in tables, which the recognition of embeddings must still see.
    /// - Throws: `data` where an operator cannot take its operands.
    @discardableResult
    package mutating func fold(lookups: Bool = false) throws -> AuditTrail {
        var trail = AuditTrail()
        trail.add("widen to float32", try promoteHalves())
        for _ in 0..<64 {
            let known = try propagateKnown(lookups: lookups)
            trail.add("known values", known)
            prune()
            let rewritten = try rewrite([DropIdentities(), SimplifyViews()])
            trail.add(rewritten)
            prune()
            if known == 0 && rewritten.isEmpty { break }
        }
        return trail
    }

    /// One pass over the nodes in order. Returns how many values became known.
    private mutating func propagateKnown(lookups: Bool) throws -> Int {
        var count = 0
        for node in try topologicalOrder() {
            if node.outputs.allSatisfy({ content(of: $0) != nil }) { continue }
            try inferAgain(node)
            let contents = try locating("folding \(node.name)") { try knownOutputs(of: node, lookups: lookups) }
            for (output, content) in zip(node.outputs, contents) {
                guard let content else { continue }
                try determine(output, content)
                count += 1
            }
        }
        return count
    }

    private func knownOutputs(of node: Node, lookups: Bool) throws -> [Content?] {
        let inputs = node.inputs.compactMap { $0 }
        if node.op is Shape || node.op is Size { return try sizeOutputs(of: node) ?? [] }
        if let uniform = try uniformOutput(despiteUnknown: node) { return [uniform] }
        guard inputs.allSatisfy({ content(of: $0) != nil }), !inputs.isEmpty else { return [] }
        if node.op is Gather, !lookups, let table = inputs.first, type(of: table).dataType.isFloatingPoint,
            type(of: table).rank == 2,
            let indices = node.input(1), type(of: indices).rank > 0
        {
            return []
        }
        if let splats = try uniformOutputs(of: node) { return splats }
        if let sizes = try sizeOutputs(of: node) { return sizes }
        if let matrix = try scaledMatrix(of: node) { return [.tensor(matrix)] }
        let isSmall = try node.outputs.allSatisfy { output in
            guard let shape = type(of: output).constantShape else { return node.op is NonZero }
            return try elementCount(of: shape) <= Graph.smallCount
        }
        if isSmall, let computed = try computedOutputs(of: node) { return computed }
        return try derivedOutput(of: node).map { [.tensor($0)] } ?? []
    }

    // MARK: The same number everywhere

    private func uniformOutputs(of node: Node) throws -> [Content?]? {
        let chosen = try chosenOperand(node)
        guard let moved = chosen.map({ [$0] }) ?? node.movedOperands ?? elementwiseOperands(node), !moved.isEmpty else {
            return nil
        }
        let scalars = try moved.map { try uniformNumber($0, atMost: 1) }
        guard scalars.allSatisfy({ $0 != nil }),
            node.op is ConstantOfShape || chosen != nil || moved.contains(where: isSplat) || isExpansion(node)
        else { return nil }
        let elements = scalars.compactMap { $0 }
        guard let scalar = try uniformResult(node, elements) else { return nil }
        return node.outputs.map { output in scalar.dataType == type(of: output).dataType ? .splat(scalar) : nil }
    }

    /// Integers and booleans that are the same everywhere although an operand is not known: what is read from a table of equal
    /// elements, and whether places, counted from 0, are at least 0. Exporters leave such token types and masks.
    private func uniformOutput(despiteUnknown node: Node) throws -> Content? {
        switch node.op {
        case is Gather, is GatherElements, is GatherND, is Slice, is Expand:
            guard let table = node.input(0), !type(of: table).dataType.isFloatingPoint, let scalar = try uniformNumber(table) else {
                return nil
            }
            return .splat(scalar)
        case let binary as Binary where binary.kind == .greaterOrEqual:
            guard let places = try affineIndices(node.input(0)), places.steps.allSatisfy({ ($0.lowerBound ?? -1) >= 0 }),
                let start = places.first.lowerBound, let bound = try number(node.input(1)), Double(start) >= bound
            else { return nil }
            return .splat(try Tensor(scalar: true))
        default: return nil
        }
    }

    private func uniformResult(_ node: Node, _ elements: [Tensor]) throws -> Tensor? {
        if node.op is PaddingMask { return try evaluate(node.op, [elements[0].reshaped([1, 1])]).first?.reshaped([]) }
        if node.movedOperands == nil {
            var rest = elements[...]
            return try evaluate(node.op, node.inputs.map { $0 == nil ? nil : rest.popFirst() }).first?.reshaped([])
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

    /// The operand of Where that all elements come from, where that is known.
    private func chosenOperand(_ node: Node) throws -> ValueID? {
        guard node.op is Where, let condition = node.input(0), case .splat(let scalar) = content(of: condition) else { return nil }
        return try scalar.elements(Bool.self).first == true ? node.input(1) : node.input(2)
    }

    private func elementwiseOperands(_ node: Node) -> [ValueID]? {
        node.op is Unary || node.op is Binary || node.op is Cast || node.op is Clip || (node.op as? QuantizeLinear)?.blockSize == 0
            || (node.op as? DequantizeLinear)?.blockSize == 0 || (node.op as? PaddingMask)?.causal == false
            ? node.inputs.compactMap { $0 } : nil
    }

    // MARK: Weights

    /// As `smallTensor`, for values that no tensor holds.
    private func smallConstant(_ value: ValueID) throws -> Constant? {
        guard let tensor = try smallTensor(value) else { return nil }
        return switch content(of: value) {
        case .splat(let scalar): Constant(tensor, identity: "\(type(of: value)) of \(scalar.withBytes { Array($0) })")
        case .dimensions(let sizes): Constant(tensor, identity: "\(type(of: value)) \(sizes)")
        case .tensor, nil: nil
        }
    }

    /// Computations, one inside the other, that loading one constant may take. Without a limit, sums of a weight and itself
    /// double them with each operator.
    private static let largestDerivation = 256

    /// A matrix of 8-bit integers, which layers may read: uint8 as int8, less 128.
    private func scaledMatrix(of node: Node) throws -> Constant? {
        guard let op = node.op as? DequantizeLinear, op.blockSize == 0,
            let x = node.input(0).flatMap(constant(of:)), x.shape.count == 2, x.dataType == .int8 || x.dataType == .uint8,
            let scale = try node.input(1).flatMap({ try constant(of: $0) ?? smallConstant($0) }), scale.dataType == .float32,
            let zero = try node.input(2).map({ try uniformNumber($0)?.converted(to: .int64).elements(Int64.self).first }) ?? 0
        else { return nil }
        let integers =
            x.dataType == .int8
            ? x
            : .derived("less 128", from: [x], .int8, x.shape) { tensors in
                try Tensor(tensors[0].elements(UInt8.self).map { Int8(bitPattern: $0 ^ 0x80) }, shape: tensors[0].shape)
            }
        return Constant(
            try ScaledIntegers(
                integers, scales: scale.reshaped([elementCount(of: scale.shape)]), axis: resolveAxis(op.axis, rank: 2),
                zero: Int(zero) - (x.dataType == .int8 ? 0 : 128)))
    }

    /// The result of an operator on weights, computed when they are loaded; nil where it would take more room than they do. A
    /// dequantized weight and a table of integers may: computing them in each run would be worse.
    private func derivedOutput(of node: Node) throws -> Constant? {
        guard node.outputs.count == 1, !node.op.mayOutgrowOperands, let shape = type(of: node.output).constantShape else {
            return nil
        }
        let computations = node.inputs.reduce(1) { $0 + ($1.flatMap(constant(of:))?.computations ?? 0) }
        guard computations <= Graph.largestDerivation else { return nil }
        let dataType = type(of: node.output).dataType
        if let x = node.input(0), let constant = constant(of: x) {
            if node.op.isReshape { return try constant.reshaped(shape) }
            if let transpose = node.op as? Transpose, try transpose.resolved(rank: constant.shape.count) == [1, 0] {
                return try constant.transposed()
            }
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
        let isTable = try dataType.isInteger && elementCount(of: shape) <= Graph.integerCount
        guard try byteCount(of: dataType, shape) <= room || isTable || node.op is DequantizeLinear else { return nil }
        let op = node.op
        // A Clip without an upper bound is not one without a lower: which operands are absent is part of the identity.
        let absent = places.indices.filter { places[$0] == nil }
        return .derived("\(Swift.type(of: op).name) {\(attributeText(op))} without \(absent)", from: constants, dataType, shape) {
            [places] tensors in
            try evaluate(op, places.map { $0.map { tensors[$0] } })[0]
        }
    }
}
