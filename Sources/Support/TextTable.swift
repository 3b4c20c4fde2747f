/// A table in plain text: columns as wide as their widest cell.
package struct TextTable {
    package enum Alignment: Sendable { case left, right }
    private let columns: [(title: String, alignment: Alignment)]
    private var rows: [[String]] = []

    package init(_ columns: [(title: String, alignment: Alignment)]) { self.columns = columns }

    /// The longest cell: a column is as wide in all rows as its widest cell, and a name in a file may be of any length.
    private static let maximalWidth = 200

    package mutating func add(_ cells: [String]) {
        let cells = cells.map { printable($0).replacing("\n", with: "\u{FFFD}") }
        rows.append(cells.map { $0.utf8.count > TextTable.maximalWidth ? $0.prefix(TextTable.maximalWidth - 1) + "…" : $0 })
    }

    /// Lines without trailing spaces; the titles first.
    package var text: String {
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
