import Foundation
import Goldens
import PackageFormat
import Preprocessing
import Runtime
import Support
import Tensors
import Trips

/// A picture and a text as a model's inputs.
public struct ExampleOptions: ParsableArguments {
    @Option(
        name: .long, parsing: .upToNextOption,
        help: ArgumentHelp(
            "A JPEG or PNG file; two for a model that sees two images.", valueName: "file"))
    public var image: [String] = []

    @Option(name: .long, help: ArgumentHelp("The text, in plain words.", valueName: "words"))
    public var text: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "The WordPiece vocabulary.", discussion: "Default: the one in the package.", valueName: "vocab.txt"))
    public var vocabulary: String?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Longest text in tokens; longer ones are cut.", discussion: "Default: 40, or what the package was made for.",
            valueName: "n"))
    public var textLength: Int?

    public init() {}

    /// True where there is an image or a text.
    public var isGiven: Bool { !image.isEmpty || text != nil }

    public func validate() throws { try checkRange("--text-length", textLength, 2...512) }

    /// The tokenizer that was named, else the package's; nil where there is none.
    public func tokenizer(of model: Model) throws -> WordPiece? {
        try vocabulary.map { try WordPiece(path: $0) } ?? model.tokenizer()
    }

    /// The model's inputs for the picture and the text. Says so where it is assumed how the model takes pictures.
    /// - Throws: `usage` where the model does not take what was given; `data` for pictures and vocabularies.
    public func inputs(for model: Model, tokenizer: WordPiece?) throws -> [String: Tensor] {
        let inputs = try model.inputs(
            images: image.map { try Picture(path: $0) }, text: text, tokenizer: tokenizer, maximalLength: textLength)
        if !image.isEmpty && model.manifest.preprocessing == nil {
            printDiagnostic(
                "note: the package does not say how it takes pictures; assumed as the released models do: resized bicubically, "
                    + "with CLIP's mean and deviation")
        }
        return inputs
    }

    /// The inputs as a golden set without outputs.
    public func goldenSet(for model: Model, tokenizer: WordPiece?) throws -> GoldenSet {
        let name = image.map { fileName(of: $0) }.joined(separator: " and ")
        return GoldenSet(
            name: name.isEmpty ? "text" : name, inputs: try inputs(for: model, tokenizer: tokenizer),
            metadata: GoldenMetadata(text.map { ["text": $0] } ?? [:]))
    }
}
