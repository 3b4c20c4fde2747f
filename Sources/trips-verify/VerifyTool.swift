import Foundation
import Goldens
import Runtime
import Support
import ToolSupport
import Trips
import Verification

@main
struct VerifyTool: Tool {
    static let configuration = CommandConfiguration(
        commandName: "trips-verify",
        abstract: "Runs a .trips package on golden inputs and judges its outputs.",
        discussion: """
            An element passes when |x - g| <= atol + rtol * |g|, an output when all its elements do. Exit code 0: every \
            output passes; 1: one fails, or has no counterpart.
            """,
        version: Trips.version)

    @Argument(help: ArgumentHelp("The package.", valueName: "model.trips"))
    var model: String

    @Option(name: .long, parsing: .upToNextOption, help: ArgumentHelp(
        "Golden sets: .safetensors or .npz files with in.NAME and out.NAME, or folders of ONNX test data.", valueName: "golden"))
    var golden: [String] = []

    @OptionGroup(title: "Tolerances") var tolerances: ToleranceOptions

    @Flag(name: .long, help: "Judge traced intermediates (mid.NAME) too, and name the first that diverges.")
    var intermediates = false

    @Flag(name: .long, help: "Feed each block with the golden set's own states, so that each is judged alone.")
    var isolate = false

    @OptionGroup var replacing: ReplacingOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if golden.isEmpty { throw ValidationError("nothing to judge by: expected --golden") }
    }

    func run() throws {
        let goldens = try golden.flatMap(GoldenReference.references)
        let package = try Model(contentsOf: model)
        let report = try verify(package, goldens)
        print(heading(package))
        print()
        print(report.text)
        if !report.passes { throw ExitCode(1) }
    }

    private func verify(_ package: Model, _ goldens: [GoldenReference]) throws -> VerificationReport {
        let progress = Progress("verifying", quiet: common.quiet)
        defer { progress.end() }
        var done = 0
        return try Verification.verify(
            package, against: goldens, options: options(for: package), isolating: isolate, threads: common.threads
        ) { _ in
            done += 1
            progress.update(done, of: goldens.count)
        }
    }

    private func options(for package: Model) -> VerificationOptions {
        var options = VerificationOptions()
        options.tolerances = tolerances.tolerances(fitting: TolerancePreset(fitting: package.manifest))
        options.intermediates = intermediates
        return options
    }

    /// What is being judged, in one line.
    private func heading(_ package: Model) -> String {
        let manifest = package.manifest
        var parts = [(model as NSString).lastPathComponent]
        if let architecture = manifest.architecture { parts.append(architecture) }
        let selections = manifest.selections.map { "block \($0.block) keeps \($0.keepRate) by \($0.guidance)" }
        if !selections.isEmpty { parts.append(selections.joined(separator: ", ")) }
        parts.append("weights \(TolerancePreset(fitting: manifest).rawValue)")
        return parts.joined(separator: " · ")
    }
}
