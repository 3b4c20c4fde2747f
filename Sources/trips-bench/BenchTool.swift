import Foundation
import Goldens
import ModelGraph
import Runtime
import Support
import Tensors
import ToolSupport
import Trips

@main
struct BenchTool: Tool {
    static let configuration = CommandConfiguration(
        commandName: "trips-bench",
        abstract: "Measures how long a .trips package takes: load, runs, and where the time goes.",
        version: libraryVersion)

    @Argument(help: ArgumentHelp("The package.", valueName: "model.trips"))
    var model: String

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Examples in a batch, where the package leaves that open.", discussion: "Default: 1, or what the package fixes.",
            valueName: "n"))
    var batch: Int?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Tokens of text, where the package leaves that open.",
            discussion: "Default: 40, fewer where the model has fewer positions, or what the package fixes.", valueName: "n"))
    var textLength: Int?

    @Option(name: .long, parsing: .unconditional, help: ArgumentHelp("Runs to take the median of.", valueName: "n"))
    var runs = 10

    @Option(
        name: .long, parsing: .upToNextOption, help: ArgumentHelp("Outputs to compute; all where none is named.", valueName: "name")
    )
    var outputs: [String] = []

    @Option(
        name: .long, parsing: .upToNextOption,
        help: ArgumentHelp(
            "Outputs that are given and not computed, such as image_embeds, kept from an earlier run.", valueName: "name")
    )
    var given: [String] = []

    @Option(name: .long, help: ArgumentHelp("Run another package alternately with this one.", valueName: "other.trips"))
    var compare: String?

    @Option(name: .long, help: ArgumentHelp("Write the steps of one run in Chrome's trace format.", valueName: "file"))
    var trace: String?

    @Flag(name: .long, help: "List every step, not only the sums by operator.")
    var steps = false

    @Flag(name: .long, help: "Print everything as JSON.")
    var json = false

    @OptionGroup var replacing: ReplacingOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        try checkRange("--batch", batch, 1...4096)
        try checkRange("--text-length", textLength, 1...65536)
        try checkRange("--runs", runs, 1...100_000)
    }

    func run() throws {
        if let trace { try replacing.checkOutput(trace, besides: [model] + [compare].compactMap { $0 }) }
        let measurement = try measure()
        if let trace { try replacing.write(measurement.chromeTrace, to: trace) }
        if json { print(try jsonText(measurement)) } else { printText(measurement.text(steps: steps)) }
    }

    private func measure() throws -> Measurement {
        let clock = ContinuousClock()
        let start = clock.now
        let session = try open(model)
        let opened = clock.now
        let inputs = try session.syntheticInputs(batch: batch ?? 1, length: textLength ?? 40, given: Set(given))
        let sizes = try checkedSizes(of: inputs, session)
        let wanted = outputs.isEmpty ? nil : outputs
        let ready = clock.now
        /// A model may take texts of one length only, which shows when it runs.
        func firstRun(_ session: Session, _ path: String) throws {
            let length = sizes.textLength.map { " with \(counted($0, "text token")), which --text-length sets" } ?? ""
            _ = try session.inputs(for: wanted ?? [], given: Set(given))
            _ = try locating(fileName(of: path) + length) { try asDataErrors { try session.compute(inputs, outputs: wanted) } }
        }
        try firstRun(session, model)
        // Without the making of the inputs: a program that loads a model has them.
        let load = (start.duration(to: opened) + ready.duration(to: clock.now)).milliseconds
        let generation = wanted == nil && sizes.batch == 1 ? try session.generationTime(inputs, runs: min(runs, 5)) : nil
        let peak = peakMemory()
        let other = try compare.map(open)
        if let other, let compare { try firstRun(other, compare) }
        let times = try measureInTurn([session] + [other].compactMap { $0 }, inputs, outputs: wanted, runs: runs)
        return Measurement(
            model: fileName(of: model), batch: sizes.batch, textLength: sizes.textLength,
            threads: common.threads ?? ThreadPool.availableProcessors, kernels: Session.kernelPath,
            loadMilliseconds: load, milliseconds: times[0],
            generation: generation,
            steps: try session.profile(inputs, outputs: wanted, runs: min(runs, 5)),
            weightBytes: session.model.loadedBytes, peakBytes: peak,
            compared: compare.map { .init(model: fileName(of: $0), milliseconds: times[1]) })
    }

    private func open(_ path: String) throws -> Session {
        let model = try Model(contentsOf: path)
        guard !model.graphs.isEmpty else { throw TripsError.usage("the package holds no graph", at: fileName(of: path)) }
        return Session(model, threads: common.threads)
    }

    /// The sizes of the inputs.
    /// - Throws: `usage` where they are not what was asked for.
    private func checkedSizes(of inputs: [String: Tensor], _ session: Session) throws -> InputSizes {
        let sizes = try session.sizes(of: inputs, given: Set(given))
        if let batch, batch != sizes.batch {
            throw TripsError.usage("--batch", found: batch, expected: "\(sizes.batch), which the package fixes")
        }
        if let textLength, textLength != sizes.textLength {
            let limit = sizes.textLength.map { length in
                length == session.model.maximalTextLength && length < textLength
                    ? "at most \(length), the positions of this model" : "\(length), which the package fixes"
            }
            throw TripsError.usage("--text-length", found: textLength, expected: limit ?? "none: the package reads no text")
        }
        return sizes
    }
}

/// What was measured.
struct Measurement: Encodable {
    struct Compared: Encodable {
        let model: String
        let milliseconds: [Double]
    }

    let model: String
    /// Examples in the batch that ran.
    let batch: Int
    /// Tokens of the text that ran; nil where there is none.
    let textLength: Int?
    let threads: Int
    /// The instruction set that they are for.
    let kernels: String
    /// From opening the file to the first result.
    let loadMilliseconds: Double
    let milliseconds: [Double]
    /// Of packages that generate text.
    let generation: GenerationTime?
    let steps: [StepTime]
    let weightBytes: Int
    /// The process's largest resident size until the first results and answers, of this package alone.
    let peakBytes: Int
    let compared: Compared?

    private var total: Double { steps.reduce(0) { $0 + $1.milliseconds } }
    private var multiplyAccumulates: Int { steps.reduce(0) { $0 + $1.multiplyAccumulates } }

    func text(steps listed: Bool) -> String {
        var lines = [
            "\(model): batch \(batch), " + (textLength.map { counted($0, "text token") + ", " } ?? "") + counted(threads, "thread")
                + ", \(kernels) kernels",
            "load to first result  \(digits(loadMilliseconds, 0)) ms",
            "one run               \(digits(median(milliseconds), 2)) ms median, \(digits(milliseconds.min() ?? 0, 2)) ms best of \(milliseconds.count); "
                + "\(digits(Double(batch) * 1000 / max(1e-9, median(milliseconds)), 1)) examples/s",
            "arithmetic            \(macText(multiplyAccumulates)), \(digits(Double(multiplyAccumulates) / max(1e-9, median(milliseconds)) / 1e6, 1)) GMAC/s",
            "memory                \(byteText(weightBytes)) of weights, \(byteText(peakBytes)) resident at most",
        ]
        if let generation {
            let further = generation.tokens > 1 ? ", each further one \(digits(generation.tokenMilliseconds, 2)) ms" : ""
            lines.append(
                "answer                first token after \(digits(generation.firstMilliseconds, 1)) ms\(further); beam \(generation.beam), \(counted(generation.tokens, "token"))"
            )
        }
        if let compared {
            let ratio = median(compared.milliseconds) / max(1e-9, median(milliseconds))
            lines.append(
                "\(compared.model), run in turn: \(digits(median(compared.milliseconds), 2)) ms median; \(digits(ratio, 2)) times this one's time"
            )
        }
        return lines.joined(separator: "\n") + "\n\n" + (listed ? stepTable : kindTable)
    }

    private var kindTable: String {
        table(steps.byKind.map { ("\($0.kind) × \($0.steps)", $0.milliseconds, $0.multiplyAccumulates) })
    }

    private var stepTable: String {
        table(
            steps.map { step in
                (
                    "\(step.kind)  \(shortLabel(step.label, limit: max(24, 82 - step.kind.count)))", step.milliseconds,
                    step.multiplyAccumulates
                )
            })
    }

    private func table(_ rows: [(name: String, time: Double, cost: Int)]) -> String {
        var table = TextTable([("operator", .left), ("ms", .right), ("share", .right), ("MMACs", .right), ("GMAC/s", .right)])
        for row in rows {
            table.add([
                row.name, digits(row.time, 3), digits(100 * row.time / max(1e-9, total), 1) + " %",
                row.cost > 0 ? digits(Double(row.cost) / 1e6, 1) : "",
                row.cost > 0 ? digits(Double(row.cost) / max(1e-9, row.time) / 1e6, 1) : "",
            ])
        }
        return table.text
    }

    /// One run as a row of events (Chrome's Trace Event Format, complete events).
    var chromeTrace: String {
        get throws {
            struct Event: Encodable {
                let name: String
                let cat: String
                let ph = "X"
                let ts: Double
                let dur: Double
                let pid = 1
                let tid = 1
                let args: [String: Int]
            }
            var time = 0.0
            let events = steps.map { step in
                defer { time += step.milliseconds * 1000 }
                return Event(
                    name: step.label, cat: step.kind, ts: time, dur: step.milliseconds * 1000,
                    args: ["macs": step.multiplyAccumulates])
            }
            return try jsonText(["traceEvents": events]) + "\n"
        }
    }
}

/// A step's label for a table. Of several nodes it shows what their names share once:
/// `layer.0.self.{query key value}`. What is still too long loses its middle.
private func shortLabel(_ label: String, limit: Int) -> String {
    let names = label.split(separator: " ").map { Array($0) }
    var text = label
    if let first = names.first, names.count > 1 {
        let shared = names.reduce(first.count) { zip(first.prefix($0), $1).prefix { $0 == $1 }.count }
        let stem = (first.prefix(shared).lastIndex { $0 == "." || $0 == "/" } ?? -1) + 1
        text = String(first.prefix(stem)) + "{" + names.map { String($0.dropFirst(stem)) }.joined(separator: " ") + "}"
    }
    guard text.count > limit else { return text }
    return text.prefix(limit / 2) + "…" + text.suffix(limit - limit / 2 - 1)
}

/// The process's largest resident size in bytes (Linux's VmHWM).
func peakMemory() -> Int {
    guard let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8) else { return 0 }
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM") }
    return (line?.split(whereSeparator: { !$0.isNumber }).first.flatMap { Int($0) } ?? 0) * 1024
}
