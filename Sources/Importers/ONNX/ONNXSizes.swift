import ModelGraph
import Support
import Tensors

// Exporters state shapes by small integer computations (Shape, Gather, Concat, …). Ranks may depend on them, so they
// are followed while the graph is built, as ONNX's own shape inference does. Everything else that can be computed before
// the model runs is left to the rewrites.

extension Graph {
    /// Records the integers that the node's outputs hold, where they follow from sizes and constants.
    mutating func propagateSizes(through node: Node) throws {
        guard let type = node.outputs.first.map(type(of:)), type.dataType.isInteger || type.dataType == .bool,
            let lists = try sizes(of: node)
        else { return }
        for (output, list) in zip(node.outputs, lists) {
            let type = self.type(of: output)
            guard let shape = type.constantShape, try elementCount(of: shape) == list.count else { continue }
            let constants = list.compactMap(\.constant)
            if constants.count == list.count {
                let tensor = try Tensor(constants.map { Int64($0) }, shape: shape).converted(to: type.dataType)
                setContent(.tensor(Constant(tensor, identity: "\(type.dataType.rawValue)\(shape)\(constants)")), of: output)
            } else if type.dataType.isInteger {
                setContent(.dimensions(list), of: output)
            }
        }
    }

    /// The integers of each output, row-major; nil where they are not known.
    private func sizes(of node: Node) throws -> [[Dimension]]? {
        guard let first = node.input(0) else { return nil }
        let shape = self.shape(of: first)
        if let op = node.op as? Shape { return [Array(shape[op.axes(rank: shape.count)])] }
        if node.op is Size { return [[try product(shape)]] }
        let lists = try node.inputs.map { try $0.flatMap { try integers($0) } }
        guard let x = lists[0] else { return nil }
        func list(_ index: Int) -> [Dimension]? { index < lists.count ? lists[index] : nil }
        func numbers(_ index: Int) -> [Int]? {
            list(index).flatMap { list in list.allSatisfy { $0.constant != nil } ? list.compactMap(\.constant) : nil }
        }
        switch node.op {
        case is Cast, is Reshape, is Squeeze, is Unsqueeze, is Flatten, is Identity: return [x]
        case is Concat:
            guard shape.count == 1, lists.allSatisfy({ $0 != nil }) else { return nil }
            return [lists.flatMap { $0 ?? [] }]
        case is Gather:
            guard shape.count == 1, let indices = numbers(1) else { return nil }
            let places = indices.map { $0 < 0 ? $0 + x.count : $0 }
            return places.allSatisfy(x.indices.contains) ? [places.map { x[$0] }] : nil
        case is Slice:
            guard shape.count == 1, let start = numbers(1)?.first, let end = numbers(2)?.first else { return nil }
            guard let step = node.input(4) == nil ? 1 : numbers(4)?.first else { return nil }
            let bounds = try Slice.bounds(size: x.count, start: start, end: end, step: step)
            return [(0..<bounds.count).map { x[bounds.first + $0 * step] }]
        case is Split:
            guard shape.count == 1 else { return nil }
            var rest = x[...]
            return node.outputs.map { output in
                let part = rest.prefix(self.shape(of: output)[0].constant ?? 0)
                rest = rest.dropFirst(part.count)
                return Array(part)
            }
        case is ConstantOfShape:
            guard let value = list(1)?.first, let count = try smallCount(node.output) else { return nil }
            return [Array(repeating: value, count: count)]
        case is Arange:
            guard let start = x.first, let step = numbers(2)?.first, let count = try smallCount(node.output) else { return nil }
            return [try (0..<count).map { try start.adding(Dimension(step).multiplied(by: Dimension($0))) }]
        case let op as Reduce where op.kind == .prod || op.kind == .sum:
            guard try smallCount(node.output) == 1 else { return nil }
            return [[op.kind == .prod ? try product(x) : try x.reduce(Dimension(0)) { try $0.adding($1) }]]
        case let op as Unary where op.kind == .neg: return [try x.map { try Dimension(0).subtracting($0) }]
        case let op as Binary:
            guard let y = list(1) else { return nil }
            return try paired(x, y).flatMap { pairs in try combined(op.kind, pairs).map { [$0] } }
        case is Where:
            guard let condition = numbers(0), let y = list(1), let z = list(2), let pairs = paired(y, z) else { return nil }
            guard condition.count == pairs.count || condition.count == 1 else { return nil }
            return [pairs.enumerated().map { condition[condition.count == 1 ? 0 : $0] != 0 ? $1.0 : $1.1 }]
        default: return nil
        }
    }

    private func integers(_ value: ValueID) throws -> [Dimension]? {
        let type = self.type(of: value)
        guard type.dataType.isInteger || type.dataType == .bool, type.rank <= 1, try smallCount(value) != nil else { return nil }
        return try operand(value).integers()
    }

    /// The number of elements, where it is one that a shape may have.
    private func smallCount(_ value: ValueID) throws -> Int? {
        try type(of: value).constantShape.flatMap { shape in
            let count = try elementCount(of: shape)
            return count <= 64 ? count : nil
        }
    }
}

/// Operands of equal length, or of one element and any.
private func paired(_ x: [Dimension], _ y: [Dimension]) -> [(Dimension, Dimension)]? {
    if x.count == y.count { return Array(zip(x, y)) }
    if y.count == 1 { return x.map { ($0, y[0]) } }
    return x.count == 1 ? y.map { (x[0], $0) } : nil
}

private func combined(_ kind: Binary.Kind, _ pairs: [(Dimension, Dimension)]) throws -> [Dimension]? {
    let results = try pairs.map { try combined(kind, $0, $1) }
    return results.allSatisfy { $0 != nil } ? results.compactMap { $0 } : nil
}

private func combined(_ kind: Binary.Kind, _ x: Dimension, _ y: Dimension) throws -> Dimension? {
    switch kind {
    case .add: return try x.adding(y)
    case .sub: return try x.subtracting(y)
    case .mul: return try x.multiplied(by: y)
    case .div:
        if let quotient = x.divided(exactlyBy: y) { return quotient }
        guard let x = x.constant, let y = y.constant, y != 0 else { return nil }
        let (quotient, overflow) = x.dividedReportingOverflow(by: y)
        return overflow ? nil : Dimension(quotient)
    case .mod:
        guard let x = x.constant, let y = y.constant, y > 0 else { return nil }
        return Dimension(x % y + (x % y < 0 ? y : 0))
    default: break
    }
    // A size is positive, so it differs from 0 and from -1, which is what exporters compare with.
    let difference = try x.subtracting(y)
    guard let sign = difference.constant?.signum() ?? ((difference.lowerBound ?? 0) > 0 ? 1 : nil) else { return nil }
    switch kind {
    case .min: return sign > 0 ? y : x
    case .max: return sign > 0 ? x : y
    case .equal: return sign == 0 ? 1 : 0
    case .less: return sign < 0 ? 1 : 0
    case .lessOrEqual: return sign <= 0 ? 1 : 0
    case .greater: return sign > 0 ? 1 : 0
    case .greaterOrEqual: return sign >= 0 ? 1 : 0
    default: return nil
    }
}
