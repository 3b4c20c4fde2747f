import ModelGraph
import Tensors
import TestSupport
import Testing

import Operators

struct UnaryTests {
    @Test func roundsHalvesToEven() throws {
        try expect(run(Unary(.round), floats([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])), [6], [-2, -2, 0, 0, 2, 2])
    }

    @Test func keepsNaN() throws {
        for kind in [Unary.Kind.sign, .relu, .hardSigmoid, .leakyRelu, .thresholdedRelu] {
            #expect(try run(Unary(kind), floats([.nan])).numbers()[0].isNaN, "\(kind)")
        }
    }

    @Test func doesNotOverflowFarFromZero() throws {
        try expect(run(Unary(.sigmoid), floats([-200, 0, 200])), [3], [0, 0.5, 1])
        try expect(run(Unary(.softplus), floats([-200, 0, 200])), [3], [0, 0.6931472, 200])
    }

    @Test func takesParametersOrTheirDefaults() throws {
        try expect(run(Unary(.leakyRelu), floats([-1, 1])), [2], [-0.01, 1])
        try expect(run(Unary(.leakyRelu, alpha: 0.5), floats([-1, 1])), [2], [-0.5, 1])
        try expect(run(Unary(.hardSigmoid), floats([-5, 0, 1, 5])), [4], [0, 0.5, 0.7, 1])
        try expect(run(Unary(.hardSwish), floats([-4, -1, 4])), [3], [0, -0.3333333, 4])
        try expect(run(Unary(.elu, alpha: 2), floats([-1, 1])), [2], [-1.2642411, 1])
    }

    @Test func tellsInfinitiesApart() throws {
        let x = try floats([-.infinity, 0, .infinity, .nan])
        try expect(run(Unary(.isInf), x), [4], [1, 0, 1, 0])
        try expect(run(Unary(.isPositiveInf), x), [4], [0, 0, 1, 0])
        try expect(run(Unary(.isNegativeInf), x), [4], [1, 0, 0, 0])
        try expect(run(Unary(.isNaN), x), [4], [0, 0, 0, 1])
    }

    @Test func wrapsAtTheLowestInteger() throws {
        let lowest = try Tensor([Int8.min, -3], shape: [2])
        try expect(run(Unary(.neg), lowest), [2], [-128, 3])
        try expect(run(Unary(.abs), lowest), [2], [-128, 3])
        try expect(run(Unary(.bitwiseNot), Tensor([UInt8(1)], shape: [1])), [1], [254])
    }

    @Test func computesHalfPrecisionInSingle() throws {
        let x = try floats([0.1, -2, 3]).converted(to: .float16)
        let y = try run(Unary(.exp), x)
        #expect(y.dataType == .float16)
        // One unit in the last of 11 bits.
        try expect(y, [3], [1.1051, 0.1353, 20.08], tolerance: 1e-3)
    }

    @Test func refusesTypesThatTheFunctionDoesNotTake() throws {
        try expectRefusal(Unary(.exp), integers([1]))
        try expectRefusal(Unary(.not), floats([1]))
        try expectRefusal(Unary(.bitwiseNot), floats([1]))
    }

    @Test func takesEmptyAndScalarTensors() throws {
        try expect(run(Unary(.neg), floats([], [2, 0])), [2, 0], [])
        try expect(run(Unary(.neg), scalar(2)), [], [-2])
    }

    @Test(arguments: Unary.Kind.allCases) func computesEveryKindForOneTypeThatItTakes(_ kind: Unary.Kind) throws {
        let values: [DataType] = [.float32, .int32, .bool]
        let computed = try values.filter { type in
            let x = try floats([0.25, 0.5]).converted(to: type)
            guard let y = try? run(Unary(kind), x) else { return false }
            return y.shape == [2]
        }
        #expect(!computed.isEmpty)
    }
}

struct BinaryTests {
    /// NaN wins, on either side.
    @Test func takesTheExtremesOfPairsInEitherOrder() throws {
        let (left, right): ([Float], [Float]) = ([1, 3, .nan, 2], [2, 1, 1, .nan])
        try expect(run(Binary(.max), floats(left), floats(right)), [4], [2, 3, .nan, .nan])
        try expect(run(Binary(.min), floats(left), floats(right)), [4], [1, 1, .nan, .nan])
        try expect(run(Binary(.max), integers([1, 3]), integers([2, 1])), [2], [2, 3])
        try expect(run(Binary(.min), integers([1, 3]), integers([2, 1])), [2], [1, 1])
    }

    @Test func comparesEqualAndUnequalPairs() throws {
        let kinds: [(Binary.Kind, [Double])] = [
            (.less, [1, 0, 0, 0]), (.lessOrEqual, [1, 1, 0, 0]), (.greater, [0, 0, 1, 0]), (.greaterOrEqual, [0, 1, 1, 0]),
            (.equal, [0, 1, 0, 0]),
        ]
        for (kind, expected) in kinds {
            try expect(run(Binary(kind), floats([1, 2, 3, .nan]), floats([2, 2, 2, 2])), [4], expected)
            try expect(run(Binary(kind), integers([1, 2, 3]), integers([2, 2, 2])), [3], Array(expected.prefix(3)))
        }
    }

    @Test func broadcasts() throws {
        let a = try floats([1, 2, 3], [3, 1])
        let b = try floats([10, 20], [2])
        try expect(run(Binary(.add), a, b), [3, 2], [11, 21, 12, 22, 13, 23])
        try expect(run(Binary(.sub), scalar(1), b), [2], [-9, -19])
        try expect(run(Binary(.mul), b, scalar(2)), [2], [20, 40])
        try expect(run(Binary(.add), counting([2, 1, 2]), counting([2, 1])), [2, 2, 2], [0, 1, 1, 2, 2, 3, 3, 4])
    }

    @Test func refusesShapesAndTypesThatDoNotFit() throws {
        try expectRefusal(Binary(.add), floats([1, 2]), floats([1, 2, 3]))
        try expectRefusal(Binary(.add), floats([1]), integers([1]))
        try expectRefusal(Binary(.mod), floats([1]), floats([1]))
    }

    @Test func dividesIntegersTowardsZeroAndNeverTraps() throws {
        try expect(run(Binary(.div), integers([-7, 7, 7]), integers([2, -2, 2])), [3], [-3, -3, 3])
        _ = try run(Binary(.div), integers([1, .min]), integers([0, -1]))
        _ = try run(Binary(.mod), integers([1, .min]), integers([0, -1]))
        _ = try run(Binary(.fmod), integers([1, .min]), integers([0, -1]))
        try expect(run(Binary(.add), integers([.max]), integers([1])), [1], [Double(Int64.min)])
        #expect(try run(Binary(.shiftLeft), Tensor([UInt8(1)], shape: [1]), Tensor([UInt8(200)], shape: [1])).numbers() == [0])
    }

    @Test func takesTheSignOfTheRestFromTheDivisorOrTheDividend() throws {
        let (a, b) = (try integers([-4, 7, 5, 4, -7, 8]), try integers([2, -3, 8, -2, 3, 5]))
        try expect(run(Binary(.mod), a, b), [6], [0, -2, 5, 0, 2, 3])
        try expect(run(Binary(.fmod), a, b), [6], [0, 1, 5, 0, -1, 3])
        try expect(run(Binary(.fmod), floats([-4.3, 7.2]), floats([2.1, -3.4])), [2], [-0.1, 0.4])
    }

    @Test func raisesToPowersOfOtherTypes() throws {
        try expect(run(Binary(.pow), floats([2, 3]), integers([3, 2])), [2], [8, 9])
        try expect(run(Binary(.pow), integers([2, -3, 2]), integers([10, 3, -1])), [3], [1024, -27, 0])
        try expect(run(Binary(.pow), integers([2, 4]), floats([0.5, 0.5])), [2], [1, 2])
    }

    @Test func letsNaNThroughMinimumAndMaximum() throws {
        let (a, b) = (try floats([.nan, 1, 2]), try floats([1, .nan, 1]))
        try expect(run(Binary(.max), a, b), [3], [.nan, .nan, 2])
        try expect(run(Binary(.min), a, b), [3], [.nan, .nan, 1])
        try expect(run(Binary(.equal), a, a), [3], [0, 1, 1])
    }

    @Test func comparesAllTypes() throws {
        for type in DataType.allCases where type != .bool {
            let (a, b) = (try floats([1, 2, 3]).converted(to: type), try floats([2, 2, 2]).converted(to: type))
            try expect(run(Binary(.less), a, b), [3], [1, 0, 0])
            try expect(run(Binary(.greaterOrEqual), a, b), [3], [0, 1, 1])
            try expect(run(Binary(.add), a, b), [3], [3, 4, 5])
        }
    }

    @Test func givesTheSameNumbersOnAnyNumberOfThreads() throws {
        let (a, b) = (try noise([300, 257]), try noise([257], seed: 2))
        let one = try evaluate(Binary(.mul), [a, b], on: .init(threads: 1))[0]
        let four = try evaluate(Binary(.mul), [a, b], on: .init(threads: 4))[0]
        #expect(try one.numbers() == four.numbers())
    }
}

struct OtherElementwiseTests {
    @Test func choosesByCondition() throws {
        let condition = try Tensor([true, false], shape: [2, 1])
        try expect(run(Where(), condition, floats([1, 2]), scalar(9)), [2, 2], [1, 2, 9, 9])
        try expectRefusal(Where(), floats([1]), floats([1]), floats([1]))
    }

    @Test func clips() throws {
        let x = try floats([-2, 0, 2, .nan])
        try expect(run(Clip(), x, scalar(-1), scalar(1)), [4], [-1, 0, 1, .nan])
        try expect(run(Clip(), x, nil, scalar(1)), [4], [-2, 0, 1, .nan])
        // Where the bounds cross, the upper one counts.
        try expect(run(Clip(), floats([0]), scalar(2), scalar(1)), [1], [1])
    }

    @Test func casts() throws {
        try expect(run(Cast(to: .int32), floats([-1.7, 1.7, 1e20])), [3], [-1, 1, Double(Int32.max)])
        try expect(run(Cast(to: .bool), floats([0, -0.5, .nan])), [3], [0, 1, 1])
    }
}
