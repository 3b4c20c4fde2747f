import FuzzSupport
import PackageFormat
import Rewrites
import Support
import Tensors

private let encoder = try ChunkEncoder()

// Opens a package, loads its tensors, checks every byte, builds its graphs and takes their selections out.
//
// The first byte tells what the others are: a file as it is (0), or the parts of one (others), which get right
// checksums and sizes here, as no fuzzer guesses those: 2 bytes length of the manifest, the manifest, and chunks with
// 2 bytes length each. Bit 1 of the first byte asks for a plain package, bit 2 for chunks that are compressed here, bit 3 for
// a last chunk that is put into a frame to be mapped.
fuzz { input in
    guard let kind = input.first else { return }
    var file = Array(input.dropFirst())
    if kind != 0 {
        guard let assembled = try? assemble(file, isPlain: kind & 2 != 0, compresses: kind & 4 != 0, maps: kind & 8 != 0) else {
            return
        }
        file = assembled
    }
    try withFile(file, named: "a.trips") { path in
        let package = try PackageReader(path: path)
        for tensor in package.tensors { _ = try package.constant(named: tensor.name).load() }
        try package.verify(pool: ThreadPool(threads: 1))
        for graph in try package.graphs() { _ = try? graph.withoutSelection() }
    }
}

private func assemble(_ parts: [UInt8], isPlain: Bool, compresses: Bool, maps: Bool) throws -> [UInt8] {
    var cursor = ByteCursor(parts)
    let manifest = Array(try cursor.take(Int(cursor.integer(UInt16.self))))
    let frame = try encoder.encode(manifest, level: 1)
    var file = try Header(
        isPlain: isPlain, manifestFrameSize: frame.count, manifestSize: manifest.count, manifestChecksum: crc32(frame)
    ).bytes()
    file += frame
    var index = ChunkIndex()
    while cursor.remaining >= 2 {
        let bytes = Array(try cursor.take(min(Int(cursor.integer(UInt16.self)), cursor.remaining)))
        let isMapped = maps && cursor.remaining < 2
        let chunk =
            isMapped
            ? try MappedFrame.head(at: file.count, bytes.count) + bytes
            : compresses ? try encoder.encode(bytes, level: 1) : bytes
        try index.append(size: chunk.count, checksum: crc32(chunk))
        file += chunk
    }
    let indexOffset = file.count
    file += try index.bytes()
    return file + (try Footer(indexOffset: indexOffset, fileSize: file.count + Footer.size).bytes())
}
