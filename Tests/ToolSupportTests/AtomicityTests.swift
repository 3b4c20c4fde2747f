import Foundation
import TestSupport
import Testing

private let model = fixtures + "/sample/albef.onnx"

/// Starts a shell, in which `$0` is the converter, `$1` the model, and `$2` a package to be written.
private func startShell(_ script: String, in folder: TemporaryFolder) throws -> Process {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/bin/sh")
    process.arguments = ["-c", script, toolPath("trips-convert"), model, folder["a.trips"]]
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    return process
}

private func runShell(_ script: String, in folder: TemporaryFolder) throws -> Int32 {
    let process = try startShell(script, in: folder)
    process.waitUntilExit()
    return process.terminationStatus
}

/// The script in a small file system of its own.
private func inSmallFileSystem(_ script: String) -> String {
    let mount = #"mount -t tmpfs -o size=64k tmpfs "$(dirname "$2")""#
    return "unshare -rm sh -c '\(mount) && { \(script); }' \"$0\" \"$1\" \"$2\""
}

extension Trait where Self == ConditionTrait {
    fileprivate static var needsSmallFileSystem: Self {
        .enabled("no file system of a given size can be mounted here") {
            try runShell(inSmallFileSystem("true"), in: TemporaryFolder()) == 0
        }
    }
}

/// What becomes of the output where writing fails or the process ends. The tool is run by a shell, which sets the limits.
@Suite(.needsTools) struct AtomicityTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private func status(of script: String) throws -> Int32 { try runShell(script, in: folder) }

    private func package() throws -> Data { try Data(contentsOf: URL(fileURLWithPath: folder["a.trips"])) }

    @Test func aFileThatCannotGrowLeavesNothing() throws {
        #expect(try status(of: #"ulimit -f 16; exec "$0" "$1" -o "$2" --quiet"#) == 74)
        #expect(folder.contents.isEmpty)
    }

    /// OpenBLAS would wait for memory that is never there.
    @Test func littleAddressSpaceIsEnoughForASmallModel() throws {
        #expect(try status(of: #"unset OPENBLAS_NUM_THREADS; ulimit -v 230000; exec "$0" "$1" -o "$2" --quiet"#) == 0)
    }

    /// The name would be repaired to that of another file.
    @Test func namesThatAreNoTextAreRefused() throws {
        #expect(try status(of: #"exec "$0" "$1" -o "$(dirname "$2")/$(printf '\377')" --quiet"#) == 64)
        #expect(folder.contents.isEmpty)
    }

    @Test(.needsProgram("script")) func theBarIsGoneBeforeAnErrorIsTold() throws {
        let limited = #"ulimit -f 200; exec "$tool" "$model" -o a.trips"#
        #expect(try status(of: #"cd "$(dirname "$2")"; export tool="$0" model="$1"; script -qec '\#(limited)' said"#) == 74)
        #expect(try String(contentsOfFile: folder["said"], encoding: .utf8).contains("\r\u{1B}[2Ktrips-convert: error: "))
    }

    @Test(.needsSmallFileSystem) func aFullDiskLeavesTheOldFile() throws {
        let script =
            #"echo old > "$2"; "$0" "$1" -o "$2" --force --quiet; s=$?; [ "$(ls -A "$(dirname "$2")")" = a.trips ] || exit 1; "#
            + #"[ "$(cat "$2")" = old ] || exit 2; exit $s"#
        #expect(try status(of: inSmallFileSystem(script)) == 74)
    }

    @Test func foldersThatTakeNoFilesAreRefused() throws {
        #expect(try status(of: #"exec "$0" "$1" -o /proc/a.trips --quiet"#) == 73)
    }

    @Test(.needsOrdinaryUser) func foldersThatMayNotBeWrittenToAreRefused() throws {
        #expect(
            try status(of: #"chmod 555 "$(dirname "$2")"; "$0" "$1" -o "$2" --quiet; s=$?; chmod 755 "$(dirname "$2")"; exit $s"#)
                == 73)
        #expect(folder.contents.isEmpty)
    }

    /// Kills conversions over an existing package at moments spread over all that one takes.
    @Test func aKilledProcessLeavesOneWholeFile() throws {
        let (first, second) = (#"exec "$0" "$1" -o "$2" --force --quiet"#, #"exec "$0" "$1" -o "$2" --force --quiet --select 2,5"#)
        #expect(try status(of: first) == 0)
        let old = try package()
        let started = ContinuousClock.now
        #expect(try status(of: second) == 0)
        let (new, duration) = (try package(), started.duration(to: .now))
        #expect(old != new)
        let moments = 24
        for moment in 0..<moments {
            try folder.write(old, "a.trips")
            let process = try startShell(second, in: folder)
            Thread.sleep(forTimeInterval: Double(moment) / Double(moments) * (duration / .seconds(1)))
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
            let found = try package()
            #expect(found == old || found == new, "killed at moment \(moment)")
            // Only between two system calls has the new file a hidden name beside the old one.
            let others = folder.contents.filter { $0 != "a.trips" }
            #expect(others.count <= moment + 1 && others.allSatisfy { $0.hasPrefix(".trips-") }, "\(others)")
        }
        // What a killed process left is not taken for anything.
        try folder.write([1], ".trips-1")
        #expect(try status(of: second) == 0)
        #expect(try package() == new && folder.contents.contains(".trips-1"))
    }
}
