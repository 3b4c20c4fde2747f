import Kernels
import Support
import Tensors

/// Inputs that share a scale as the kernels' parameter: 0 where all of a row do.
package func kernelGroup(_ groupSize: Int, of inputs: Int) -> Int { groupSize >= inputs ? 0 : groupSize }

extension PanelLayout {
    /// Whether the kernels take weights of so many inputs: groups of whole steps, and sums that 32 bits hold.
    package func takes(inputs: Int) -> Bool {
        switch self {
        case .float: true
        case .int8(let group): inputs <= Int(TRIPS_MOST_INPUTS) && group >= 0 && group % 4 == 0
        }
    }

    /// Bytes of weights [N, K].
    /// - Throws: `data` where they overflow, or are not for the kernels.
    package func byteCount(outputs: Int, inputs: Int) throws -> Int {
        guard outputs >= 0, inputs >= 0, outputs <= Int.max - Int(TRIPS_PANEL), takes(inputs: inputs) else {
            throw TripsError.data("weights in panels", found: "[\(outputs), \(inputs)], \(self)")
        }
        let panels = outputs.dividedRoundingUp(by: Int(TRIPS_PANEL))
        switch self {
        case .float: return try Tensors.byteCount(of: .float32, [panels * Int(TRIPS_PANEL), inputs])
        case .int8(let group): return try elementCount(of: [panels, trips_igemm_pack_size(1, inputs, group)])
        }
    }

    /// Packs a weight [N, K], of which K may be several axes, in pieces that stay in cache.
    /// - Parameters:
    ///   - scales: [N, G], for int8.
    ///   - memory: zeroed, of `byteCount`.
    package func pack(_ weight: Constant, scales: Constant?, into memory: MemoryPart) throws {
        let (outputs, inputs) = try weight.matrixSizes()
        guard memory.bytes.count == (try byteCount(outputs: outputs, inputs: inputs)) else {
            throw TripsError.data("memory for a linear layer", found: memory.bytes.count)
        }
        let packRows = try rowPacking(outputs, inputs, scales)
        try weight.readRows(multipleOf: Int(TRIPS_PACK_ROWS)) { range, rows in
            guard let target = memory.bytes.baseAddress, let rows = rows.baseAddress else { return }
            packRows(target, range, rows)
        }
    }

    /// A function that packs a range of rows [range.count, K].
    private func rowPacking(
        _ outputs: Int, _ inputs: Int, _ scales: Constant?
    ) throws -> @Sendable (UnsafeMutableRawPointer, Range<Int>, UnsafeRawPointer) -> Void {
        switch self {
        case .float:
            return { target, range, rows in
                trips_sgemm_pack(
                    target.assumingMemoryBound(to: Float.self), rows.assumingMemoryBound(to: Float.self), inputs, outputs, inputs,
                    range.lowerBound, range.upperBound)
            }
        case .int8(let group):
            let groups = trips_group_count(inputs, group)
            guard let scales = try scales?.load(), scales.dataType == .float32, scales.shape == [outputs, groups] else {
                throw TripsError.data(
                    "scales of a quantized weight", found: scales.map { "\($0.dataType)\($0.shape)" } ?? "none",
                    expected: "float32[\(outputs), \(groups)]")
            }
            return { target, range, rows in
                scales.withBytes { bytes in
                    guard let scales = bytes.baseAddress?.assumingMemoryBound(to: Float.self) else { return }
                    trips_igemm_pack(
                        target, rows.assumingMemoryBound(to: Int8.self), inputs, scales + range.lowerBound * groups, outputs,
                        inputs, group, range.lowerBound, range.upperBound)
                }
            }
        }
    }
}

extension Constant {
    /// [N, K] with all of K's axes as one.
    package func matrixSizes() throws -> (outputs: Int, inputs: Int) {
        guard shape.count >= 2 else {
            throw TripsError.data("weight of a linear layer", found: "\(shape)", expected: "rank 2 or more")
        }
        return (shape[0], try elementCount(of: Array(shape.dropFirst())))
    }
}

extension Panels {
    /// The weight [N, K], in its own order.
    func unpacked(_ shape: [Int]) throws -> Tensor {
        let (outputs, inputs) = (shape[0], shape[1])
        return try Tensor.uninitialized(layout == .float ? .float32 : .int8, shape) { target in
            ThreadPool.shared.run(outputs.dividedRoundingUp(by: Int(TRIPS_PANEL))) { panel in
                guard let packed = bytes.baseAddress else { return }
                let start = panel * Int(TRIPS_PANEL), end = min(outputs, start + Int(TRIPS_PANEL))
                switch layout {
                case .float:
                    trips_sgemm_unpack(
                        target.base.assumingMemoryBound(to: Float.self) + start * inputs, inputs,
                        packed.assumingMemoryBound(to: Float.self), inputs, start, end)
                case .int8(let group):
                    trips_igemm_unpack(
                        target.base.assumingMemoryBound(to: Int8.self) + start * inputs, inputs, packed, inputs, group, start, end)
                }
            }
        }
    }
}
