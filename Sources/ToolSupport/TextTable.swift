import Foundation

/// A table in plain text: columns as wide as their widest cell.
public struct TextTable {
    public enum Alignment: Sendable { case left, right }
    private let columns: [(title: String, alignment: Alignment)]
    private var rows: [[String]] = []

    public init(_ columns: [(title: String, alignment: Alignment)]) { self.columns = columns }

    public mutating func add(_ cells: [String]) { rows.append(cells) }
    public var isEmpty: Bool { rows.isEmpty }

    /// Lines without trailing spaces; the titles first.
    public var text: String {
        let widths = columns.indices.map { column in
            ([columns[column].title] + rows.compactMap { column < $0.count ? $0[column] : nil }).map(\.count).max() ?? 0
        }
        let lines = ([columns.map(\.title)] + rows).map { row in
            var line = columns.indices.map { column -> String in
                let cell = column < row.count ? row[column] : ""
                let padding = String(repeating: " ", count: widths[column] - cell.count)
                return columns[column].alignment == .left ? cell + padding : padding + cell
            }.joined(separator: "  ")
            while line.last == " " { line.removeLast() }
            return line
        }
        return lines.joined(separator: "\n")
    }
}

/// A number of bytes for people, in decimal units.
public func byteText(_ count: Int) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"]
    var (size, unit) = (Double(count), 0)
    while size >= 999.5 && unit < units.count - 1 { (size, unit) = (size / 1000, unit + 1) }
    return unit == 0 ? "\(count) B" : "\(digits(size, size < 9.995 ? 2 : size < 99.95 ? 1 : 0)) \(units[unit])"
}

/// A number with a fixed count of decimals.
public func digits(_ number: Double, _ count: Int) -> String { String(format: "%.\(count)f", number) }
