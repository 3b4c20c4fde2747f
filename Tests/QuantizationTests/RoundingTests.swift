import ModelGraph
import Operators
import Quantization
import Support
import Tensors
import TestSupport
import Testing

private func restored(_ matrix: QuantizedMatrix) throws -> [Float] {
    let units = try matrix.weight.elements(Int8.self)
    let scales = try matrix.scales.elements(Float.self)
    let (columns, groups) = (matrix.weight.shape[1], matrix.scales.shape[1])
    return units.enumerated().map { Float($1) * scales[$0 / columns * groups + $0 % columns / matrix.groupSize] }
}

/// Of rows [R, K], in parts of equal size.
private func scatter(_ x: Tensor, parts: Int) throws -> ScatterMatrix {
    let (rows, columns, values) = (x.shape[0], x.shape[1], try x.elements(Float.self))
    let squares = (0..<columns).map { column in
        (0..<rows).reduce(0.0) { $0 + Double(values[$1 * columns + column] * values[$1 * columns + column]) }
    }
    let scatter = ScatterMatrix(squares: squares)
    for part in 0..<parts { scatter.add(x, rows: rows * part / parts..<rows * (part + 1) / parts) }
    return scatter
}

@Suite struct RoundingTests {
    @Test(arguments: [1, 5, 16, 64, 100]) func noWeightIsFurtherThanItsStepAllows(groupSize: Int) throws {
        let matrix = try noise([7, 100])
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
        #expect(rounded.snr > 40)
    }

    @Test func smallerGroupsAndChosenScalesRoundBetter() throws {
        // A few large weights in each row: one scale for the row makes all others coarse.
        let even = try noise([16, 256], seed: 2).elements(Float.self)
        let matrix = try Tensor(even.enumerated().map { $0 % 64 == 0 ? 20 * $1 : $1 }, shape: [16, 256])
        let (row, group) = (try roundWeights(matrix, groupSize: 256), try roundWeights(matrix, groupSize: 32))
        #expect(group.snr > row.snr)
        let exact = try matrix.elements(Float.self)
        #expect(abs(signalToNoise(exact, try restored(row)) - row.snr) < 0.01)
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
        #expect(signalToNoise(row, try restored(rounded)) > signalToNoise(row, whole))
    }

    @Test func zeroRowsAndHugeValuesStayFinite() throws {
        let zeros = try roundWeights(Tensor([Float](repeating: 0, count: 40), shape: [2, 20]), groupSize: 20)
        #expect(try restored(zeros).allSatisfy { $0 == 0 })
        let mixed = try roundWeights(Tensor([Float.infinity, 1, 2, 3], shape: [1, 4]), groupSize: 4)
        #expect(try restored(mixed).allSatisfy(\.isFinite))
    }

    @Test func scalingPaysWhereChannelsAreLoud() throws {
        let weight = try noise([64, 128], seed: 3)
        let loud = ChannelStatistics(
            largest: (0..<128).map { $0 % 40 == 0 ? 30 : 1 }, meanSquare: (0..<128).map { $0 % 40 == 0 ? 100 : 0.1 })
        let even = ChannelStatistics(largest: Array(repeating: 1, count: 128), meanSquare: Array(repeating: 0.1, count: 128))
        #expect(InputScaling(weights: [weight], statistics: loud, groupSize: 128).strength > 0)
        #expect(InputScaling(weights: [weight], statistics: even, groupSize: 128).factors == nil)
    }

    /// Eleven channels: some of the last are compared one by one.
    @Test func scalingKnowsNeitherOrderNorSign() throws {
        let weight = try noise([64, 11], seed: 5)
        let numbers = try weight.elements(Float.self)
        func scaling(_ order: [Int], sign: Float = 1) throws -> InputScaling {
            let moved = (0..<64).flatMap { row in order.map { sign * abs(numbers[row * 11 + $0]) } }
            let statistics = ChannelStatistics(
                largest: order.map { $0 == 0 ? 30 : 1 }, meanSquare: order.map { $0 == 0 ? 100 : 0.1 })
            return InputScaling(weights: [try Tensor(moved, shape: [64, 11])], statistics: statistics, groupSize: 11)
        }
        let first = try scaling(Array(0..<11))
        #expect(try first.strength > 0 && scaling((0..<11).reversed()).strength == first.strength)
        #expect(try scaling(Array(0..<11), sign: -1).strength == first.strength)
    }

    @Test func aDeadChannelLeavesTheRangeToTheOthers() throws {
        let weight = try noise([64, 16], seed: 6)
        let loud = ChannelStatistics(
            largest: [100, 0] + Array(repeating: 1, count: 14), meanSquare: [1000, 0] + Array(repeating: 0.1, count: 14))
        let factors = try #require(InputScaling(weights: [weight], statistics: loud, groupSize: 16).factors)
        // As if it were a ten-thousandth as loud as the loudest.
        #expect(factors[1] / factors[0] <= 1e4 && factors[2] / factors[0] <= 100)
    }

    /// Fewer columns than are compared at once count as others do.
    @Test func scalesKnowNoOrderOfColumns() throws {
        let (rows, columns) = (32, 21)
        let numbers = try noise([rows, columns], seed: 7).elements(Float.self)
        let importance = (0..<columns).map { $0 % 5 == 0 ? Float(1000) : 0.001 }
        func scales(_ order: [Int]) throws -> [Float] {
            let moved = (0..<rows).flatMap { row in order.map { numbers[row * columns + $0] } }
            return try roundWeights(
                Tensor(moved, shape: [rows, columns]), groupSize: columns, importance: order.map { importance[$0] }
            ).scales.elements()
        }
        #expect(try scales(Array(0..<columns)) == scales((0..<columns).reversed()))
    }

    /// Correlated inputs are what compensation lives on: an error in one column can be made good in another.
    @Test func compensationChangesTheOutputsLess() throws {
        let (inputs, outputs, rows) = (64, 48, 400)
        var generator = SplitMix64(state: 4)
        let factors = (0..<8 * inputs).map { _ in Float(generator.uniform() - 0.5) }
        let x = try Tensor(
            (0..<rows).flatMap { _ -> [Float] in
                let hidden = (0..<8).map { _ in Float(generator.uniform() - 0.5) }
                return (0..<inputs).map { column in
                    (0..<8).reduce(Float(0)) { $0 + hidden[$1] * factors[$1 * inputs + column] } + 0.02
                        * Float(generator.uniform() - 0.5)
                }
            }, shape: [rows, inputs])
        let weight = try noise([outputs, inputs], seed: 5)
        let scatter = try scatter(x, parts: 8)
        #expect(scatter.shrinkage < 0.35)
        func output(_ weights: [Float]) throws -> [Float] {
            try evaluate(Linear(), [x, Tensor(weights, shape: [outputs, inputs])])[0].elements(Float.self)
        }
        let exact = try output(weight.elements(Float.self))
        let plain = signalToNoise(exact, try output(restored(roundWeights(weight, groupSize: inputs))))
        let moved = signalToNoise(
            exact, try output(restored(#require(Compensation(scatter, columnFactor: nil)).round(weight, groupSize: inputs))))
        #expect(moved > plain + 3)
    }

    /// With as many rows as inputs the correlations that chance makes are as strong as any: relied on in full, they cost 3 dB on other
    /// rows.
    @Test(arguments: [2, 16, 64, 128]) func compensationByFewRowsCostsOtherRowsLittle(rows: Int) throws {
        let (inputs, outputs) = (64, 48)
        let weight = try noise([outputs, inputs], seed: 8)
        let (seen, others) = (try noise([rows, inputs], seed: 9), try noise([400, inputs], seed: 10))
        let scatter = try scatter(seen, parts: min(rows, 8))
        #expect(scatter.shrinkage > 0.7)
        func output(_ weights: [Float]) throws -> [Float] {
            try evaluate(Linear(), [others, Tensor(weights, shape: [outputs, inputs])])[0].elements(Float.self)
        }
        let exact = try output(weight.elements(Float.self))
        let plain = signalToNoise(exact, try output(restored(roundWeights(weight, groupSize: inputs))))
        let compensation = try #require(Compensation(scatter, columnFactor: nil))
        #expect(signalToNoise(exact, try output(restored(compensation.round(weight, groupSize: inputs)))) > plain - 0.5)
    }

    @Test func oneRowSaysNothingOfOthers() throws {
        #expect(try scatter(noise([1, 64], seed: 11), parts: 1).shrinkage == 1)
    }

    /// In parts, on any number of threads: the sum of products.
    @Test(arguments: [1, 3]) func theScatterIsTheSumOfProducts(threads: Int) throws {
        let (rows, columns) = (37, 70)
        let x = try noise([rows, columns], seed: 12)
        let values = try x.elements(Float.self)
        func product(_ a: Int, _ b: Int) -> Double {
            (0..<rows).reduce(0.0) { $0 + Double(values[$1 * columns + a]) * Double(values[$1 * columns + b]) }
        }
        let scatter = ScatterMatrix(squares: (0..<columns).map { product($0, $0) })
        let pool = ThreadPool(threads: threads)
        for part in [0..<10, 10..<11, 11..<37] { scatter.add(x, rows: part, pool: pool) }
        for a in 0..<columns {
            for b in 0...a {
                // 37 products of numbers below 2, summed in fp32.
                #expect(abs(Double(scatter.values[a * columns + b]) - product(a, b)) < 1e-4, "\(a), \(b)")
            }
        }
    }

    /// Beside the plain form of GPTQ in double precision: each column's error is moved onto those behind it by the inverse Gram matrix
    /// of the columns that are left. Where a weight lies halfway between two integers the two may differ, and so may what follows in
    /// its row.
    @Test func compensationIsThatOfGPTQ() throws {
        let (inputs, outputs, samples) = (150, 70, 300)
        var generator = SplitMix64(state: 6)
        var x = (0..<samples * inputs).map { _ in Float(generator.uniform() - 0.5) }
        for index in 1..<x.count where index % inputs > 0 { x[index] += 0.8 * x[index - 1] }
        let factors = (0..<inputs).map { 0.5 + Float($0 % 7) / 4 }
        let weight = try noise([outputs, inputs], seed: 7)
        let scatter = try scatter(Tensor(x, shape: [samples, inputs]), parts: 2)
        let correlated = 1 - Double(scatter.shrinkage)
        #expect(correlated > 0.2 && correlated < 1)
        let found = try #require(Compensation(scatter, columnFactor: factors)).round(weight, groupSize: 50, columnFactor: factors)

        var hessian = Array(repeating: Array(repeating: 0.0, count: inputs), count: inputs)
        for a in 0..<inputs {
            for b in 0..<inputs {
                let sum = (0..<samples).reduce(0.0) { $0 + Double(x[$1 * inputs + a]) * Double(x[$1 * inputs + b]) }
                hessian[a][b] = (a == b ? 1 : correlated) * sum / Double(factors[a] * factors[b])
            }
        }
        let damping = 0.01 * (0..<inputs).reduce(0.0) { $0 + hessian[$1][$1] } / Double(inputs)
        for a in 0..<inputs { hessian[a][a] += damping }
        var inverse = inverted(hessian)
        let scales = try found.scales.elements(Float.self), integers = try found.weight.elements(Int8.self)
        var values = try weight.elements(Float.self).enumerated().map { Double($1 * factors[$0 % inputs]) }
        var equal = 0
        for column in 0..<inputs {
            for row in 0..<outputs {
                let scale = Double(scales[row * 3 + column / 50])
                let unit = max(-127, min(127, (values[row * inputs + column] / scale).rounded(.toNearestOrEven)))
                if Int(unit) == Int(integers[row * inputs + column]) { equal += 1 }
                let error = (values[row * inputs + column] - unit * scale) / inverse[column][column]
                for later in column..<inputs { values[row * inputs + later] -= error * inverse[column][later] }
            }
            // The inverse without this row and column of the matrix.
            let pivot = inverse[column]
            for a in column + 1..<max(column + 1, inputs) {
                let ratio = pivot[a] / pivot[column]
                for b in 0..<inputs { inverse[a][b] -= ratio * pivot[b] }
            }
        }
        #expect(Double(equal) > 0.99 * Double(inputs * outputs))
    }
}

/// Gauss and Jordan's, without pivoting: for positive definite matrices.
private func inverted(_ matrix: [[Double]]) -> [[Double]] {
    let n = matrix.count
    var left = matrix, right = (0..<n).map { row in (0..<n).map { $0 == row ? 1.0 : 0 } }
    for pivot in 0..<n {
        let factor = 1 / left[pivot][pivot]
        for column in 0..<n {
            (left[pivot][column], right[pivot][column]) = (left[pivot][column] * factor, right[pivot][column] * factor)
        }
        for row in 0..<n where row != pivot {
            let ratio = left[row][pivot]
            for column in 0..<n {
                left[row][column] -= ratio * left[pivot][column]
                right[row][column] -= ratio * right[pivot][column]
            }
        }
    }
    return right
}
