// `stdout` is a variable of C, which Swift lets be read only so; nothing ever assigns to it.
@preconcurrency import Glibc
import Support

/// Brings what was printed to its reader; `print` itself does not tell whether that succeeds.
/// - Throws: `inputOutput`.
func flushOutput() throws {
    guard fflush(stdout) == 0, ferror(stdout) == 0 else {
        throw TripsError(.inputOutput, "writing failed: \(String(cString: strerror(errno)))", at: "standard output")
    }
}
