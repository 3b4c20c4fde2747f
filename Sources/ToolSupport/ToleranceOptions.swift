import Verification

/// The tolerances that outputs are judged by.
public struct ToleranceOptions: ParsableArguments {
    @Option(
        name: .long, parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "Absolute tolerance: X for all outputs, or NAME:X (* in NAME matches any text).", discussion: "Default: 1e-4.",
            valueName: "x"))
    public var atol: [ToleranceRule] = []

    @Option(
        name: .long, parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "Relative tolerance: Y for all outputs, or NAME:Y.", discussion: "Default: 1e-3.", valueName: "x"))
    public var rtol: [ToleranceRule] = []

    @Option(
        name: .long, parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "Smallest signal-to-noise ratio in dB instead of tolerances: for all, or NAME:DB.", valueName: "db"))
    public var minSnr: [ToleranceRule] = []

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Tolerances that suit weights of this type; auto takes the package's.",
            discussion: """
                Default: f32. With f16, bf16 or int8, outputs are judged by SNR, and selections may flip between patches whose scores lie within the \
                arithmetic's error.
                """,
            valueName: "name"))
    public var preset: PresetChoice?

    /// A preset, or the package's own.
    public enum PresetChoice: ExpressibleByArgument, Sendable {
        case auto, preset(TolerancePreset)

        public static var allValueStrings: [String] { ["auto"] + TolerancePreset.allCases.map(\.rawValue) }
        public static var defaultCompletionKind: CompletionKind { .list(allValueStrings) }

        public init?(argument: String) {
            if argument == "auto" {
                self = .auto
            } else if let preset = TolerancePreset(rawValue: argument) {
                self = .preset(preset)
            } else {
                return nil
            }
        }
    }

    public init() {}

    public func validate() throws {
        for rule in atol + rtol where rule.value < 0 {
            throw ValidationError("a tolerance: found \(rule.value); expected 0 or more")
        }
    }

    /// True where any tolerance was asked for.
    public var isGiven: Bool { !(atol + rtol + minSnr).isEmpty || preset != nil }

    /// - Parameter fitting: the preset that suits the package.
    public func tolerances(fitting: TolerancePreset) -> Tolerances {
        var tolerances = Tolerances()
        switch preset {
        case .auto: tolerances.preset = fitting
        case .preset(let preset): tolerances.preset = preset
        case nil: break
        }
        tolerances.allowsFlips = tolerances.preset != .f32
        tolerances.absolute = atol
        tolerances.relative = rtol
        tolerances.snr = minSnr
        return tolerances
    }
}

extension ToleranceRule: ExpressibleByArgument {
    public init?(argument: String) {
        guard let rule = try? ToleranceRule(parsing: argument) else { return nil }
        self = rule
    }
}
