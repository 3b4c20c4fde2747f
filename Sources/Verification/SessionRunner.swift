import Goldens
import ModelGraph
import Runtime
import Support
import Tensors

/// A session as the verifier sees it.
package struct SessionRunner: ModelRunner {
    package let session: Session

    package init(_ session: Session) { self.session = session }

    private var graphs: [Graph] { session.model.graphs }

    package var inputNames: [String] { session.model.inputNames }
    package var outputNames: [String] { session.outputNames }
    package var traceNames: [String] { session.traceNames }
    package var leadingTokens: Int { graphs.leadingTokens }
    package var imageTokenOutputs: Set<String> {
        get throws { Set(try graphs.flatMap { try $0.imageTokenOutputs(behind: leadingTokens).keys }) }
    }
    package var isOrderedByScore: Bool { graphs.contains { $0.nodes.contains { ($0.op as? PatchSelection)?.order == .score } } }

    package func run(_ inputs: [String: Tensor], outputs: [String], traces: [String]) throws -> [String: Tensor] {
        try session.compute(inputs, outputs: outputs, traces: traces)
    }

    package func decodedNames(among names: [String]) -> [String] {
        let outputs = Set(outputNames)
        var possible: Set<String> = []
        if outputs.contains("next_logits") { possible.formUnion(["ids", "score"]) }
        if outputs.contains("answer_logits") { possible.formUnion(["topk_ids", "topk_probs"]) }
        if session.model.manifest.generation?.firstTargetID != nil { possible.insert("box") }
        return names.filter { possible.contains($0) && !outputs.contains($0) }
    }

    package func decode(_ names: [String], inputs: [String: Tensor], metadata: GoldenMetadata) throws -> [String: Tensor] {
        var results: [String: Tensor] = [:]
        if names.contains("ids") || names.contains("score") {
            let best = try session.generate(inputs, Generation(metadata, session.model.manifest.generation))
            results["ids"] = try Tensor(best.ids.map { Int64($0) }, shape: [best.ids.count])
            results["score"] = try Tensor([best.score], shape: [1])
        }
        if names.contains("topk_ids") || names.contains("topk_probs") {
            guard let k = try metadata.integer("k") else {
                throw TripsError.data("golden metadata", found: "no k", expected: "k answers to rank")
            }
            let ranked = try questions(inputs).map { try session.rankAnswers($0, k: k) }
            results["topk_ids"] = try Tensor(ranked.flatMap { $0.indices.map { Int64($0) } }, shape: [ranked.count, k])
            results["topk_probs"] = try Tensor(ranked.flatMap(\.probabilities), shape: [ranked.count, k])
        }
        if names.contains("box"), let generation = session.model.manifest.generation {
            results["box"] = try Tensor(session.ground(inputs, generation), shape: [4])
        }
        return results
    }

    /// The inputs of each question of a batch, all candidates with each.
    private func questions(_ inputs: [String: Tensor]) throws -> [[String: Tensor]] {
        let names = try session.inputs(for: ["question_states"]).map(\.name) + ["attention_mask"]
        let parts = inputs.filter { names.contains($0.key) }
        let batches = Set(parts.values.map { $0.shape.first })
        guard batches.count == 1, let batch = batches.first, let count = batch, count > 1 else { return [inputs] }
        return try (0..<count).map { index in try inputs.merging(parts.mapValues { try $0.row(index) }) { $1 } }
    }
}

extension Generation {
    /// The parameters that a golden set states; what it leaves out is as in the package, else as in the released models.
    init(_ metadata: GoldenMetadata, _ generation: Generation?) throws {
        self = generation ?? .released
        beam = try metadata.integer("beam") ?? beam
        maximalLength = try metadata.integer("max_length") ?? maximalLength
        minimalLength = try metadata.integer("min_length") ?? min(minimalLength, maximalLength)
        startID = try metadata.integer("start_id") ?? startID
        endID = try metadata.integer("end_id") ?? endID
        alpha = try metadata.number("alpha") ?? alpha
    }
}
