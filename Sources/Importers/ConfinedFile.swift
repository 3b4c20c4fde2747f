import Foundation
import Support

/// Opens the file `name` of the folder at `folder`, where `name` is taken from a file that came from outside.
///
/// Only a plain name of a regular file that lies in that folder, symbolic links followed, is taken.
/// - Throws: `data` where the name leads out of the folder, `cannotOpen` where there is no such regular file.
func openConfined(_ name: String, in folder: String) throws -> ReadableFile {
    let isPlain =
        !name.isEmpty && name != "." && name != ".."
        && name.utf8.allSatisfy { $0 != 0 && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "\\") }
    guard isPlain else {
        throw TripsError.data(
            "a file name that leads elsewhere", found: "\"\(name.prefix(200))\"", expected: "the name of a file in the same folder")
    }
    return try ReadableFile(path: confinedPath(name, in: folder))
}

/// The path, symbolic links followed, of what lies at `name` below the folder at `folder`.
/// - Throws: `data` where links lead out of the folder, `cannotOpen` where there is nothing.
func confinedPath(_ name: String, in folder: String) throws -> String {
    let (target, root) = (try resolved(folder + "/" + name), try resolved(folder))
    guard target.hasPrefix(root == "/" ? root : root + "/") else {
        throw TripsError.data("a symbolic link that leaves the folder", at: name, found: target, expected: "within \(root)")
    }
    return target
}

private func resolved(_ path: String) throws -> String {
    guard let resolved = realpath(path, nil) else {
        throw TripsError(.cannotOpen, "cannot be opened: \(String(cString: strerror(errno)))", at: path)
    }
    defer { free(resolved) }
    return String(cString: resolved)
}
