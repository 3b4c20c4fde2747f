import Foundation
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
