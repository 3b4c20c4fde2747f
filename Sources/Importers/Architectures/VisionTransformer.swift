import ModelGraph
import Support
import Tensors

/// How the two vision transformers differ: the names of their tensors and a few constants.
struct VisionNames {
    let patchWeight: String
    let patchBias: String?
    let classToken: String
    let positions: String
    /// LayerNorm before the first block (CLIP).
    let firstNorm: String?
    let lastNorm: String
    let blocks: String
    let norms: (String, String)
    let packedWeight: String
    let packedBias: String
    let projection: String
    let hidden: (String, String)
    let activation: GELU.Form
    let interpolation: Interpolation
    /// LayerNorm's.
    let epsilon: Float

    /// ALBEF's ViT (Dosovitskiy et al. 2021, timm's names).
    static let albef = VisionNames(
        patchWeight: "visual_encoder.patch_embed.proj.weight", patchBias: "visual_encoder.patch_embed.proj.bias",
        classToken: "visual_encoder.cls_token", positions: "visual_encoder.pos_embed", firstNorm: nil,
        lastNorm: "visual_encoder.norm", blocks: "visual_encoder.blocks.", norms: ("norm1", "norm2"),
        packedWeight: "attn.qkv.weight", packedBias: "attn.qkv.bias", projection: "attn.proj", hidden: ("mlp.fc1", "mlp.fc2"),
        activation: .erf, interpolation: .bicubic, epsilon: 1e-6)

    /// mPLUG's: CLIP's (Radford et al. 2021).
    static let mplug = VisionNames(
        patchWeight: "visual_encoder.visual.conv1.weight", patchBias: nil,
        classToken: "visual_encoder.visual.class_embedding", positions: "visual_encoder.visual.positional_embedding",
        firstNorm: "visual_encoder.visual.ln_pre", lastNorm: "visual_encoder.visual.ln_post",
        blocks: "visual_encoder.visual.transformer.resblocks.", norms: ("ln_1", "ln_2"), packedWeight: "attn.in_proj_weight",
        packedBias: "attn.in_proj_bias", projection: "attn.out_proj", hidden: ("mlp.c_fc", "mlp.c_proj"), activation: .quick,
        interpolation: .bilinear, epsilon: 1e-5)
}

/// The sizes of a vision transformer.
struct VisionSizes {
    let width: Int
    let channels: Int
    let patch: Int
    /// Patches along a side, as the stored positions have them.
    let storedGrid: Int
    /// Patches along a side, as the graph takes them.
    let grid: Int
    let layers: Int

    var imageSize: Int { grid * patch }

    /// - Throws: `data` where the tensors that state the sizes are missing or odd, `usage` where the image size is no
    ///   multiple of the patch size.
    init(_ names: VisionNames, _ weights: Weights, imageSize: Int?) throws {
        guard let kernel = weights.shape(names.patchWeight), kernel.count == 4, kernel[2] == kernel[3],
            kernel.allSatisfy({ $0 > 0 })
        else {
            throw TripsError.data(
                "the patch embedding's weight",
                found: weights.shape(names.patchWeight).map { "\(names.patchWeight) \($0)" } ?? "none",
                expected: "\(names.patchWeight) [width, channels, patch, patch]")
        }
        (width, channels, patch) = (kernel[0], kernel[1], kernel[2])
        let positions = weights.shape(names.positions) ?? []
        guard positions.count >= 2, positions.last == width, let patches = positions.dropLast().last.map({ $0 - 1 }),
            (1...8192 * 8192).contains(patches)
        else {
            throw TripsError.data(
                "the position embedding", found: "\(names.positions) \(positions)", expected: "1 + patches rows of \(width)")
        }
        let side = Int(Double(patches).squareRoot().rounded())
        guard side * side == patches else {
            throw TripsError.data(
                "the position embedding", found: "\(names.positions) \(positions)",
                expected: "a row for [CLS] and a square number of others")
        }
        storedGrid = side
        if let imageSize {
            guard imageSize > 0, imageSize <= 8192, imageSize % patch == 0 else {
                throw TripsError.usage(
                    "image size", found: imageSize, expected: "a multiple of the patch size \(patch), at most 8192")
            }
            grid = imageSize / patch
        } else {
            grid = side
        }
        layers = try weights.layerCount(names.blocks)
        guard layers > 0 else { throw TripsError.data("vision blocks", found: layers, expected: "1 or more") }
        guard patch <= 8192 else { throw TripsError.data("patch size", found: patch, expected: "at most 8192") }
    }
}

extension GraphBuilder {
    mutating func imageInput(_ name: String, _ sizes: VisionSizes) throws -> ValueID {
        let size = Dimension(sizes.imageSize)
        return try graph.addInput(name, ValueType(.float32, [GraphBuilder.batch, Dimension(sizes.channels), size, size]))
    }

    /// Image to normed tokens [B, 1 + N, D].
    mutating func vision(_ image: ValueID, _ names: VisionNames, _ sizes: VisionSizes, heads: Int) throws -> ValueID {
        var x = try patchEmbedding(image, names, sizes)
        if let norm = names.firstNorm { x = try layerNorm(x, norm, width: sizes.width, epsilon: names.epsilon) }
        graph.addTrace("vision.0", x)
        for layer in 0..<sizes.layers {
            x = try visionBlock(x, "\(names.blocks)\(layer)", names, width: sizes.width, heads: heads)
            graph.addTrace("vision.\(layer + 1)", x)
        }
        return try layerNorm(x, names.lastNorm, width: sizes.width, epsilon: names.epsilon)
    }

    private mutating func patchEmbedding(_ image: ValueID, _ names: VisionNames, _ sizes: VisionSizes) throws -> ValueID {
        let (width, grid) = (sizes.width, sizes.grid)
        let weight = weights.take(names.patchWeight, [width, sizes.channels, sizes.patch, sizes.patch])
        let bias = names.patchBias.map { weights.take($0, [width]) }
        let token = weights.take(names.classToken, names.firstNorm == nil ? [1, 1, width] : [width])
        let rows = 1 + sizes.storedGrid * sizes.storedGrid
        let stored = weights.take(names.positions, names.firstNorm == nil ? [1, rows, width] : [rows, width])
        let positions = try stored.reshaped([1, rows, width]).resampled(grid: sizes.storedGrid, to: grid, names.interpolation)
        return try node(
            PatchEmbedding(),
            [
                image, constant(weight, names.patchWeight), bias.map { try constant($0, names.patchBias ?? "") },
                constant(token.reshaped([width]), names.classToken), constant(positions, names.positions),
            ], "visual_encoder.patch_embed")
    }

    private mutating func visionBlock(
        _ input: ValueID, _ prefix: String, _ names: VisionNames, width: Int, heads: Int
    ) throws -> ValueID {
        let weight = weights.take("\(prefix).\(names.packedWeight)", [3 * width, width])
        let bias = weights.take("\(prefix).\(names.packedBias)", [3 * width])
        let normed = try layerNorm(input, "\(prefix).\(names.norms.0)", width: width, epsilon: names.epsilon)
        let projected = try ["q", "k", "v"].enumerated().map { index, name in
            let rows = index * width..<(index + 1) * width
            return try linear(normed, "\(prefix).attn.\(name)", weight.rows(rows), bias.rows(rows))
        }
        let attended = try node(Attention(heads: heads), projected, "\(prefix).attn")
        let output = try linear(attended, "\(prefix).\(names.projection)", outputs: width, inputs: width)
        let x = try add(input, output, "\(prefix).attn.residual")
        let hiddenWidth = weights.shape("\(prefix).\(names.hidden.0).weight")?.first ?? 4 * width
        let normedAgain = try layerNorm(x, "\(prefix).\(names.norms.1)", width: width, epsilon: names.epsilon)
        let hidden = try linear(normedAgain, "\(prefix).\(names.hidden.0)", outputs: hiddenWidth, inputs: width)
        let activated = try node(GELU(names.activation), [hidden], "\(prefix).mlp.gelu")
        let update = try linear(activated, "\(prefix).\(names.hidden.1)", outputs: width, inputs: hiddenWidth)
        return try add(x, update, "\(prefix).mlp.residual")
    }
}
