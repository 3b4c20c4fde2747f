import Foundation
import ModelGraph
import Runtime
import Support
import ToolSupport
import Trips

@main
struct BenchTool: Tool {
    static let configuration = CommandConfiguration(
        commandName: "trips-bench",
        abstract: "Measures how long a .trips package takes: load, runs, and where the time goes.",
        version: Trips.version)

    @Argument(help: ArgumentHelp("The package.", valueName: "model.trips"))
    var model: String

    @Option(name: .long, help: ArgumentHelp("Examples in a batch, where the package leaves that open.", valueName: "n"))
    var batch = 1

    @Option(name: .long, help: ArgumentHelp("Tokens of text, where the package leaves that open.", valueName: "n"))
    var textLength = 40

    @Option(name: .long, help: ArgumentHelp("Runs to take the median of.", valueName: "n"))
    var runs = 10

    @Option(name: .long, parsing: .upToNextOption, help: ArgumentHelp("Outputs to compute; all where none is named.", valueName: "name"))
    var outputs: [String] = []

    @Option(name: .long, help: ArgumentHelp("Run another package in turn with this one.", valueName: "other.trips"))
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
        for (name, value, limit) in [("--batch", batch, 4096), ("--text-length", textLength, 65536), ("--runs", runs, 100_000)]
        where !(1...limit).contains(value) {
            throw ValidationError("\(name) \(value): expected 1 to \(limit)")
        }
    }

    func run() throws {
        if let trace { try replacing.checkOutput(trace, besides: [model]) }
        let measurement = try measure()
        if let trace { try replacing.write(measurement.chromeTrace, to: trace) }
        print(json ? try measurement.json : measurement.text(steps: steps))
    }

    private func measure() throws -> Measurement {
        let clock = ContinuousClock()
        let start = clock.now
        let session = Session(try Model(contentsOf: model), threads: common.threads)
        let opened = clock.now
        let inputs = try session.syntheticInputs(batch: batch, length: textLength)
        let wanted = outputs.isEmpty ? nil : outputs
        let ready = clock.now
        _ = try session.run(inputs, outputs: wanted)
        // Without the making of the inputs: a program that loads a model has them.
        let load = (start.duration(to: opened) + ready.duration(to: clock.now)).milliseconds
        let other = try compare.map { Session(try Model(contentsOf: $0), threads: common.threads) }
        var times: [Double] = []
        var otherTimes: [Double] = []
        if let other { _ = try other.run(inputs, outputs: wanted) }
        for _ in 0..<runs {
            times += try session.measure(inputs, outputs: wanted, runs: 1, warmUp: 0)
            if let other { otherTimes += try other.measure(inputs, outputs: wanted, runs: 1, warmUp: 0) }
        }
        return Measurement(
            model: (model as NSString).lastPathComponent, batch: batch, threads: common.threads ?? ThreadPool.availableProcessors,
            loadMilliseconds: load, milliseconds: times, steps: try session.profile(inputs, outputs: wanted, runs: min(runs, 5)),
            weightBytes: session.model.loadedBytes, peakBytes: peakMemory(),
            compared: compare.map { .init(model: ($0 as NSString).lastPathComponent, milliseconds: otherTimes) })
    }
}

/// What was measured.
struct Measurement: Encodable {
    struct Compared: Encodable {
        let model: String
        let milliseconds: [Double]
    }

    let model: String
    let batch: Int
    let threads: Int
    /// From opening the file to the first result.
    let loadMilliseconds: Double
    let milliseconds: [Double]
    let steps: [StepTime]
    let weightBytes: Int
    /// The process's largest resident size.
    let peakBytes: Int
    let compared: Compared?

    private var total: Double { steps.reduce(0) { $0 + $1.milliseconds } }
    private var multiplyAccumulates: Int { steps.reduce(0) { $0 + $1.multiplyAccumulates } }

    var json: String {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            return String(decoding: try encoder.encode(self), as: UTF8.self)
        }
    }

    func text(steps listed: Bool) -> String {
        var lines = [
            "\(model): batch \(batch), \(threads) threads",
            "load to first result  \(digits(loadMilliseconds, 0)) ms",
            "one run               \(digits(median(milliseconds), 2)) ms median, \(digits(milliseconds.min() ?? 0, 2)) ms best of \(milliseconds.count); "
                + "\(digits(Double(batch) * 1000 / max(1e-9, median(milliseconds)), 1)) examples/s",
            "arithmetic            \(macText(multiplyAccumulates)), \(digits(Double(multiplyAccumulates) / max(1e-9, median(milliseconds)) / 1e6, 1)) GMAC/s",
            "memory                \(byteText(weightBytes)) of weights, \(byteText(peakBytes)) resident at most",
        ]
        if let compared {
            let ratio = median(compared.milliseconds) / max(1e-9, median(milliseconds))
            lines.append("\(compared.model), run in turn: \(digits(median(compared.milliseconds), 2)) ms median; \(digits(ratio, 2)) times this one's time")
        }
        return lines.joined(separator: "\n") + "\n\n" + (listed ? stepTable : kindTable)
    }

    private var kindTable: String {
        var sums: [String: (time: Double, cost: Int, count: Int)] = [:]
        for step in steps {
            let sum = sums[step.kind] ?? (0, 0, 0)
            sums[step.kind] = (sum.time + step.milliseconds, sum.cost + step.multiplyAccumulates, sum.count + 1)
        }
        return table(sums.sorted { $0.value.time > $1.value.time }.map { ("\($0.key) × \($0.value.count)", $0.value.time, $0.value.cost) })
    }

    private var stepTable: String { table(steps.map { ("\($0.kind)  \($0.label)", $0.milliseconds, $0.multiplyAccumulates) }) }

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
                    name: step.label, cat: step.kind, ts: time, dur: step.milliseconds * 1000, args: ["macs": step.multiplyAccumulates])
            }
            return String(decoding: try JSONEncoder().encode(["traceEvents": events]), as: UTF8.self) + "\n"
        }
    }
}

/// The process's largest resident size in bytes (Linux's VmHWM).
func peakMemory() -> Int {
    guard let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8) else { return 0 }
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM") }
    return (line?.split(whereSeparator: { !$0.isNumber }).first.flatMap { Int($0) } ?? 0) * 1024
}
