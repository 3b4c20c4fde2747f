import ModelGraph
import Operators
import Tensors

/// Integers that grow by equal steps along each axis, as exporters compute places: sums of ranges, with axes inserted.
struct AffineIndices {
    var first: Dimension
    /// The difference of neighbours, for each axis; 0 along axes of one element.
    var steps: [Dimension]

    /// Of numbers in row-major order; nil where they grow otherwise.
    init?(_ numbers: [Int64], _ shape: [Int]) {
        guard let first = numbers.first, numbers.count == shape.reduce(1, *) else { return nil }
        var (stride, steps) = (1, shape)
        for axis in shape.indices.reversed() {
            steps[axis] = shape[axis] > 1 ? Int(numbers[stride] &- first) : 0
            stride *= shape[axis]
        }
        for (index, number) in numbers.enumerated() {
            var (rest, expected) = (index, Int(first))
            for axis in shape.indices.reversed() {
                expected &+= rest % shape[axis] &* steps[axis]
                rest /= shape[axis]
            }
            guard number == expected else { return nil }
        }
        self.init(first: Dimension(Int(first)), steps: steps.map { Dimension($0) })
    }

    init(first: Dimension, steps: [Dimension]) {
        self.first = first
        self.steps = steps
    }

    var isOneNumber: Bool { steps.allSatisfy { $0 == 0 } }

    func scaled(by factor: Dimension) throws -> AffineIndices {
        try AffineIndices(first: first.multiplied(by: factor), steps: steps.map { try $0.multiplied(by: factor) })
    }

    /// The sums, broadcast.
    func adding(_ other: AffineIndices) throws -> AffineIndices {
        let rank = max(steps.count, other.steps.count)
        func aligned(_ steps: [Dimension]) -> [Dimension] { Array(repeating: 0, count: rank - steps.count) + steps }
        return try AffineIndices(
            first: first.adding(other.first), steps: zip(aligned(steps), aligned(other.steps)).map { try $0.adding($1) })
    }
}

extension Graph {
    /// The places that a value holds, where its numbers grow by equal steps.
    /// - Throws: `data` where a size overflows.
    func affineIndices(_ value: ValueID?, depth: Int = 12) throws -> AffineIndices? {
        guard let value, depth > 0, type(of: value).dataType == .int64 || type(of: value).dataType == .int32 else { return nil }
        let shape = shape(of: value)
        if content(of: value) != nil { return try knownAffineIndices(value) }
        guard let node = producer(of: value), let x = node.input(0) else { return nil }
        func operand(_ index: Int) throws -> AffineIndices? { try affineIndices(node.input(index), depth: depth - 1) }
        switch node.op {
        case is Arange:
            guard let start = try operand(0), let step = try operand(2) else { return nil }
            return AffineIndices(first: start.first, steps: [shape == [1] ? 0 : step.first])
        case is Cast: return try operand(0)
        case is Reshape, is Squeeze, is Unsqueeze:
            // Axes of one element may come and go.
            guard let inner = try operand(0), self.shape(of: x).filter({ $0 != 1 }) == shape.filter({ $0 != 1 }) else { return nil }
            var rest = zip(inner.steps, self.shape(of: x)).filter { $1 != 1 }.map(\.0)[...]
            return AffineIndices(first: inner.first, steps: shape.map { $0 == 1 ? 0 : rest.removeFirst() })
        case is Expand: return try operand(0)?.adding(AffineIndices(first: 0, steps: shape.map { _ in 0 }))
        case is Slice:
            guard var inner = try operand(0), let ranges = try sliceRanges(node) else { return nil }
            for range in ranges {
                inner.first = try inner.first.adding(range.start.multiplied(by: inner.steps[range.axis]))
                if range.count == 1 { inner.steps[range.axis] = 0 }
            }
            return inner
        case let binary as Binary where binary.kind == .add || binary.kind == .mul:
            guard let a = try operand(0), let b = try operand(1) else { return nil }
            if binary.kind == .add { return try a.adding(b) }
            let zeros = AffineIndices(first: 0, steps: shape.map { _ in 0 })
            return try b.isOneNumber
                ? a.scaled(by: b.first).adding(zeros) : a.isOneNumber ? b.scaled(by: a.first).adding(zeros) : nil
        default: return nil
        }
    }

    private func knownAffineIndices(_ value: ValueID) throws -> AffineIndices? {
        switch content(of: value) {
        case .splat(let scalar):
            let number = try scalar.converted(to: .int64).elements(Int64.self).first
            return number.map { AffineIndices(first: Dimension(Int($0)), steps: shape(of: value).map { _ in 0 }) }
        case .dimensions(let sizes):
            return sizes.count == 1 ? AffineIndices(first: sizes[0], steps: shape(of: value).map { _ in 0 }) : nil
        case .tensor(let constant):
            return try smallTensor(value).flatMap {
                AffineIndices(try $0.converted(to: .int64).elements(Int64.self), constant.shape)
            }
        case nil: return nil
        }
    }

    /// As `affineIndices`, of rows that tuples [..., n] name by their places along n axes of these sizes.
    func affineIndices(ofTuples value: ValueID, along sizes: [Dimension]) throws -> AffineIndices? {
        var parts: [AffineIndices] = []
        if let numbers = try content(of: value) == nil ? nil : smallTensor(value)?.converted(to: .int64).elements(Int64.self),
            let shape = type(of: value).constantShape
        {
            for part in sizes.indices {
                let column = stride(from: part, to: numbers.count, by: sizes.count).map { numbers[$0] }
                if let places = AffineIndices(column, shape.dropLast()) { parts.append(places) }
            }
        } else if let (concat, op) = producer(of: value, Concat.self),
            try resolveAxis(op.axis, rank: type(of: value).rank) == type(of: value).rank - 1
        {
            for input in concat.inputs {
                guard let input, shape(of: input).last == 1, let places = try affineIndices(input) else { return nil }
                parts.append(AffineIndices(first: places.first, steps: places.steps.dropLast()))
            }
        }
        guard parts.count == sizes.count else { return nil }
        return try parts.dropFirst().enumerated().reduce(parts[0]) { rows, part in
            try rows.scaled(by: sizes[part.offset + 1]).adding(part.element)
        }
    }
}
