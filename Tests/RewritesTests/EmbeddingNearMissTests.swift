import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// What differs from the embedding of patches and words in one respect stays, with its numbers.
struct EmbeddingNearMissTests {
    enum Patches: CaseIterable {
        case plain, withoutBias, valid, grouped, padded, spread, sameSize, oneAxis, moved, flat
    }

    @Test(arguments: Patches.allCases) func onlyPlainPatchesAreEmbedded(form: Patches) throws {
        var m = Exported()
        let kernel = form == .spread ? 2 : 4
        let window = Window(
            strides: form == .oneAxis ? [4] : [kernel, kernel], dilations: form == .spread ? [2, 2] : nil,
            pads: form == .padded ? [2, 2, 2, 2] : nil, autoPad: form == .valid ? .valid : form == .sameSize ? .sameUpper : .notSet)
        let image = try m.input("image", form == .oneAxis ? [2, 3, 8] : form == .sameSize ? [2, 3, 6, 6] : [2, 3, 8, 8])
        let weight = try m.constant(form == .oneAxis ? [6, 3, 4] : [6, form == .grouped ? 1 : 3, kernel, kernel])
        let map = try m.node(
            Conv(window: window, groups: form == .grouped ? 3 : 1),
            [image, weight] + (form == .withoutBias ? [] : [m.constant([6])]))
        let rows = try m.transpose(m.reshape(map, [2, 6, -1]), form == .moved ? [2, 0, 1] : [0, 2, 1])
        try m.output(form == .flat ? m.reshape(rows, [8, 6]) : rows)
        let isFused = form == .plain || form == .withoutBias || form == .valid
        #expect(try m.fused().contains("PatchEmbedding") == isFused)
    }

    enum Tokens: CaseIterable {
        case each, eachAnother, two, twice, behindPositions, otherAxis, readTwice, rowForAll, positionsOfAnotherRank, positionsTwice
    }

    /// Tokens in front of patches, and positions, that the operator does not have.
    @Test(arguments: Tokens.allCases) func onlyATokenForEachExampleIsFused(form: Tokens) throws {
        var m = Exported()
        let size = form == .otherAxis ? 4 : 8
        // An expansion of sizes that are known is a constant.
        let image = try m.input(
            "image", [2, 3, size, size],
            dimensions: [form == .two ? Dimension(symbol: "batch") : 2, 3, Dimension(size), Dimension(size)])
        let patches = try m.node(PatchEmbedding(), [image, m.constant([6, 3, 4, 4]), m.constant([6])])
        let row = try m.numbers([6]).elements(Float.self)
        func token(_ shape: [Int]) throws -> ValueID {
            let count = shape.dropLast().reduce(1, *)
            return try m.graph.addConstant(
                Constant(Tensor((0..<count).flatMap { _ in row }, shape: shape), identity: "token \(shape)"), name: "token")
        }
        func joined(_ first: ValueID, _ rest: ValueID, axis: Int = 1) throws -> ValueID {
            try m.node(Concat(axis: axis), [first, rest])
        }
        if form == .readTwice { try m.output(m.unary(.exp, patches)) }
        let y =
            switch form {
            case .each, .readTwice: try joined(token([2, 1, 6]), patches)
            case .eachAnother: try joined(m.constant([2, 1, 6]), patches)
            case .two:
                try joined(
                    m.node(
                        Expand(),
                        [
                            token([1, 1, 6]),
                            m.node(Concat(axis: 0), [m.node(Shape(start: 0, end: 1), [image]), m.integers([2, 6])]),
                        ]), patches)
            case .twice: try joined(token([2, 1, 6]), joined(token([2, 1, 6]), patches))
            case .behindPositions: try joined(token([2, 1, 6]), m.binary(.add, patches, m.constant([1, 4, 6])))
            case .otherAxis: try joined(token([1, 1, 6]), patches, axis: 0)
            case .rowForAll: try m.binary(.add, patches, m.constant([6]))
            case .positionsOfAnotherRank: try m.binary(.add, patches, m.constant([1, 1, 4, 6]))
            case .positionsTwice: try m.binary(.add, m.constant([4, 6]), m.binary(.add, patches, m.constant([4, 6])))
            }
        try m.output(y)
        let operators = try m.fused()
        #expect(operators.count { $0 == "PatchEmbedding" } == 1 && (operators.count == 1) == (form == .each))
    }

    enum Lookup: CaseIterable {
        case oneAxis, integers, otherAxis, oneWord, readTwice, addendOfAnotherRank, threeAddends, backwards, shuffled, openShuffled,
            openRows, rowsOfRows, addendsOfExamples
    }

    @Test(arguments: Lookup.allCases) func onlyLookupsThatSuitAreFused(form: Lookup) throws {
        var m = Exported()
        let ids = try m.mask("ids", [[3, 1, 4, 1], [5, 0, 2, 5]])
        let text = try m.input("text", [3, 6], dimensions: [Dimension(symbol: "n"), 6])
        let length = try m.node(Shape(start: 0, end: 1), [text])
        func open(_ numbers: ValueID, axis: Int) throws -> ValueID {
            try m.node(Slice(), [numbers, m.integers([0]), length, m.integers([axis])])
        }
        func words() throws -> ValueID { try m.node(Gather(), [m.constant([6, 6]), ids]) }
        switch form {
        case .oneAxis: try m.output(m.node(Gather(), [m.constant([6]), ids]))
        case .integers:
            let table = try Tensor((0..<12).map { Int64($0 * $0) }, shape: [6, 2])
            try m.output(m.node(Gather(), [m.graph.addConstant(Constant(table, identity: "table"), name: "table"), ids]))
        case .otherAxis: try m.output(m.node(Gather(axis: 1), [m.constant([3, 6]), ids]))
        case .oneWord:
            let id = try m.graph.addInput("id", ValueType(.int64, []))
            m.inputs["id"] = try Tensor(scalar: Int64(4))
            try m.output(m.node(Gather(), [m.constant([6, 6]), id]))
        case .readTwice:
            let words = try words()
            try m.output(words)
            try m.output(m.binary(.add, words, m.constant([4, 6])))
        case .addendOfAnotherRank: try m.output(m.binary(.add, words(), m.constant([1, 1, 4, 6])))
        case .addendsOfExamples: try m.output(m.binary(.add, words(), m.constant([2, 4, 6])))
        case .threeAddends:
            try m.output(
                m.binary(.add, m.binary(.add, m.binary(.add, words(), m.constant([4, 6])), m.constant([6])), m.constant([4, 6])))
        case .backwards:
            try m.output(m.binary(.add, words(), m.node(Gather(), [m.constant([60, 6]), m.integers([-4, -3, -2, -1])])))
        case .shuffled: try m.output(m.binary(.add, words(), m.node(Gather(), [m.constant([60, 6]), m.integers([0, 2, 1, 3])])))
        case .openShuffled:
            try m.output(m.binary(.add, text, m.node(Gather(), [m.constant([60, 6]), open(m.integers([0, 2, 1, 3]), axis: 0)])))
        case .openRows:
            try m.output(m.node(Gather(), [m.constant([60, 6]), open(m.reshape(m.integers(Array(0..<8)), [4, 2]), axis: 0)]))
        case .rowsOfRows:
            try m.output(m.node(Gather(), [m.constant([60, 6]), open(m.reshape(m.integers(Array(0..<8)), [2, 4]), axis: 1)]))
        }
        let operators = try m.fused()
        let expected =
            switch form {
            case .oneAxis, .integers, .otherAxis, .oneWord: ["Gather"]
            case .readTwice, .addendOfAnotherRank, .threeAddends: ["Binary", "Embedding"]
            case .addendsOfExamples, .backwards, .shuffled: ["Embedding"]
            case .openShuffled: ["Binary", "Embedding", "Slice"]
            case .openRows, .rowsOfRows: ["Embedding", "Slice"]
            }
        #expect(operators == expected)
    }
}
