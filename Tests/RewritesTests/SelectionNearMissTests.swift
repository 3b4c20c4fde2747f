import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// A graph that selects patches of [CLS] and five others by TopK and gathering, and fuses the rest into one.
private struct Selecting: Staged {
    var m = Exported()
    var made: [AnyKeyPath: ValueID] = [:]
    /// Patches that are kept, and that are ranked.
    var (kept, ranked) = (3, 5)
    /// Width of queries and keys, in two heads.
    var width = 8

    var x: Stage = { try $0.m.input("x", [2, 6, 8]) }

    // Scores: mean over heads of softmax(query · keys).
    var keyRows: Stage = { try $0.part($0.m.linear($0.make(\.x), 8, $0.width), 1, 6) }
    var keys: Stage = { try $0.m.transpose($0.m.reshape($0.make(\.keyRows), [2, 5, 2, $0.width / 2]), [0, 2, 3, 1]) }
    var guide: Stage = { try $0.m.linear($0.m.input("guide", [2, 8]), 8, $0.width) }
    var query: Stage = { try $0.m.reshape($0.make(\.guide), [2, 2, 1, $0.width / 2]) }
    var products: Stage = { try $0.m.binary(.mul, $0.m.node(MatMul(), [$0.make(\.query), $0.make(\.keys)]), $0.m.scalar(0.5)) }
    var weights: Stage = { try $0.m.node(Softmax(axis: 3), [$0.make(\.products)]) }
    var means: Stage = { try $0.reduce($0.make(\.weights), .mean) }
    var scores: Stage = { try $0.m.reshape($0.make(\.means), [2, 5]) }

    // Kept patches: those of the highest scores, in their order.
    var ranking: Stage = { try $0.sort($0.make(\.scores), $0.ranked, largest: true).places }
    var chosen: Stage = { try $0.part($0.make(\.ranking), 0, $0.kept) }
    var indices: Stage = { try $0.sort($0.make(\.chosen), $0.kept, largest: false).values }
    var patches: Stage = { try $0.part($0.make(\.x), 1, 6) }

    // The others as one: their mean, weighted by their scores.
    var dropped: Stage = { try $0.part($0.make(\.ranking), $0.kept, $0.ranked) }
    var others: Stage = { try $0.rows($0.make(\.dropped)) }
    var importance: Stage = { try $0.gather($0.make(\.scores), $0.make(\.dropped)) }
    var factors: Stage = { try $0.make(\.importance) }
    var weighted: Stage = { try $0.m.binary(.mul, $0.column($0.make(\.factors)), $0.make(\.others)) }
    var sum: Stage = { try $0.reduce($0.make(\.weighted)) }
    var total: Stage = { try $0.reduce($0.make(\.importance)) }
    var quotient: Stage = { try $0.m.binary(.div, $0.make(\.sum), $0.column($0.make(\.total))) }
    var fused: Stage = { try $0.make(\.quotient) }

    var first: Stage = { try $0.part($0.make(\.x), 0, 1) }
    var tokens: Stage = { try $0.m.node(Concat(axis: 1), [$0.make(\.first), $0.rows($0.make(\.indices)), $0.make(\.fused)]) }

    mutating func reduce(_ value: ValueID, _ kind: Reduce.Kind = .sum, axis: Int = 1) throws -> ValueID {
        try m.node(Reduce(kind), [value, m.integers([axis])])
    }

    mutating func sort(_ value: ValueID, _ count: Int, largest: Bool) throws -> (values: ValueID, places: ValueID) {
        let made = try m.graph.add(TopK(axis: 1, largest: largest), [value, m.integers([count])], name: "sorted")
        return (made[0], made[1])
    }

    mutating func gather(_ values: ValueID, _ places: ValueID) throws -> ValueID {
        try m.node(GatherElements(axis: 1), [values, places])
    }

    mutating func column(_ values: ValueID) throws -> ValueID { try m.node(Unsqueeze(), [values, m.integers([2])]) }

    /// Patches at their places.
    mutating func rows(_ places: ValueID) throws -> ValueID {
        let count = m.graph.shape(of: places)[1].constant ?? 0
        return try gather(make(\.patches), m.node(Expand(), [column(places), m.integers([2, count, 8])]))
    }

    /// The fused token where the total is above a bound, and another one elsewhere.
    mutating func choose(
        _ fused: KeyPath<Self, Stage>, where total: ValueID, above bound: Float = 0, else mean: ValueID
    ) throws -> ValueID {
        try m.node(Where(), [m.binary(.greater, column(total), m.scalar(bound)), make(fused), mean])
    }
}

/// Graphs that select patches by TopK and gathering: what does exactly what PatchSelection does becomes one, and what differs in
/// one respect stays, with its numbers.
struct SelectionNearMissTests {
    enum Form: CaseIterable {
        // These are selections.
        case normalized, weighted, unfused, byScore, guarded
        // In which tokens there are.
        case otherFirstToken, patchesOfAnother, patchesFromTheFirst, keptFromTheSecond, leastRelevant, sortedDown, placesOfPlaces,
            fourParts
        // In how they are scored.
        case sumOverHeads, meanOverQueries, softmaxOverHeads, keysFromTheFirst, keysOfOtherHeads, queryOfOtherHeads,
            biasedScores, scaledAfterwards
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

        fileprivate func replaceStages(_ s: inout Selecting) {
            switch self {
            case .normalized: break
            case .weighted: s.fused = { try $0.make(\.sum) }
            case .unfused: s.tokens = { try $0.m.node(Concat(axis: 1), [$0.make(\.first), $0.rows($0.make(\.indices))]) }
            case .byScore: s.indices = { try $0.make(\.chosen) }
            case .guarded:
                s.fused = { try $0.choose(\.quotient, where: $0.make(\.total), else: $0.reduce($0.make(\.others), .mean)) }

            case .otherFirstToken: s.first = { try $0.part($0.make(\.x), 1, 2) }
            case .patchesOfAnother: s.patches = { try $0.part($0.m.input("other", [2, 6, 8]), 1, 6) }
            case .patchesFromTheFirst: s.patches = { try $0.part($0.make(\.x), 0, 5) }
            case .keptFromTheSecond: s.chosen = { try $0.part($0.make(\.ranking), 1, 4) }
            case .leastRelevant: s.ranking = { try $0.sort($0.make(\.scores), 5, largest: false).places }
            case .sortedDown: s.indices = { try $0.sort($0.make(\.chosen), 3, largest: true).values }
            case .placesOfPlaces: s.indices = { try $0.sort($0.make(\.chosen), 3, largest: false).places }
            case .fourParts:
                s.tokens = {
                    try $0.m.node(
                        Concat(axis: 1), [$0.make(\.first), $0.rows($0.make(\.indices)), $0.make(\.fused), $0.make(\.fused)])
                }

            case .sumOverHeads: s.means = { try $0.reduce($0.make(\.weights), .sum) }
            case .meanOverQueries:
                s.query = {
                    try $0.m.transpose(
                        $0.m.reshape($0.m.linear($0.m.input("text", [2, 3, 8]), 8, 8), [2, 3, 2, 4]), [0, 2, 1, 3])
                }
                s.means = { try $0.reduce($0.reduce($0.make(\.weights), .mean), .mean, axis: 2) }
            case .softmaxOverHeads: s.weights = { try $0.m.node(Softmax(axis: 1), [$0.make(\.products)]) }
            case .keysFromTheFirst: s.keyRows = { try $0.part($0.m.linear($0.make(\.x), 8, 8), 0, 5) }
            case .keysOfOtherHeads:
                s.keys = { try $0.m.transpose($0.m.reshape($0.make(\.keyRows), [2, 5, 4, 2]), [0, 3, 2, 1]) }
            case .queryOfOtherHeads:
                s.query = { try $0.column($0.m.transpose($0.m.reshape($0.make(\.guide), [2, 4, 2]), [0, 2, 1])) }
            case .biasedScores: s.scores = { try $0.m.binary(.add, $0.m.reshape($0.make(\.means), [2, 5]), $0.m.constant([5])) }
            case .scaledAfterwards:
                s.scores = { try $0.m.reshape($0.m.binary(.mul, $0.make(\.means), $0.m.scalar(2)), [2, 5]) }
            case .guideOfOneExample:
                s.query = { try $0.m.reshape($0.m.linear($0.m.input("guide", [1, 8]), 8, 8), [1, 2, 1, 4]) }
            case .keysOfAnotherWidth: s.width = 16

            case .fewerOthers: s.dropped = { try $0.part($0.make(\.ranking), 3, 4) }
            case .moreOthers: s.dropped = { try $0.part($0.make(\.ranking), 2, 5) }
            case .othersOfFewerRanked: (s.kept, s.ranked) = (2, 4)
            case .meanOfOthers: s.sum = { try $0.reduce($0.make(\.weighted), .mean) }
            case .sumOverWidth:
                s.fused = {
                    try $0.m.node(Expand(), [$0.reduce($0.make(\.quotient), .mean, axis: 2), $0.m.integers([2, 1, 8])])
                }
            case .otherWeights: s.importance = { try $0.gather($0.m.unary(.exp, $0.make(\.scores)), $0.make(\.dropped)) }
            case .weightsOfKept: s.others = { try $0.rows($0.part($0.make(\.ranking), 0, 2)) }
            case .dividedByAll: s.total = { try $0.reduce($0.make(\.scores)) }
            case .dividedByWidth: s.total = { try $0.reduce($0.make(\.importance), .max) }
            case .squaredWeights: s.factors = { try $0.m.binary(.mul, $0.make(\.importance), $0.make(\.importance)) }

            case .guardedFromOne:
                s.fused = {
                    try $0.choose(\.quotient, where: $0.make(\.total), above: 1, else: $0.reduce($0.make(\.others), .mean))
                }
            case .guardedByKept:
                s.fused = {
                    try $0.choose(
                        \.quotient, where: $0.reduce($0.gather($0.make(\.scores), $0.make(\.chosen))),
                        else: $0.reduce($0.make(\.others), .mean))
                }
            case .guardedWithKept:
                s.fused = {
                    try $0.choose(\.quotient, where: $0.make(\.total), else: $0.reduce($0.rows($0.make(\.chosen)), .mean))
                }
            case .guardedWithSum:
                s.fused = { try $0.choose(\.quotient, where: $0.make(\.total), else: $0.reduce($0.make(\.others), .sum)) }
            case .guardedWeighted:
                s.fused = { try $0.choose(\.sum, where: $0.make(\.total), else: $0.reduce($0.make(\.others), .mean)) }
            }
        }
    }

    @Test(arguments: Form.allCases) func onlySelectionsAreRecognised(form: Form) throws {
        var s = Selecting()
        form.replaceStages(&s)
        try s.m.output(s.make(\.tokens))
        #expect(try s.m.fused().contains("PatchSelection") == form.isSelection)
    }
}
