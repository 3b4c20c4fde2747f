import Support
import Tensors

/// Cuts an image into patches and projects each: a convolution whose stride is its kernel size.
///
/// Inputs: image [B, C, H, W]; weight [D, C, p, q]; optional bias [D]; optional class token (D elements), which goes
/// first; optional positions, added to all tokens ([1, T, D]). Output: tokens [B, T, D], row by row, T = H/p · W/q (+ 1).
package struct PatchEmbedding: Operator {
    package static let maximalInputs: Int? = 5
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let image = try inputs.required(0, "image").floating("image").ranked(4, "image").type
        let weight = try inputs.required(1, "weight").typed(image.dataType, "weight").ranked(4, "weight").type
        let width = weight.shape[0]
        try inputs.required(0, "image").shaped([image.shape[0], weight.shape[1], image.shape[2], image.shape[3]], "image")
        try inputs.optional(2)?.typed(image.dataType, "bias").shaped([width], "bias")
        var tokens = try patches(image.shape[2], weight.shape[2]).multiplied(by: patches(image.shape[3], weight.shape[3]))
        if let token = inputs.optional(3) {
            guard try product(token.typed(image.dataType, "class token").type.shape) == width else {
                throw TripsError.data("class token", found: token.type, expected: "\(width) elements")
            }
            tokens = try tokens.adding(1)
        }
        try inputs.optional(4)?.typed(image.dataType, "positions").shaped([1, tokens, width], "positions")
        return [ValueType(image.dataType, [image.shape[0], tokens, width])]
    }

    /// floor(size / patch)
    private func patches(_ size: Dimension, _ patch: Dimension) throws -> Dimension {
        guard let patch = patch.constant, patch > 0 else {
            throw TripsError.data("patch size", found: patch, expected: "1 or more")
        }
        return size.divided(roundingDownBy: patch) ?? .unknown
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard let weight = inputs[1], let tokens = outputs.first else { return nil }
        let patches = inputs.count > 3 && inputs[3] != nil ? try tokens.shape[1].subtracting(1) : tokens.shape[1]
        return try tokens.shape[0].multiplied(by: patches).multiplied(by: product(weight.shape))
    }
}
