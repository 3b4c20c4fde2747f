import ModelGraph
import Support
import Tensors

// Operators that move elements between channels and places, as a view, a transposition and another view.

/// Each block × block square of places comes from as many channels.
@Sendable func depthToSpace(_ call: ONNXCall) throws -> [ValueID] {
    enum Mode: String, CaseIterable { case blocksFirst = "DCR", channelsFirst = "CRD" }
    let (shape, block) = try blocks(call)
    let mode = try call.choice("mode", default: Mode.blocksFirst)
    guard let channels = try shape[1].divided(exactlyBy: block.multiplied(by: block)) else {
        throw TripsError.data("channels", found: shape[1], expected: "a multiple of \(block)²")
    }
    let split = mode == .blocksFirst ? [block, block, channels] : [channels, block, block]
    return try rearranged(
        call, [shape[0]] + split + shape[2...], mode == .blocksFirst ? [0, 3, 4, 1, 5, 2] : [0, 1, 4, 2, 5, 3],
        [shape[0], channels, shape[2].multiplied(by: block), shape[3].multiplied(by: block)])
}

/// Each block × block square of places becomes as many channels.
@Sendable func spaceToDepth(_ call: ONNXCall) throws -> [ValueID] {
    let (shape, block) = try blocks(call)
    let sides = try shape[2...].map { side in
        guard let quotient = side.divided(exactlyBy: block) ?? block.constant.flatMap({ side.divided(roundingDownBy: $0) }) else {
            throw TripsError.data("height or width", found: side, expected: "a multiple of \(block)")
        }
        return quotient
    }
    return try rearranged(
        call, shape[..<2] + [sides[0], block, sides[1], block], [0, 3, 5, 1, 2, 4],
        [shape[0], shape[1].multiplied(by: block).multiplied(by: block)] + sides)
}

/// The shape of x [B, C, H, W] and the side of a block.
private func blocks(_ call: ONNXCall) throws -> (shape: [Dimension], block: Dimension) {
    let type = call.type(try call.required(0))
    guard type.rank == 4 else { throw TripsError.data("x of \(call.node.type)", found: type, expected: "rank 4") }
    let block = try call.required("blocksize", call.integer)
    guard block > 0 else { throw TripsError.data("attribute blocksize", found: block, expected: "1 or more") }
    return (type.shape, Dimension(block))
}

private func rearranged(
    _ call: ONNXCall, _ split: [Dimension], _ permutation: [Int], _ joined: [Dimension]
) throws -> [ValueID] {
    let parts = try call.step(Reshape(to: split), [call.required(0), call.sizes(split, "split")], "blocks")
    let transposed = try call.step(Transpose(permutation: permutation), [parts], "transposed")
    return try call.add(Reshape(to: joined), [transposed, call.sizes(joined, "shape")])
}

/// Ones where the column is the row and k, in the shape of a matrix.
@Sendable func eyeLike(_ call: ONNXCall) throws -> [ValueID] {
    let x = try call.required(0)
    guard call.type(x).rank == 2 else { throw TripsError.data("x of EyeLike", found: call.type(x), expected: "rank 2") }
    func places(_ axis: Int) throws -> ValueID {
        let length = try call.step(Shape(start: axis, end: axis + 1), [x], "length")
        return try call.step(Arange(), [call.constant([0], "start"), length, call.constant([1], "step")], "places")
    }
    let rows = try call.step(Unsqueeze(), [places(0), call.constant([1], "axis")], "rows")
    let ones = try call.step(Binary(.add), [rows, call.constant([call.integer("k") ?? 0], "k")], "ones")
    let isOne = try call.step(Binary(.equal), [ones, places(1)], "is_one")
    return try call.add(Cast(to: call.dataType("dtype") ?? call.type(x).dataType), [isOne])
}
