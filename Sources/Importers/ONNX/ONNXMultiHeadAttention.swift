import ModelGraph
import Support
import Tensors

extension ONNXRules {
    /// Attention of ONNX Runtime whose queries, keys and values are projected before.
    @Sendable static func multiHeadAttention(_ call: ONNXCall) throws -> [ValueID] {
        for (index, name) in [(6, "past key"), (7, "past value"), (8, "past sequence length"), (9, "cache indirection")] {
            try call.refuse(index, name)
        }
        guard call.node.outputs.dropFirst().allSatisfy(\.isEmpty) else {
            throw TripsError.data("outputs of MultiHeadAttention", found: "present keys or scores", expected: "none of these")
        }
        let heads = try call.attentionHeads()
        let operands = try biased(call, projections(call)).enumerated().map { index, rows in
            call.type(rows).rank == 4 ? rows : try call.split(rows, into: heads, "\(index)")
        }
        return try call.attended(operands, addend: call.input(5), mask: call.input(4))
    }

    /// Rows [B, L, heads · D] of queries, keys and values. Those of cross-attention may be [B, heads, L, D].
    private static func projections(_ call: ONNXCall) throws -> [ValueID] {
        let query = try call.required(0)
        if call.type(query).rank == 5 { return try unpacked(call, query, count: 3) }
        let key = try call.required(1)
        let others = try call.type(key).rank == 5 ? unpacked(call, key, count: 2) : [key, call.required(2)]
        for (value, ranks) in zip([query] + others, [3...3, 3...4, 3...4]) where !ranks.contains(call.type(value).rank) {
            throw TripsError.data(
                "operand of MultiHeadAttention", found: call.type(value),
                expected: "a query of rank 3, a key and a value of rank 3 or 4, or what packs them, of rank 5")
        }
        return [query] + others
    }

    /// What is packed head by head: [B, L, heads, count, D].
    private static func unpacked(_ call: ONNXCall, _ packed: ValueID, count: Int) throws -> [ValueID] {
        try call.steps(Split(axis: 3, outputs: count), [packed], "unpacked").map {
            try call.step(Reshape(), [$0, call.constant([0, 0, -1], "width")], "rows")
        }
    }

    /// One bias is for all three projections. Heads that are apart have theirs already.
    private static func biased(_ call: ONNXCall, _ projections: [ValueID]) throws -> [ValueID] {
        guard let bias = call.input(3) else { return projections }
        let widths = try projections.map { projection in
            let shape = call.type(projection).shape
            return try shape.count == 4 ? shape[1].multiplied(by: shape[3]) : shape[2]
        }
        let parts = try call.steps(Split(axis: 0, outputs: 3), [bias, call.sizes(widths, "widths")], "bias")
        return try zip(projections, parts).map { projection, part in
            call.type(projection).rank == 4 ? projection : try call.step(Binary(.add), [projection, part], "projection")
        }
    }
}

/// What ONNX Runtime's operators for attention have in common.
extension ONNXCall {
    func attentionHeads() throws -> Int {
        let heads = try required("num_heads", integer)
        guard heads > 0 else { throw TripsError.data("attribute num_heads", found: heads, expected: "1 or more") }
        return heads
    }

    /// [B, L, heads · D] as [B, heads, L, D].
    func split(_ rows: ValueID, into heads: Int, _ name: String) throws -> ValueID {
        let byHead = try step(Reshape(), [rows, constant([0, 0, heads, -1], "heads_\(name)")], "split_\(name)")
        return try step(Transpose(permutation: [0, 2, 1, 3]), [byHead], "operand_\(name)")
    }

    /// The node's output [B, L, heads · D].
    /// - Parameters:
    ///   - operands: queries, keys and values [B, heads, L, D].
    ///   - addend: what is added to the scores.
    ///   - mask: as `hiding(_:keys:)` takes it.
    func attended(_ operands: [ValueID], addend: ValueID?, mask: ValueID?) throws -> [ValueID] {
        var scores = addend
        let maskedValue = try float("mask_filter_value").map { Double($0) } ?? Attention.maskedScore
        if let mask {
            let masked = try hiding(mask, keys: operands[1], maskedValue)
            scores = try scores.map { try step(Binary(.add), [$0, masked], "addend") } ?? masked
        }
        let scale = try float("scale") ?? 0
        let op = OnnxAttention(scale: scale == 0 ? nil : scale, causal: try flag("unidirectional"))
        let rows = try step(op, operands + [scores], "rows")
        let transposed = try step(Transpose(permutation: [0, 2, 1, 3]), [rows], "transposed")
        return try add(Reshape(), [transposed, constant([0, 0, -1], "shape")])
    }

    /// What hides keys [B, heads, M, D] where it is added to their scores.
    /// - Parameter mask: 1 where a key is seen, [B, M] or [B, L, M]; or how many keys of each example are seen, [B].
    private func hiding(_ mask: ValueID, keys: ValueID, _ maskedValue: Double) throws -> ValueID {
        let seen = try type(mask).rank == 1 ? self.seen(mask, keys: keys) : mask
        let axes = [2: [1, 2], 3: [1]]
        guard let axes = axes[type(seen).rank] else {
            throw TripsError.data(
                "mask of \(node.type)", found: type(mask), expected: "what keys are seen, of rank 2 or 3, or how many, of rank 1")
        }
        let shaped = try step(Unsqueeze(), [seen, constant(axes, "axes")], "mask")
        let numbers = try step(Cast(to: .float32), [shaped], "seen")
        let unseen = try step(Binary(.sub), [constant(1, .float32, "one"), numbers], "unseen")
        return try step(Binary(.mul), [unseen, constant(maskedValue, .float32, "masked_value")], "masked")
    }

    /// What keys are seen, [B, M], where it is known how many.
    private func seen(_ counts: ValueID, keys: ValueID) throws -> ValueID {
        guard type(counts).shape == [type(keys).shape[0]] else {
            throw TripsError.data("numbers of seen keys", found: type(counts), expected: "one for each of \(type(keys).shape[0])")
        }
        let length = try step(Shape(start: 2, end: 3), [keys], "length")
        let places = try step(Arange(), [constant([0], "start"), length, constant([1], "step")], "places")
        let column = try step(Unsqueeze(), [step(Cast(to: .int64), [counts], "counts"), constant([1], "axis")], "column")
        return try step(Binary(.less), [places, column], "seen")
    }
}
