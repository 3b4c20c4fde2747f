import Kernels
import ModelGraph
import Support
import Tensors

/// Linear layers that read the same rows, such as the query, key and value projections of an attention; each with what
/// follows it fused behind the product: bias, activation, residual.
struct LinearInstruction: Instruction {
    struct Member {
        var name: String
        let recipe: ProductRecipe
        let bias: ValueID?
        var activation = TRIPS_ACTIVATION_NONE
        var residual: ValueID?
        /// The value behind all that is fused.
        var output: ValueID
        let multiplyAccumulates: Int
        var kind: String
    }

    let input: ValueID
    let rows: Int
    let inputs: Int
    /// For int8 activations: multiplied into the rows before they are quantized.
    let inputScale: Constant?
    var members: [Member]
    /// What makes the rows: where they are quantized, each is normalised right before, while it is in cache.
    var norm: LayerNormInstruction?

    var label: String { ([norm?.label].compactMap { $0 } + members.map(\.name)).joined(separator: " ") }
    var kind: String { (norm.map { $0.kind + "+" } ?? "") + members[0].kind }
    var multiplyAccumulates: Int { members.reduce(0) { $0 + $1.multiplyAccumulates } }
    var reads: [ValueID] { (norm?.reads ?? [input]) + members.compactMap(\.residual) }
    var writes: [ValueID] { (norm?.writes ?? []) + members.map(\.output) }
    var products: [ProductRecipe] { members.map(\.recipe) }

    var quantizesRows: Bool { members[0].recipe.quantizesRows }

    func scratchBytes(threads: Int) -> Int {
        quantizesRows ? QuantizedRows.byteCount(rows: rows, inputs: inputs) : 0
    }

    func bind(_ memory: PlanMemory) throws -> @Sendable (ThreadPool) throws -> Void {
        let (rows, inputs) = (rows, inputs)
        let tiles = try members.flatMap { member in
            let product = try BoundProduct(member, memory)
            return Tile.cover(rows: rows, outputs: product.packed.outputs).map { (product, $0) }
        }
        let (x, distance) = (SharedRows(try memory.view(input)), memory.rowDistance(input))
        guard quantizesRows else {
            return { pool in
                pool.run(tiles.count) { index in
                    let (product, tile) = tiles[index]
                    product.multiply(x.pointer, distance, tile)
                }
            }
        }
        let quantized = QuantizedRows(memory.scratch, rows: rows, inputs: inputs)
        let inputScale = try inputScale.map(memory.weights.tensor)
        let normalize = try norm?.rowWork(memory)
        return { pool in
            let step = 8
            pool.run((rows + step - 1) / step) { index in
                let range = index * step..<min(rows, (index + 1) * step)
                normalize?(range)
                quantized.fill(x.pointer, inputs: inputs, range, inputScale)
            }
            pool.run(tiles.count) { index in
                let (product, tile) = tiles[index]
                product.multiply(quantized, tile)
            }
        }
    }
}

/// A part of a product's output that one task computes. The cover depends on the sizes only, not on the threads; tasks that
/// share weights follow each other.
struct Tile {
    let rows: Range<Int>
    let outputs: Range<Int>

    static func cover(rows: Int, outputs: Int) -> [Tile] {
        let parts = max(1, (rows + mostRows - 1) / mostRows)
        let outputStep = 3 * Int(TRIPS_PANEL)
        return stride(from: 0, to: outputs, by: outputStep).flatMap { output in
            (0..<parts).map { part in
                Tile(rows: rows * part / parts..<rows * (part + 1) / parts, outputs: output..<min(output + outputStep, outputs))
            }
        }
    }

    /// Rows that stay in a core's cache together with the weights of a tile.
    private static let mostRows = 160
}

/// Rows of activations as int8, with a scale for each, in the scratch memory of a step.
private struct QuantizedRows: @unchecked Sendable {
    let scales: UnsafeMutablePointer<Float>
    let bytes: UnsafeMutablePointer<UInt8>
    let rowBytes: Int

    static func byteCount(rows: Int, inputs: Int) -> Int {
        scaleBytes(rows) + rows * trips_quantized_row_size(inputs) + 64
    }

    private static func scaleBytes(_ rows: Int) -> Int { (rows * MemoryLayout<Float>.size + 63) & ~63 }

    init(_ scratch: UnsafeMutableRawPointer, rows: Int, inputs: Int) {
        scales = scratch.assumingMemoryBound(to: Float.self)
        bytes = (scratch + QuantizedRows.scaleBytes(rows)).assumingMemoryBound(to: UInt8.self)
        rowBytes = trips_quantized_row_size(inputs)
    }

    func fill(_ x: UnsafePointer<Float>, inputs: Int, _ rows: Range<Int>, _ inputScale: Tensor?) {
        trips_quantize_rows(
            bytes, rowBytes, scales, x, inputs, inputs, rows.lowerBound, rows.upperBound,
            inputScale?.view.pointer(Float.self))
    }
}

/// A product with its addresses.
private final class BoundProduct: @unchecked Sendable {
    let packed: PackedProduct
    private let output: UnsafeMutablePointer<Float>
    private let outputDistance: Int
    private let epilogue: trips_epilogue

    init(_ member: LinearInstruction.Member, _ memory: PlanMemory) throws {
        packed = try memory.weights.product(member.recipe)
        let bias = try member.bias.map(memory.view)
        output = try memory.mutableView(member.output).pointer(Float.self)
        outputDistance = memory.rowDistance(member.output)
        epilogue = trips_epilogue(
            bias: bias?.pointer(Float.self),
            residual: try member.residual.map { try memory.view($0).pointer(Float.self) },
            ldr: packed.outputs, activation: member.activation)
    }

    func multiply(_ x: UnsafePointer<Float>, _ distance: Int, _ tile: Tile) {
        // A copy for each task, as all of them run at the same time.
        var epilogue = epilogue
        trips_sgemm(
            x, distance, packed.pointer.assumingMemoryBound(to: Float.self), packed.outputs, packed.inputs,
            output, outputDistance, tile.rows.lowerBound, tile.rows.upperBound, tile.outputs.lowerBound,
            tile.outputs.upperBound, &epilogue)
    }

    func multiply(_ x: QuantizedRows, _ tile: Tile) {
        guard case .int8 = packed.form else { return }
        var epilogue = epilogue
        trips_igemm(
            x.bytes, x.rowBytes, x.scales, packed.pointer, packed.outputs, packed.inputs,
            packed.form.group(of: packed.inputs), output, outputDistance, tile.rows.lowerBound,
            tile.rows.upperBound, tile.outputs.lowerBound, tile.outputs.upperBound, &epilogue)
    }
}
