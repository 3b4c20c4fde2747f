import ModelGraph
import Support
import Tensors

/// An operator that can be computed. These are the plain, exact forms: what folding, tests and the runtime's fallback use.
package protocol Computable: Operator {
    /// Writes the outputs, whose types are those of the shape rule for these inputs.
    /// - Parameter inputs: nil for an optional input that is absent.
    /// - Throws: `data` where the inputs' numbers are out of range, or give other shapes than the outputs have.
    func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws
}

/// Runs an operator on tensors.
/// - Throws: `data` where it cannot be computed, and what its shape rule and its computation throw.
package func evaluate(_ op: any Operator, _ inputs: [Tensor?], on pool: ThreadPool = .shared) throws -> [Tensor] {
    guard let computable = op as? any Computable else {
        throw TripsError.data("an operator that is not computed", found: type(of: op).name)
    }
    let operands = inputs.map { input in
        input.map { Operand(ValueType($0.dataType, $0.shape.map { Dimension($0) }), content: .tensor(Constant($0))) }
    }
    let types = try op.infer(operands)
    return try allocate(types) { outputs in
        try withExtendedLifetime(inputs) { try computable.compute(inputs.map { $0?.view }, into: outputs, on: pool) }
    }
}

/// Tensors of the given types that `fill` writes.
private func allocate(_ types: [ValueType], fill: ([MutableTensorView]) throws -> Void) throws -> [Tensor] {
    let types = try types.map { type in
        guard let shape = type.constantShape else {
            throw TripsError.data("shape of an output", found: type, expected: "one that the inputs determine")
        }
        return (type.dataType, shape)
    }
    return try Tensor.zeroed(types, fill)
}

extension Operator {
    /// Checks that the shape rule gives the outputs' types for the inputs' numbers: for operators whose shapes depend on
    /// numbers that may have been unknown when memory was laid out.
    func checkTypes(_ inputs: [TensorView?], _ outputs: [MutableTensorView]) throws {
        let operands = try inputs.map { try $0?.operand() }
        let types = try infer(operands)
        guard types.count == outputs.count, zip(types, outputs).allSatisfy({ $0.accepts($1) }) else {
            throw TripsError.data("output of \(Self.name)", found: "\(types)", expected: "\(outputs.map { $0.readOnly.type })")
        }
    }
}

extension ValueType {
    fileprivate func accepts(_ view: MutableTensorView) -> Bool { dataType == view.dataType && constantShape == view.shape }
}

extension TensorView {
    var type: ValueType { ValueType(dataType, shape.map { Dimension($0) }) }

    /// For shape rules: with its numbers, where it is small enough to state sizes.
    func operand() throws -> Operand {
        guard shape.count <= 1, count <= Operand.maximalCount else { return Operand(type) }
        return Operand(type, content: .tensor(Constant(try tensor())))
    }

    /// The elements, converted.
    func integers() throws -> [Int] { try tensor().integers() }
    func numbers() throws -> [Double] { try tensor().numbers() }

    /// The same elements under another shape of as many elements.
    func reshaped(_ shape: [Int]) -> TensorView { TensorView(dataType: dataType, shape: shape, bytes: bytes) }
}

extension MutableTensorView {
    func reshaped(_ shape: [Int]) -> MutableTensorView { MutableTensorView(dataType: dataType, shape: shape, bytes: bytes) }
}

extension [TensorView?] {
    /// The input at `index`.
    /// - Throws: `data` where it is absent.
    func required(_ index: Int) throws -> TensorView {
        guard index < count, let view = self[index] else { throw TripsError.data("input \(index) is missing") }
        return view
    }

    /// The input at `index`, nil where it is absent.
    func optional(_ index: Int) -> TensorView? { index < count ? self[index] : nil }
}

/// Memory for intermediate results, zeroed by default.
final class Scratch<Element>: Sendable {
    private let memory: AlignedMemory

    init(_ count: Int, zeroed: Bool = true) throws {
        let (bytes, overflow) = count.multipliedReportingOverflow(by: MemoryLayout<Element>.stride)
        guard !overflow else { throw TripsError.data("memory for \(count) elements was refused") }
        memory = try AlignedMemory(byteCount: bytes, zeroed: zeroed)
    }

    /// Valid while this object lives.
    func withTarget<Result>(_ body: (Target<Element>) throws -> Result) throws -> Result {
        try withExtendedLifetime(memory) {
            guard let base = memory.bytes.baseAddress else { throw TripsError.data("no memory") }
            return try body(Target(base: base.assumingMemoryBound(to: Element.self)))
        }
    }
}

/// Runs `body` with half-precision inputs widened to single precision, and rounds what it writes for such outputs.
func widened(
    _ inputs: [TensorView?], _ outputs: [MutableTensorView],
    _ body: ([TensorView?], [MutableTensorView]) throws -> Void
) throws {
    guard inputs.contains(where: { $0?.dataType.isHalf ?? false }) || outputs.contains(where: { $0.dataType.isHalf }) else {
        return try body(inputs, outputs)
    }
    var owners: [Tensor] = []
    let wideInputs = try inputs.map { input in
        guard let input, input.dataType.isHalf else { return input }
        let wide = try Tensor.zeroed(.float32, input.shape) { convert(input, into: $0) }
        owners.append(wide)
        return wide.view
    }
    let types = outputs.map { ValueType($0.dataType.isHalf ? .float32 : $0.dataType, $0.shape.map { Dimension($0) }) }
    let results = try withExtendedLifetime(owners) { try allocate(types) { try body(wideInputs, $0) } }
    for (result, output) in zip(results, outputs) { withExtendedLifetime(result) { convert(result.view, into: output) } }
}

/// Work on elements of a type that is known only when it begins.
protocol TypedBody {
    func floating<T: Real & Number>(_: T.Type) throws
    func integer<T: FixedWidthInteger & Number>(_: T.Type) throws
}

/// Work that is the same for all numbers.
protocol UniformBody: TypedBody {
    func callAsFunction<T: Number>(_: T.Type) throws
}

extension UniformBody {
    func floating<T: Real & Number>(_: T.Type) throws { try self(T.self) }
    func integer<T: FixedWidthInteger & Number>(_: T.Type) throws { try self(T.self) }
}

/// Calls the body for the type of the elements; half precision must have been widened.
func dispatch(_ dataType: DataType, _ body: some TypedBody) throws {
    switch dataType {
    case .float64: try body.floating(Double.self)
    case .float32, .float16, .bfloat16: try body.floating(Float.self)
    case .int64: try body.integer(Int64.self)
    case .int32: try body.integer(Int32.self)
    case .int16: try body.integer(Int16.self)
    case .int8: try body.integer(Int8.self)
    case .uint64: try body.integer(UInt64.self)
    case .uint32: try body.integer(UInt32.self)
    case .uint16: try body.integer(UInt16.self)
    case .uint8, .bool: try body.integer(UInt8.self)
    }
}

/// Calls `body` for consecutive parts of 0 ..< count, some at the same time. The parts depend on the numbers alone.
func parallel(_ count: Int, grain: Int, on pool: ThreadPool, _ body: @Sendable (Range<Int>) -> Void) {
    guard count > 0 else { return }
    let grain = max(1, grain)
    let tasks = (count - 1) / grain + 1
    if tasks == 1 { return body(0..<count) }
    pool.run(tasks) { body($0 * grain..<min(count, ($0 + 1) * grain)) }
}

/// Elements that one task of a parallel loop should have at least.
let taskGrain = 1 << 15
