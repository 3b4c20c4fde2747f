import Support
import Synchronization

extension ConstantSource {
    /// As `Constant.readParts`. Sources whose numbers are stored in pieces have an implementation of their own.
    package func readParts(
        _ dataType: DataType, _ shape: [Int], _ body: @Sendable (Int, UnsafeRawBufferPointer) throws -> Void
    ) throws {
        let tensor = try load(dataType, shape)
        let step = 1 << 19
        try ThreadPool.shared.tryRun(tensor.byteCount.dividedRoundingUp(by: step)) { part in
            try tensor.withBytes { bytes in
                let start = part * step
                try body(start, UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + step, bytes.count)]))
            }
        }
    }
}

extension Constant {
    /// Hands out the numbers in parts, each with its offset in bytes: in parallel, in any order, and where the source can
    /// do so without ever holding all of them. A part is small enough to stay in a processor's cache.
    /// - Throws: as `load`, and what `body` throws.
    package func readParts(_ body: @Sendable (_ offset: Int, _ bytes: UnsafeRawBufferPointer) throws -> Void) throws {
        try source.readParts(dataType, shape, body)
    }

    /// Hands out the numbers as `readParts`, in ranges of whole rows, those of the first axis, that start at a multiple of
    /// `multiple`.
    package func readRows(
        multipleOf multiple: Int, _ body: @Sendable (_ rows: Range<Int>, _ bytes: UnsafeRawBufferPointer) throws -> Void
    ) throws {
        guard shape.count > 1, multiple > 0 else {
            throw TripsError.data("rows of a constant", found: "\(shape)", expected: "rank 2 or more")
        }
        let rowBytes = try Tensors.byteCount(of: dataType, Array(shape.dropFirst()))
        guard shape[0] > 0, rowBytes > 0 else { return }
        let blocks = RowBlocks(rows: shape[0], rowBytes: rowBytes, blockRows: multiple)
        let split = SplitBlocks()
        try readParts { offset, bytes in
            let (whole, ends) = blocks.cut(offset..<offset + bytes.count)
            if !whole.isEmpty {
                try body(
                    blocks.rows(whole),
                    UnsafeRawBufferPointer(rebasing: bytes[(whole.lowerBound - offset)..<(whole.upperBound - offset)]))
            }
            for end in ends {
                let block = blocks.block(around: end.lowerBound)
                let piece = UnsafeRawBufferPointer(rebasing: bytes[(end.lowerBound - offset)..<(end.upperBound - offset)])
                guard let complete = split.add(piece, at: end.lowerBound - block.lowerBound, to: block) else { continue }
                try complete.withUnsafeBytes { try body(blocks.rows(block), $0) }
            }
        }
    }
}

/// A matrix's bytes in blocks of `blockRows` rows; the last one may be shorter.
private struct RowBlocks {
    let byteCount: Int
    let rowBytes: Int
    let blockBytes: Int

    init(rows: Int, rowBytes: Int, blockRows: Int) {
        byteCount = rows * rowBytes
        self.rowBytes = rowBytes
        blockBytes = min(blockRows, rows) * rowBytes
    }

    func rows(_ bytes: Range<Int>) -> Range<Int> { bytes.lowerBound / rowBytes..<bytes.upperBound / rowBytes }

    func block(around offset: Int) -> Range<Int> {
        let start = offset / blockBytes * blockBytes
        return start..<min(start + blockBytes, byteCount)
    }

    /// The whole blocks of a part, and its pieces of the blocks that it shares with other parts.
    func cut(_ part: Range<Int>) -> (whole: Range<Int>, ends: [Range<Int>]) {
        let first = (part.lowerBound + blockBytes - 1) / blockBytes * blockBytes
        let last = part.upperBound == byteCount ? byteCount : part.upperBound / blockBytes * blockBytes
        guard first < last else {
            let middle = min(max(first, part.lowerBound), part.upperBound)
            return (middle..<middle, [part.lowerBound..<middle, middle..<part.upperBound].filter { !$0.isEmpty })
        }
        return (first..<last, [part.lowerBound..<first, last..<part.upperBound].filter { !$0.isEmpty })
    }
}

/// Collects the blocks that several parts share.
private final class SplitBlocks: Sendable {
    private struct Block {
        var bytes: [UInt8]
        var missing: Int
    }
    private let blocks = Mutex<[Int: Block]>([:])

    /// The block's bytes, once this piece completes it.
    func add(_ piece: UnsafeRawBufferPointer, at offset: Int, to block: Range<Int>) -> [UInt8]? {
        blocks.withLock { blocks in
            var held =
                blocks.removeValue(forKey: block.lowerBound)
                ?? Block(bytes: [UInt8](repeating: 0, count: block.count), missing: block.count)
            held.bytes.withUnsafeMutableBytes { UnsafeMutableRawBufferPointer(rebasing: $0[offset...]).copyMemory(from: piece) }
            held.missing -= piece.count
            if held.missing == 0 { return held.bytes }
            blocks[block.lowerBound] = held
            return nil
        }
    }
}
