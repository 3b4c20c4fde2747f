import Foundation
import Goldens
import Kernels
import ModelGraph
import Operators
import PackageFormat
import Runtime
import Support
import Tensors

/// What the inputs of linear layers look like on calibration data; without any, their ranges on synthetic inputs.
final class Observations {
    private struct Record {
        var largest: [Float]
        var squares: [Double]
        var sums: [Double]
        var rows = 0
        /// Some rows, spread over all calibration inputs, to judge layers on.
        var sample: [Float] = []
    }

    private let model: Model?
    private let session: Session?
    private let samples: [GoldenSet]
    private let inventory: LayerInventory
    private let pool: ThreadPool
    private var records: [Int: Record] = [:]
    private var grams: [Int: Gram] = [:]

    /// Bytes of the Gram matrices that one pass over the samples gathers.
    private static let gramBudget = 160 << 20
    /// Inputs beyond which a layer's Gram matrix would take more than a gigabyte.
    static let widestGram = 16384
    private static let sampledRows = 256

    init(_ graphs: [Graph], _ inventory: LayerInventory, _ samples: [GoldenSet], _ pool: ThreadPool) throws {
        self.samples = samples
        self.inventory = inventory
        self.pool = pool
        var tapped = graphs
        for (index, group) in inventory.groups.enumerated() {
            try tapped[group.graph].addOutput(Observations.tap(index), group.input)
        }
        guard !samples.isEmpty else {
            (model, session) = (nil, nil)
            do {
                try SyntheticPass.run(tapped) { name, rows in
                    if let index = Observations.index(ofTap: name) { add(try rows.finiteRows(), to: index) }
                }
            } catch let error as TripsError where error.kind == .data {
                // The model may not take made-up tokens. What they did not reach stays unknown then.
            }
            return
        }
        let model = Model(graphs: tapped)
        (self.model, session) = (model, Session(model, threads: pool.ownThreads))
        for sample in samples {
            for (index, rows) in try observe(Array(inventory.groups.indices), sample) { add(rows, to: index) }
        }
    }

    private static let tapPrefix = "input of group "
    private static func tap(_ index: Int) -> String { tapPrefix + "\(index)" }
    private static func index(ofTap name: String) -> Int? {
        name.hasPrefix(tapPrefix) ? Int(name.dropFirst(tapPrefix.count)) : nil
    }

    /// The finite rows that groups read for one sample; groups that it does not reach are left out.
    private func observe(_ groups: [Int], _ sample: GoldenSet) throws -> [(Int, Tensor)] {
        guard let session else { return [] }
        let taps = try session.reachable(groups.map(Observations.tap), from: Set(sample.inputs.keys))
        let results = try locating(sample.name) { try asDataErrors { try session.run(sample.inputs, outputs: taps) } }
        return try groups.compactMap { index in try results[Observations.tap(index)].map { (index, try $0.finiteRows()) } }
    }

    private func add(_ tensor: Tensor, to index: Int) {
        let width = tensor.shape.last ?? 1
        let rows = tensor.count / max(1, width)
        var record =
            records[index]
            ?? Record(
                largest: Array(repeating: 0, count: width), squares: Array(repeating: 0, count: width),
                sums: Array(repeating: 0, count: width))
        let values = tensor.view.elements(Float.self)
        for row in 0..<rows {
            for column in 0..<width {
                let value = values[row * width + column]
                record.largest[column] = max(record.largest[column], abs(value))
                record.squares[column] += Double(value * value)
                record.sums[column] += Double(value)
            }
        }
        record.rows += rows
        if !samples.isEmpty {
            let wanted = max(1, Observations.sampledRows / samples.count)
            for row in stride(from: 0, to: rows, by: max(1, rows / wanted)) {
                record.sample += values[row * width..<(row + 1) * width]
            }
        }
        records[index] = record
    }

    /// Channel by channel; nil for layers that were not reached.
    func statistics(_ index: Int) -> ChannelStatistics? {
        guard let record = records[index], record.rows > 0 else { return nil }
        // A channel that is 0 in these rows, as after ReLU, need not be so in others: none counts as less than an eighth of the mean.
        let floor = record.largest.reduce(0, +) / Float(max(1, record.largest.count)) / 8
        return ChannelStatistics(
            largest: record.largest.map { max($0, floor) }, meanSquare: record.squares.map { Float($0 / Double(record.rows)) })
    }

    /// The mean of each channel; nil without data.
    func mean(_ index: Int) -> [Float]? {
        guard !samples.isEmpty, let record = records[index], record.rows > 0 else { return nil }
        return record.sums.map { Float($0 / Double(record.rows)) }
    }

    /// Σ x xᵀ over all rows; nil without data, and for very wide rows. Several groups are gathered in one pass and dropped once
    /// they are asked for.
    func gram(_ index: Int) throws -> Gram? {
        guard !samples.isEmpty, gramWidth(index) != nil else { return nil }
        if grams[index] == nil { try gatherGrams(from: index) }
        return grams.removeValue(forKey: index)
    }

    private func gramWidth(_ index: Int) -> Int? {
        guard let record = records[index], record.rows > 0, record.largest.count <= Observations.widestGram else { return nil }
        return record.largest.count
    }

    private func gatherGrams(from first: Int) throws {
        var chosen: [Int] = []
        var bytes = 0
        for index in inventory.groups.indices[first...] {
            guard let width = gramWidth(index) else { continue }
            bytes += width * width * MemoryLayout<Float>.size
            if !chosen.isEmpty && bytes > Observations.gramBudget { break }
            chosen.append(index)
            grams[index] = Gram(width: width)
        }
        for sample in samples {
            for (index, rows) in try observe(chosen, sample) { grams[index]?.add(rows, pool: pool) }
        }
    }

    /// SNR in dB of a layer's output on sampled rows; nil without data.
    func outputSNR(_ index: Int, _ weight: Tensor, _ layer: QuantizedLayer, _ options: QuantizationOptions) throws -> Double? {
        guard !samples.isEmpty, let record = records[index], record.rows > 0 else { return nil }
        let rows = try Tensor(record.sample, shape: [record.sample.count / record.largest.count, record.largest.count])
        var graph = Graph(name: "layer")
        let input = try graph.addInput("rows", ValueType(.float32, rows.shape.map { Dimension($0) }))
        func constant(_ tensor: Tensor, _ name: String) throws -> ValueID {
            try graph.addConstant(Constant(tensor, identity: name), name: name)
        }
        let op = QuantizedLinear(groupSize: layer.matrix.groupSize, activations: options.weightsOnly ? .float32 : .int8)
        let bias = try layer.biasCorrection.map { try constant(Tensor($0, shape: [$0.count]), "bias") }
        let scale = try layer.inputScale.map { try constant($0.load(), "input scale") }
        let (integers, scales) = (try constant(layer.matrix.weight, "integers"), try constant(layer.matrix.scales, "scales"))
        try graph.addOutput("exact", graph.add(Linear(), [input, constant(weight, "weight")], name: "exact")[0])
        try graph.addOutput("rounded", graph.add(op, [input, integers, scales, bias, scale], name: "rounded")[0])
        let model = Model(graphs: [graph])
        let results = try Session(model, threads: pool.ownThreads).run(["rows": rows])
        guard let exact = results["exact"], let rounded = results["rounded"] else { return nil }
        return snr(try rounded.elements(), reference: try exact.elements())
    }
}

extension Tensor {
    /// The rows [R, K] that hold neither NaN nor infinity: a single one would outweigh all others.
    fileprivate func finiteRows() throws -> Tensor {
        let width = shape.last ?? 1
        guard width > 0, !withBytes({ $0.bindMemory(to: Float.self).allSatisfy(\.isFinite) }) else { return self }
        let values = try elements(Float.self)
        let rows = stride(from: 0, to: values.count, by: width).map { values[$0..<$0 + width] }.filter { $0.allSatisfy(\.isFinite) }
        return try Tensor(rows.flatMap { $0 }, shape: [rows.count, width])
    }
}

/// A sum of outer products of rows.
package final class Gram {
    package let width: Int
    /// [width, width], of which the lower triangle counts.
    private(set) var values: [Float]

    package init(width: Int) {
        self.width = width
        values = Array(repeating: 0, count: width * width)
    }

    /// Adds the outer products of the rows of [R, width].
    package func add(_ tensor: Tensor, pool: ThreadPool = .shared) {
        let (width, count) = (width, tensor.count / max(1, width))
        let columns = Gram.transposed(tensor.view.elements(Float.self), rows: count, columns: width)
        var packed = [Float](repeating: 0, count: trips_sgemm_pack_size(width, count))
        trips_sgemm_pack(&packed, columns, count, width, count, 0, width)
        let part = 2 * Int(TRIPS_PANEL)
        values.withUnsafeMutableBufferPointer { values in
            guard let base = values.baseAddress else { return }
            let target = Target(base: base)
            pool.run(width.dividedRoundingUp(by: part)) { [packed] index in
                let first = index * part
                var epilogue = trips_epilogue(
                    bias: nil, residual: target.base, ldr: width, residual_rows: nil, activation: TRIPS_ACTIVATION_NONE)
                trips_sgemm(
                    columns, count, packed, width, count, target.base, width, first, width, first, min(width, first + part),
                    &epilogue)
            }
        }
    }

    private static func transposed(_ source: UnsafeBufferPointer<Float>, rows: Int, columns: Int) -> [Float] {
        var result = [Float](repeating: 0, count: rows * columns)
        for row in 0..<rows { for column in 0..<columns { result[column * rows + row] = source[row * columns + column] } }
        return result
    }
}

/// SNR in dB, as `SignalToNoise` defines it.
package func snr(_ numbers: [Float], reference: [Float]) -> Double {
    var ratio = SignalToNoise()
    for (x, g) in zip(numbers, reference) { ratio.add(Double(x), reference: Double(g)) }
    return ratio.snr
}
