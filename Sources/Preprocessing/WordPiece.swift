import Foundation
import Support
import Tensors

/// BERT's tokenizer (uncased): text is cleaned, lowercased, stripped of accents, split at spaces and punctuation, and each
/// word cut into the longest pieces of the vocabulary (Devlin et al. 2019, `tokenization.py`).
public struct WordPiece: Sendable {
    private let ids: [String: Int]
    private let words: [String]
    private let unknown: Int
    /// The id that starts a text.
    public let classID: Int
    /// The id that ends it.
    public let separatorID: Int
    /// The id that fills up shorter texts.
    public let paddingID: Int

    /// - Parameter vocabulary: a word per line; its number, from 0, is its id.
    /// - Throws: `data` where one of [PAD], [UNK], [CLS], [SEP] is missing.
    public init(vocabulary: String) throws {
        // Scalars: as a character, a carriage return and a line feed are one.
        words = vocabulary.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).map { line in
            String(line.last == "\r" ? line.dropLast() : line)
        }
        var ids: [String: Int] = [:]
        for (id, word) in words.enumerated() where !word.isEmpty { ids[word] = id }
        self.ids = ids
        func special(_ word: String) throws -> Int {
            guard let id = ids[word] else {
                throw TripsError.data("vocabulary", found: "no \(word)", expected: "BERT's special words")
            }
            return id
        }
        (unknown, classID, separatorID, paddingID) = try (special("[UNK]"), special("[CLS]"), special("[SEP]"), special("[PAD]"))
    }

    /// The vocabulary in a file.
    public init(path: String) throws {
        let file = try ReadableFile(path: path), text = try file.text(of: "vocabulary")
        self = try locating(file.name) { try WordPiece(vocabulary: text) }
    }

    /// The longest text that is filled up.
    package static let maximalLength = 65_536

    /// The ids of a text, [CLS] first and [SEP] last.
    /// - Parameter maximalLength: longer texts lose their end, but keep [SEP].
    public func encode(_ text: String, maximalLength: Int? = nil) -> [Int] {
        var ids = parts(of: text).flatMap { part in part.special.map { [$0] } ?? split(part.text).flatMap(pieces) }
        if let maximalLength { ids = Array(ids.prefix(max(2, maximalLength) - 2)) }
        return [classID] + ids + [separatorID]
    }

    /// Ids and mask, int64 [1, L], as a model takes them.
    /// - Parameters:
    ///   - maximalLength: tokens beyond which a text is cut.
    ///   - length: L; shorter texts are filled up, and longer ones cut. Nil: as long as the text.
    /// - Throws: `usage` where `length` is above 65536.
    public func modelInput(_ text: String, maximalLength: Int? = nil, paddedTo length: Int? = nil) throws -> (
        ids: Tensor, mask: Tensor
    ) {
        if let length, length > WordPiece.maximalLength {
            throw TripsError.usage("tokens of a text", found: length, expected: "at most \(WordPiece.maximalLength)")
        }
        let ids = encode(text, maximalLength: length.map { min($0, maximalLength ?? $0) } ?? maximalLength)
        let padding = max(length ?? 0, ids.count) - ids.count
        let all = ids + Array(repeating: paddingID, count: padding)
        let mask = Array(repeating: 1, count: ids.count) + Array(repeating: 0, count: padding)
        return (
            try Tensor(all.map { Int64($0) }, shape: [1, all.count]), try Tensor(mask.map { Int64($0) }, shape: [1, mask.count])
        )
    }

    /// Text for ids: pieces joined, special words left out.
    public func decode(_ ids: [Int]) -> String {
        var text = ""
        for id in ids where words.indices.contains(id) {
            let word = words[id]
            if word.hasPrefix("[") && word.hasSuffix("]") && word.count > 2 { continue }
            if word.hasPrefix("##") { text += word.dropFirst(2) } else { text += (text.isEmpty ? "" : " ") + word }
        }
        return text
    }

    /// The text between special words, and their ids, in order.
    private func parts(of text: String) -> [(text: String, special: Int?)] {
        var parts: [(text: String, special: Int?)] = []
        // By scalars: comparing characters takes a time that grows with the square of the marks in one.
        var rest = text.unicodeScalars[...]
        while let bracket = rest.firstIndex(of: "[") {
            let word = WordPiece.specialWords.first { rest[bracket...].starts(with: $0.unicodeScalars) && ids[$0] != nil }
            let end = rest.index(bracket, offsetBy: word?.unicodeScalars.count ?? 1)
            parts.append((String(word == nil ? rest[..<end] : rest[..<bracket]), nil))
            if let word { parts.append((word, ids[word])) }
            rest = rest[end...]
        }
        return parts + [(String(rest), nil)]
    }

    private static let specialWords = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

    /// Words and punctuation marks, lowercased and without accents.
    private func split(_ text: String) -> [String] {
        var cleaned = String.UnicodeScalarView()
        var marks = 0
        for scalar in text.unicodeScalars {
            if scalar.value == 0 || scalar.value == 0xFFFD || isControl(scalar) { continue }
            marks = scalar.isCombiningMark ? marks + 1 : 0
            // The time of decomposing grows with the square of the marks in a row. A joiner parts them, and goes with the accents.
            if marks > 0, marks.isMultiple(of: Unicode.Scalar.marksInARow) { cleaned.append(combiningGraphemeJoiner) }
            if isSpace(scalar) {
                cleaned.append(" ")
            } else if isIdeograph(scalar) {
                // One by one: to append several copies all that is there already.
                for scalar in [" ", scalar, " "] { cleaned.append(scalar) }
            } else {
                cleaned.append(scalar)
            }
        }
        let plain = withoutAccents(cleaned)
        var words: [String] = []
        var word = ""
        func endWord() {
            if !word.isEmpty { words.append(word) }
            word = ""
        }
        for scalar in String(plain).lowercased().unicodeScalars {
            if scalar == " " {
                endWord()
            } else if isPunctuation(scalar) {
                endWord()
                words.append(String(scalar))
            } else {
                word.unicodeScalars.append(scalar)
            }
        }
        endWord()
        return words
    }

    /// The longest pieces of the vocabulary that make the word, from its start on; unknown where one is missing.
    private func pieces(of word: String) -> [Int] {
        let scalars = Array(word.unicodeScalars)
        guard scalars.count <= 100 else { return [unknown] }
        var found: [Int] = []
        var start = 0
        while start < scalars.count {
            var end = scalars.count
            var id: Int?
            while end > start, id == nil {
                var piece = String.UnicodeScalarView(scalars[start..<end])
                if start > 0 { piece.insert(contentsOf: "##".unicodeScalars, at: piece.startIndex) }
                id = ids[String(piece)]
                if id == nil { end -= 1 }
            }
            guard let id else { return [unknown] }
            found.append(id)
            start = end
        }
        return found
    }
}

/// The text decomposed, less the marks. It goes in parts, as the time of decomposing grows with the square of the length.
private func withoutAccents(_ text: String.UnicodeScalarView) -> String.UnicodeScalarView {
    var plain = String.UnicodeScalarView()
    var part = String.UnicodeScalarView()
    var count = 0
    func endPart() {
        for scalar in String(part).decomposedStringWithCanonicalMapping.unicodeScalars
        where scalar.properties.generalCategory != .nonspacingMark { plain.append(scalar) }
        (part, count) = (String.UnicodeScalarView(), 0)
    }
    for scalar in text {
        // Marks stay with what they belong to.
        if count >= 256, !scalar.isCombiningMark { endPart() }
        part.append(scalar)
        count += 1
    }
    endPart()
    return plain
}

private let combiningGraphemeJoiner: Unicode.Scalar = "\u{34F}"

private func isSpace(_ scalar: Unicode.Scalar) -> Bool {
    ["\t", "\n", "\r", " "].contains(scalar) || scalar.properties.isWhitespace
}

private func isControl(_ scalar: Unicode.Scalar) -> Bool {
    if ["\t", "\n", "\r"].contains(scalar) { return false }
    switch scalar.properties.generalCategory {
    case .control, .format, .unassigned, .privateUse, .surrogate: return true
    default: return false
    }
}

private func isPunctuation(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 33...47, 58...64, 91...96, 123...126: return true
    default: break
    }
    switch scalar.properties.generalCategory {
    case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation, .initialPunctuation, .finalPunctuation,
        .otherPunctuation:
        return true
    default: return false
    }
}

/// The blocks that BERT counts as Chinese characters, each a word of its own.
private func isIdeograph(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x4E00...0x9FFF, 0x3400...0x4DBF, 0x20000...0x2A6DF, 0x2A700...0x2B73F, 0x2B740...0x2B81F, 0x2B820...0x2CEAF,
        0xF900...0xFAFF,
        0x2F800...0x2FA1F:
        return true
    default: return false
    }
}
