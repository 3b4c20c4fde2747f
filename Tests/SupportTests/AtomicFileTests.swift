import Foundation
import Support
import TestSupport
import Testing

@Suite struct AtomicFileTests {
    private let folder: TemporaryFolder
    private var target: String { folder["a"] }

    init() throws { folder = try TemporaryFolder() }

    private func kind(_ body: () throws -> Void) -> TripsError.Kind? {
        do { try body() } catch { return (error as? TripsError)?.kind }
        return nil
    }

    @Test(arguments: [true, false]) func appearsWholeWhenCommitted(nameless: Bool) throws {
        let file = try AtomicFile(path: target, replacing: false, nameless: nameless)
        try file.write([1, 2])
        try file.write([3])
        #expect(file.size == 3 && !FileManager.default.fileExists(atPath: target))
        try file.commit()
        #expect(try Data(contentsOf: URL(fileURLWithPath: target)) == Data([1, 2, 3]))
        #expect(folder.contents == ["a"])
    }

    @Test func nothingStaysWhereWritingFails() throws {
        let kind = kind {
            try AtomicFile.write(to: target) { file in
                try file.write([1])
                throw TripsError.data("a reason")
            }
        }
        #expect(kind == .data && folder.contents.isEmpty)
    }

    @Test func replacesOnlyWhenAskedTo() throws {
        try AtomicFile.write(to: target) { try $0.write([1]) }
        #expect(kind { try AtomicFile.write(to: target) { try $0.write([2]) } } == .cannotCreate)
        #expect(try Data(contentsOf: URL(fileURLWithPath: target)) == Data([1]))
        try AtomicFile.write(to: target, replacing: true) { try $0.write([2]) }
        #expect(try Data(contentsOf: URL(fileURLWithPath: target)) == Data([2]))
        #expect(folder.contents == ["a"])
    }

    @Test(arguments: [true, false]) func leavesAloneWhatAppearsMeanwhile(nameless: Bool) throws {
        let kind = kind {
            let file = try AtomicFile(path: target, replacing: false, nameless: nameless)
            try file.write([1])
            try folder.write([9], "a")
            try file.commit()
        }
        #expect(kind == .cannotCreate && folder.contents == ["a"])
        #expect(try Data(contentsOf: URL(fileURLWithPath: target)) == Data([9]))
    }

    @Test func theOldFileIsWholeUntilTheNewOneIs() throws {
        try AtomicFile.write(to: target) { try $0.write([1]) }
        _ = kind {
            try AtomicFile.write(to: target, replacing: true) {
                try $0.write([UInt8](repeating: 2, count: 1 << 20))
                #expect(try Data(contentsOf: URL(fileURLWithPath: target)) == Data([1]))
                throw TripsError.data("killed")
            }
        }
        #expect(try Data(contentsOf: URL(fileURLWithPath: target)) == Data([1]))
        #expect(folder.contents == ["a"])
    }

    @Test func linksToAnythingButARegularFileAreLeftAlone() throws {
        #expect(mkfifo(folder["pipe"], 0o600) == 0)
        try FileManager.default.createSymbolicLink(atPath: target, withDestinationPath: "pipe")
        #expect(kind { try AtomicFile.write(to: target, replacing: true) { try $0.write([1]) } } == .cannotCreate)
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: target) == "pipe")
        try folder.write([9], "b")
        for (link, destination) in [("c", "b"), ("d", "nowhere")] {
            try FileManager.default.createSymbolicLink(atPath: folder[link], withDestinationPath: destination)
            try AtomicFile.write(to: folder[link], replacing: true) { try $0.write([1]) }
            #expect(try Data(contentsOf: URL(fileURLWithPath: folder[link])) == Data([1]))
        }
        #expect(try Data(contentsOf: URL(fileURLWithPath: folder["b"])) == Data([9]))
    }

    @Test func oneFileUnderTwoNamesIsRecognised() throws {
        for name in ["a", "b"] { try folder.write([1], name) }
        try FileManager.default.createSymbolicLink(atPath: folder["link"], withDestinationPath: "a")
        try FileManager.default.linkItem(atPath: target, toPath: folder["hard"])
        for name in ["a", "./a", "link", "hard"] {
            #expect(kind { try AtomicFile.checkTarget(folder[name], isNot: target) } == .usage, "\(name)")
        }
        for name in ["b", "absent"] {
            #expect(kind { try AtomicFile.checkTarget(folder[name], isNot: target) } == nil, "\(name)")
        }
    }

    @Test func foldersThatCannotTakeItAreRefused() throws {
        #expect(mkfifo(folder["pipe"], 0o600) == 0)
        for path in [folder["absent/a"], "/proc/a", folder["pipe"], folder.path] {
            #expect(kind { try AtomicFile.write(to: path, replacing: true) { try $0.write([1]) } } == .cannotCreate, "\(path)")
        }
        // Before the work, not behind it.
        for path in ["", folder["absent/"], folder[String(repeating: "n", count: 300)]] {
            #expect(kind { try AtomicFile.checkTarget(path, replacing: false) } == .cannotCreate, "\(path)")
        }
    }

    @Test(.needsOrdinaryUser) func foldersThatMayNotBeWrittenToAreRefused() throws {
        chmod(folder.path, 0o500)
        #expect(kind { try AtomicFile.write(to: target) { try $0.write([1]) } } == .cannotCreate)
        chmod(folder.path, 0o700)
    }
}
