import Kernels
import Support
import Synchronization
import Tensors

/// The numbers of a model's constants, in the form in which the kernels read them; each form is made once and shared.
final class Weights: Sendable {
    private struct State {
        var tensors: [String: Tensor] = [:]
        var products: [String: PackedProduct] = [:]
    }
    private let state = Mutex(State())
    /// Identities of the constants that belong to the model. Others come from planning and go with their plan.
    private let owned: Set<String>

    init(owned: Set<String>) { self.owned = owned }

    /// A constant as a plain tensor.
    func tensor(_ constant: Constant) throws -> Tensor {
        if let tensor = state.withLock({ $0.tensors[constant.identity] }) { return tensor }
        let tensor = try constant.load()
        if owned.contains(constant.identity) { state.withLock { $0.tensors[constant.identity] = tensor } }
        return tensor
    }

    /// The right-hand side of a linear layer, packed.
    func product(_ recipe: ProductRecipe) throws -> PackedProduct {
        let identity = recipe.identity
        if let product = state.withLock({ $0.products[identity] }) { return product }
        let product = try PackedProduct(recipe)
        if owned.contains(recipe.weight.identity) { state.withLock { $0.products[identity] = product } }
        return product
    }

    /// Bytes of all forms that are held.
    var byteCount: Int {
        state.withLock { state in
            state.tensors.values.reduce(0) { $0 + $1.byteCount } + state.products.values.reduce(0) { $0 + $1.byteCount }
        }
    }
}

/// What a packed product is made of.
struct ProductRecipe: Sendable {
    enum Form: Sendable, Equatable {
        case float
        /// int8 weights, int8 activations.
        case int8(groupSize: Int)
        /// int8 weights that are widened when they are packed.
        case widened(groupSize: Int)
    }
    let form: Form
    /// [N, K]; K may be several axes.
    let weight: Constant
    /// [N, G], for int8 weights.
    var scales: Constant?
    /// [K]; part of the packed weights where they are widened.
    var inputScale: Constant?

    var identity: String { "\(form)|\(weight.identity)|\(scales?.identity ?? "")|\(inputScale?.identity ?? "")" }
}

/// Weights of a linear layer in the layout of the kernels.
final class PackedProduct: Sendable {
    let outputs: Int
    let inputs: Int
    let form: ProductRecipe.Form
    private let memory: AlignedMemory

    var byteCount: Int { memory.byteCount }
    var pointer: UnsafeRawPointer { UnsafeRawPointer(memory.base) }

    init(_ recipe: ProductRecipe) throws {
        guard recipe.weight.shape.count >= 2 else {
            throw TripsError.data("weight of a linear layer", found: "\(recipe.weight.shape)", expected: "rank 2 or more")
        }
        let outputs = recipe.weight.shape[0]
        let inputs = try elementCount(of: Array(recipe.weight.shape.dropFirst()))
        (self.outputs, self.inputs, form) = (outputs, inputs, recipe.form)
        let weight = try recipe.weight.load()
        switch recipe.form {
        case .float:
            memory = try AlignedMemory(byteCount: trips_sgemm_pack_size(outputs, inputs) * MemoryLayout<Float>.size)
            let target = FloatPointer(memory)
            eachPanelRange(outputs) { range in
                let rows = weight.view.pointer(Float.self) + range.lowerBound * inputs
                trips_sgemm_pack(target.pointer, rows, inputs, outputs, inputs, range.lowerBound, range.upperBound)
            }
        case .int8(let groupSize):
            let scales = try PackedProduct.scales(recipe)
            let group = groupSize >= inputs ? 0 : groupSize
            memory = try AlignedMemory(byteCount: trips_igemm_pack_size(outputs, inputs, group))
            let (target, groups) = (FloatPointer(memory), trips_group_count(inputs, group))
            eachPanelRange(outputs) { range in
                trips_igemm_pack(
                    UnsafeMutableRawPointer(target.pointer), weight.view.pointer(Int8.self) + range.lowerBound * inputs, inputs,
                    scales.view.pointer(Float.self) + range.lowerBound * groups, outputs, inputs, group,
                    range.lowerBound, range.upperBound)
            }
        case .widened(let groupSize):
            let scales = try PackedProduct.scales(recipe)
            let inputScale = try recipe.inputScale?.load()
            let group = groupSize >= inputs ? 0 : groupSize
            memory = try AlignedMemory(byteCount: trips_sgemm_pack_size(outputs, inputs) * MemoryLayout<Float>.size)
            let (target, groups) = (FloatPointer(memory), trips_group_count(inputs, group))
            eachPanelRange(outputs) { range in
                withUnsafeTemporaryAllocation(of: Float.self, capacity: range.count * inputs) { rows in
                    guard let rows = rows.baseAddress else { return }
                    trips_dequantize_rows(
                        rows, inputs, weight.view.pointer(Int8.self) + range.lowerBound * inputs, inputs,
                        scales.view.pointer(Float.self) + range.lowerBound * groups, range.count, inputs, group,
                        inputScale?.view.pointer(Float.self))
                    trips_sgemm_pack(target.pointer, rows, inputs, outputs, inputs, range.lowerBound, range.upperBound)
                }
            }
        }
    }

    private static func scales(_ recipe: ProductRecipe) throws -> Tensor {
        guard let scales = recipe.scales else { throw TripsError.data("a quantized weight without scales") }
        return try scales.load()
    }
}

/// A pointer that tasks of one parallel loop share; they write to separate parts.
struct FloatPointer: @unchecked Sendable {
    let pointer: UnsafeMutablePointer<Float>

    init(_ pointer: UnsafeMutablePointer<Float>) { self.pointer = pointer }
    init(_ memory: AlignedMemory) {
        pointer = memory.base.assumingMemoryBound(to: Float.self)
    }
}

/// As `FloatPointer`, for reading.
struct SharedRows: @unchecked Sendable {
    let pointer: UnsafePointer<Float>

    init(_ view: TensorView) { pointer = view.pointer(Float.self) }
    init(_ pointer: UnsafePointer<Float>) { self.pointer = pointer }
}

/// Runs `body` in parallel for ranges of whole panels that cover 0 ..< outputs.
private func eachPanelRange(_ outputs: Int, _ body: @Sendable (Range<Int>) -> Void) {
    let step = 4 * Int(TRIPS_PANEL)
    ThreadPool.shared.run((outputs + step - 1) / step) { index in
        body(index * step..<min((index + 1) * step, outputs))
    }
}
