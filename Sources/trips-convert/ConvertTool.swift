import Foundation
import Support
import ToolSupport
import Trips

@main
struct ConvertTool: Tool {
    static let configuration = CommandConfiguration(
        commandName: "trips-convert",
        abstract: "Converts an ONNX model or a checkpoint of ALBEF or mPLUG to a .trips package, with patch selection if asked for.",
        version: Trips.version)

    @Argument(help: ArgumentHelp(
        "model.onnx, checkpoint.safetensors, model.safetensors.index.json, or checkpoint.pth.", valueName: "source"))
    var source: String

    @Option(name: [.short, .long], help: ArgumentHelp(
        "The package to write.", discussion: "Default: the source's stem + .trips in the working directory.", valueName: "out.trips"))
    var output: String?

    @OptionGroup(title: "Selection") var selection: SelectionOptions
    @OptionGroup(title: "Checkpoints") var checkpoint: CheckpointOptions
    @OptionGroup(title: "Package") var package: PackageOptions

    @Option(name: .long, help: ArgumentHelp("Keep this WordPiece vocabulary (vocab.txt) in the package.", valueName: "file"))
    var vocabulary: String?

    @Flag(name: .long, help: "Read external data behind links that leave the model's folder (ONNX).")
    var followLinks = false

    @Option(name: .long, help: ArgumentHelp(
        "Stop after fold, fuse or select and print the graph; write nothing.", valueName: "stage"))
    var until: ConversionStage?

    @Flag(name: .long, help: "Print the source's operators with counts, and which are unsupported; write nothing.")
    var listOperators = false

    @OptionGroup var replacing: ReplacingOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if until != nil && listOperators { throw ValidationError("--until and --list-operators exclude each other") }
    }

    func run() throws {
        print("\(source) -> \(outputPath)")
    }

    private var outputPath: String { output ?? defaultOutput(for: source) }
}

/// The source's stem + .trips; an index of shards has the model's stem.
func defaultOutput(for source: String) -> String {
    var name = (source as NSString).lastPathComponent
    if name.hasSuffix(".safetensors.index.json") { name = String(name.dropLast(".index.json".count)) }
    let stem = (name as NSString).deletingPathExtension
    return (stem.isEmpty ? name : stem) + ".trips"
}
