import Foundation
import ModelGraph
import Tensors

/// The audit trail's name for `DropFixedRounding`.
package let fixedRoundings = "fixed roundings of activations"

/// A rounding to integers of a fixed range and back, as static quantization writes it around each operator, is dropped: layers and
/// attention round what they read by rows, and lose less by that.
///
/// Then nothing saturates at the ends of the range, either. But a quantizer may have left out an activation because saturation does
/// the same: a range from 0 on is taken for a ReLU, and one whose width is a round number for a clip.
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

    /// True for numbers of up to two digits, as people write them into a model; one in ten thousand other ranges is as near by
    /// chance.
    private func isRound(_ width: Double) -> Bool {
        let digits = width / pow(10, floor(log10(width)) - 1)
        return abs(digits - digits.rounded()) <= 1e-6 * digits
    }

    /// True for the results of layers, normalisations and sums. Sums with a single number, as of variance and epsilon, belong to
    /// what an exporter took apart, and products of two computed values to attention.
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
