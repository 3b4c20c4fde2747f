import ModelGraph
import Operators

/// The rows of a fp32 value. Those that a patch selection keeps are not moved: `order` gives their indices among the rows of the
/// value that it selected from.
struct ChosenRows: Sendable {
    let first: Source<Float>
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

extension Lowering {
    /// Values that a patch selection writes as row indices into another value, and that value. All their readers must look rows up:
    /// layer norms, and products that add them to their output.
    var chosenRows: [ValueID: ValueID] {
        var result: [ValueID: ValueID] = [:]
        for selection in instructions.compactMap({ $0 as? SelectionInstruction }) {
            guard let source = selection.node.input(0), !result.values.contains(source), hasOwnMemory(source),
                !isSeenWhole(selection.node.output), selection.rowCount < Int32.max
            else { continue }
            let readers = instructions.filter { $0.reads.contains(selection.node.output) }
            if readers.allSatisfy({ looksRowsUp($0, of: selection.node.output) }) { result[selection.node.output] = source }
        }
        return result
    }

    private func looksRowsUp(_ instruction: any Instruction, of value: ValueID) -> Bool {
        switch instruction {
        case let norm as LayerNormInstruction: norm.node.inputs.dropFirst().allSatisfy { $0 != value }
        case let linear as LinearInstruction: linear.norm.map { looksRowsUp($0, of: value) } ?? (linear.input != value)
        default: false
        }
    }
}
