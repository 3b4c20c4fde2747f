import Foundation
import Goldens
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
        var rows = 0
        /// Some rows, spread over all calibration inputs, to judge layers on.
        var sample: [Float] = []
    }

    /// Gives the inputs of the groups; nil without samples.
    private let session: Session?
    private let samples: [GoldenSet]
    private let inventory: LayerInventory
    private let pool: ThreadPool
    private var records: [Int: Record] = [:]
    private var scatters: [Int: ScatterMatrix] = [:]

    /// Bytes of the scatter matrices that one pass over the samples gathers.
    private static let scatterBudget = 160 << 20
    /// Inputs beyond which a layer's scatter matrix would take more than a gigabyte.
    static let widestScatter = 16384
    /// So many parts, or more, are rows divided into to see how they differ. A sample is one, or several where samples are few.
    private static let fewestParts = 8
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
            session = nil
            do {
                try SyntheticPass.run(tapped) { name, rows in
                    if let index = Observations.index(ofTap: name) { add(try rows.finiteRows(), to: index) }
                }
            } catch let error as TripsError where error.kind == .data {
                // The model may not take made-up tokens. What they did not reach stays unknown then.
            }
            return
        }
        session = Session(Model(graphs: tapped), threads: pool.ownThreads)
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
        let results = try locating(sample.name) { try asDataErrors { try session.compute(sample.inputs, outputs: taps) } }
        return try groups.compactMap { index in try results[Observations.tap(index)].map { (index, try $0.finiteRows()) } }
    }

    private func add(_ tensor: Tensor, to index: Int) {
        let width = tensor.shape.last ?? 1
        let rows = tensor.count / max(1, width)
        var record =
            records[index]
            ?? Record(
                largest: Array(repeating: 0, count: width), squares: Array(repeating: 0, count: width))
        let values = tensor.view.elements(Float.self)
        for row in 0..<rows {
            for column in 0..<width {
                let value = values[row * width + column]
                record.largest[column] = max(record.largest[column], abs(value))
                record.squares[column] += Double(value * value)
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

    /// The rows of a sample, divided.
    private func parts(of rows: Int) -> [Range<Int>] {
        let count = min(rows, max(1, Observations.fewestParts.dividedRoundingUp(by: max(1, samples.count))))
        return (0..<count).map { rows * $0 / count..<rows * ($0 + 1) / count }
    }

    /// Channel by channel; nil for layers that were not reached.
    func statistics(_ index: Int) -> ChannelStatistics? {
        guard let record = records[index], record.rows > 0 else { return nil }
        // A channel that is 0 in these rows, as after ReLU, need not be so in others: none counts as less than an eighth of the mean.
        let floor = record.largest.reduce(0, +) / Float(max(1, record.largest.count)) / 8
        return ChannelStatistics(
            largest: record.largest.map { max($0, floor) }, meanSquare: record.squares.map { Float($0 / Double(record.rows)) })
    }

    /// Over all rows; nil without data, and for very wide rows. Several groups are gathered in one pass and dropped
    /// once they are asked for.
    func scatter(_ index: Int) throws -> ScatterMatrix? {
        guard !samples.isEmpty, scatterWidth(index) != nil else { return nil }
        if scatters[index] == nil { try gatherScatters(from: index) }
        return scatters.removeValue(forKey: index)
    }

    private func scatterWidth(_ index: Int) -> Int? {
        guard let record = records[index], record.rows > 0, record.largest.count <= Observations.widestScatter else { return nil }
        return record.largest.count
    }

    private func gatherScatters(from first: Int) throws {
        var chosen: [Int] = []
        var bytes = 0
        for index in inventory.groups.indices[first...] {
            guard let width = scatterWidth(index), let record = records[index] else { continue }
            bytes += width * width * MemoryLayout<Float>.size
            if !chosen.isEmpty && bytes > Observations.scatterBudget { break }
            chosen.append(index)
            scatters[index] = ScatterMatrix(squares: record.squares)
        }
        for sample in samples {
            for (index, rows) in try observe(chosen, sample) {
                for part in parts(of: rows.count / max(1, rows.shape.last ?? 1)) {
                    scatters[index]?.add(rows, rows: part, pool: pool)
                }
            }
        }
    }

    /// SNR in dB of a layer's products, its own bias aside, on sampled rows; nil without data.
    func outputSNR(_ index: Int, _ weight: Tensor, _ layer: QuantizedLayer, _ options: QuantizationOptions) throws -> Double? {
        guard !samples.isEmpty, let record = records[index], record.rows > 0 else { return nil }
        let rows = try Tensor(record.sample, shape: [record.sample.count / record.largest.count, record.largest.count])
        var graph = Graph(name: "layer")
        let input = try graph.addInput("rows", ValueType(.float32, rows.shape.map { Dimension($0) }))
        func constant(_ tensor: Tensor, _ name: String) throws -> ValueID {
            try graph.addConstant(Constant(tensor, identity: name), name: name)
        }
        let op = QuantizedLinear(groupSize: layer.matrix.groupSize, activations: options.weightsOnly ? .float32 : .int8)
        let scale = try layer.inputScale.map { try constant($0.load(), "input scale") }
        let (integers, scales) = (try constant(layer.matrix.weight, "integers"), try constant(layer.matrix.scales, "scales"))
        try graph.addOutput("exact", graph.add(Linear(), [input, constant(weight, "weight")], name: "exact")[0])
        try graph.addOutput("rounded", graph.add(op, [input, integers, scales, nil, scale], name: "rounded")[0])
        let results = try Session(Model(graphs: [graph]), threads: pool.ownThreads).run(["rows": rows])
        guard let exact = results["exact"], let rounded = results["rounded"] else { return nil }
        return snr(try rounded.numbers(), reference: try exact.numbers())
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

/// SNR in dB, as `SignalToNoise` defines it.
package func snr(_ numbers: [Double], reference: [Double]) -> Double {
    var ratio = SignalToNoise()
    for (x, g) in zip(numbers, reference) { ratio.add(x, reference: g) }
    return ratio.snr
}
