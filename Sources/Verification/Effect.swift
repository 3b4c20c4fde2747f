import Foundation
import Goldens
import Runtime

/// What one package costs beside another: multiplications and measured time.
public struct Effect: Sendable, Encodable {
    /// The other package's file name.
    public var reference: String
    /// Examples in the run that both figures are of.
    public var batch: Int
    /// Of one run.
    public var multiplyAccumulates: Int
    /// Of one run of the other package.
    public var referenceMultiplyAccumulates: Int
    /// Median time of a run in seconds, both packages in turn on the same inputs.
    public var seconds: Double
    /// The same of the other package.
    public var referenceSeconds: Double

    /// How many multiplications it spares, in words; nil where one side has none.
    public var savings: String? {
        guard multiplyAccumulates > 0, referenceMultiplyAccumulates > 0 else { return nil }
        let ratio = Double(referenceMultiplyAccumulates) / Double(multiplyAccumulates)
        return abs(ratio - 1) < 0.005
            ? "as many" : String(format: "%.2f times ", max(ratio, 1 / ratio)) + (ratio > 1 ? "less" : "more")
    }

    /// What the figures are of, in words.
    public var examples: String { batch == 1 ? "one example" : "a batch of \(batch)" }

    /// Runs both packages in turn.
    /// - Parameters:
    ///   - name: of the reference, for the report.
    ///   - golden: whose inputs are run.
    /// - Throws: what running throws.
    public static func measure(
        _ model: Model, beside reference: Model, named name: String, on golden: GoldenSet, threads: Int? = nil
    ) throws -> Effect {
        let inputs = golden.passInputs
        let times = try compareTimes(model, reference, inputs: inputs, threads: threads)
        let batch = model.inputNames.lazy.compactMap { inputs[$0]?.shape }.first { $0.count > 1 }?[0] ?? 1
        let cost = { (model: Model) in
            try Session(model, threads: threads).profile(inputs, runs: 1).reduce(0) { $0 + $1.multiplyAccumulates }
        }
        return Effect(
            reference: name, batch: batch, multiplyAccumulates: try cost(model), referenceMultiplyAccumulates: try cost(reference),
            seconds: times.first / 1e3, referenceSeconds: times.second / 1e3)
    }
}
