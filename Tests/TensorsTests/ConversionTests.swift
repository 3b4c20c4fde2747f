import Support
import Testing

import Tensors

@Suite struct ConversionTests {
    /// All 65536 patterns: widening is exact, so narrowing must give the pattern back.
    @Test func halvesSurviveTheWayThroughSinglePrecision() throws {
        let patterns = (0...UInt16.max).filter { $0 & 0x7C00 != 0x7C00 || $0 & 0x3FF == 0 }
        for type in [DataType.float16, .bfloat16] {
            let chosen = type == .float16 ? patterns : (0...UInt16.max).filter { $0 & 0x7F80 != 0x7F80 || $0 & 0x7F == 0 }
            let half = try Tensor(type, [chosen.count]) { bytes in
                chosen.withUnsafeBytes { bytes.copyMemory(from: $0) }
            }
            let back = try half.converted(to: .float32).converted(to: type)
            #expect(back.withBytes { Array($0) } == half.withBytes { Array($0) }, "\(type)")
        }
    }

    @Test func rowsAreTakenApartAndJoined() throws {
        let batch = try Tensor([1, 2, 3, 4, 5, 6] as [Float], shape: [3, 2])
        #expect(try batch.row(1).numbers() == [3, 4] && batch.rows(1..<3).integers() == [3, 4, 5, 6])
        #expect(try Tensor.joined([batch.row(0), batch.rows(1..<3)]).elements(Float.self) == batch.elements())
        for index in [-1, 3, .max, .min] { #expect(throws: TripsError.self) { try batch.row(index) } }
        for parts in [[], [batch, try batch.transposed()], [try Tensor(scalar: Float(1))]] {
            #expect { try Tensor.joined(parts) } throws: { "\($0)".contains("parts of a batch") }
        }
    }

    @Test func halvesRoundToEven() throws {
        // 2049 lies between 2048 and 2050 in half precision; 65520 is the first that becomes infinite; 2^-25 is half the
        // smallest subnormal.
        let values: [Float] = [2049, 2051, 65519, 65520, 0x1p-25, 0x1.8p-25, -0.0, .infinity, .nan]
        let rounded = try Tensor(values, shape: [values.count]).converted(to: .float16).converted(to: .float32).elements(Float.self)
        #expect(rounded[..<7].elementsEqual([2048, 2052, 65504, .infinity, 0, 0x1p-24, 0]))
        #expect(rounded[6].sign == .minus && rounded[7] == .infinity && rounded[8].isNaN)
    }

    @Test func whatIsStoredNarrowerMustFit() throws {
        let doubles = try Tensor([65519.0, -.infinity, .nan], shape: [3])
        #expect(try doubles.rounded(to: .float16).converted(to: .float32).elements(Float.self)[..<2] == [65504, -.infinity])
        let (large, huge) = (try Tensor([Float(-65520)], shape: [1]), try Tensor([1e39], shape: [1]))
        #expect(throws: TripsError.self) { try large.rounded(to: .float16) }
        #expect(throws: TripsError.self) { try Constant(large, identity: "large").rounded(to: .float16).load() }
        #expect(try large.rounded(to: .bfloat16).dataType == .bfloat16)
        // Masks are made of the largest numbers of float32; infinite they would turn 0 into NaN.
        let masks = try Tensor([Float.greatestFiniteMagnitude, -.greatestFiniteMagnitude, -.infinity], shape: [3])
        let largest = Float(bitPattern: 0x7F7F_0000)
        #expect(try masks.rounded(to: .bfloat16).converted(to: .float32).elements(Float.self) == [largest, -largest, -.infinity])
        #expect(try masks.converted(to: .bfloat16).converted(to: .float32).elements(Float.self)[0] == .infinity)
        #expect(throws: TripsError.self) { try huge.rounded(to: .float32) }
        #expect(throws: TripsError.self) { try huge.rounded(to: .bfloat16) }
    }

    @Test func integersSaturateAndWrap() throws {
        let floats = try Tensor([Float.nan, -1e30, 1e30, 3.9, -3.9], shape: [5])
        #expect(try floats.converted(to: .int32).elements(Int32.self) == [0, .min, .max, 3, -3])
        #expect(try floats.converted(to: .uint8).elements(UInt8.self) == [0, 0, 255, 3, 0])
        #expect(try Tensor([Int64(257), -1], shape: [2]).converted(to: .uint8).elements(UInt8.self) == [1, 255])
        #expect(try Tensor([Int64(0), 7], shape: [2]).converted(to: .bool).withBytes { Array($0) } == [0, 1])
    }

    /// Loops run over rows without elements, and strides are products of the other sizes.
    @Test func emptyTensorsHaveNoLargeSizes() throws {
        #expect(try elementCount(of: [1 << 20, 0, 1 << 4]) == 0)
        for shape in [[0, 1 << 40, 1 << 40], [1 << 40, 0], [0, -1]] {
            #expect(throws: TripsError.self) { try elementCount(of: shape) }
        }
    }

    @Test func memoryThatTheMachineDoesNotHaveIsRefused() {
        #expect(throws: TripsError.self) { try Tensor(.uint8, [1 << 50]) { _ in } }
    }

    @Test(arguments: [(0, 3), (1, 1), (3, 0), (2, 33), (65, 40)]) func transposes(rows: Int, columns: Int) throws {
        let matrix = try Tensor((0..<rows * columns).map { Int32($0) }, shape: [rows, columns])
        let transposed = try matrix.transposed()
        let elements = try transposed.elements(Int32.self)
        #expect(transposed.shape == [columns, rows])
        #expect(
            elements.enumerated().allSatisfy { index, value in Int(value) == index % max(rows, 1) * columns + index / max(rows, 1) }
        )
    }
}

@Suite struct ConstantTests {
    private func matrix() throws -> Constant {
        Constant(try Tensor((0..<6).map { Float($0) }, shape: [3, 2]), identity: "m")
    }

    @Test func derivesLazilyAndNamesWhatItIs() throws {
        let matrix = try matrix()
        #expect(try matrix.rows(1..<3).load().elements(Float.self) == [2, 3, 4, 5])
        #expect(try matrix.transposed().load().elements(Float.self) == [0, 2, 4, 1, 3, 5])
        #expect(try matrix.transposed().transposed().identity == matrix.identity)
        #expect(try matrix.reshaped([6]).load().shape == [6])
        #expect(try matrix.rows(0..<1).identity != matrix.rows(1..<2).identity)
        #expect(throws: TripsError.self) { try matrix.rows(2..<4) }
        #expect(throws: TripsError.self) { try matrix.reshaped([5]) }
    }

    @Test func remembersTheTypeThatHoldsItsNumbers() throws {
        let rounded = try matrix().rounded(to: .bfloat16)
        #expect(rounded.dataType == .float32 && rounded.storedType == .bfloat16)
        #expect(try rounded.rows(0..<1).storedType == .bfloat16)
        #expect(rounded.converted(to: .bfloat16).storedType == .bfloat16)
        #expect(rounded.rounded(to: .float16).identity == rounded.identity)
    }

    /// Swift's `Bool` is 0 or 1; with another byte its operations are undefined.
    @Test func anyByteButZeroIsTrue() throws {
        let written = try Tensor(.bool, [3]) { $0.copyBytes(from: [7, 0, 2]) }
        #expect(try written.elements(Bool.self) == [true, false, true] && written.integers() == [1, 0, 1])
        let loaded = try Tensor.uninitialized(.bool, [2]) { $0.bytes.copyBytes(from: [0, 128]) }
        #expect(try loaded.integers() == [0, 1])
        let bytes = try Tensor([UInt8](repeating: 3, count: 4), shape: [4])
        let mapped = try bytes.withBytes { try Tensor(.bool, [4], mapped: $0, owner: bytes) }
        #expect(try mapped.integers() == [1, 1, 1, 1] && bytes.integers() == [3, 3, 3, 3])
    }

    @Test func shapesThatOverflowAreRefused() {
        #expect(throws: TripsError.self) { try elementCount(of: [1 << 40, 1 << 40]) }
        #expect(throws: TripsError.self) { try byteCount(of: .float64, [1 << 61]) }
        #expect(throws: TripsError.self) { try elementCount(of: [3, -1]) }
        #expect(throws: TripsError.self) { try Tensor(.float32, [1 << 60]) { _ in } }
    }
}
