import Goldens
import ModelGraph
import PackageFormat
import Runtime
import Support
import Tensors

/// Compares the outputs of changed graphs with those of the original ones on the same inputs.
package final class OutputJudge {
    private let samples: [GoldenSet]
    private let reference: [[String: Tensor]]
    private let outputs: [String]
    /// Names of the traces with the original positions of the tokens after each selection.
    private let positions: [String]
    /// By output [B, P + T (+ L), D] that holds image tokens after P leading ones: the trace with their positions.
    private let tokenPositions: [String: String]
    private let leading: Int
    private let threads: Int?

    package init(_ graphs: [Graph], _ samples: [GoldenSet], _ pool: ThreadPool) throws {
        self.samples = samples
        threads = pool.ownThreads
        let session = OutputJudge.session(graphs, threads)
        outputs = session.outputNames.filter { name in
            graphs.contains { graph in
                graph.outputs.contains { $0.name == name && graph.type(of: $0.value).dataType.isFloatingPoint }
            }
        }
        let positions = graphs.flatMap { graph in
            graph.traces.filter { trace in
                let type = graph.type(of: trace.value)
                return SelectionTrace(trace.name)?.part == .positions && type.dataType == .int64 && type.rank == 2
            }.map(\.name)
        }
        self.positions = positions
        let leading = graphs.leadingTokens
        self.leading = leading
        tokenPositions = try graphs.reduce(into: [:]) { found, graph in
            found.merge(try graph.imageTokenOutputs(behind: leading)) { first, _ in first }
        }
        reference = try OutputJudge.run(session, samples, outputs, positions)
        guard reference.contains(where: { !$0.isEmpty }) else {
            let names = Set(samples.flatMap(\.inputs.keys)).sorted()
            throw TripsError.data(
                "the calibration inputs do not suffice for any output",
                found: names.isEmpty ? "none" : names.joined(separator: ", "),
                expected: "inputs of \(session.outputNames.joined(separator: ", "))")
        }
    }

    private static func session(_ graphs: [Graph], _ threads: Int?) -> Session {
        Session(Model(graphs: graphs), threads: threads)
    }

    /// For each sample what its inputs suffice for: those of a package with two graphs may be for one of them. Outputs without
    /// elements say nothing.
    private static func run(
        _ session: Session, _ samples: [GoldenSet], _ outputs: [String], _ positions: [String]
    ) throws -> [[String: Tensor]] {
        try samples.map { sample in
            let given = Set(sample.inputs.keys)
            let (outputs, traces) = (try session.reachable(outputs, from: given), try session.reachable(positions, from: given))
            return try locating(sample.name) {
                try asDataErrors {
                    try session.compute(sample.inputs, outputs: outputs, traces: traces).filter { $0.value.count > 0 }
                }
            }
        }
    }

    /// Outputs that no sample's inputs suffice for.
    var unmeasured: [String] { outputs.filter { output in !reference.contains { $0[output] != nil } } }

    /// What changed graphs make of the samples.
    package struct Comparison {
        /// SNR in dB of each output, over all samples together.
        package var pooled: [String: Double] = [:]
        /// The same of the sample where it is lowest. Samples of small numbers count little in the pooled one.
        package var lowest: [String: Double] = [:]
        /// Mean overlap of kept patches, by selection.
        package var overlap: [String: Double] = [:]
    }

    /// Where the kept patches differ, image tokens are compared with those of the same patch.
    package func compare(_ graphs: [Graph]) throws -> Comparison {
        let results = try OutputJudge.run(OutputJudge.session(graphs, threads), samples, outputs, positions)
        var comparison = Comparison()
        for output in outputs {
            let pairs = try zip(reference, results).compactMap { try numbers(of: output, $0, $1) }
            guard !pairs.isEmpty else { continue }
            comparison.pooled[output] = snr(pairs.flatMap(\.found), reference: pairs.flatMap(\.exact))
            let ratios = pairs.map { snr($0.found, reference: $0.exact) }
            comparison.lowest[output] = ratios.contains(where: \.isNaN) ? .nan : ratios.min()
        }
        for name in positions {
            let pairs = zip(reference, results).compactMap { pair in pair.0[name].flatMap { a in pair.1[name].map { (a, $0) } } }
            guard !pairs.isEmpty else { continue }
            comparison.overlap[name] = try pairs.map { try overlap($0, $1) }.reduce(0, +) / Double(pairs.count)
        }
        return comparison
    }

    /// The lowest SNR of all outputs and samples; negative infinite where an output has NaN or infinity in other places.
    package func worst(_ graphs: [Graph]) throws -> Double {
        try compare(graphs).lowest.values.map { $0.isNaN ? -.infinity : $0 }.min() ?? .infinity
    }

    /// Nil where the sample does not suffice for the output.
    private func numbers(
        of output: String, _ before: [String: Tensor], _ after: [String: Tensor]
    ) throws -> (found: [Double], exact: [Double])? {
        guard let x = before[output], let y = after[output] else { return nil }
        let positions = tokenPositions[output].flatMap { name in before[name].flatMap { kept in after[name].map { (kept, $0) } } }
        let rows = try x.shape == y.shape ? positions.flatMap { try commonRows(x.shape, $0, $1) } : nil
        return try (
            found: rows.map { try y.rows($0.map(\.after)) } ?? y.numbers(),
            exact: rows.map { try x.rows($0.map(\.before)) } ?? x.numbers()
        )
    }

    /// The rows of two tensors [B, P + T (+ L), D] that belong together: leading ones, the patches that both keep, and what
    /// follows them; nil where each row belongs to the same row.
    private func commonRows(_ shape: [Int], _ kept: Tensor, _ other: Tensor) throws -> [(before: Int, after: Int)]? {
        guard kept.shape == other.shape, shape.count == 3, kept.shape[0] == shape[0], kept.shape[1] + leading <= shape[1]
        else { return nil }
        let (before, after) = try (kept.positionRows(), other.positionRows())
        guard before != after else { return nil }
        let (tokens, count) = (kept.shape[1], shape[1])
        return before.indices.flatMap { example in
            tokenPairs(after[example], reference: before[example], leading: leading, behind: count - leading - tokens)
                .map { (before: example * count + $0.reference, after: example * count + $0.own) }
        }
    }

    /// The overlap of the patches that two runs keep, mean over the batch.
    private func overlap(_ left: Tensor, _ right: Tensor) throws -> Double {
        guard left.shape == right.shape else { return 0 }
        let overlaps = try zip(left.positionRows(), right.positionRows()).map { patchOverlap($0, $1) }
        return overlaps.reduce(0, +) / Double(max(1, overlaps.count))
    }
}

extension Tensor {
    /// Original positions, int64 [B, T], by example.
    fileprivate func positionRows() throws -> [[Int]] { try integers().rows(shape[0]) }

    /// Rows of the last axis, concatenated.
    fileprivate func rows(_ rows: [Int]) throws -> [Double] {
        let (numbers, width) = (try numbers(), shape.last ?? 1)
        return rows.flatMap { numbers[$0 * width..<($0 + 1) * width] }
    }
}

extension ThreadPool {
    /// What a session is to be given to work with as many threads; nil where it shares this pool.
    var ownThreads: Int? { self === ThreadPool.shared ? nil : threads }
}
