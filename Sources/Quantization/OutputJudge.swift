import Goldens
import ModelGraph
import PackageFormat
import Runtime
import Support
import Tensors

/// Compares the outputs of changed graphs with those of the original ones on the same inputs.
final class OutputJudge {
    private let samples: [GoldenSet]
    private let reference: [[String: Tensor]]
    private let outputs: [String]
    /// Original positions of the tokens behind each selection.
    private let positions: [String]
    private let threads: Int?

    init(_ graphs: [Graph], _ samples: [GoldenSet], _ pool: ThreadPool) throws {
        self.samples = samples
        threads = pool.ownThreads
        let session = OutputJudge.session(graphs, threads)
        outputs = session.outputNames.filter { name in
            graphs.contains { graph in graph.outputs.contains { $0.name == name && graph.type(of: $0.value).dataType == .float32 } }
        }
        positions = graphs.flatMap { graph in
            graph.traces.filter { trace in
                let type = graph.type(of: trace.value)
                return trace.name.hasPrefix("selection.") && trace.name.hasSuffix(".positions") && type.dataType == .int64 && type.rank == 2
            }.map(\.name)
        }
        reference = try OutputJudge.run(session, samples, outputs, positions)
        guard reference.contains(where: { !$0.isEmpty }) else {
            throw TripsError.usage(
                "the calibration inputs do not suffice for any output",
                found: Set(samples.flatMap(\.inputs.keys)).sorted().joined(separator: ", "), expected: "inputs of \(session.outputNames.joined(separator: ", "))")
        }
    }

    private static func session(_ graphs: [Graph], _ threads: Int?) -> Session {
        Session(Model(graphs: graphs, manifest: Manifest(tool: .init(name: "calibration", version: ""))), threads: threads)
    }

    /// For each sample what its inputs suffice for: those of a package with two graphs may be for one of them.
    private static func run(
        _ session: Session, _ samples: [GoldenSet], _ outputs: [String], _ positions: [String]
    ) throws -> [[String: Tensor]] {
        try samples.map { sample in
            let given = Set(sample.inputs.keys)
            let (outputs, traces) = (try session.reachable(outputs, from: given), try session.reachable(positions, from: given))
            return try locating(sample.name) { try suiting { try session.run(sample.inputs, outputs: outputs, traces: traces) } }
        }
    }

    /// Outputs that no sample's inputs suffice for.
    var unmeasured: [String] { outputs.filter { output in !reference.contains { $0[output] != nil } } }

    /// Signal to noise in dB of each output, over all samples together, and the mean overlap of kept patches.
    func compare(_ graphs: [Graph]) throws -> (outputs: [String: Double], overlap: [String: Double]) {
        let results = try OutputJudge.run(OutputJudge.session(graphs, threads), samples, outputs, positions)
        var ratios: [String: Double] = [:]
        for output in outputs where reference.contains(where: { $0[output] != nil }) {
            ratios[output] = decibels(try joined(reference, output), try joined(results, output))
        }
        var overlaps: [String: Double] = [:]
        for name in positions {
            let pairs = zip(reference, results).compactMap { pair in pair.0[name].flatMap { a in pair.1[name].map { (a, $0) } } }
            guard !pairs.isEmpty else { continue }
            overlaps[name] = try pairs.map { try overlap($0, $1) }.reduce(0, +) / Double(pairs.count)
        }
        return (ratios, overlaps)
    }

    /// The lowest ratio of all outputs; that of an output with NaN or infinity in other places is below all.
    func worst(_ graphs: [Graph]) throws -> Double {
        try compare(graphs).outputs.values.map { $0.isNaN ? -.infinity : $0 }.min() ?? .infinity
    }

    private func joined(_ results: [[String: Tensor]], _ output: String) throws -> [Float] {
        try results.flatMap { try $0[output]?.elements(Float.self) ?? [] }
    }

    /// Jaccard overlap of two sets of kept patches, mean over the batch.
    private func overlap(_ left: Tensor, _ right: Tensor) throws -> Double {
        guard left.shape == right.shape else { return 0 }
        let (a, b) = (try left.elements(Int64.self), try right.elements(Int64.self))
        let (batch, width) = (left.shape[0], left.shape[1])
        let ratios = (0..<batch).map { example -> Double in
            // -1 is the fused token.
            let range = example * width..<(example + 1) * width
            let (x, y) = (Set(a[range]).subtracting([-1]), Set(b[range]).subtracting([-1]))
            return Double(x.intersection(y).count) / Double(max(1, x.union(y).count))
        }
        return ratios.reduce(0, +) / Double(max(1, batch))
    }
}

extension ThreadPool {
    /// The threads that a session needs to work with as many; nil where it shares these.
    var ownThreads: Int? { self === ThreadPool.shared ? nil : threads }
}
