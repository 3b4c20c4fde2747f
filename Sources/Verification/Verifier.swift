import Goldens
import ModelGraph
import Runtime
import Support
import Tensors

/// What to judge, and by what.
public struct VerificationOptions: Sendable {
    /// What each tensor is judged by.
    public var tolerances = Tolerances()
    /// Judge `mid.*` too.
    public var intermediates = false
    /// What to draw of selections; nil: nothing.
    public var illustrations: IllustrationOptions?

    /// Outputs alone, by the tolerances of fp32.
    public init() {}
}

/// Judges a model against golden sets, one after the other; only figures stay in memory.
package struct Verifier {
    private let model: any ModelRunner
    private var options: VerificationOptions
    private let arithmetic: TolerancePreset
    private let isolating: Bool
    /// What was found so far.
    package private(set) var report = VerificationReport()

    /// - Parameters:
    ///   - arithmetic: what the model computes in: errors below its own noise are no sign of a mistake.
    ///   - isolating: each block is to be judged alone as well.
    /// - Throws: `usage` where a tolerance names nothing that the model computes.
    package init(
        _ model: any ModelRunner, options: VerificationOptions, arithmetic: TolerancePreset = .f32, isolating: Bool = false
    ) throws {
        self.model = model
        self.arithmetic = arithmetic
        self.options = options
        self.isolating = isolating
        let decoded = ["ids", "score", "topk_ids", "topk_probs", "box"]
        for pattern in options.tolerances.patterns {
            let rule = ToleranceRule(pattern: pattern, value: 0)
            guard (model.outputNames + model.traceNames + decoded).contains(where: rule.names) else {
                throw TripsError.usage(
                    "a tolerance names no output", found: pattern, expected: model.outputNames.joined(separator: ", "))
            }
        }
    }

    /// Runs the model on a set and judges it.
    /// - Throws: `data` where the set lacks inputs, and what running throws.
    @discardableResult
    package mutating func verify(_ golden: GoldenSet) throws -> SetResult {
        let result = try locating(golden.name) { try judge(golden) }
        report.add(result)
        return result
    }

    /// What was found, with the curves that its intermediates give.
    /// - Parameter label: names the model in the plot.
    package func finished(label: String) -> VerificationReport {
        var finished = report
        if !report.intermediates.isEmpty { finished.curves.append(DepthCurve(label, report.intermediates)) }
        return finished
    }

    /// Takes in what was computed elsewhere.
    /// - Parameter judging: false leaves the verdict open.
    mutating func add(_ found: [String: Tensor], against golden: GoldenSet, judging: Bool) throws -> SetResult {
        var result = try compare(found, with: golden, judging: judging)
        if !judging {
            for index in result.tensors.indices { result.tensors[index].judgement.withdraw() }
            result.divergence = nil
        }
        report.add(result)
        return result
    }

    /// Judges each block alone, on the reference's states.
    mutating func isolate(_ session: Session, _ golden: GoldenSet) throws {
        try locating(golden.name) {
            guard golden.intermediates.keys.contains(where: { SelectionTrace($0) == nil }) else {
                throw TripsError.data(
                    "blocks cannot be judged alone", found: "no states", expected: "a golden set with mid.vision.0, …")
            }
            let isolated = try IsolatedModel(
                session, states: try fittingStates(golden), results: Set(golden.intermediates.keys).union(golden.outputs.keys))
            let found = try asDataErrors { try isolated.run(golden) }
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
        return Set(
            own.filter { name, state in
                golden.intermediates[name].map { $0.dataType == state.dataType && $0.shape == state.shape } ?? false
            }.keys)
    }

    private func judge(_ golden: GoldenSet) throws -> SetResult {
        let stated = Array(golden.outputs.values) + (options.intermediates ? Array(golden.intermediates.values) : [])
        guard stated.contains(where: { !$0.shape.contains(0) }) else {
            throw TripsError.data(
                "nothing to judge", found: stated.isEmpty ? "no out.NAME" : "tensors without elements", expected: "a golden output")
        }
        let outputs = model.outputNames.filter { golden.outputs[$0] != nil }
        let decoded = model.decodedNames(among: golden.outputs.keys.filter { !outputs.contains($0) }.sorted())
        let draws = options.illustrations != nil && golden.inputs.values.contains { $0.shape.count == 4 }
        let traces = canonicalOrder(
            model.traceNames.filter { name in
                let isSelection = SelectionTrace(name) != nil
                return isSelection && draws || (isSelection || options.intermediates) && golden.intermediates[name] != nil
            })
        var found = try compute(golden, outputs: outputs, traces: traces)
        if !decoded.isEmpty {
            found.merge(try asDataErrors { try model.decode(decoded, inputs: golden.inputs, metadata: golden.metadata) }) {
                first, _ in
                first
            }
        }
        var result = try compare(found, with: golden, judging: true)
        let given = Array(golden.inputs.keys) + golden.unread.compactMap(\.inputName)
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
        return try asDataErrors { try model.run(golden.inputs, outputs: outputs, traces: traces) }
    }

    /// Judges what the model gave; also for values that come from elsewhere, such as another package.
    /// - Parameter judging: false also compares tensors whose numbers of tokens differ.
    func compare(_ found: [String: Tensor], with golden: GoldenSet, judging: Bool) throws -> SetResult {
        let judge = try SetJudge(found, of: model, golden, options.tolerances, judging: judging)
        var result = SetResult(name: golden.name, metadata: golden.metadata)
        result.selections = judge.selections
        if let settings = options.illustrations, report.illustrations.count < settings.count {
            let own = try SelectionTrail(found, isOrderedByScore: model.isOrderedByScore)
            result.illustrations = try (0...1).filter { $0 == 0 || golden.inputs["image\($0)"] != nil }.compactMap {
                try Illustration(golden, own: own, reference: judge.theirs, example: $0, options: settings)
            }
        }
        let order = model.outputNames.filter { golden.outputs[$0] != nil }
        for name in order + golden.outputs.keys.filter({ !order.contains($0) }).sorted() {
            guard let g = golden.outputs[name] else { continue }
            result.tensors.append(.init(name: name, isIntermediate: false, judgement: try judge.judgement(of: name, g)))
        }
        let names = canonicalOrder(golden.intermediates.keys)
        guard options.intermediates else {
            let count = names.count + golden.unread.count(where: \.isIntermediate)
            let how = isolating ? "judged only block by block, outside the verdict" : "not judged"
            if count > 0 {
                result.notes.append("\(count) intermediates are \(how) (`intermediates` judges them)")
            }
            return result
        }
        for name in names {
            guard let g = golden.intermediates[name] else { continue }
            result.tensors.append(.init(name: name, isIntermediate: true, judgement: try judge.judgement(of: name, g)))
        }
        result.divergence = Divergence(
            result.tensors.filter(\.isIntermediate).map { ($0.name, $0.judgement) }, noiseFloor: arithmetic.noiseFloor)
        return result
    }
}
