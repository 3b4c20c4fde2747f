import ModelGraph
import Operators

/// The rows of a fp32 value. Those that a patch selection keeps are not moved: `order` gives their indices among the rows of the
/// value that it selected from.
struct ChosenRows: Sendable {
    let first: Source<Float>
    /// Elements from one row to the next.
    let distance: Int
    /// The index of each row, counted from `first`; nil where all are in order.
    let order: Source<Int32>?

    /// The indices of these rows, counted from `first`, as ranges.
    func runs(_ rows: Range<Int>) -> [Range<Int>] {
        guard let order else { return [rows] }
        return rows.map { Int(order.base[$0])..<Int(order.base[$0]) + 1 }
    }
}

/// Where a patch selection writes the indices of the rows that it keeps, instead of the rows.
struct RowChoice {
    let order: Target<Int32>
    /// Space for one new row per example, after the selected value's own rows.
    let spare: Target<Float>
    /// The index of the first of them.
    let firstSpare: Int
}
