import Goldens
import ModelGraph
import PackageFormat
import Runtime
import Support
import Tensors

extension TolerancePreset {
    /// The preset that suits what packages hold: the coarsest of their weights' types.
    public init(fitting manifests: Manifest...) {
        let stored = Set(manifests.flatMap { $0.tensors.map(\.storedType) })
        if stored.contains(.int8) || manifests.contains(where: { $0.quantization?.scheme == .int8 }) {
            self = .int8
        } else if stored.contains(.bfloat16) {
            self = .bf16
        } else {
            self = stored.contains(.float16) ? .f16 : .f32
        }
    }
}

/// Judges a package against golden sets.
/// - Parameters:
///   - options: what to judge and by what.
///   - isolating: also feed each block with the reference's own states (needs goldens with intermediates).
///   - timing: also take the time of each kind of operator, on the first set; the verdict does not depend on it.
///   - threads: for the runtime; nil: all processors.
///   - observe: called after each set with what was found in it.
/// - Throws: `data` and `cannotOpen` for golden sets, `usage` where there is none and for tolerances that name nothing,
///   `CancellationError` where the task that calls was cancelled.
public func verify(
    _ model: Model, against goldens: [GoldenReference], options: VerificationOptions = VerificationOptions(),
    isolating: Bool = false,
    timing: Bool = false, threads: Int? = nil, observe: (SetResult) throws -> Void = { _ in }
) throws -> VerificationReport {
    guard !goldens.isEmpty else { throw TripsError.usage("no golden set to judge by") }
    let runner = SessionRunner(Session(model, threads: threads))
    let preset = TolerancePreset(fitting: model.manifest)
    var verifier = try Verifier(runner, options: options, arithmetic: preset, isolating: isolating)
    var times: [KindTime]?
    for reference in goldens {
        let golden = try reference.load(inputNames: runner.inputNames, outputNames: runner.outputNames) { key in
            options.needs(key, isolating: isolating, inputNames: runner.inputNames)
        }
        try observe(try verifier.verify(golden))
        if isolating { try verifier.isolate(runner.session, golden) }
        if timing && times == nil { times = (try? KindTime.measure(runner.session, on: golden)) ?? [] }
    }
    var report = verifier.finished(label: preset.rawValue)
    report.times = times ?? []
    if !report.passes && preset != .f32 && options.tolerances.areDefault {
        report.notes.append(
            "\(preset.rawValue) weights were judged by the tolerances of fp32 (`preset` \(preset.rawValue) suits them)"
        )
    }
    let alone = report.isolated?.count { $0.verdict == .fail } ?? 0
    if report.passes && alone > 0 {
        report.notes.append("\(counted(alone, "block")) beyond tolerance alone, on the reference's states: outside the verdict")
    }
    if timing && report.times.isEmpty { report.notes.append("where the time goes could not be measured on the first golden set") }
    return report
}

extension VerificationOptions {
    /// Whether judging looks at what a golden set has under this key.
    fileprivate func needs(_ key: GoldenKey, isolating: Bool, inputNames: [String]) -> Bool {
        switch key {
        case .input(let name): illustrations != nil || inputNames.contains(name)
        case .output: true
        case .intermediate(let name): intermediates || isolating || SelectionTrace(name) != nil
        }
    }
}

/// Inputs on which two packages are compared.
public enum ComparisonInput: Sendable {
    /// A set in files, which are read when it is its turn.
    case reference(GoldenReference)
    /// A set in memory; its outputs are not looked at.
    case set(GoldenSet)
}

/// Compares two packages value by value on the inputs of golden sets: the reference's values take the place of the
/// goldens' outputs.
/// - Parameters:
///   - name: of the reference, for the report.
///   - options: what to judge and by what.
///   - judging: false leaves the verdict open.
///   - measuring: also measure the costs and times of both on the first set.
///   - threads: for the runtime; nil: all processors.
///   - observe: called after each set with what was found in it.
/// - Throws: as `verify`.
public func compare(
    _ model: Model, with reference: Model, named name: String, on inputs: [ComparisonInput],
    options: VerificationOptions = VerificationOptions(), judging: Bool = false, measuring: Bool = true, threads: Int? = nil,
    observe: (SetResult) throws -> Void = { _ in }
) throws -> VerificationReport {
    guard !inputs.isEmpty else { throw TripsError.usage("no inputs to compare on") }
    let (own, other) = (SessionRunner(Session(model, threads: threads)), SessionRunner(Session(reference, threads: threads)))
    var options = options
    if !judging { options.intermediates = true }
    let preset = TolerancePreset(fitting: model.manifest, reference.manifest)
    var verifier = try Verifier(own, options: options, arithmetic: preset)
    var effect: Effect?
    for input in inputs {
        let golden = try input.load { source in
            try source.load(inputNames: own.inputNames, outputNames: own.outputNames) { key in
                key.inputName != nil && options.needs(key, isolating: false, inputNames: own.inputNames + other.inputNames)
            }
        }
        try locating(golden.name) {
            let run = { try sideBySide(own, other, on: golden) }
            let (found, expected) = try input.isFile ? asDataErrors(run) : run()
            try observe(try verifier.add(found, against: expected, judging: judging))
            if measuring && effect == nil {
                effect = try Effect.measure(model, beside: reference, named: name, on: golden, threads: threads)
            }
        }
    }
    var report = verifier.finished(label: "against \(name)")
    report.effect = effect
    return report
}

extension ComparisonInput {
    fileprivate func load(_ read: (GoldenReference) throws -> GoldenSet) throws -> GoldenSet {
        switch self {
        case .reference(let source): try read(source)
        case .set(let set): set
        }
    }

    fileprivate var isFile: Bool {
        if case .reference = self { true } else { false }
    }
}

/// Runs two models on the inputs of a golden set.
/// - Returns: what `own` computes, and what `reference` computes as a golden set.
private func sideBySide(
    _ own: SessionRunner, _ reference: SessionRunner, on golden: GoldenSet
) throws -> (found: [String: Tensor], expected: GoldenSet) {
    let inputs = golden.passInputs, given = Set(inputs.keys)
    var expected = GoldenSet(name: golden.name, inputs: inputs, metadata: golden.metadata)
    expected.outputs = try reference.session.compute(inputs)
    expected.intermediates = try reference.session.compute(
        inputs, outputs: [], traces: try reference.session.reachable(canonicalOrder(reference.traceNames), from: given))
    let traces = try own.session.reachable(own.traceNames, from: given)
        .filter { expected.intermediates[$0] != nil || SelectionTrace($0) != nil }
    let found = try own.run(inputs, outputs: try own.session.reachable(own.outputNames, from: given), traces: traces)
    return (found, expected)
}
