import Foundation
import Goldens
import PackageFormat
import Quantization
import Runtime
import Support
import ToolSupport
import Trips

@main
struct QuantizeTool: Tool {
    static let configuration = CommandConfiguration(
        commandName: "trips-quantize",
        abstract: "Gives a .trips package narrower weights, and says what that costs.",
        usage: "trips-quantize (--int8 | --bf16 | --f16) <in.trips> [-o <out.trips>] [--calibration <golden> ...] [<options>]",
        version: libraryVersion)

    // Has a default so that `validate` can say why it is missing.
    @Argument(help: ArgumentHelp("The package, with weights in floating point.", valueName: "in.trips"))
    var model = ""

    @Flag(help: "Type of the new weights.") var scheme: QuantizationOptions.Scheme

    @Option(
        name: [.short, .long],
        help: ArgumentHelp(
            "The package to write.",
            discussion: "Default: the input's stem + -int8.trips, -bf16.trips or -f16.trips in the working directory.",
            valueName: "out.trips"))
    var output: String?

    @Option(
        name: .long, parsing: .upToNextOption,
        help: ArgumentHelp(
            "Golden sets whose inputs to calibrate on.", valueName: "golden"))
    var calibration: [String] = []

    @Flag(name: .long, help: "With --int8: int8 weights, fp32 arithmetic.")
    var weightsOnly = false

    @Option(
        name: .long, parsing: .upToNextOption,
        help: ArgumentHelp(
            "Layers that stay as they are; * matches any text. A pattern that matches nothing is an error.", valueName: "pattern"
        ))
    var keep: [String] = []

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Put the most sensitive layers back until all outputs have this signal-to-noise ratio, in dB (needs --calibration).",
            valueName: "dB"))
    var maxLoss: Double?

    @Option(name: .long, help: ArgumentHelp("Write the report as JSON.", valueName: "file"))
    var json: String?

    @OptionGroup var mapping: MappingOptions
    @OptionGroup var replacing: ReplacingOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if model.isEmpty { throw missingArgument("<in.trips>", besides: ["--calibration": calibration, "--keep": keep]) }
        if let json, !ReplacingOptions.areDistinct([json, outputPath]) {
            throw ValidationError("--json and --output name one file")
        }
        try validating { try options(calibration: calibration.map { GoldenSet(name: $0) }).check(writing) }
    }

    func run() throws {
        let references = try calibration.flatMap(GoldenReference.references)
        let read = [model] + references.flatMap(\.files)
        try replacing.checkOutput(outputPath, besides: read)
        if let json { try replacing.checkOutput(json, besides: read + [outputPath]) }
        let clock = ContinuousClock()
        let start = clock.now
        let report = try Progress.shown("quantizing", quiet: common.quiet) { progress in
            try quantize(
                model, to: outputPath, options(calibration: goldens(references)), writing: writing, threads: common.threads
            ) { progress.update($0, of: $1) }
        }
        printText(report.text)
        let sizes = try [model, outputPath].map { try ReadableFile(path: $0).size }
        printText(
            """
            \(outputPath): \(byteText(sizes[1])) from \(byteText(sizes[0])), \
            \(ratioText(Double(sizes[0]) / Double(max(1, sizes[1])), "smaller", "larger", equal: "as large")), \
            in \(digits(start.duration(to: clock.now).milliseconds / 1000, 1)) s
            """)
        if let json { try replacing.write(try jsonText(report) + "\n", to: json) }
    }

    private var writing: PackageWriter.Options { .init(mapped: mapping.mapped, replacing: replacing.force) }

    private func options(calibration: [GoldenSet]) -> QuantizationOptions {
        var options = QuantizationOptions(scheme)
        options.weightsOnly = weightsOnly
        options.keep = keep
        options.minimalSNR = maxLoss
        options.calibration = calibration
        return options
    }

    private func goldens(_ references: [GoldenReference]) throws -> [GoldenSet] {
        let names = references.isEmpty ? [] : try Model(contentsOf: model).inputNames
        return try references.map { reference in
            let golden = try reference.load(inputNames: names, outputNames: []) {
                $0.inputName.map(names.contains) ?? false
            }
            return GoldenSet(name: golden.name, inputs: golden.passInputs)
        }
    }

    private var outputPath: String {
        output ?? (fileName(of: model) as NSString).deletingPathExtension + "-\(scheme.rawValue).trips"
    }
}

/// `--int8`, `--bf16` or `--f16`.
extension QuantizationOptions.Scheme: EnumerableFlag {}

extension QuantizationReport {
    /// The report for people.
    var text: String {
        var parts = [layerTable]
        let kept = Dictionary(grouping: layers.filter { $0.precision == .float32 }) { $0.note ?? "not quantized" }
        for (reason, layers) in kept.sorted(by: { $0.key < $1.key }) {
            parts.append(list("\(counted(layers.count, "layer")) as before: \(reason)", layers.map(\.name)))
        }
        let noted = Dictionary(grouping: layers.filter { $0.precision == .int8 && $0.note != nil }) { $0.note ?? "" }
        for (note, layers) in noted.sorted(by: { $0.key < $1.key }) {
            parts.append(list("\(counted(layers.count, "layer")) in int8: \(note)", layers.map(\.name)))
        }
        if !putBack.isEmpty { parts.append(list("put back, the most sensitive first", putBack)) }
        parts.append("weights: \(byteText(bytesBefore)) -> \(byteText(bytesAfter)), \(scheme)")
        if quantizedBefore > 0 { parts.append("\(counted(quantizedBefore, "layer")) in int8 before, unchanged") }
        if attentions > 0 { parts.append("attentions in int8: \(attentions)") }
        if outputSNR.isEmpty {
            parts.append("No calibration inputs: what this costs the outputs is not measured. --calibration GOLDEN measures it.")
        } else {
            parts.append(outputTable)
        }
        if let speed { parts.append(speed) }
        return parts.joined(separator: "\n\n")
    }

    /// The first of the names, a line for each.
    private func list(_ title: String, _ names: [String]) -> String {
        let shown = names.count <= 6 ? names : Array(names.prefix(5)) + ["and \(names.count - 5) more; --json FILE lists all"]
        return ([title] + shown.map { "  \($0)" }).joined(separator: "\n")
    }

    private var layerTable: String {
        var table = TextTable([
            ("layer", .left), ("", .left), ("weights", .left), ("before", .right), ("after", .right), ("SNR dB", .right),
            ("outliers", .right), ("scaled by", .right), ("output dB", .right), ("model dB", .right),
        ])
        func number(_ value: Double?, _ form: (Double) -> String = { digits($0, 1) }) -> String { value.map(form) ?? "" }
        for layer in layers {
            table.add([
                layer.name, layer.kind, layer.precision.rawValue, byteText(layer.bytesBefore), byteText(layer.bytesAfter),
                number(layer.weightSNR),
                number(layer.outlierRatio) { digits($0, 1) + "x" }, number(layer.scalingStrength) { "range^-" + digits($0, 1) },
                number(layer.outputSNR), number(layer.modelSNR),
            ])
        }
        return table.text
    }

    private var outputTable: String {
        var table = TextTable([("output", .left), ("SNR dB", .right), ("worst input", .right)])
        for (name, ratio) in outputSNR.sorted(by: { $0.key < $1.key }) {
            table.add([name, digits(ratio, 1), lowestOutputSNR[name].map { digits($0, 1) } ?? ""])
        }
        for (name, overlap) in selectionOverlap.sorted(by: { $0.key < $1.key }) {
            table.add(["\(name): overlap of kept patches", digits(overlap, 3), ""])
        }
        let unmeasured = unmeasuredOutputs.joined(separator: ", ")
        return table.text + "\n(against the model as it was, over the calibration inputs"
            + (unmeasured.isEmpty ? ")" : ", which do not suffice for \(unmeasured): what these lost is not known)")
    }

    private var speed: String? {
        guard let before = millisecondsBefore, let after = millisecondsAfter, before > 0, after > 0 else { return nil }
        let verdict = ratioText(before / after, "faster", "slower here", equal: "as fast")
        return "one run: \(digits(before, 2)) ms -> \(digits(after, 2)) ms, \(verdict) (medians, run in turn on this machine)"
    }
}

/// A ratio in words, to two decimals: `2.00 times smaller`, `1.12 times larger`, `as large`.
private func ratioText(_ ratio: Double, _ above: String, _ below: String, equal: String) -> String {
    let size = digits(ratio >= 1 ? ratio : 1 / ratio, 2)
    return size == "1.00" ? equal : "\(size) times \(ratio >= 1 ? above : below)"
}
