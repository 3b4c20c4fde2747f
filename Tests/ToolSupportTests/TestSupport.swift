import Foundation

/// The package's folder.
let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path
let fixtures = root + "/Tests/Fixtures"

/// A folder that is removed when the last reference goes.
final class Scratch {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("trips-\(UUID().uuidString)").path
    init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(atPath: path) }
}
