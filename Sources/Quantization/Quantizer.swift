import ModelGraph
import Rewrites
import Runtime
import Support
import Tensors

/// Gives a model's linear layers and embeddings narrower weights.
///
/// - Parameters:
///   - graphs: those of a package, in order.
///   - progress: called with the layers done and their number; each counts twice where it is also tried alone.
/// - Returns: graphs of the same inputs, outputs and traces, and what was done.
/// - Throws: `usage` where options do not go together, a pattern matches no layer, or all layers are quantized already;
///   `data` where a weight or an input to calibrate on is not finite, or those inputs suffice for no output.
package func quantize(
    _ graphs: [Graph], _ options: QuantizationOptions, pool: ThreadPool = .shared, progress: ((Int, Int) -> Void)? = nil
) throws -> (graphs: [Graph], report: QuantizationReport) {
    try options.check()
    try options.checkCalibration()
    if options.scheme != .int8 {
        return try narrow(graphs, to: options.scheme == .bf16 ? .bfloat16 : .float16, options, pool)
    }
    let graphs = options.weightsOnly ? graphs : try graphs.map { try $0.scoringBySources() }
    var quantizer = try Quantizer(graphs, options, pool)
    try quantizer.prepare(progress)
    if !options.calibration.isEmpty { try quantizer.judge(progress) }
    return try quantizer.result()
}

/// A layer's new weights.
struct QuantizedLayer {
    let matrix: QuantizedMatrix
    /// [K], one constant for all layers of an input group, so that the runtime quantizes their rows once.
    var inputScale: Constant?
}

private struct Quantizer {
    let graphs: [Graph]
    let options: QuantizationOptions
    let pool: ThreadPool
    var inventory: LayerInventory
    /// By layer; nil for those that stay.
    var quantized: [QuantizedLayer?]
    var reports: [LayerReport]
    var report: QuantizationReport
    /// Whether large constants outside quantizable layers become bfloat16.
    var roundsRest = true

    init(_ graphs: [Graph], _ options: QuantizationOptions, _ pool: ThreadPool) throws {
        self.graphs = graphs
        self.options = options
        self.pool = pool
        inventory = try LayerInventory(graphs, keep: options.keep)
        guard inventory.quantizedBefore > 0 || !inventory.layers.isEmpty else {
            throw TripsError.usage(
                "no layer can be quantized", expected: "linear layers or embeddings with constant weights in fp32")
        }
        quantized = Array(repeating: nil, count: inventory.layers.count)
        reports = try inventory.layers.map { layer in
            let bytes = try layer.weight.storedByteCount
            return LayerReport(
                name: layer.name, kind: layer.kind, precision: .float32, note: layer.reasonToStay?.description, bytesBefore: bytes,
                bytesAfter: bytes)
        }
        report = QuantizationReport(scheme: options.weightsOnly ? "int8 weights, fp32 arithmetic" : "int8")
        report.quantizedBefore = inventory.quantizedBefore
    }

    /// Number of progress steps.
    private var steps: Int { inventory.layers.count * (options.minimalSNR == nil ? 1 : 2) }

    private var activations: ActivationPrecision { options.weightsOnly ? .float32 : .int8 }

    /// The number of inputs that share a scale. With fp32 arithmetic, fine groups cost only their bytes; the int8 product pays a
    /// conversion for each group, so there a row has one scale unless groups nearly halve the rounding error.
    private func groupSize(_ weights: [Tensor], _ scaling: InputScaling?, _ importance: [Float]?) -> Int {
        let inputs = weights[0].shape[1]
        if options.weightsOnly { return min(64, inputs) }
        let factors = scaling?.factors ?? Array(repeating: 1, count: inputs)
        let square = importance ?? Array(repeating: 1, count: inputs)
        let whole = roundingCost(weights, factors, groupSize: inputs, importance: square)
        return roundingCost(weights, factors, groupSize: min(128, inputs), importance: square) <= whole * 0.55
            ? min(128, inputs) : inputs
    }

    // MARK: Rounding

    mutating func prepare(_ progress: ((Int, Int) -> Void)?) throws {
        let observations = try Observations(graphs, inventory, options.calibration, pool)
        var done = 0
        for index in inventory.layers.indices
        where inventory.layers[index].isEmbedding && inventory.layers[index].reasonToStay == nil {
            let layer = inventory.layers[index]
            try finish(index, QuantizedLayer(matrix: roundWeights(layer.load(), groupSize: layer.inputs, pool: pool)))
            done += 1
            progress?(done, steps)
        }
        for (groupIndex, group) in inventory.groups.enumerated() {
            try round(group, observations, groupIndex)
            done += group.layers.count
            progress?(done, steps)
        }
    }

    private mutating func round(_ group: InputGroup, _ observations: Observations, _ groupIndex: Int) throws {
        let first = group.layers[0]
        let weights = try group.layers.map { try inventory.layers[$0].load() }
        let statistics = try observations.statistics(groupIndex) ?? graphs[group.graph].normStatistics(of: group.input)
        let scaling =
            options.weightsOnly
            ? nil
            : statistics.map {
                InputScaling(weights: weights, statistics: $0, groupSize: inventory.layers[first].inputs, pool: pool)
            }
        let factors = scaling?.factors
        let importance = statistics.map { statistics in
            factors.map { zip(statistics.meanSquare, $0).map { $0 * $1 * $1 } } ?? statistics.meanSquare
        }
        let size = groupSize(weights, scaling, importance)
        let inverse = factors.map { $0.map { 1 / $0 } }
        let compensation = try observations.scatter(groupIndex).flatMap { Compensation($0, columnFactor: inverse) }
        let inputScale = try factors.map {
            Constant(try Tensor($0, shape: [$0.count]), identity: "input scale of \(inventory.layers[first].weight.identity)")
        }
        for (index, weight) in zip(group.layers, weights) {
            let matrix =
                try compensation?.round(weight, groupSize: size, columnFactor: inverse, importance: importance, pool: pool)
                ?? roundWeights(weight, groupSize: size, columnFactor: inverse, importance: importance, pool: pool)
            let layer = QuantizedLayer(matrix: matrix, inputScale: inputScale)
            try finish(index, layer)
            describe(index, statistics, scaling)
            reports[index].outputSNR = try observations.outputSNR(groupIndex, weight, layer, options)
        }
    }

    private mutating func finish(_ index: Int, _ layer: QuantizedLayer) throws {
        quantized[index] = layer
        reports[index].precision = .int8
        reports[index].bytesAfter =
            layer.matrix.weight.byteCount + layer.matrix.scales.byteCount + (try layer.inputScale?.byteCount ?? 0)
        reports[index].groupSize = layer.matrix.groupSize
        reports[index].weightSNR = layer.matrix.snr
    }

    private mutating func describe(_ index: Int, _ statistics: ChannelStatistics?, _ scaling: InputScaling?) {
        guard let statistics else {
            reports[index].note = "nothing is known of its input"
            return
        }
        if !options.calibration.isEmpty && statistics.largest.count > Observations.widestScatter {
            reports[index].note = "more than \(Observations.widestScatter) inputs: each weight is rounded by itself"
        }
        let sorted = statistics.largest.sorted()
        if let largest = sorted.last, sorted[sorted.count / 2] > 0 {
            reports[index].outlierRatio = Double(largest / sorted[sorted.count / 2])
        }
        if let strength = scaling?.strength, scaling?.factors != nil { reports[index].scalingStrength = Double(strength) }
    }

    // MARK: Judging

    /// Runs both models on the calibration inputs; puts layers back where that is wanted.
    mutating func judge(_ progress: ((Int, Int) -> Void)?) throws {
        let judge = try OutputJudge(graphs, options.calibration, pool)
        report.unmeasuredOutputs = judge.unmeasured
        guard let wanted = options.minimalSNR else {
            report.record(try judge.compare(result().graphs))
            return
        }
        let candidates = quantized.indices.filter { quantized[$0] != nil }
        for index in candidates {
            let alone = try graphs(quantizing: [index])
            reports[index].modelSNR = try judge.worst(alone)
            progress?(inventory.layers.count + index + 1, steps)
        }
        let order = candidates.sorted { (reports[$0].modelSNR ?? 0) < (reports[$1].modelSNR ?? 0) }
        // The SNR grows with the number of layers put back: bisection finds the smallest number that suffices.
        var (low, high) = (0, order.count)
        while low < high {
            let middle = (low + high) / 2
            if try judge.worst(graphs(quantizing: Set(order[middle...]))) >= wanted { high = middle } else { low = middle + 1 }
        }
        for index in order[..<low] {
            report.putBack.append(reports[index].name)
            quantized[index] = nil
            reports[index].precision = .float32
            reports[index].bytesAfter = reports[index].bytesBefore
            reports[index].note = "put back to reach \(wanted) dB"
        }
        if low == order.count { roundsRest = try judge.worst(result().graphs) >= wanted }
        report.record(try judge.compare(result().graphs))
    }

    // MARK: Graphs

    func result() throws -> (graphs: [Graph], report: QuantizationReport) {
        var report = report
        report.layers = reports + (try restReports())
        report.bytesBefore = report.layers.reduce(0) { $0 + $1.bytesBefore }
        report.bytesAfter = report.layers.reduce(0) { $0 + $1.bytesAfter }
        let result = try graphs(quantizing: Set(quantized.indices))
        report.attentions = result.reduce(0) { sum, graph in
            sum + graph.nodes.count(where: { ($0.op as? Attention)?.activations == .int8 })
        }
        return (result, report)
    }

    /// What became of large constants that belong to no layer.
    private func restReports() throws -> [LayerReport] {
        try inventory.rest.map { name, constant in
            let before = try constant.storedByteCount
            let stays = !roundsRest || inventory.keptRest.contains(constant.identity)
            return LayerReport(
                name: name, kind: "\(constant.shape)", precision: stays ? .float32 : .bfloat16,
                note: stays ? (roundsRest ? "kept by a pattern" : "kept for the wanted SNR") : nil, bytesBefore: before,
                bytesAfter: stays ? before : min(before, 2 * (try elementCount(of: constant.shape))))
        }
    }

    /// The model with only these layers quantized.
    private func graphs(quantizing chosen: Set<Int>) throws -> [Graph] {
        let kept = Set(inventory.layers.map(\.weight.identity)).union(inventory.keptRest)
        return try graphs.enumerated().map { graphIndex, graph in
            var graph = graph
            for index in chosen.sorted() {
                guard let layer = quantized[index] else { continue }
                for use in inventory.layers[index].uses where use.graph == graphIndex {
                    try graph.quantize(use.node, layer, name: inventory.layers[index].name, activations)
                }
            }
            if !options.weightsOnly { try graph.quantizeAttention() }
            if roundsRest { try graph.roundRest(besides: kept) }
            graph.prune()
            return graph
        }
    }
}

extension Graph {
    /// Replaces a linear layer or an embedding by its quantized form.
    fileprivate mutating func quantize(
        _ id: NodeID, _ layer: QuantizedLayer, name: String, _ activations: ActivationPrecision
    ) throws {
        guard let node = node(id), let input = node.input(0), let original = node.input(1).flatMap(constant(of:)) else { return }
        func known(_ tensor: Tensor, _ suffix: String) throws -> ValueID {
            try addConstant(Constant(tensor, identity: "\(original.identity).\(suffix)"), name: "\(name).\(suffix)")
        }
        let weight = try known(layer.matrix.weight, "int8")
        let made: [ValueID]
        if node.op is Embedding {
            let scales = try known(layer.matrix.scales.reshaped([layer.matrix.scales.count]), "scales")
            made = try add(
                QuantizedEmbedding(), [input, weight, scales, node.input(2), node.input(3)], name: node.name,
                outputNames: [self.name(of: node.output)])
        } else {
            let scales = try known(layer.matrix.scales, "group_scales")
            let inputScale = try layer.inputScale.map { try addConstant($0, name: "\(name).input_scale") }
            made = try add(
                QuantizedLinear(groupSize: layer.matrix.groupSize, activations: activations),
                [input, weight, scales, node.input(2), inputScale], name: node.name, outputNames: [self.name(of: node.output)])
        }
        replace(node.output, with: made[0])
    }

    /// Stores in bfloat16 what is no layer.
    /// - Parameter kept: identities of constants that stay as they are.
    fileprivate mutating func roundRest(besides kept: Set<String>) throws {
        for (value, constant) in try largeConstants() where !kept.contains(constant.identity) {
            setContent(.tensor(constant.rounded(to: .bfloat16)), of: value)
        }
    }
}
