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

    public var isGiven: Bool { !image.isEmpty || text != nil }

    public func validate() throws {
        if let textLength, !(2...512).contains(textLength) {
            throw ValidationError("--text-length \(textLength): expected 2 to 512")
        }
    }

    /// The tokenizer that was named, else the package's; nil where there is none.
    public func tokenizer(of package: String) throws -> WordPiece? {
        if let vocabulary { return try WordPiece(path: vocabulary) }
        let reader = try PackageReader(path: package)
        guard let name = reader.manifest.vocabulary else { return nil }
        let bytes = try reader.constant(named: name).load().elements(UInt8.self)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw TripsError.data("vocabulary", at: package, expected: "UTF-8 text")
        }
        return try WordPiece(vocabulary: text)
    }

    /// The model's inputs for the picture and the text.
    /// - Throws: `usage` where the model wants what was not given; `data` for pictures and vocabularies.
    public func inputs(for model: Model, tokenizer: WordPiece?) throws -> [String: Tensor] {
        var inputs: [String: Tensor] = [:]
        let types = model.graphs.flatMap { graph in graph.inputs.map { (name: graph.name(of: $0), type: graph.type(of: $0)) } }
        let images = types.filter { $0.type.rank == 4 }
        guard image.count <= images.count else {
            throw TripsError.usage("pictures", found: image.count, expected: "\(images.count) for this model")
        }
        for (path, input) in zip(image, images) {
            let stated = model.manifest.preprocessing
            guard let size = input.type.shape[3].constant ?? stated?.imageSize else {
                throw TripsError.usage("the package does not say how large its images are", found: "\(input.type)")
            }
            var preprocessing = stated ?? .released(imageSize: size)
            preprocessing.imageSize = size
            inputs[input.name] = try Picture(path: path).modelInput(preprocessing)
        }
        if let text {
            guard let ids = types.first(where: { $0.name == "input_ids" }) else {
                throw TripsError.usage("this model has no input for words", found: "--text", expected: "an input input_ids")
            }
            guard let tokenizer else {
                throw TripsError.usage("words need a vocabulary", expected: "--vocabulary vocab.txt, here or at conversion")
            }
            let fixed = ids.type.shape.last?.constant
            let longest = model.maximalTextLength ?? .max
            if let textLength, textLength > longest {
                throw TripsError.usage(
                    "--text-length", found: textLength, expected: "at most \(longest), the positions of this model")
            }
            if let fixed, fixed < 2 || fixed > min(longest, 65_536) {
                throw TripsError.data("tokens of the input input_ids", found: fixed, expected: "2 to \(min(longest, 65_536))")
            }
            let tokens = try tokenizer.modelInput(text, maximalLength: textLength ?? min(40, longest), paddedTo: fixed)
            inputs["input_ids"] = tokens.ids
            inputs["attention_mask"] = tokens.mask
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
