import Foundation
import Kernels
import ModelGraph
import Support

/// Runs libFuzzer, with the process's arguments, on `body`. Errors of ours are how bad input should end; anything else
/// stops the fuzzer and keeps the input.
public func fuzz(_ body: @escaping @Sendable (UnsafeRawBufferPointer) throws -> Void) -> Never {
    entry = body
    var count = CommandLine.argc
    var arguments = CommandLine.unsafeArgv
    let status = runDriver(&count, &arguments) { start, count in
        do {
            try entry?(UnsafeRawBufferPointer(start: start, count: count))
        } catch {
            precondition(error is TripsError, "\(error)")
        }
        return 0
    }
    exit(status)
}

/// Hands bytes to `body` as a file of this name.
public func withFile(_ bytes: [UInt8], named name: String, _ body: (String) throws -> Void) throws {
    let path = folder + "/" + name
    let descriptor = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0o600)
    precondition(descriptor >= 0 && write(descriptor, bytes, bytes.count) == bytes.count, "\(path) cannot be written")
    close(descriptor)
    try body(path)
}

/// Loads each constant that a graph reads.
public func loadConstants(of graphs: [Graph]) throws {
    var seen = Set<String>()
    for graph in graphs {
        for value in graph.nodes.flatMap(\.inputs) {
            guard let constant = value.flatMap(graph.constant), seen.insert(constant.identity).inserted else { continue }
            _ = try constant.load()
        }
    }
}

/// The bytes whose number stands in the first two, and those behind them.
public func parts(_ input: UnsafeRawBufferPointer.SubSequence) -> (first: [UInt8], rest: [UInt8]) {
    let bytes = Array(input)
    guard bytes.count >= 2 else { return ([], []) }
    let end = min(2 + Int(bytes[0]) + Int(bytes[1]) << 8, bytes.count)
    return (Array(bytes[2..<end]), Array(bytes[end...]))
}

/// A zip archive of stored entries, with their checksums.
public func zipArchive(_ entries: [(name: String, bytes: [UInt8])]) -> [UInt8] {
    func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
    var (file, directory): ([UInt8], [UInt8]) = ([], [])
    for (name, bytes) in entries {
        let size = little(UInt32(bytes.count))
        let fields =
            [UInt8](repeating: 0, count: 8) + little(trips_crc32(0, bytes, bytes.count)) + size + size
            + little(UInt16(name.utf8.count)) + [0, 0]
        directory += little(UInt32(0x0201_4B50)) + [20, 0, 20, 0] + fields + [UInt8](repeating: 0, count: 10)
        directory += little(UInt32(file.count)) + Array(name.utf8)
        file += little(UInt32(0x0403_4B50)) + [20, 0] + fields + Array(name.utf8) + bytes
    }
    let count = little(UInt16(entries.count))
    return file + directory + little(UInt32(0x0605_4B50)) + [0, 0, 0, 0] + count + count
        + little(UInt32(directory.count)) + little(UInt32(file.count)) + [0, 0]
}

/// Set once, before the fuzzer starts; it calls from one thread.
nonisolated(unsafe) private var entry: (@Sendable (UnsafeRawBufferPointer) throws -> Void)?

/// A folder of this process, in memory where the system has such.
private let folder: String = {
    let base = FileManager.default.fileExists(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
    let path = base + "/trips-fuzz-\(ProcessInfo.processInfo.processIdentifier)"
    try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    atexit { try? FileManager.default.removeItem(atPath: folder) }
    return path
}()

/// libFuzzer's loop.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
    _ count: UnsafeMutablePointer<CInt>, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
    _ callback: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt
