import Kernels
import Support

/// A part of a product's output that one task computes. Tasks that share weights follow each other.
struct ProductTile {
    let rows: Range<Int>
    let outputs: Range<Int>

    /// - Parameter part: outputs that must stay in one tile.
    static func cover(rows: Range<Int>, of product: PackedProduct, part: Int? = nil) -> [ProductTile] {
        let outputs = product.outputs
        let outputStep = part.map { $0 * max(1, 4 * Int(TRIPS_PANEL) / $0) } ?? panels(of: product) * Int(TRIPS_PANEL)
        return stride(from: 0, to: outputs, by: outputStep).flatMap { output in
            rows.split(into: max(1, rows.count.dividedRoundingUp(by: mostRows))).map {
                ProductTile(rows: $0, outputs: output..<min(output + outputStep, outputs))
            }
        }
    }

    /// Panels per task; large weights get small tasks so that threads finish together.
    private static func panels(of product: PackedProduct) -> Int {
        let panelBytes = product.byteCount / max(1, product.outputs.dividedRoundingUp(by: Int(TRIPS_PANEL)))
        return max(1, min(3, (96 << 10) / max(1, panelBytes)))
    }

    /// Ranges of rows, one per thread, which take them through all outputs and the neighbouring steps: they stay in its core's
    /// cache. Few rows form a single band, and threads divide the weights.
    static func bands(of rows: Int, threads: Int) -> [Range<Int>] {
        (0..<rows).split(into: max(1, min(threads, rows / leastRows)))
    }

    /// Fewest rows per thread for which reading all weights pays.
    private static let leastRows = 80

    /// Rows that stay in a core's cache together with the weights of a tile.
    private static let mostRows = 320
}
