import Support
import Tensors

/// What came out of comparing one tensor with its reference.
public enum Verdict: String, Sendable, Codable {
    case pass, fail
    /// Not judged, perhaps compared: it does not count in the verdict.
    case unjudged
}

/// The comparison of one tensor of one golden set.
public struct Judgement: Sendable {
    /// Whether the tensor passes.
    public var verdict: Verdict
    /// Why it failed or was not judged, or what is worth knowing of a pass.
    public var reason: String?
    /// What it was judged by; nil where types or shapes already differ.
    public var criterion: Criterion?
    /// The largest |x - g| / (atol + rtol · |g|): up to 1 passes. Nil for other criteria.
    public var toleranceUse: Double?
    /// How far it is from the reference; nil where the two cannot be compared.
    public var metrics: Metrics?
    /// For logits.
    public var agreement: Agreement?
    /// How many tokens were compared by their patch, and how many of each side had no partner.
    public var alignment: TokenAlignment?
    /// The reference's type, where types were compared.
    public var dataType: DataType?
    /// The reference's shape, where shapes were compared.
    public var shape: [Int] = []

    package init(verdict: Verdict, reason: String? = nil, criterion: Criterion? = nil, dataType: DataType? = nil, shape: [Int] = [])
    {
        (self.verdict, self.reason, self.criterion, self.dataType, self.shape) = (verdict, reason, criterion, dataType, shape)
    }

    package static func failed(_ reason: String) -> Judgement { Judgement(verdict: .fail, reason: reason) }

    /// Leaves the verdict open. What could not be compared keeps its reason.
    mutating func withdraw() {
        (verdict, toleranceUse) = (.unjudged, nil)
        if criterion != nil { reason = alignment?.description }
    }

    /// `toleranceUse` as `12.5 %` or, far beyond it, `107x`; empty where there is none.
    package var toleranceText: String {
        guard let use = toleranceUse else { return "" }
        // What fails is not to read as if it passed.
        if use > 1 && use < 1.001 { return "\(apart(use * 100, 100).left) %" }
        return use < 10 ? percent(use) : use < 1e6 ? "\(digits(use, 0))x" : "\(short(use))x"
    }
}

/// Judges `x` against the golden tensor `g`.
/// - Parameters:
///   - alignment: how the tokens of both correspond, where selections flipped.
///   - allowingOtherLengths: compare the tokens that correspond even where the numbers of tokens differ.
package func judge(
    _ x: Tensor, golden g: Tensor, name: String, criterion: Criterion, alignment: TokenAlignment? = nil,
    allowingOtherLengths: Bool = false
) throws -> Judgement {
    guard x.dataType == g.dataType else {
        var judgement = Judgement.failed("data type \(x.dataType); expected \(g.dataType)")
        // A script may have cast the numbers: how far they are is worth knowing even so.
        if x.dataType.isFloatingPoint, g.dataType.isFloatingPoint, x.shape == g.shape {
            (judgement.dataType, judgement.shape) = (g.dataType, g.shape)
            judgement.metrics = Metrics(try x.numbers(), reference: try g.numbers(), shape: g.shape)
        }
        return judgement
    }
    guard x.shape == g.shape || allowingOtherLengths && alignment != nil && g.dataType.isFloatingPoint else {
        return .failed("shape \(x.shape); expected \(g.shape)")
    }
    guard g.dataType.isFloatingPoint else { return try judgeIntegers(x, g) }
    var (values, reference) = try (x.numbers(), g.numbers())
    var shape = g.shape
    if let alignment { (values, reference, shape) = alignment.gather(values, reference, x.shape, g.shape) }
    var judgement = Judgement(verdict: .pass, criterion: criterion, dataType: g.dataType, shape: g.shape)
    var metrics = Metrics(values, reference: reference, shape: shape)
    if let alignment { metrics.worstIndex = alignment.placeInReference(metrics.worstIndex) }
    judgement.metrics = metrics
    judgement.alignment = alignment
    if name.contains("logits") || name == "prediction" {
        judgement.agreement = Agreement(values, reference: reference, shape: shape)
    }
    judgement.decide(values, reference)
    return judgement
}

extension Judgement {
    fileprivate mutating func decide(_ x: [Double], _ g: [Double]) {
        guard let metrics, let criterion else { return }
        if metrics.nonFiniteMismatches > 0 {
            verdict = .fail
            reason = "NaN or infinity at \(counted(metrics.nonFiniteMismatches, "place")) where the other side has none"
            return
        }
        switch criterion {
        case .elementwise(let absolute, let relative):
            var (use, failures) = (0.0, 0)
            for index in g.indices where g[index].isFinite {
                let (error, allowed) = (abs(x[index] - g[index]), absolute + relative * abs(g[index]))
                if error > allowed { failures += 1 }
                if error > 0 { use = max(use, error / allowed) }
            }
            toleranceUse = use
            if failures > 0 {
                verdict = .fail
                reason = "\(failures) of \(g.count) elements beyond tolerance"
            }
        case .snr(let minimum):
            // Negated so that a NaN SNR fails.
            if !(metrics.snr >= minimum) {
                verdict = .fail
                let (found, expected) = apart(metrics.snr, minimum)
                reason = "SNR \(found) dB; expected \(expected) or more"
            }
        case .equal, .sets:
            if metrics.absolute.maximum > 0 {
                verdict = .fail
                reason = "not equal"
            }
        }
        if verdict == .pass, let alignment { decide(alignment, by: criterion) }
    }

    private mutating func decide(_ alignment: TokenAlignment, by criterion: Criterion) {
        reason = alignment.description
        if alignment.unmatched == 0 { return }
        if case .snr = criterion, alignment.isExplained { return }
        verdict = .fail
        reason = "\(alignment.unmatched) tokens have no counterpart after a flipped selection"
    }
}

/// Exactly, also where numbers exceed what double precision holds.
private func judgeIntegers(_ x: Tensor, _ g: Tensor) throws -> Judgement {
    var judgement = Judgement(verdict: .pass, criterion: .equal, dataType: g.dataType, shape: g.shape)
    let (values, reference) = try (x.integers(), g.integers())
    let differing = g.count == 0 ? [] : reference.indices.filter { values[$0] != reference[$0] }
    // `integers` leaves the bits of uint64 as they are.
    let isUnsigned = g.dataType == .uint64
    func number(_ bits: Int) -> Double { isUnsigned ? Double(UInt(bitPattern: bits)) : Double(bits) }
    func text(_ bits: Int) -> String { isUnsigned ? "\(UInt(bitPattern: bits))" : "\(bits)" }
    func distance(_ x: Int, _ g: Int) -> Double {
        let isBelow = isUnsigned ? UInt(bitPattern: x) < UInt(bitPattern: g) : x < g
        return Double(UInt(bitPattern: isBelow ? g &- x : x &- g))
    }
    judgement.metrics = Metrics(
        values.map(number), reference: reference.map(number), shape: g.shape, errors: zip(values, reference).map(distance))
    if let first = differing.first {
        judgement.verdict = .fail
        judgement.reason =
            "\(differing.count) of \(g.count) elements differ, first at \(coordinates(of: first, in: g.shape)): "
            + "\(text(values[first])); expected \(text(reference[first]))"
    }
    return judgement
}
