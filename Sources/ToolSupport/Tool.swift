@_exported import ArgumentParser
import Foundation
import Operators
import Support

/// A command of the package: parses its arguments, calls the library, reports.
///
/// Exit codes: 0 done, 1 a verdict that fails, 64 usage, 65 bad input data, 66 input cannot be opened, 70 an
/// internal error, 73 output cannot be created, 74 input or output failed part-way.
public protocol Tool: ParsableCommand {}

extension Tool {
    /// Runs the command with the process's arguments, and ends the process where it fails.
    public static func main() {
        // Where a file may not grow, writing it is to fail as on a full disk, not to end the process.
        signal(SIGXFSZ, SIG_IGN)
        startAgainWhereThreadsWouldWait()
        endBLASThreads()
        do {
            try checkArguments()
            var command = try parseAsRoot()
            try command.run()
            try flushOutput()
        } catch {
            guard let failure = failure(for: error) else { exit(withError: error) }
            printDiagnostic("\(_commandName): error: \(failure.message)")
            Foundation.exit(failure.code)
        }
    }

    /// What to say of an error, and the exit code; nil where the parser knows both.
    package static func failure(for error: any Error) -> (message: String, code: Int32)? {
        switch error {
        case let error as TripsError: (spellingFlags(error.description), error.kind.rawValue)
        case let error as DecodingError: ("malformed data: \(error)", TripsError.Kind.data.rawValue)
        case is ExitCode: nil
        // 1 is a verdict; the parser gives it to every error that it does not know.
        default: exitCode(for: error) == .failure ? ("internal error: \(error)", EX_SOFTWARE) : nil
        }
    }
}

/// Each thread that OpenBLAS starts when it is loaded reserves 128 MB, and asks for ever where these are refused. So where the
/// address space is limited, the program starts again without such threads.
private func startAgainWhereThreadsWouldWait() {
    var limit = rlimit()
    guard getenv("OPENBLAS_NUM_THREADS") == nil, getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0,
        limit.rlim_cur != .max
    else { return }
    setenv("OPENBLAS_NUM_THREADS", "1", 1)
    execv("/proc/self/exe", CommandLine.unsafeArgv)
}

/// Refuses what Swift would repair: the name of another file.
private func checkArguments() throws {
    for number in 1..<max(1, Int(CommandLine.argc)) {
        guard let argument = CommandLine.unsafeArgv[number], String(validatingCString: argument) == nil else { continue }
        throw TripsError.usage("argument \(number)", found: String(cString: argument), expected: "UTF-8")
    }
}

/// Runs a check of the library; what it refuses becomes an error of the parser, which adds how the command is used.
public func validating<Result>(_ check: () throws -> Result) throws -> Result {
    do {
        return try check()
    } catch let error as TripsError {
        throw ValidationError(spellingFlags(error.description))
    }
}

/// Refuses a number that an option does not take.
/// - Parameter option: with its dashes.
public func checkRange(_ option: String, _ number: Int?, _ range: ClosedRange<Int>) throws {
    guard let number, !range.contains(number) else { return }
    throw ValidationError("\(option) \(number): expected \(range.lowerBound) to \(range.upperBound)")
}

/// The error for a missing first argument, which an option that takes several names may have taken for one of them.
/// - Parameter options: what was given of such options, by their names.
public func missingArgument(_ argument: String, besides options: KeyValuePairs<String, [String]>) -> ValidationError {
    let given = options.filter { !$0.value.isEmpty }.map(\.key)
    let names = given.joined(separator: " and ")
    let advice = given.isEmpty ? "" : ": put it before \(names), which take\(given.count == 1 ? "s" : "") all names that follow"
    return ValidationError("Missing expected argument '\(argument)'\(advice)")
}

/// Writes a line to standard error.
public func printDiagnostic(_ line: String) { writeDiagnostic(printable(line) + "\n") }

/// Writes to standard error; errors of writing are ignored.
func writeDiagnostic(_ text: String) { try? FileHandle.standardError.write(contentsOf: Data(text.utf8)) }

/// The option that all tools share.
public struct QuietOptions: ParsableArguments {
    @Flag(name: .long, help: "No progress on standard error.")
    public var quiet = false

    public init() {}
}

/// Options that all tools share which run models.
public struct CommonOptions: ParsableArguments {
    @OptionGroup private var progress: QuietOptions

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Threads to work with.", discussion: "Default: all processors.", valueName: "n"))
    public var threads: Int?

    public init() {}

    public var quiet: Bool { progress.quiet }

    public func validate() throws { try checkRange("--threads", threads, 1...1024) }
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
        try AtomicFile.checkTarget(path, replacing: force)
        let folder = Support.folder(of: path)
        guard FileManager.default.isWritableFile(atPath: folder) else {
            let isThere = FileManager.default.fileExists(atPath: folder)
            throw TripsError(.cannotCreate, isThere ? "its folder cannot be written to" : "its folder does not exist", at: path)
        }
        for input in inputs { try AtomicFile.checkTarget(path, isNot: input) }
    }

    /// Whether each output is a file of its own, however its path is written.
    public static func areDistinct(_ outputs: [String]) -> Bool {
        Set(outputs.map { URL(fileURLWithPath: $0).standardizedFileURL.path }).count == outputs.count
    }

    /// Writes a text file whole or not at all.
    public func write(_ text: String, to path: String) throws { try write(Array(text.utf8), to: path) }

    /// Writes a file whole or not at all.
    public func write(_ bytes: [UInt8], to path: String) throws {
        try AtomicFile.write(to: path, replacing: force) { try $0.write(bytes) }
    }
}
