import Kernels
import Support
import Tensors

/// A loop over several arrays of one shape at once, each with its own strides: what broadcasting, transposing, slicing
/// and joining have in common. Axes that are contiguous in all arrays are merged.
struct StridedLoop: Sendable {
    /// Offsets or strides of up to four arrays, in elements.
    typealias Offsets = SIMD4<Int>

    private var sizes: [Int] = []
    private var strides: [Offsets] = []
    private var inner = 1
    private var innerStride = Offsets(repeating: 0)

    init(_ shape: [Int], _ arrays: [[Int]]) {
        for axis in shape.indices where shape[axis] != 1 {
            var stride = Offsets(repeating: 0)
            for (index, array) in arrays.enumerated() { stride[index] = array[axis] }
            if let last = strides.last, last == stride &* Offsets(repeating: shape[axis]) {
                sizes[sizes.count - 1] *= shape[axis]
                strides[strides.count - 1] = stride
            } else {
                sizes.append(shape[axis])
                strides.append(stride)
            }
        }
        inner = sizes.popLast() ?? 1
        innerStride = strides.popLast() ?? innerStride
    }

    /// The matrices that a copy from the first array to the second transposes: along the innermost axis the second has consecutive
    /// elements, along another the first. nil where there are none.
    func transposition() -> Transposition? {
        guard innerStride[0] > 1, innerStride[1] == 1, let axis = strides.firstIndex(where: { $0[0] == 1 && $0[1] > 1 }) else {
            return nil
        }
        var rest = self
        let columns = rest.sizes.remove(at: axis)
        let distance = rest.strides.remove(at: axis)[1]
        (rest.inner, rest.innerStride) = (1, Offsets(repeating: 0))
        return Transposition(
            rows: inner, columns: columns, sourceDistance: innerStride[0], targetDistance: distance, matrices: rest)
    }

    /// Calls `body` for each innermost row: where it begins in each array, the strides, the number of elements.
    /// - Parameter weight: the work for one element, in those of a copy.
    func run(weight: Int = 1, on pool: ThreadPool, _ body: @Sendable (Offsets, Offsets, Int) -> Void) {
        let rows = sizes.reduce(1, *)
        guard rows > 0, inner > 0 else { return }
        if rows == 1 {
            return parallel(inner, grain: taskGrain, on: pool) { part in
                body(innerStride &* Offsets(repeating: part.lowerBound), innerStride, part.count)
            }
        }
        parallel(rows, grain: taskGrain / inner / max(1, weight), on: pool) { part in
            var (position, offset) = start(part.lowerBound)
            for _ in part {
                body(offset, innerStride, inner)
                advance(&position, &offset)
            }
        }
    }

    private func start(_ row: Int) -> (position: [Int], offset: Offsets) {
        var position = Array(repeating: 0, count: sizes.count)
        var (rest, offset) = (row, Offsets(repeating: 0))
        for axis in sizes.indices.reversed() {
            position[axis] = rest % sizes[axis]
            rest /= sizes[axis]
            offset &+= strides[axis] &* Offsets(repeating: position[axis])
        }
        return (position, offset)
    }

    @inline(__always)
    private func advance(_ position: inout [Int], _ offset: inout Offsets) {
        var axis = sizes.count - 1
        while axis >= 0 {
            position[axis] += 1
            offset &+= strides[axis]
            if position[axis] < sizes[axis] { return }
            offset &-= strides[axis] &* Offsets(repeating: sizes[axis])
            position[axis] = 0
            axis -= 1
        }
    }
}

/// The strides with which a dense array of `shape` is read as one of `target`, to which it broadcasts.
/// - Throws: `data` where it does not.
func broadcastStrides(_ shape: [Int], to target: [Int]) throws -> [Int] {
    let missing = target.count - shape.count
    guard missing >= 0, shape.indices.allSatisfy({ shape[$0] == 1 || shape[$0] == target[$0 + missing] }) else {
        throw TripsError.data("shapes do not broadcast", found: "\(shape)", expected: "\(target)")
    }
    let dense = denseStrides(shape)
    return Array(repeating: 0, count: missing) + shape.indices.map { shape[$0] == 1 ? 0 : dense[$0] }
}

/// Copies elements of `byteWidth` bytes, one for each place of `shape`. Offsets and strides count elements.
func copyStrided(
    _ shape: [Int], byteWidth: Int, from source: UnsafeRawPointer, _ sourceStrides: [Int],
    to target: UnsafeMutableRawPointer, _ targetStrides: [Int], on pool: ThreadPool
) {
    let loop = StridedLoop(shape, [sourceStrides, targetStrides])
    if byteWidth == MemoryLayout<Float>.size, let transposition = loop.transposition() {
        return transposition.run(
            Source(base: source.assumingMemoryBound(to: Float.self)), Target(base: target.assumingMemoryBound(to: Float.self)),
            on: pool)
    }
    func copy<Element>(_: Element.Type) {
        let source = Source(base: source.assumingMemoryBound(to: Element.self))
        let target = Target(base: target.assumingMemoryBound(to: Element.self))
        loop.run(on: pool) { offset, stride, count in
            let (from, to) = (source + offset[0], target + offset[1])
            switch (stride[0], stride[1]) {
            case (1, 1): to.base.update(from: from.base, count: count)
            case (0, 1): to.base.update(repeating: from[0], count: count)
            case (let stride, 1): for index in 0..<count { to[index] = from[index &* stride] }
            default: for index in 0..<count { to[index &* stride[1]] = from[index &* stride[0]] }
            }
        }
    }
    switch byteWidth {
    case 1: copy(UInt8.self)
    case 2: copy(UInt16.self)
    case 4: copy(UInt32.self)
    default: copy(UInt64.self)
    }
}

/// Matrices of one size, each written as its transpose.
struct Transposition {
    /// Of a matrix that is read.
    let rows, columns: Int
    /// Elements from one row to the next, as they are read and as they are written.
    let sourceDistance, targetDistance: Int
    /// Over the first elements of all matrices.
    let matrices: StridedLoop

    /// Goes through each in blocks, so that neither reads nor writes jump from line to line.
    func run(_ source: Source<Float>, _ target: Target<Float>, on pool: ThreadPool) {
        // Whole blocks of a kernel's vectors.
        let grain = max(64, taskGrain / max(1, rows) / 64 * 64)
        matrices.run(weight: rows * columns, on: pool) { offset, _, _ in
            parallel(columns, grain: grain, on: pool) { part in
                trips_transpose(
                    (target + offset[1] + part.lowerBound * targetDistance).base, targetDistance,
                    (source + offset[0] + part.lowerBound).base, sourceDistance, rows, part.count)
            }
        }
    }
}

extension MutableTensorView {
    /// Copies from elements of the same type that lie with these strides.
    func copy(from source: TensorView, offset: Int = 0, strides: [Int], on pool: ThreadPool) {
        copyStrided(
            shape, byteWidth: dataType.byteWidth, from: source.bytes + offset * dataType.byteWidth, strides,
            to: bytes, denseStrides(shape), on: pool)
    }

    /// Copies as many elements of the same type.
    func copy(from source: TensorView) {
        bytes.copyMemory(from: source.bytes, byteCount: count * dataType.byteWidth)
    }

    /// Writes the same element everywhere.
    func fill(with element: TensorView, on pool: ThreadPool) {
        copy(from: element, strides: Array(repeating: 0, count: shape.count), on: pool)
    }
}
