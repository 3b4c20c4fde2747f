import ModelGraph
import PackageFormat
import Runtime
import Support
import Tensors

/// Rounds all large weights to a 16-bit type; arithmetic stays fp32. Constants that are no weights, such as masks, stay where a
/// number in them is out of the type's range.
func narrow(
    _ graphs: [Graph], to type: DataType, _ options: QuantizationOptions, _ pool: ThreadPool
) throws -> (graphs: [Graph], report: QuantizationReport) {
    var narrowing = try Narrowing(graphs, to: type, options)
    let narrowed = try graphs.map { try narrowing.narrowed($0) }
    var report = narrowing.report
    if !options.calibration.isEmpty {
        let judge = try OutputJudge(graphs, options.calibration, pool)
        report.unmeasuredOutputs = judge.unmeasured
        report.record(try judge.compare(narrowed))
    }
    return (narrowed, report)
}

private struct Narrowing {
    let type: DataType
    /// Identities of the weights that a pattern keeps, and the pattern.
    private let kept: [String: StayReason]
    private(set) var report: QuantizationReport
    /// Identities of the constants in the report: graphs share them.
    private var reported = Set<String>()

    init(_ graphs: [Graph], to type: DataType, _ options: QuantizationOptions) throws {
        let inventory = try LayerInventory(graphs, keep: options.keep)
        guard inventory.quantizedBefore == 0 else {
            throw TripsError.usage(
                "layers are quantized already", found: "\(inventory.quantizedBefore) in int8",
                expected: "int8, which leaves them as they are, or weights in floating point")
        }
        self.type = type
        kept = inventory.layers.reduce(into: [:]) { kept, layer in
            if case .kept? = layer.reasonToStay { kept[layer.weight.identity] = layer.reasonToStay }
        }
        report = QuantizationReport(scheme: options.scheme.rawValue)
    }

    mutating func narrowed(_ graph: Graph) throws -> Graph {
        var graph = graph
        var visited = Set<ValueID>()
        for node in graph.nodes {
            for case let input? in node.inputs where visited.insert(input).inserted {
                guard let constant = graph.constant(of: input), constant.dataType == .float32, constant.shape.count >= 2 else {
                    continue
                }
                let reason = try reasonToStay(constant, isWeight: graph.isWeight(input))
                let rounded = reason == nil ? constant.rounded(to: type) : constant
                if reported.insert(constant.identity).inserted {
                    try add(constant, as: rounded, name: graph.name(of: input), reason)
                }
                if reason == nil { graph.setContent(.tensor(rounded), of: input) }
            }
        }
        return graph
    }

    private func reasonToStay(_ constant: Constant, isWeight: Bool) throws -> String? {
        if let pattern = kept[constant.identity] { return pattern.description }
        guard type == .float16, !isWeight, try constant.load().number(beyond: type) != nil else { return nil }
        return "no weight, and beyond \(type)"
    }

    private mutating func add(_ constant: Constant, as rounded: Constant, name: String, _ reason: String?) throws {
        let (before, after) = (try constant.storedByteCount, try rounded.storedByteCount)
        report.layers.append(
            LayerReport(
                name: name, kind: "\(constant.shape)", precision: WeightPrecision(rounded.storedType),
                note: reason, bytesBefore: before, bytesAfter: after))
        report.bytesBefore += before
        report.bytesAfter += after
    }
}
