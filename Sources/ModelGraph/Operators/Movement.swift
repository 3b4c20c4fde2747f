import Support
import Tensors

/// Inputs: x; shape, where one size may be -1: what is left. Output: the same elements in that shape.
package struct Reshape: Operator {
    package static let maximalInputs: Int? = 2
    /// Zeros mean size 0; otherwise the size of the same axis of x.
    package var allowZero: Bool

    package init(allowZero: Bool = false) { self.allowZero = allowZero }

    /// A reshape to sizes of which some are 0, or may turn out to be.
    package init(to sizes: [Dimension]) { self.init(allowZero: sizes.contains { $0.constant ?? 0 == 0 }) }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let stated = try inputs.required(1, "shape")
        guard let sizes = try stated.integers() else {
            return [ValueType(x.dataType, Array(repeating: .unknown, count: try stated.length("shape")))]
        }
        return [ValueType(x.dataType, try shape(of: x, sizes))]
    }

    private func shape(of x: ValueType, _ sizes: [Dimension]) throws -> [Dimension] {
        func mismatch() -> TripsError {
            .data("reshaping \(x)", found: "[\(sizes.map(\.description).joined(separator: ", "))]", expected: "as many elements")
        }
        var shape = sizes
        if !allowZero {
            for index in shape.indices where shape[index] == 0 {
                guard index < x.rank else { throw mismatch() }
                shape[index] = x.shape[index]
            }
        }
        let open = shape.indices.filter { shape[$0] == -1 }
        guard open.count <= 1, !shape.contains(where: { ($0.constant ?? 0) < -1 }) else { throw mismatch() }
        guard let open = open.first else {
            guard mayBeEqual(try product(shape), try product(x.shape)) else { throw mismatch() }
            return shape
        }
        // Equal sizes cancel, also zeros and sums, which division alone could not handle.
        var (rest, divisors) = (x.shape, [Dimension]())
        for (index, size) in shape.enumerated() where index != open {
            if let match = rest.firstIndex(of: size) { rest.remove(at: match) } else { divisors.append(size) }
        }
        let (dividend, divisor) = (try product(rest), try product(divisors))
        guard divisor != 0 else { throw mismatch() }
        if let quotient = dividend.divided(exactlyBy: divisor) {
            shape[open] = quotient
        } else {
            guard dividend.constant == nil || divisor.constant == nil else { throw mismatch() }
            shape[open] = .unknown
        }
        return shape
    }
}

/// Input: x. Output: a matrix; axes before `axis` are its rows, the others its columns.
package struct Flatten: Operator {
    /// Negative: counted from the last.
    package var axis: Int

    package init(axis: Int = 1) { self.axis = axis }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        // The axis may also be the one after the last.
        let axis = try axis == x.rank ? x.rank : resolveAxis(axis, rank: x.rank)
        return [ValueType(x.dataType, [try product(x.shape[..<axis]), try product(x.shape[axis...])])]
    }
}

/// Inputs: x; optional axes of size 1 (absent: all such). Output: x without them.
package struct Squeeze: Operator {
    package static let maximalInputs: Int? = 2
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        guard let stated = inputs.optional(1) else {
            guard x.constantShape != nil else {
                throw TripsError.data("squeezing all axes of a shape with symbols", found: x, expected: "axes")
            }
            return [ValueType(x.dataType, x.shape.filter { $0 != 1 })]
        }
        let rank = try x.rank - stated.length("axes")
        guard rank >= 0 else { throw TripsError.data("squeezed axes", found: stated.type, expected: "at most \(x.rank)") }
        guard try stated.constantIntegers() != nil else {
            return [ValueType(x.dataType, Array(repeating: .unknown, count: rank))]
        }
        let axes = try stated.constantAxes(rank: x.rank)
        for axis in axes where !mayBeEqual(x.shape[axis], 1) {
            throw TripsError.data("squeezed axis \(axis)", found: x, expected: "size 1")
        }
        return [ValueType(x.dataType, x.shape.indices.filter { !axes.contains($0) }.map { x.shape[$0] })]
    }
}

/// Inputs: x; axes of the output. Output: x with new axes of size 1.
package struct Unsqueeze: Operator {
    package static let maximalInputs: Int? = 2
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let stated = try inputs.required(1, "axes")
        let rank = try x.rank + stated.length("axes")
        guard try stated.constantIntegers() != nil else {
            return [ValueType(x.dataType, Array(repeating: .unknown, count: rank))]
        }
        let axes = try stated.constantAxes(rank: rank)
        var sizes = x.shape.makeIterator()
        return [ValueType(x.dataType, (0..<rank).map { axes.contains($0) ? 1 : sizes.next() ?? 1 })]
    }
}

/// The sizes of axes start ..< end of x, as int64. Input: x.
package struct Shape: Operator {
    /// Negative: from the end; beyond the ends: clamped.
    package var start: Int
    /// nil: the rank.
    package var end: Int?

    package init(start: Int = 0, end: Int? = nil) {
        self.start = start
        self.end = end
    }

    /// The axes of an operand of this rank that the shape takes.
    package func axes(rank: Int) -> Range<Int> {
        func clamped(_ axis: Int) -> Int { min(max(axis < 0 ? axis.addingReportingOverflow(rank).partialValue : axis, 0), rank) }
        let (first, last) = (clamped(start), clamped(end ?? rank))
        return first..<max(first, last)
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        [ValueType(.int64, [Dimension(axes(rank: try inputs.required(0, "x").type.rank).count)])]
    }
}

/// The number of elements of x, an int64 scalar. Input: x.
package struct Size: Operator {
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        _ = try inputs.required(0, "x")
        return [ValueType(.int64, [])]
    }
}

/// Inputs: shape; optional value, one element (absent: float32 0). Output: a tensor of that shape, the value everywhere.
package struct ConstantOfShape: Operator {
    package static let maximalInputs: Int? = 2
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let shape = try inputs.required(0, "shape")
        let value = try inputs.optional(1)?.single("value")
        return [ValueType(value?.type.dataType ?? .float32, try shape.statedSizes("shape"))]
    }
}

/// Inputs: start; limit; delta, scalars of one type. Output: start, start + delta, … as long as the limit is not reached.
package struct Arange: Operator {
    package static let maximalInputs: Int? = 3
    package static let name = "Range"

    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let start = try inputs.required(0, "start").single("start")
        let limit = try inputs.required(1, "limit").typed(start.type.dataType, "limit").single("limit")
        let delta = try inputs.required(2, "delta").typed(start.type.dataType, "delta").single("delta")
        return [ValueType(start.type.dataType, [try count(start, limit, delta)])]
    }

    private func count(_ start: Operand, _ limit: Operand, _ delta: Operand) throws -> Dimension {
        if start.type.dataType.isFloatingPoint {
            guard let start = try start.constantNumbers()?.first, let limit = try limit.constantNumbers()?.first,
                let delta = try delta.constantNumbers()?.first
            else { return .unknown }
            let count = ((limit - start) / delta).rounded(.up)
            guard delta != 0, count.isFinite, count < 0x1p62 else {
                throw TripsError.data("range", found: "\(start) to \(limit) by \(delta)", expected: "finitely many steps")
            }
            return Dimension(Int(max(0, count)))
        }
        guard let start = try start.integers()?.first, let limit = try limit.integers()?.first,
            let delta = try delta.constantIntegers()?.first
        else { return .unknown }
        guard delta != 0 else { throw TripsError.data("step of a range", found: 0, expected: "another number") }
        let distance = try limit.subtracting(start)
        if let distance = distance.constant {
            if distance == 0 || (distance < 0) != (delta < 0) { return 0 }
            let (quotient, rest) = distance.magnitude.quotientAndRemainder(dividingBy: delta.magnitude)
            return Dimension(Int(clamping: quotient + (rest == 0 ? 0 : 1)))
        }
        return delta == 1 && (distance.lowerBound ?? -1) >= 0 ? distance : .unknown
    }
}

/// Inputs: x; shape. Output: x broadcast with the shape.
package struct Expand: Operator {
    package static let maximalInputs: Int? = 2
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let sizes = try inputs.required(1, "shape").statedSizes("shape")
        return [ValueType(x.dataType, try broadcastShape([x.shape, sizes]))]
    }
}

/// Inputs: x; repeats, one for each axis. Output: x, laid side by side.
package struct Tile: Operator {
    package static let maximalInputs: Int? = 2
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let repeats = try inputs.required(1, "repeats").statedSizes("repeats")
        guard repeats.count == x.rank else {
            throw TripsError.data("number of repeats", found: repeats.count, expected: "the rank of \(x)")
        }
        let shape = try zip(x.shape, repeats).map { $1 == .unknown ? $1 : try $0.multiplied(by: $1) }
        return [ValueType(x.dataType, shape)]
    }
}

extension Operand {
    /// The sizes that an operand of rank 1 states; unknown ones where only their number is known.
    fileprivate func statedSizes(_ name: String) throws -> [Dimension] {
        guard let sizes = try integers() else { return Array(repeating: .unknown, count: try length(name)) }
        guard type.rank == 1 else { throw TripsError.data("rank of \(name)", found: type, expected: "rank 1") }
        return try sizes.map { try checkedSize($0, "a size in \(name)") }
    }
}

/// Input: x. Output: x with its axes in another order: output axis i is input axis permutation[i].
package struct Transpose: Operator {
    /// nil: the axes in reverse order.
    package var permutation: [Int]?

    package init(permutation: [Int]? = nil) { self.permutation = permutation }

    /// The permutation for an operand of this rank.
    /// - Throws: `data` where it is none.
    package func resolved(rank: Int) throws -> [Int] {
        guard let permutation else { return (0..<rank).reversed() }
        let axes = try resolveAxes(permutation, rank: rank)
        guard axes.count == rank else {
            throw TripsError.data("permutation", found: "\(permutation)", expected: "each of \(rank) axes once")
        }
        return axes
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        return [ValueType(x.dataType, try resolved(rank: x.rank).map { x.shape[$0] })]
    }
}

/// Inputs: one or more tensors of one type and rank. Output: them, one after the other along the axis.
package struct Concat: Operator {
    package static let maximalInputs: Int? = nil
    /// Negative: counted from the last.
    package var axis: Int

    package init(axis: Int) { self.axis = axis }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let first = try inputs.required(0, "x").type
        let axis = try resolveAxis(axis, rank: first.rank)
        var shape = first.shape
        for index in inputs.indices.dropFirst() {
            let next = try inputs.required(index, "x").typed(first.dataType, "input \(index)")
            var expected = shape
            if next.type.rank == expected.count { expected[axis] = next.type.shape[axis] }
            try next.shaped(expected, "input \(index)")
            shape[axis] = try shape[axis].adding(next.type.shape[axis])
            // A constant size says more than a symbol that must be equal to it.
            for other in shape.indices where other != axis && shape[other].constant == nil {
                if next.type.shape[other].constant != nil { shape[other] = next.type.shape[other] }
            }
        }
        return [ValueType(first.dataType, shape)]
    }
}

/// Inputs: x; optional sizes of the parts (absent: equal parts, the last may be smaller). Outputs: parts along the axis.
package struct Split: Operator {
    package static let maximalInputs: Int? = 2
    /// Negative: counted from the last.
    package var axis: Int
    /// The number of parts.
    package var outputs: Int

    package init(axis: Int = 0, outputs: Int) {
        self.axis = axis
        self.outputs = outputs
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
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
package struct Slice: Operator {
    package static let maximalInputs: Int? = 5
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
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

    /// The place that `index` means, counted from the start; nil where that depends on what the symbols are.
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
package struct Pad: Operator {
    package static let maximalInputs: Int? = 4
    /// What stands at the new places: a number, or elements of x (mirrored, the nearest, or from the other side).
    package enum Mode: String, Sendable, Hashable, NamedChoice {
        case constant, reflect, edge, wrap
    }
    package var mode: Mode

    package init(mode: Mode = .constant) { self.mode = mode }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
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
