import Goldens
import ModelGraph
import PackageFormat
import Runtime
import Support
import Tensors

extension TolerancePreset {
    /// The preset that suits what a package holds: the coarsest of its weights' types.
    public init(fitting manifest: Manifest) {
        let stored = Set(manifest.tensors.map(\.storedType))
        if manifest.quantization?.scheme == "int8" || stored.contains(.int8) {
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
///   - threads: for the runtime; nil: all processors.
///   - observe: called behind each set with what was found in it.
/// - Throws: `data` and `cannotOpen` for golden sets, `usage` for tolerances that name nothing.
public func verify(
    _ model: Model, against goldens: [GoldenReference], options: VerificationOptions = VerificationOptions(), isolating: Bool = false,
    threads: Int? = nil, observe: (SetResult) throws -> Void = { _ in }
) throws -> VerificationReport {
    let runner = SessionRunner(Session(model, threads: threads))
    var verifier = try Verifier(runner, options: options)
    for reference in goldens {
        let golden = try reference.load(inputNames: runner.inputNames, outputNames: runner.outputNames)
        try observe(try verifier.verify(golden))
        if isolating { try verifier.isolate(model, golden, threads: threads) }
    }
    return verifier.report
}

/// Compares two packages value by value on the inputs of golden sets; `reference` takes the place of the goldens' outputs.
/// - Parameter options: nil: nothing is judged.
public func compare(
    _ model: Model, with reference: Model, on goldens: [GoldenReference], options: VerificationOptions?, threads: Int? = nil,
    observe: (SetResult) throws -> Void = { _ in }
) throws -> VerificationReport {
    let (own, other) = (SessionRunner(Session(model, threads: threads)), SessionRunner(Session(reference, threads: threads)))
    var verifier = try Verifier(own, options: options ?? VerificationOptions.allIntermediates)
    let traces = canonicalOrder(other.traceNames)
    for source in goldens {
        let golden = try source.load(inputNames: own.inputNames, outputNames: own.outputNames)
        try locating(golden.name) {
            let outputs = try other.session.run(golden.inputs)
            let states = try other.session.run(golden.inputs, outputs: [], traces: other.reachableTraces(traces, golden.inputs))
            let stand = GoldenSet(name: golden.name, inputs: golden.inputs, outputs: outputs, intermediates: states)
            let wanted = Set(states.keys)
            let found = try own.run(
                golden.inputs, outputs: own.outputNames.filter { outputs[$0] != nil },
                traces: own.traceNames.filter { wanted.contains($0) || $0.hasPrefix("selection.") })
            try observe(try verifier.add(found, against: stand, judging: options != nil))
        }
    }
    return verifier.report
}

extension SessionRunner {
    /// The traces that need no other inputs than the given ones.
    fileprivate func reachableTraces(_ names: [String], _ inputs: [String: Tensor]) throws -> [String] {
        try names.filter { name in try session.inputs(for: [name]).allSatisfy { inputs[$0.name] != nil } }
    }
}

extension VerificationOptions {
    fileprivate static var allIntermediates: VerificationOptions {
        var options = VerificationOptions()
        options.intermediates = true
        return options
    }
}
