import ModelGraph
import Rewrites
import Testing

struct ViewTests {
    @Test func viewsThatCancelDisappear() throws {
        var m = Exported()
        let x = try m.input("x", [2, 6, 8])
        let heads = try m.transpose(m.reshape(x, [2, 6, 2, 4]), [0, 2, 1, 3])
        try m.output(m.reshape(m.transpose(heads, [0, 2, 1, 3]), [2, 6, 8]))
        #expect(try m.fused() == [])
    }

    @Test func aRowIsAGather() throws {
        var m = Exported()
        let x = try m.input("x", [2, 6, 8])
        let slice = try m.node(Slice(), [x, m.integers([2]), m.integers([3]), m.integers([1])])
        try m.output(m.node(Squeeze(), [slice, m.integers([1])]))
        #expect(try m.fused() == ["Gather"])
    }

    /// Adding the size once for each that is missing would take long, and end at a row that nobody asked for.
    @Test(arguments: [-8, .min, 5]) func aRowBeyondTheAxisStaysOne(index: Int) throws {
        var m = Exported()
        try m.output(m.node(Gather(axis: 1), [m.input("x", [2, 5, 3]), m.integers([index], scalar: true)]))
        try m.graph.fold()
        try m.graph.fuse(validating: true)
        #expect { try outputs(m.graph, m.inputs) } throws: { "\($0)".contains("found \(index)") }
    }

    @Test func transposesMoveBehindRowwiseOperatorsAndCancel() throws {
        var m = Exported()
        let x = try m.input("x", [2, 6, 8])
        let turned = try m.transpose(x, [1, 0, 2])
        let sum = try m.binary(.add, turned, m.linear(turned, 8, 8))
        try m.output(m.transpose(sum, [1, 0, 2]))
        #expect(try m.fused() == ["Binary", "Linear"])
    }

    @Test func rowsFlattenedInAnotherOrderMoveBehindLinear() throws {
        var m = Exported()
        let batch = Dimension(symbol: "batch")
        let x = try m.input("x", [2, 6, 8], dimensions: [batch, 6, 8])
        // As torch's MultiheadAttention writes it: heads apart, tokens first, all rows in one axis.
        let turned = try m.transpose(m.node(Reshape(), [x, m.integers([0, 0, 2, 4])]), [1, 0, 2, 3])
        let flat = try m.linear(m.node(Reshape(), [turned, m.integers([-1, 8])]), 8, 8)
        try m.output(m.transpose(m.node(Reshape(), [flat, m.integers([6, -1, 8])]), [1, 0, 2]))
        #expect(try m.fused() == ["Linear"])
    }

    @Test func anAxisOfOneElementIsNotMistakenForAnother() throws {
        var m = Exported()
        let x = try m.input("x", [3, 6, 1, 1])
        try m.output(m.linear(m.transpose(x, [1, 3, 0, 2]), 1, 8))
        #expect(try m.fused().contains("Linear"))
    }

    @Test func duplicatesAreComputedOnce() throws {
        var m = Exported()
        let x = try m.input("x", [2, 8])
        try m.output(m.binary(.add, m.unary(.exp, x), m.unary(.exp, x)))
        #expect(try m.fused() == ["Binary", "Unary"])
    }

    /// The same operands in other places make something else of a weight.
    @Test func boundsBelowAndAboveAreNoDuplicates() throws {
        var m = Exported()
        let (x, weight, bound) = (try m.input("x", [2, 300]), try m.constant([300, 300]), try m.scalar(-0.25))
        for bounds in [[bound], [nil, bound]] { try m.output(m.node(MatMul(), [x, m.node(Clip(), [weight] + bounds)])) }
        #expect(try m.fused() == ["Linear", "Linear"])
    }
}
