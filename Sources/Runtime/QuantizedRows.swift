import Kernels
import ModelGraph
import Operators
import Support
import Tensors

/// Rows of activations as int8, with a scale for each, in the scratch memory of a step.
struct QuantizedRows: Sendable {
    let scales: Target<Float>
    let bytes: Target<UInt8>
    let rowBytes: Int

    static func byteCount(rows: Int, inputs: Int) -> Int {
        scaleBytes(rows) + (rows * trips_quantized_row_size(inputs)).inWholeCacheLines
    }

    private static func scaleBytes(_ rows: Int) -> Int { (rows * MemoryLayout<Float>.size).inWholeCacheLines }

    init(_ scratch: UnsafeMutableRawPointer, rows: Int, inputs: Int) {
        scales = Target(base: scratch.assumingMemoryBound(to: Float.self))
        bytes = Target(base: (scratch + QuantizedRows.scaleBytes(rows)).assumingMemoryBound(to: UInt8.self))
        rowBytes = trips_quantized_row_size(inputs)
    }

    /// - Parameter x: the first of the rows.
    func fill(_ rows: Range<Int>, from x: UnsafePointer<Float>, inputs: Int, _ inputScale: Tensor?) {
        trips_quantize_rows(
            bytes.base + rows.lowerBound * rowBytes, rowBytes, scales.base + rows.lowerBound, x, inputs, inputs, rows.count,
            inputScale?.view.source(Float.self).base)
    }
}

/// Rows that a product quantizes head by head as it writes them, for int8 attentions: a value's memory holds the bytes
/// [heads, rows, head size], followed by the scales [heads, rows].
struct HeadBytes: Sendable {
    let bytes: Target<UInt8>
    let scales: Target<Float>
    /// Of all examples.
    let rows: Int
    let width: Int
    let headSize: Int

    init(_ place: MutableTensorView, headSize: Int) {
        width = place.shape.last ?? 0
        rows = place.shape.dropLast().reduce(1, *)
        self.headSize = headSize
        bytes = place.target()
        scales = Target(base: (place.bytes + (rows * width).inWholeCacheLines).assumingMemoryBound(to: Float.self))
    }

    static func byteCount(rows: Int, width: Int, headSize: Int) -> Int {
        (rows * width).inWholeCacheLines + rows * (width / headSize) * MemoryLayout<Float>.size
    }

    /// Sizes of heads that products can write.
    static func holds(headSize: Int) -> Bool { headSize % Int(TRIPS_PANEL) == 0 && headSize <= Int(TRIPS_MOST_PART) }

    func head(_ head: Int, from row: Int) -> trips_byte_rows {
        let first = head * rows + row
        return trips_byte_rows(bytes: bytes.base + first * headSize, ld: headSize, scales: scales.base + first)
    }
}
