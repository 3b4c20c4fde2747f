import Foundation

/// A progress bar on standard error, drawn only where that is a terminal.
public final class Progress {
    private let label: String
    private let isShown: Bool
    private var lastDrawn: ContinuousClock.Instant?
    private let clock = ContinuousClock()

    private init(_ label: String, quiet: Bool) {
        self.label = label
        isShown = !quiet && isatty(2) == 1
    }

    /// Shows a bar while `body` works; it is gone before an error is printed.
    public static func shown<Result>(_ label: String, quiet: Bool, while body: (Progress) throws -> Result) rethrows -> Result {
        let progress = Progress(label, quiet: quiet)
        defer { progress.end() }
        return try body(progress)
    }

    /// Draws the bar, at most ten times a second.
    public func update(_ done: Int, of total: Int) {
        guard isShown, total > 0 else { return }
        let now = clock.now
        if let lastDrawn, done < total, lastDrawn.duration(to: now) < .milliseconds(100) { return }
        lastDrawn = now
        let width = 30
        let filled = min(width, max(0, Int(Double(done) / Double(total) * Double(width))))
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
        writeDiagnostic("\r\(label) \(bar) \(Int(Double(done) / Double(total) * 100)) %")
    }

    private func end() {
        if lastDrawn != nil { writeDiagnostic("\r\u{1B}[2K") }
    }
}
