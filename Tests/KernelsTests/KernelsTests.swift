import Kernels
import Testing

/// Deterministic test data.
struct Generator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return (state ^ state >> 33) &* 0xff51_afd7_ed55_8ccd
    }

    /// Uniform in [-1, 1), with 24 bits.
    mutating func float() -> Float { Float(Int32(next() >> 40) - 1 << 23) * 0x1p-23 }

    mutating func floats(_ count: Int, scale: Float = 1) -> [Float] { (0..<count).map { _ in float() * scale } }
}

/// Every path that this processor can run, but the scalar one, which is the reference.
let paths = (1..<UInt32(TRIPS_PATH_COUNT)).map { trips_path(rawValue: $0) }.filter(trips_path_available)

func name(_ path: trips_path) -> String { String(cString: trips_path_name(path)) }

/// Runs `body` on each path in turn, at the end on one more. The choice holds for the thread that makes it.
func onEachPath(and last: trips_path? = nil, _ body: (trips_path) -> Void) {
    let before = trips_kernels_path()
    for path in paths + [last].compactMap(\.self) {
        #expect(trips_kernels_force(path))
        body(path)
    }
    #expect(trips_kernels_force(before))
}

/// What the paths of AVX-512 give, which differ in how they sum up integers and in nothing else: the same bits.
struct SameBits {
    private var first: [UInt32]?

    mutating func hold(_ x: [Float], on path: trips_path) -> Bool {
        guard path.rawValue >= TRIPS_PATH_AVX512.rawValue else { return true }
        let bits = x.map(\.bitPattern)
        first = first ?? bits
        return first == bits
    }
}

/// Largest |x − y| / (1 + |y|); infinite where NaN or infinity do not agree.
func error(_ x: [Float], _ y: [Float]) -> Float {
    guard x.count == y.count else { return .infinity }
    var worst: Float = 0
    for (a, b) in zip(x, y) where a.bitPattern != b.bitPattern && !(a.isNaN && b.isNaN) {
        let difference = abs(a - b) / (1 + abs(b))
        worst = difference.isFinite ? max(worst, difference) : .infinity
    }
    return worst
}

/// As `error`, without the weight of large numbers, over all elements.
func rootMeanSquareError(_ x: [Float], _ y: [Float]) -> Float {
    guard x.count == y.count else { return .infinity }
    let squares = zip(x, y).map { a, b in a.bitPattern == b.bitPattern || a.isNaN && b.isNaN ? 0 : (a - b) * (a - b) }
    let mean = squares.reduce(0, +) / Float(max(1, squares.count))
    return mean.isFinite ? mean.squareRoot() : .infinity
}

/// All tests that force a path.
@Suite struct KernelTests {}

extension KernelTests {
    @Test func everyPathCanBeForced() {
        #expect(trips_path_available(TRIPS_PATH_SCALAR))
        #expect(trips_path_available(trips_kernels_path()))
        #expect(name(TRIPS_PATH_AVX512_VNNI) == "avx512vnni" && name(TRIPS_PATH_AVX512_AMX) == "avx512amx")
        #expect(name(TRIPS_PATH_NEON_I8MM) == "neoni8mm")
        onEachPath(and: TRIPS_PATH_SCALAR) { #expect(trips_kernels_path() == $0) }
    }
}
