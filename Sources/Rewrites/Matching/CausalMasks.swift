import ModelGraph
import Tensors

extension Graph {
    /// True where a value [..., L, L] is 1 for keys up to the query's place and 0 for the later ones, however it was made:
    /// by comparing places, as a triangle of ones, or as a constant; and perhaps multiplied by ones.
    func isCausal(_ value: ValueID, depth: Int = 8) throws -> Bool {
        guard depth > 0, shape(of: value).count >= 2 else { return false }
        if content(of: value) != nil { return try isMask(value) { $0 == ($1 ? 0 : 1) } }
        guard let node = producer(of: value), let x = node.input(0) else { return false }
        switch node.op {
        case is Cast: return try isCausal(x, depth: depth - 1)
        case is Reshape, is Expand, is Tile:
            return shape(of: x).suffix(2) == shape(of: value).suffix(2) && shape(of: x).count >= 2
                ? try isCausal(x, depth: depth - 1) : false
        case let trilu as Trilu:
            let sizes = shape(of: value).suffix(2)
            return try sizes.first == sizes.last && !trilu.upper && (node.input(1) == nil || number(node.input(1)) == 0)
                && number(x) == 1
        case let unary as Unary where unary.kind == .not:
            guard let (compare, op) = producer(of: x, Binary.self), let a = compare.input(0), let b = compare.input(1) else {
                return false
            }
            switch op.kind {
            case .greater: return try countPositions(key: a, query: b)
            case .less: return try countPositions(key: b, query: a)
            default: return false
            }
        case let binary as Binary:
            guard let y = node.input(1) else { return false }
            switch binary.kind {
            case .lessOrEqual: return try countPositions(key: x, query: y)
            case .greaterOrEqual: return try countPositions(key: y, query: x)
            case .mul:
                if try number(y) == 1 { return try isCausal(x, depth: depth - 1) }
                return try number(x) == 1 && isCausal(y, depth: depth - 1)
            default: return false
            }
        default: return false
        }
    }

    /// Elements of a mask up to which its numbers are looked at.
    static let largestMask = 1 << 22

    /// True where a value is a constant [..., L, L] whose numbers for later keys, and for the others, satisfy a condition.
    private func isMask(_ value: ValueID, where suits: (_ number: Float, _ isLater: Bool) -> Bool) throws -> Bool {
        guard let constant = constant(of: value), constant.shape.count >= 2, let size = constant.shape.last, size > 1,
            constant.shape[constant.shape.count - 2] == size, try elementCount(of: constant.shape) <= Graph.largestMask
        else { return false }
        let numbers = try constant.load().converted(to: .float32).elements(Float.self)
        return numbers.indices.allSatisfy { suits(numbers[$0], $0 % size > $0 / size % size) }
    }

    /// True where one value counts the places along the last axis, and the other along the axis before it.
    private func countPositions(key: ValueID, query: ValueID) throws -> Bool {
        let (keys, queries) = (shape(of: key), shape(of: query))
        guard let length = keys.last, queries.count >= 2, queries.last == 1, queries[queries.count - 2] == length,
            keys.dropLast().allSatisfy({ $0 == 1 }), queries.dropLast(2).allSatisfy({ $0 == 1 })
        else { return false }
        func count(_ value: ValueID, axis: Int) throws -> Bool {
            guard let places = try affineIndices(value) else { return false }
            return places.first == 0
                && places.steps.indices.allSatisfy { places.steps[$0] == (places.steps.count - $0 == axis ? 1 : 0) }
        }
        return try count(key, axis: 1) && count(query, axis: 2)
    }

    /// True where a mask adds 0 for keys up to the query's place, and a number that hides for the later ones.
    func hidesLaterKeys(_ value: ValueID) throws -> Bool {
        if constant(of: value) != nil {
            return try type(of: value).dataType.isFloatingPoint
                && isMask(value) { $1 ? Double($0) <= Attention.maskedScore : $0 == 0 }
        }
        if let (kept, factor) = try scaledInverse(value), factor <= Attention.maskedScore { return try isCausal(kept) }
        guard let (choice, _) = producer(of: value, Where.self), let condition = choice.input(0) else { return false }
        return try number(choice.input(1)) == 0 && (number(choice.input(2)) ?? 0) <= Attention.maskedScore && isCausal(condition)
    }
}
