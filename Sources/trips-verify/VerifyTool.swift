import Foundation
import Goldens
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

    @OptionGroup var replacing: ReplacingOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if golden.isEmpty { throw ValidationError("nothing to judge by: expected --golden") }
    }

    func run() throws {
        print(model)
    }
}
