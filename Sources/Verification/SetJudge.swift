import Goldens
import ModelGraph
import Tensors

/// Judges what a model gave on one golden set, tensor by tensor. Image tokens are compared by the patches that they show.
struct SetJudge {
    private let found: [String: Tensor]
    private let golden: GoldenSet
    private let tolerances: Tolerances
    private let judging: Bool
    private let leadingTokens: Int
    private let imageTokenOutputs: Set<String>
    /// How the model's selections compare with the reference's.
    let selections: [SelectionComparison]
    /// The model's selections, as far as they count.
    private let own: SelectionTrail
    /// The reference's.
    let theirs: SelectionTrail
    private let flipped: Bool

    /// - Parameters:
    ///   - model: what found these tensors.
    ///   - judging: false also compares tensors whose numbers of tokens differ.
    init(
        _ found: [String: Tensor], of model: any ModelRunner, _ golden: GoldenSet, _ tolerances: Tolerances, judging: Bool
    ) throws {
        (self.found, self.golden, self.tolerances, self.judging) = (found, golden, tolerances, judging)
        (leadingTokens, imageTokenOutputs) = (model.leadingTokens, try model.imageTokenOutputs)
        let isOrderedByScore = model.isOrderedByScore
        // A verdict rests on what the reference states; other selections of the model are there to be drawn.
        own = try SelectionTrail(
            judging ? found.filter { golden.intermediates[$0.key] != nil } : found, isOrderedByScore: isOrderedByScore)
        theirs = try SelectionTrail(golden.intermediates, isOrderedByScore: isOrderedByScore)
        selections = compareSelections(own, reference: theirs)
        flipped =
            theirs.layers.isEmpty != own.layers.isEmpty || selections.contains { $0.flips > 0 }
            || isOrderedByScore && own.layers.map(\.positions) != theirs.layers.map(\.positions)
    }

    /// How the tensor of this name compares with the reference `g`.
    func judgement(of name: String, _ g: Tensor) throws -> Judgement {
        guard let x = found[name] else { return .failed("no counterpart") }
        if let trace = SelectionTrace(name), trace.part == .indices {
            let comparison = selections.first { $0.layer == trace.layer }
            return try judgeSelection(comparison, x: x, golden: g, criterion: tolerances.setCriterion)
        }
        if name == "topk_ids", let chances = golden.outputs["topk_probs"], try differOnlyInTies(x, g, chances) {
            let reason = "equal but for answers of equal probability"
            return Judgement(verdict: .pass, reason: reason, criterion: .equal, dataType: g.dataType, shape: g.shape)
        }
        let criterion = tolerances.criterion(for: name)
        var judgement = try judge(
            x, golden: g, name: name, criterion: criterion, alignment: alignment(of: name, x, g), allowingOtherLengths: !judging)
        if judging, judgement.verdict == .fail, judgement.alignment != nil {
            // What passes as it stands passes, whatever the reference says of its patches.
            let unaligned = try judge(x, golden: g, name: name, criterion: criterion)
            if unaligned.verdict == .pass { return unaligned }
        }
        excuse(&judgement, name)
        return judgement
    }

    /// Which tokens show the same patch, where selections flipped.
    private func alignment(of name: String, _ x: Tensor, _ g: Tensor) -> TokenAlignment? {
        let tokens = ImageTokens(of: name) ?? (imageTokenOutputs.contains(name) ? .final : nil)
        guard flipped, let tokens, let left = own.last(before: tokens),
            let right = theirs.last(before: tokens) ?? (judging ? nil : .unselected(own)), !judging || left.number == right.number
        else { return nil }
        return TokenAlignment(
            left, reference: right, shape: x.shape, goldenShape: g.shape, leading: leadingTokens,
            isExplained: isExplained(upTo: left.number))
    }

    /// Whether all flips in blocks up to this one lie within the arithmetic's margin.
    private func isExplained(upTo block: Int) -> Bool {
        guard let margin = tolerances.flipMargin else { return false }
        return selections.allSatisfy { $0.layer > block || $0.isExplained(within: margin) }
    }

    /// After a flip that the arithmetic explains, a later selection's scores and positions mean other patches.
    private func excuse(_ judgement: inout Judgement, _ name: String) {
        guard let margin = tolerances.flipMargin, judgement.verdict == .fail, let trace = SelectionTrace(name),
            let comparison = selections.first(where: { $0.layer == trace.layer })
        else { return }
        let excused = trace.part == .scores ? comparison.streamChanged : comparison.flips > 0 || own.isOrderedByScore
        if excused && comparison.isExplained(within: margin) {
            judgement.verdict = .unjudged
            judgement.reason = "patches flipped within the margin"
        }
    }
}

/// True where two rankings [B, k] differ, but only in the order of answers whose reference probabilities are equal.
private func differOnlyInTies(_ x: Tensor, _ g: Tensor, _ probabilities: Tensor) throws -> Bool {
    guard x.shape == g.shape, x.dataType == g.dataType, probabilities.shape == g.shape, let k = g.shape.last, k > 0
    else { return false }
    let (own, theirs, chances) = try (x.integers(), g.integers(), probabilities.numbers())
    guard own != theirs else { return false }
    for start in stride(from: 0, to: theirs.count, by: k) {
        var rank = start
        while rank < start + k {
            // The first always belongs to its own tie: NaN is close to no number, not even itself.
            let others = (rank + 1..<start + k).prefix { abs(chances[$0] - chances[rank]) <= 1e-6 * abs(chances[rank]) }
            let tied = rank..<others.endIndex
            guard own[tied].sorted() == theirs[tied].sorted() else { return false }
            rank = tied.upperBound
        }
    }
    return true
}
