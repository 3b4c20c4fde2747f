// `stdout` is a variable of C, which Swift lets be read only so; nothing ever assigns to it.
@preconcurrency import Glibc
import Support

/// Flushes what was printed; `print` itself does not say whether writing succeeds.
/// - Throws: `inputOutput`.
func flushOutput() throws {
    guard fflush(stdout) == 0, ferror(stdout) == 0 else {
        throw TripsError(.inputOutput, "writing failed: \(String(cString: strerror(errno)))", at: "standard output")
    }
}

/// Prints lines for people, without what names in files may hold for a terminal.
public func printText(_ text: String) { print(printable(text)) }
