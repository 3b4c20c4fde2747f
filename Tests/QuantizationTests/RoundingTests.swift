import Foundation
import ModelGraph
import Operators
import Quantization
import Support
import Tensors
import Testing

private func noise(_ rows: Int, _ columns: Int, seed: UInt64, _ shape: (Int, Float) -> Float = { $1 }) throws -> Tensor {
    var generator = SplitMix64(state: seed)
    return try Tensor((0..<rows * columns).map { shape($0 % columns, Float(generator.uniform() + generator.uniform() - 1)) }, shape: [rows, columns])
}

private func restored(_ matrix: QuantizedMatrix) throws -> [Float] {
    let units = try matrix.weight.elements(Int8.self)
    let scales = try matrix.scales.elements(Float.self)
    let (columns, groups) = (matrix.weight.shape[1], matrix.scales.shape[1])
    return units.enumerated().map { Float($1) * scales[$0 / columns * groups + $0 % columns / matrix.groupSize] }
}

private func ratio(_ exact: [Float], _ other: [Float]) -> Float {
    let noise = zip(exact, other).reduce(Float(0)) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    return 10 * exact.reduce(0) { $0 + $1 * $1 }.log10(over: noise)
}

extension Float {
    fileprivate func log10(over other: Float) -> Float { Float(Foundation.log10(Double(self / other))) }
}

@Suite struct RoundingTests {
    @Test(arguments: [1, 5, 16, 64, 100]) func noWeightIsFurtherThanItsStepAllows(groupSize: Int) throws {
        let matrix = try noise(7, 100, seed: 1)
        let rounded = try roundWeights(matrix, groupSize: groupSize)
        let (exact, back) = (try matrix.elements(Float.self), try restored(rounded))
        let scales = try rounded.scales.elements(Float.self)
        let groups = rounded.scales.shape[1]
        #expect(groups == (100 + groupSize - 1) / groupSize)
        for index in exact.indices {
            let scale = scales[index / 100 * groups + index % 100 / groupSize]
            // Half a step, or what clipping to 127 steps cuts off.
            #expect(abs(exact[index] - back[index]) <= max(0.5001 * scale, abs(exact[index]) - 126.999 * scale))
        }
        #expect(rounded.decibels > 40)
    }

    @Test func smallerGroupsAndChosenScalesRoundBetter() throws {
        // A few large weights in each row: one scale for the row makes all others coarse.
        let matrix = try noise(16, 256, seed: 2) { $0 % 64 == 0 ? 20 * $1 : $1 }
        let (row, group) = (try roundWeights(matrix, groupSize: 256), try roundWeights(matrix, groupSize: 32))
        #expect(group.decibels > row.decibels)
        let exact = try matrix.elements(Float.self)
        #expect(abs(Double(ratio(exact, try restored(row))) - row.decibels) < 0.01)
    }

    /// Of many weights that are small beside a single one, all are rounded finer where that one is cut.
    @Test func aSingleLargeWeightIsCut() throws {
        var generator = SplitMix64(state: 3)
        var row = (0..<8192).map { _ in Float(generator.uniform() - 0.5) }
        row[100] = 1
        let rounded = try roundWeights(Tensor(row, shape: [1, 8192]), groupSize: 8192)
        let scale = try rounded.scales.elements(Float.self)[0]
        #expect(scale < 0.99 / 127 && scale > 0.5 / 127)
        let whole = row.map { ($0 * 127).rounded() / 127 }
        #expect(ratio(row, try restored(rounded)) > ratio(row, whole))
    }

    @Test func zeroRowsAndHugeValuesStayFinite() throws {
        let zeros = try roundWeights(Tensor([Float](repeating: 0, count: 40), shape: [2, 20]), groupSize: 20)
        #expect(try restored(zeros).allSatisfy { $0 == 0 })
        let mixed = try roundWeights(Tensor([Float.infinity, 1, 2, 3], shape: [1, 4]), groupSize: 4)
        #expect(try restored(mixed).allSatisfy(\.isFinite))
    }

    @Test func scalingPaysWhereChannelsAreLoud() throws {
        let weight = try noise(64, 128, seed: 3)
        let loud = ChannelStatistics(
            largest: (0..<128).map { $0 % 40 == 0 ? 30 : 1 }, meanSquare: (0..<128).map { $0 % 40 == 0 ? 100 : 0.1 })
        let even = ChannelStatistics(largest: Array(repeating: 1, count: 128), meanSquare: Array(repeating: 0.1, count: 128))
        #expect(InputScaling(weights: [weight], statistics: loud, groupSize: 128).strength > 0)
        #expect(InputScaling(weights: [weight], statistics: even, groupSize: 128).factors == nil)
    }

    /// Correlated inputs are what compensation lives on: an error in one column can be made good in another.
    @Test func compensationChangesTheOutputsLess() throws {
        let (inputs, outputs, rows) = (64, 48, 400)
        var generator = SplitMix64(state: 4)
        let factors = (0..<8 * inputs).map { _ in Float(generator.uniform() - 0.5) }
        let x = try Tensor((0..<rows).flatMap { _ -> [Float] in
            let hidden = (0..<8).map { _ in Float(generator.uniform() - 0.5) }
            return (0..<inputs).map { column in
                (0..<8).reduce(Float(0)) { $0 + hidden[$1] * factors[$1 * inputs + column] } + 0.02 * Float(generator.uniform() - 0.5)
            }
        }, shape: [rows, inputs])
        let weight = try noise(outputs, inputs, seed: 5)
        let gram = Gram(width: inputs)
        gram.add(x)
        func output(_ weights: [Float]) throws -> [Float] {
            try evaluate(Linear(), [x, Tensor(weights, shape: [outputs, inputs])])[0].elements(Float.self)
        }
        let exact = try output(weight.elements(Float.self))
        let plain = ratio(exact, try output(restored(roundWeights(weight, groupSize: inputs))))
        let moved = ratio(exact, try output(restored(compensatedRounding(weight, groupSize: inputs, columnFactor: nil, gram: gram))))
        #expect(moved > plain + 3)
    }
}
