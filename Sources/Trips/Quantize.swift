import Foundation
import Goldens
import ModelGraph
import PackageFormat
import Quantization
import Runtime
import Support
import Tensors

/// Quantizes a package.
/// - Parameters:
///   - source: a `.trips` package with weights in floating point; layers in int8 that it came with stay as they are.
///   - path: where the new package goes; it appears there whole or not at all.
///   - options: the type of the weights, what to calibrate on, and what stays.
///   - writing: how the package is written.
///   - measuring: also run both packages side by side, on the first calibration inputs that suffice for an output, and report
///     the times.
///   - threads: threads to work with; nil: as many as there are processors.
///   - progress: called with the layers done and their number; each counts twice where it is also tried alone.
/// - Throws: `usage` where the options do not suit the model; as `PackageReader` and `PackageWriter`; `CancellationError` where
///   the task that calls was cancelled while samples ran.
@discardableResult
public func quantize(
    _ source: String, to path: String, _ options: QuantizationOptions, writing: PackageWriter.Options = .init(),
    measuring: Bool = true, threads: Int? = nil, progress: ((Int, Int) -> Void)? = nil
) throws -> QuantizationReport {
    try options.check(writing)
    try AtomicFile.checkTarget(path, isNot: source)
    let reader = try PackageReader(path: source)
    let graphs = try reader.graphs()
    guard !graphs.isEmpty else { throw TripsError.usage("the package holds no graph", at: fileName(of: source)) }
    let pool = threads.map { ThreadPool(threads: $0) } ?? .shared
    var (quantized, report) = try Quantization.quantize(graphs, options, pool: pool, progress: progress)
    var manifest = reader.manifest
    manifest.quantization = record(report, options, before: manifest.quantization)
    var extra: [(name: String, constant: Constant)] = []
    if let vocabulary = manifest.vocabulary { extra.append((vocabulary, try reader.constant(named: vocabulary))) }
    try PackageWriter.write(graphs: quantized, extraTensors: extra, manifest: manifest, to: path, options: writing, pool: pool)
    quantized = []
    if measuring {
        let (before, after) = (try Model(contentsOf: source), try Model(contentsOf: path))
        let session = Session(before)
        let suitable = try options.calibration.first { golden in
            try !session.reachable(session.outputNames, from: Set(golden.inputs.keys)).isEmpty
        }
        if let inputs = suitable?.inputs {
            let times = try compareTimes(before, after, inputs: inputs, threads: threads)
            (report.millisecondsBefore, report.millisecondsAfter) = times
        }
    }
    return report
}

extension QuantizationOptions {
    /// - Throws: `usage` where options do not go together, or with how the package is written.
    package func check(_ writing: PackageWriter.Options) throws {
        try check()
        try writing.check()
        guard !writing.mapped || scheme == .int8 && !weightsOnly else {
            throw TripsError.usage(
                "`mapped`: weights are to be mapped as they are read", found: weightsOnly ? "`weightsOnly`" : scheme.rawValue,
                expected: "int8 weights and activations")
        }
    }
}

/// - Parameter before: of the source, for layers that stay as they were.
private func record(
    _ report: QuantizationReport, _ options: QuantizationOptions, before: Manifest.Quantization?
) -> Manifest.Quantization {
    var summary = options.scheme.rawValue
    if options.scheme == .int8 {
        summary +=
            options.weightsOnly
            ? " weights, fp32 arithmetic"
            : " weights and activations, \(counted(report.attentions, "attention")) in int8, 32-bit sums"
        let count = options.calibration.count
        summary += count == 0 ? ", without data" : ", calibrated on \(counted(count, "input"))"
    }
    if report.quantizedBefore > 0, let before {
        summary += "; \(counted(report.quantizedBefore, "layer")) as before: \(before.summary)"
    }
    let names = Set(report.layers.map(\.name))
    return Manifest.Quantization(
        scheme: options.scheme, summary: summary,
        layers: (before?.layers.filter { !names.contains($0.name) } ?? [])
            + report.layers.map { layer in
                .init(
                    name: layer.name, precision: layer.precision, groupSize: layer.groupSize, snr: layer.outputSNR,
                    note: layer.note)
            })
}
