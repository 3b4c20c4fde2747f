import Foundation

/// The folder in which `path` lies, "." where it names none.
///
/// Foundation's `deletingLastPathComponent` traps on names of one character.
package func folder(of path: String) -> String {
    var bytes = Array(path.utf8CString)
    return String(cString: dirname(&bytes))
}
