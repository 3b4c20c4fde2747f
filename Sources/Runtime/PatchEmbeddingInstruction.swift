import Kernels
import ModelGraph
import Operators
import Support
import Tensors

/// Patch embedding as a product with packed weights: patches become rows, and the product's epilogue adds bias and positions.
struct PatchEmbeddingInstruction: Instruction {
    let node: Node
    let recipe: ProductRecipe
    let multiplyAccumulates: Int
    let reads: [ValueID]
    /// [B, C, H, W]
    let image: [Int]
    /// [D, C, p, q]
    let weight: [Int]
    let tokens: Int

    var label: String { node.name }
    var kind: String { PatchEmbedding.name }
    var writes: [ValueID] { node.outputs }
    var products: [ProductRecipe] { [recipe] }
    private var inputs: Int { weight[1] * weight[2] * weight[3] }
    private var first: Int { node.input(3) == nil ? 0 : 1 }

    func scratchBytes(threads: Int) -> Int { (tokens - first) * inputs * MemoryLayout<Float>.size }

    func bind(_ memory: PlanMemory, scratch: UnsafeMutableRawPointer) throws -> @Sendable (ThreadPool) throws -> Void {
        let (width, inputs, tokens, first, batch) = (weight[0], inputs, tokens, first, image[0])
        func input(_ index: Int) throws -> Source<Float>? { try node.input(index).map { try memory.view($0).source() } }
        let packed = try memory.weights.product(recipe)
        let output = try memory.mutableView(node.output).target(Float.self)
        let (bias, token, positions) = (try input(2), try input(3), try input(4))
        let pixels = try memory.view(node.requiredInput(0)).source(Float.self)
        let rows = Target(base: scratch.assumingMemoryBound(to: Float.self))
        let patches = PatchRows(pixels: pixels, rows: rows, image: image, weight: weight)
        let tiles = ProductTile.bands(of: tokens - first, threads: memory.threads).flatMap {
            ProductTile.cover(rows: $0, of: packed)
        }
        return { pool in
            for example in 0..<batch {
                let target = output.base + example * tokens * width
                if let token {
                    for index in 0..<width { target[index] = token.base[index] + (positions?.base[index] ?? 0) }
                }
                let rest = Target(base: target + first * width)
                pool.run(patches.down) { patches.gather(example, $0) }
                pool.run(tiles.count) { index in
                    var epilogue = trips_epilogue(
                        bias: bias?.base, residual: positions.map { $0.base + first * width }, ldr: width, residual_rows: nil,
                        activation: TRIPS_ACTIVATION_NONE)
                    let tile = tiles[index]
                    trips_sgemm(
                        rows.base, inputs, packed.pointer.assumingMemoryBound(to: Float.self), width, inputs, rest.base, width,
                        tile.rows.lowerBound, tile.rows.upperBound, tile.outputs.lowerBound, tile.outputs.upperBound, &epilogue)
                }
            }
        }
    }
}

/// The patches of one picture as rows [patches, C · p · q].
private struct PatchRows: Sendable {
    let pixels: Source<Float>
    let rows: Target<Float>
    /// [B, C, H, W]
    let image: [Int]
    /// [D, C, p, q]
    let weight: [Int]

    /// Rows of patches.
    var down: Int { image[2] / weight[2] }

    /// The patches that lie side by side in one row of them.
    func gather(_ example: Int, _ row: Int) {
        let (channels, height, columns) = (image[1], image[2], image[3])
        let (p, q) = (weight[2], weight[3])
        let across = columns / q
        for channel in 0..<channels {
            for line in 0..<p {
                let from = pixels.base + ((example * channels + channel) * height + row * p + line) * columns
                for patch in 0..<across {
                    let to = rows.base + ((row * across + patch) * channels * p + channel * p + line) * q
                    to.update(from: from + patch * q, count: q)
                }
            }
        }
    }
}
