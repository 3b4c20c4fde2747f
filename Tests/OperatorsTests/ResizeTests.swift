import ModelGraph
import Tensors
import Testing

import Operators

struct ResizeTests {
    private func resized(_ op: Resize, _ x: [Float], scale: Float? = nil, size: Int64? = nil, roi: [Float]? = nil) throws -> Tensor
    {
        var op = op
        op.axes = [1]
        return try run(
            op, floats(x, [1, x.count]), roi.map { try floats($0) }, scale.map { try floats([$0]) }, size.map { try integers([$0]) }
        )
    }

    @Test func choosesTheNearest() throws {
        try expect(resized(Resize(), [1, 2], scale: 2), [1, 4], [1, 1, 2, 2])
        let modes: [(Resize.Nearest, [Double])] = [
            (.floor, [1, 1, 2, 2, 3, 3]), (.ceil, [1, 2, 2, 3, 3, 3]), (.roundPreferFloor, [1, 1, 2, 2, 3, 3]),
            (.roundPreferCeil, [1, 2, 2, 3, 3, 3]),
        ]
        for (nearest, expected) in modes {
            try expect(resized(Resize(coordinates: .asymmetric, nearest: nearest), [1, 2, 3], scale: 2), [1, 6], expected)
        }
        let x = try integers([.max, 5], [1, 2])
        #expect(try run(Resize(), x, nil, floats([1, 1]), nil).elements(Int64.self) == [.max, 5])
    }

    /// Along two axes at once, of which one has its elements side by side and the other lines of them.
    @Test func resizesLinesAndTheirElements() throws {
        let x = try counting([3, 4])
        let rows: [Double] = [0, 0, 4, 4, 8, 8]
        let nearest = rows.flatMap { row in [0, 0, 1, 1, 2, 2, 3, 3].map { row + $0 } }
        try expect(run(Resize(), x, nil, floats([2, 2])), [6, 8], nearest)
        let line: [Double] = [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
        let linear = [0, 1, 3, 5, 7, 8].flatMap { row in line.map { row + $0 } }
        try expect(run(Resize(mode: .linear), x, nil, floats([2, 2])), [6, 8], linear)
        try expect(
            run(Resize(mode: .linear), x, nil, floats([2, 1])), [6, 4],
            [0, 1, 3, 5, 7, 8].flatMap { row in (0..<4).map { row + Double($0) } })
        let crop = Resize(mode: .linear, coordinates: .tfCropAndResize, extrapolation: 9)
        let roi: [Float] = [0, 0.5, 1, 1.5]
        try expect(run(crop, counting([2, 3]), floats(roi), nil, integers([2, 3])), [2, 3], [1, 2, 9, 4, 5, 9])
    }

    @Test func interpolatesLinearly() throws {
        try expect(resized(Resize(mode: .linear), [1, 2], scale: 2), [1, 4], [1, 1.25, 1.75, 2])
        try expect(resized(Resize(mode: .linear, coordinates: .alignCorners), [1, 4], size: 4), [1, 4], [1, 2, 3, 4])
        try expect(resized(Resize(mode: .linear, coordinates: .asymmetric), [1, 2], scale: 2), [1, 4], [1, 1.5, 2, 2])
        try expect(resized(Resize(mode: .linear, coordinates: .pytorchHalfPixel), [1, 2, 3], size: 1), [1, 1], [1])
        // Stretched to twice its width, the triangle weighs 1, 3, 3, 1 of eight; outside stands the border's element.
        try expect(resized(Resize(mode: .linear, antialias: true), [0, 1, 2, 3], scale: 0.5), [1, 2], [0.625, 2.375])
        try expect(
            resized(Resize(mode: .linear, excludeOutside: true, antialias: true), [0, 1, 2, 3], scale: 0.5), [1, 2],
            [5.0 / 7, 16.0 / 7])
    }

    /// ONNX's document: where one element is left, it is the first; a scale may say more.
    @Test func readsTheFirstOfWhatShrinksToOne() throws {
        try expect(resized(Resize(mode: .cubic, coordinates: .pytorchHalfPixel), [1, 2, 3], size: 1), [1, 1], [1])
        try expect(resized(Resize(mode: .linear, coordinates: .pytorchHalfPixel), [1, 2, 3, 4, 5], scale: 0.3), [1, 1], [1])
    }

    @Test func interpolatesByCubics() throws {
        // At the distance 0.25 the four weights are -0.10547, 0.87891, 0.26172, -0.03516 (a = -0.75).
        let y = try resized(Resize(mode: .cubic), [0, 0, 1, 0, 0], scale: 2)
        try expect(
            y, [1, 10], [0, -0.03515625, -0.10546875, 0.26171875, 0.87890625, 0.87890625, 0.26171875, -0.10546875, -0.03515625, 0])
        let outside = try resized(Resize(mode: .cubic, excludeOutside: true), [1, 1, 1], scale: 2)
        try expect(outside, [1, 6], [1, 1, 1, 1, 1, 1])
    }

    /// Otherwise 65536 x 65536 elements would lie between one row and one column.
    @Test func axesThatShrinkGoFirst() throws {
        let row = try counting([1, 1 << 16])
        let column = try run(Resize(coordinates: .asymmetric), row, nil, nil, integers([1 << 16, 1]))
        #expect(column.shape == [1 << 16, 1])
        #expect(try column.numbers().allSatisfy { $0 == 0 })
        #expect(try run(Resize(), Tensor([Float](), shape: [4, 0]), nil, nil, integers([1 << 24, 0])).shape == [1 << 24, 0])
    }

    @Test func cropsAndFillsTheOutside() throws {
        let crop = Resize(mode: .linear, coordinates: .tfCropAndResize, extrapolation: 9)
        try expect(resized(crop, [0, 1, 2], size: 3, roi: [0.5, 1.5]), [1, 3], [1, 2, 9])
        #expect(throws: (any Error).self) { try resized(crop, [0, 1], size: 3) }
        try expect(resized(crop, [0, 1], size: 1, roi: [.nan, 0]), [1, 1], [9])
    }

    @Test func keepsTheAspectRatio() throws {
        let x = try counting([2, 4])
        #expect(try run(Resize(aspectRatio: .notLarger), x, nil, nil, integers([6, 6])).shape == [3, 6])
        #expect(try run(Resize(aspectRatio: .notSmaller), x, nil, nil, integers([6, 6])).shape == [6, 12])
    }

    @Test func refusesWhatIsNoSize() throws {
        for scale in [Float.nan, 0, -1, .infinity] {
            #expect(throws: (any Error).self) { try resized(Resize(mode: .linear), [1, 2], scale: scale) }
        }
        #expect(throws: (any Error).self) { try resized(Resize(), [1, 2]) }
        #expect(throws: (any Error).self) { try resized(Resize(), [1, 2], size: -1) }
        #expect(try resized(Resize(mode: .cubic, antialias: true), [1, 2], scale: 1e-30).shape == [1, 0])
    }
}

struct QuantizationTests {
    @Test func quantizesAndSaturates() throws {
        let x = try floats([-1, 0, 0.5, 1.5, 1000])
        try expect(run(QuantizeLinear(), x, scalar(1), nil), [5], [0, 0, 0, 2, 255])
        try expect(run(QuantizeLinear(), x, scalar(1), Tensor(scalar: Int8(-1))), [5], [-2, -1, -1, 1, 127])
        _ = try run(QuantizeLinear(), floats([.nan, .infinity]), scalar(0), nil)
        try expect(run(QuantizeLinear(axis: 0), floats([2, 4, 6, 8], [2, 2]), floats([1, 2]), nil), [2, 2], [2, 4, 3, 4])
        try expect(
            run(QuantizeLinear(axis: 1, blockSize: 2), floats([2, 4, 6, 8], [1, 4]), floats([1, 2], [1, 2]), nil), [1, 4],
            [2, 4, 3, 4])
        // The last block may be shorter.
        try expect(
            run(QuantizeLinear(axis: 0, blockSize: 2), floats([2, 4, 6, 8, 9, 3], [3, 2]), floats([1, 2, 3, 1], [2, 2]), nil),
            [3, 2], [2, 2, 6, 4, 3, 3])
        let levels = try integers([1, 2, 3, 4, 5, 6], [2, 3]).converted(to: .uint8)
        let zeros = try integers([0, 1, 2, 3], [2, 2]).converted(to: .uint8)
        try expect(
            run(DequantizeLinear(axis: 1, blockSize: 2), levels, floats([1, 2, 3, 4], [2, 2]), zeros), [2, 3], [1, 2, 4, 6, 9, 12])
    }

    @Test func dequantizes() throws {
        let x = try Tensor([UInt8(0), 128, 255], shape: [3])
        try expect(run(DequantizeLinear(), x, scalar(0.5), Tensor(scalar: UInt8(128))), [3], [-64, 0, 63.5])
        // onnxruntime's quantizer gives biases a scale of shape [1] and a scalar zero point.
        try expect(run(DequantizeLinear(), x, floats([0.5]), Tensor(scalar: UInt8(128))), [3], [-64, 0, 63.5])
        try expectRefusal(DequantizeLinear(axis: 0), x, floats([1, 2, 3]), Tensor(scalar: UInt8(128)))
        try expect(run(DequantizeLinear(axis: -1), Tensor([Int8(1), 2], shape: [1, 2]), floats([2, 3]), nil), [1, 2], [2, 6])
        try expectRefusal(DequantizeLinear(), x, floats([1, 2]), nil)
        try expectRefusal(DequantizeLinear(blockSize: -1), x, floats([1, 2]), nil)
    }

    /// The examples of ONNX's operator documents.
    @Test func quantizesByTheRangeOfNumbers() throws {
        func expectQuantized(_ x: [Float], _ levels: [Double], scale: Double, zero: Double) throws {
            let results = try evaluate(DynamicQuantizeLinear(), [floats(x)])
            try expect(results[0], [x.count], levels)
            try expect(results[1], [], [scale], tolerance: 1e-8)
            try expect(results[2], [], [zero])
        }
        try expectQuantized([0, 2, -3, -2.5, 1.34, 0.5], [153, 255, 0, 26, 221, 179], scale: 5.0 / 255, zero: 153)
        try expectQuantized([-1, -2.1, -1.3, -2.5, -3.34, -4], [191, 121, 172, 96, 42, 0], scale: 4.0 / 255, zero: 255)
        try expectQuantized([1, 2.1, 1.3, 2.5, 3.34, 4], [64, 134, 83, 159, 213, 255], scale: 4.0 / 255, zero: 0)
        try expectQuantized([0, 0], [0, 0], scale: 1, zero: 0)
        #expect(throws: Never.self) { _ = try evaluate(DynamicQuantizeLinear(), [floats([.nan, .infinity, -.infinity])]) }
    }

    @Test func multipliesIntegers() throws {
        let a = try Tensor([UInt8(11), 7, 3, 10, 6, 2, 9, 5, 1, 8, 4, 0], shape: [4, 3])
        let b = try Tensor([UInt8(1), 4, 2, 5, 3, 6], shape: [3, 2])
        try expect(run(MatMulInteger(), a, b, Tensor(scalar: UInt8(12)), nil), [4, 2], [-38, -83, -44, -98, -50, -113, -56, -128])
        // A zero point for each row, and for each column.
        let rows = try Tensor([UInt8(11), 10, 9, 8], shape: [4]), columns = try Tensor([UInt8(1), 4], shape: [2])
        try expect(run(MatMulInteger(), a, b, rows, columns), [4, 2], Array(repeating: [-20, -20], count: 4).flatMap { $0 })
        let (least, most) = (try Tensor([Int8.min], shape: [1, 1]), try Tensor([UInt8.max], shape: [1, 1]))
        try expect(run(MatMulInteger(), least, most, nil, nil), [1, 1], [-32640])
        try expectRefusal(MatMulInteger(), a, b, Tensor(scalar: Int8(1)), nil)

        let image = try Tensor((2...10).map { UInt8($0) }, shape: [1, 1, 3, 3])
        let kernel = try Tensor(Array(repeating: UInt8(1), count: 4), shape: [1, 1, 2, 2])
        try expect(run(ConvInteger(), image, kernel, Tensor(scalar: UInt8(1)), nil), [1, 1, 2, 2], [12, 16, 24, 28])
        // Padding stands for numbers of 0, whatever the zero point.
        let padded = ConvInteger(Conv(window: Window(pads: [1, 1, 0, 0])))
        let sums = try run(padded, image, kernel, Tensor(scalar: UInt8(1)), Tensor([UInt8(0)], shape: [1]))
        try expect(sums, [1, 1, 3, 3], [1, 3, 5, 5, 12, 16, 11, 24, 28])
    }
}
