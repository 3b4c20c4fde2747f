import Kernels
import Operators
import PackageFormat
import Support
import Synchronization
import Tensors

/// The numbers of a model's constants, in the form in which the kernels read them; each form is made once and shared.
final class WeightStore: Sendable {
    private struct State {
        var tensors: [String: Tensor] = [:]
        var products: [String: PackedProduct] = [:]
    }
    private let state = Mutex(State())
    /// Held while a model's own are loaded, so that sessions that start at the same time do not each make them.
    private let preparing = Mutex(())
    /// Identities of the constants that belong to the model. Others are created by planning and freed with their plan.
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
        let product =
            try recipe.panels().map { try PackedProduct(recipe, $0) }
            ?? PackedProduct(recipe, into: MemoryPart(byteCount: recipe.packedByteCount()))
        if owned.contains(recipe.weight.identity) { keep(product, identity) }
        return product
    }

    private func keep(_ product: PackedProduct, _ identity: String) { state.withLock { $0.products[identity] = product } }

    /// Loads the model's own among these in parallel. Constants that planning created are left to their plan.
    func prepare(_ recipes: [ProductRecipe], _ constants: [Constant]) throws {
        try preparing.withLock { _ in try load(recipes, constants) }
    }

    private func load(_ recipes: [ProductRecipe], _ constants: [Constant]) throws {
        var seen = Set<String>()
        let made = state.withLock { Set($0.products.keys) }
        let recipes = recipes.filter {
            owned.contains($0.weight.identity) && !made.contains($0.identity) && seen.insert($0.identity).inserted
        }
        let constants = constants.filter { owned.contains($0.identity) && seen.insert($0.identity).inserted }
        let panels = try recipes.map { try $0.panels() }
        let parts = try MemoryPart.parts(zip(recipes, panels).map { try $1.map { _ in 0 } ?? $0.packedByteCount() })
        let products = try recipes.indices.map { index in
            let (recipe, panels, part) = (recipes[index], panels[index], parts[index])
            return (
                bytes: try recipe.weight.byteCount,
                load: { @Sendable in
                    let product = try panels.map { try PackedProduct(recipe, $0) } ?? PackedProduct(recipe, into: part)
                    self.keep(product, recipe.identity)
                }
            )
        }
        let tensors = try constants.map { constant in
            (bytes: try constant.byteCount, load: { @Sendable in _ = try self.tensor(constant) })
        }
        // The largest first: the last tasks are small, so that threads finish together.
        let tasks = (products + tensors).sorted { $0.bytes > $1.bytes }.map(\.load)
        try ThreadPool.shared.tryRun(tasks.count) { try tasks[$0]() }
        parts.first?.block.collapseIntoHugePages()
    }

    /// Bytes of all forms that are held.
    var byteCount: Int {
        state.withLock { state in
            state.tensors.values.reduce(0) { $0 + $1.byteCount } + state.products.values.reduce(0) { $0 + $1.byteCount }
        }
    }
}

/// How to pack the right-hand side of a product.
struct ProductRecipe: Sendable {
    enum Form: Sendable, Equatable {
        case float
        /// int8 weights, int8 activations.
        case int8(groupSize: Int)
        /// int8 weights that are widened when they are packed.
        case widened(groupSize: Int)
        /// Convolutions', each group by itself.
        case filters(groups: Int)

        /// As `kernelGroup`.
        func group(of inputs: Int) -> Int {
            switch self {
            case .float, .filters: 0
            case .int8(let size), .widened(let size): kernelGroup(size, of: inputs)
            }
        }
    }
    let form: Form
    /// [N, K]; K may be several axes.
    let weight: Constant
    /// [N, G], for int8 weights.
    var scales: Constant?
    /// [K]; part of the packed weights where they are widened.
    var inputScale: Constant?

    var quantizesRows: Bool { if case .int8 = form { true } else { false } }
    var identity: String { "\(form)|\(weight.identity)|\(scales?.identity ?? "")|\(inputScale?.identity ?? "")" }

    /// The layout of the packed weights; nil for those of convolutions.
    func layout() throws -> PanelLayout? {
        switch form {
        case .float, .widened: .float
        case .int8: .int8(group: form.group(of: try weight.matrixSizes().inputs))
        case .filters: nil
        }
    }

    /// Whether the kernels take such weights.
    func suitsKernels() throws -> Bool {
        let inputs = try weight.matrixSizes().inputs
        return try layout()?.takes(inputs: inputs) ?? true
    }

    func packedByteCount() throws -> Int {
        guard let layout = try layout() else { return try weight.byteCount }
        let (outputs, inputs) = try weight.matrixSizes()
        return try layout.byteCount(outputs: outputs, inputs: inputs)
    }

    /// Where the package has the weights as the kernels read them: these are used where they are.
    func panels() throws -> Panels? {
        switch form {
        case .float, .int8:
            guard let panels = try weight.panels(), try panels.layout == layout(), panels.scales == scales?.identity else {
                return nil
            }
            return panels
        case .widened, .filters: return nil
        }
    }
}

/// Weights of a linear layer in the layout of the kernels.
final class PackedProduct: Sendable {
    let outputs: Int
    let inputs: Int
    let form: ProductRecipe.Form
    let byteCount: Int
    private let source: Source<UInt8>
    /// Keeps the memory.
    private let owner: any Sendable

    var pointer: UnsafeRawPointer { UnsafeRawPointer(source.base) }

    /// Weights that are where they are to be, once they are checked.
    init(_ recipe: ProductRecipe, _ panels: Panels) throws {
        try panels.check()
        guard let base = panels.bytes.baseAddress else { throw TripsError.data("no memory for a linear layer") }
        (outputs, inputs) = try recipe.weight.matrixSizes()
        (form, byteCount) = (recipe.form, panels.bytes.count)
        (source, owner) = (Source(base: base.assumingMemoryBound(to: UInt8.self)), panels)
    }

    /// - Parameter memory: zeroed, `packedByteCount` of the recipe.
    init(_ recipe: ProductRecipe, into memory: MemoryPart) throws {
        guard let base = memory.bytes.baseAddress else { throw TripsError.data("no memory for a linear layer") }
        (outputs, inputs) = try recipe.weight.matrixSizes()
        (form, byteCount) = (recipe.form, memory.bytes.count)
        (source, owner) = (Source(base: base.assumingMemoryBound(to: UInt8.self)), memory)
        memory.block.prefault(memory.bytes)
        try pack(recipe, into: memory)
    }

    private func pack(_ recipe: ProductRecipe, into memory: MemoryPart) throws {
        switch form {
        case .float, .int8: try recipe.layout()?.pack(recipe.weight, scales: recipe.scales, into: memory)
        case .widened: try packWidened(recipe, into: memory)
        case .filters(let groups):
            try recipe.weight.readRows(multipleOf: Int(TRIPS_PACK_ROWS)) { [inputs, outputs] range, rows in
                guard let target = memory.bytes.baseAddress, let rows = rows.baseAddress else { return }
                PackedProduct.packFilters(
                    target.assumingMemoryBound(to: Float.self), rows.assumingMemoryBound(to: Float.self), range, inputs: inputs,
                    perGroup: outputs / groups)
            }
        }
    }

    /// Packs int8 weights that become fp32 a few rows at a time, which stay in cache.
    private func packWidened(_ recipe: ProductRecipe, into memory: MemoryPart) throws {
        guard let scales = try recipe.scales?.load() else { throw TripsError.data("a quantized weight without scales") }
        let (outputs, inputs, inputScale) = (outputs, inputs, try recipe.inputScale?.load())
        let group = form.group(of: inputs), groups = trips_group_count(inputs, group), step = Int(TRIPS_PACK_ROWS)
        try recipe.weight.readRows(multipleOf: step) { range, rows in
            guard let target = memory.bytes.baseAddress, let rows = rows.baseAddress else { return }
            for start in stride(from: range.lowerBound, to: range.upperBound, by: step) {
                let end = min(start + step, range.upperBound)
                withUnsafeTemporaryAllocation(of: Float.self, capacity: (end - start) * inputs) { wide in
                    guard let wide = wide.baseAddress else { return }
                    trips_dequantize_rows(
                        wide, inputs, rows.assumingMemoryBound(to: Int8.self) + (start - range.lowerBound) * inputs, inputs,
                        scales.view.source(Float.self).base + start * groups, end - start, inputs, group,
                        inputScale?.view.source(Float.self).base)
                    trips_sgemm_pack(target.assumingMemoryBound(to: Float.self), wide, inputs, outputs, inputs, start, end)
                }
            }
        }
    }

    /// - Parameter rows: the first of the range, which may begin and end inside a group.
    private static func packFilters(
        _ target: UnsafeMutablePointer<Float>, _ rows: UnsafePointer<Float>, _ range: Range<Int>, inputs: Int, perGroup: Int
    ) {
        guard perGroup > 0 else { return }
        var start = range.lowerBound
        while start < range.upperBound {
            let (group, first) = start.quotientAndRemainder(dividingBy: perGroup)
            let end = min(perGroup, first + range.upperBound - start)
            trips_filter_pack(
                target + group * perGroup * inputs, rows + (start - range.lowerBound) * inputs, inputs, perGroup, first, end)
            start += end - first
        }
    }
}
