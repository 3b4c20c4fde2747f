import Foundation
import TestSupport
import Testing

private let model = fixtures + "/sample/albef.onnx"

/// What becomes of the output where writing fails or the process ends. The tool is run by a shell, which sets the limits.
@Suite struct AtomicityTests {
    private let scratch: TemporaryFolder
    private let converter = toolFolder.appendingPathComponent("trips-convert").path

    init() throws { scratch = try TemporaryFolder() }

    private var folder: String { scratch.path }

    private var contents: [String] { (try? FileManager.default.contentsOfDirectory(atPath: folder))?.sorted() ?? [] }

    /// Starts a shell, in which `$0` is the converter, `$1` the model, and `$2` a package to be written.
    private func start(_ script: String) throws -> Process? {
        guard FileManager.default.isExecutableFile(atPath: converter) else {
            print("skipped: trips-convert is not built")
            return nil
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", script, converter, model, folder + "/a.trips"]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        return process
    }

    private func status(of script: String) throws -> Int32? {
        guard let process = try start(script) else { return nil }
        process.waitUntilExit()
        return process.terminationStatus
    }

    private func package() throws -> Data { try Data(contentsOf: URL(fileURLWithPath: folder + "/a.trips")) }

    @Test func aFileThatCannotGrowLeavesNothing() throws {
        // Without the signal, writing past the limit is an error, as on a disk that is full.
        guard let status = try status(of: #"trap "" XFSZ; ulimit -f 16; exec "$0" "$1" -o "$2" --quiet"#) else { return }
        #expect(status == 74 && contents.isEmpty)
    }

    @Test func theBarIsGoneBeforeAnErrorIsTold() throws {
        guard try status(of: "command -v script") == 0 else { return print("skipped: nothing here makes a terminal") }
        let limited = #"trap "" XFSZ; ulimit -f 200; exec "$tool" "$model" -o a.trips"#
        #expect(try status(of: #"cd "$(dirname "$2")"; export tool="$0" model="$1"; script -qec '\#(limited)' said"#) == 74)
        #expect(try String(contentsOfFile: folder + "/said", encoding: .utf8).contains("\r\u{1B}[2Ktrips-convert: error: "))
    }

    @Test func aFullDiskLeavesTheOldFile() throws {
        let mount = #"mount -t tmpfs -o size=64k tmpfs "$(dirname "$2")""#
        guard try status(of: "unshare -rm sh -c '\(mount)' \"$0\" \"$1\" \"$2\"") == 0 else {
            return print("skipped: no file system of a given size can be mounted here")
        }
        let script =
            #"echo old > "$2"; "$0" "$1" -o "$2" --force --quiet; s=$?; [ "$(ls -A "$(dirname "$2")")" = a.trips ] || exit 1; "#
            + #"[ "$(cat "$2")" = old ] || exit 2; exit $s"#
        #expect(try status(of: "unshare -rm sh -c '\(mount) && { \(script); }' \"$0\" \"$1\" \"$2\"") == 74)
    }

    @Test func aFolderThatCannotBeWrittenTo() throws {
        guard let inProc = try status(of: #"exec "$0" "$1" -o /proc/a.trips --quiet"#) else { return }
        #expect(inProc == 73)
        guard geteuid() != 0 else { return print("skipped: root may write to any folder") }
        #expect(
            try status(of: #"chmod 555 "$(dirname "$2")"; "$0" "$1" -o "$2" --quiet; s=$?; chmod 755 "$(dirname "$2")"; exit $s"#)
                == 73)
        #expect(contents.isEmpty)
    }

    /// Kills conversions over an existing package at moments spread over all that one takes.
    @Test func aKilledProcessLeavesOneWholeFile() throws {
        let (first, second) = (#"exec "$0" "$1" -o "$2" --force --quiet"#, #"exec "$0" "$1" -o "$2" --force --quiet --select 2,5"#)
        guard try status(of: first) == 0 else { return }
        let old = try package()
        let started = ContinuousClock.now
        #expect(try status(of: second) == 0)
        let (new, duration) = (try package(), started.duration(to: .now))
        #expect(old != new)
        let moments = 24
        for moment in 0..<moments {
            try old.write(to: URL(fileURLWithPath: folder + "/a.trips"))
            guard let process = try start(second) else { return }
            Thread.sleep(forTimeInterval: Double(moment) / Double(moments) * (duration / .seconds(1)))
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
            let found = try package()
            #expect(found == old || found == new, "killed at moment \(moment)")
            // Only between two system calls has the new file a hidden name beside the old one.
            let others = contents.filter { $0 != "a.trips" }
            #expect(others.count <= moment + 1 && others.allSatisfy { $0.hasPrefix(".trips-") }, "\(others)")
        }
        // What a killed process left is not taken for anything.
        try Data([1]).write(to: URL(fileURLWithPath: folder + "/.trips-1"))
        #expect(try status(of: second) == 0)
        #expect(try package() == new && contents.contains(".trips-1"))
    }
}
