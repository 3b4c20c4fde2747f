import Goldens
import Tensors

/// What the verifier needs of a model: a package in a session, or a fake in tests.
package protocol ModelRunner {
    /// All inputs in order.
    var inputNames: [String] { get }
    /// All outputs in order.
    var outputNames: [String] { get }
    /// Intermediates that can be asked for.
    var traceNames: [String] { get }

    /// How many tokens precede the patches, [CLS] among them.
    var leadingTokens: Int { get }

    /// Outputs that hold the image tokens which the last selection leaves, as far as the model shows it.
    var imageTokenOutputs: Set<String> { get throws }

    /// Whether the patches that selections keep are in the order of their scores.
    var isOrderedByScore: Bool { get }

    /// Computes outputs and intermediates, both under their names. Inputs that they do not need are ignored.
    /// - Throws: `usage` for inputs that are missing or do not suit the model.
    func run(_ inputs: [String: Tensor], outputs: [String], traces: [String]) throws -> [String: Tensor]

    /// Which of these names are results of decoding (`ids`, `score`, `topk_ids`, `topk_probs`, `box`).
    func decodedNames(among names: [String]) -> [String]

    /// Decodes with the golden set's parameters.
    func decode(_ names: [String], inputs: [String: Tensor], metadata: GoldenMetadata) throws -> [String: Tensor]
}
