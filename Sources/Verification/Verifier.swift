import Goldens
import Runtime
import Support
import Tensors

/// What to judge, and by what.
public struct VerificationOptions: Sendable {
    public var tolerances = Tolerances()
    /// Judge `mid.*` too.
    public var intermediates = false
    /// What the model computes in: errors below its own noise are no sign of a mistake.
    public var arithmetic = TolerancePreset.f32
    /// What to draw of selections; nil: nothing.
    public var illustrations: IllustrationOptions?

    public init() {}
}

/// Judges a model against golden sets, one after the other; only figures stay in memory.
public struct Verifier {
    private let model: any ModelRunner
    private var options: VerificationOptions
    private let isolating: Bool
    /// What was found so far.
    public private(set) var report = VerificationReport()

    /// - Parameter isolating: each block is to be judged alone as well.
    /// - Throws: `usage` where a tolerance names nothing that the model computes.
    public init(_ model: any ModelRunner, options: VerificationOptions, isolating: Bool = false) throws {
        self.model = model
        self.options = options
        self.isolating = isolating
        let decoded = ["ids", "score", "topk_ids", "topk_probs", "box"]
        for pattern in options.tolerances.patterns {
            let rule = ToleranceRule(pattern: pattern, value: 0)
            guard (model.outputNames + model.traceNames + decoded).contains(where: rule.names) else {
                throw TripsError.usage("a tolerance names no output", found: pattern, expected: model.outputNames.joined(separator: ", "))
            }
        }
    }

    /// Runs the model on a set and judges it.
    /// - Throws: `data` where the set lacks inputs, and what running throws.
    @discardableResult
    public mutating func verify(_ golden: GoldenSet) throws -> SetResult {
        let result = try locating(golden.name) { try judge(golden) }
        report.add(result)
        return result
    }

    /// What was found, with the curves that its intermediates give.
    /// - Parameter label: names the model in the plot.
    public func finished(label: String) -> VerificationReport {
        var finished = report
        if !report.intermediates.isEmpty { finished.curves.append(DepthCurve(label, report.intermediates)) }
        return finished
    }

    /// Takes in what was computed elsewhere.
    /// - Parameter judging: false leaves the verdict open.
    mutating func add(_ found: [String: Tensor], against golden: GoldenSet, judging: Bool) throws -> SetResult {
        var result = try compare(found, with: golden, judging: judging)
        if !judging {
            for index in result.tensors.indices {
                result.tensors[index].judgement.verdict = .unjudged
                result.tensors[index].judgement.reason = result.tensors[index].judgement.alignment?.description
                result.tensors[index].judgement.toleranceUse = nil
            }
            result.divergence = nil
        }
        report.add(result)
        return result
    }

    /// Judges each block alone, on the reference's states.
    mutating func isolate(_ session: Session, _ golden: GoldenSet) throws {
        try locating(golden.name) {
            guard golden.intermediates.keys.contains(where: { !$0.hasPrefix("selection.") }) else {
                throw TripsError.data("blocks cannot be judged alone", found: "no states", expected: "a golden set with mid.vision.0, …")
            }
            let isolated = try IsolatedModel(
                session, states: try fittingStates(golden), results: Set(golden.intermediates.keys).union(golden.outputs.keys))
            let found = try suiting { try isolated.run(golden) }
            var only = golden
            only.intermediates = golden.intermediates.filter { found[$0.key] != nil }
            only.outputs = golden.outputs.filter { found[$0.key] != nil }
            var alone = self
            alone.options.intermediates = true
            alone.options.illustrations = nil
            report.addIsolated(try alone.compare(found, with: only, judging: true).tensors, set: golden.name)
        }
    }

    /// The reference's states that the model's blocks can read: those of the type and shape that it computes itself.
    private func fittingStates(_ golden: GoldenSet) throws -> Set<String> {
        let own = try compute(golden, outputs: [], traces: model.traceNames.filter { golden.intermediates[$0] != nil })
        return Set(own.filter { name, state in
            golden.intermediates[name].map { $0.dataType == state.dataType && $0.shape == state.shape } ?? false
        }.keys)
    }

    private func judge(_ golden: GoldenSet) throws -> SetResult {
        let stated = Array(golden.outputs.values) + (options.intermediates ? Array(golden.intermediates.values) : [])
        guard stated.contains(where: { !$0.shape.contains(0) }) else {
            throw TripsError.data("nothing to judge", found: stated.isEmpty ? "no out.NAME" : "tensors without elements", expected: "a golden output")
        }
        let outputs = model.outputNames.filter { golden.outputs[$0] != nil }
        let decoded = model.decodedNames(among: golden.outputs.keys.filter { !outputs.contains($0) }.sorted())
        let draws = options.illustrations != nil && golden.inputs.values.contains { $0.shape.count == 4 }
        let traces = canonicalOrder(model.traceNames.filter { name in
            name.hasPrefix("selection.") ? draws || golden.intermediates[name] != nil : options.intermediates && golden.intermediates[name] != nil
        })
        var found = try compute(golden, outputs: outputs, traces: traces)
        if !decoded.isEmpty {
            found.merge(try suiting { try model.decode(decoded, inputs: golden.inputs, metadata: golden.metadata) }) { first, _ in first }
        }
        var result = try compare(found, with: golden, judging: true)
        let given = Array(golden.inputs.keys) + golden.unread.filter { $0.hasPrefix("in.") }.map { String($0.dropFirst(3)) }
        let unread = Set(given).subtracting(model.inputNames)
        if !unread.isEmpty && decoded.isEmpty {
            result.notes.append("inputs that the model does not have: \(listed(unread)); it has \(listed(model.inputNames))")
        }
        let unanswered = golden.outputs.keys.filter { found[$0] == nil }
        if !unanswered.isEmpty {
            result.notes.append("outputs that the model does not have: \(listed(unanswered)); it has \(listed(model.outputNames))")
        }
        return result
    }

    private func listed(_ names: some Sequence<String>) -> String { names.sorted().joined(separator: ", ") }

    private func compute(_ golden: GoldenSet, outputs: [String], traces: [String]) throws -> [String: Tensor] {
        if outputs.isEmpty && traces.isEmpty { return [:] }
        return try suiting { try model.run(golden.inputs, outputs: outputs, traces: traces) }
    }

    /// Judges what the model gave; also for values that come from elsewhere, such as another package.
    /// - Parameter judging: false also compares tensors whose numbers of tokens differ.
    func compare(_ found: [String: Tensor], with golden: GoldenSet, judging: Bool) throws -> SetResult {
        var result = SetResult(name: golden.name, metadata: golden.metadata)
        let (all, theirs) = (try SelectionTrail(found), try SelectionTrail(golden.intermediates))
        // A verdict rests on what the reference states; other selections of the model are there to be drawn.
        let own = judging ? try SelectionTrail(found.filter { golden.intermediates[$0.key] != nil }) : all
        result.selections = compareSelections(own, reference: theirs)
        if let settings = options.illustrations, report.illustrations.count < settings.count {
            result.illustrations = try (0...1).filter { $0 == 0 || golden.inputs["image\($0)"] != nil }.compactMap {
                try Illustration(golden, own: all, reference: theirs, example: $0, options: settings)
            }
        }
        let flipped = theirs.layers.isEmpty != own.layers.isEmpty || result.selections.contains { $0.flips > 0 }

        func judged(_ name: String, _ g: Tensor) throws -> Judgement {
            guard let x = found[name] else { return .failed("no counterpart") }
            if isSelectionIndices(name) {
                let comparison = result.selections.first { "selection.\($0.layer).indices" == name }
                return try judgeSelection(comparison, x: x, golden: g, criterion: options.tolerances.setCriterion)
            }
            if name == "topk_ids", let chances = golden.outputs["topk_probs"], try differOnlyInTies(x, g, chances) {
                return Judgement(verdict: .pass, reason: "equal but for answers of equal probability", criterion: .equal, dataType: g.dataType, shape: g.shape)
            }
            var alignment: TokenAlignment?
            if flipped, let tokens = ImageTokens(of: name), let left = own.last(before: tokens),
                let right = theirs.last(before: tokens) ?? (judging ? nil : .unselected(own)), !judging || left.number == right.number {
                alignment = TokenAlignment(
                    left, reference: right, shape: x.shape, goldenShape: g.shape, leading: model.leadingTokens)
            }
            var judgement = try Verification.judge(
                x, golden: g, name: name, criterion: options.tolerances.criterion(for: name), alignment: alignment,
                allowingOtherLengths: !judging)
            excuse(&judgement, name, result.selections)
            return judgement
        }

        let order = model.outputNames.filter { golden.outputs[$0] != nil }
        for name in order + golden.outputs.keys.filter({ !order.contains($0) }).sorted() {
            guard let g = golden.outputs[name] else { continue }
            result.tensors.append(.init(name: name, isIntermediate: false, judgement: try judged(name, g)))
        }
        let names = canonicalOrder(golden.intermediates.keys)
        guard options.intermediates else {
            let count = names.count + golden.unread.count { $0.hasPrefix("mid.") }
            let how = isolating ? "judged only where a block stands alone, outside the verdict" : "not judged"
            if count > 0 {
                result.notes.append("\(count) intermediates of the golden sets are \(how) (--intermediates judges them)")
            }
            return result
        }
        for name in names {
            guard let g = golden.intermediates[name] else { continue }
            result.tensors.append(.init(name: name, isIntermediate: true, judgement: try judged(name, g)))
        }
        result.divergence = Divergence(
            result.tensors.filter(\.isIntermediate).map { ($0.name, $0.judgement) }, noiseFloor: options.arithmetic.noiseFloor)
        return result
    }

    /// Behind a flip that the arithmetic explains, a later selection's scores and positions mean other patches.
    private func excuse(_ judgement: inout Judgement, _ name: String, _ selections: [SelectionComparison]) {
        guard options.tolerances.allowsFlips, judgement.verdict == .fail, name.hasPrefix("selection."),
            let layer = Int(name.split(separator: ".").dropFirst().first ?? ""),
            let comparison = selections.first(where: { $0.layer == layer })
        else { return }
        let excused = name.hasSuffix(".scores") ? comparison.streamChanged : comparison.flips > 0
        if excused && comparison.isExplained(within: 2 * options.tolerances.preset.scoreTolerance) {
            judgement.verdict = .unjudged
            judgement.reason = "patches flipped within the margin"
        }
    }
}

/// True where two rankings [B, k] differ, but only in the order of answers whose reference probabilities are equal.
private func differOnlyInTies(_ x: Tensor, _ g: Tensor, _ probabilities: Tensor) throws -> Bool {
    guard x.shape == g.shape, x.dataType == g.dataType, probabilities.shape == g.shape, let k = g.shape.last, k > 0 else { return false }
    let (own, theirs, chances) = try (x.integers(), g.integers(), probabilities.numbers())
    guard own != theirs else { return false }
    for start in stride(from: 0, to: theirs.count, by: k) {
        var rank = start
        while rank < start + k {
            // The first stands for itself, whatever it is: NaN is within reach of no number.
            let others = (rank + 1..<start + k).prefix { abs(chances[$0] - chances[rank]) <= 1e-6 * abs(chances[rank]) }
            let tied = rank..<others.endIndex
            guard own[tied].sorted() == theirs[tied].sorted() else { return false }
            rank = tied.upperBound
        }
    }
    return true
}
