import Foundation
import Goldens
import PackageFormat
import Preprocessing
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
        usage: """
            trips-verify <model.trips> (--golden <golden> ... | --accuracy <test-set> | \
            --against <other.trips> --image <file> --text <words>) [<options>]
            """,
        discussion: """
            An element passes when |x - g| <= atol + rtol * |g|, an output when all its elements do. Exit code 0: every \
            output passes; 1: one fails, or has no counterpart.
            """,
        version: libraryVersion)

    // Has a default so that `validate` can say why it is missing.
    @Argument(help: ArgumentHelp("The package.", valueName: "model.trips"))
    var model = ""

    @Option(
        name: .long, parsing: .upToNextOption,
        help: ArgumentHelp(
            "Golden sets: .safetensors or .npz files with in.NAME and out.NAME, or folders of ONNX test data.", valueName: "golden")
    )
    var golden: [String] = []

    @OptionGroup(title: "Tolerances") var tolerances: ToleranceOptions

    @Flag(name: .long, help: "Judge traced intermediates (mid.NAME) too, and name the first that diverges.")
    var intermediates = false

    @Flag(
        name: .long,
        help: ArgumentHelp(
            "Feed each block with the golden set's own states, so that each is judged alone.",
            discussion: "Shows where an error is made; the verdict stays that of the outputs."))
    var isolate = false

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Compare with another package on the golden inputs, value by value, with costs and times.",
            discussion: "Its values take the place of the golden outputs; they are judged only where a tolerance is given.",
            valueName: "other.trips"))
    var against: String?

    @Option(name: .long, help: ArgumentHelp("Count right answers over a test set (.safetensors).", valueName: "test-set"))
    var accuracy: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "The output whose largest element is the answer (goes with --accuracy).", discussion: "Default: prediction.",
            valueName: "name"))
    var output: String?

    @OptionGroup(title: "Pictures and words as inputs") var example: ExampleOptions

    @Option(name: .long, help: ArgumentHelp("Write a report with plots and pictures.", valueName: "file.html"))
    var report: String?

    @Option(name: .long, help: ArgumentHelp("Write everything as JSON.", valueName: "file.json"))
    var json: String?

    @Option(name: .long, help: ArgumentHelp("Write the verdict for continuous integration.", valueName: "file.xml"))
    var junit: String?

    @OptionGroup var replacing: ReplacingOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if model.isEmpty { throw missingArgument("<model.trips>", besides: ["--golden": golden, "--image": example.image]) }
        if golden.isEmpty && accuracy == nil && !(against != nil && example.isGiven) {
            throw ValidationError("nothing to judge by: expected --golden, --accuracy, or --against with --image and --text")
        }
        if example.isGiven && against == nil {
            throw ValidationError("--image and --text have no reference to compare with: expected --against")
        }
        if output != nil && accuracy == nil { throw ValidationError("--output goes with --accuracy") }
        if isolate && against != nil { throw ValidationError("--isolate and --against exclude each other") }
        if !ReplacingOptions.areDistinct(written) {
            throw ValidationError("--report, --json and --junit: expected a file for each")
        }
    }

    /// The files that are written.
    private var written: [String] { [report, json, junit].compactMap { $0 } }

    func run() throws {
        let goldens = try golden.flatMap(GoldenReference.references)
        let read = [model] + goldens.flatMap(\.files) + example.image + [against, accuracy, example.vocabulary].compactMap { $0 }
        for file in written { try replacing.checkOutput(file, besides: read) }
        let package = try Model(contentsOf: model)
        var found = VerificationReport()
        if let against {
            found = try compare(package, with: against, on: goldens)
        } else if !goldens.isEmpty {
            found = try verify(package, goldens)
        }
        if let accuracy { found.accuracy = try measure(package, accuracy) }
        found.notes = found.notes.map(spellingFlags)
        printText(heading(package))
        print()
        printText(found.text)
        try write(found, PackageFacts(package, path: model))
        if !found.passes { throw ExitCode(1) }
    }

    // MARK: Judging

    private func verify(_ package: Model, _ goldens: [GoldenReference]) throws -> VerificationReport {
        try withProgress("verifying", of: goldens.count) { advance in
            try Verification.verify(
                package, against: goldens, options: try options(for: package), isolating: isolate,
                timing: report != nil || json != nil, threads: common.threads
            ) { _ in advance() }
        }
    }

    private func compare(_ package: Model, with path: String, on goldens: [GoldenReference]) throws -> VerificationReport {
        let reference = try Model(contentsOf: path)
        let name = fileName(of: path)
        var options = try options(for: package)
        options.tolerances = tolerances.tolerances(fitting: TolerancePreset(fitting: package.manifest, reference.manifest))
        var sets = goldens.map(ComparisonInput.reference)
        if example.isGiven { sets.append(.set(try example.goldenSet(for: package, tokenizer: example.tokenizer(of: package)))) }
        var found = try withProgress("comparing", of: sets.count) { advance in
            try Verification.compare(
                package, with: reference, named: name, on: sets, options: options, judging: tolerances.isGiven,
                threads: common.threads
            ) { _ in advance() }
        }
        if report != nil || json != nil, let curve = try referenceCurve(reference, goldens, name) { found.curves.append(curve) }
        return found
    }

    /// How far the other package itself is from the golden sets that have intermediates; nil where none has.
    private func referenceCurve(_ reference: Model, _ goldens: [GoldenReference], _ name: String) throws -> DepthCurve? {
        let goldens = try goldens.filter { golden in
            try golden.load(needing: { _ in false }).unread.contains(where: \.isIntermediate)
        }
        if goldens.isEmpty { return nil }
        var options = VerificationOptions()
        options.intermediates = true
        var curve = try Verification.verify(reference, against: goldens, options: options, threads: common.threads).curves.first
        curve?.label = "\(name) against the golden sets"
        return curve
    }

    private func measure(_ package: Model, _ path: String) throws -> Accuracy {
        let testSet = try TestSet(path: path)
        return try Progress.shown("answering", quiet: common.quiet) { progress in
            try Accuracy.measure(package, on: testSet, output: output ?? "prediction", threads: common.threads) {
                progress.update($0, of: testSet.count)
            }
        }
    }

    private func withProgress<Result>(_ label: String, of total: Int, _ body: (() -> Void) throws -> Result) throws -> Result {
        try Progress.shown(label, quiet: common.quiet) { progress in
            var done = 0
            return try body {
                done += 1
                progress.update(done, of: total)
            }
        }
    }

    private func options(for package: Model) throws -> VerificationOptions {
        var options = VerificationOptions()
        options.tolerances = tolerances.tolerances(fitting: TolerancePreset(fitting: package.manifest))
        options.intermediates = intermediates
        if report != nil {
            var drawing = IllustrationOptions()
            drawing.mean = package.manifest.preprocessing?.mean
            drawing.deviation = package.manifest.preprocessing?.deviation
            drawing.tokenizer = try example.tokenizer(of: package)
            options.illustrations = drawing
        }
        return options
    }

    // MARK: Reporting

    /// What is being judged, in one line.
    private func heading(_ package: Model) -> String {
        let manifest = package.manifest
        var parts = [fileName(of: model)]
        if let architecture = manifest.architecture { parts.append(architecture) }
        let selections = manifest.selections.map { "block \($0.block) keeps \($0.keepRate) by \($0.guidance.rawValue)" }
        if !selections.isEmpty { parts.append(selections.joined(separator: ", ")) }
        parts.append("weights \(TolerancePreset(fitting: manifest).rawValue)")
        if let against { parts.append("against \(fileName(of: against))") }
        return parts.joined(separator: " · ")
    }

    private func write(_ found: VerificationReport, _ facts: PackageFacts) throws {
        if let report { try replacing.write(found.html(facts), to: report) }
        if let json { try replacing.write(try found.json(facts), to: json) }
        if let junit { try replacing.write(found.junit, to: junit) }
    }
}
