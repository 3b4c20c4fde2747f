import ModelGraph
import Support

/// RotaryEmbedding as products and sums, as exporters write it below version 23: each pair of elements of a head is turned
/// by an angle that depends on the token's place.
@Sendable func rotaryEmbedding(_ call: ONNXCall) throws -> [ValueID] {
    let x = try call.required(0)
    let (heads, isFlat) = (try call.integer("num_heads") ?? 0, call.type(x).rank == 3)
    guard call.type(x).rank == 4 || isFlat && heads > 0 else {
        throw TripsError.data("x of RotaryEmbedding", found: call.type(x), expected: "rank 4, or rank 3 and attribute num_heads")
    }
    let whole = try isFlat ? call.step(Reshape(), [x, call.constant([0, 0, heads, -1], "split")], "heads") : x
    guard let width = call.type(whole).shape[3].constant else {
        throw TripsError.data("width of a head", found: call.type(whole), expected: "a number")
    }
    let stated = try call.integer("rotary_embedding_dim") ?? 0
    let size = stated == 0 ? width : stated
    guard size > 0, size <= width, size % 2 == 0 else {
        throw TripsError.data("elements to turn", found: size, expected: "an even number up to \(width)")
    }
    func cut(_ start: Int, _ end: Int, every step: Int, _ name: String) throws -> ValueID {
        let range = try [start, end, 3, step].map { try call.constant([$0], name) }
        return try call.step(Slice(), [whole] + range, name)
    }
    func table(_ index: Int, _ name: String) throws -> ValueID {
        var rows = try call.required(index)
        if let places = call.input(3) { rows = try call.step(Gather(axis: 0), [rows, places], name) }
        guard call.type(rows).rank == 3 else {
            throw TripsError.data(name, found: call.type(rows), expected: "a row for each token")
        }
        return try call.step(Unsqueeze(), [rows, call.constant([isFlat ? 2 : 1], name)], name)
    }
    func product(_ a: ValueID, _ b: ValueID) throws -> ValueID { try call.step(Binary(.mul), [a, b], "product") }
    let (cosines, sines) = (try table(1, "cosines"), try table(2, "sines"))
    let isInterleaved = try call.flag("interleaved")
    let a = try isInterleaved ? cut(0, size, every: 2, "even") : cut(0, size / 2, every: 1, "first")
    let b = try isInterleaved ? cut(1, size, every: 2, "odd") : cut(size / 2, size, every: 1, "second")
    var parts = [
        try call.step(Binary(.sub), [product(a, cosines), product(b, sines)], "turned"),
        try call.step(Binary(.add), [product(a, sines), product(b, cosines)], "turned"),
    ]
    if isInterleaved {
        parts = try parts.map { try call.step(Unsqueeze(), [$0, call.constant([4], "pairs")], "pairs") }
        parts = [
            try call.step(
                Reshape(), [call.step(Concat(axis: 4), parts, "pairs"), call.constant([0, 0, 0, size], "sizes")], "turned")
        ]
    }
    if size < width { parts.append(try cut(size, width, every: 1, "rest")) }
    return try call.add(
        Reshape(), [call.step(Concat(axis: 3), parts, "joined"), call.constant(isFlat ? [0, 0, -1] : [0, 0, 0, -1], "sizes")])
}
