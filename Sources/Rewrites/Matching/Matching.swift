import ModelGraph
import Support
import Tensors

/// Questions that patterns ask of a graph.
extension Graph {
    /// The node that computes a value, where its operator is of this type.
    func producer<Op: Operator>(of value: ValueID?, _: Op.Type) -> (node: Node, op: Op)? {
        guard let value, content(of: value) == nil, let node = producer(of: value), let op = node.op as? Op else { return nil }
        return (node, op)
    }

    /// The operands of the sum, product, ... that a value is.
    func operands(of value: ValueID?, _ kind: Binary.Kind) -> (a: ValueID, b: ValueID)? {
        guard let (node, op) = producer(of: value, Binary.self), op.kind == kind, let a = node.input(0), let b = node.input(1)
        else { return nil }
        return (a, b)
    }

    /// The operands of a sum or product in both orders; none where the value is no such result.
    func operandsInEitherOrder(of value: ValueID?, _ kind: Binary.Kind) -> [(ValueID, ValueID)] {
        operands(of: value, kind).map { [($0.a, $0.b), ($0.b, $0.a)] } ?? []
    }

    func operand(of value: ValueID?, _ kind: Unary.Kind) -> ValueID? {
        guard let (node, op) = producer(of: value, Unary.self), op.kind == kind else { return nil }
        return node.input(0)
    }

    /// The number that all elements of a known value are; of constants only those of one element are looked at.
    func number(_ value: ValueID?) throws -> Double? {
        guard let value else { return nil }
        if case .dimensions(let sizes) = content(of: value) {
            return sizes.count == 1 ? sizes[0].constant.map { Double($0) } : nil
        }
        return try elements(of: value, atMost: 1)?.numbers().first
    }

    /// The number, rank 0, that all elements of a known value are; nil where they differ, or the tensor has more than `count`.
    func uniformNumber(_ value: ValueID, atMost count: Int = 1 << 20) throws -> Tensor? {
        guard let tensor = try elements(of: value, atMost: count), tensor.byteCount > 0 else { return nil }
        let width = tensor.dataType.byteWidth
        return try tensor.withBytes { bytes in
            guard bytes.indices.dropFirst(width).allSatisfy({ bytes[$0] == bytes[$0 - width] }) else { return nil }
            return try Tensor(tensor.dataType, []) { $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<width])) }
        }
    }

    /// The elements of a known value, or the one, of rank 0, that all of them are; nil where the tensor has more than `count`.
    func elements(of value: ValueID, atMost count: Int) throws -> Tensor? {
        switch content(of: value) {
        case .splat(let scalar): return scalar
        case .tensor(let constant): return try elementCount(of: constant.shape) <= count ? constant.load() : nil
        case .dimensions, nil: return nil
        }
    }

    /// The integers of a small known operand; nil where it is absent or not known.
    func constantIntegers(_ value: ValueID?) throws -> [Int]? { try value.flatMap { try operand($0).constantIntegers() } }

    /// A value and the number that it is multiplied by or divided by; nil where it is no such product.
    func scaled(_ value: ValueID) throws -> (value: ValueID, by: Double)? {
        if let (a, b) = operands(of: value, .mul) {
            if let factor = try number(b), shape(of: value) == shape(of: a) { return (a, factor) }
            if let factor = try number(a), shape(of: value) == shape(of: b) { return (b, factor) }
        }
        if let (a, b) = operands(of: value, .div), let divisor = try number(b), divisor != 0, shape(of: value) == shape(of: a) {
            return (a, 1 / divisor)
        }
        return nil
    }

    /// kept and factor where a value is (1 - kept) · factor, as addends are made of what is kept.
    func scaledInverse(_ value: ValueID) throws -> (kept: ValueID, factor: Double)? {
        guard let (inverse, factor) = try scaled(value), let (one, kept) = operands(of: inverse, .sub), try number(one) == 1 else {
            return nil
        }
        return (kept, factor)
    }

    /// True where nothing but one node reads a value.
    func hasOneUse(_ value: ValueID) -> Bool { consumers(of: value).count == 1 && !isOutput(value) && !isTraced(value) }

    /// A constant row of `width` numbers, whatever leading axes of size 1 it has.
    func row(_ value: ValueID?, width: Dimension) throws -> Constant? {
        guard let value, let constant = constant(of: value), let width = width.constant, constant.shape.last == width,
            constant.shape.dropLast().allSatisfy({ $0 == 1 })
        else { return nil }
        return try constant.reshaped([width])
    }

    /// True where an operand of `axes` names the last axis of `x` alone.
    func reducesLastAxis(_ node: Node, of x: ValueID) throws -> Bool {
        guard let axes = try constantIntegers(node.input(1)), axes.count == 1 else { return false }
        return try resolveAxis(axes[0], rank: type(of: x).rank) == type(of: x).rank - 1
    }
}

/// How far apart two numbers of a source may be that are meant to be equal.
struct Closeness: Sendable {
    /// float32 rounds by 6e-8; float16, whose numbers may have been multiplied, by 5e-4, and bfloat16 by 4e-3.
    let tolerance: Double

    init(of graph: Graph) {
        let narrow = graph.nodes.lazy.flatMap { $0.inputs.lazy.compactMap { $0.flatMap(graph.constant(of:))?.storedType } }
        tolerance =
            switch narrow.first(where: { $0 == .float16 || $0 == .bfloat16 }) {
            case .float16: 1e-3
            case .bfloat16: 8e-3
            default: 1e-6
            }
    }

    /// True where the source's numbers were widened from 16 bits.
    var isNarrow: Bool { tolerance > 1e-6 }

    func callAsFunction(_ left: Double, _ right: Double) -> Bool { abs(left - right) <= tolerance * abs(right) }
}

extension Patch {
    /// Puts an operator in the place of `node`; the value that it computes keeps its name.
    /// - Parameter name: nil: the node's.
    mutating func replace(_ node: Node, in graph: Graph, with op: any Operator, _ inputs: [ValueID?], name: String? = nil) {
        replace(node.output, with: add(op, inputs, name: name ?? node.name, outputName: graph.name(of: node.output)))
    }

    /// Adds integers that are known: sizes, indices, axes.
    mutating func add(sizes: [Dimension], shape: [Int], name: String) throws -> ValueID {
        let type = ValueType(.int64, shape.map { Dimension($0) })
        return add(try Content(sizes: sizes, type), type, name: name)
    }

    /// Adds a Reshape to these sizes.
    mutating func reshape(_ value: ValueID, to shape: [Dimension], name: String, outputName: String? = nil) throws -> ValueID {
        let sizes = try add(sizes: shape, shape: [shape.count], name: "\(name).shape")
        return add(Reshape(to: shape), [value, sizes], name: name, outputName: outputName)
    }

    /// Adds an Expand to these sizes.
    mutating func expand(_ value: ValueID, to shape: [Dimension], name: String, outputName: String? = nil) throws -> ValueID {
        let sizes = try add(sizes: shape, shape: [shape.count], name: "\(name).shape")
        return add(Expand(), [value, sizes], name: name, outputName: outputName)
    }

    /// Adds a Slice that takes `start ..< end` along one axis.
    mutating func slice(
        _ value: ValueID, from start: Dimension, to end: Dimension, axis: Int, name: String, outputName: String? = nil
    ) throws -> ValueID {
        let range = try [start, end, Dimension(axis)].map { try add(sizes: [$0], shape: [1], name: "\(name).range") }
        return add(Slice(), [value] + range, name: name, outputName: outputName)
    }
}
