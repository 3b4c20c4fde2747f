import Goldens
import Runtime

extension KindTime {
    /// The times of the run that gave a golden set's outputs, summed by kind, the longest first. Where decoding gave
    /// them, those of one pass.
    static func measure(_ session: Session, on golden: GoldenSet) throws -> [KindTime] {
        let outputs = session.outputNames.filter { golden.outputs[$0] != nil }
        let steps =
            outputs.isEmpty
            ? try session.profile(golden.passInputs, runs: 3) : try session.profile(golden.inputs, outputs: outputs, runs: 3)
        return steps.byKind
    }
}
