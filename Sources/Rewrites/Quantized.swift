import Foundation
import ModelGraph
import Support
import Tensors

/// Products of integers that x becomes as the model runs, as ONNX Runtime's dynamic quantization writes them, become products of
/// x itself and the numbers that the weight's integers stand for. How x is rounded is then the layer's affair: see
/// `readScaledIntegers`.
struct LiftDynamicQuantization: Rewrite {
    let name = "dynamic quantization"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let output = node.outputs.first, let parts = parts(of: output, graph), let x = parts.quantizing.input(0),
            let weight = parts.product.input(1), let integers = graph.constant(of: weight)
        else { return nil }
        let (isConvolution, rank) = (parts.product.op is ConvInteger, integers.shape.count)
        guard rank >= 2, let count = isConvolution ? integers.shape.first : integers.shape.last,
            let scale = try factors(parts.scale, count, of: isConvolution ? rank - 2 : 0, graph)
        else { return nil }
        var patch = Patch(for: graph)
        var operands: [ValueID?] = [weight, patch.add(scale, name: graph.name(of: parts.scale))]
        if let zero = parts.product.input(3) {
            guard let zeros = try factors(zero, count, of: 0, graph), zeros.shape == scale.shape else { return nil }
            operands.append(patch.add(zeros, name: graph.name(of: zero)))
        }
        let dequantize = DequantizeLinear(axis: isConvolution ? 0 : -1)
        let numbers = patch.add(dequantize, operands, name: "\(parts.product.name).weight", outputName: graph.name(of: weight))
        let op: any Operator = (parts.product.op as? ConvInteger)?.convolution ?? MatMul()
        patch.replace(output, with: patch.add(op, [x, numbers], name: parts.product.name, outputName: graph.name(of: output)))
        return patch
    }

    /// The integer product, what makes the integers of x, and the scales of the weight.
    private func parts(of value: ValueID, _ graph: Graph) -> (product: Node, quantizing: Node, scale: ValueID)? {
        var factors = self.factors(of: value, graph)
        guard factors.count == 3, let sums = factors.firstIndex(where: { graph.producer(of: $0, Cast.self)?.op.to == .float32 }),
            let product = graph.producer(of: factors.remove(at: sums), Cast.self)?.node.input(0).flatMap(graph.producer(of:)),
            product.op is MatMulInteger || product.op is ConvInteger,
            let (quantizing, _) = graph.producer(of: product.input(0), DynamicQuantizeLinear.self),
            product.input(0) == quantizing.outputs[0], product.input(2) == quantizing.outputs[2],
            let own = factors.firstIndex(of: quantizing.outputs[1])
        else { return nil }
        factors.remove(at: own)
        return (product, quantizing, factors[0])
    }

    /// The factors of a product of products.
    private func factors(of value: ValueID, _ graph: Graph, depth: Int = 2) -> [ValueID] {
        guard depth > 0, let (a, b) = graph.operands(of: value, .mul) else { return [value] }
        return factors(of: a, graph, depth: depth - 1) + factors(of: b, graph, depth: depth - 1)
    }

    /// Constants, one or `count` of them, of rank 0 or 1.
    /// - Parameter axes: axes of size 1 behind those that differ.
    private func factors(_ value: ValueID, _ count: Int, of axes: Int, _ graph: Graph) throws -> Constant? {
        guard let constant = graph.constant(of: value) else { return nil }
        if try elementCount(of: constant.shape) == 1 { return try constant.reshaped([]) }
        let axis = constant.shape.count - 1 - axes
        guard constant.shape.indices.allSatisfy({ constant.shape[$0] == ($0 == axis ? count : 1) }) else { return nil }
        return try constant.reshaped([count])
    }
}

/// Numbers that become integers as the model runs and numbers again are taken as they are, as `LiftDynamicQuantization` does where
/// the product between is one of integers.
struct DropDynamicRounding: Rewrite {
    let name = "dynamic roundings of activations"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard node.op is DequantizeLinear, let (rounding, _) = graph.producer(of: node.input(0), DynamicQuantizeLinear.self),
            node.inputs == rounding.outputs, let x = rounding.input(0)
        else { return nil }
        var patch = Patch(for: graph)
        patch.replace(node.output, with: x)
        return patch
    }
}

/// Integers that are moved about and then become numbers become numbers first, so that what made them stands before that.
struct LiftMovedIntegers: Rewrite {
    let name = "moved integers"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let op = node.op as? DequantizeLinear, op.blockSize == 0, let integers = node.input(0),
            graph.content(of: integers) == nil, let mover = graph.producer(of: integers),
            !(mover.op is Where || mover.op is ConstantOfShape), let count = mover.movedOperands?.count,
            let index = mover.outputs.firstIndex(of: integers),
            node.inputs.dropFirst().allSatisfy({ $0.map { graph.shape(of: $0).isOne } ?? true })
        else { return nil }
        var patch = Patch(for: graph)
        let numbers = mover.inputs.prefix(count).map { operand in
            operand.map { patch.add(op, [$0] + node.inputs.dropFirst(), name: node.name, outputName: graph.name(of: $0)) }
        }
        let names = mover.outputs.map { $0 == integers ? graph.name(of: node.output) : nil }
        let operands = numbers + mover.inputs.dropFirst(count)
        let moved = patch.add(mover.op, operands, name: mover.name, outputNames: names, outputCount: mover.outputs.count)
        patch.replace(node.output, with: moved[index])
        return patch
    }
}

/// The audit trail's name for `DropFixedRounding`.
public let fixedRoundings = "fixed roundings of activations"

/// Numbers that become integers of a fixed range and numbers again, as static quantization writes it around each operator, are
/// taken as they are: layers and attention round what they read by rows, and lose less by that.
///
/// Nothing saturates at the ends of the range either, but where the quantizer may have left out an activation in front, as the
/// integers do the same: a range from 0 on stands for ReLU, and one whose width is a round number for a clip.
struct DropFixedRounding: Rewrite {
    let name = fixedRoundings

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let op = node.op as? DequantizeLinear, op.blockSize == 0, let integers = node.input(0),
            let (rounding, roundingOp) = graph.producer(of: integers, QuantizeLinear.self), roundingOp.blockSize == 0,
            let x = rounding.input(0), graph.content(of: x) == nil,
            let scale = try graph.number(node.input(1)), try graph.number(rounding.input(1)) == scale, scale > 0,
            let zero = try zeroPoint(node, graph), try zeroPoint(rounding, graph) == zero,
            let levels = levels(graph.type(of: integers).dataType),
            graph.type(of: x).dataType == graph.type(of: node.output).dataType
        else { return nil }
        var patch = Patch(for: graph)
        let width = (levels.upperBound - levels.lowerBound) * scale
        guard scale.isFinite, zero == levels.lowerBound || isRound(width), try mayStandBeforeActivation(x, graph) else {
            patch.replace(node.output, with: x)
            return patch
        }
        let range = try [levels.lowerBound, levels.upperBound].map {
            patch.add(
                try Constant(Tensor(scalar: ($0 - zero) * scale).converted(to: graph.type(of: x).dataType)),
                name: "\(node.name).range")
        }
        patch.replace(node, in: graph, with: Clip(), [x] + range)
        return patch
    }

    private func zeroPoint(_ node: Node, _ graph: Graph) throws -> Double? {
        guard let zero = node.input(2) else { return 0 }
        return try graph.number(zero)
    }

    /// The integers of the types that activations are rounded to.
    private func levels(_ type: DataType) -> ClosedRange<Double>? {
        switch type {
        case .int8: -128...127
        case .uint8: 0...255
        case .int16: -32768...32767
        case .uint16: 0...65535
        default: nil
        }
    }

    /// True for numbers of up to two digits, as people write them into a model; of other ranges one in ten thousand is as near.
    private func isRound(_ width: Double) -> Bool {
        let digits = width / pow(10, floor(log10(width)) - 1)
        return abs(digits - digits.rounded()) <= 1e-6 * digits
    }

    /// True for what layers, normalisations and sums make. Sums with a single number, as of variance and epsilon, belong to what
    /// an exporter took apart, and products of two computed values to attention.
    private func mayStandBeforeActivation(_ x: ValueID, _ graph: Graph) throws -> Bool {
        guard let node = graph.producer(of: x) else { return false }
        switch node.op {
        case is MatMul: return node.inputs.contains { $0.flatMap(graph.content(of:)) != nil }
        case is Gemm, is Linear, is Conv, is ConvTranspose, is BatchNormalization, is LayerNormalization, is LayerNorm,
            is GroupNormalization, is InstanceNormalization:
            return true
        case let binary as Binary: return try binary.kind == .add && node.inputs.allSatisfy { try graph.number($0) == nil }
        default: return false
        }
    }
}

extension [ModelGraph.Dimension] {
    /// True for [], [1], [1, 1], ...
    fileprivate var isOne: Bool { allSatisfy { $0 == 1 } }
}

/// What a source does in 8 bits beside the weights that it has as integers.
public struct SourceArithmetic: Sendable {
    /// What linear layers read.
    public var layers: ActivationPrecision
    /// The products of attention.
    public var attention: ActivationPrecision

    public init(layers: ActivationPrecision = .float32, attention: ActivationPrecision = .float32) {
        self.layers = layers
        self.attention = attention
    }

    /// - Parameter graph: as imported, folded but not fused.
    public init(of graph: Graph) {
        self.init()
        func isRounded(_ value: ValueID?) -> Bool {
            guard let (node, _) = graph.producer(of: value, DequantizeLinear.self) else { return false }
            return graph.producer(of: node.input(0), QuantizeLinear.self) != nil
        }
        if graph.nodes.contains(where: { $0.op is DynamicQuantizeLinear || $0.op is QuantizeLinear }) { layers = .int8 }
        if graph.nodes.contains(where: { $0.op is MatMul && isRounded($0.input(0)) && isRounded($0.input(1)) }) {
            attention = .int8
        }
    }
}

extension Graph {
    /// Lets linear layers and embeddings whose weights a source has as integers read those. It comes last: what recognises or changes
    /// layers sees numbers.
    /// - Returns: how often that was done.
    @discardableResult
    public mutating func readScaledIntegers(arithmetic: SourceArithmetic) throws -> AuditTrail {
        var trail = AuditTrail()
        trail.add(try rewrite([ReadScaledIntegers(activations: arithmetic.layers)]))
        if arithmetic.attention == .int8 { try quantizeAttention() }
        prune()
        try tidyNames()
        return trail
    }
}

private struct ReadScaledIntegers: Rewrite {
    let activations: ActivationPrecision
    let name = "weights as integers"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard node.op is Linear || node.op is Embedding, let weight = node.input(1),
            let found = graph.constant(of: weight)?.scaledIntegers, found.integers.shape[1] > 0
        else { return nil }
        let centred = try found.aroundZero()
        // Of a sum over x · W, what the zero point adds would depend on x.
        guard let parts = centred ?? (node.op is Embedding && found.scales.shape == [1] ? found : nil),
            let scales = try parts.rowScales()
        else { return nil }
        let (outputs, inputs, name) = (parts.integers.shape[0], parts.integers.shape[1], graph.name(of: weight))
        var patch = Patch(for: graph)
        let integers = patch.add(parts.integers, name: "\(name).int8")
        if node.op is Linear {
            let factors = patch.add(try scales.reshaped([outputs, 1]), name: "\(name).scales")
            let op = QuantizedLinear(groupSize: inputs, activations: activations)
            patch.replace(node, in: graph, with: op, [node.input(0), integers, factors, node.input(2)])
            return patch
        }
        let operands = [node.input(0), integers, patch.add(scales, name: "\(name).scales")] + node.inputs.dropFirst(2)
        guard parts.zero != 0 else {
            patch.replace(node, in: graph, with: QuantizedEmbedding(), operands)
            return patch
        }
        let rows = patch.add(QuantizedEmbedding(), operands, name: node.name)
        let offset = Constant.derived("times \(-parts.zero)", from: [parts.scales], .float32, []) { tensors in
            try Tensor(scalar: Float(-parts.zero) * tensors[0].elements(Float.self)[0])
        }
        patch.replace(node, in: graph, with: Binary(.add), [rows, patch.add(offset, name: "\(name).offset")])
        return patch
    }
}
