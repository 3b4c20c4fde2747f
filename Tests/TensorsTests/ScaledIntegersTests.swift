import Support
import Testing

import Tensors

@Suite struct ScaledIntegersTests {
    private func parts(_ scales: [Float], axis: Int) throws -> ScaledIntegers {
        let integers = Constant(try Tensor([Int8(1), -2, 3, 4, -128, 127], shape: [2, 3]), identity: "integers")
        let factors = Constant(try Tensor(scales, shape: [scales.count]), identity: "scales \(scales)")
        return try ScaledIntegers(integers, scales: factors, axis: axis)
    }

    private func numbers(_ constant: Constant) throws -> [Float] { try constant.load().elements() }

    /// A scale for all, for each row, and for each column.
    @Test func numbersAreProducts() throws {
        let cases: [(scales: [Float], axis: Int, expected: [Float])] = [
            ([2], 0, [2, -4, 6, 8, -256, 254]), ([2], 1, [2, -4, 6, 8, -256, 254]), ([1, 10], 0, [1, -2, 3, 40, -1280, 1270]),
            ([1, 10, 100], 1, [1, -20, 300, 4, -1280, 12700]),
        ]
        for (scales, axis, expected) in cases {
            let constant = Constant(try parts(scales, axis: axis))
            #expect(try numbers(constant) == expected)
            let turned = try constant.transposed()
            #expect(turned.shape == [3, 2] && turned.scaledIntegers != nil)
            #expect(try numbers(turned) == [0, 3, 1, 4, 2, 5].map { expected[$0] })
            #expect(try turned.transposed().identity == constant.transposed().transposed().identity)
            let last = try constant.rows(1..<2)
            #expect(try last.scaledIntegers != nil && numbers(last) == Array(expected[3...]))
            #expect(try numbers(turned.rows(1..<3)) == [1, 4, 2, 5].map { expected[$0] })
            #expect(try constant.reshaped([3, 2]).scaledIntegers == nil && numbers(constant.reshaped([6])) == expected)
        }
    }

    @Test func scalesAreOneForEachRow() throws {
        func scales(_ parts: ScaledIntegers) throws -> [Float]? { try parts.rowScales().map(numbers) }
        #expect(try scales(parts([2], axis: 1)) == [2, 2])
        #expect(try scales(parts([1, 10], axis: 0)) == [1, 10])
        #expect(try scales(parts([1, 10, 100], axis: 1)) == nil)
    }

    /// As many rows as columns: the shape of the scales does not tell which they belong to.
    @Test func rowsOfASquareKeepTheScalesOfItsColumns() throws {
        let integers = Constant(try Tensor([Int8(1), 2, 3, 4], shape: [2, 2]), identity: "square")
        let factors = Constant(try Tensor([Float(1), 10], shape: [2]), identity: "factors")
        let square = Constant(try ScaledIntegers(integers, scales: factors, axis: 1))
        #expect(try numbers(square.rows(1..<2)) == [3, 40])
    }

    /// int8 reaches from -128 to 127 whatever the zero point.
    @Test(arguments: [(1, -127, 127, true), (1, -128, 0, false), (-1, -128, 126, true), (-1, 0, 127, false)])
    func integersAroundZeroAreThoseThatFit(zero: Int, least: Int8, largest: Int8, fits: Bool) throws {
        let integers = Constant(try Tensor([least, largest], shape: [1, 2]), identity: "integers \(zero) \(least) \(largest)")
        let scale = Constant(try Tensor([Float(1)], shape: [1]), identity: "one")
        let around = try ScaledIntegers(integers, scales: scale, axis: 0, zero: zero).aroundZero()
        #expect(
            try around.map { try numbers(Constant($0)) } == (fits ? [Float(Int(least) - zero), Float(Int(largest) - zero)] : nil))
    }

    @Test func refusesOtherScales() throws {
        #expect(throws: TripsError.self) { try parts([1, 2, 3], axis: 0) }
        #expect(throws: TripsError.self) { try parts([1, 2], axis: 1) }
        #expect(throws: TripsError.self) { try parts([1], axis: 2) }
        #expect(throws: TripsError.self) { try parts([], axis: 0) }
        let floats = Constant(try Tensor([Float(1)], shape: [1, 1]), identity: "floats")
        #expect(throws: TripsError.self) { try ScaledIntegers(floats, scales: floats.reshaped([1]), axis: 0) }
    }
}
