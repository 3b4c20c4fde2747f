import ModelGraph
import Support

/// RotaryEmbedding as products and sums, as exporters write it below version 23: each pair of elements of a head is rotated
/// by an angle that depends on the token's place.
@Sendable func rotaryEmbedding(_ call: ONNXCall) throws -> [ValueID] {
    let heads = try RotatedHeads(call)
    let (cosines, sines) = (try heads.angles(1, "cosines"), try heads.angles(2, "sines"))
    func product(_ a: ValueID, _ b: ValueID) throws -> ValueID { try call.step(Binary(.mul), [a, b], "product") }
    let (a, b) = try heads.pairs()
    return try heads.joined(
        call.step(Binary(.sub), [product(a, cosines), product(b, sines)], "rotated"),
        call.step(Binary(.add), [product(a, sines), product(b, cosines)], "rotated"))
}

/// The operand of a RotaryEmbedding, its heads along an axis of their own, and which of their elements are rotated.
private struct RotatedHeads {
    let call: ONNXCall
    /// [B, L, heads, D] where the node's operand has rank 3, else [B, heads, L, D].
    let value: ValueID
    let isFlat: Bool
    /// Elements of a head, of which the first `size` are rotated.
    let width: Int
    let size: Int
    /// Neighbours make a pair, else the halves do.
    let isInterleaved: Bool

    init(_ call: ONNXCall) throws {
        self.call = call
        let x = try call.required(0)
        let heads = try call.integer("num_heads") ?? 0
        isFlat = call.type(x).rank == 3
        guard call.type(x).rank == 4 || isFlat && heads > 0 else {
            throw TripsError.data(
                "x of RotaryEmbedding", found: call.type(x), expected: "rank 4, or rank 3 and attribute num_heads")
        }
        value = try isFlat ? call.step(Reshape(), [x, call.constant([0, 0, heads, -1], "split")], "heads") : x
        guard let width = call.type(value).shape[3].constant else {
            throw TripsError.data("width of a head", found: call.type(value), expected: "a number")
        }
        self.width = width
        let stated = try call.integer("rotary_embedding_dim") ?? 0
        size = stated == 0 ? width : stated
        guard size > 0, size <= width, size % 2 == 0 else {
            throw TripsError.data("elements to rotate", found: size, expected: "an even number up to \(width)")
        }
        isInterleaved = try call.flag("interleaved")
    }

    /// The rows of a table for the tokens, with an axis for the heads.
    func angles(_ index: Int, _ name: String) throws -> ValueID {
        var rows = try call.required(index)
        if let places = call.input(3) { rows = try call.step(Gather(axis: 0), [rows, places], name) }
        guard call.type(rows).rank == 3 else {
            throw TripsError.data(name, found: call.type(rows), expected: "a row for each token")
        }
        return try call.step(Unsqueeze(), [rows, call.constant([isFlat ? 2 : 1], name)], name)
    }

    /// The first and the second elements of all pairs.
    func pairs() throws -> (ValueID, ValueID) {
        isInterleaved
            ? (try cut(0, size, every: 2, "even"), try cut(1, size, every: 2, "odd"))
            : (try cut(0, size / 2, every: 1, "first"), try cut(size / 2, size, every: 1, "second"))
    }

    /// The node's output: pairs back in their places, and after them what is not rotated.
    func joined(_ first: ValueID, _ second: ValueID) throws -> [ValueID] {
        var parts = [first, second]
        if isInterleaved {
            parts = try parts.map { try call.step(Unsqueeze(), [$0, call.constant([4], "pairs")], "pairs") }
            let sizes = try call.constant([0, 0, 0, size], "sizes")
            parts = [try call.step(Reshape(), [call.step(Concat(axis: 4), parts, "pairs"), sizes], "rotated")]
        }
        if size < width { parts.append(try cut(size, width, every: 1, "rest")) }
        let sizes = try call.constant(isFlat ? [0, 0, -1] : [0, 0, 0, -1], "sizes")
        return try call.add(Reshape(), [call.step(Concat(axis: 3), parts, "joined"), sizes])
    }

    private func cut(_ start: Int, _ end: Int, every step: Int, _ name: String) throws -> ValueID {
        let range = try [start, end, 3, step].map { try call.constant([$0], name) }
        return try call.step(Slice(), [value] + range, name)
    }
}
