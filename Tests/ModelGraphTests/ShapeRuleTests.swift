import ModelGraph
import Support
import Tensors
import Testing

private let (n, batch) = (Dimension(symbol: "n"), Dimension(symbol: "batch"))

private func x(_ shape: Dimension..., type: DataType = .float32) -> Operand { Operand(ValueType(type, shape)) }
private func sizes(_ sizes: Dimension...) -> Operand {
    Operand(ValueType(.int64, [Dimension(sizes.count)]), content: .dimensions(sizes))
}
private func shape(_ op: any Operator, _ inputs: Operand?...) throws -> [Dimension] { try op.infer(inputs)[0].shape }

/// Rules where sizes are symbols; those for numbers are tested with the computations.
struct ShapeRuleTests {
    @Test func solvesTheOpenSizeOfAReshape() throws {
        #expect(try shape(Reshape(), x(batch, n, 64), sizes(0, 0, 4, -1)) == [batch, n, 4, 16])
        #expect(try shape(Reshape(), x(batch, n, 64), sizes(-1, 64)) == [batch.multiplied(by: n), 64])
        let tokens = try n.adding(1)
        #expect(try shape(Reshape(), x(batch, tokens, 64), sizes(batch, tokens, -1, 16)) == [batch, tokens, 4, 16])
        #expect(try shape(Reshape(), x(batch, n), sizes(5, -1))[1].symbols.contains("?"))
        #expect(try shape(Reshape(), x(batch, n), x(3, type: .int64)).count == 3)
        #expect(throws: TripsError.self) { try shape(Reshape(), x(n), x(n, type: .int64)) }
        #expect(throws: TripsError.self) { try shape(Reshape(), x(2), sizes(0, 0, 0)) }
        #expect(throws: TripsError.self) { try shape(Reshape(), x(5), sizes(2, -1)) }
    }

    @Test func slicesSymbols() throws {
        let tokens = try n.adding(1)
        #expect(try shape(Slice(), x(tokens), sizes(1), sizes(Dimension(.max))) == [n])
        #expect(try shape(Slice(), x(tokens), sizes(0), sizes(-1)) == [n])
        #expect(try shape(Slice(), x(512), sizes(0), sizes(n)) == [n])
        #expect(try shape(Slice(), x(tokens), sizes(-1), sizes(Dimension(Int(Int32.min))), sizes(0), sizes(-1)) == [tokens])
        // Whether n reaches 5 is not known.
        #expect(try shape(Slice(), x(n), sizes(0), sizes(5))[0].symbols.contains("?"))
        #expect(try shape(Slice(), x(n), sizes(2), sizes(Dimension(.max)))[0].symbols.contains("?"))
        // Nor whether n is 2 or more, or the end comes after the start.
        #expect(try shape(Slice(), x(n), sizes(0), sizes(2))[0].symbols.contains("?"))
        #expect(try shape(Slice(), x(n), sizes(n), sizes(0))[0].symbols.contains("?"))
        #expect(try shape(Slice(), x(n), sizes(-1), sizes(0), sizes(0), sizes(-1))[0].symbols.contains("?"))
        #expect(try shape(Slice(), x(n, 4), x(1, type: .int64), x(1, type: .int64), sizes(1))[0] == n)
    }

    @Test func broadcastsSymbols() throws {
        #expect(try shape(Binary(.add), x(batch, 1, n), x(n, 1)) == [batch, n, n])
        #expect(try shape(Expand(), x(1, n), sizes(batch, 1)) == [batch, n])
        #expect(try shape(Where(), x(n, type: .bool), x(), x(1)) == [n])
        #expect(try shape(Concat(axis: 1), x(batch, 1, 8), x(batch, n, 8)) == [batch, n.adding(1), 8])
        // A number says more than a symbol that must be equal to it.
        #expect(try shape(Concat(axis: 1), x(batch, 1), x(3, n)) == [3, n.adding(1)])
    }

    @Test func followsSymbolsThroughWindowsAndProducts() throws {
        let side = try n.multiplied(by: 16)
        let weight = x(64, 3, 16, 16)
        #expect(try shape(Conv(window: Window(strides: [16, 16])), x(batch, 3, side, side), weight) == [batch, 64, n, n])
        #expect(try shape(MaxPool(kernelShape: [3, 3], window: Window(pads: [1, 1, 1, 1])), x(1, 1, n, n)) == [1, 1, n, n])
        let patches = try #require(n.divided(roundingDownBy: 16))
        #expect(try shape(Conv(window: Window(strides: [16, 16])), x(batch, 3, n, n), weight) == [batch, 64, patches, patches])
        #expect(try shape(PatchEmbedding(), x(batch, 3, n, n), weight) == [batch, patches.multiplied(by: patches), 64])
        // A window that would begin behind the end is none.
        #expect(
            try shape(MaxPool(kernelShape: [2], window: Window(strides: [3], pads: [0, 1]), ceilMode: true), x(1, 1, 3))[2] == 1)
        // One window more where some are left over.
        #expect(
            try shape(MaxPool(kernelShape: [2, 2], window: Window(strides: [2, 2]), ceilMode: true), x(1, 1, n, n))[2] == .unknown)
        #expect(try shape(MatMul(), x(batch, n, 8), x(8, 4)) == [batch, n, 4])
        #expect(try shape(Einsum(equation: "bld,bmd->blm"), x(batch, n, 8), x(batch, 5, 8)) == [batch, n, 5])
        let products = try MatMul().multiplyAccumulates([x(batch, n, 8).type, x(8, 4).type], [ValueType(.float32, [batch, n, 4])])
        #expect(products?.description == "32*batch*n")
    }

    @Test func countsRanges() throws {
        let (zero, one) = (sizes(0), sizes(1))
        #expect(try shape(Arange(), zero, sizes(n), one) == [n])
        #expect(try shape(Arange(), one, sizes(n.adding(1)), one) == [n])
        // Whether n comes after 5 is not known.
        #expect(try shape(Arange(), sizes(5), sizes(n), one)[0].symbols.contains("?"))
        #expect(try shape(Arange(), x(type: .int64), x(type: .int64), x(type: .int64))[0].symbols.contains("?"))
    }

    @Test func tellsRanksWhereNumbersAreUnknown() throws {
        let axes = x(1, type: .int64)
        #expect(try shape(Squeeze(), x(1, n), axes).count == 1)
        #expect(try shape(Unsqueeze(), x(1, n), axes).count == 3)
        #expect(try shape(Reduce(.sum, keepDimensions: false), x(1, n), axes).count == 1)
        #expect(try shape(Pad(), x(n, 2), x(4, type: .int64)).count == 2)
        #expect(try shape(TopK(), x(n, 2), x(1, type: .int64))[0] == n)
        #expect(throws: TripsError.self) { try shape(Squeeze(), x(1, n), nil) }
        #expect(throws: TripsError.self) { try shape(Squeeze(), x(1), x(2, type: .int64)) }
    }

    /// What binary fractions make of decimal ones is no reason to keep one more.
    @Test(arguments: [(0.7, 10, 7), (0.55, 100, 55), (0.07, 100, 7), (0.5, 3, 2), (1, 9, 9), (1e-12, 9, 0)])
    func aKeepRateIsDecimal(rate: Double, count: Int, kept: Int) {
        #expect(PatchSelection(heads: 1, keepRate: rate).keptCount(of: count) == kept)
    }

    @Test func aScaleThatIsNoWholeNumberTellsNoSize() throws {
        func resized(_ scale: Float) throws -> Dimension {
            let scales = Operand(ValueType(.float32, [1]), content: .tensor(Constant(try Tensor([scale], shape: [1]))))
            return try shape(Resize(), x(n), nil, scales)[0]
        }
        #expect(try resized(2) == n.multiplied(by: 2) && resized(1.5).symbols.contains("?"))
    }

    /// Along the axis itself there may be more indices than elements.
    @Test func indicesMayRepeat() throws {
        #expect(try shape(GatherElements(axis: 0), x(2, 3), x(5, 3, type: .int64)) == [5, 3])
        #expect(throws: TripsError.self) { try shape(GatherElements(axis: 0), x(2, 3), x(2, 4, type: .int64)) }
    }

    @Test func survivesTheLargestSizes() throws {
        let huge = Dimension(.max)
        func numbers(_ numbers: [Float], _ shape: [Int]? = nil) throws -> Operand {
            let tensor = try Tensor(numbers, shape: shape ?? [numbers.count])
            return Operand(ValueType(.float32, tensor.shape.map { Dimension($0) }), content: .tensor(Constant(tensor)))
        }
        func number(_ number: Float) throws -> Operand { try numbers([number], []) }
        let ops: [(any Operator, [Operand?])] = try [
            (Flatten(), [x(huge, huge)]), (Pad(), [x(huge), sizes(1, 1)]), (Tile(), [x(huge), sizes(2)]),
            (Concat(axis: 0), [x(huge), x(huge)]),
            (Conv(), [x(1, 1, huge), x(1, 1, 3)]), (ConvTranspose(window: Window(strides: [2])), [x(1, 1, huge), x(1, 1, 3)]),
            (MaxPool(kernelShape: [2], window: Window(pads: [9, 9])), [x(1, 1, huge)]),
            (Resize(), [x(huge), nil, Operand(ValueType(.float32, [1]))]),
            (Slice(), [x(huge), sizes(-1), sizes(huge), nil, sizes(1)]), (Split(outputs: 3), [x(huge)]),
            (Reshape(), [x(huge, 2), sizes(-1)]),
            (Slice(), [x(-5), sizes(0), sizes(3)]), (Split(outputs: 2), [x(-5)]), (MaxPool(kernelShape: [2]), [x(1, 1, -5)]),
            (GlobalPool(.max), [x(1, 1, huge)]),
            (MaxPool(kernelShape: [1 << 20, 1 << 20], window: Window(pads: Array(repeating: 1 << 20, count: 4))), [x(1, 1, 9, 9)]),
            (ConvTranspose(window: Window(strides: [1 << 20]), outputShape: [4]), [x(0, 1, huge), x(1, 1, 3)]),
            // Numbers of sizes that no operand states, and numbers beyond all sizes.
            (ConstantOfShape(), [x(huge, type: .int64)]), (Reshape(), [x(n), x(huge, type: .int64)]),
            (Expand(), [x(n), x(huge, type: .int64)]),
            (Tile(), [x(n), x(huge, type: .int64)]), (Unsqueeze(), [x(n), x(huge, type: .int64)]),
            (Squeeze(), [x(n), x(huge, type: .int64)]),
            (Slice(), [x(n), x(huge, type: .int64), x(huge, type: .int64)]), (Arange(), [number(1e30), number(0), number(1)]),
            (Resize(coordinates: .tfCropAndResize, axes: [0]), [x(n), numbers([0, -1e30]), numbers([1e9])]),
        ]
        for (op, inputs) in ops {
            // Either an answer or an error of ours; a trap would end the tests.
            do { _ = try op.infer(inputs) } catch { #expect(error is TripsError, "\(op)") }
        }
    }

    // MARK: Refusals

    private static func i(_ shape: Dimension...) -> Operand { Operand(ValueType(.int64, shape)) }
    private static func b(_ shape: Dimension...) -> Operand { Operand(ValueType(.bool, shape)) }
    private static func bytes(_ shape: Dimension...) -> Operand { Operand(ValueType(.int8, shape)) }

    /// What operators are not made for, each beside what they are: one operand differs.
    static let refusals: [(what: String, op: any Operator, sound: [Operand?], unsound: [[Operand?]])] = [
        (
            "patches", PatchEmbedding(), [x(2, 3, 8, 8), x(6, 3, 4, 4), x(6), x(6)],
            [[x(2, 3, 8, 8), x(6, 3, 4, 4), x(6), x(5)], [x(2, 3, 8, 8), x(6, 3, 0, 4)], [x(2, 3, 8, 8), x(6, 2, 4, 4)]]
        ),
        (
            "rows", Linear(), [x(2, 8), x(4, 8), x(4)],
            [[x(2, 7), x(4, 8)], [x(2, 8), x(4, 8), x(3)], [x(), x(4, 8)], [i(2, 8), i(4, 8)]]
        ),
        (
            "groups", QuantizedLinear(groupSize: 4, activations: .int8), [x(2, 8), bytes(4, 8), x(4, 2)],
            [[x(2, 8), x(4, 8), x(4, 2)], [x(2, 8), bytes(4, 8), x(4, 1)], [x(2, 8), bytes(4, n), x(4, 2)]]
        ),
        (
            "no groups", QuantizedLinear(groupSize: 8, activations: .int8), [x(2, 8), bytes(4, 8), x(4, 1)],
            [[x(2, 8), bytes(4, 8), x(4, 8)]]
        ),
        (
            "heads", Attention(heads: 3), [x(1, 5, 6), x(1, 7, 6), x(1, 7, 9)],
            [
                [x(1, 5, 8), x(1, 7, 8), x(1, 7, 9)], [x(1, 5, 6), x(1, 7, 6), x(1, 7, 8)], [x(1, 5, 6), x(1, 7, 9), x(1, 7, 9)],
                [x(1, 5, n), x(1, 7, n), x(1, 7, 9)],
            ]
        ),
        (
            "a mask of more axes", Attention(heads: 2), [x(1, 5, 6), x(1, 7, 6), x(1, 7, 6), x(1, 2, 5, 7)],
            [
                [x(1, 5, 6), x(1, 7, 6), x(1, 7, 6), x(1, 1, 2, 5, 7)], [x(1, 5, 6), x(1, 7, 6), x(1, 7, 6), x(1, 3, 5, 7)],
                [x(1, 5, 6), x(1, 7, 6), x(1, 7, 6), x(5, 6)],
            ]
        ),
        (
            "words", Embedding(), [i(2, 3), x(9, 4), x(3, 4)],
            [[x(2, 3), x(9, 4)], [b(2, 3), x(9, 4)], [i(2, 3), x(9, 4), x(2, 4)], [i(2, 3), i(9, 4)]]
        ),
        (
            "words of int8", QuantizedEmbedding(), [i(2, 3), bytes(9, 4), x(9)],
            [[i(2, 3), x(9, 4), x(9)], [i(2, 3), bytes(9, 4), x(8)]]
        ),
        ("bounds", Clip(), [x(2), x(), x()], [[b(2), b()], [x(2), x(2)], [x(2), nil, x(3)]]),
        ("numbers", Binary(.add), [x(2), x(2)], [[b(2), b(2)], [x(2), i(2)], [x(2), x(3)]]),
        ("powers", Binary(.pow), [x(2), i(2)], [[b(2), x(2)], [x(2), b(2)]]),
        (
            "places of all axes", GatherND(batchDimensions: 1), [x(2, 3, 4), i(2, 1)],
            [[x(2, 3, 4), i(3, 1)], [x(2, 3, 4), i(2, 3)], [x(2), i()]]
        ),
        ("the largest", TopK(), [x(5), i(1)], [[b(5), i(1)], [x(5), i(2)], [x(5), sizes(6)], [x(5), sizes(-1)]]),
        (
            "ones and zeros", OneHot(), [i(3), i(1), x(2)],
            [[b(3), i(1), x(2)], [i(3), i(2), x(2)], [i(3), i(1), x(3)], [i(3), sizes(-1), x(2)]]
        ),
        ("triangles", Trilu(), [x(3, 3), i()], [[x(3), i()], [x(3, 3), i(2)], [x(3, 3), x()]]),
        ("products", MatMul(), [x(2, 3), x(3, 4)], [[b(2, 3), b(3, 4)], [x(2, 3), x(4, 4)], [x(2, 3), x()], [x(), x(3, 4)]]),
        (
            "products of matrices", Gemm(), [x(2, 3), x(3, 4), x(4)],
            [[b(2, 3), b(3, 4)], [x(2, 3), x(4, 4)], [x(2, 3), x(3, 4), x(3)]]
        ),
        (
            "sums of products", Einsum(equation: "ij,jk->ik"), [x(2, 3), x(3, 4)],
            [[x(2, 3), i(3, 4)], [b(2, 3), b(3, 4)], [x(2, 3), x(5, 4)], [x(2, 3), x(3)], [x(2, 3)]]
        ),
        (
            "heads of ONNX", OnnxAttention(), [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 3)],
            [
                [x(1, 2, 5, 4), x(3, 2, 7, 4), x(3, 2, 7, 3)], [x(1, 2, 5, 4), x(1, 2, 7, 4), x(3, 2, 7, 3)],
                [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 1, 7, 3)],
                [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 6, 3)], [x(1, 2, 5, 4), x(1, 2, 7, 3), x(1, 2, 7, 3)],
                [x(1, 3, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 3)],
                [x(1, 2, 5, 4), x(1, 0, 7, 4), x(1, 0, 7, 3)], [x(2, 5, 4), x(2, 7, 4), x(2, 7, 4)], [x(5, 4), x(7, 4), x(7, 4)],
            ]
        ),
        (
            "masks of ONNX", OnnxAttention(), [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 4), b(5, 7), x(1, 2, 3, 4), x(1, 2, 3, 4)],
            [
                [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 4), i(5, 7)],
                [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 4), x(1, 1, 1, 5, 7)],
                [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 4), x()],
                [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 4), nil, x(1, 2, 3, 4)],
                [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 4), nil, nil, x(1, 2, 3, 4)],
                [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 4), nil, x(1, 2, 3, 4), x(1, 2, 2, 4)],
            ]
        ),
        ("no outputs", OnnxAttention(outputs: 4), [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 4)], [[x(1, 2, 5, 4)]]),
        ("levels", QuantizeLinear(), [x(2, 3), x(), Operand(ValueType(.uint8, []))], [[b(2, 3), x()], [i(2, 3), x()]]),
        ("numbers of levels", DequantizeLinear(), [bytes(2, 3), x(3), bytes(3)], [[x(2, 3), x(3)], [bytes(2, 3), x(3, 3, 3)]]),
        ("numbers to be levels", DynamicQuantizeLinear(), [x(2, 3)], [[i(2, 3)]]),
        (
            "products of levels", MatMulInteger(), [bytes(2, 3), bytes(3, 4), bytes(2), bytes(4)],
            [
                [x(2, 3), bytes(3, 4)], [bytes(2, 3), x(3, 4)], [bytes(2, 3), bytes(4, 4)], [bytes(2, 3), bytes(3, 4), bytes(3)],
                [bytes(2, 3), bytes(3, 4), x()], [bytes(2, 3), bytes(3, 4), nil, bytes(3)], [bytes(2, 3), bytes(3, 4), nil, i()],
            ]
        ),
        (
            "kernels of levels", ConvInteger(), [bytes(1, 3, 8), bytes(4, 3, 2), bytes(), bytes(4)],
            [
                [x(1, 3, 8), bytes(4, 3, 2)], [bytes(1, 3, 8), bytes(4, 2, 2)], [bytes(1, 3, 8), bytes(4, 3, 2), bytes(3)],
                [bytes(1, 3, 8), bytes(4, 3, 2), i()], [bytes(1, 3, 8), bytes(4, 3, 2), nil, bytes(3)],
            ]
        ),
        ("sums", Reduce(.sum), [x(2, 3), i(1)], [[b(2, 3), i(1)], [x(2, 3), i(3)], [x(2, 3), x(1)]]),
        ("running sums", CumSum(), [x(2, 3), i()], [[b(2, 3), i()], [x(2, 3), i(2)]]),
        ("places of the largest", ArgReduce(.max), [x(2, 3)], [[b(2, 3)], [x(0, 3)]]),
        (
            "channels", GroupNormalization(groups: 2), [x(1, 4, 3), x(4), x(2)],
            [[x(4), x(4), x(4)], [x(1, 3, 3), x(3), x(3)], [x(1, 4, 3), x(3), x(4)], [x(1, 4, 3), x(4), x(4, 1)]]
        ),
        (
            "channels of examples", InstanceNormalization(), [x(1, 4, 3), x(4), x(4)],
            [[x(4), x(4), x(4)], [x(1, 4, 3), x(3), x(4)]]
        ),
        ("lengths", LpNormalization(p: 2), [x(2, 3)], [[i(2, 3)]]),
        ("scales of rows", RMSNormalization(), [x(2, 2), x(1, 2)], [[x(2, 2), x(2, 2, 2)], [x(2, 2), x(3)]]),
        (
            "a zero point for all rows", MatMulInteger(), [bytes(2, 3), bytes(3, 4), bytes(1)],
            [[bytes(2, 3), bytes(3, 4), bytes(3)]]
        ),
        ("the same", ConstantOfShape(), [i(2), x(1)], [[i(2), x(2)], [x(2), x(1)], [i(2, 2), x(1)]]),
        ("repetitions", Tile(), [x(2, 3), i(2)], [[x(2, 3), i(3)], [x(2, 3), sizes(1, -1)]]),
        (
            "shapes", Reshape(), [x(2, 3), sizes(3, 2)],
            [[x(2, 3), sizes(4, 2)], [x(2, 3), sizes(0, 4)], [x(2, 3), sizes(-1, -1)]]
        ),
        ("parts", Concat(axis: 0), [x(2, 3), x(4, 3)], [[x(2, 3), x(4, 2)], [x(2, 3), x(3)], [x(2, 3), i(4, 3)]]),
        ("splits", Split(outputs: 2), [x(4), i(2)], [[x(4), i(3)], [x(4), sizes(1, 2)], [x(4), sizes(5, -1)]]),
        (
            "slices", Slice(), [x(4), i(1), i(1)],
            [[x(4), i(1), i(2)], [x(4), sizes(0), sizes(1), sizes(0), sizes(0)], [x(4), i(2), i(2)]]
        ),
        ("borders", Pad(), [x(2, 3), i(4), x()], [[x(2, 3), i(3)], [x(2, 3), i(4), x(2)]]),
        (
            "kernels", Conv(), [x(1, 3, 8), x(4, 3, 2), x(4)],
            [[x(1, 3), x(4, 3)], [x(1, 3, 8), x(4, 2, 2)], [x(1, 3, 8), x(4, 3, 2), x(3)]]
        ),
        ("groups of kernels", Conv(groups: 2), [x(1, 4, 8), x(4, 2, 2)], [[x(1, 4, 8), x(4, 4, 2)], [x(1, 4, 8), x(3, 2, 2)]]),
        (
            "kernels backwards", ConvTranspose(groups: 2), [x(1, 4, 8), x(4, 3, 2)],
            [[x(1, 4, 8), x(3, 3, 2)], [x(1, 3, 8), x(3, 3, 2)]]
        ),
        ("windows", MaxPool(kernelShape: [2]), [x(1, 3, 8)], [[b(1, 3, 8)], [x(1, 3)], [x(1, 3, 8, 8)]]),
    ]

    @Test(arguments: refusals.indices) func refusesOperandsThatDoNotFit(index: Int) throws {
        let (what, op, sound, unsound) = Self.refusals[index]
        #expect(throws: Never.self, "\(what)") { _ = try op.infer(sound) }
        for operands in unsound {
            let types = operands.map { $0.map { "\($0.type)" } ?? "none" }.joined(separator: ", ")
            #expect(throws: TripsError.self, "\(what): \(types)") { _ = try op.infer(operands) }
        }
    }

    /// Attributes that no operand can make up for.
    @Test func refusesAttributesThatFitNothing() {
        let all: [(any Operator, [Operand?])] = [
            (QuantizedLinear(groupSize: 0, activations: .int8), [x(2, 8), Self.bytes(4, 8), x(4, 1)]),
            (Attention(heads: 0), [x(1, 5, 6), x(1, 7, 6), x(1, 7, 6)]),
            (Attention(heads: -1), [x(1, 5, 6), x(1, 7, 6), x(1, 7, 6)]),
            (PatchSelection(heads: 0, keepRate: 0.5), [x(1, 5, 6), x(1, 5, 6), x(1, 6)]), (LpNormalization(p: 3), [x(2, 3)]),
            (GatherND(batchDimensions: -1), [x(2, 3), Self.i(2, 1)]),
            (OnnxAttention(outputs: 0), [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 4)]),
            (OnnxAttention(outputs: 5), [x(1, 2, 5, 4), x(1, 2, 7, 4), x(1, 2, 7, 4)]),
            (GroupNormalization(groups: 0), [x(1, 4, 3), x(4), x(4)]),
            (QuantizeLinear(outputType: .float32), [x(2), x()]), (DequantizeLinear(blockSize: -1), [Self.bytes(2, n), x(2, n)]),
            (Conv(groups: 0), [x(1, 3, 8), x(4, 3, 2)]),
            (Conv(groups: 1 << 40), [x(1, n, 8), x(n, 1, 2)]),
            (ConvTranspose(groups: 0), [x(1, 3, 8), x(3, 4, 2)]), (ConvTranspose(groups: 1 << 40), [x(1, n, 8), x(n, 4, 2)]),
            (ConvTranspose(outputShape: [4, 4]), [x(1, 3, 8), x(3, 4, 2)]),
            (ConvTranspose(outputShape: [-1]), [x(1, 3, 8), x(3, 4, 2)]),
            (ConvTranspose(outputPadding: [1, 1]), [x(1, 3, 8), x(3, 4, 2)]),
            (ConvTranspose(outputPadding: [-1]), [x(1, 3, 8), x(3, 4, 2)]),
            (MaxPool(kernelShape: [2, 2]), [x(1, 3, 8)]), (Conv(window: Window(strides: [0])), [x(1, 3, 8), x(4, 3, 2)]),
            (Conv(window: Window(strides: [1, 1])), [x(1, 3, 8), x(4, 3, 2)]), (Split(outputs: 0), [x(4)]),
            (Split(outputs: 1 << 20), [x(n)]),
            (Einsum(equation: "ij->ik"), [x(2, 3)]), (Einsum(equation: "ij->ii"), [x(2, 3)]),
            (Einsum(equation: "ij->i->j"), [x(2, 3)]),
            (Einsum(equation: "i...j...->i"), [x(2, 3)]), (Einsum(equation: "...ijk->i"), [x(2, 3)]),
        ]
        for (op, operands) in all { #expect(throws: TripsError.self, "\(op)") { _ = try op.infer(operands) } }
    }
}
