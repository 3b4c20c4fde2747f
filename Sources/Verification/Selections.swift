import ModelGraph
import Support
import Tensors

/// What the selection layers of one run kept, by original patch.
package struct SelectionTrail: Sendable {
    /// What one layer kept.
    package struct Layer: Sendable {
        /// Of its block, from 1.
        package let number: Int
        /// [B][K], 0-based places in the stream that enters the layer, ascending.
        package let indices: [[Int]]
        /// [B][N]; empty where the run has none.
        package let scores: [[Double]]
        /// [B][K (+ 1)], original patches of the stream after the layer, -1 for a fused token.
        package let positions: [[Int]]
        /// [B][K]: the original patches that stay, fused tokens among them as -1.
        package let kept: [[Int]]

        /// The stream of a model that drops nothing, beside one that does.
        static func unselected(_ other: SelectionTrail) -> Layer? {
            guard let first = other.layers.first, let count = first.scores.first?.count else { return nil }
            let all = first.indices.map { _ in Array(0..<count) }
            return Layer(number: 0, indices: all, scores: [], positions: all, kept: all)
        }
    }
    package let layers: [Layer]
    /// Whether kept tokens are in the order of their scores.
    let isOrderedByScore: Bool

    /// Reads the layers from traces `selection.L.indices`, `.scores` and `.positions`.
    ///
    /// Where positions are absent they follow from the indices, in whatever order these are, and the scores: the stream ends
    /// in a fused token if the next layer's scores count one more. The trail ends before a layer whose tensors are no
    /// indices and positions: after it nobody knows which patch a token shows.
    /// - Parameter isOrderedByScore: false: kept tokens stay in their order.
    package init(_ traces: [String: Tensor], isOrderedByScore: Bool = false) throws {
        self.isOrderedByScore = isOrderedByScore
        let numbers = traces.keys.compactMap(SelectionTrace.init).filter { $0.part == .indices }.map(\.layer).sorted()
        func tensor(_ number: Int, _ part: SelectionTrace.Part) -> Tensor? { traces[SelectionTrace(layer: number, part).name] }
        var layers: [Layer] = []
        for (place, number) in numbers.enumerated() {
            let scores = try tensor(number, .scores).flatMap(scoreRows) ?? []
            let incoming = layers.last?.positions
            let places = 0..<(scores.first?.count ?? incoming?.first?.count ?? Int.max)
            guard let indices = try tensor(number, .indices).flatMap({ try indexRows($0, in: places) })?.map({ $0.sorted() })
            else { break }
            func patches(_ places: [[Int]]) -> [[Int]] {
                places.enumerated().map { batch, row in
                    guard let incoming else { return row }
                    return row.map { batch < incoming.count && incoming[batch].indices.contains($0) ? incoming[batch][$0] : -2 }
                }
            }
            let kept = patches(indices)
            let positions: [[Int]]
            if let stated = tensor(number, .positions) {
                let patches = layers.first.map { $0.scores.first?.count ?? Int.max } ?? places.upperBound
                guard let rows = try indexRows(stated, in: -1..<patches), rows.count == indices.count else { break }
                positions = rows
            } else {
                let nextCount = place + 1 < numbers.count ? tensor(numbers[place + 1], .scores)?.shape.last : nil
                let keptCount = indices.first?.count ?? 0
                let fuses = nextCount.map { $0 == keptCount + 1 } ?? (scores.first.map { $0.count > keptCount } ?? true)
                let stream = isOrderedByScore ? patches(ordered(indices, by: scores)) : kept
                positions = stream.map { fuses ? $0 + [-1] : $0 }
            }
            layers.append(Layer(number: number, indices: indices, scores: scores, positions: positions, kept: kept))
        }
        self.layers = layers
    }

    /// The last selection that the tokens went through; nil where there is none.
    func last(before tokens: ImageTokens) -> Layer? {
        switch tokens {
        case .after(let block): layers.last { $0.number <= block }
        case .final: layers.last
        }
    }
}

/// Kept places by falling score, of equal ones the lower first; as they are where scores are missing.
private func ordered(_ kept: [[Int]], by scores: [[Double]]) -> [[Int]] {
    guard kept.count == scores.count else { return kept }
    return zip(kept, scores).map { row, scores in row.sorted { (scores[$1], $0) < (scores[$0], $1) } }
}

/// A matrix [B, N] of scores as rows; nil for another rank.
private func scoreRows(_ tensor: Tensor) throws -> [[Double]]? {
    tensor.shape.count == 2 ? try tensor.numbers().rows(tensor.shape[0]) : nil
}

/// A matrix [B, K] of integers as rows; nil for another rank or type, or numbers out of range.
private func indexRows(_ tensor: Tensor, in range: Range<Int>) throws -> [[Int]]? {
    guard tensor.shape.count == 2, tensor.shape[0] > 0, tensor.dataType.isInteger else { return nil }
    let numbers = try tensor.integers()
    return numbers.allSatisfy(range.contains) ? numbers.rows(tensor.shape[0]) : nil
}

/// How a selection layer's choice compares with the reference's, over a batch.
public struct SelectionComparison: Sendable, Codable, Equatable {
    /// The number of its block, from 1.
    public var layer: Int
    /// Tokens that the reference keeps.
    public var kept: Int
    /// Tokens to choose from.
    public var tokens: Int
    /// |A ∩ B| / |A ∪ B| of the kept sets in original patches, fused tokens not counted, mean over the batch.
    public var overlap: Double
    /// Kept patches that the reference dropped, or the reverse: the larger number, summed over the batch.
    public var flips: Int
    /// The smallest gap between the reference's lowest kept and highest dropped score, relative to the former.
    public var margin: Double?
    /// The largest such gap that a flip bridges, or that two patches bridge which change places in a stream ordered by score.
    public var flipGap: Double?
    /// The largest relative difference of scores.
    public var scoreError: Double?
    /// True where the layer kept the patches of its highest scores.
    public var followsItsScores: Bool?
    /// True where an earlier selection already changed what it could choose from, or the order of it.
    public var streamChanged: Bool

    /// The comparison in words.
    public var summary: String {
        let share = "overlap \(short(overlap)), kept \(kept) of \(tokens)"
        let gap = margin.map { ", margin \(short($0))" } ?? ""
        guard flips > 0 else { return share + gap }
        return share + gap + ", \(flips) flipped: " + explanation
    }

    /// Where flips come from.
    public var explanation: String {
        if followsItsScores == false { return "not what its own scores say" }
        if let margin, margin < -scoreRounding { return "not what the reference's scores say" }
        if streamChanged { return "an earlier selection differs" }
        guard let flipGap, let scoreError else { return "no scores to explain it" }
        return "scores \(short(flipGap)) apart, score error \(short(scoreError))"
    }

    /// True where all flips are between patches whose reference scores lie closer than `tolerance`.
    public func isExplained(within tolerance: Double) -> Bool {
        if flips == 0 { return flipGap.map { $0 <= tolerance } ?? true }
        // A reference that did not keep its own highest scores does not say why it kept others.
        guard followsItsScores != false, margin.map({ $0 >= -tolerance }) ?? true else { return false }
        return streamChanged || flipGap.map { $0 <= tolerance } ?? false
    }

    init(_ x: SelectionTrail.Layer, reference g: SelectionTrail.Layer, streamChanged: Bool, isOrderedByScore: Bool) {
        layer = g.number
        kept = g.indices.first?.count ?? 0
        tokens = g.scores.first?.count ?? x.scores.first?.count ?? 0
        self.streamChanged = streamChanged
        (flips, overlap) = (0, 0)
        var overlaps: [Double] = []
        for batch in g.kept.indices where batch < x.kept.count {
            overlaps.append(patchOverlap(x.kept[batch], g.kept[batch]))
            let (own, theirs) = (Set(x.kept[batch]), Set(g.kept[batch]))
            flips += max(own.subtracting(theirs).count, theirs.subtracting(own).count)
            if g.scores.indices.contains(batch) { compareScores(x, g, batch) }
            if isOrderedByScore && !streamChanged { compareOrder(x, g, batch) }
            if x.scores.indices.contains(batch) {
                let chosen = boundary(x.scores[batch], x.indices[batch])
                let follows = chosen.map { $0.lowestKept >= $0.highestDropped * (1 - scoreRounding) } ?? true
                followsItsScores = follows && (followsItsScores ?? true)
            }
        }
        if x.kept.count != g.kept.count { flips += kept }
        overlap = overlaps.isEmpty ? 0 : overlaps.reduce(0, +) / Double(overlaps.count)
    }

    private mutating func compareScores(_ x: SelectionTrail.Layer, _ g: SelectionTrail.Layer, _ batch: Int) {
        let scores = g.scores[batch]
        guard let edge = boundary(scores, g.indices[batch]) else { return }
        let gap = (edge.lowestKept - edge.highestDropped) / max(abs(edge.lowestKept), .leastNormalMagnitude)
        margin = min(margin ?? gap, gap)
        guard !streamChanged else { return }
        if x.scores.indices.contains(batch), x.scores[batch].count == scores.count {
            let error = zip(x.scores[batch], scores).map { abs($0 - $1) / max(abs($1), .leastNormalMagnitude) }.max() ?? 0
            scoreError = max(scoreError ?? 0, error)
        }
        let (own, theirs) = (Set(x.indices[batch]), Set(g.indices[batch]))
        let lost = theirs.subtracting(own).compactMap { scores.indices.contains($0) ? scores[$0] : nil }
        let gained = own.subtracting(theirs).compactMap { scores.indices.contains($0) ? scores[$0] : nil }
        guard let lowestLost = lost.min(), let highestLost = lost.max(), let lowestGained = gained.min(),
            let highestGained = gained.max()
        else { return }
        bridge(lowestGained, highestLost)
        bridge(lowestLost, highestGained)
    }

    /// Patches in another order than that of the reference's scores.
    private mutating func compareOrder(_ x: SelectionTrail.Layer, _ g: SelectionTrail.Layer, _ batch: Int) {
        guard x.scores.indices.contains(batch), g.scores.indices.contains(batch), x.scores[batch].count == g.scores[batch].count
        else { return }
        let scores = ordered([x.indices[batch]], by: [x.scores[batch]])[0].map { g.scores[batch][$0] }
        var lowest = Double.infinity
        for score in scores {
            if score > lowest { bridge(lowest, score) }
            lowest = min(lowest, score)
        }
    }

    /// Takes note of reference scores that changed places.
    private mutating func bridge(_ low: Double, _ high: Double) {
        let gap = (high - low) / max(abs(high), .leastNormalMagnitude)
        // Scores that are not finite explain nothing.
        flipGap = max(flipGap ?? 0, gap.isNaN ? .infinity : gap)
    }
}

/// By how much of itself a kept score may be below a dropped one and count as equal.
private let scoreRounding = 1e-6

/// The scores on both sides of a selection's edge; nil where nothing was dropped.
private func boundary(_ scores: [Double], _ kept: [Int]) -> (lowestKept: Double, highestDropped: Double)? {
    let keptSet = Set(kept)
    let keptScores = scores.indices.filter(keptSet.contains).map { scores[$0] }
    let dropped = scores.indices.filter { !keptSet.contains($0) }.map { scores[$0] }
    guard let low = keptScores.min(), let high = dropped.max() else { return nil }
    return (low, high)
}

/// Compares the selections of two runs, layer by layer.
package func compareSelections(_ x: SelectionTrail, reference g: SelectionTrail) -> [SelectionComparison] {
    var streamChanged = false
    return g.layers.compactMap { layer in
        guard let own = x.layers.first(where: { $0.number == layer.number }) else { return nil }
        let comparison = SelectionComparison(
            own, reference: layer, streamChanged: streamChanged, isOrderedByScore: x.isOrderedByScore)
        let isReordered = x.isOrderedByScore && own.positions != layer.positions
        streamChanged = streamChanged || comparison.flips > 0 || isReordered
        return comparison
    }
}

/// Which image tokens of two runs show the same patch, where their selections flipped.
public struct TokenAlignment: Sendable, CustomStringConvertible {
    /// For each example of the batch, pairs of token places: the run's, the reference's. [CLS] and text included.
    let pairs: [[(own: Int, reference: Int)]]
    /// Tokens of the reference without a partner.
    public let unmatched: Int
    /// Whether the arithmetic explains the flips, so that an SNR may leave out tokens without a partner.
    let isExplained: Bool

    public var description: String {
        "\(pairs.reduce(0) { $0 + $1.count }) tokens compared by patch, \(unmatched) without a counterpart"
    }

    /// The alignment of tensors [B, P + T (+ L), D] whose image tokens, after P `leading` ones, are those that leave the given
    /// selections; nil where the same patches are in the same places, or the tensors have other shapes.
    init?(
        _ x: SelectionTrail.Layer, reference g: SelectionTrail.Layer, shape: [Int], goldenShape: [Int], leading: Int,
        isExplained: Bool
    ) {
        let (own, theirs) = (x.positions, g.positions)
        guard shape.count == 3, goldenShape.count == 3, own != theirs, own.count == shape[0],
            theirs.count == goldenShape[0], shape[0] == goldenShape[0], shape[2] == goldenShape[2],
            let ownTokens = own.first?.count, let tokens = theirs.first?.count, shape[1] - ownTokens == goldenShape[1] - tokens,
            goldenShape[1] >= tokens + leading
        else { return nil }
        pairs = own.indices.map { batch in
            tokenPairs(own[batch], reference: theirs[batch], leading: leading, behind: goldenShape[1] - leading - tokens)
        }
        unmatched = goldenShape[0] * goldenShape[1] - pairs.reduce(0) { $0 + $1.count }
        self.isExplained = isExplained
    }

    /// The rows of both tensors that belong together.
    func gather(_ x: [Double], _ g: [Double], _ xShape: [Int], _ gShape: [Int]) -> ([Double], [Double], [Int]) {
        var (own, theirs): ([Double], [Double]) = ([], [])
        let width = gShape[2]
        for (batch, tokens) in pairs.enumerated() {
            for pair in tokens {
                let (left, right) = ((batch * xShape[1] + pair.own) * width, (batch * gShape[1] + pair.reference) * width)
                own += x[left..<left + width]
                theirs += g[right..<right + width]
            }
        }
        return (own, theirs, [theirs.count / max(1, width), width])
    }

    /// Where an element of the gathered rows [row, column] is in the reference: [example, token, column].
    func placeInReference(_ index: [Int]) -> [Int] {
        guard index.count == 2 else { return index }
        let rows = pairs.enumerated().flatMap { batch, tokens in tokens.map { [batch, $0.reference] } }
        return rows[index[0]] + [index[1]]
    }
}

/// After which block the image tokens of a tensor are taken.
enum ImageTokens: Equatable {
    /// `vision.7` is the state after block 7, `vision.0` enters the first.
    case after(block: Int)
    /// After the last block.
    case final

    /// Nil for names that tell of no image tokens.
    init?(of name: String) {
        let parts = name.split(separator: ".")
        if parts.first == "vision", parts.count == 2 {
            guard let block = Int(parts[1]) else { return nil }
            self = .after(block: block)
            return
        }
        let lowered = name.lowercased()
        let holds =
            ["text", "fusion", "decoder", "selection"].contains(parts.first)
            ? parts.last == "image" : ["image", "vision", "visual", "patch", "question_output"].contains { lowered.contains($0) }
        guard holds else { return nil }
        self = .final
    }
}

/// Judges the indices of one selection as sets.
/// - Parameter comparison: with the reference's choice by patch; nil where that is not known.
func judgeSelection(_ comparison: SelectionComparison?, x: Tensor, golden g: Tensor, criterion: Criterion) throws -> Judgement {
    guard x.dataType == g.dataType, g.dataType.isInteger else { return .failed("data type \(x.dataType); expected \(g.dataType)") }
    guard x.shape == g.shape, g.shape.count == 2 else { return .failed("shape \(x.shape); expected \(g.shape)") }
    var judgement = Judgement(
        verdict: .pass, reason: comparison?.summary, criterion: criterion, dataType: g.dataType, shape: g.shape)
    if case .sets(let margin) = criterion {
        let equal = try x.integers().rows(x.shape[0]).map(Set.init) == g.integers().rows(g.shape[0]).map(Set.init)
        let allowed = margin.flatMap { comparison?.isExplained(within: $0) } ?? false
        judgement.verdict = equal || allowed ? .pass : .fail
        if equal && comparison?.flips ?? 0 == 0 { judgement.reason = nil }
        if !equal && comparison == nil { judgement.reason = "other patches" }
    }
    return judgement
}
