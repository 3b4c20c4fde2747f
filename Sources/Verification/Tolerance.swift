import Foundation
import ModelGraph
import Support

/// How a tensor is judged.
public enum Criterion: Sendable, Equatable, CustomStringConvertible {
    /// |x - g| ≤ absolute + relative · |g| for every element.
    case elementwise(absolute: Double, relative: Double)
    /// SNR over the whole tensor, in dB.
    case snr(Double)
    /// Equal elements: integers and booleans.
    case equal
    /// Equal sets in each row: the indices of kept patches. Flips between patches whose reference scores lie closer than
    /// `margin` (relative) are let pass where it is given.
    case sets(margin: Double?)

    public var description: String {
        switch self {
        case .elementwise(let absolute, let relative): "atol \(short(absolute)), rtol \(short(relative))"
        case .snr(let decibel): "SNR ≥ \(short(decibel)) dB"
        case .equal: "equal"
        case .sets(nil): "equal sets"
        case .sets(let margin?): "equal sets, flips within \(short(margin)) apart"
        }
    }
}

/// Tolerances that suit what a package holds.
///
/// - `f32`: both sides round to 24 bits, in another order of summation. Deep towers of fp32 differ by some 1e-6 of the
///   activations' size; 1e-4 + 1e-3 · |g| leaves a hundred times that, and a wrong epsilon or mask exceeds it.
/// - `f16`: weights rounded to 11 bits (relative error 2^-12 rms 1.4e-4, 77 dB per layer); two dozen layers that
///   add up their noise leave about 60 dB, outliers cost another 10.
/// - `bf16`: weights rounded to 8 bits (relative 1.1e-3 rms, 59 dB per layer); 40 dB after two dozen layers, less 8 for outliers.
/// - `int8`: weights and rows rounded to 8 bits of a range that outliers stretch: 25 to 35 dB on trained models of this
///   family, and scalars such as match logits scatter by some 6 dB around it.
public enum TolerancePreset: String, Sendable, CaseIterable, Codable {
    case f32, f16, bf16, int8

    /// What outputs and intermediates are judged by.
    public var criterion: Criterion {
        switch self {
        case .f32: .elementwise(absolute: 1e-4, relative: 1e-3)
        case .f16: .snr(50)
        case .bf16: .snr(32)
        case .int8: .snr(20)
        }
    }

    /// The relative error that the arithmetic leaves in selection scores.
    public var scoreTolerance: Double {
        switch self {
        case .f32: 1e-3
        case .f16: 5e-3
        case .bf16: 3e-2
        case .int8: 1e-1
        }
    }

    /// The noise (10^(-SNR/20)) below which the error of a block is no sign of anything.
    var noiseFloor: Double {
        switch self {
        case .f32: 1e-6
        case .f16: 1e-3
        case .bf16: 8e-3
        case .int8: 6e-2
        }
    }
}

/// A tolerance for all tensors, or for those whose name matches a pattern (`*` matches any run of characters).
public struct ToleranceRule: Sendable, Equatable {
    /// Which tensors it is for, with or without `out.` or `mid.`; nil: all.
    public var pattern: String?
    /// The tolerance; for an SNR in dB.
    public var value: Double

    /// A tolerance for all tensors, or for those that a pattern names.
    public init(pattern: String? = nil, value: Double) {
        self.pattern = pattern
        self.value = value
    }

    /// Reads `X` or `NAME:X`.
    /// - Throws: `usage` where X is not a finite number.
    public init(parsing text: String) throws {
        let parts = text.lastIndex(of: ":").map { (String(text[..<$0]), String(text[text.index(after: $0)...])) }
        guard let value = Double(parts?.1 ?? text), value.isFinite, parts?.0.isEmpty != true else {
            throw TripsError.usage("malformed tolerance", found: text, expected: "a number X, or NAME:X")
        }
        self.init(pattern: parts?.0, value: value)
    }

    func names(_ name: String) -> Bool {
        pattern.map { pattern in [name, "out.\(name)", "mid.\(name)"].contains { matches($0, pattern: pattern) } } ?? false
    }
}

/// What each tensor is judged by. A rule that names the tensor goes before one for all; among equals SNR goes first.
public struct Tolerances: Sendable {
    /// What no rule is for is judged by this.
    public var preset = TolerancePreset.f32
    /// True where a preset other than fp32's was asked for: then selections may flip within the arithmetic's margin.
    public var allowsFlips = false
    /// Of |x - g|; where a rule of only one kind is given, the other is as in `f32`.
    public var absolute: [ToleranceRule] = []
    /// Of |x - g| / |g|.
    public var relative: [ToleranceRule] = []
    /// The least SNR in dB, instead of the two.
    public var snr: [ToleranceRule] = []

    /// Those of fp32.
    public init() {}

    /// Whether nothing was asked for.
    var areDefault: Bool { preset == .f32 && (absolute + relative + snr).isEmpty }

    /// The patterns that the rules state.
    public var patterns: [String] { (absolute + relative + snr).compactMap(\.pattern) }

    /// The criterion for a floating-point tensor.
    public func criterion(for name: String) -> Criterion {
        if let rule = snr.last(where: { $0.names(name) }) { return .snr(rule.value) }
        let named = (absolute.last { $0.names(name) }, relative.last { $0.names(name) })
        let general = (absolute.last { $0.pattern == nil }, relative.last { $0.pattern == nil })
        if named.0 == nil && named.1 == nil {
            if SelectionTrace(name)?.part == .scores { return .elementwise(absolute: 0, relative: preset.scoreTolerance) }
            if let rule = snr.last(where: { $0.pattern == nil }) { return .snr(rule.value) }
            if general.0 == nil && general.1 == nil { return preset.criterion }
        }
        let standard = (absolute: 1e-4, relative: 1e-3)
        return .elementwise(
            absolute: (named.0 ?? general.0)?.value ?? standard.absolute,
            relative: (named.1 ?? general.1)?.value ?? standard.relative)
    }

    /// How far apart, relative to the higher, scores of patches that flip may lie; nil where none may flip.
    var flipMargin: Double? { allowsFlips ? 2 * preset.scoreTolerance : nil }

    /// The criterion for the indices of a selection.
    public var setCriterion: Criterion { .sets(margin: flipMargin) }
}
