import Foundation
import Goldens
import Preprocessing
import Support
import Tensors

/// A golden image, and what the selections made of it.
public struct Illustration: Sendable {
    /// What one selection layer made of it.
    public struct Layer: Sendable {
        /// Of its block, counted from 1.
        public var number: Int
        /// Original patches that stay.
        public var kept: Set<Int>
        /// Those that the reference keeps, where it has selections.
        public var referenceKept: Set<Int>?
        /// By original patch; patches that are no longer there have none, nor have those whose score is not finite.
        public var scores: [Int: Double]
    }
    /// The golden set's name.
    public var set: String
    /// The image as a PNG file.
    public var png: [UInt8]
    /// The text that goes with it, where that is known.
    public var text: String?
    /// Patches in a row.
    public var columns: Int
    /// Rows of patches.
    public var rows: Int
    /// In the order of their blocks.
    public var layers: [Layer]
}

/// How golden images are turned back into pictures.
public struct IllustrationOptions: Sendable {
    /// How many golden sets are shown.
    public var count = 8
    /// Of each channel, as the model takes its images; nil: the input's range is stretched to a picture's.
    public var mean: [Double]?
    /// By which each channel was divided; nil as for `mean`.
    public var deviation: [Double]?
    /// For the words of a text.
    public var tokenizer: WordPiece?

    /// Eight sets, without words.
    public init() {}
}

extension Illustration {
    /// Nil where the set has no image that can be shown, or nothing was selected.
    init?(_ golden: GoldenSet, own: SelectionTrail, reference: SelectionTrail, example: Int, options: IllustrationOptions) throws {
        let named = ["image", "image\(example)"].lazy.compactMap { golden.inputs[$0] }.first
        guard let image = named ?? golden.inputs.values.first(where: { $0.shape.count == 4 && $0.shape[1] == 3 }),
            image.shape.count == 4, image.shape[1] == 3, image.count > 0, image.dataType.isFloatingPoint,
            let patches = own.layers.first?.scores.first?.count, patches > 0,
            own.layers.allSatisfy({ $0.kept.indices.contains(example) && $0.scores.indices.contains(example) })
        else { return nil }
        let picture = try Picture(
            modelInput: image, example: min(example, image.shape[0] - 1), mean: options.mean, deviation: options.deviation)
        // Patches are square: their side follows from the picture's area.
        let side = (Double(picture.width * picture.height) / Double(patches)).squareRoot()
        (columns, rows) = (Int((Double(picture.width) / side).rounded()), Int((Double(picture.height) / side).rounded()))
        guard columns * rows == patches else { return nil }
        set = golden.name
        png = try picture.png()
        text =
            try golden.metadata["text"] ?? golden.metadata["question"]
            ?? options.tokenizer.flatMap { try words(of: golden, example, $0) }
        layers = []
        var stream = Array(0..<patches)
        for layer in own.layers {
            let scores = zip(stream, layer.scores[example]).filter { $0.0 >= 0 && $0.1.isFinite }
            let theirs = reference.layers.first { $0.number == layer.number }
            layers.append(
                Layer(
                    number: layer.number, kept: Set(layer.kept[example]).subtracting([-1]),
                    referenceKept: theirs.flatMap {
                        $0.kept.indices.contains(example) ? Set($0.kept[example]).subtracting([-1]) : nil
                    },
                    scores: Dictionary(scores, uniquingKeysWith: { first, _ in first })))
            stream = layer.positions[example]
        }
    }
}

/// The text of an example; nil where the set's `input_ids` are no ids of texts.
private func words(of golden: GoldenSet, _ example: Int, _ tokenizer: WordPiece) throws -> String? {
    guard let ids = golden.inputs["input_ids"], ids.dataType.isInteger, ids.shape.count == 2, ids.shape[0] > 0 else { return nil }
    return tokenizer.decode(try ids.row(min(example, ids.shape[0] - 1)).integers())
}
