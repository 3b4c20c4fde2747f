import Kernels
import Operators
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
        let product = try PackedProduct(recipe, into: MemoryPart(byteCount: recipe.packedByteCount()))
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
        let parts = try MemoryPart.parts(recipes.map { try $0.packedByteCount() })
        let products = try zip(recipes, parts).map { recipe, part in
            (
                bytes: try recipe.weight.byteCount,
                load: { @Sendable in self.keep(try PackedProduct(recipe, into: part), recipe.identity) }
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

        /// Inputs that share a scale, as the kernels' parameter: 0 where all of a row do.
        func group(of inputs: Int) -> Int {
            switch self {
            case .float, .filters: 0
            case .int8(let size), .widened(let size): size >= inputs ? 0 : size
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

    /// [N, K] with all of K's axes as one.
    func sizes() throws -> (outputs: Int, inputs: Int) {
        guard weight.shape.count >= 2 else {
            throw TripsError.data("weight of a linear layer", found: "\(weight.shape)", expected: "rank 2 or more")
        }
        return (weight.shape[0], try elementCount(of: Array(weight.shape.dropFirst())))
    }

    /// Whether the kernels take such weights (`trips_igemm`): groups of whole steps, and sums that 32 bits hold.
    func suitsKernels() throws -> Bool {
        let inputs = try sizes().inputs
        return !quantizesRows || (inputs <= 65_536 && form.group(of: inputs) % 4 == 0)
    }

    func packedByteCount() throws -> Int {
        let (outputs, inputs) = try sizes()
        return switch form {
        case .float, .widened: trips_sgemm_pack_size(outputs, inputs) * MemoryLayout<Float>.size
        case .int8: trips_igemm_pack_size(outputs, inputs, form.group(of: inputs))
        case .filters: try weight.byteCount
        }
    }
}

/// A part of a block of memory, which lives as long as one of its parts.
struct MemoryPart: Sendable {
    let block: AlignedMemory
    private let range: Range<Int>
    var bytes: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(rebasing: block.bytes[range]) }

    init(byteCount: Int) throws {
        block = try AlignedMemory(byteCount: byteCount)
        range = 0..<byteCount
    }

    private init(_ block: AlignedMemory, _ range: Range<Int>) {
        self.block = block
        self.range = range
    }

    /// Parts of one block, each at a 64-byte boundary, so that a huge page holds several.
    static func parts(_ byteCounts: [Int]) throws -> [MemoryPart] {
        var starts: [Int] = [], end = 0
        for count in byteCounts {
            starts.append(end)
            let (next, overflow) = end.addingReportingOverflow(count)
            guard !overflow, next <= Int.max - 63 else {
                throw TripsError.data("memory for \(byteCounts.count) weights was refused")
            }
            end = next.inWholeCacheLines
        }
        let block = try AlignedMemory(byteCount: end)
        block.preferHugePages()
        return zip(starts, byteCounts).map { MemoryPart(block, $0..<$0 + $1) }
    }
}

/// Weights of a linear layer in the layout of the kernels.
final class PackedProduct: Sendable {
    let outputs: Int
    let inputs: Int
    let form: ProductRecipe.Form
    private let memory: MemoryPart
    private let target: Target<Float>

    var byteCount: Int { memory.bytes.count }
    var pointer: UnsafeRawPointer { UnsafeRawPointer(target.base) }

    /// - Parameter memory: zeroed, `packedByteCount` of the recipe.
    init(_ recipe: ProductRecipe, into memory: MemoryPart) throws {
        guard let base = memory.bytes.baseAddress else { throw TripsError.data("no memory for a linear layer") }
        (outputs, inputs) = try recipe.sizes()
        (form, self.memory, target) = (recipe.form, memory, Target(base: base.assumingMemoryBound(to: Float.self)))
        memory.block.prefault(memory.bytes)
        let pack = try packing(recipe)
        // Decoded and packed in pieces, which stay in cache.
        try recipe.weight.readRows(multipleOf: Int(TRIPS_PACK_ROWS)) { range, bytes in
            if let base = bytes.baseAddress { pack(range, base) }
        }
    }

    /// A function that packs a range of rows [range.count, K] of the weight.
    private func packing(_ recipe: ProductRecipe) throws -> @Sendable (Range<Int>, UnsafeRawPointer) -> Void {
        let (outputs, inputs, target) = (outputs, inputs, target)
        switch form {
        case .float:
            return { range, rows in
                trips_sgemm_pack(
                    target.base, rows.assumingMemoryBound(to: Float.self), inputs, outputs, inputs, range.lowerBound,
                    range.upperBound)
            }
        case .filters(let groups):
            return { range, rows in
                PackedProduct.packFilters(
                    target.base, rows.assumingMemoryBound(to: Float.self), range, inputs: inputs, perGroup: outputs / groups)
            }
        case .int8:
            let scales = try PackedProduct.scales(recipe)
            let group = form.group(of: inputs), groups = trips_group_count(inputs, group)
            return { range, rows in
                trips_igemm_pack(
                    UnsafeMutableRawPointer(target.base), rows.assumingMemoryBound(to: Int8.self), inputs,
                    scales.view.source(Float.self).base + range.lowerBound * groups, outputs, inputs, group,
                    range.lowerBound, range.upperBound)
            }
        case .widened: return try wideningPacking(recipe)
        }
    }

    /// As `packing`; the rows are int8, and become fp32 a few at a time, which stay in cache.
    private func wideningPacking(_ recipe: ProductRecipe) throws -> @Sendable (Range<Int>, UnsafeRawPointer) -> Void {
        let (outputs, inputs, target) = (outputs, inputs, target)
        let (scales, inputScale) = (try PackedProduct.scales(recipe), try recipe.inputScale?.load())
        let group = form.group(of: inputs), groups = trips_group_count(inputs, group)
        return { range, rows in
            for start in stride(from: range.lowerBound, to: range.upperBound, by: Int(TRIPS_PACK_ROWS)) {
                let end = min(start + Int(TRIPS_PACK_ROWS), range.upperBound)
                withUnsafeTemporaryAllocation(of: Float.self, capacity: (end - start) * inputs) { wide in
                    guard let wide = wide.baseAddress else { return }
                    trips_dequantize_rows(
                        wide, inputs, rows.assumingMemoryBound(to: Int8.self) + (start - range.lowerBound) * inputs, inputs,
                        scales.view.source(Float.self).base + start * groups, end - start, inputs, group,
                        inputScale?.view.source(Float.self).base)
                    trips_sgemm_pack(target.base, wide, inputs, outputs, inputs, start, end)
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

    private static func scales(_ recipe: ProductRecipe) throws -> Tensor {
        guard let scales = recipe.scales else { throw TripsError.data("a quantized weight without scales") }
        return try scales.load()
    }
}
