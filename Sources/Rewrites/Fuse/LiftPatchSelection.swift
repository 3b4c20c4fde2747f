import ModelGraph
import Tensors

/// A graph that selects patches by itself, by TopK and GatherElements, gets PatchSelection where it does exactly what that
/// operator does with text guidance: the kept tokens, and perhaps one fused of the others, after [CLS].
struct LiftPatchSelection: Rewrite {
    let isClose: Closeness
    let name = "patch selection"

    func patch(at node: Node, in graph: Graph) throws -> Patch? {
        guard let concat = node.op as? Concat, 2...3 ~= node.inputs.count, graph.type(of: node.output).rank == 3,
            try resolveAxis(concat.axis, rank: 3) == 1, let first = node.inputs[0], let kept = node.inputs[1],
            let x = try tokens(first, from: 0, graph), let choice = try choice(kept, of: x, graph)
        else { return nil }
        var fusion = PatchSelection.Fusion.none
        if node.inputs.count == 3 {
            guard let fused = node.inputs[2], let form = try self.fusion(fused, of: x, choice, graph) else { return nil }
            fusion = form
        }
        guard let scoring = try scoring(choice.scores, x: x, graph), graph.shape(of: scoring.keys) == graph.shape(of: x),
            graph.shape(of: scoring.query)[0] == graph.shape(of: x)[0],
            let count = try graph.shape(of: x)[1].subtracting(1).constant,
            choice.kept < count, let rate = Self.rate(keeping: choice.kept, of: count)
        else { return nil }
        var patch = Patch(for: graph)
        let op = PatchSelection(
            heads: scoring.heads, scale: scoring.scale, keepRate: rate, guidance: .text, fusion: fusion,
            order: choice.isOrdered ? .original : .score)
        guard op.keptCount(of: count) == choice.kept else { return nil }
        let outputs = patch.add(
            op, [x, scoring.keys, scoring.query], name: node.name, outputNames: [graph.name(of: node.output)], outputCount: 4)
        patch.replace(node.output, with: outputs[0])
        return patch
    }

    // MARK: Tokens

    /// x where a value is x's tokens from `start` on: the first alone for 0, all others for 1.
    private func tokens(_ value: ValueID, from start: Int, _ graph: Graph) throws -> ValueID? {
        for view in try graph.views(of: value) {
            let shape = graph.shape(of: view.source)
            guard shape.count == 3 else { continue }
            let count = try start == 0 ? 1 : shape[1].subtracting(1)
            guard graph.shape(of: value) == [shape[0], count, shape[2]] else { continue }
            if try ViewLayout(of: shape).sliced(1, from: Dimension(start), count: count) == view.layout { return view.source }
        }
        return nil
    }

    private struct Choice {
        var scores: ValueID
        /// Patches, best first.
        var ranking: ValueID
        var kept: Int
        var isOrdered: Bool
    }

    /// How the kept tokens are chosen.
    private func choice(_ value: ValueID, of x: ValueID, _ graph: Graph) throws -> Choice? {
        guard var indices = try gathered(value, of: x, graph) else { return nil }
        var isOrdered = false
        if let (sort, op) = graph.producer(of: indices, TopK.self), !op.largest, indices == sort.outputs[0],
            let inner = sort.input(0), try resolveAxis(op.axis, rank: 2) == 1, graph.shape(of: inner) == graph.shape(of: indices)
        {
            indices = inner
            isOrdered = true
        }
        guard let (ranking, start, count) = try part(of: indices, graph), start == 0,
            let (top, op) = graph.producer(of: ranking, TopK.self), op.largest, ranking == top.outputs[1],
            let scores = top.input(0),
            graph.type(of: scores).rank == 2, try resolveAxis(op.axis, rank: 2) == 1
        else { return nil }
        return Choice(scores: scores, ranking: ranking, kept: count, isOrdered: isOrdered)
    }

    /// The indices [B, K] where a value is the patches of `x` at those places.
    private func gathered(_ value: ValueID, of x: ValueID, _ graph: Graph) throws -> ValueID? {
        guard let (gather, op) = graph.producer(of: value, GatherElements.self), try resolveAxis(op.axis, rank: 3) == 1,
            let data = gather.input(0), try tokens(data, from: 1, graph) == x, let places = gather.input(1)
        else { return nil }
        return try column(places, graph)
    }

    /// A value [B, K] where `value` is that, repeated along a last axis.
    private func column(_ value: ValueID, _ graph: Graph) throws -> ValueID? {
        var current = value
        if let expand = graph.producer(of: current, Expand.self)?.node, let inner = expand.input(0) { current = inner }
        let shape = graph.shape(of: current)
        guard shape.count == 3, shape[2] == 1, let reshape = graph.producer(of: current, Reshape.self)?.node,
            let inner = reshape.input(0),
            graph.shape(of: inner) == [shape[0], shape[1]]
        else { return nil }
        return inner
    }

    /// Which columns of a matrix a value is; itself as a whole, too.
    private func part(of value: ValueID, _ graph: Graph) throws -> (whole: ValueID, start: Int, count: Int)? {
        guard let count = graph.shape(of: value).last?.constant else { return nil }
        guard let slice = graph.producer(of: value, Slice.self)?.node, let whole = slice.input(0) else { return (value, 0, count) }
        guard let ranges = try graph.sliceRanges(slice), ranges.count == 1, ranges[0].axis == 1,
            let start = ranges[0].start.constant
        else { return nil }
        return (whole, start, count)
    }

    /// Σ score · x over the dropped tokens, perhaps divided by Σ score.
    private func fusion(_ value: ValueID, of x: ValueID, _ choice: Choice, _ graph: Graph) throws -> PatchSelection.Fusion? {
        if let (choose, _) = graph.producer(of: value, Where.self), let quotient = choose.input(1), let mean = choose.input(2),
            let scores = try positive(choose.input(0), graph),
            let dropped = try reduced(mean, by: .mean, graph).flatMap({ try gathered($0, of: x, graph) }),
            try areDropped(dropped, choice, graph), let (gather, _) = graph.producer(of: scores, GatherElements.self),
            gather.input(0) == choice.scores, gather.input(1) == dropped
        {
            // Where all scores underflow, the operator takes the mean, too.
            return try fusion(quotient, of: x, choice, graph) == .normalized ? .normalized : nil
        }
        var sum = value
        var divisor: ValueID?
        if let (a, b) = graph.operands(of: value, .div) { (sum, divisor) = (a, b) }
        for (weights, tokens) in try graph.operandsInEitherOrder(of: reduced(sum, by: .sum, graph), .mul) {
            guard let scores = try column(weights, graph), let dropped = try gathered(tokens, of: x, graph),
                try areDropped(dropped, choice, graph),
                let (gather, op) = graph.producer(of: scores, GatherElements.self), try resolveAxis(op.axis, rank: 2) == 1,
                gather.input(0) == choice.scores, gather.input(1) == dropped
            else { continue }
            guard let divisor else { return .weighted }
            return try reduced(divisor, by: .sum, graph) == scores ? .normalized : nil
        }
        return nil
    }

    /// The summand of a sum, where a value states whether the sum is above 0.
    private func positive(_ condition: ValueID?, _ graph: Graph) throws -> ValueID? {
        guard let condition else { return nil }
        for candidate in try [condition] + graph.views(of: condition).map(\.source) {
            if let (sum, zero) = graph.operands(of: candidate, .greater), try graph.number(zero) == 0 {
                return try reduced(sum, by: .sum, graph)
            }
        }
        return nil
    }

    private func areDropped(_ indices: ValueID, _ choice: Choice, _ graph: Graph) throws -> Bool {
        guard let (whole, start, count) = try part(of: indices, graph), let all = graph.shape(of: choice.scores).last else {
            return false
        }
        return whole == choice.ranking && start == choice.kept && Dimension(start + count) == all
    }

    /// What is summed up, or averaged, over axis 1.
    private func reduced(_ value: ValueID, by kind: Reduce.Kind, _ graph: Graph) throws -> ValueID? {
        for candidate in try [value] + graph.views(of: value).map(\.source) {
            guard let (node, op) = graph.producer(of: candidate, Reduce.self) else { continue }
            return try op.kind == kind && graph.constantIntegers(node.input(1)) == [1] ? node.input(0) : nil
        }
        return nil
    }

    // MARK: Scores

    private struct Scoring {
        var keys: ValueID
        var query: ValueID
        var heads: Int
        var scale: Float?
    }

    /// mean over heads of softmax(query · keys · scale), without [CLS].
    private func scoring(_ scores: ValueID, x: ValueID, _ graph: Graph) throws -> Scoring? {
        var current = scores
        if let reshape = graph.producer(of: current, Reshape.self)?.node, let inner = reshape.input(0) { current = inner }
        guard let (mean, op) = graph.producer(of: current, Reduce.self), op.kind == .mean, let probabilities = mean.input(0),
            try graph.constantIntegers(mean.input(1)) == [1],
            let (softmax, softmaxOp) = graph.producer(of: probabilities, Softmax.self), let input = softmax.input(0),
            graph.type(of: input).rank == 4, try resolveAxis(softmaxOp.axis, rank: 4) == 3
        else { return nil }
        var scale = 1.0
        current = input
        while let (inner, factor) = try graph.scaled(current) { (current, scale) = (inner, scale * factor) }
        guard let product = graph.producer(of: current, MatMul.self)?.node, let q = product.input(0), let k = product.input(1),
            graph.type(of: q).rank == 4, let heads = graph.shape(of: q)[1].constant, let size = graph.shape(of: q)[3].constant,
            graph.shape(of: q)[2] == 1, heads > 0, size > 0
        else { return nil }
        let width = Dimension(heads * size)
        guard
            let query = try graph.views(of: q, scaled: true).last(where: { view in
                let shape = graph.shape(of: view.source)
                return try shape.count == 2 && shape[1] == width
                    && ViewLayout(of: shape).reshaped(graph.shape(of: q)) == view.layout
            }), let keys = try keys(k, heads: heads, size: size, tokens: graph.shape(of: x)[1], graph)
        else { return nil }
        let total = scale * query.scale * keys.scale
        return Scoring(
            keys: keys.value, query: query.source, heads: heads,
            scale: isClose(total * Double(size).squareRoot(), 1) ? nil : Float(total))
    }

    /// The projection [B, 1 + N, D] of which a value is the heads' keys [B, H, d, N], [CLS] left out.
    private func keys(_ value: ValueID, heads: Int, size: Int, tokens: Dimension, _ graph: Graph) throws -> (
        value: ValueID, scale: Double
    )? {
        for view in try graph.views(of: value, scaled: true) {
            let shape = graph.shape(of: view.source)
            guard shape.count == 3, shape[1] == tokens, let offset = view.layout.offsets[2].constant else { continue }
            let (width, count) = (heads * size, try tokens.subtracting(1))
            let expected = try ViewLayout(of: shape).sliced(1, from: 1, count: count)?
                .sliced(2, from: Dimension(offset), count: Dimension(width))?
                .reshaped([shape[0], count, Dimension(heads), Dimension(size)])?.transposed([0, 2, 3, 1])
            guard expected == view.layout else { continue }
            if shape[2] == Dimension(width) { return (view.source, view.scale) }
            // A packed projection: the block's attention has its keys as a projection of their own.
            guard let (packed, _) = graph.producer(of: view.source, Linear.self),
                let weight = packed.input(1).flatMap(graph.constant(of:)),
                let source = packed.input(0)
            else { continue }
            let identity = try weight.rows(offset..<offset + width).identity
            let own = graph.consumers(of: source).first {
                $0.op is Linear && $0.input(1).flatMap(graph.constant(of:))?.identity == identity
            }
            if let own { return (own.output, view.scale) }
        }
        return nil
    }

    /// The shortest decimal fraction that keeps `kept` of `count` tokens.
    private static func rate(keeping kept: Int, of count: Int) -> Double? {
        let (low, high) = (Double(kept - 1) / Double(count), Double(kept) / Double(count))
        var unit = 10.0
        while unit <= 1e9 {
            let rate = (high * unit + 1e-9).rounded(.down) / unit
            if rate > low, rate <= 1 { return rate }
            unit *= 10
        }
        return high
    }
}
