import Foundation

/// A file that appears under its name whole, or not at all.
///
/// It is written without a name in the target's folder, so that a process that is killed leaves nothing behind;
/// where the file system cannot do that, under a hidden name. `commit()` syncs it and gives it its name.
package final class AtomicFile {
    package let path: String
    /// Bytes written so far.
    package private(set) var size = 0
    private let folder: String
    private let replacing: Bool
    private var descriptor: Int32
    /// The name under which it is in the folder before it gets its own; nil while it has none.
    private var temporaryPath: String?

    /// Linux's O_TMPFILE, a macro that Swift does not see.
    private let unnamed: Int32 = 0o20000000 | O_DIRECTORY

    /// Creates the file, still unseen.
    /// - Parameter replacing: whether a file that is already there may be replaced.
    /// - Throws: `cannotCreate` where something is there already, or the folder cannot be written to.
    package convenience init(path: String, replacing: Bool = false) throws {
        try self.init(path: path, replacing: replacing, nameless: true)
    }

    /// - Parameter nameless: false writes under a hidden name from the start, as on file systems that have no other way.
    package init(path: String, replacing: Bool, nameless: Bool) throws {
        self.path = path
        self.replacing = replacing
        folder = Support.folder(of: path)
        try AtomicFile.checkTarget(path, replacing: replacing)
        descriptor = nameless ? open(folder, unnamed | O_WRONLY | O_CLOEXEC, 0o666) : -1
        if descriptor < 0 && (!nameless || [EOPNOTSUPP, EISDIR, EINVAL].contains(errno)) {
            let hidden = AtomicFile.hiddenPath(for: path)
            descriptor = open(hidden, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0o666)
            if descriptor >= 0 { temporaryPath = hidden }
        }
        guard descriptor >= 0 else { throw AtomicFile.error(.cannotCreate, "cannot be created", path) }
    }

    deinit { discard() }

    /// Appends bytes.
    /// - Throws: `inputOutput`, for example where the disk is full.
    package func write(_ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes
        while let base = rest.baseAddress, rest.count > 0 {
            let count = Foundation.write(descriptor, base, rest.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw AtomicFile.error(.inputOutput, "writing failed", path)
            }
            size += count
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }

    /// Appends bytes.
    /// - Throws: `inputOutput`, for example where the disk is full.
    package func write(_ bytes: [UInt8]) throws { try bytes.withUnsafeBytes { try write($0) } }

    /// Brings the bytes to the disk and gives the file its name. Nothing can be written afterwards.
    /// - Throws: `inputOutput`; `cannotCreate` where something has taken the name meanwhile.
    package func commit() throws {
        defer { discard() }
        guard fsync(descriptor) == 0 else { throw AtomicFile.error(.inputOutput, "writing failed", path) }
        if temporaryPath == nil && !replacing {
            // Unlike rename, link leaves alone what another process has put there meanwhile.
            try link(to: path)
        } else {
            let hidden = try temporaryName()
            if !replacing { try claimName() }
            guard rename(hidden, path) == 0 else {
                let failure = AtomicFile.error(.cannotCreate, "cannot be created", path)
                if !replacing { unlink(path) }
                throw failure
            }
            temporaryPath = nil
        }
        let folderDescriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folderDescriptor >= 0 else { return }
        fsync(folderDescriptor)
        close(folderDescriptor)
    }

    private func temporaryName() throws -> String {
        if let temporaryPath { return temporaryPath }
        let hidden = AtomicFile.hiddenPath(for: path)
        try link(to: hidden)
        temporaryPath = hidden
        return hidden
    }

    private func link(to name: String) throws {
        guard linkat(AT_FDCWD, "/proc/self/fd/\(descriptor)", AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0 else {
            throw AtomicFile.error(.cannotCreate, "cannot be created", path)
        }
    }

    /// Takes the name, for a file system that may have no links, such as FAT.
    private func claimName() throws {
        let claim = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0o666)
        guard claim >= 0 else { throw AtomicFile.error(.cannotCreate, "cannot be created", path) }
        close(claim)
    }

    private func discard() {
        if let temporaryPath { unlink(temporaryPath) }
        temporaryPath = nil
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
    }

    /// Finds out whether a file of this name could be written.
    /// - Throws: `cannotCreate` where something is there that may not be replaced: anything but a regular file never may,
    ///   nor may a link that leads to it. Also where no file can have this name.
    package static func checkTarget(_ path: String, replacing: Bool) throws {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            guard errno == ENOENT, !path.isEmpty, !path.hasSuffix("/") else {
                throw error(.cannotCreate, "cannot be created", path)
            }
            return
        }
        let isDangling = stat(path, &status) != 0
        guard isDangling || status.st_mode & S_IFMT == S_IFREG else {
            throw TripsError(.cannotCreate, "cannot be replaced: not a regular file", at: path)
        }
        guard replacing else {
            throw TripsError(.cannotCreate, "exists already", at: path, expected: "another name, or `replacing`")
        }
    }

    /// Keeps a file from being replaced by what is made of it.
    /// - Throws: `usage` where both names lead to one file.
    package static func checkTarget(_ path: String, isNot source: String) throws {
        var (target, input) = (stat(), stat())
        guard stat(path, &target) == 0, stat(source, &input) == 0 else { return }
        guard (target.st_dev, target.st_ino) != (input.st_dev, input.st_ino) else {
            throw TripsError.usage("the output would replace the input", at: path, expected: "another name")
        }
    }

    private static func hiddenPath(for path: String) -> String {
        Support.folder(of: path) + "/.trips-\(UInt64.random(in: 0...UInt64.max))"
    }

    private static func error(_ kind: TripsError.Kind, _ message: String, _ path: String) -> TripsError {
        TripsError(kind, "\(message): \(String(cString: strerror(errno)))", at: path)
    }
}

extension AtomicFile {
    /// Writes a whole file: what `body` writes appears under the name when it returns, and nothing where it throws.
    /// - Throws: as `init`, `write` and `commit`, and what `body` throws.
    package static func write(to path: String, replacing: Bool = false, _ body: (AtomicFile) throws -> Void) throws {
        let file = try AtomicFile(path: path, replacing: replacing)
        try body(file)
        try file.commit()
    }
}
