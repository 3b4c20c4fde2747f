import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// Graphs that select patches by TopK and gathering: what does exactly what PatchSelection does becomes one, and what differs in
/// one respect stays, with its numbers.
struct SelectionNearMissTests {
    enum Form: CaseIterable {
        // These are selections.
        case normalized, weighted, unfused, byScore, guarded, ofSeveralRows
        // In which tokens there are.
        case otherFirstToken, patchesOfAnother, patchesFromTheFirst, keptFromTheSecond, leastRelevant, sortedDown, placesOfPlaces,
            fourParts
        // In how they are scored.
        case sumOverHeads, meanOverQueries, softmaxOverHeads, keysFromTheFirst, keysOfOtherHeads, queryOfOtherHeads,
            keysOfFewerTokens, scaledAfterwards
        case guideOfOneExample, keysOfAnotherWidth
        // In what the others are fused into.
        case fewerOthers, moreOthers, othersOfFewerRanked, meanOfOthers, sumOverWidth, otherWeights, weightsOfKept, dividedByAll,
            dividedByWidth, squaredWeights
        // In what stands in where all weights are 0.
        case guardedFromOne, guardedByKept, guardedWithKept, guardedWithSum, guardedWeighted

        var isSelection: Bool {
            switch self {
            case .normalized, .weighted, .unfused, .byScore, .guarded: true
            default: false
            }
        }
    }

    @Test(arguments: Form.allCases) func selection(form: Form) throws {
        var m = Exported()
        let (count, kept) = (5, form == .othersOfFewerRanked ? 2 : 3)
        let (x, other) = (try m.input("x", [2, 1 + count, 8]), try m.input("other", [2, 1 + count, 8]))
        func part(_ value: ValueID, _ start: Int, _ end: Int) throws -> ValueID {
            try m.node(Slice(), [value, m.integers([start]), m.integers([end]), m.integers([1])])
        }
        func reduce(_ value: ValueID, _ kind: Reduce.Kind = .sum, axis: Int = 1) throws -> ValueID {
            try m.node(Reduce(kind), [value, m.integers([axis])])
        }
        func rows(_ indices: ValueID, of patches: ValueID) throws -> ValueID {
            let number = m.graph.shape(of: indices)[1].constant ?? 0
            let wide = try m.node(Expand(), [m.node(Unsqueeze(), [indices, m.integers([2])]), m.integers([2, number, 8])])
            return try m.node(GatherElements(axis: 1), [patches, wide])
        }

        // Scores: mean over heads of softmax(query · keys).
        let projected = try m.linear(x, 8, form == .keysOfAnotherWidth ? 16 : 8)
        let keyRows = try part(projected, form == .keysFromTheFirst ? 0 : 1, form == .keysFromTheFirst ? count : 1 + count)
        let keys =
            switch form {
            case .keysOfOtherHeads: try m.transpose(m.reshape(keyRows, [2, count, 4, 2]), [0, 3, 2, 1])
            case .keysOfAnotherWidth: try m.transpose(m.reshape(keyRows, [2, count, 2, 8]), [0, 2, 3, 1])
            default: try m.transpose(m.reshape(keyRows, [2, count, 2, 4]), [0, 2, 3, 1])
            }
        let guide = try m.linear(
            m.input("guide", [form == .guideOfOneExample ? 1 : 2, 8]), 8, form == .keysOfAnotherWidth ? 16 : 8)
        let query =
            switch form {
            case .queryOfOtherHeads:
                try m.node(Unsqueeze(), [m.transpose(m.reshape(guide, [2, 4, 2]), [0, 2, 1]), m.integers([2])])
            case .ofSeveralRows, .meanOverQueries:
                try m.transpose(m.reshape(m.linear(m.input("text", [2, 3, 8]), 8, 8), [2, 3, 2, 4]), [0, 2, 1, 3])
            case .guideOfOneExample: try m.reshape(guide, [1, 2, 1, 4])
            case .keysOfAnotherWidth: try m.reshape(guide, [2, 2, 1, 8])
            default: try m.reshape(guide, [2, 2, 1, 4])
            }
        let products = try m.binary(.mul, m.node(MatMul(), [query, keys]), m.scalar(0.5))
        let weights = try m.node(Softmax(axis: form == .softmaxOverHeads ? 1 : 3), [products])
        let means = try reduce(weights, form == .sumOverHeads ? .sum : .mean)
        var scores = try form == .ofSeveralRows || form == .meanOverQueries ? reduce(means, .mean, axis: 2) : means
        if form == .scaledAfterwards { scores = try m.binary(.mul, scores, m.scalar(2)) }
        scores = try m.reshape(scores, [2, count])
        if form == .keysOfFewerTokens { scores = try m.binary(.add, scores, m.constant([count])) }

        // Kept tokens: those of the highest scores, in their order.
        let ranked = form == .othersOfFewerRanked ? count - 1 : count
        let ranking = try m.graph.add(
            TopK(axis: 1, largest: form != .leastRelevant), [scores, m.integers([ranked])], name: "ranking")[1]
        let chosen = try form == .keptFromTheSecond ? part(ranking, 1, 1 + kept) : part(ranking, 0, kept)
        let sorted = try m.graph.add(TopK(axis: 1, largest: form == .sortedDown), [chosen, m.integers([kept])], name: "sorted")
        let indices = form == .byScore ? chosen : sorted[form == .placesOfPlaces ? 1 : 0]
        let patches =
            try form == .patchesFromTheFirst ? part(x, 0, count) : part(form == .patchesOfAnother ? other : x, 1, 1 + count)
        let tokens = try rows(indices, of: patches)

        // The others as one.
        let dropped = try part(ranking, form == .moreOthers ? kept - 1 : kept, form == .fewerOthers ? count - 1 : ranked)
        let others = try rows(form == .weightsOfKept ? part(ranking, 0, count - kept) : dropped, of: patches)
        let importance = try m.node(GatherElements(axis: 1), [form == .otherWeights ? m.unary(.exp, scores) : scores, dropped])
        let factor = try m.node(
            Unsqueeze(), [form == .squaredWeights ? m.binary(.mul, importance, importance) : importance, m.integers([2])])
        let sum = try reduce(m.binary(.mul, factor, others), form == .meanOfOthers ? .mean : .sum)
        let total =
            switch form {
            case .dividedByAll: try reduce(scores)
            case .dividedByWidth: try reduce(importance, .max)
            default: try reduce(importance)
            }
        let quotient = try m.binary(.div, sum, m.node(Unsqueeze(), [total, m.integers([2])]))
        let fused: ValueID
        switch form {
        case .weighted: fused = sum
        case .sumOverWidth: fused = try m.node(Expand(), [reduce(quotient, .mean, axis: 2), m.integers([2, 1, 8])])
        case .guarded, .guardedFromOne, .guardedByKept, .guardedWithKept, .guardedWithSum, .guardedWeighted:
            let seen = try form == .guardedByKept ? reduce(m.node(GatherElements(axis: 1), [scores, chosen])) : total
            let isSeen = try m.binary(
                .greater, m.node(Unsqueeze(), [seen, m.integers([2])]), m.scalar(form == .guardedFromOne ? 1 : 0))
            let instead =
                try form == .guardedWithKept
                ? reduce(rows(chosen, of: patches), .mean) : reduce(others, form == .guardedWithSum ? .sum : .mean)
            fused = try m.node(Where(), [isSeen, form == .guardedWeighted ? sum : quotient, instead])
        default: fused = quotient
        }
        let first = try form == .otherFirstToken ? part(x, 1, 2) : part(x, 0, 1)
        let parts = form == .unfused ? [first, tokens] : [first, tokens, fused] + (form == .fourParts ? [fused] : [])
        try m.output(m.node(Concat(axis: 1), parts))
        #expect(try m.fused().contains("PatchSelection") == form.isSelection)
    }
}
