import ModelGraph
import Tensors
import Testing

import Operators

struct ReductionTests {
    @Test(arguments: [
        (Reduce.Kind.sum, [3.0, 12]), (.mean, [1, 4]), (.max, [2, 5]), (.min, [0, 3]), (.prod, [0, 60]), (.l1, [3, 12]),
        (.l2, [2.236068, 7.0710678]), (.logSum, [1.0986123, 2.4849066]), (.logSumExp, [2.4076059, 5.4076059]),
        (.sumSquare, [5, 50]),
    ])
    func reducesTheLastAxis(_ kind: Reduce.Kind, _ expected: [Double]) throws {
        try expect(run(Reduce(kind), counting([2, 3]), integers([-1])), [2, 1], expected)
    }

    @Test(arguments: [
        (Reduce.Kind.max, [3.0, 3, 3]), (.min, [-1, -1, -1]), (.logSumExp, [3.3265626, 3.3265626, 3.3265626]), (.l1, [6, 6, 6]),
        (.prod, [-6, -6, -6]),
    ])
    func reducesNumbersInAnyOrder(_ kind: Reduce.Kind, _ expected: [Double]) throws {
        let numbers: [Float] = [3, -1, 2, -1, 3, 2, 2, 3, -1]
        try expect(run(Reduce(kind), floats(numbers, [3, 3]), integers([1])), [3, 1], expected)
        if kind != .logSumExp {
            try expect(run(Reduce(kind), integers(numbers.map { Int64($0) }, [3, 3]), integers([1])), [3, 1], expected)
        }
        let withNaN: [Float] = [.nan, -1, 2, -1, .nan, 2, 2, 3, .nan]
        try expect(run(Reduce(kind), floats(withNaN, [3, 3]), integers([1])), [3, 1], [.nan, .nan, .nan])
    }

    @Test(arguments: [[1], [0], [1, 2], [2, 1], [0, 1, 2], [0, 2], [2], [3], [2, 3]]) func extremesAlongAnyAxes(axes: [Int]) throws
    {
        let shape = [3, 5, 2, 7]
        var numbers = try noise(shape).elements(Float.self)
        numbers[100] = .nan
        let kept = shape.indices.map { axes.contains($0) ? 1 : shape[$0] }
        var largest = [Double](repeating: -.infinity, count: kept.reduce(1, *)), least = largest.map { -$0 }
        for (index, number) in numbers.enumerated() {
            var (rest, place, factor) = (index, 0, 1)
            for axis in shape.indices.reversed() {
                place += axes.contains(axis) ? 0 : rest % shape[axis] * factor
                rest /= shape[axis]
                factor *= kept[axis]
            }
            largest[place] = number.isNaN || largest[place].isNaN ? .nan : max(largest[place], Double(number))
            least[place] = number.isNaN || least[place].isNaN ? .nan : min(least[place], Double(number))
        }
        let stated = try integers(axes.map { Int64($0) })
        try expect(run(Reduce(.max), floats(numbers, shape), stated), kept, largest, tolerance: 0)
        try expect(run(Reduce(.min), floats(numbers, shape), stated), kept, least, tolerance: 0)
        let counts = try counting(shape).converted(to: .int32)
        let floating = try run(Reduce(.max), counting(shape), stated)
        try expect(run(Reduce(.max), counts, stated), kept, floating.numbers(), tolerance: 0)
    }

    /// Shifted by another number than the largest, the exponentials would be infinite.
    @Test func sumsExponentialsOfLargeNumbers() throws {
        try expect(run(Reduce(.logSumExp), floats([1000, 0, -1000]), nil), [1], [1000])
    }

    @Test(arguments: [
        (ArgReduce.Kind.max, false, [0.0, 2, 1, 0]), (.min, false, [1, 0, 1, 0]), (.max, true, [0, 2, 2, 2]),
        (.min, true, [1, 0, 2, 2]),
    ])
    func findsTheExtremeInAnyOrder(_ kind: ArgReduce.Kind, _ last: Bool, _ expected: [Double]) throws {
        let numbers: [Float] = [3, -1, 2, -1, 2, 3, 0, .nan, .nan, 1, 1, 1]
        try expect(
            run(ArgReduce(kind, axis: 1, keepDimensions: false, selectLastIndex: last), floats(numbers, [4, 3])), [4], expected)
    }

    @Test func reducesAnyAxes() throws {
        let x = try counting([2, 3, 2])
        try expect(run(Reduce(.sum, keepDimensions: false), x, integers([0, 2])), [3], [14, 22, 30])
        try expect(run(Reduce(.sum), x, integers([1])), [2, 1, 2], [6, 9, 24, 27])
        try expect(run(Reduce(.sum), x, nil), [1, 1, 1], [66])
        try expect(run(Reduce(.sum, noopWithEmptyAxes: true), counting([2]), integers([], [0])), [2], [0, 1])
        try expect(run(Reduce(.sum), scalar(3), nil), [], [3])
        try expectRefusal(Reduce(.sum), x, integers([3]))
        try expectRefusal(Reduce(.sum), x, integers([0, -3]))
    }

    @Test func knowsTheReductionOfNothing() throws {
        let empty = try floats([], [2, 0])
        let expected: [(Reduce.Kind, Double)] = [
            (.sum, 0), (.prod, 1), (.max, -.infinity), (.min, .infinity), (.logSum, -.infinity), (.logSumExp, -.infinity),
            (.mean, .nan), (.l2, 0),
        ]
        for (kind, value) in expected { try expect(run(Reduce(kind), empty, integers([1])), [2, 1], [value, value]) }
        try expect(run(Reduce(.max), Tensor([Int8](), shape: [0]), nil), [1], [-128])
    }

    @Test func keepsIntegersExactAndLetsNaNThrough() throws {
        let large = try integers([1 << 60, 3])
        try expect(run(Reduce(.max), large, nil), [1], [Double(Int64(1) << 60)])
        #expect(try run(Reduce(.sum), large, nil).elements(Int64.self) == [(1 << 60) + 3])
        try expect(run(Reduce(.mean), Tensor([Int8(100), 120], shape: [2]), nil), [1], [110])
        try expect(run(Reduce(.max), floats([1, .nan, 2]), nil), [1], [.nan])
        try expect(run(Reduce(.logSumExp), floats([1000, 1000]), nil), [1], [1000.6931472])
        try expect(run(Reduce(.min), Tensor([true, false], shape: [2]), nil), [1], [0])
    }

    /// 200 elements are more than an int8 counts, and their sum more than it holds.
    @Test func averagesMoreIntegersThanTheirTypeCounts() throws {
        try expect(run(Reduce(.mean, keepDimensions: false), Tensor([Int8](repeating: 100, count: 200), shape: [200])), [], [100])
        try expect(run(Reduce(.mean, keepDimensions: false), Tensor([UInt8](repeating: 7, count: 256), shape: [256])), [], [7])
        try expect(run(Reduce(.mean, keepDimensions: false), Tensor([Int8](), shape: [0])), [], [0])
    }

    @Test func findsThePlaceOfTheExtreme() throws {
        let x = try floats([1, 3, 3, 2, 0, 0], [2, 3])
        try expect(run(ArgReduce(.max, axis: 1), x), [2, 1], [1, 0])
        try expect(run(ArgReduce(.max, axis: -1, keepDimensions: false, selectLastIndex: true), x), [2], [2, 0])
        try expect(run(ArgReduce(.min, axis: 0, keepDimensions: false), x), [3], [0, 1, 1])
        try expect(run(ArgReduce(.max), floats([1, .nan, 5])), [1], [1])
        try expectRefusal(ArgReduce(.max), floats([], [0]))
    }

    @Test func sumsUp() throws {
        let x = try floats([1, 2, 3])
        try expect(run(CumSum(), x, integers([0], [])), [3], [1, 3, 6])
        try expect(run(CumSum(exclusive: true), x, integers([-1])), [3], [0, 1, 3])
        try expect(run(CumSum(reverse: true), x, integers([0])), [3], [6, 5, 3])
        try expect(run(CumSum(exclusive: true, reverse: true), x, integers([0])), [3], [5, 3, 0])
        try expect(run(CumSum(), counting([2, 2]), integers([0])), [2, 2], [0, 1, 2, 4])
        try expectRefusal(CumSum(), x, integers([1]))
    }

    @Test func weighsBySoftmax() throws {
        try expect(run(Softmax(), floats([1000, 1000, -.infinity], [1, 3])), [1, 3], [0.5, 0.5, 0])
        try expect(run(Softmax(axis: 0), floats([0, 1, 0, 1], [2, 2])), [2, 2], [0.5, 0.5, 0.5, 0.5])
        try expect(run(LogSoftmax(), floats([10000, 10001])), [2], [-1.3132617, -0.3132617])
        try expectRefusal(Softmax(axis: 1), floats([1]))
    }

    @Test func normalizesOverTheLastAxes() throws {
        let x = try floats([1, 3, 2, 6], [2, 2])
        let outputs = try evaluate(LayerNormalization(epsilon: 0, statistics: true), [x, floats([1, 2]), floats([0, 1])])
        try expect(outputs[0], [2, 2], [-1, 3, -1, 3])
        try expect(outputs[1], [2, 1], [2, 4])
        try expect(outputs[2], [2, 1], [1, 0.5])
        try expect(run(LayerNormalization(axis: 0, epsilon: 1), floats([1, 3]), floats([1, 1])), [2], [-0.7071068, 0.7071068])
        try expect(run(RMSNormalization(epsilon: 0), floats([3, 4], [1, 2]), floats([1, 2])), [1, 2], [0.8485281, 2.2627417])
        try expectRefusal(LayerNormalization(), x, floats([1, 2, 3]))
    }

    @Test func normalizesChannels() throws {
        let x = try floats([1, 3, 5, 5, 2, 4, 0, 8], [1, 4, 2])
        let (ones, zeros) = (try floats([1, 1, 1, 1]), try floats([0, 0, 0, 10]))
        try expect(
            run(InstanceNormalization(epsilon: 0), floats([1, 3, 2, 6], [1, 2, 2]), floats([1, 2]), floats([0, 1])), [1, 2, 2],
            [-1, 1, -1, 3])
        let perChannel = try run(GroupNormalization(groups: 2, epsilon: 0), x, ones, zeros)
        let root = 2.75.squareRoot(), wide = 8.75.squareRoot()
        try expect(
            perChannel, [1, 4, 2],
            [-2.5 / root, -0.5 / root, 1.5 / root, 1.5 / root, -1.5 / wide, 0.5 / wide, -3.5 / wide + 10, 4.5 / wide + 10])
        let perGroup = try run(GroupNormalization(groups: 2, epsilon: 0), x, floats([1, 2]), floats([0, 1]))
        try expect(
            perGroup, [1, 4, 2],
            [-2.5 / root, -0.5 / root, 1.5 / root, 1.5 / root, -3 / wide + 1, 1 / wide + 1, -7 / wide + 1, 9 / wide + 1])
        try expect(
            run(
                BatchNormalization(epsilon: 0), floats([1, 2, 3, 4], [1, 2, 2]), floats([1, 2]), floats([0, 1]), floats([1, 3]),
                floats([1, 4])),
            [1, 2, 2], [0, 1, 1, 2])
        try expectRefusal(GroupNormalization(groups: 3), x, ones, zeros)
        try expectRefusal(GroupNormalization(groups: 0), x, ones, zeros)
    }

    @Test func dividesByNorms() throws {
        try expect(run(LpNormalization(axis: 0), floats([3, 0, 4, 0], [2, 2])), [2, 2], [0.6, 0, 0.8, 0])
        try expect(run(LpNormalization(p: 1), floats([3, -1])), [2], [0.75, -0.25])
    }
}
