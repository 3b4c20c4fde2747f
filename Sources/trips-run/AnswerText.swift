import Support
import Trips

extension Answer {
    /// The answer in words, a line for each part.
    var lines: [String] {
        var lines: [String] = []
        if let matchProbability { lines.append("match        \(digits(matchProbability * 100, 1)) %") }
        if let similarity { lines.append("similarity   \(digits(similarity, 4))") }
        for entry in (classes ?? []).sorted(by: { $0.probability > $1.probability }).prefix(5) {
            lines.append("\(entry.name): \(digits(entry.probability * 100, 1)) %")
        }
        for entry in answers ?? [] { lines.append("\(digits(entry.probability * 100, 1).leftPadded(to: 5)) %  \(entry.name)") }
        if let text { lines.append("answer       \(text)") }
        if let ids, text == nil { lines.append("tokens       \(ids.map(String.init).joined(separator: " "))") }
        if let score { lines.append("score        \(digits(score, 4))") }
        if let box {
            lines.append(
                "box          \(box.map { digits(Double($0), 3) }.joined(separator: " ")) (x0 y0 x1 y1, fractions of the picture)")
        }
        for selection in selections {
            lines.append("block \(selection.block) keeps \(selection.kept.count) of \(selection.patches) patches")
        }
        return lines + ["time         \(digits(seconds * 1000, 1)) ms, planning included"]
    }
}

extension String {
    fileprivate func leftPadded(to width: Int) -> String { String(repeating: " ", count: max(0, width - count)) + self }
}
