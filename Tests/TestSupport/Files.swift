import Foundation
import Testing

/// The package's folder.
package let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path
package let fixtures = root + "/Tests/Fixtures"

/// The material beside the package, which a clone may lack; the environment variable TRIPS_SHARED names another folder.
package let sharedFolder = ProcessInfo.processInfo.environment["TRIPS_SHARED"] ?? root + "/../shared"
package let conformanceFolder = sharedFolder + "/conformance"

extension Trait where Self == ConditionTrait {
    /// For what reads the shared material; skipped where there is none.
    package static var needsSharedFolder: Self {
        .enabled(
            if: FileManager.default.fileExists(atPath: conformanceFolder),
            "there is no shared material at \(sharedFolder)")
    }

    /// For what runs another program; skipped where that is not installed.
    package static func needsProgram(_ name: String) -> Self {
        let folders = ProcessInfo.processInfo.environment["PATH"]?.split(separator: ":") ?? []
        return .enabled(
            if: folders.contains { FileManager.default.isExecutableFile(atPath: "\($0)/\(name)") }, "\(name) is not installed")
    }

    /// For what must not be allowed to write to a folder; skipped for root, who is.
    package static var needsOrdinaryUser: Self { .enabled(if: geteuid() != 0, "root may write to any folder") }
}

/// A folder that is removed when the last reference goes.
package final class TemporaryFolder {
    package let path = FileManager.default.temporaryDirectory.appendingPathComponent("trips-\(UUID().uuidString)").path

    package init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// The path of a file in the folder.
    package subscript(_ name: String) -> String { "\(path)/\(name)" }

    /// The names of all files in the folder, sorted.
    package var contents: [String] { (try? FileManager.default.contentsOfDirectory(atPath: path))?.sorted() ?? [] }

    /// Writes a file, and returns its path.
    @discardableResult package func write(_ bytes: some Sequence<UInt8>, _ name: String) throws -> String {
        try Data(bytes).write(to: URL(fileURLWithPath: self[name]))
        return self[name]
    }
}
