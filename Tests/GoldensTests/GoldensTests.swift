import Foundation
import Goldens
import Support
import Tensors
import TestSupport
import Testing

/// An array file as NumPy writes it.
private func npy(_ type: String, fortran: Bool = false, _ shape: String, _ payload: [UInt8], version: UInt8 = 1) -> [UInt8] {
    var header = Array("{'descr': '\(type)', 'fortran_order': \(fortran ? "True" : "False"), 'shape': \(shape), }".utf8)
    let prefix = version == 1 ? 10 : 12
    header += [UInt8](repeating: 0x20, count: (63 - (prefix + header.count) % 64) % 64) + [0x0A]
    let length = withUnsafeBytes(of: UInt32(header.count).littleEndian) { Array($0) }.prefix(version == 1 ? 2 : 4)
    return [0x93] + Array("NUMPY".utf8) + [version, 0] + length + header + payload
}

private func bytes<Element>(_ elements: [Element]) -> [UInt8] { elements.withUnsafeBytes { Array($0) } }

@Test(arguments: [1, 2, 3] as [UInt8]) func numpyArraysOfEveryVersionAreRead(version: UInt8) throws {
    let tensor = try readNPY(npy("<f4", "(2, 3)", bytes([1, 2, 3, 4, 5, 6] as [Float]), version: version))
    #expect(tensor.shape == [2, 3])
    #expect(try tensor.elements(Float.self) == [1, 2, 3, 4, 5, 6])
}

@Test func numpyFortranOrderIsTurned() throws {
    // [[1, 2, 3], [4, 5, 6]] by columns.
    let tensor = try readNPY(npy("<i4", fortran: true, "(2, 3)", bytes([1, 4, 2, 5, 3, 6] as [Int32])))
    #expect(tensor.shape == [2, 3])
    #expect(try tensor.elements(Int32.self) == [1, 2, 3, 4, 5, 6])
    let cube = try readNPY(npy("|u1", fortran: true, "(2, 1, 2)", [0, 1, 2, 3]))
    #expect(try cube.elements(UInt8.self) == [0, 2, 1, 3])
}

@Test func numpyBigEndianScalarsAndEmptyArraysAreRead() throws {
    #expect(try readNPY(npy(">i8", "()", [0, 0, 0, 0, 0, 0, 1, 2])).elements(Int64.self) == [258])
    let empty = try readNPY(npy("<f8", "(0, 7)", []))
    #expect(empty.shape == [0, 7] && empty.count == 0)
    #expect(try readNPY(npy("|b1", "(3,)", [0, 1, 7])).elements(Bool.self) == [false, true, true])
}

@Test(arguments: [
    ("<f4", "(2, 3)", 20), ("<f4", "(2, 3)", 28), ("|O", "(1,)", 8), ("<c8", "(1,)", 8), ("<f4", "(9223372036854775807, 3)", 4),
    ("<f4", "(-1,)", 4), ("<f4", "(99999999999999999999,)", 4), ("<f4", "(1.5,)", 4), ("<f4", "1", 4), ("f4", "(1,)", 4),
    ("!f4", "(1,)", 4),
    ("|u1", "(" + String(repeating: "1,", count: 33) + ")", 1),
]) func numpyHostileHeadersAreRefused(type: String, shape: String, count: Int) throws {
    #expect(throws: TripsError.self) { try readNPY(npy(type, shape, [UInt8](repeating: 0, count: count))) }
}

@Test func numpyTruncationAtEveryByteIsRefused() throws {
    let whole = npy("<f4", "(2,)", bytes([1, 2] as [Float]))
    for count in 0..<whole.count {
        #expect(throws: TripsError.self) { try readNPY(Array(whole.prefix(count))) }
    }
}

@Test func numpyHeadersAreWhatTheySay() throws {
    func refuses(_ text: String, _ bytes: [UInt8]) {
        #expect { try readNPY(bytes) } throws: { ($0 as? TripsError)?.kind == .data && "\($0)".contains(text) }
    }
    let whole = npy("<f4", "(2,)", bytes([1, 2] as [Float]))
    refuses("no NumPy array", [0x94] + whole.dropFirst())
    refuses("format version", Array(whole.prefix(6)) + [4] + whole.dropFirst(7))
    refuses("ends too early", Array(whole.prefix(6)) + [2, 0, 1, 0])
    refuses("header length", npy("<f4", "(2," + String(repeating: " ", count: 70_000) + ")", bytes([1, 2] as [Float]), version: 2))
    refuses("the end of the header", npy("<f4", "(2,)}{", bytes([1, 2] as [Float])))
}

@Test func testDataIsNamedByItselfThenByPosition() throws {
    let tensor = try Tensor([1] as [Float], shape: [1])
    let named = try assign([("b", 0, tensor), ("", 1, tensor), ("z", 7, tensor)], to: ["a", "c", "b"], in: "set")
    #expect(Set(named.keys) == ["b", "c", "z"])
    #expect(throws: TripsError.self) { try assign([("a", 0, tensor), ("a", 1, tensor)], to: ["a"], in: "set") }
}

@Test func missingGoldensCannotBeOpened() throws {
    #expect { try GoldenReference.references(at: "/nonexistent/golden.npz") } throws: { ($0 as? TripsError)?.kind == .cannotOpen }
    let folder = try TemporaryFolder()
    #expect { try GoldenReference.references(at: folder.path) } throws: { ($0 as? TripsError)?.kind == .cannotOpen }
}

@Test func testDataFoldersAreFoundInNumericOrder() throws {
    let folder = try TemporaryFolder()
    for number in [10, 2, 0] {
        try FileManager.default.createDirectory(atPath: folder["test_data_set_\(number)"], withIntermediateDirectories: true)
    }
    #expect(
        try GoldenReference.references(at: folder.path).map(\.name) == ["test_data_set_0", "test_data_set_2", "test_data_set_10"])
    let strangers = ["input_0.txt", "input_0_1.pb", "inner_0.pb", "input_-1.pb", "input_x.pb"]
    for name in strangers { try folder.write([1], "test_data_set_2/\(name)") }
    #expect(throws: TripsError.self) { try GoldenReference.references(at: folder["test_data_set_2"]) }
    try folder.write([], "test_data_set_2/input_0.pb")
    #expect(try GoldenReference.references(at: folder["test_data_set_2"]).map(\.name) == ["test_data_set_2"])
}

/// A zip archive with one entry whose deflated bytes are no more than stated.
private func archive(_ name: String, inflatesTo size: Int) -> [UInt8] {
    func field(_ value: Int, _ width: Int) -> [UInt8] { (0..<width).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
    let stored = [UInt8](repeating: 0, count: size / 1000)
    let common =
        field(20, 2) + field(0, 2) + field(8, 2) + field(0, 4) + field(0, 4) + field(stored.count, 4) + field(size, 4)
        + field(name.utf8.count, 2) + field(0, 2)
    let local = field(0x0403_4B50, 4) + common + Array(name.utf8) + stored
    let directory =
        field(0x0201_4B50, 4) + field(20, 2) + common + field(0, 2 + 2 + 2) + field(0, 4) + field(0, 4) + Array(name.utf8)
    return local + directory + field(0x0605_4B50, 4) + field(0, 4) + field(1, 2) + field(1, 2) + field(directory.count, 4)
        + field(local.count, 4) + field(0, 2)
}

@Test func archivesAreInflatedInProportionAndOnlyWhereNeeded() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write(archive("in.image.npy", inflatesTo: 40_000_000), "golden.npz")
    let reference = try GoldenReference.references(at: path)[0]
    #expect { try reference.load() } throws: { error in
        (error as? TripsError)?.kind == .data && "\(error)".contains("out of proportion") && "\(error)".contains("in.image.npy")
    }
    let set = try reference.load { _ in false }
    #expect(set.inputs.isEmpty && set.unread == [.input("image")])
}

/// Of two arrays each may inflate as far as it does, but not both.
@Test func arraysTogetherAreInflatedInProportion() throws {
    let reference = try GoldenReference.references(at: fixtures + "/hostile/large-together.npz")[0]
    #expect { try reference.load() } throws: { error in
        (error as? TripsError)?.kind == .data && "\(error)".contains("out of proportion") && "\(error)".contains("out.a.npy")
    }
    for key in [.input("image"), .output("a")] as [GoldenKey] {
        let set = try reference.load { $0 == key }
        #expect(set.inputs.count + set.outputs.count == 1)
    }
}

@Test func candidatesOfAnotherNumberAreNoPartOfAPass() throws {
    let (question, candidates) = (
        try Tensor([1, 2] as [Int64], shape: [1, 2]), try Tensor([Int64](repeating: 1, count: 6), shape: [3, 2])
    )
    let ranking = GoldenSet(name: "set", inputs: ["input_ids": question, "answer_ids": candidates, "answer_mask": candidates])
    #expect(Set(ranking.passInputs.keys) == ["input_ids"])
    let answers = GoldenSet(name: "set", inputs: ["input_ids": question, "answer_ids": question, "answer_mask": question])
    #expect(answers.passInputs.count == 3)
}
