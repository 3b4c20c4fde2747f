import Kernels
import ModelGraph
import Operators
import Support
import Tensors

/// Linear layers that read the same rows, such as the query, key and value projections of an attention; each with the bias,
/// activation and residual that follow its product.
struct LinearInstruction: Instruction {
    struct Member {
        var name: String
        let recipe: ProductRecipe
        let bias: ValueID?
        var activation = TRIPS_ACTIVATION_NONE
        var residual: ValueID?
        /// The result of the last fused operator.
        var output: ValueID
        let multiplyAccumulates: Int
        var kind: String

        /// Whether rows can be quantized as soon as the product has computed them.
        var mayWriteBytes: Bool { recipe.quantizesRows && activation == TRIPS_ACTIVATION_NONE && residual == nil }
    }

    let input: ValueID
    let rows: Int
    let inputs: Int
    /// For int8 activations: the rows are multiplied by it before they are quantized.
    let inputScale: Constant?
    var members: [Member]
    /// The layer norm that computes the rows. Each row is quantized right after it is normalised, while it is in cache.
    var norm: LayerNormInstruction?
    /// Whether others read the normalised rows.
    var keepsNorm = false

    var label: String { ([norm?.label].compactMap { $0 } + members.map(\.name)).joined(separator: " ") }
    var kind: String { (norm.map { $0.kind + "+" } ?? "") + members[0].kind }
    var multiplyAccumulates: Int { members.reduce(0) { $0 + $1.multiplyAccumulates } }
    var reads: [ValueID] { (norm?.reads ?? [input]) + members.compactMap(\.residual) }
    var writes: [ValueID] { (keepsNorm ? [input] : []) + members.map(\.output) }
    var products: [ProductRecipe] { members.map(\.recipe) }

    var quantizesRows: Bool { members[0].recipe.quantizesRows }

    func scratchBytes(threads: Int) -> Int {
        guard quantizesRows else { return 0 }
        return QuantizedRows.byteCount(rows: rows, inputs: inputs) + (norm == nil || keepsNorm ? 0 : threads * stepBytes)
    }

    /// Rows that a task quantizes.
    private static let rowStep = 8
    private var stepBytes: Int { (LinearInstruction.rowStep * inputs * MemoryLayout<Float>.size).inWholeCacheLines }

    func bind(_ memory: PlanMemory, scratch: UnsafeMutableRawPointer) throws -> @Sendable (ThreadPool) throws -> Void {
        let (rows, inputs, step) = (rows, inputs, LinearInstruction.rowStep)
        let products = try members.map { try BoundProduct($0, memory) }
        let tiles = ProductTile.bands(of: rows, threads: memory.threads).flatMap { band in
            products.flatMap { product in
                ProductTile.cover(rows: band, of: product.packed, part: product.part).map { (product, $0) }
            }
        }
        guard quantizesRows else {
            let (x, distance) = (try memory.view(input).source(Float.self), memory.rowDistance(input))
            return { pool in
                pool.run(tiles.count) { index in
                    let (product, tile) = tiles[index]
                    product.multiply(x.base, distance, tile)
                }
            }
        }
        let quantized = QuantizedRows(scratch, rows: rows, inputs: inputs)
        let inputScale = try inputScale.map(memory.weights.tensor)
        let source = try rowSource(memory, scratch + QuantizedRows.byteCount(rows: rows, inputs: inputs))
        return { pool in
            pool.run(rows.dividedRoundingUp(by: step)) { index, thread in
                let range = index * step..<min(rows, (index + 1) * step)
                quantized.fill(range, from: source(range, thread), inputs: inputs, inputScale)
            }
            pool.run(tiles.count) { index in
                let (product, tile) = tiles[index]
                product.multiply(quantized, tile)
            }
        }
    }

    /// Address of the rows: in place, or normalised into thread scratch.
    private func rowSource(
        _ memory: PlanMemory, _ scratch: UnsafeMutableRawPointer
    ) throws -> @Sendable (Range<Int>, _ thread: Int) -> UnsafePointer<Float> {
        let (inputs, stepBytes) = (inputs, stepBytes)
        guard let norm else {
            let x = try memory.view(input).source(Float.self)
            return { rows, _ in x.base + rows.lowerBound * inputs }
        }
        let normalize = try norm.rowWork(memory, distance: inputs)
        let kept = keepsNorm ? try memory.mutableView(input).target(Float.self) : nil
        let apart = Target(base: scratch.assumingMemoryBound(to: Float.self))
        return { rows, thread in
            let target =
                kept.map { $0.base + rows.lowerBound * inputs } ?? apart.base + thread * stepBytes / MemoryLayout<Float>.stride
            normalize(rows, target)
            return UnsafePointer(target)
        }
    }
}

/// A product with its addresses.
private final class BoundProduct: Sendable {
    let packed: PackedProduct
    /// Outputs that are quantized together, where the rows become bytes.
    var part: Int? { bytes?.headSize }
    private let bytes: HeadBytes?
    private let output: Target<Float>
    private let outputDistance: Int
    private let bias: Source<Float>?
    private let residual: ChosenRows?
    private let activation: trips_activation

    init(_ member: LinearInstruction.Member, _ memory: PlanMemory) throws {
        packed = try memory.weights.product(member.recipe)
        bytes = try memory.headBytes(member.output)
        output = try memory.mutableView(member.output).target()
        outputDistance = memory.rowDistance(member.output)
        bias = try member.bias.map { try memory.view($0).source() }
        residual = try member.residual.map(memory.rows)
        activation = member.activation
    }

    private var epilogue: trips_epilogue {
        trips_epilogue(
            bias: bias?.base, residual: residual?.first.base, ldr: residual?.distance ?? 0, residual_rows: residual?.order?.base,
            activation: activation)
    }

    func multiply(_ x: UnsafePointer<Float>, _ distance: Int, _ tile: ProductTile) {
        var epilogue = epilogue
        trips_sgemm(
            x, distance, packed.pointer.assumingMemoryBound(to: Float.self), packed.outputs, packed.inputs,
            output.base, outputDistance, tile.rows.lowerBound, tile.rows.upperBound, tile.outputs.lowerBound,
            tile.outputs.upperBound, &epilogue)
    }

    func multiply(_ x: QuantizedRows, _ tile: ProductTile) {
        guard case .int8 = packed.form else { return }
        let group = packed.form.group(of: packed.inputs)
        if let bytes {
            trips_igemm_bytes(
                x.bytes.base, x.rowBytes, x.scales.base, packed.pointer, packed.outputs, packed.inputs, group, bytes.bytes.base,
                bytes.scales.base, bytes.rows, bytes.headSize, tile.rows.lowerBound, tile.rows.upperBound, tile.outputs.lowerBound,
                tile.outputs.upperBound, bias?.base)
        } else {
            var epilogue = epilogue
            trips_igemm(
                x.bytes.base, x.rowBytes, x.scales.base, packed.pointer, packed.outputs, packed.inputs, group, output.base,
                outputDistance, tile.rows.lowerBound, tile.rows.upperBound, tile.outputs.lowerBound, tile.outputs.upperBound,
                &epilogue)
        }
    }
}
