import ModelGraph
import Support
import Tensors

// What small values hold before the model runs: numbers, and integers made of sizes. Importers follow the integers with
// which exporters compute shapes, as ranks depend on them; folding follows all that is known.

extension Node {
    /// The operands whose elements the operator only moves; nil where it computes.
    package var movedOperands: [ValueID]? {
        switch op {
        case is Reshape, is Transpose, is Squeeze, is Unsqueeze, is Flatten, is Slice, is Gather, is Split, is Tile, is Expand,
            is Identity,
            is GatherElements, is GatherND:
            return input(0).map { [$0] }
        case is Concat: return inputs.compactMap { $0 }
        case is ConstantOfShape: return input(1).map { [$0] }
        case is Where: return [input(1), input(2)].compactMap { $0 }
        default: return nil
        }
    }
}

extension Operator {
    /// Whether the work, or what is held meanwhile, can be far more than operands and results are: a few hundred bytes of a file
    /// may state such an operator. It is left for the run, whose inputs are the user's.
    package var mayOutgrowOperands: Bool {
        self is Conv || self is ConvTranspose || self is MaxPool || self is AveragePool || self is Attention
            || self is OnnxAttention
    }
}

extension Graph {
    /// The elements of a value up to which it is computed before the model runs.
    package static let smallCount = 1 << 16

    /// The same for integers, such as the places that patches have to each other, where that is put off until they are read.
    package static let integerCount = 1 << 17

    /// All numbers of a known value; nil where there are many, or symbols among them.
    package func smallTensor(_ value: ValueID) throws -> Tensor? {
        guard let shape = type(of: value).constantShape, try elementCount(of: shape) <= Graph.smallCount else { return nil }
        return try operand(value).tensor()
    }

    /// The outputs of an operator on known numbers; nil where an operand has many, or symbols among them.
    /// - Throws: `data` where the operator cannot take its operands.
    package func computedOutputs(of node: Node) throws -> [Content?]? {
        guard !node.op.mayOutgrowOperands else { return nil }
        let operands = try node.inputs.map { input -> Tensor?? in
            guard let input else { return .some(nil) }
            return try smallTensor(input).map { .some($0) }
        }
        guard !operands.contains(where: { $0 == nil }) else { return nil }
        return try evaluate(node.op, operands.map { $0 ?? nil }).map { .tensor(Constant($0)) }
    }

    /// The integer outputs of an operator on sizes, by arithmetic on polynomials or by moving them; nil for outputs that
    /// are not determined, and for all of them where no operand has a symbol in it.
    /// - Throws: `data` where the operator cannot take its operands.
    package func sizeOutputs(of node: Node) throws -> [Content?]? {
        if let x = node.input(0), let shape = node.op as? Shape {
            return [try Content(sizes: Array(self.shape(of: x)[shape.axes(rank: type(of: x).rank)]), scalar: false)]
        }
        if let x = node.input(0), node.op is Size { return [try Content(sizes: [product(shape(of: x))], scalar: true)] }
        guard node.inputs.contains(where: { $0.map(holdsSymbols) ?? false }) else { return nil }
        switch node.op {
        case let cast as Cast: return cast.to == .int64 || cast.to == .int32 ? try moved(node) : []
        case let binary as Binary: return [try arithmetic(binary.kind, node)]
        case let unary as Unary where unary.kind == .neg:
            return [
                try integers(node.input(0)).map {
                    try Content(sizes: $0.map { try Dimension(0).subtracting($0) }, type(of: node.output))
                }
            ]
        case let reduce as Reduce where [.prod, .sum].contains(reduce.kind):
            guard let sizes = try integers(node.input(0)), try product(shape(of: node.output)) == 1 else { return [] }
            let result = try reduce.kind == .prod ? product(sizes) : sizes.reduce(Dimension(0)) { try $0.adding($1) }
            return [try Content(sizes: [result], type(of: node.output))]
        case is Arange:
            guard let start = try integers(node.input(0))?.first, let step = try integers(node.input(2))?.first,
                let count = type(of: node.output).constantShape?.first, count <= Graph.smallCount
            else { return [] }
            return [
                try Content(sizes: (0..<count).map { try start.adding(step.multiplied(by: Dimension($0))) }, type(of: node.output))
            ]
        default: return node.movedOperands?.contains(where: holdsSymbols) == true ? try moved(node) : []
        }
    }

    private func holdsSymbols(_ value: ValueID) -> Bool {
        guard case .dimensions(let sizes) = content(of: value) else { return false }
        return sizes.contains { $0.constant == nil }
    }

    private func integers(_ value: ValueID?) throws -> [Dimension]? {
        guard let value, type(of: value).dataType.isInteger || type(of: value).dataType == .bool,
            let count = try product(shape(of: value)).constant, count <= Operand.maximalCount
        else { return nil }
        return try operand(value).integers()
    }

    /// Whether a value has no more elements than sizes are stated by.
    private func statesSizes(_ value: ValueID) throws -> Bool {
        try type(of: value).constantShape.map { try elementCount(of: $0) <= Operand.maximalCount } ?? false
    }

    /// Runs an operator that moves elements on their indices, and arranges the elements accordingly.
    private func moved(_ node: Node) throws -> [Content?] {
        guard try node.outputs.allSatisfy(statesSizes) else { return [] }
        let data = node.movedOperands ?? node.input(0).map { [$0] } ?? []
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
        return try zip(node.outputs, evaluate(op, operands)).map { output, places in
            let sizes = try places.elements(Int64.self).map {
                elements.indices.contains(Int($0)) ? elements[Int($0)] : Dimension(0)
            }
            return try Content(sizes: sizes, type(of: output))
        }
    }

    private func arithmetic(_ kind: Binary.Kind, _ node: Node) throws -> Content? {
        guard try statesSizes(node.output), let a = try integers(node.input(0)), let b = try integers(node.input(1)),
            let shape = type(of: node.output).constantShape,
            let left = node.input(0).flatMap({ type(of: $0).constantShape }),
            let right = node.input(1).flatMap({ type(of: $0).constantShape })
        else { return nil }
        func places(_ shape: [Int], _ target: [Int]) throws -> [Int64] {
            let numbers = try Tensor((0..<elementCount(of: shape)).map { Int64($0) }, shape: shape)
            let sizes = try Tensor(target.map { Int64($0) }, shape: [target.count])
            return try evaluate(Expand(), [numbers, sizes])[0].elements()
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
}
