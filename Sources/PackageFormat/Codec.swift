import CZstd
import Kernels
import Support
import Synchronization
import Tensors

/// How a tensor's bytes are arranged before compression.
package enum Arrangement: Equatable, Sendable {
    case asIs
    /// Byte p of each element is in plane p. Where `rotated`, elements are rotated left by one bit first, so that the
    /// highest plane holds nothing but exponent.
    case bytePlanes(width: Int, rotated: Bool)
    /// Low half bytes are in one plane, high ones in another. Weights have all their redundancy in the high ones, and
    /// with two of them in a byte, half as many symbols are to be decoded.
    case halfBytePlanes

    /// - Parameter features: the package's.
    package init(_ type: DataType, features: [String]) {
        if type.byteWidth > 1 {
            self = features.contains(Layout.bytePlanes) ? .bytePlanes(width: type.byteWidth, rotated: type.isFloatingPoint) : .asIs
        } else {
            self = type == .int8 && features.contains(Layout.halfBytePlanes) ? .halfBytePlanes : .asIs
        }
    }

    /// Planes, each compressed by itself.
    var planes: Int {
        switch self {
        case .asIs: 1
        case .bytePlanes(let width, _): width
        case .halfBytePlanes: 2
        }
    }

    /// Where a plane lies among `count` bytes; the last takes what is left.
    func range(ofPlane plane: Int, in count: Int) -> Range<Int> {
        let size = count / planes
        return plane * size..<(plane == planes - 1 ? count : (plane + 1) * size)
    }

    /// Splits into planes. Nothing is to be done where there is one alone.
    func split(_ source: UnsafeRawPointer, into target: UnsafeMutablePointer<UInt8>, count: Int) {
        switch self {
        case .asIs: break
        case .bytePlanes(let width, let rotated): trips_planes_split(target, source, count / width, width, rotated)
        case .halfBytePlanes: trips_planes_split(target, source, count, 1, false)
        }
    }

    /// The inverse of `split`.
    func merge(_ source: UnsafePointer<UInt8>, into target: UnsafeMutableRawPointer, count: Int) {
        switch self {
        case .asIs: break
        case .bytePlanes(let width, let rotated): trips_planes_merge(target, source, count / width, width, rotated)
        case .halfBytePlanes: trips_planes_merge(target, source, count, 1, false)
        }
    }
}

/// Compresses chunks; used by one thread at a time.
package final class ChunkEncoder: @unchecked Sendable {
    /// Negative enough to look for matches hardly anywhere: trained weights have none, and Huffman alone is smaller.
    private static let huffmanOnly: Int32 = -1000
    private static let matching: Int32 = 3
    private static let sampleSize = 1 << 13

    private let context: OpaquePointer
    private let planes: AlignedMemory

    package init() throws {
        planes = try AlignedMemory(byteCount: Layout.chunkSize)
        guard let context = ZSTD_createCCtx() else { throw TripsError.data("memory for compression was refused") }
        self.context = context
        _ = ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
        // Negative levels would leave literals as they are, and literals are all there is.
        _ = ZSTD_CCtx_setParameter(context, ZSTD_c_experimentalParam5, Int32(ZSTD_ps_enable.rawValue))
    }

    deinit { ZSTD_freeCCtx(context) }

    /// The frames of a chunk: one for each plane.
    /// - Parameter level: nil to choose by a sample.
    package func encode(_ chunk: UnsafeRawBufferPointer, _ arrangement: Arrangement, level: Int32?) throws -> [UInt8] {
        let bytes = arrange(chunk, arrangement)
        let planes = (0..<arrangement.planes).map {
            UnsafeRawBufferPointer(rebasing: bytes[arrangement.range(ofPlane: $0, in: chunk.count)])
        }
        let level = try level ?? chooseLevel(planes[planes.count - 1])
        let bound = planes.reduce(0) { $0 + ZSTD_compressBound($1.count) }
        return try [UInt8](unsafeUninitializedCapacity: bound) { output, count in
            for input in planes {
                count += try compress(
                    input, into: UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(output)[count...]), level)
            }
        }
    }

    /// One frame.
    package func encode(_ bytes: [UInt8], level: Int32) throws -> [UInt8] {
        try [UInt8](unsafeUninitializedCapacity: ZSTD_compressBound(bytes.count)) { output, count in
            count = try bytes.withUnsafeBytes { try compress($0, into: UnsafeMutableRawBufferPointer(output), level) }
        }
    }

    private func arrange(_ chunk: UnsafeRawBufferPointer, _ arrangement: Arrangement) -> UnsafeRawBufferPointer {
        guard arrangement != .asIs, let source = chunk.baseAddress else { return chunk }
        arrangement.split(source, into: planes.base.assumingMemoryBound(to: UInt8.self), count: chunk.count)
        return UnsafeRawBufferPointer(rebasing: planes.bytes[..<chunk.count])
    }

    private func chooseLevel(_ plane: UnsafeRawBufferPointer) throws -> Int32 {
        let sample = UnsafeRawBufferPointer(rebasing: plane.prefix(ChunkEncoder.sampleSize))
        return try withUnsafeTemporaryAllocation(byteCount: ZSTD_compressBound(sample.count), alignment: 16) { output in
            let withMatches = try compress(sample, into: output, ChunkEncoder.matching)
            let without = try compress(sample, into: output, ChunkEncoder.huffmanOnly)
            return withMatches < without - without / 8 ? ChunkEncoder.matching : ChunkEncoder.huffmanOnly
        }
    }

    private func compress(_ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, _ level: Int32) throws -> Int
    {
        _ = ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
        return try checked(ZSTD_compress2(context, output.baseAddress, output.count, input.baseAddress, input.count))
    }
}

/// Decompresses chunks that have the right CRC-32; used by one thread at a time.
final class ChunkDecoder: @unchecked Sendable {
    private let context: OpaquePointer
    private let planes: AlignedMemory
    private let narrow: AlignedMemory
    let compressed: AlignedMemory
    /// Elements of a chunk, widened to at most four times as many bytes.
    let elements: AlignedMemory

    init() throws {
        planes = try AlignedMemory(byteCount: Layout.chunkSize)
        narrow = try AlignedMemory(byteCount: Layout.chunkSize)
        compressed = try AlignedMemory(byteCount: Layout.maximalFrameSize)
        elements = try AlignedMemory(byteCount: 4 * Layout.chunkSize)
        guard let context = ZSTD_createDCtx() else { throw TripsError.data("memory for decompression was refused") }
        self.context = context
        ignoreChecksums()
    }

    deinit { ZSTD_freeDCtx(context) }

    /// Every byte that is decoded has been compared with the package's CRC-32.
    private func ignoreChecksums() {
        _ = ZSTD_DCtx_setParameter(context, ZSTD_d_experimentalParam3, Int32(ZSTD_d_ignoreChecksum.rawValue))
    }

    /// Decodes frames into elements of the stored type; `target` is as large as the chunk.
    func decode(_ frames: UnsafeRawBufferPointer, _ arrangement: Arrangement, into target: UnsafeMutableRawBufferPointer) throws {
        guard arrangement != .asIs, let base = target.baseAddress else {
            try decompress(frames, into: target)
            return
        }
        try decompress(frames, into: UnsafeMutableRawBufferPointer(rebasing: planes.bytes[..<target.count]))
        arrangement.merge(planes.base.assumingMemoryBound(to: UInt8.self), into: base, count: target.count)
    }

    /// Decodes frames of `count` elements of `storedType` and widens them to `dataType`, into `target`.
    func decode(
        _ frames: UnsafeRawBufferPointer, _ arrangement: Arrangement, _ storedType: DataType, as dataType: DataType,
        count: Int, into target: UnsafeMutableRawBufferPointer
    ) throws {
        guard storedType != dataType, let base = target.baseAddress else {
            try decode(frames, arrangement, into: target)
            return try checkElements(UnsafeRawBufferPointer(target), storedType)
        }
        let source = UnsafeRawPointer(narrow.base)
        try decode(
            frames, arrangement, into: UnsafeMutableRawBufferPointer(rebasing: narrow.bytes[..<(count * storedType.byteWidth)]))
        switch (storedType, dataType) {
        case (.bfloat16, .float32):
            trips_bf16_to_f32(base.assumingMemoryBound(to: Float.self), source.assumingMemoryBound(to: UInt16.self), count)
        case (.float16, .float32):
            trips_f16_to_f32(base.assumingMemoryBound(to: Float.self), source.assumingMemoryBound(to: UInt16.self), count)
        default:
            convert(
                TensorView(dataType: storedType, shape: [count], bytes: source),
                into: MutableTensorView(dataType: dataType, shape: [count], bytes: base))
        }
    }

    /// Decompresses a chunk of `size` bytes, for the checks alone, zstd's own among them.
    func check(_ frames: UnsafeRawBufferPointer, _ storedType: DataType, size: Int) throws {
        _ = ZSTD_DCtx_setParameter(context, ZSTD_d_experimentalParam3, Int32(ZSTD_d_validateChecksum.rawValue))
        defer { ignoreChecksums() }
        let bytes = UnsafeMutableRawBufferPointer(rebasing: planes.bytes[..<size])
        try decompress(frames, into: bytes)
        try checkElements(UnsafeRawBufferPointer(bytes), storedType)
    }

    /// What reads booleans takes them for the numbers 0 and 1.
    private func checkElements(_ bytes: UnsafeRawBufferPointer, _ storedType: DataType) throws {
        guard storedType == .bool, let byte = bytes.first(where: { $0 > 1 }) else { return }
        throw TripsError.data("a boolean", found: byte, expected: "0 or 1")
    }

    /// Decompresses to exactly as many bytes as `target` has.
    /// - Returns: the number of frames.
    @discardableResult
    func decompress(_ frames: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) throws -> Int {
        let frameCount = try checkFrames(frames)
        let count = try checked(
            ZSTD_decompressDCtx(context, target.baseAddress, target.count, frames.baseAddress, frames.count))
        guard count == target.count else { throw TripsError.data("size after decompression", found: count, expected: target.count) }
        return frameCount
    }
}

/// Checks the headers of frames that follow each other: zstd itself would skip what a skippable frame hides, and prove nothing
/// of a frame without checksum.
/// - Returns: their number.
private func checkFrames(_ frames: UnsafeRawBufferPointer) throws -> Int {
    var (rest, count) = (frames, 0)
    while !rest.isEmpty {
        var header = ZSTD_frameHeader()
        guard try checked(ZSTD_getFrameHeader(&header, rest.baseAddress, rest.count)) == 0 else {
            throw TripsError.data("a frame that is cut off")
        }
        guard header.frameType == ZSTD_frame, header.checksumFlag != 0, header.dictID == 0,
            header.frameContentSize != unknownContentSize
        else {
            throw TripsError.data(
                "frame \(count)",
                found: header.frameType == ZSTD_frame ? "no checksum, no size, or a dictionary" : "a skippable one",
                expected: "a frame with checksum and size, without dictionary")
        }
        let size = try checked(ZSTD_findFrameCompressedSize(rest.baseAddress, rest.count))
        rest = UnsafeRawBufferPointer(rebasing: rest[size...])
        count += 1
    }
    return count
}

/// ZSTD_CONTENTSIZE_UNKNOWN
private let unknownContentSize = UInt64.max

/// The result of a call into libzstd.
private func checked(_ result: Int) throws -> Int {
    guard ZSTD_isError(result) == 0 else {
        throw TripsError.data("zstd: \(String(cString: ZSTD_getErrorName(result)))")
    }
    return result
}

/// Objects that threads borrow, each by one at a time.
final class ObjectPool<Object: AnyObject & Sendable>: Sendable {
    private let idle = Mutex<[Object]>([])
    private let make: @Sendable () throws -> Object

    init(_ make: @escaping @Sendable () throws -> Object) { self.make = make }

    func borrow<Result>(_ body: (Object) throws -> Result) throws -> Result {
        let object = try idle.withLock { $0.popLast() } ?? make()
        defer { idle.withLock { $0.append(object) } }
        return try body(object)
    }
}
