import Foundation
import Importers
import ModelGraph
import PackageFormat
import Preprocessing
import Runtime
import Support
import Tensors
import Verification

/// What a model says about a picture and a text.
public struct Answer: Sendable, Encodable {
    /// Probability that picture and text belong together.
    public var matchProbability: Double?
    /// Cosine of the picture's and the text's features.
    public var similarity: Double?
    /// Probabilities of classes, in the model's order.
    public var classes: [Class]?
    /// Generated words; nil without a tokenizer.
    public var text: String?
    /// Generated tokens, start and end included.
    public var ids: [Int]?
    /// Their log-probability, divided by the length penalty.
    public var score: Double?
    /// Given answers, the likeliest first.
    public var answers: [Class]?
    /// x0, y0, x1, y1 as fractions of the picture.
    public var box: [Float]?
    /// In the order of their blocks.
    public var selections: [Selection] = []
    /// Seconds of the run, planning included.
    public var seconds = 0.0

    /// A class or an answer, and how likely it is.
    public struct Class: Sendable, Encodable {
        /// The class's name, or the answer's words.
        public var name: String
        /// Of all classes, or of the answers that were ranked, 0 to 1.
        public var probability: Double
    }

    /// The original patches that a selection layer keeps, in rows from the top left.
    public struct Selection: Sendable, Encodable {
        /// Counted from 1.
        public var block: Int
        /// Numbers of the patches that stay, fused tokens not counted.
        public var kept: [Int]
        /// Patches of the whole picture.
        public var patches: Int
    }
}

extension Session {
    /// What the model says of one example.
    /// - Parameters:
    ///   - inputs: as `Model.inputs(images:text:tokenizer:maximalLength:)` makes them.
    ///   - tokenizer: to read the candidates and to spell generated text.
    ///   - candidates: answers to rank (ALBEF's visual question answering), or the names of a classifier's classes.
    /// - Throws: `usage` where the model has no output that is an answer, inputs are missing or are those of several examples, a
    ///   model ranks answers and none are given, or names do not fit the classes; as `run`.
    public func answer(_ inputs: [String: Tensor], tokenizer: WordPiece?, candidates: [String] = []) throws -> Answer {
        let clock = ContinuousClock()
        let start = clock.now
        let outputs = Set(outputNames)
        let selections = traceNames.filter { SelectionTrace($0) != nil }
        guard !selections.isEmpty || !outputs.isDisjoint(with: Answer.outputNames) else {
            throw TripsError.usage(
                "this model has no output that is an answer",
                found: outputNames.isEmpty ? "none" : outputNames.joined(separator: ", "),
                expected: Answer.outputNames.joined(separator: ", "))
        }
        let (ranks, generates) = (outputs.contains("answer_logits"), outputs.contains("next_logits"))
        guard candidates.isEmpty || ranks || outputs.contains("prediction") else {
            throw TripsError.usage(
                "this model neither ranks answers nor tells classes apart", found: "`candidates`", expected: "none")
        }
        guard !ranks || tokenizer != nil && !candidates.isEmpty else {
            throw TripsError.usage("this model ranks given answers", expected: "`candidates` and a vocabulary")
        }
        let plain = outputNames.filter(Answer.plainOutputNames.contains)
        try checkGiven(inputs, for: plain + outputs.intersection(["answer_logits", "next_logits"]))
        // All at once, so that the image is encoded once.
        let states = ranks || generates ? statesBetweenGraphs.filter { inputs[$0] == nil } : []
        let found = try run(inputs, outputs: plain + states, traces: selections)
        var answer = Answer()
        try answer.take(found.filter { plain.contains($0.key) }, architecture: model.manifest.architecture, candidates)
        answer.selections = try Answer.selections(in: found)
        let encoded = inputs.merging(found.filter { states.contains($0.key) }) { given, _ in given }
        if ranks, let tokenizer {
            answer.answers = try ranked(candidates, encoded, tokenizer)
        } else if generates {
            try generate(encoded, tokenizer, into: &answer)
        }
        answer.seconds = start.duration(to: clock.now).milliseconds / 1e3
        return answer
    }

    /// Refuses a run for which a picture or the text is missing.
    private func checkGiven(_ given: [String: Tensor], for results: [String]) throws {
        for (name, type) in try inputs(for: results) where given[name] == nil {
            let option = name == "input_ids" ? "`text`" : type.rank == 4 ? "`images`" : nil
            if let option { throw TripsError.usage("\(option) is missing", expected: "what this model reads as input \(name)") }
        }
    }

    /// The likeliest candidates.
    private func ranked(_ candidates: [String], _ inputs: [String: Tensor], _ tokenizer: WordPiece) throws -> [Answer.Class] {
        let encoded = candidates.map { tokenizer.encode($0) }
        let length = encoded.map(\.count).max() ?? 2
        let padded = encoded.flatMap { $0 + Array(repeating: tokenizer.paddingID, count: length - $0.count) }
        let mask = encoded.flatMap { Array(repeating: 1, count: $0.count) + Array(repeating: 0, count: length - $0.count) }
        var all = inputs
        all["answer_ids"] = try Tensor(padded.map { Int64($0) }, shape: [candidates.count, length])
        all["answer_mask"] = try Tensor(mask.map { Int64($0) }, shape: [candidates.count, length])
        let ranking = try rankAnswers(all, k: min(5, candidates.count))
        return zip(ranking.indices, ranking.probabilities).map { Answer.Class(name: candidates[$0], probability: Double($1)) }
    }

    /// Generates a text or a box.
    private func generate(_ inputs: [String: Tensor], _ tokenizer: WordPiece?, into answer: inout Answer) throws {
        let generation = model.generation(tokenizer: tokenizer)
        if generation.firstTargetID != nil {
            answer.box = try ground(inputs, generation)
            return
        }
        let best = try generate(inputs, generation)
        (answer.ids, answer.score) = (best.ids, Double(best.score))
        answer.text = tokenizer?.decode(best.ids.filter { $0 != generation.startID && $0 != generation.endID })
    }
}

extension Answer {
    /// Outputs that are answers by themselves.
    fileprivate static let plainOutputNames = ["itm_logits", "image_feat", "text_feat", "prediction"]
    /// Outputs from which answers are made.
    fileprivate static let outputNames = plainOutputNames + ["answer_logits", "next_logits"]

    /// Reads the outputs that need no further runs.
    /// - Throws: `usage` where they are those of several examples.
    fileprivate mutating func take(_ results: [String: Tensor], architecture: String?, _ candidates: [String]) throws {
        for (name, tensor) in results where tensor.shape.count > 1 && tensor.shape[0] > 1 {
            throw TripsError.usage("answers are for one example", found: "\(name) of shape \(tensor.shape)", expected: "batch 1")
        }
        if let logits = try results["itm_logits"]?.numbers(), logits.count >= 2 {
            matchProbability = softmax(logits.prefix(2))[1]
        }
        if let image = try results["image_feat"]?.numbers(),
            let text = try results["text_feat"]?.numbers(), image.count == text.count
        {
            similarity = zip(image, text).reduce(0) { $0 + $1.0 * $1.1 }
        }
        if let logits = try results["prediction"]?.numbers() {
            let names = try Answer.classNames(architecture, count: logits.count, given: candidates)
            classes = zip(names, softmax(logits)).map { Class(name: $0, probability: $1) }
        }
    }

    fileprivate static func selections(in results: [String: Tensor]) throws -> [Selection] {
        let trail = try SelectionTrail(results.filter { SelectionTrace($0.key) != nil })
        let patches = trail.layers.first?.scores.first?.count ?? 0
        return trail.layers.map { .init(block: $0.number, kept: $0.kept.first?.filter { $0 >= 0 } ?? [], patches: patches) }
    }

    private static func classNames(_ architecture: String?, count: Int, given: [String]) throws -> [String] {
        guard given.isEmpty || given.count == count else {
            throw TripsError.usage("`candidates`", found: given.count, expected: "\(count), one for each class")
        }
        if !given.isEmpty { return given }
        return switch (architecture.flatMap(Architecture.init(rawValue:)), count) {
        case (.albefNLVR2, 2): ["false", "true"]
        case (.albefVE, 3): ["contradiction", "neutral", "entailment"]
        default: (0..<count).map { "class \($0)" }
        }
    }

    /// The picture with the patches that the last selection dropped in the dark, and the box.
    public func illustrated(_ picture: Picture) -> Picture {
        var picture = picture
        if let last = selections.last, last.patches > 0 {
            let side = max(1, Int(Double(last.patches).squareRoot().rounded()))
            let kept = Set(last.kept)
            let (width, height) = (picture.width, picture.height)
            picture.darken { x, y in !kept.contains(y * side / height * side + x * side / width) }
        }
        if let box, box.count == 4 { picture.drawBox(box.map { Double($0) }) }
        return picture
    }
}

extension Picture {
    /// Leaves a quarter of the light where `isDark` holds.
    mutating func darken(where isDark: (Int, Int) -> Bool) {
        for y in 0..<height {
            for x in 0..<width where isDark(x, y) {
                for channel in 0..<3 { pixels[(y * width + x) * 3 + channel] /= 4 }
            }
        }
    }

    /// Draws the edge of a box given in fractions of the picture.
    mutating func drawBox(_ box: [Double]) {
        let place = { (share: Double, size: Int) in Int((min(max(share.isFinite ? share : 0, 0), 1) * Double(size - 1)).rounded()) }
        let (x0, y0, x1, y1) = (place(box[0], width), place(box[1], height), place(box[2], width), place(box[3], height))
        let thickness = max(1, min(width, height) / 150)
        for y in 0..<height {
            for x in 0..<width where x >= min(x0, x1) && x <= max(x0, x1) && y >= min(y0, y1) && y <= max(y0, y1) {
                let edge = min(min(abs(x - x0), abs(x - x1)), min(abs(y - y0), abs(y - y1)))
                if edge < thickness { pixels.replaceSubrange((y * width + x) * 3..<(y * width + x) * 3 + 3, with: [255, 45, 85]) }
            }
        }
    }
}

private func softmax(_ logits: some Collection<Double>) -> [Double] { logSoftmax(logits).map { exp($0) } }
