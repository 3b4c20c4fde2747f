import Foundation

/// The package's folder.
package let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path
package let fixtures = root + "/Tests/Fixtures"

/// A folder that is removed when the last reference goes.
package final class Scratch {
    package let path = FileManager.default.temporaryDirectory.appendingPathComponent("trips-\(UUID().uuidString)").path
    package init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(atPath: path) }
}
