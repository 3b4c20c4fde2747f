import Foundation
import Goldens
import Runtime
import Support

/// Worst and median of a figure over golden sets, and the set that gave the worst.
public struct Spread: Sendable {
    /// The worst value; whether that is the largest or the smallest depends on the figure.
    public private(set) var worst: Double
    /// The name of the golden set that gave it.
    public private(set) var worstSet: String
    private var values: [Double]
    private let higherIsWorse: Bool

    init(_ value: Double, set: String, higherIsWorse: Bool) {
        (worst, worstSet, values, self.higherIsWorse) = (value, set, [value], higherIsWorse)
    }

    mutating func add(_ value: Double, set: String) {
        values.append(value)
        if higherIsWorse ? value > worst : isWorse(value, worst) { (worst, worstSet) = (value, set) }
    }

    /// The worse one of two in the middle.
    public var median: Double { values.sorted(by: isWorse)[(values.count - 1) / 2] }
}

/// One output or intermediate over all golden sets.
public struct TensorSummary: Sendable {
    /// Of the output, or canonical name of the intermediate.
    public let name: String
    /// Whether it is an intermediate rather than an output.
    public var isIntermediate: Bool
    /// Number of golden sets that have it.
    public var sets = 0
    /// Those of them in which it failed.
    public var failedSets = 0
    /// Those of them in which it was not judged.
    public var unjudgedSets = 0
    /// The comparison of the worst set: a failed one if there is any, else one that was judged; of these that of the largest
    /// `toleranceUse`, by other criteria that of lowest SNR.
    public var worst: Judgement
    /// The name of that set.
    public var worstSet: String
    /// Signal-to-noise ratio in dB; nil where no set could be compared.
    public var snr: Spread?
    /// The largest |x - g|.
    public var maximalError: Spread?

    /// Fails where one set does.
    public var verdict: Verdict { failedSets > 0 ? .fail : unjudgedSets == sets ? .unjudged : .pass }

    package init(name: String, isIntermediate: Bool, _ judgement: Judgement, set: String) {
        (self.name, self.isIntermediate, worst, worstSet) = (name, isIntermediate, judgement, set)
        add(judgement, set: set)
    }

    mutating func add(_ judgement: Judgement, set: String) {
        sets += 1
        if judgement.verdict == .fail { failedSets += 1 }
        if judgement.verdict == .unjudged { unjudgedSets += 1 }
        if let metrics = judgement.metrics {
            if snr?.add(metrics.snr, set: set) == nil { snr = Spread(metrics.snr, set: set, higherIsWorse: false) }
            if maximalError?.add(metrics.absolute.maximum, set: set) == nil {
                maximalError = Spread(metrics.absolute.maximum, set: set, higherIsWorse: true)
            }
        }
        if judgement.isWorse(than: worst) { (worst, worstSet) = (judgement, set) }
    }
}

extension Judgement {
    fileprivate func isWorse(than other: Judgement) -> Bool {
        if verdict != other.verdict { return verdict == .fail || other.verdict == .unjudged }
        if let toleranceUse, let others = other.toleranceUse, toleranceUse != others { return toleranceUse > others }
        guard let metrics, let others = other.metrics else { return metrics == nil && other.metrics != nil && verdict != .pass }
        return Verification.isWorse(metrics.snr, others.snr)
    }
}

/// One selection layer over all golden sets.
public struct SelectionSummary: Sendable {
    /// The number of its block, from 1.
    public let layer: Int
    /// Number of golden sets that have it.
    public var sets = 0
    /// Those of them in which other patches were kept than in the reference.
    public var setsWithFlips = 0
    /// Patches kept by both of those kept by either.
    public var overlap: Spread
    /// The set of least overlap.
    public var worst: SelectionComparison
    /// The smallest `SelectionComparison.margin`.
    public var smallestMargin: Double?

    init(_ comparison: SelectionComparison, set: String) {
        layer = comparison.layer
        overlap = Spread(comparison.overlap, set: set, higherIsWorse: false)
        worst = comparison
        count(comparison)
    }

    mutating func add(_ comparison: SelectionComparison, set: String) {
        overlap.add(comparison.overlap, set: set)
        if comparison.overlap < worst.overlap { worst = comparison }
        count(comparison)
    }

    private mutating func count(_ comparison: SelectionComparison) {
        sets += 1
        if comparison.flips > 0 { setsWithFlips += 1 }
        if let margin = comparison.margin { smallestMargin = min(smallestMargin ?? margin, margin) }
    }
}

/// Where the error along the model's order begins.
public struct Divergence: Sendable, Equatable {
    /// The first intermediate that fails its tolerance.
    public var firstFailure: String?
    /// The first intermediate whose error is far above what entered its block.
    public var firstJump: Jump?

    package init(firstFailure: String? = nil, firstJump: Jump? = nil) {
        (self.firstFailure, self.firstJump) = (firstFailure, firstJump)
    }

    /// A block that makes much more noise than it was given.
    public struct Jump: Sendable, Equatable, Codable {
        /// The state that left it.
        public var name: String
        /// SNR of what entered the block, in dB.
        public var before: Double
        /// SNR of what left it, in dB.
        public var after: Double

        package init(name: String, before: Double, after: Double) { (self.name, self.before, self.after) = (name, before, after) }
    }
}

/// What verifying a package found.
public struct VerificationReport: Sendable {
    /// Names of the golden sets, in order.
    public var sets: [String] = []
    /// In the model's order.
    public var outputs: [TensorSummary] = []
    /// In the order of computation; empty where they were not asked for.
    public var intermediates: [TensorSummary] = []
    /// By block.
    public var selections: [SelectionSummary] = []
    /// With intermediates: where the error begins; of each kind the earliest over the golden sets.
    public var divergence: Divergence?
    /// The golden set of `divergence.firstFailure`.
    public var failureSet: String?
    /// The golden set of `divergence.firstJump`.
    public var jumpSet: String?
    /// Each block fed with the reference's own states; outside the verdict.
    public var isolated: [TensorSummary]?
    /// SNR along the model, for this package and others.
    public var curves: [DepthCurve] = []
    /// Where the time of a run goes.
    public var times: [KindTime] = []
    /// Beside another package.
    public var effect: Effect?
    /// Over a test set.
    public var accuracy: Accuracy?
    /// Pictures of what selections kept, of the first golden sets.
    public var illustrations: [Illustration] = []
    /// What a person must know to read the verdict.
    public var notes: [String] = []
    /// Metadata of the golden sets; of a key that several have, the first value.
    public var metadata: [String: String] = [:]

    package init() {}

    /// `pass`, `fail`, or `unjudged` where packages were only compared.
    public var verdict: Verdict {
        let verdicts = (outputs + intermediates).map(\.verdict)
        return verdicts.contains(.fail) ? .fail : verdicts.contains(.pass) ? .pass : .unjudged
    }

    /// The tensors that count in the verdict.
    var judged: [TensorSummary] { (outputs + intermediates).filter { $0.verdict != .unjudged } }

    /// Those that fail.
    var failed: [TensorSummary] { judged.filter { $0.verdict == .fail } }

    /// True where everything that is judged passes. Blocks judged alone show where an error is made, and do not count.
    public var passes: Bool { verdict != .fail }

    mutating func add(_ result: SetResult) {
        sets.append(result.name)
        for (name, value) in result.metadata.values where metadata[name] == nil { metadata[name] = value }
        outputs.add(result.tensors.filter { !$0.isIntermediate }, set: result.name)
        intermediates.add(result.tensors.filter(\.isIntermediate), set: result.name)
        for comparison in result.selections {
            if let index = selections.firstIndex(where: { $0.layer == comparison.layer }) {
                selections[index].add(comparison, set: result.name)
            } else {
                selections.append(SelectionSummary(comparison, set: result.name))
            }
        }
        if let found = result.divergence { add(found, set: result.name) }
        illustrations += result.illustrations
        for note in result.notes where !notes.contains(note) { notes.append(note) }
    }

    private mutating func add(_ found: Divergence, set: String) {
        var earliest = divergence ?? Divergence()
        if comesEarlier(found.firstFailure, earliest.firstFailure) {
            (earliest.firstFailure, failureSet) = (found.firstFailure, set)
        }
        if comesEarlier(found.firstJump?.name, earliest.firstJump?.name) { (earliest.firstJump, jumpSet) = (found.firstJump, set) }
        divergence = earliest
    }

    mutating func addIsolated(_ entries: [SetResult.Entry], set: String) {
        var summaries = isolated ?? []
        summaries.add(entries, set: set)
        isolated = summaries
    }
}

extension [TensorSummary] {
    fileprivate mutating func add(_ entries: [SetResult.Entry], set: String) {
        var places = Dictionary(uniqueKeysWithValues: enumerated().map { ($1.name, $0) })
        for entry in entries {
            if let place = places[entry.name] {
                self[place].add(entry.judgement, set: set)
            } else {
                places[entry.name] = count
                append(TensorSummary(name: entry.name, isIntermediate: entry.isIntermediate, entry.judgement, set: set))
            }
        }
    }
}

/// A time as reports print it.
func milliseconds(_ seconds: Double) -> String { "\(digits(seconds * 1000, 2)) ms" }

/// What one golden set showed.
public struct SetResult: Sendable {
    /// The comparison of one of its tensors.
    package struct Entry: Sendable {
        package var name: String
        package var isIntermediate: Bool
        package var judgement: Judgement
    }
    /// The golden set's name.
    public var name: String
    var metadata: GoldenMetadata
    package var tensors: [Entry] = []
    package var selections: [SelectionComparison] = []
    package var divergence: Divergence?
    var illustrations: [Illustration] = []
    package var notes: [String] = []
}
