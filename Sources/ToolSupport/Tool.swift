@_exported import ArgumentParser
import Foundation
import Support

/// A command of the package: parses its arguments, calls the library, reports.
///
/// Exit codes: 0 done, 1 a verdict that fails, 64 usage, 65 bad input data, 66 input cannot be opened, 73 output cannot
/// be created, 74 input or output failed part-way.
public protocol Tool: ParsableCommand {}

extension Tool {
    /// Runs the command with the process's arguments, and ends the process where it fails.
    public static func main() {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch let error as TripsError {
            fail(error.description, code: error.kind.rawValue)
        } catch let error as DecodingError {
            fail("malformed data: \(error)", code: TripsError.Kind.data.rawValue)
        } catch {
            exit(withError: error)
        }
    }

    private static func fail(_ message: String, code: Int32) -> Never {
        printDiagnostic("\(_commandName): error: \(message)")
        Foundation.exit(code)
    }
}

/// Writes a line to standard error.
public func printDiagnostic(_ line: String) { FileHandle.standardError.write(Data((line + "\n").utf8)) }

/// Options that all tools share.
public struct CommonOptions: ParsableArguments {
    @Flag(name: .long, help: "No progress and no remarks on standard error.")
    public var quiet = false

    @Option(name: .long, help: ArgumentHelp("Threads to work with.", discussion: "Default: all processors.", valueName: "n"))
    public var threads: Int?

    public init() {}

    public func validate() throws {
        if let threads, !(1...1024).contains(threads) { throw ValidationError("--threads \(threads): expected 1 to 1024") }
    }

    /// A remark that is not part of the result.
    public func remark(_ line: String) {
        if !quiet { printDiagnostic(line) }
    }
}

/// Whether files that are there already may be replaced.
public struct ReplacingOptions: ParsableArguments {
    @Flag(name: .long, help: "Replace output files that exist already.")
    public var force = false

    public init() {}

    /// Finds out before the work whether an output can be written at the end.
    /// - Parameter inputs: files that the output must not replace.
    /// - Throws: `cannotCreate`; `usage` where the output is one of the inputs.
    public func checkOutput(_ path: String, besides inputs: [String] = []) throws {
        var isFolder: ObjCBool = false
        let exists = FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
        if exists && (isFolder.boolValue || !force) {
            throw TripsError(
                .cannotCreate, isFolder.boolValue ? "is a folder" : "exists already; --force replaces it", at: path)
        }
        let parent = (path as NSString).deletingLastPathComponent
        guard FileManager.default.isWritableFile(atPath: parent.isEmpty ? "." : parent) else {
            throw TripsError(.cannotCreate, "its folder cannot be written to", at: path)
        }
    }

    /// Writes a text file whole or not at all.
    public func write(_ text: String, to path: String) throws {
        try AtomicFile.write(to: path, replacing: force) { try $0.write(Array(text.utf8)) }
    }
}
        for input in inputs { try AtomicFile.checkTarget(path, isNot: input) }
        try AtomicFile.checkTarget(path, replacing: force)
