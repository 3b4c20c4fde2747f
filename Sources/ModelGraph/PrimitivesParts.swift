import Support
import Tensors

/// Inputs: one or more tensors of one type and rank. Output: them, one behind the other along the axis.
public struct Concat: Operator {
    public var axis: Int

    public init(axis: Int) { self.axis = axis }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let first = try inputs.required(0, "x").type
        let axis = try resolveAxis(axis, rank: first.rank)
        var shape = first.shape
        for index in inputs.indices.dropFirst() {
            let next = try inputs.required(index, "x").typed(first.dataType, "input \(index)")
            var expected = shape
            if next.type.rank == expected.count { expected[axis] = next.type.shape[axis] }
            try next.shaped(expected, "input \(index)")
            shape[axis] = try shape[axis].adding(next.type.shape[axis])
            // A constant size tells more than a symbol that must be equal to it.
            for other in shape.indices where other != axis && shape[other].constant == nil {
                if next.type.shape[other].constant != nil { shape[other] = next.type.shape[other] }
            }
        }
        return [ValueType(first.dataType, shape)]
    }
}

/// Inputs: x; optional sizes of the parts (absent: equal parts, the last may be smaller). Outputs: parts along the axis.
public struct Split: Operator {
    public var axis: Int
    public var outputs: Int

    public init(axis: Int = 0, outputs: Int) {
        self.axis = axis
        self.outputs = outputs
    }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let axis = try resolveAxis(axis, rank: x.rank)
        guard outputs > 0, outputs <= 65536 else {
            throw TripsError.data("number of parts", found: outputs, expected: "1 ... 65536")
        }
        return try parts(of: x.shape[axis], stated: inputs.optional(1)).map { size in
            var shape = x.shape
            shape[axis] = size
            return ValueType(x.dataType, shape)
        }
    }

    private func parts(of size: Dimension, stated: Operand?) throws -> [Dimension] {
        if let stated {
            guard try stated.length("split") == outputs else {
                throw TripsError.data("sizes of parts", found: stated.type, expected: "\(outputs)")
            }
            guard let parts = try stated.integers() else { return Array(repeating: .unknown, count: outputs) }
            let total = try parts.reduce(Dimension(0)) { try $0.adding(checkedSize($1, "size of a part")) }
            guard mayBeEqual(total, size) else { throw TripsError.data("sum of parts", found: total, expected: "\(size)") }
            return parts
        }
        guard let constant = size.constant else {
            return Array(repeating: size.divided(exactlyBy: Dimension(outputs)) ?? .unknown, count: outputs)
        }
        let part = constant.dividedRoundingUp(by: outputs)
        return (0..<outputs).map { index in
            let (start, overflow) = part.multipliedReportingOverflow(by: index)
            return Dimension(overflow ? 0 : min(part, max(0, constant - start)))
        }
    }
}

/// Inputs: x; starts; ends; optional axes (absent: the first ones); optional steps (absent: 1). Output: a part of x.
public struct Slice: Operator {
    public init() {}

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let (starts, ends) = (try inputs.required(1, "starts"), try inputs.required(2, "ends"))
        let count = try starts.length("starts")
        for (index, name) in [(2, "ends"), (3, "axes"), (4, "steps")] {
            guard let operand = inputs.optional(index) else { continue }
            guard try operand.length(name) == count else {
                throw TripsError.data("length of \(name)", found: operand.type, expected: "\(count)")
            }
        }
        var shape = x.shape
        guard let axes = try Slice.axes(inputs.optional(3), count: count, rank: x.rank) else {
            return [ValueType(x.dataType, Array(repeating: .unknown, count: x.rank))]
        }
        let (firsts, lasts) = (try starts.integers(), try ends.integers())
        let steps =
            try inputs.optional(4)?.constantIntegers() ?? (inputs.optional(4) == nil ? Array(repeating: 1, count: count) : nil)
        for (index, axis) in axes.enumerated() {
            guard let first = firsts?[index], let last = lasts?[index], let step = steps?[index] else {
                shape[axis] = .unknown
                continue
            }
            shape[axis] = try Slice.size(of: x.shape[axis], first, last, step)
        }
        return [ValueType(x.dataType, shape)]
    }

    private static func axes(_ stated: Operand?, count: Int, rank: Int) throws -> [Int]? {
        guard let stated else { return try resolveAxes(Array(0..<count), rank: rank) }
        return try stated.constantIntegers().map { try resolveAxes($0, rank: rank) }
    }

    /// The first index and the number of elements of a slice of an axis of constant size.
    package static func bounds(size: Int, start: Int, end: Int, step: Int) throws -> (first: Int, count: Int) {
        guard step != 0, size >= 0 else {
            throw TripsError.data(
                "slice", found: "step \(step) of size \(size)", expected: "another step than 0, a size of 0 or more")
        }
        func clamped(_ index: Int, _ range: ClosedRange<Int>) -> Int {
            min(max(index < 0 ? index + size : index, range.lowerBound), range.upperBound)
        }
        if step > 0 {
            let (first, last) = (clamped(start, 0...size), clamped(end, 0...size))
            return (first, last <= first ? 0 : (last - first - 1) / step + 1)
        }
        guard size > 0 else { return (0, 0) }
        let (first, last) = (clamped(start, 0...(size - 1)), clamped(end, -1...(size - 1)))
        return (first, first <= last ? 0 : Int((first - last - 1).magnitude / step.magnitude) + 1)
    }

    private static func size(of size: Dimension, _ start: Dimension, _ end: Dimension, _ step: Int) throws -> Dimension {
        if let size = size.constant, let start = start.constant, let end = end.constant {
            return Dimension(try bounds(size: size, start: start, end: end, step: step).count)
        }
        guard step != 0 else { throw TripsError.data("step of a slice", found: 0, expected: "another number") }
        if step == -1 {
            return (start.constant.map { $0 == -1 || $0 >= beyond } ?? false) && (end.constant ?? 0) <= -beyond ? size : .unknown
        }
        return try step == 1 ? range(of: size, start, end)?.count ?? .unknown : .unknown
    }

    /// Larger than any size: exporters' words for "to the end".
    private static let beyond = Int(Int32.max)

    /// The first index and the number of elements of a slice with steps of 1; nil where they depend on what the symbols are.
    package static func range(of size: Dimension, _ start: Dimension, _ end: Dimension) throws -> (
        first: Dimension, count: Dimension
    )? {
        if let size = size.constant, let start = start.constant, let end = end.constant {
            let bounds = try bounds(size: size, start: start, end: end, step: 1)
            return (Dimension(bounds.first), Dimension(bounds.count))
        }
        guard let first = try position(start, size), let last = try position(end, size) else { return nil }
        let count = try last.subtracting(first)
        return (count.lowerBound ?? -1) >= 0 ? (first, count) : nil
    }

    /// The index that `index` stands for; nil where that depends on what the symbols are.
    private static func position(_ index: Dimension, _ size: Dimension) throws -> Dimension? {
        guard let constant = index.constant else {
            if index == size { return size }
            // An index by symbol into a table of constant size: beyond its end the model could not run.
            if size.constant != nil { return (index.lowerBound ?? -1) >= 0 ? index : nil }
            return (try size.subtracting(index).lowerBound ?? -1) >= 0 && (index.lowerBound ?? -1) >= 0 ? index : nil
        }
        if constant >= beyond { return size }
        if constant <= -beyond { return 0 }
        guard let bound = size.lowerBound, constant.magnitude <= max(0, bound) else { return constant == 0 ? 0 : nil }
        return constant < 0 ? try size.adding(Dimension(constant)) : index
    }
}

/// Inputs: x; pads, all begins and then all ends, negative ones crop; optional value (absent: 0); optional axes (absent:
/// all). Output: x with more at its borders.
public struct Pad: Operator {
    public enum Mode: String, Sendable, Hashable, Codable, CaseIterable {
        case constant, reflect, edge, wrap
    }
    public var mode: Mode

    public init(mode: Mode = .constant) { self.mode = mode }

    public func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let pads = try inputs.required(1, "pads")
        try inputs.optional(2)?.typed(x.dataType, "value").single("value")
        let unknown = ValueType(x.dataType, Array(repeating: .unknown, count: x.rank))
        var axes = Array(x.shape.indices)
        if let stated = inputs.optional(3) {
            guard let constant = try stated.constantIntegers() else { return [unknown] }
            axes = try resolveAxes(constant, rank: x.rank)
        }
        guard try pads.length("pads") == 2 * axes.count else {
            throw TripsError.data("number of pads", found: pads.type, expected: "\(2 * axes.count)")
        }
        guard let amounts = try pads.integers() else { return [unknown] }
        var shape = x.shape
        for (index, axis) in axes.enumerated() {
            shape[axis] = try checkedSize(
                shape[axis].adding(amounts[index]).adding(amounts[index + axes.count]), "size of padded axis \(axis)")
            if mode != .constant, x.shape[axis] == 0, shape[axis] != 0 {
                throw TripsError.data("padding of an empty axis", found: x, expected: "mode constant")
            }
        }
        return [ValueType(x.dataType, shape)]
    }
}
