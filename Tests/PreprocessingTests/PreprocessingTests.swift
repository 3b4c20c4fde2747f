import Foundation
import Preprocessing
import Support
import Tensors
import TestSupport
import Testing

private let samples = fixtures + "/preprocessing"

/// Tensors of a safetensors file, as bytes; enough of the format for a file of our own.
private func expected() throws -> [String: [UInt8]] {
    let file = try ReadableFile(path: samples + "/expected.safetensors")
    let length = try file.bytes(at: 0, count: 8).reversed().reduce(0) { $0 << 8 | Int($1) }
    let header = try JSON(parsing: file.bytes(at: 8, count: length))
    return try Dictionary(
        uniqueKeysWithValues: (header.members ?? []).compactMap { member in
            guard let offsets = member.value["data_offsets"]?.array?.compactMap(\.integer), offsets.count == 2 else { return nil }
            return (member.key, try file.bytes(at: 8 + length + offsets[0], count: offsets[1] - offsets[0]))
        })
}

private let files = [
    "colour.png", "small.png", "wide.png", "gray.png", "palette.png", "alpha.png", "colour.jpg", "full.jpg", "progressive.jpg",
    "gray.jpg",
    "cmyk.jpg", "ycck.jpg",
]

@Test(arguments: files) func picturesAreResizedAsPillowDoes(name: String) throws {
    let picture = try Picture(path: "\(samples)/\(name)")
    let resized = try picture.resized(width: 24, height: 24, .bicubic)
    #expect(resized.pixels == (try expected()["\(name).resized"]))
}

@Test(arguments: files) func picturesAreNormalisedAsTorchvisionDoes(name: String) throws {
    let input = try Picture(path: "\(samples)/\(name)").modelInput(
        size: 24, mean: [0.48145466, 0.4578275, 0.40821073], deviation: [0.26862954, 0.26130258, 0.27577711], .bicubic)
    #expect(input.shape == [1, 3, 24, 24])
    let bytes = try #require(try expected()["\(name).image"])
    let reference = bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    let worst = zip(try input.elements(Float.self), reference).map { abs($0 - $1) }.max() ?? .infinity
    // Equal bytes go in; only the order of three roundings may differ.
    #expect(worst <= 3e-7)
}

@Test func modelInputsTurnBackIntoTheirPicture() throws {
    let (mean, deviation) = ([0.48, 0.45, 0.4], [0.26, 0.26, 0.27])
    let square = try Picture(path: samples + "/colour.png").resized(width: 20, height: 20, .bilinear)
    let input = try square.modelInput(size: 20, mean: mean, deviation: deviation, .bicubic)
    #expect(try Picture(modelInput: input, mean: mean, deviation: deviation) == square)
}

@Test func whatIsNoImageInputIsRefused() throws {
    for shape in [[3, 2, 2], [1, 4, 2, 2], [0, 3, 2, 2], [1, 3, 0, 2], [1, 3, 2, 0]] {
        let image = try Tensor([Float](repeating: 0, count: shape.reduce(1, *)), shape: shape)
        #expect { try Picture(modelInput: image, mean: nil, deviation: nil) } throws: { "\($0)".contains("an image input") }
    }
    let two = try Tensor([Float](repeating: 0, count: 24), shape: [2, 3, 2, 2])
    for example in [-1, 2, .min, .max] {
        #expect { try Picture(modelInput: two, example: example, mean: nil, deviation: nil) } throws: {
            "\($0)".contains("an image input; found [2, 3, 2, 2], example \(example)")
        }
    }
    #expect(try Picture(modelInput: two, example: 1, mean: nil, deviation: nil).width == 2)
}

@Test func pngFilesReadBackAsTheyWereWritten() throws {
    let picture = try Picture(path: samples + "/colour.jpg")
    #expect(try Picture(decoding: picture.png()) == picture)
}

@Test(arguments: files) func damagedPicturesAreRefused(name: String) throws {
    let file = try ReadableFile(path: "\(samples)/\(name)")
    let bytes = try file.bytes(at: 0, count: file.size)
    for count in stride(from: 0, to: bytes.count - 16, by: 13) {
        #expect { try Picture(decoding: Array(bytes.prefix(count))) } throws: { ($0 as? TripsError)?.kind == .data }
    }
}

/// Of what libjpeg warns of, that which changes no pixel is let pass, as Pillow does.
@Test func oddFilesWithAllTheirPixelsAreRead() throws {
    let file = try ReadableFile(path: samples + "/colour.jpg")
    let sound = try file.bytes(at: 0, count: file.size)
    func changed(_ marker: [UInt8], _ change: (inout [UInt8], Int) -> Void) throws -> [UInt8] {
        var bytes = sound
        let place = try #require(bytes.indices.last { bytes[$0...].starts(with: marker) })
        change(&bytes, place)
        return bytes
    }
    // The JFIF header's version; the last coefficient of the scan, which a sequential file need not state; bytes before the end.
    let odd = [
        try changed(Array("JFIF\0".utf8)) { $0[$1 + 5] = 3 }, try changed([0xFF, 0xDA]) { $0[$1 + 12] = 0 },
        try changed([0xFF, 0xD9]) { $0.insert(contentsOf: [0x12, 0x34, 0x56], at: $1) },
    ]
    for bytes in odd {
        #expect(bytes != sound)
        #expect(try Picture(decoding: bytes) == Picture(decoding: sound))
    }
    let cut = try changed([0xFF, 0xD9]) { $0.replaceSubrange($1 - 40..<$1, with: []) }
    #expect { try Picture(decoding: cut) } throws: { "\($0)".contains("premature end") }
}

@Test func hugePicturesInSmallFilesAreRefused() throws {
    let sound = try Picture(width: 2, height: 2, pixels: [UInt8](repeating: 9, count: 12)).png()
    func crc32(_ bytes: some Sequence<UInt8>) -> UInt32 {
        var crc: UInt32 = ~0
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc >> 1 ^ (crc & 1) * 0xEDB8_8320 }
        }
        return ~crc
    }
    /// The file with another size in its header, under a right checksum.
    func stating(_ width: UInt32, _ height: UInt32) -> [UInt8] {
        func bytes(_ number: UInt32) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }
        var png = sound
        png.replaceSubrange(16..<24, with: bytes(width) + bytes(height))
        png.replaceSubrange(29..<33, with: bytes(crc32(png[12..<29])))
        return png
    }
    #expect(throws: Never.self) { try Picture(decoding: stating(2, 2)) }
    for (width, height, words) in [
        (32_769, 1, "32769 x 1;"), (1, 32_769, "1 x 32769;"), (20_000, 20_000, "20000 x 20000;"), (3000, 3000, "3000 x 3000 from"),
        (0, 2, "PNG"), (2, 0, "PNG"), (2, 3, "PNG"),
    ] as [(UInt32, UInt32, String)] {
        #expect { try Picture(decoding: stating(width, height)) } throws: {
            ($0 as? TripsError)?.kind == .data && "\($0)".contains(words)
        }
    }
}

/// Each scan passes over all coefficients, and one without any takes a few bytes.
@Test func picturesOfVeryManyScansAreRefused() throws {
    let file = try ReadableFile(path: samples + "/progressive.jpg")
    let sound = try file.bytes(at: 0, count: file.size)
    let scans = sound.indices.filter { sound[$0...].starts(with: [0xFF, 0xDA]) }
    // The second scan alone, up to the tables of the third, with all bits of its coefficients: it may be sent again.
    var scan = Array(sound[scans[1]..<scans[2]])
    let tables = try #require(scan.indices.dropFirst().first { scan[$0...].starts(with: [0xFF, 0xC4]) })
    scan.removeSubrange(tables...)
    scan[7 + 2 * Int(scan[4])] = 0
    func picture(scans count: Int) throws -> Picture {
        try Picture(decoding: sound[..<scans[1]] + (1..<count).flatMap { _ in scan } + [0xFF, 0xD9])
    }
    #expect(try picture(scans: 500) == picture(scans: 2))
    #expect { try picture(scans: 501) } throws: { "\($0)".contains("more than 500 scans") }
}

@Test func whatIsNoPictureIsRefused() throws {
    for bytes in [Array("GIF89a".utf8), [], [0xFF, 0xD8], Array("RIFF....WEBP".utf8)] {
        #expect { try Picture(decoding: bytes) } throws: { "\($0)".contains("not a picture that can be read") }
    }
    for (width, height, count) in [
        (0, 0, 0), (-1, -1, 3), (2, 0, 0), (2, 2, 11), (Picture.maximalSide + 1, 1, 3 * (Picture.maximalSide + 1)),
    ] {
        for (width, height) in [(width, height), (height, width)] {
            #expect(throws: TripsError.self) {
                try Picture(width: width, height: height, pixels: [UInt8](repeating: 0, count: count))
            }
        }
    }
}

@Test func normalisationIsForThreeChannels() throws {
    let picture = try Picture(width: 1, height: 1, pixels: [1, 2, 3])
    for (mean, deviation) in [([0.5, 0.5], [0.5, 0.5, 0.5]), ([0.5, 0.5, 0.5], [0.5, 0.5]), ([0.5, 0.5, 0.5], [0.5, 0, 0.5])] {
        #expect { try picture.modelInput(size: 1, mean: mean, deviation: deviation, .bilinear) } throws: {
            ($0 as? TripsError)?.kind == .data
        }
    }
}

@Test func picturesDoNotGrowOutOfProportion() throws {
    let picture = try Picture(width: 1, height: 1, pixels: [1, 2, 3])
    #expect { try picture.resized(width: 30_000, height: 30_000, .bilinear) } throws: { ($0 as? TripsError)?.kind == .usage }
}

@Test func sentencesAreCutAsHuggingFaceDoes() throws {
    let tokenizer = try WordPiece(path: samples + "/vocab.txt")
    let file = try ReadableFile(path: samples + "/sentences.json")
    let cases = try #require(try JSON(parsing: file.bytes(at: 0, count: file.size)).array)
    #expect(cases.count > 20)
    for entry in cases {
        let text = try #require(entry["text"]?.string)
        #expect(tokenizer.encode(text) == entry["ids"]?.array?.compactMap(\.integer), "\(text)")
        let padded = try tokenizer.modelInput(text, paddedTo: 10)
        #expect(try padded.ids.elements(Int64.self).map(Int.init) == entry["ids10"]?.array?.compactMap(\.integer), "\(text)")
        #expect(try padded.mask.elements(Int64.self).map(Int.init) == entry["mask10"]?.array?.compactMap(\.integer), "\(text)")
    }
}

@Test func vocabulariesMayHaveTheLineEndsOfWindows() throws {
    let lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dog", "##s"]
    let tokenizer = try WordPiece(vocabulary: lines.joined(separator: "\r\n") + "\r\n")
    #expect(tokenizer.encode("dogs") == [2, 4, 5, 3])
    #expect(try tokenizer.modelInput("dogs", paddedTo: .min).ids.elements(Int64.self) == [2, 3])
}

@Test func vocabulariesAreOfSomeSize() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("[PAD]\n[UNK]\n[CLS]\n[SEP]\n".utf8 + [UInt8](repeating: 0x0A, count: 16 << 20), "vocab.txt")
    #expect { try WordPiece(path: path) } throws: { "\($0)".contains("at most 16 MiB") }
}

@Test func idsReadAsWords() throws {
    let tokenizer = try WordPiece(path: samples + "/vocab.txt")
    #expect(tokenizer.decode(tokenizer.encode("two dogs running")) == "two dogs running")
    #expect(throws: TripsError.self) { try WordPiece(vocabulary: "a\nb") }
}

/// Accents go, however many there are, and in a time that does not grow with the square of their number.
@Test func endlessAccentsAreDropped() throws {
    let tokenizer = try WordPiece(vocabulary: "[PAD]\n[UNK]\n[CLS]\n[SEP]\nab\nc")
    let accents = String(repeating: "\u{301}\u{316}", count: 100_000)
    #expect(tokenizer.encode("a\(accents)b\(accents) c") == [2, 4, 5, 3])
    #expect(tokenizer.encode("[SEP]\(accents)c") == [2, 3, 5, 3])
}

/// Each is a word of its own, in a time that does not grow with the square of their number.
@Test func ideographsWithoutEndAreWords() throws {
    let tokenizer = try WordPiece(vocabulary: "[PAD]\n[UNK]\n[CLS]\n[SEP]\n中")
    #expect(tokenizer.encode(String(repeating: "中", count: 200_000)) == [2] + Array(repeating: 4, count: 200_000) + [3])
}

/// Words are decomposed in parts, whose ends are not seen.
@Test(arguments: 250...260) func longWordsLoseAllTheirAccents(length: Int) throws {
    let tokenizer = try WordPiece(vocabulary: "[PAD]\n[UNK]\n[CLS]\n[SEP]\ne")
    let text = String(repeating: "é,", count: length / 2) + "e\u{316}\u{301}" + String(repeating: " e\u{301}", count: length)
    let words = tokenizer.encode(text).filter { $0 == 4 }.count
    #expect(words == length / 2 + 1 + length)
}

@Test func textsAreFilledUpToSomeLength() throws {
    let tokenizer = try WordPiece(vocabulary: "[PAD]\n[UNK]\n[CLS]\n[SEP]\na")
    #expect(try tokenizer.modelInput("a a", paddedTo: 5).ids.integers() == [2, 4, 4, 3, 0])
    #expect(try tokenizer.modelInput("a a", paddedTo: 3).ids.integers() == [2, 4, 3])
    #expect { try tokenizer.modelInput("a a", paddedTo: .max) } throws: { ($0 as? TripsError)?.kind == .usage }
}
