import ModelGraph
import Rewrites
import Testing

/// Blocks that are recognised: activations, norms and products. Attention, masks, embeddings and convolutions have their own tests.
struct FuseTests {
    @Test(arguments: 0..<6) func geluIsFused(variant: Int) throws {
        var m = Exported()
        let x = try m.input("x", [3, 8])
        func gate(_ function: ValueID) throws -> ValueID { try m.binary(.add, function, m.scalar(1)) }
        func cubic() throws -> ValueID {
            let cube = variant == 3 ? try m.node(Binary(.pow), [x, m.scalar(3)]) : try m.binary(.mul, x, m.binary(.mul, x, x))
            let sum = try m.binary(.add, x, m.binary(.mul, cube, m.scalar(0.044715)))
            return try m.unary(.tanh, m.binary(.mul, sum, m.scalar(0.7978845608)))
        }
        let y =
            switch variant {
            case 0:
                try m.binary(.mul, m.binary(.mul, x, gate(m.unary(.erf, m.binary(.div, x, m.scalar(1.4142135))))), m.scalar(0.5))
            case 1:
                try m.binary(.mul, x, m.binary(.mul, m.scalar(0.5), gate(m.unary(.erf, m.binary(.mul, x, m.scalar(0.70710678))))))
            case 2:
                try m.binary(.mul, m.binary(.mul, m.scalar(0.5), x), gate(m.unary(.erf, m.binary(.div, x, m.scalar(1.4142135)))))
            case 3, 4: try m.binary(.mul, m.binary(.mul, x, m.scalar(0.5)), gate(cubic()))
            default: try m.binary(.mul, x, m.unary(.sigmoid, m.binary(.mul, x, m.scalar(1.702))))
            }
        try m.output(y)
        #expect(try m.fused() == ["GELU"])
    }

    @Test func almostGELUStays() throws {
        var m = Exported()
        let x = try m.input("x", [3, 8])
        try m.output(m.binary(.mul, x, m.unary(.sigmoid, m.binary(.mul, x, m.scalar(1.7)))))
        #expect(try !m.fused().contains("GELU"))
    }

    @Test(arguments: 0..<4) func layerNormIsFused(variant: Int) throws {
        var m = Exported()
        let x = try m.input("x", [2, 3, 8])
        func mean(_ value: ValueID) throws -> ValueID { try m.node(Reduce(.mean), [value, m.integers([-1])]) }
        let centered = try m.binary(.sub, x, mean(x))
        let square = variant == 0 ? try m.binary(.mul, centered, centered) : try m.node(Binary(.pow), [centered, m.scalar(2)])
        let variance = try m.binary(.add, mean(square), m.scalar(1e-6))
        let normed =
            switch variant {
            case 2: try m.binary(.mul, centered, m.unary(.reciprocal, m.unary(.sqrt, variance)))
            case 3: try m.binary(.mul, centered, m.node(Binary(.pow), [variance, m.scalar(-0.5)]))
            default: try m.binary(.div, centered, m.unary(.sqrt, variance))
            }
        try m.output(m.binary(.add, m.binary(.mul, m.constant([8]), normed), m.constant([8])))
        #expect(try m.fused() == ["LayerNorm"])
    }

    @Test func gemmIsLinear() throws {
        for transposed in [false, true] {
            var m = Exported()
            let x = try m.input("x", [3, 8])
            try m.output(
                m.node(Gemm(transposeB: transposed), [x, m.constant(transposed ? [4, 8] : [8, 4]), m.constant([1, 4])]))
            #expect(try m.fused() == ["Linear"])
        }
    }

    @Test func linearOverFlattenedRowsKeepsItsShape() throws {
        var m = Exported()
        let x = try m.input("x", [2, 3, 8])
        let flat = try m.node(Gemm(), [m.reshape(x, [6, 8]), m.constant([8, 4]), m.constant([4])])
        try m.output(m.reshape(flat, [2, 3, 4]))
        #expect(try m.fused() == ["Linear"])
    }

    @Test(arguments: 0..<3) func l2NormalizationIsFused(variant: Int) throws {
        var m = Exported()
        let x = try m.input("x", [2, 8])
        let length =
            variant == 1
            ? try m.unary(.sqrt, m.node(Reduce(.sum), [m.binary(.mul, x, x), m.integers([1])]))
            : try m.node(Reduce(.l2), [x, m.integers([-1])])
        let bounded =
            variant == 2 ? try m.binary(.max, length, m.scalar(1e-12)) : try m.node(Clip(), [length, m.scalar(1e-12), nil])
        try m.output(m.binary(.div, x, m.node(Expand(), [bounded, m.node(Shape(), [x])])))
        #expect(try m.fused() == ["L2Normalize"])
    }

    @Test(arguments: [
        ("ij,jk->ki", [3, 4], [4, 5]), ("bij,bjk->bik", [2, 3, 4], [2, 4, 5]), ("...ij,...kj->...ik", [2, 3, 4], [2, 5, 4]),
        ("abc,bad->dbc", [2, 3, 4], [3, 2, 5]),
    ])
    func einsumsBecomeProductsOfMatrices(equation: String, left: [Int], right: [Int]) throws {
        var m = Exported()
        try m.output(m.node(Einsum(equation: equation), [m.input("a", left), m.input("b", right)]))
        let operators = try m.fused()
        #expect(operators.contains("MatMul") && !operators.contains("Einsum"))
    }

    /// Sums over no axis or two, diagonals, axes that one operand alone sums or has besides, and one of size 1 beside a longer one.
    @Test(arguments: [
        ("ij,ij->ij", [3, 4], [3, 4]), ("ij,ij->i", [3, 4], [3, 4]), ("iij,jk->ik", [3, 3, 4], [4, 5]),
        ("ijl,jk->ik", [3, 4, 2], [4, 5]), ("bij,bij->b", [2, 3, 4], [2, 3, 4]), ("ij,jkk->ik", [3, 4], [4, 5, 5]),
        ("ij,jkl->ikl", [3, 4], [4, 5, 2]), ("ij,jk->i", [3, 4], [4, 5]), ("ij,jk->ik", [2, 1], [3, 4]),
    ])
    func otherEinsumsStay(equation: String, left: [Int], right: [Int]) throws {
        var m = Exported()
        try m.output(m.node(Einsum(equation: equation), [m.input("a", left), m.input("b", right)]))
        #expect(try m.fused() == ["Einsum"])
    }
}
