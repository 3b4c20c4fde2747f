import ModelGraph
import Tensors
import Testing

import Operators

struct IndexingTests {
    @Test func gathers() throws {
        let x = try counting([2, 3])
        try expect(run(Gather(axis: 1), x, integers([2, -3])), [2, 2], [2, 0, 5, 3])
        try expect(run(Gather(axis: 0), x, integers([1], [])), [3], [3, 4, 5])
        try expect(run(Gather(axis: 0), x, integers([], [0])), [0, 3], [])
        for index in [2, -3, Int64.max, .min] { try expectRefusal(Gather(axis: 0), x, integers([index])) }
        try expectRefusal(Gather(axis: 2), x, integers([0]))
        try expectRefusal(Gather(), scalar(1), integers([0]))
    }

    @Test func gathersElements() throws {
        let x = try counting([3, 3])
        try expect(run(GatherElements(axis: 0), x, integers([1, 2, 0, 2, 0, 0], [2, 3])), [2, 3], [3, 7, 2, 6, 1, 2])
        try expect(run(GatherElements(axis: 1), x, integers([0, -1], [1, 2])), [1, 2], [0, 2])
        try expectRefusal(GatherElements(axis: 0), x, integers([3], [1, 1]))
        try expectRefusal(GatherElements(axis: 0), x, integers([0, 0, 0, 0], [1, 4]))
    }

    @Test func gathersByTuples() throws {
        let x = try counting([2, 2, 2])
        try expect(run(GatherND(), x, integers([0, 1, 1, 0], [2, 2])), [2, 2], [2, 3, 4, 5])
        try expect(run(GatherND(batchDimensions: 1), x, integers([1, 0], [2, 1])), [2, 2], [2, 3, 4, 5])
        try expect(run(GatherND(), x, integers([-1, -1, -1], [3])), [], [7])
        try expectRefusal(GatherND(), x, integers([2], [1, 1]))
        try expectRefusal(GatherND(), x, integers([-3], [1, 1]))
        try expectRefusal(GatherND(batchDimensions: 2), x, integers([0], [1, 1]))
        try expectRefusal(GatherND(), x, integers([0, 0, 0, 0], [1, 4]))
    }

    @Test func scattersElements() throws {
        let x = try floats([1, 2, 3, 4, 5], [1, 5])
        try expect(
            run(ScatterElements(axis: 1), x, integers([1, -2], [1, 2]), floats([9, 8], [1, 2])), [1, 5], [1, 9, 3, 8, 5])
        let twice = try integers([1, 1], [1, 2])
        let updates = try floats([10, 20], [1, 2])
        for (reduction, expected) in [(ScatterReduction.add, 32.0), (.mul, 400), (.max, 20), (.min, 2)] {
            try expect(run(ScatterElements(axis: 1, reduction: reduction), x, twice, updates), [1, 5], [1, expected, 3, 4, 5])
        }
        try expectRefusal(ScatterElements(axis: 1), x, integers([5], [1, 1]), floats([0], [1, 1]))
    }

    @Test func scattersByTuples() throws {
        let x = try counting([4])
        try expect(run(ScatterND(), x, integers([3, 0], [2, 1]), floats([9, 8])), [4], [8, 1, 2, 9])
        try expect(run(ScatterND(reduction: .add), x, integers([1, 1], [2, 1]), floats([9, 8])), [4], [0, 18, 2, 3])
        try expectRefusal(ScatterND(), x, integers([4], [1, 1]), floats([9]))
        try expectRefusal(ScatterND(), x, integers([-5], [1, 1]), floats([9]))
        try expectRefusal(ScatterND(), x, integers([0], [1, 1]), floats([9, 9]))
    }

    @Test func findsTheLargestAndTheSmallest() throws {
        let x = try floats([1, 3, 2, 3, 0, .nan])
        let largest = try evaluate(TopK(), [x, integers([4])])
        try expect(largest[0], [4], [.nan, 3, 3, 2])
        try expect(largest[1], [4], [5, 1, 3, 2])
        let smallest = try evaluate(TopK(largest: false), [x, integers([2])])
        try expect(smallest[1], [2], [4, 0])
        let columns = try evaluate(TopK(axis: 0), [floats([1, 4, 2, 3], [2, 2]), integers([1])])
        try expect(columns[0], [1, 2], [2, 4])
        try expect(columns[1], [1, 2], [1, 0])
        try expectRefusal(TopK(), x, integers([7]))
        try expectRefusal(TopK(), x, integers([-1]))
    }

    @Test func encodesOneHot() throws {
        let values = try floats([0, 1])
        try expect(run(OneHot(), integers([1, -1, 5]), integers([3]), values), [3, 3], [0, 1, 0, 0, 0, 1, 0, 0, 0])
        try expect(run(OneHot(axis: 0), integers([1, 0]), scalar(2), values), [2, 2], [0, 1, 1, 0])
        try expectRefusal(OneHot(), integers([0]), integers([-1]), values)
        try expectRefusal(OneHot(), integers([0]), scalar(.nan), values)
    }

    @Test func listsWhatIsNotZero() throws {
        try expect(run(NonZero(), floats([1, 0, 0, .nan], [2, 2])), [2, 2], [0, 1, 0, 1])
        try expect(run(NonZero(), scalar(3)), [0, 1], [])
        try expect(run(NonZero(), floats([], [2, 0])), [2, 0], [])
    }

    @Test func cutsTriangles() throws {
        let x = try floats(Array(repeating: 1, count: 6), [2, 3])
        try expect(run(Trilu(), x), [2, 3], [1, 1, 1, 0, 1, 1])
        try expect(run(Trilu(), x, integers([1], [])), [2, 3], [0, 1, 1, 0, 0, 1])
        try expect(run(Trilu(upper: false), x, integers([-1])), [2, 3], [0, 0, 0, 1, 0, 0])
        try expect(run(Trilu(), x, integers([.min])), [2, 3], [1, 1, 1, 1, 1, 1])
        try expect(run(Trilu(), x, integers([.max])), [2, 3], [0, 0, 0, 0, 0, 0])
        try expect(run(Trilu(upper: false), x, integers([.max])), [2, 3], [1, 1, 1, 1, 1, 1])
    }

    /// Extremes in either order, with NaN on either side; sums and products of booleans are whether any and whether all are true.
    @Test func scattersExtremesAndBooleans() throws {
        let (data, updates, places) = (try floats([1, 3, .nan, 2]), try floats([2, 1, 1, .nan]), try integers([0, 1, 2, 3]))
        try expect(run(ScatterElements(reduction: .max), data, places, updates), [4], [2, 3, .nan, .nan])
        try expect(run(ScatterElements(reduction: .min), data, places, updates), [4], [1, 1, .nan, .nan])
        let (left, right) = (
            try Tensor([true, true, false, false], shape: [4]), try Tensor([true, false, true, false], shape: [4])
        )
        try expect(run(ScatterElements(reduction: .add), left, places, right), [4], [1, 1, 1, 0])
        try expect(run(ScatterElements(reduction: .mul), left, places, right), [4], [1, 0, 0, 0])
    }

    /// Indices that point nowhere leave a row of what is not the one.
    @Test func placesBeyondTheDepthAreNoOnes() throws {
        let made = try run(OneHot(), integers([0, 2, 3, -1, -3, -4]), integers([3]), floats([5, 7]))
        try expect(made, [6, 3], [7, 5, 5, 5, 5, 7, 5, 5, 5, 5, 5, 7, 7, 5, 5, 5, 5, 5])
    }
}
