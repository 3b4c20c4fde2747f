import Foundation
import TestSupport
import Testing

let tools = ["trips-convert", "trips-quantize", "trips-verify", "trips-inspect", "trips-bench", "trips-run"]

/// Where the build puts tools and tests alike.
private let toolFolder: String = {
    let products = Bundle.main.executableURL?.deletingLastPathComponent().path ?? ""
    return "\(root)/.build/\(["release", "debug"].first(where: products.contains) ?? "debug")"
}()

func toolPath(_ name: String) -> String { "\(toolFolder)/\(name)" }

extension Trait where Self == ConditionTrait {
    /// For what runs the tools; skipped where they are not built, unless TRIPS_REQUIRE_TOOLS is set.
    static var needsTools: Self {
        .enabled(
            if: ProcessInfo.processInfo.environment["TRIPS_REQUIRE_TOOLS"] != nil
                || tools.allSatisfy { FileManager.default.isExecutableFile(atPath: toolPath($0)) },
            "the tools are not built in \(toolFolder)")
    }
}

struct Outcome {
    let status: Int32
    let output: String
    let errors: String
}

/// Runs a tool that was built beside the tests, or the program at an absolute path.
func run(_ tool: String, _ arguments: [String], in folder: String? = nil) throws -> Outcome {
    let path = tool.hasPrefix("/") ? tool : toolPath(tool)
    try #require(FileManager.default.isExecutableFile(atPath: path), "\(path) is not built")
    let process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    if let folder { process.currentDirectoryURL = URL(fileURLWithPath: folder) }
    let texts = try TemporaryFolder()
    let files = try ["out", "err"].map { try texts.write([], $0) }
    process.standardOutput = FileHandle(forWritingAtPath: files[0])
    process.standardError = FileHandle(forWritingAtPath: files[1])
    try process.run()
    process.waitUntilExit()
    #expect(process.terminationReason == .exit, "\(tool) \(arguments) crashed")
    return try withExtendedLifetime(texts) {
        let text = try files.map { try String(contentsOfFile: $0, encoding: .utf8) }
        return Outcome(status: process.terminationStatus, output: text[0], errors: text[1])
    }
}
