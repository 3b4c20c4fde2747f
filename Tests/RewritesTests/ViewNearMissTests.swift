import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// Arrangements of elements that look like others: whatever is made of them, the numbers stay, which `fused` compares.
struct ViewNearMissTests {
    enum Part: CaseIterable { case everySecond, backwards, backwardsAlongTwo, alongTwo, row, rowOfRow, lastRow, stackedRows }

    @Test(arguments: Part.allCases) func partsOfTokensKeepTheirNumbers(form: Part) throws {
        var m = Exported()
        let x = try m.input("x", [2, 6, 8])
        func slice(_ x: ValueID, _ starts: [Int], _ ends: [Int], _ axes: [Int], _ steps: [Int]? = nil) throws -> ValueID {
            try m.node(
                Slice(), [x, m.integers(starts), m.integers(ends), m.integers(axes)] + (steps.map { [try m.integers($0)] } ?? []))
        }
        let part =
            switch form {
            case .everySecond: try slice(x, [0], [6], [1], [2])
            case .backwards: try slice(x, [-1], [-7], [1], [-1])
            case .backwardsAlongTwo: try slice(x, [0, -1], [1, -9], [0, 2], [1, -1])
            case .alongTwo: try slice(x, [1, 2], [5, 6], [1, 2])
            case .row: try slice(x, [2], [3], [1])
            case .rowOfRow: try slice(slice(x, [1], [5], [1]), [1], [2], [1])
            case .lastRow: try m.node(Gather(axis: 1), [x, m.integers([-1], scalar: true)])
            case .stackedRows: try m.node(Gather(axis: 1), [x, m.integers([1, 0])])
            }
        try m.output(m.unary(.exp, m.reshape(part, [-1])))
        #expect(try m.fused().contains("Unary"))
    }

    /// Three views or more, of which some split axes and some do not.
    @Test(
        arguments: [
            ([2, 6, 8], [2, 2, 3, 8], [0, 2, 1, 3], [2, 6, 8]), ([2, 6, 8], [2, 6, 2, 4], [0, 1, 3, 2], [2, 6, 8]),
            ([2, 6, 8], [12, 8], [1, 0], [8, 12]),
            ([1, 6, 8], [6, 1, 8], [2, 1, 0], [8, 6]), ([4, 1, 4], [4, 4], [1, 0], [16]),
            ([2, 3, 2, 3], [2, 3, 6], [0, 2, 1], [2, 2, 3, 3]),
        ] as [([Int], [Int], [Int], [Int])])
    func chainsOfViewsKeepTheirNumbers(from: [Int], cut: [Int], order: [Int], to: [Int]) throws {
        var m = Exported()
        let x = try m.input("x", from)
        let turned = try m.transpose(m.reshape(x, cut), order)
        try m.output(m.reshape(turned, to))
        try m.output(m.unary(.exp, m.reshape(m.transpose(m.reshape(turned, to), Array(to.indices.reversed())), [-1])))
        #expect(try m.fused().contains("Unary"))
    }

    /// A 0 among the sizes of a reshape may mean the size that stood there before.
    @Test(arguments: [false, true], [1, 2]) func emptyAxesKeepTheirPlaces(isOpen: Bool, axis: Int) throws {
        var m = Exported()
        let x = try m.input("x", [2, 0, 3], dimensions: [2, isOpen ? Dimension(symbol: "n") : 0, 3])
        let moved = try m.node(Unsqueeze(), [m.node(Unsqueeze(), [x, m.integers([axis])]), m.integers([0])])
        try m.output(m.unary(.exp, moved))
        try m.output(m.node(Flatten(axis: 2), [moved]))
        #expect(try m.fused().contains("Unary"))
    }

    enum Pair: CaseIterable {
        case otherOrders, otherSources, row, rowOfOtherWidth, rowOfJoinedAxes, wholeTable, numberOfHigherRank, columnForEach
    }

    /// Operators over two values, one or both of which are arranged.
    @Test(arguments: Pair.allCases) func pairsOfArrangedOperandsKeepTheirNumbers(form: Pair) throws {
        var m = Exported()
        let (x, y) = (try m.input("x", [2, 2, 2]), try m.input("y", [2, 2, 2]))
        let wide = try m.input("wide", [2, 3, 4])
        let sum =
            switch form {
            case .otherOrders: try m.binary(.sub, m.transpose(x, [1, 0, 2]), m.transpose(y, [2, 1, 0]))
            case .otherSources: try m.binary(.sub, m.transpose(m.reshape(wide, [4, 6]), [1, 0]), m.reshape(wide, [6, 4]))
            case .row: try m.binary(.sub, m.reshape(wide, [6, 4]), m.constant([4]))
            case .rowOfOtherWidth: try m.binary(.sub, m.constant([6]), m.reshape(wide, [4, 6]))
            case .rowOfJoinedAxes: try m.binary(.sub, m.reshape(wide, [2, 12]), m.constant([12]))
            case .wholeTable: try m.binary(.mul, m.transpose(x, [1, 0, 2]), m.constant([2, 2, 2]))
            case .numberOfHigherRank: try m.binary(.mul, m.reshape(wide, [6, 4]), m.constant([1, 1, 1]))
            case .columnForEach: try m.binary(.mul, m.reshape(wide, [6, 4]), m.constant([6, 1]))
            }
        try m.output(m.unary(.exp, sum))
        #expect(try m.fused().contains("Binary"))
    }

    // MARK: What is known before the model runs

    @Test func theSameInEachPartIsNotTheSameInAll() throws {
        var m = Exported()
        let x = try m.input("x", [2, 6], dimensions: [Dimension(symbol: "batch"), 6])
        func same(_ number: Float) throws -> ValueID {
            try m.node(
                ConstantOfShape(),
                [m.node(Concat(axis: 0), [m.node(Shape(start: 0, end: 1), [x]), m.integers([3])]), m.scalar(number)])
        }
        try m.output(m.binary(.add, x, m.node(Concat(axis: 1), [same(0), same(1)])))
        try m.output(m.binary(.add, x, m.node(Concat(axis: 1), [same(0), same(-0.0)])))
        #expect(try m.fused().contains("Concat"))
    }

    /// Places from 0 on are not all 1 or more, and those that count down are not all 0 or more.
    @Test(arguments: [(1, 1), (0, -1)]) func boundsThatSomePlacesPassStay(bound: Int, step: Int) throws {
        var m = Exported()
        let x = try m.input("x", [3], dimensions: [Dimension(symbol: "n")])
        let count = try m.node(Gather(axis: 0), [m.node(Shape(), [x]), m.integers([0], scalar: true)])
        let end = try m.binary(.mul, count, m.integers([step], scalar: true))
        let places = try m.node(Arange(), [m.integers([0], scalar: true), end, m.integers([step], scalar: true)])
        let isBeyond = try m.binary(.greaterOrEqual, places, m.integers([bound], scalar: true))
        try m.output(m.binary(.add, x, m.node(Cast(to: .float32), [isBeyond])))
        #expect(try m.fused().contains("Cast"))
    }

    /// A sum that is much larger than what it is made of is not kept in its place.
    @Test func largeTablesOfSmallWeightsAreComputedAsTheModelRuns() throws {
        var m = Exported()
        let table = try m.binary(.add, m.constant([300, 1]), m.constant([1, 300]))
        try m.output(m.node(MatMul(), [m.input("x", [2, 300]), table]))
        // Sums of 300 products.
        #expect(try m.fused(tolerance: 1e-4).contains("Binary"))
    }

    /// Weights that an operator takes apart.
    @Test func partsOfWeightsKeepTheirNumbers() throws {
        var m = Exported()
        let x = try m.input("x", [2, 300])
        let parts = try m.graph.add(Split(axis: 1, outputs: 2), [m.constant([300, 300]), m.integers([100, 200])], name: "split")
        for part in parts { try m.output(m.node(MatMul(), [x, part])) }
        // Sums of 300 products.
        #expect(try m.fused(tolerance: 1e-4).filter { $0 != "Split" }.count == 2)
    }
}
