import PackageFormat
import Trips

/// How a package is written.
public struct PackageOptions: ParsableArguments {
    @Option(
        name: .long,
        help: ArgumentHelp(
            "Storage type of weights.", discussion: "Default: as in the source.", valueName: "type"))
    public var weights: PackageWriter.Options.Storage?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Level of zstd, up to 22.", discussion: "Default: one that suits weights.", valueName: "n"))
    public var level: Int?

    @Flag(name: .long, help: "No byte planes: `zstd -dc` then gives a valid safetensors file.")
    public var plain = false

    @OptionGroup public var mapping: MappingOptions

    public init() {}

    public func validate() throws {
        try checkRange("--level", level, -131072...22)
        try validating(writing(force: false).check)
    }

    /// The options of the package's writer.
    public func writing(force: Bool) -> PackageWriter.Options {
        PackageWriter.Options(
            level: level, plain: plain, mapped: mapping.mapped, storage: weights ?? .asIs, replacing: force)
    }
}

/// `--mapped`
public struct MappingOptions: ParsableArguments {
    @Flag(
        name: .long,
        help: ArgumentHelp(
            "Store the weights of linear layers as the kernels read them.",
            discussion:
                "They are then mapped, not loaded: a model starts in less time, and processes share its memory, but the file is larger."
        ))
    public var mapped = false

    public init() {}
}

extension PackageWriter.Options.Storage: ExpressibleByArgument {
    /// Without `asIs`, which is what no option means.
    public static var allValueStrings: [String] { allCases.filter { $0 != .asIs }.map(\.rawValue) }

    public init?(argument: String) {
        guard Self.allValueStrings.contains(argument) else { return nil }
        self.init(rawValue: argument)
    }
}
