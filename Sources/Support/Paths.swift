import Foundation

// Foundation's deletingLastPathComponent traps on names of one character, its lastPathComponent on some of them after "//".

/// The folder in which `path` lies, "." where it names none.
package func folder(of path: String) -> String {
    var bytes = Array(path.utf8CString)
    return String(cString: dirname(&bytes))
}

/// The name of a file or folder without the folders around it.
package func fileName(of path: String) -> String {
    // Bytes, as a mark that combines with a slash makes another character of it.
    path.utf8.split(separator: UInt8(ascii: "/")).last.map { String(Substring($0)) } ?? path
}
