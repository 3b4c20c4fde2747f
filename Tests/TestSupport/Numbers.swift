import Foundation
import ModelGraph
import Support
import Tensors
import Testing

/// Numbers from -`scale` to `scale`, the same in each run.
package func noise(_ shape: [Int], seed: UInt64 = 1, scale: Float = 1) throws -> Tensor {
    var generator = SplitMix64(state: seed)
    return try Tensor((0..<shape.reduce(1, *)).map { _ in scale * Float(2 * generator.uniform() - 1) }, shape: shape)
}

/// The signal-to-noise ratio in decibels.
package func signalToNoise(_ exact: [Float], _ other: [Float]) -> Double {
    let signal = exact.reduce(0.0) { $0 + Double($1) * Double($1) }
    let noise = zip(exact, other).reduce(0.0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) }
    return 10 * log10(signal / noise)
}

/// A constant of a shape alone: only ids have numbers, which count from 0.
package func emptyConstant(_ name: String, _ shape: [Int], _ dataType: DataType = .float32) -> Constant {
    Constant(dataType, shape, identity: name, source: NoNumbers())
}

private struct NoNumbers: ConstantSource {
    func load(_ dataType: DataType, _ shape: [Int]) throws -> Tensor {
        guard dataType == .int64 else { throw TripsError.data("this constant has no numbers") }
        return try Tensor((0..<Int64(shape.reduce(1, *))).map { $0 }, shape: shape)
    }
}

/// The tensors of a released layout in the shared material, of shapes alone.
package func releasedTensors(_ layout: String) throws -> [(name: String, constant: Constant)] {
    let document = try JSON(parsing: Array(Data(contentsOf: URL(fileURLWithPath: "\(sharedFolder)/models/\(layout).json"))))
    return try #require(document["tensors_list"]?.array).map { entry in
        let fields = try #require(entry.array)
        let name = try #require(fields[0].string), shape = try #require(fields[1].array).compactMap(\.integer)
        return (name, emptyConstant(name, shape, fields[2].string == "int64" ? .int64 : .float32))
    }
}
