import PackageFormat
import Trips

/// How a package is written.
public struct PackageOptions: ParsableArguments {
    public enum Storage: String, CaseIterable, ExpressibleByArgument, Sendable { case f32, f16, bf16 }

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Storage type of weights: f32, f16 or bf16.", discussion: "Default: as in the source.", valueName: "type"))
    public var weights: Storage?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Level of zstd, up to 22.", discussion: "Default: one that suits weights.", valueName: "n"))
    public var level: Int?

    @Flag(name: .long, help: "No byte planes: `zstd -dc` then gives a valid safetensors file.")
    public var plain = false

    public init() {}

    public func validate() throws {
        if let level, !(-131072...22).contains(level) { throw ValidationError("--level \(level): expected -131072 to 22") }
    }

    /// The options of the package's writer.
    public func writing(force: Bool) -> PackageWriter.Options {
        let storage: PackageWriter.Options.Storage =
            switch weights {
            case .f32: .f32
            case .f16: .f16
            case .bf16: .bf16
            case nil: .asIs
            }
        return PackageWriter.Options(level: level, plain: plain, storage: storage, replacing: force)
    }
}
