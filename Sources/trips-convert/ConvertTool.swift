import Foundation
import Importers
import ModelGraph
import PackageFormat
import Runtime
import Support
import ToolSupport
import Trips

@main
struct ConvertTool: Tool {
    static let configuration = CommandConfiguration(
        commandName: "trips-convert",
        abstract:
            "Converts an ONNX model or a checkpoint of ALBEF or mPLUG to a .trips package, with patch selection if asked for.",
        version: libraryVersion)

    @Argument(
        help: ArgumentHelp(
            "model.onnx, checkpoint.safetensors, checkpoint.pth, or the index of several files, such as model.safetensors.index.json.",
            valueName: "source"))
    var source: String

    @Option(
        name: [.short, .long],
        help: ArgumentHelp(
            "The package to write.", discussion: "Default: the source's stem + .trips in the working directory.",
            valueName: "out.trips"))
    var output: String?

    @OptionGroup(title: "Selection") var selection: ToolSupport.SelectionOptions
    @OptionGroup(title: "Checkpoints") var checkpoint: ArchitectureOptions
    @OptionGroup(title: "Package") var package: PackageOptions

    @Option(name: .long, help: ArgumentHelp("Keep this WordPiece vocabulary (vocab.txt) in the package.", valueName: "file"))
    var vocabulary: String?

    @Flag(name: .long, help: "Follow links out of the model's folder to external data (ONNX).")
    var followLinks = false

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Stop after fold, fuse or select and print the graph; write nothing.", valueName: "stage"))
    var until: ConversionStage?

    @Flag(name: .long, help: "Print the operators of an ONNX model with counts, and which are unsupported; write nothing.")
    var listOperators = false

    @OptionGroup var replacing: ReplacingOptions
    @OptionGroup var common: QuietOptions

    func validate() throws {
        if listOperators && !source.lowercased().hasSuffix(".onnx") {
            throw ValidationError("--list-operators: a checkpoint holds tensors, not operators; expected an ONNX model")
        }
        if until != nil && listOperators { throw ValidationError("--until and --list-operators exclude each other") }
    }

    func run() throws {
        if listOperators { return try printOperators() }
        let options = try conversionOptions()
        if let until {
            let model = try prepare(source, options, until: until)
            printText(model.graphs.map(graphText).joined(separator: "\n\n"))
            return
        }
        try replacing.checkOutput(outputPath, besides: [source] + [vocabulary, checkpoint.config].compactMap { $0 })
        let clock = ContinuousClock()
        let start = clock.now
        let report = try Progress.shown("writing", quiet: common.quiet) { progress in
            try convert(source, to: outputPath, options) { progress.update($0, of: $1) }
        }
        printReport(report, in: start.duration(to: clock.now))
        report.model.graphs.compactMap(sizeNote).forEach(printDiagnostic)
    }

    /// Runs may refuse what depends on the inputs' numbers.
    private func sizeNote(_ graph: Graph) -> String? {
        graph.sizeOfNumbers().map { size in
            let inputs = size.inputs.isEmpty ? "inputs" : size.inputs.joined(separator: ", ")
            return "note: a size depends on the numbers of \(inputs), at \(size.place): runs take at most "
                + "\(Graph.smallInput) elements of each"
        }
    }

    private func conversionOptions() throws -> ConversionOptions {
        var options = ConversionOptions()
        checkpoint.apply(to: &options)
        options.selection = try selection.request()
        options.followsLinks = followLinks
        options.vocabulary = vocabulary
        options.writing = package.writing(force: replacing.force)
        return options
    }

    private func printReport(_ report: ConversionReport, in time: Duration) {
        let manifest = report.manifest
        var lines = manifest.factLines
        for graph in report.model.graphs {
            lines += towerLines(graph)
            let names = { (values: [(name: String, type: ValueType)]) in
                values.map { "\($0.name) \($0.type)" }.joined(separator: ", ")
            }
            lines.append("graph         \(graph.name): \(names(graph.inputs.map { (graph.name(of: $0), graph.type(of: $0)) }))")
            lines.append("              -> \(names(graph.outputs.map { ($0.name, graph.type(of: $0.value)) }))")
        }
        if let selections = manifest.selectionText { lines += ["", selections, ""] + guidanceRemarks(manifest) }
        lines.append(contentsOf: costLines(report))
        lines.append(
            "\(outputPath): \(byteText(report.packageBytes)) from \(byteText(report.sourceBytes)) in \(digits(time.milliseconds / 1e3, 1)) s"
        )
        printText(lines.joined(separator: "\n"))
    }

    /// What selecting means for those who did not train with it.
    private func guidanceRemarks(_ manifest: Manifest) -> [String] {
        guard selection.select != nil else { return [] }
        let effective = manifest.selections.filter(\.dropsPatches)
        guard !effective.isEmpty else { return ["Nothing is dropped at this keep rate: the outputs stay what they were."] }
        var remarks = [
            "Selecting changes the outputs of a model that was not trained with it: trips-verify --against measures by how much."
        ]
        if effective.contains(where: { $0.guidance == .text }) {
            remarks.append("Image features now depend on the text: they cannot be kept per image for retrieval.")
        }
        return remarks
    }

    private func costLines(_ report: ConversionReport) -> [String] {
        report.model.graphs.compactMap { graph in
            costText(graph, among: report.model.graphs).map { "cost          \(graph.name): \($0)" }
        }
    }

    private func printOperators() throws {
        let operators = try operatorInventory(path: source)
        var table = TextTable([
            ("operator", .left), ("domain", .left), ("opset", .right), ("count", .right), ("first node", .left), ("", .left),
        ])
        for entry in operators {
            table.add([
                entry.name, entry.domain, "\(entry.version)", "\(entry.count)", entry.firstNode,
                entry.refusal.map { "unsupported: \($0)" } ?? "",
            ])
        }
        printText(table.text)
        let unsupported = operators.filter { !$0.isSupported }.count
        print("\n\(counted(operators.count, "operator")), " + (unsupported == 0 ? "all supported" : "\(unsupported) unsupported"))
    }

    private var outputPath: String { output ?? defaultOutput(for: source) }
}

extension Manifest.Selection {
    /// False where all tokens stay, so that nothing is selected; true where their number is open.
    var dropsPatches: Bool {
        Int(tokensBefore).map { PatchSelection(heads: 1, keepRate: keepRate).keptCount(of: $0) < $0 } ?? (keepRate < 1)
    }
}

/// The source's stem + .trips; an index of shards has the model's stem.
func defaultOutput(for source: String) -> String {
    var name = fileName(of: source)
    if name.hasSuffix(".safetensors.index.json") { name = String(name.dropLast(".index.json".count)) }
    let stem = (name as NSString).deletingPathExtension
    return (stem.isEmpty ? name : stem) + ".trips"
}
