import ModelGraph
import Tensors
import Testing

import Operators

struct MovementTests {
    @Test func reshapes() throws {
        let x = try counting([2, 3, 4])
        #expect(try run(Reshape(), x, integers([0, -1])).shape == [2, 12])
        #expect(try run(Reshape(), x, integers([4, 1, -1, 2])).shape == [4, 1, 3, 2])
        #expect(try run(Reshape(allowZero: true), floats([], [0, 3]), integers([3, 0])).shape == [3, 0])
        #expect(try run(Reshape(), scalar(1), integers([], [0])).shape == [])
        try expectRefusal(Reshape(), x, integers([5, -1]))
        try expectRefusal(Reshape(), x, integers([-1, -1]))
        try expectRefusal(Reshape(), x, integers([.max, .max]))
        try expectRefusal(Reshape(), x, integers([-2, 12]))
    }

    @Test func squeezesAndUnsqueezes() throws {
        #expect(try run(Squeeze(), counting([1, 3, 1]), nil).shape == [3])
        #expect(try run(Squeeze(), counting([1, 3, 1]), integers([-1])).shape == [1, 3])
        #expect(try run(Unsqueeze(), counting([3]), integers([-1, 0])).shape == [1, 3, 1])
        #expect(try run(Flatten(axis: -1), counting([2, 3, 4])).shape == [6, 4])
        #expect(try run(Flatten(axis: 3), counting([2, 3, 4])).shape == [24, 1])
        try expectRefusal(Squeeze(), counting([2]), integers([0]))
        try expectRefusal(Unsqueeze(), counting([2]), integers([0, 0]))
        try expectRefusal(Flatten(axis: .min), counting([2]))
    }

    @Test func transposes() throws {
        let x = try counting([2, 3])
        try expect(run(Transpose(), x), [3, 2], [0, 3, 1, 4, 2, 5])
        try expect(run(Transpose(permutation: [1, 0, 2]), counting([2, 2, 2])), [2, 2, 2], [0, 1, 4, 5, 2, 3, 6, 7])
        for permutation in [[0, 0], [0], [0, 2], [0, .min], []] { try expectRefusal(Transpose(permutation: permutation), x) }
    }

    /// Sizes around the blocks of a kernel, alone and among other axes.
    @Test(arguments: [[1, 0], [0, 2, 1], [2, 1, 0], [0, 2, 3, 1], [3, 1, 0, 2]]) func transposesMatricesInBlocks(permutation: [Int])
        throws
    {
        let shape = [[130, 49], [3, 33, 70], [3, 19, 16, 35]].first { $0.count == permutation.count } ?? []
        for type in [DataType.float32, .int32, .int64] {
            let y = try run(Transpose(permutation: permutation), counting(shape).converted(to: type))
            let strides = permutation.map { shape[($0 + 1)...].reduce(1, *) }
            var expected = [0.0]
            for (axis, stride) in zip(permutation, strides) {
                expected = expected.flatMap { start in (0..<shape[axis]).map { start + Double($0 * stride) } }
            }
            #expect(y.shape == permutation.map { shape[$0] })
            #expect(try y.numbers() == expected, "\(type)")
        }
    }

    @Test func movesAllWidthsOfElements() throws {
        for type in DataType.allCases {
            let x = try counting([2, 2]).converted(to: type)
            let expected: [Double] = type == .bool ? [0, 1, 1, 1] : [0, 2, 1, 3]
            try expect(run(Transpose(), x), [2, 2], expected)
        }
    }

    @Test func joinsAndSplits() throws {
        let (a, b) = (try counting([2, 1]), try counting([2, 2]))
        try expect(run(Concat(axis: -1), a, b), [2, 3], [0, 0, 1, 1, 2, 3])
        try expect(run(Concat(axis: 0), b, floats([], [0, 2])), [2, 2], [0, 1, 2, 3])
        try expectRefusal(Concat(axis: 0), a, b)
        try expectRefusal(Concat(axis: 2), a, a)
        let parts = try evaluate(Split(axis: 1, outputs: 2), [counting([2, 3]), nil])
        try expect(parts[0], [2, 2], [0, 1, 3, 4])
        try expect(parts[1], [2, 1], [2, 5])
        let stated = try evaluate(Split(axis: 0, outputs: 2), [counting([3]), integers([3, 0])])
        #expect(stated.map(\.shape) == [[3], [0]])
        try expectRefusal(Split(axis: 0, outputs: 2), counting([3]), integers([3, 1]))
        try expectRefusal(Split(axis: 0, outputs: 0), counting([3]))
        try expectRefusal(Split(axis: 0, outputs: 2), counting([3]), integers([4, -1]))
    }

    @Test func slices() throws {
        let x = try counting([3, 4])
        try expect(run(Slice(), x, integers([1]), integers([.max])), [2, 4], [4, 5, 6, 7, 8, 9, 10, 11])
        try expect(run(Slice(), x, integers([-1]), integers([.min]), integers([1]), integers([-2])), [3, 2], [3, 1, 7, 5, 11, 9])
        try expect(run(Slice(), x, integers([3]), integers([1]), integers([-1])), [3, 0], [])
        try expect(run(Slice(), x, integers([0, 1]), integers([1, 3]), integers([0, 1]), integers([1, .max])), [1, 1], [1])
        try expectRefusal(Slice(), x, integers([0]), integers([1]), integers([0]), integers([0]))
        try expectRefusal(Slice(), x, integers([0, 0]), integers([1, 1]), integers([0, 0]))
        try expectRefusal(Slice(), x, integers([0]), integers([1]), integers([2]))
    }

    @Test(
        arguments: [
            (Pad.Mode.constant, [9, 9, 0, 1, 2, 9]), (.edge, [0, 0, 0, 1, 2, 2]), (.reflect, [2, 1, 0, 1, 2, 1]),
            (.wrap, [1, 2, 0, 1, 2, 0]),
        ] as [(Pad.Mode, [Double])])
    func pads(_ mode: Pad.Mode, _ expected: [Double]) throws {
        try expect(run(Pad(mode: mode), counting([3]), integers([2, 1]), scalar(9)), [6], expected)
    }

    @Test func padsStatedAxesAndCrops() throws {
        let x = try counting([2, 3])
        try expect(run(Pad(), x, integers([-1, 1]), nil, integers([-1])), [2, 3], [1, 2, 0, 4, 5, 0])
        // More reflections than the axis is long go to and fro.
        try expect(run(Pad(mode: .reflect), counting([2]), integers([3, 0])), [5], [1, 0, 1, 0, 1])
        try expectRefusal(Pad(), x, integers([-5, 0, 0, 0]))
        try expectRefusal(Pad(), x, integers([.max, 0, .max, 0]))
        try expectRefusal(Pad(mode: .edge), floats([], [0]), integers([1, 1]))
    }

    @Test func survivesPadsThatCropAllAndMore() throws {
        try expect(run(Pad(), floats([1, 2, 3]), integers([.min, .max])), [2], [0, 0])
    }

    @Test func expandsAndTiles() throws {
        try expect(run(Expand(), counting([2, 1]), integers([3, 1, 2])), [3, 2, 2], [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1])
        try expect(run(Tile(), counting([2, 2]), integers([1, 2])), [2, 4], [0, 1, 0, 1, 2, 3, 2, 3])
        try expect(run(Tile(), counting([2]), integers([0])), [0], [])
        try expectRefusal(Expand(), counting([2]), integers([3]))
        try expectRefusal(Expand(), counting([1]), integers([-1]))
        try expectRefusal(Tile(), counting([2]), integers([-1]))
        try expectRefusal(Tile(), counting([2]), integers([.max]))
    }

    @Test func makesTensorsFromSizes() throws {
        try expect(run(Shape(start: 1), counting([2, 3, 4])), [2], [3, 4])
        try expect(run(Shape(start: -9, end: -1), counting([2, 3, 4])), [2], [2, 3])
        try expect(run(Shape(start: .min, end: .max), counting([2])), [1], [2])
        try expect(run(Size(), counting([2, 3])), [], [6])
        try expect(run(ConstantOfShape(), integers([2]), nil), [2], [0, 0])
        try expect(run(ConstantOfShape(), integers([], [0]), integers([7])), [], [7])
        try expectRefusal(ConstantOfShape(), integers([-1]))
        try expect(run(Arange(), integers([10]), integers([4]), integers([-3])), [2], [10, 7])
        try expect(run(Arange(), scalar(0), scalar(1), scalar(0.25)), [4], [0, 0.25, 0.5, 0.75])
        try expect(run(Arange(), integers([3], []), integers([3], []), integers([1], [])), [0], [])
        try expectRefusal(Arange(), integers([0]), integers([1]), integers([0]))
        try expectRefusal(Arange(), scalar(0), scalar(.nan), scalar(1))
        try expectRefusal(Arange(), integers([.min]), integers([.max]), integers([1]))
    }
}

struct StridedLoopTests {
    @Test func visitsEachPlaceOnce() throws {
        // Against the definition of a transposition, over shapes that merge, split and vanish.
        for shape in [[2, 3, 4, 5], [1, 7, 1, 3], [5, 1, 1, 1], [2, 0, 3, 1]] {
            let x = try counting(shape)
            let permutation = [2, 0, 3, 1]
            let moved = try run(Transpose(permutation: permutation), x)
            let back = try run(Transpose(permutation: [1, 3, 0, 2]), moved)
            #expect(try back.numbers() == x.numbers())
            let strides = denseStrides(shape)
            var expected: [Double] = []
            for a in 0..<shape[2] {
                for b in 0..<shape[0] {
                    for c in 0..<shape[3] {
                        for d in 0..<shape[1] {
                            expected.append(Double(a * strides[2] + b * strides[0] + c * strides[3] + d * strides[1]))
                        }
                    }
                }
            }
            try expect(moved, permutation.map { shape[$0] }, expected)
        }
    }
}
