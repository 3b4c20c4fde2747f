import Foundation
import ModelGraph
import Support
import Synchronization
import Tensors

/// A generated sequence.
public struct Hypothesis: Sendable, Equatable {
    /// Tokens, the start token included, and the end token where it was reached.
    public let ids: [Int]
    /// Σ log p / ((5 + length) / 6)^alpha, over the tokens after the start.
    public let score: Float
}

extension Session {
    /// For decoders that do not state their positions: golden files state the length, and memory follows it.
    private static let largestLength = 512

    /// Generates a sequence for one example with beam search, as mPLUG's generator scores it.
    ///
    /// A hypothesis that ends below the top of the beam is stored, and stays in the beam, end token and all; the search
    /// stops when the top one ends or at the maximal length. The best stored hypothesis is returned.
    /// - Parameter inputs: those of the `encode` graph, batch 1, or what `decode` reads beside `decoder_ids`.
    /// - Throws: `usage` where the package does not generate, or a parameter is out of range; `CancellationError` as `run`.
    public func generate(_ inputs: [String: Tensor], _ generation: Generation) throws -> Hypothesis {
        try generate(inputs, generation) {}
    }

    /// - Parameter afterEach: called after each token of the beam.
    func generate(_ inputs: [String: Tensor], _ generation: Generation, afterEach: () -> Void) throws -> Hypothesis {
        try generation.check(.usage, positions: decoding().step.positions ?? Session.largestLength)
        try generation.checkRequest()
        let decoder = try Decoder(self, inputs, hypotheses: generation.beam, steps: generation.maximalLength)
        var prefixes = Array(repeating: [generation.startID], count: generation.beam)
        var origins = Array(0..<generation.beam)
        // All hypotheses are alike at first: only one may grow, or the beam would hold copies.
        var cumulative = [Float](repeating: -.infinity, count: generation.beam)
        cumulative[0] = 0
        var best: Hypothesis?
        for step in 0..<generation.maximalLength {
            let logits = try decoder.nextLogits(prefixes.map { $0[step] }, continuing: origins)
            let penalty = Float(pow((5 + Double(step + 1)) / 6, generation.alpha))
            let suppressed = step < generation.minimalLength ? generation.endID : nil
            let grown = expand(logits, cumulative, penalty, suppressed: suppressed, keeping: generation.beam, on: pool)
            origins = grown.map(\.row)
            prefixes = grown.map { prefixes[$0.row] + [$0.token] }
            cumulative = grown.map { $0.score * penalty }
            afterEach()
            let isDone = grown[0].token == generation.endID || step + 1 == generation.maximalLength
            for (candidate, ids) in zip(grown, prefixes) where isDone || candidate.token == generation.endID {
                if best.map({ candidate.score > $0.score }) ?? true { best = Hypothesis(ids: ids, score: candidate.score) }
            }
            if isDone { break }
        }
        guard let best else { throw TripsError.data("no hypothesis was generated") }
        return best
    }

    /// Tokens of a box.
    static let coordinates = 4

    /// The box [x0, y0, x1, y1], as fractions of the picture, that a grounding model answers: four greedy tokens.
    /// - Throws: `usage` where the package does not ground; `CancellationError` as `run`.
    public func ground(_ inputs: [String: Tensor], _ generation: Generation) throws -> [Float] {
        let targetCount = generation.targetCount ?? 0
        guard let firstTargetID = generation.firstTargetID, targetCount > 1 else {
            throw TripsError.usage("coordinate tokens", found: targetCount, expected: "2 or more")
        }
        let decoder = try Decoder(self, inputs, hypotheses: 1, steps: Session.coordinates)
        var ids = [generation.startID]
        for step in 0..<Session.coordinates {
            let logits = try decoder.nextLogits([ids[step]], continuing: [0])[0]
            ids.append(logits.indices.max { logits[$0] < logits[$1] } ?? 0)
        }
        return ids.dropFirst().map { (Float($0) - Float(firstTargetID)) / Float(targetCount - 1) }
    }

    /// Ranks given answers by their likelihood (ALBEF's visual question answering).
    ///
    /// The `k` answers with the likeliest first token are compared as a whole: softmax over their log-probabilities, in which the
    /// first token counts twice, as in ALBEF.
    /// - Parameters:
    ///   - inputs: those of the `encode` graph for one example, or its `question_states`, with `answer_ids` [C, A] and
    ///     `answer_mask` [C, A].
    ///   - k: answers to compare, at most C.
    /// - Returns: indices of the candidates and their probabilities, the likeliest first.
    /// - Throws: `usage` where the package does not rank answers or `k` is out of range; `CancellationError` as `run`.
    public func rankAnswers(_ inputs: [String: Tensor], k: Int) throws -> (indices: [Int], probabilities: [Float]) {
        guard let ids = inputs["answer_ids"], let mask = inputs["answer_mask"], ids.shape.count == 2, ids.shape == mask.shape,
            ids.shape[1] > 1, k > 0, k <= ids.shape[0]
        else {
            throw TripsError.usage("answers to rank", expected: "answer_ids and answer_mask [C, A], A of 2 or more, k in 1 ... C")
        }
        let (answers, masks) = (try ids.integers().rows(ids.shape[0]), try mask.integers().rows(ids.shape[0]))
        let states = try inputs["question_states"] == nil ? compute(inputs, outputs: ["question_states"]) : [:]
        let known = inputs.merging(states) { _, new in new }

        let first = try answerLogits(known, [[answers[0][0]]], [[1]])
        let chances = logSoftmax(first[0][0])
        let candidates = try answers.indices.sorted { left, right in
            let (a, b) = (try chance(chances, answers[left][1]), try chance(chances, answers[right][1]))
            return a == b ? left < right : a > b
        }.prefix(k)
        var totals: [Float] = []
        for start in stride(from: 0, to: k, by: Session.answersAtOnce) {
            let part = candidates[start..<min(k, start + Session.answersAtOnce)]
            let logits = try answerLogits(known, part.map { answers[$0] }, part.map { masks[$0] })
            for (candidate, logits) in zip(part, logits) {
                var total = try chance(chances, answers[candidate][1])
                for position in 1..<answers[candidate].count where masks[candidate][position] != 0 {
                    total += try chance(logSoftmax(logits[position - 1]), answers[candidate][position])
                }
                totals.append(total)
            }
        }
        let probabilities = logSoftmax(totals).map { exp($0) }
        let order = probabilities.indices.sorted { (probabilities[$0], $1) > (probabilities[$1], $0) }
        return (order.map { candidates[$0] }, order.map { probabilities[$0] })
    }

    /// Answers that are compared at once: each takes the vocabulary's logits for all of its tokens, a megabyte or two.
    private static let answersAtOnce = 16

    private func answerLogits(_ known: [String: Tensor], _ ids: [[Int]], _ mask: [[Int]]) throws -> [[[Float]]] {
        var inputs = known
        inputs["answer_ids"] = try tensor(ids)
        inputs["answer_mask"] = try tensor(mask)
        for name in ["question_states", "attention_mask"] {
            if let shared = known[name] { inputs[name] = try shared.repeatingFirst(ids.count) }
        }
        return try compute(inputs, outputs: ["answer_logits"]).rows(of: "answer_logits", [ids.count, ids[0].count]).rows(ids.count)
    }

    private func chance(_ logarithms: [Float], _ id: Int) throws -> Float {
        guard logarithms.indices.contains(id) else {
            throw TripsError.usage("answer token", found: id, expected: "within the vocabulary of \(logarithms.count)")
        }
        return logarithms[id]
    }
}

extension Generation {
    /// - Throws: `usage` where the start is no token, or the end token would be suppressed beyond the longest sequence.
    fileprivate func checkRequest() throws {
        guard startID >= 0 else { throw TripsError.usage("startID", at: "generation", found: startID, expected: "0 or more") }
        guard minimalLength <= maximalLength else {
            throw TripsError.usage(
                "minimalLength", at: "generation", found: minimalLength, expected: "at most \(maximalLength), the maximalLength")
        }
    }
}

/// The next tokens of a beam: the highest scores over all rows and tokens.
private func expand(
    _ logits: [[Float]], _ cumulative: [Float], _ penalty: Float, suppressed: Int?, keeping count: Int, on pool: ThreadPool
) -> [(row: Int, token: Int, score: Float)] {
    let growing = logits.indices.filter { cumulative[$0] > -.infinity }
    let likeliest = Mutex([[(token: Int, logarithm: Float)]](repeating: [], count: growing.count))
    pool.run(growing.count) { index, _ in
        let found = likeliestTokens(logits[growing[index]], suppressed: suppressed, count)
        likeliest.withLock { $0[index] = found }
    }
    var best: [(row: Int, token: Int, score: Float)] = []
    for (row, tokens) in zip(growing, likeliest.withLock { $0 }) {
        for (token, logarithm) in tokens {
            best.insert((row, token, (logarithm + cumulative[row]) / penalty), amongLargest: count) { $0.score }
        }
    }
    // A vocabulary smaller than the beam leaves rows empty: they hold a hypothesis that cannot grow.
    while best.count < count { best.append((0, 0, -.infinity)) }
    return best
}

/// The tokens of the highest logits, with the logarithms of their probabilities.
private func likeliestTokens(_ logits: [Float], suppressed: Int?, _ count: Int) -> [(token: Int, logarithm: Float)] {
    var best: [(token: Int, logit: Float)] = []
    for (token, logit) in logits.enumerated() where token != suppressed {
        best.insert((token, logit), amongLargest: count) { $0.logit }
    }
    let logarithm = logarithmOfSoftmax(logits)
    var tokens = best.map { (token: $0.token, logarithm: logarithm($0.logit)) }
    if let suppressed, logits.indices.contains(suppressed), tokens.count < count { tokens.append((suppressed, -1e20)) }
    return tokens
}

private func tensor(_ rows: [[Int]]) throws -> Tensor {
    try Tensor(rows.flatMap { $0.map { Int64($0) } }, shape: [rows.count, rows.first?.count ?? 0])
}

extension [String: Tensor] {
    /// The rows of a result [..., V], flattened; `shape` are the leading sizes.
    /// - Throws: `data` where the result has another shape, as outputs of graphs depend on the package and not on the caller.
    func rows(of name: String, _ shape: [Int]) throws -> [[Float]] {
        guard let tensor = self[name], !tensor.shape.isEmpty, tensor.shape.dropLast() == shape[...] else {
            throw TripsError.data(
                "shape of \(name)", found: self[name].map { "\($0.shape)" }, expected: "\(shape) and the vocabulary")
        }
        return try tensor.elements(Float.self).rows(shape.reduce(1, *))
    }
}

extension Tensor {
    /// `count` copies of the one example of a batch.
    fileprivate func repeatingFirst(_ count: Int) throws -> Tensor {
        guard let batch = shape.first, batch == 1 else {
            throw TripsError.usage("batch", found: "\(shape)", expected: "one example")
        }
        return try Tensor.joined(Array(repeating: self, count: count))
    }
}
