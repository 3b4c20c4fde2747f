import ModelGraph
import Tensors
import Testing

/// A plan computes several operators at once where it can: here are those that look as if it could, held to each operator alone.
@Suite struct PlanTests {
    enum Attending: CaseIterable { case plain, otherWidthOfValues, sharedQueries, evenMask, rowMask, wholeMask, float64 }

    @Test(arguments: Attending.allCases) func attentionMatchesTheOperator(form: Attending) throws {
        var s = Sample()
        let type: DataType = form == .float64 ? .float64 : .float32
        let q = try s.input("q", [form == .sharedQueries ? 1 : 2, 5, 8], type)
        let k = try s.input("k", [2, 7, 8], type)
        let v = try s.input("v", [2, 7, form == .otherWidthOfValues ? 12 : 8], type)
        let mask: [ValueID] =
            switch form {
            case .evenMask: [try s.input("mask", [2, 1, 5, 1])]
            case .rowMask: [try s.input("mask", [7])]
            case .wholeMask: [try s.input("mask", [2, 2, 5, 7])]
            default: []
            }
        let read = try s.add(Attention(heads: 2), [q, k, v] + mask)
        try s.check([read])
    }

    /// Examples with one query each that share keys and values, as the hypotheses of a beam do.
    @Test(arguments: [[], [3, 1, 1, 7], [1, 1, 1, 7], [2, 1, 7], [3, 2, 1, 7], [7]])
    func singleQueriesShareKeys(mask: [Int]) throws {
        var s = Sample()
        let (q, k, v) = (try s.input("q", [3, 1, 8]), try s.input("k", [1, 7, 8]), try s.input("v", [1, 7, 8]))
        let masks = mask.isEmpty ? [] : [try s.input("mask", mask)]
        let read = try s.add(Attention(heads: 2), [q, k, v] + masks)
        try s.check([read])
    }

    @Test func otherTypesAreComputedByTheOperators() throws {
        var s = Sample()
        let x = try s.input("x", [2, 8], .float64)
        let norm = try s.add(LayerNorm(epsilon: 1e-6), [x, s.constant([8], .float64)])
        let linear = try s.add(Linear(), [norm, s.constant([4, 8], .float64), s.constant([4], .float64)])
        let image = try s.input("image", [1, 3, 4, 4], .float64)
        let patches = try s.add(PatchEmbedding(), [image, s.constant([4, 3, 2, 2], .float64)])
        try s.check([linear, patches], tolerance: 1e-9)
    }

    /// Weights, biases and images are usually weights or inputs; they may as well be the other way round.
    @Test func layersOfOtherOperandsAreComputedByTheOperators() throws {
        var s = Sample()
        let (x, weight, bias) = (try s.input("x", [3, 8]), try s.input("weight", [4, 8]), try s.input("bias", [4]))
        let linears = try [
            s.add(Linear(), [x, weight]), s.add(Linear(), [x, s.constant([4, 8]), bias]),
            s.add(Linear(), [s.constant([3, 8]), weight]),
            s.add(Linear(), [s.constant([3, 8]), s.constant([4, 8]), bias]), s.add(Linear(), [x, x]),
        ]
        let image = try s.constant([1, 3, 4, 4])
        let patches = try s.add(PatchEmbedding(), [image, s.constant([4, 3, 2, 2]), bias])
        try s.check(linears + [patches])
    }

    /// What is added behind a layer joins it where it is there already, has its shape, and nothing else reads the layer.
    @Test func sumsBehindLayersMatchTheOperators() throws {
        var s = Sample()
        let x = try s.input("x", [2, 3, 8])
        func layer() throws -> ValueID { try s.add(Linear(), [x, s.constant([8, 8])]) }
        let (doubled, read, first, second) = (try layer(), try layer(), try layer(), try layer())
        let squared = try s.add(Unary(.sin), [second])
        let sums = try [
            s.add(Binary(.add), [doubled, doubled]), read, s.add(Binary(.add), [read, x]), s.add(Binary(.add), [first, squared]),
            s.add(Binary(.add), [layer(), s.constant([8])]), s.add(Binary(.add), [layer(), s.input("more", [4, 1, 3, 8])]),
            s.add(Unary(.relu), [s.add(Binary(.sub), [layer(), x])]), s.add(Binary(.add), [s.add(GELU(.quick), [layer()]), x]),
        ]
        try s.check(sums)
    }

    /// What is computed behind each sum while it is in cache; other functions take a step of their own.
    @Test func activationsBehindLayersAreFused() throws {
        var s = Sample()
        let cases: [(any Operator, steps: Int)] = [
            (Unary(.relu), 1), (Unary(.sigmoid), 1), (Unary(.swish), 1), (Unary(.tanh), 1), (Unary(.erf), 1), (Unary(.exp), 1),
            (GELU(.tanh), 1), (Unary(.sin), 3), (Unary(.swish, alpha: 1.5), 3),
        ]
        for (op, steps) in cases {
            let (x, residual) = (try s.input("x\(s.numbers.count)", [5, 40]), try s.input("r\(s.numbers.count)", [5, 24]))
            let layer = try s.add(Linear(), [x, s.constant([24, 40]), s.constant([24])])
            let sum = try s.add(Binary(.add), [s.add(op, [layer]), residual])
            try s.check([sum])
            #expect(try s.kinds([sum]).count == steps)
        }
    }

    /// Rows of 512 numbers get space in between where a product reads them, whichever step writes them and whatever else reads
    /// them: as a residual, to be normalised, or in a way that needs them dense.
    @Test func rowsWithSpaceBetweenThemMatchTheOperators() throws {
        var s = Sample()
        let x = try s.input("x", [2, 9, 512])
        func layer(_ input: ValueID) throws -> ValueID { try s.add(Linear(), [input, s.constant([512, 512]), s.constant([512])]) }
        func norm(_ input: ValueID) throws -> ValueID { try s.add(LayerNorm(epsilon: 1e-6), [input, s.constant([512])]) }
        let first = try norm(x)
        let read = try s.add(Attention(heads: 2), [layer(first), layer(first), layer(first)])
        let second = try norm(s.add(Binary(.add), [layer(read), first]))
        let third = try s.add(GELU(.erf), [layer(second)])
        let fourth = try s.add(Binary(.add), [layer(third), second])
        let last = try [s.add(Unary(.sin), [second]), layer(norm(fourth)), layer(fourth), norm(third)]
        // Sums of 512 products below 4 in another order.
        try s.check(last, tolerance: 1e-3)
    }

    /// Rows are quantized once for all layers that read them with one scale, and normalised on the way where the norm is theirs.
    @Test(arguments: [false, true]) func quantizedLayersMatchTheOperators(isNormalised: Bool) throws {
        var s = Sample()
        let x = try s.input("x", [6, 40])
        let (gain, scale, other) = (try s.constant([40]), try s.constant([40]), try s.constant([40]))
        let norm = try s.add(LayerNorm(epsilon: 1e-6), [x, gain])
        let rows = isNormalised ? norm : x
        func layer(_ inputScale: ValueID?, _ activations: ActivationPrecision = .int8) throws -> ValueID {
            let levels = try s.random([16, 40]).elements(Float.self).map { Int8($0 * 254) }
            let scales = try Tensor([Float](repeating: 0.01, count: 16), shape: [16, 1])
            let op = QuantizedLinear(groupSize: 40, activations: activations)
            return try s.add(op, [rows, s.constant(Tensor(levels, shape: [16, 40])), s.constant(scales), nil, inputScale])
        }
        let layers = try [layer(nil), layer(scale), layer(other), layer(scale), layer(nil, .float32), layer(other, .float32)]
        // A level of an activation may round the other way: 1/127 of a row's largest number, times weights of 1.27.
        try s.check(layers + [norm], tolerance: 0.05)
    }

    /// A scale that is computed, not stored.
    @Test func scalesThatAreComputedFallBackToTheOperator() throws {
        var s = Sample()
        let levels = try s.random([16, 40]).elements(Float.self).map { Int8($0 * 254) }
        let scales = try Tensor([Float](repeating: 0.01, count: 16), shape: [16, 1])
        let operands = [
            try s.input("x", [6, 40]), try s.constant(Tensor(levels, shape: [16, 40])), try s.constant(scales), nil,
            try s.input("scale", [40]),
        ]
        let layer = try s.add(QuantizedLinear(groupSize: 40, activations: .float32), operands)
        try s.check([layer], tolerance: 1e-4)
    }
}
