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
        #expect(try shape(Slice(), x(n, 4), x(1, type: .int64), x(1, type: .int64), sizes(1))[0] == n)
    }

    @Test func broadcastsSymbols() throws {
        #expect(try shape(Binary(.add), x(batch, 1, n), x(n, 1)) == [batch, n, n])
        #expect(try shape(Expand(), x(1, n), sizes(batch, 1)) == [batch, n])
        #expect(try shape(Where(), x(n, type: .bool), x(), x(1)) == [n])
        #expect(try shape(Concat(axis: 1), x(batch, 1, 8), x(batch, n, 8)) == [batch, n.adding(1), 8])
    }

    @Test func followsSymbolsThroughWindowsAndProducts() throws {
        let side = try n.multiplied(by: 16)
        let weight = x(64, 3, 16, 16)
        #expect(try shape(Conv(window: Window(strides: [16, 16])), x(batch, 3, side, side), weight) == [batch, 64, n, n])
        #expect(try shape(MaxPool(kernelShape: [3, 3], window: Window(pads: [1, 1, 1, 1])), x(1, 1, n, n)) == [1, 1, n, n])
        #expect(try shape(MatMul(), x(batch, n, 8), x(8, 4)) == [batch, n, 4])
        #expect(try shape(Einsum(equation: "bld,bmd->blm"), x(batch, n, 8), x(batch, 5, 8)) == [batch, n, 5])
        let products = try MatMul().multiplyAccumulates([x(batch, n, 8).type, x(8, 4).type], [ValueType(.float32, [batch, n, 4])])
        #expect(products?.description == "32*batch*n")
    }

    @Test func countsRanges() throws {
        let (zero, one) = (sizes(0), sizes(1))
        #expect(try shape(Arange(), zero, sizes(n), one) == [n])
        #expect(try shape(Arange(), one, sizes(n.adding(1)), one) == [n])
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

    @Test func survivesTheLargestSizes() throws {
        let huge = Dimension(.max)
        func numbers(_ numbers: [Float], _ shape: [Int]? = nil) throws -> Operand {
            let tensor = try Tensor(numbers, shape: shape ?? [numbers.count])
            return Operand(ValueType(.float32, tensor.shape.map { Dimension($0) }), content: .tensor(Constant(tensor)))
        }
        func number(_ number: Float) throws -> Operand { try numbers([number], []) }
        let ops: [(any Operator, [Operand?])] = try [
            (Flatten(), [x(huge, huge)]), (Pad(), [x(huge), sizes(1, 1)]), (Tile(), [x(huge), sizes(2)]), (Concat(axis: 0), [x(huge), x(huge)]),
            (Conv(), [x(1, 1, huge), x(1, 1, 3)]), (ConvTranspose(window: Window(strides: [2])), [x(1, 1, huge), x(1, 1, 3)]),
            (MaxPool(kernelShape: [2], window: Window(pads: [9, 9])), [x(1, 1, huge)]), (Resize(), [x(huge), nil, Operand(ValueType(.float32, [1]))]),
            (Slice(), [x(huge), sizes(-1), sizes(huge), nil, sizes(1)]), (Split(outputs: 3), [x(huge)]), (Reshape(), [x(huge, 2), sizes(-1)]),
            (Slice(), [x(-5), sizes(0), sizes(3)]), (Split(outputs: 2), [x(-5)]), (MaxPool(kernelShape: [2]), [x(1, 1, -5)]),
            (GlobalPool(.max), [x(1, 1, huge)]),
            (MaxPool(kernelShape: [1 << 20, 1 << 20], window: Window(pads: Array(repeating: 1 << 20, count: 4))), [x(1, 1, 9, 9)]),
            (ConvTranspose(window: Window(strides: [1 << 20]), outputShape: [4]), [x(0, 1, huge), x(1, 1, 3)]),
            // Numbers of sizes that no operand states, and numbers beyond all sizes.
            (ConstantOfShape(), [x(huge, type: .int64)]), (Reshape(), [x(n), x(huge, type: .int64)]), (Expand(), [x(n), x(huge, type: .int64)]),
            (Tile(), [x(n), x(huge, type: .int64)]), (Unsqueeze(), [x(n), x(huge, type: .int64)]), (Squeeze(), [x(n), x(huge, type: .int64)]),
            (Slice(), [x(n), x(huge, type: .int64), x(huge, type: .int64)]), (Arange(), [number(1e30), number(0), number(1)]),
            (Resize(coordinates: .tfCropAndResize, axes: [0]), [x(n), numbers([0, -1e30]), numbers([1e9])]),
        ]
        for (op, inputs) in ops {
            // Either an answer or an error of ours; a trap would end the tests.
            do { _ = try op.infer(inputs) } catch { #expect(error is TripsError, "\(op)") }
        }
    }
}
