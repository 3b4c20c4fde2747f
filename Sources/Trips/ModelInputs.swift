import Foundation
import ModelGraph
import PackageFormat
import Preprocessing
import Runtime
import Support
import Tensors

extension Model {
    /// The tokenizer of the vocabulary in the package; nil where it holds none.
    /// - Throws: `data` where the vocabulary is not one; what reading it throws.
    public func tokenizer() throws -> WordPiece? {
        try tokenizer { vocabulary in
            try locating("the package's vocabulary") {
                guard let text = String(untrusted: try vocabulary.load().elements(UInt8.self)) else {
                    throw TripsError.data("malformed text", expected: String.untrustedForm)
                }
                return try WordPiece(vocabulary: text)
            }
        }
    }

    /// How the package generates; where it does not say, as mPLUG's released models do.
    /// - Parameter tokenizer: whose ids start and end a text; nil: those of the package. The ids of coordinates are the package's.
    public func generation(tokenizer: WordPiece?) -> Generation {
        var generation = manifest.generation ?? .released
        if let tokenizer, generation.firstTargetID == nil {
            (generation.startID, generation.endID) = (tokenizer.classID, tokenizer.separatorID)
        }
        return generation
    }

    /// Pictures and a text as the model's inputs: images float32 [1, 3, P, P] in the order of its image inputs, `input_ids` and,
    /// where the model reads it, `attention_mask` int64 [1, L].
    ///
    /// Of a package that does not say how it takes pictures, the released models' way is assumed.
    /// - Parameters:
    ///   - maximalLength: tokens beyond which a text is cut; nil: 40, or what the model has positions for.
    /// - Throws: `usage` for more pictures than image inputs, a text that the model or the missing tokenizer cannot take, and a
    ///   length beyond the model's positions; `data` for sizes in the package that cannot be.
    public func inputs(
        images: [Picture], text: String?, tokenizer: WordPiece?, maximalLength: Int? = nil
    ) throws -> [String: Tensor] {
        var inputs: [String: Tensor] = [:]
        let imageInputs = inputTypes.filter { $0.type.rank == 4 }
        guard images.count <= imageInputs.count else {
            throw TripsError.usage("`images`", found: images.count, expected: "\(imageInputs.count) for this model")
        }
        for (picture, input) in zip(images, imageInputs) {
            inputs[input.name] = try picture.modelInput(preprocessing(for: input.type))
        }
        if let text {
            let (ids, mask) = try textInputs(text, tokenizer, maximalLength: maximalLength)
            inputs["input_ids"] = ids
            if inputTypes.contains(where: { $0.name == "attention_mask" }) { inputs["attention_mask"] = mask }
        }
        return inputs
    }

    private var inputTypes: [(name: String, type: ValueType)] {
        graphs.flatMap { graph in graph.inputs.map { (graph.name(of: $0), graph.type(of: $0)) } }
    }

    private func preprocessing(for image: ValueType) throws -> Manifest.Preprocessing {
        let stated = manifest.preprocessing
        guard let size = image.shape[3].constant ?? stated?.imageSize else {
            throw TripsError.usage("the package does not say how large its images are", found: "\(image)")
        }
        var preprocessing = stated ?? .released(imageSize: size)
        preprocessing.imageSize = size
        return preprocessing
    }

    private func textInputs(_ text: String, _ tokenizer: WordPiece?, maximalLength: Int?) throws -> (ids: Tensor, mask: Tensor) {
        guard let ids = inputTypes.first(where: { $0.name == "input_ids" }) else {
            throw TripsError.usage("this model has no input for words", found: "`text`", expected: "an input input_ids")
        }
        guard let tokenizer else {
            throw TripsError.usage("words need a vocabulary", expected: "`vocabulary` here, or at conversion")
        }
        let longest = maximalTextLength ?? .max
        if let maximalLength, maximalLength > longest {
            throw TripsError.usage(
                "`maximalLength`", found: maximalLength, expected: "at most \(longest), the positions of this model")
        }
        let fixed = ids.type.shape.last?.constant
        let largest = min(longest, WordPiece.maximalLength)
        if let fixed, fixed < 2 || fixed > largest {
            throw TripsError.data("tokens of the input input_ids", found: fixed, expected: "2 to \(largest)")
        }
        return try tokenizer.modelInput(text, maximalLength: maximalLength ?? min(40, longest), paddedTo: fixed)
    }
}
