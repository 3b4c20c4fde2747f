import ModelGraph
import Rewrites
import Tensors
import Testing

struct EmbeddingRewriteTests {
    /// Rows from the table's end, up to a number that has a symbol.
    @Test func rowsThatCountFromTheEndStay() throws {
        var m = Exported()
        let text = try m.input("text", [3, 4], dimensions: [Dimension(symbol: "n"), 4])
        let length = try m.node(Shape(start: 0, end: 1), [text])
        let places = try m.reshape(m.integers([-3, -2, -1]), [1, 3])
        let first = try m.node(Slice(), [places, m.integers([0]), length, m.integers([1])])
        try m.output(m.binary(.add, text, m.node(Gather(), [m.constant([6, 4]), first])))
        #expect(try m.fused() == ["Binary", "Embedding", "Slice"])
    }

    @Test func patchesOfConvolutionsAreEmbedded() throws {
        var m = Exported()
        let image = try m.input("image", [2, 3, 8, 8])
        let window = Window(strides: [4, 4], dilations: [1, 1], pads: [0, 0, 0, 0])
        let map = try m.node(Conv(window: window), [image, m.constant([6, 3, 4, 4]), m.constant([6])])
        let rows = try m.transpose(m.reshape(map, [2, 6, -1]), [0, 2, 1])
        let token = try m.node(Expand(), [m.constant([1, 1, 6]), m.integers([2, 1, 6])])
        try m.output(m.binary(.add, m.node(Concat(axis: 1), [token, rows]), m.constant([1, 5, 6])))
        #expect(try m.fused() == ["PatchEmbedding"])
    }

    /// As einops cuts patches: their elements in any order.
    @Test(arguments: [[0, 2, 4, 3, 5, 1], [0, 2, 4, 1, 3, 5], [0, 2, 4, 5, 1, 3]]) func patchesOfReshapesAreEmbedded(order: [Int])
        throws
    {
        var m = Exported()
        let image = try m.input("image", [2, 3, 8, 6])
        let cut = try m.transpose(m.reshape(image, [2, 3, 2, 4, 3, 2]), order)
        let tokens = try m.linear(m.reshape(cut, [2, 6, 24]), 24, 6)
        let token = try m.node(Tile(), [m.constant([1, 1, 6]), m.integers([2, 1, 1])])
        try m.output(m.binary(.add, m.node(Concat(axis: 1), [token, tokens]), m.constant([1, 7, 6])))
        #expect(try m.fused() == ["PatchEmbedding"])
    }

    /// Columns before rows, or parts of patches.
    @Test(arguments: [[0, 4, 2, 3, 5, 1], [0, 2, 5, 3, 4, 1]]) func otherPartsOfAnImageStay(order: [Int]) throws {
        var m = Exported()
        let image = try m.input("image", [2, 3, 8, 8])
        let cut = try m.transpose(m.reshape(image, [2, 3, 2, 4, 2, 4]), order)
        try m.output(m.linear(m.reshape(cut, [2, -1, 48]), 48, 6))
        #expect(try !m.fused().contains("PatchEmbedding"))
    }

    /// How many patches a picture has whose height no shape rule tells is counted from the convolution that the patch embedding
    /// takes the place of: it stays until the picture's size is known, for nothing else tells.
    @Test func patchesOfAnOpenPictureAreCounted() throws {
        var m = Exported()
        let whole = try m.input(
            "image", [2, 3, 15, 12], dimensions: [2, 3, Dimension(symbol: "height"), Dimension(symbol: "width")])
        let everyOther = [try m.integers([0]), try m.integers([.max]), try m.integers([2]), try m.integers([2])]
        let image = try m.node(Slice(), [whole] + everyOther)
        let map = try m.node(Conv(window: Window(strides: [4, 4])), [image, m.constant([8, 3, 4, 4]), m.constant([8])])
        let patches = try m.transpose(m.reshape(map, [2, 8, -1]), [0, 2, 1])
        let sizes = try m.node(Shape(start: 2, end: 4), [map])
        let count = try m.node(Reduce(.prod, keepDimensions: false), [sizes, m.integers([0])])
        let places = try m.node(Arange(), [m.integers([0], scalar: true), count, m.integers([1], scalar: true)])
        try m.output(m.binary(.add, patches, m.node(Unsqueeze(), [m.node(Cast(to: .float32), [places]), m.integers([0, 2])])))
        let operators = try m.fused()
        #expect(operators.contains("PatchEmbedding") && operators.contains("Conv"))
    }

    @Test func convolutionsThatOverlapStay() throws {
        var m = Exported()
        let image = try m.input("image", [2, 3, 8, 8])
        let map = try m.node(Conv(window: Window(strides: [2, 2])), [image, m.constant([6, 3, 4, 4]), m.constant([6])])
        try m.output(m.transpose(m.reshape(map, [2, 6, -1]), [0, 2, 1]))
        #expect(try m.fused().contains("Conv"))
    }

    @Test func wordsTypesAndPositionsAreFused() throws {
        var m = Exported()
        let ids = try m.mask(
            "ids", [[3, 1, 4, 1], [5, 9, 2, 6]], dimensions: [Dimension(symbol: "batch"), Dimension(symbol: "length")])
        let shape = try m.node(Shape(), [ids])
        let words = try m.node(Gather(axis: 0), [m.constant([10, 6]), ids])
        let none = try m.node(ConstantOfShape(), [shape, m.integers([0])])
        let types = try m.node(Gather(axis: 0), [m.constant([2, 6]), none])
        let length = try m.node(Gather(axis: 0), [shape, m.integers([1])])
        let table = try Tensor((0..<8).map { Int64($0) }, shape: [1, 8])
        let places = try m.graph.addConstant(Constant(table, identity: "places"), name: "places")
        let used = try m.node(Slice(), [places, m.integers([0]), length, m.integers([1])])
        let positions = try m.node(Gather(axis: 0), [m.constant([8, 6]), used])
        try m.output(m.binary(.add, m.binary(.add, words, types), positions))
        #expect(try m.fused() == ["Embedding", "Slice"])
    }

    /// Positions that are counted as the model runs, for all examples alike; OPT's start at 2.
    @Test(arguments: [0, 2], [false, true]) func positionsThatAreCountedAreFused(start: Int, forEach: Bool) throws {
        var m = Exported()
        let ids = try m.mask(
            "ids", [[3, 1, 4, 1], [5, 9, 2, 6]], dimensions: [Dimension(symbol: "batch"), Dimension(symbol: "length")])
        var places = try m.node(Unsqueeze(), [m.places(ids, axis: 1, from: start), m.integers([0])])
        if forEach { places = try m.node(Expand(), [places, m.node(Shape(), [ids])]) }
        let words = try m.node(Gather(axis: 0), [m.constant([10, 6]), ids])
        try m.output(m.binary(.add, words, m.node(Gather(axis: 0), [m.constant([8, 6]), places])))
        #expect(try m.fused() == ["Embedding", "Slice"])
    }

    /// A table of one row would serve all where it is cut, and refuses where it is looked up.
    @Test func positionsOfOneRowStay() throws {
        var m = Exported()
        let x = try m.input("x", [1, 6], dimensions: [Dimension(symbol: "length"), 6])
        try m.output(m.binary(.add, x, m.node(Gather(axis: 0), [m.constant([1, 6]), m.places(x, axis: 0)])))
        #expect(try !m.fused().contains("Slice"))
    }

    /// Hugging Face's BERT reads its token types, all of them 0, from a table of 0, at places that a RoBERTa computes.
    @Test func typesThatAreReadFromZerosAreFused() throws {
        var m = Exported()
        let ids = try m.mask(
            "ids", [[3, 1, 4, 1], [5, 9, 2, 6]], dimensions: [Dimension(symbol: "batch"), Dimension(symbol: "length")])
        let zeros = try m.graph.addConstant(
            Constant(Tensor([Int64](repeating: 0, count: 24), shape: [2, 12]), identity: "zeros"), name: "zeros")
        let types = try m.node(Gather(axis: 0), [m.constant([2, 6]), m.node(GatherElements(axis: 1), [zeros, ids])])
        try m.output(m.binary(.add, m.node(Gather(axis: 0), [m.constant([10, 6]), ids]), types))
        #expect(try m.fused() == ["Embedding"])
    }
}
