import ModelGraph
import Operators
import Support
import Tensors

/// Inputs: kept [S, B, D]; rows [B, 1, D]; position, int64 [1]. Output [1, S * B, D]: kept, with the rows at that position.
///
/// A plan computes it where `kept` is. It is made for running a decoder and stands in no package.
package struct PlaceRows: Operator {
    package static let maximalInputs: Int? = 3
    package init() {}

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let kept = try inputs.required(0, "kept").ranked(3, "kept").type
        let rows = try inputs.required(1, "rows").shaped([kept.shape[1], 1, kept.shape[2]], "rows").type
        let position = try inputs.required(2, "position").shaped([1], "position").type
        guard rows.dataType == kept.dataType, position.dataType == .int64 else {
            throw TripsError.data("rows to place", found: "\(rows) at \(position)", expected: "\(kept.dataType) at int64")
        }
        return [ValueType(kept.dataType, [1, try kept.shape[0].multiplied(by: kept.shape[1]), kept.shape[2]])]
    }
}

extension PlaceRows: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        guard inputs.count == 3, let kept = inputs[0], let rows = inputs[1], let position = inputs[2] else {
            throw TripsError.data("inputs of \(PlaceRows.name)", found: inputs.count, expected: "3")
        }
        let place = Int(position.elements(Int64.self)[0])
        guard 0..<kept.shape[0] ~= place else {
            throw TripsError.data("position of rows", found: place, expected: "0 ..< \(kept.shape[0])")
        }
        let (target, size) = (outputs[0].bytes, rows.count * rows.dataType.byteWidth)
        if UnsafeRawPointer(target) != kept.bytes { target.copyMemory(from: kept.bytes, byteCount: size * kept.shape[0]) }
        (target + place * size).copyMemory(from: rows.bytes, byteCount: size)
    }
}
