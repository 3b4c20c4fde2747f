import Foundation
import ModelGraph
import Operators
import Support
import Tensors
import Testing

func floats(_ numbers: [Float], _ shape: [Int]? = nil) throws -> Tensor { try Tensor(numbers, shape: shape ?? [numbers.count]) }
func integers(_ numbers: [Int64], _ shape: [Int]? = nil) throws -> Tensor { try Tensor(numbers, shape: shape ?? [numbers.count]) }
func scalar(_ number: Float) throws -> Tensor { try Tensor(scalar: number) }

/// 0, 1, 2, ... in this shape.
func counting(_ shape: [Int]) throws -> Tensor {
    try floats((0..<shape.reduce(1, *)).map { Float($0) }, shape)
}

/// The first output. All of them are computed again over other bytes, as a plan's memory holds what was there before.
func run(_ op: any Operator, _ inputs: Tensor?..., sourceLocation: SourceLocation = #_sourceLocation) throws -> Tensor {
    let results = try evaluate(op, inputs)
    let used = try results.map { result in
        try Tensor.uninitialized(result.dataType, result.shape) { memset($0.base, 0xa5, $0.byteCount) }
    }
    try (#require(op as? any Computable)).compute(
        inputs.map { $0?.view },
        into: used.map {
            MutableTensorView(
                dataType: $0.dataType, shape: $0.shape, bytes: UnsafeMutableRawPointer(mutating: $0.view.bytes))
        }, on: .shared)
    for (again, result) in zip(used, results) {
        let same = again.withBytes { left in result.withBytes { left.elementsEqual($0) } }
        #expect(same, "not all of the output is written", sourceLocation: sourceLocation)
    }
    return results[0]
}

/// Checks shape and numbers; the tolerance is for the rounding of single precision unless stated.
func expect(
    _ tensor: Tensor, _ shape: [Int], _ numbers: [Double], tolerance: Double = 1e-5,
    sourceLocation: SourceLocation = #_sourceLocation
) throws {
    #expect(tensor.shape == shape, sourceLocation: sourceLocation)
    let found = try tensor.numbers()
    try #require(found.count == numbers.count, sourceLocation: sourceLocation)
    for (index, (left, right)) in zip(found, numbers).enumerated() {
        let equal = left == right || (left.isNaN && right.isNaN) || abs(left - right) <= tolerance * max(1, abs(right))
        #expect(equal, "element \(index): \(left), expected \(right)", sourceLocation: sourceLocation)
    }
}

/// Checks that the operator refuses the inputs with an error of kind `data`.
func expectRefusal(_ op: any Operator, _ inputs: Tensor?..., sourceLocation: SourceLocation = #_sourceLocation) throws {
    #expect(sourceLocation: sourceLocation) { try evaluate(op, inputs) } throws: { ($0 as? TripsError)?.kind == .data }
}
