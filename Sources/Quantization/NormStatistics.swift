import ModelGraph
import Support
import Tensors

extension Graph {
    /// Statistics of a value's channels that follow from the layer normalisation before it: there a channel has mean 0 and
    /// variance 1 over the row before it is scaled and shifted, so it spreads around its bias by about its weight. Nil where
    /// none precedes: after a linear layer, GELU or attention, a trained model's weights alone do not determine the channels.
    func normStatistics(of value: ValueID) throws -> ChannelStatistics? {
        guard let node = producer(of: value) else { return nil }
        // Taking rows leaves the channels as they are; taking channels does not.
        if node.op is Gather || node.op is Slice || node.op is PatchSelection, let source = node.input(0) {
            return shape(of: source).last == shape(of: value).last ? try normStatistics(of: source) : nil
        }
        guard node.op is LayerNorm, let weight = try node.input(1).flatMap(constant)?.load(), weight.dataType == .float32 else {
            return nil
        }
        let gain = try weight.elements(Float.self)
        let bias = try node.input(2).flatMap(constant)?.load().elements(Float.self) ?? Array(repeating: 0, count: gain.count)
        // Three deviations: a row of 768 normal numbers has its largest near 3.2.
        return ChannelStatistics(
            largest: zip(gain, bias).map { 3 * abs($0) + abs($1) }, meanSquare: zip(gain, bias).map { $0 * $0 + $1 * $1 })
    }
}
