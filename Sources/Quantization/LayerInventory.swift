import ModelGraph
import Support
import Tensors

/// Why a layer stays in floating point.
enum StayReason: Equatable, CustomStringConvertible {
    /// It gives patch selections their keys or queries.
    case scoresPatches
    /// It matches a pattern of `QuantizationOptions.keep`.
    case kept(pattern: String)

    var description: String {
        switch self {
        case .scoresPatches: "for exact patch scores"
        case .kept(let pattern): "kept by the pattern \(pattern)"
        }
    }
}

/// A linear layer or an embedding with constant weights, in all places where the graphs use those weights.
struct QuantizableLayer {
    let name: String
    let weight: Constant
    /// A lookup table; one that is also a linear layer's weight (a tied language-model head) keeps one form for both.
    var isEmbedding: Bool
    /// Graph index and node of each use.
    var uses: [(graph: Int, node: NodeID)]
    /// Why it stays in floating point; nil where it can be quantized.
    var reasonToStay: StayReason?

    var outputs: Int { weight.shape[0] }
    var inputs: Int { weight.shape[1] }
    var kind: String { isEmbedding ? "Embedding \(outputs) × \(inputs)" : "Linear \(inputs) → \(outputs)" }

    /// The weights' numbers.
    /// - Throws: `data` where one is NaN or infinite, which no integer can be.
    func load() throws -> Tensor {
        try locating(name) {
            let tensor = try weight.load()
            guard tensor.withBytes({ $0.bindMemory(to: Float.self).allSatisfy(\.isFinite) }) else {
                throw TripsError.data("weights to quantize", found: "NaN or infinity", expected: "finite numbers")
            }
            return tensor
        }
    }
}

/// Layers that read the same value. They share its quantized rows, and so its input scale.
struct InputGroup {
    let graph: Int
    let input: ValueID
    var layers: [Int]
}

/// What of a model can be quantized.
struct LayerInventory {
    private(set) var layers: [QuantizableLayer] = []
    private(set) var groups: [InputGroup] = []
    /// Large constants that belong to no layer: patch projections, position tables.
    private(set) var rest: [(name: String, constant: Constant)] = []
    /// Identities of those that a pattern keeps.
    private(set) var keptRest = Set<String>()
    /// Layers that are quantized already: a source may have come with them.
    let quantizedBefore: Int

    /// - Throws: `usage` where a pattern matches no layer, or all layers are quantized already.
    init(_ graphs: [Graph], keep patterns: [String]) throws {
        quantizedBefore = graphs.reduce(0) { $0 + $1.nodes.count { $0.op.isQuantized } }
        var indices: [String: Int] = [:]
        for (graphIndex, graph) in graphs.enumerated() {
            let scoring = graph.scoringNodes
            for node in try graph.topologicalOrder() {
                guard let (constant, isEmbedding) = graph.quantizableWeight(node) else { continue }
                let key = constant.identity + (scoring.contains(node.id) ? " scores" : "")
                let index = indices[key] ?? layers.count
                if index == layers.count {
                    indices[key] = index
                    layers.append(
                        QuantizableLayer(
                            name: graph.layerName(node), weight: constant, isEmbedding: isEmbedding, uses: []))
                    if scoring.contains(node.id) { layers[index].reasonToStay = .scoresPatches }
                }
                layers[index].uses.append((graphIndex, node.id))
                layers[index].isEmbedding = layers[index].isEmbedding || isEmbedding
            }
        }
        guard quantizedBefore == 0 || layers.contains(where: { $0.reasonToStay == nil }) else {
            throw TripsError.usage(
                "all layers are quantized already", found: "\(quantizedBefore) in int8", expected: "weights in floating point")
        }
        try collectRest(graphs)
        try keep(patterns, graphs)
        collectGroups(graphs)
    }

    private mutating func keep(_ patterns: [String], _ graphs: [Graph]) throws {
        for pattern in patterns {
            let matching = layers.indices.filter { index in
                matches(layers[index].name, pattern: pattern)
                    || layers[index].uses.contains { matches(graphs[$0.graph].node($0.node)?.name ?? "", pattern: pattern) }
            }
            let others = rest.filter { matches($0.name, pattern: pattern) }
            keptRest.formUnion(others.map(\.constant.identity))
            guard !matching.isEmpty || !others.isEmpty else {
                throw TripsError.usage(
                    "`keep` matches no layer", found: pattern, expected: "a pattern such as \(layers.first?.name ?? "*")")
            }
            for index in matching { layers[index].reasonToStay = .kept(pattern: pattern) }
        }
    }

    private mutating func collectRest(_ graphs: [Graph]) throws {
        var seen = Set(layers.map(\.weight.identity))
        for graph in graphs {
            for (value, constant) in try graph.largeConstants() where seen.insert(constant.identity).inserted {
                rest.append((graph.name(of: value), constant))
            }
        }
    }

    /// A layer belongs to the group of its first use; its weights can be divided by one input scale only.
    private mutating func collectGroups(_ graphs: [Graph]) {
        var indices: [String: Int] = [:]
        for (index, layer) in layers.enumerated() where !layer.isEmbedding && layer.reasonToStay == nil {
            guard let use = layer.uses.first, let input = graphs[use.graph].node(use.node)?.input(0) else { continue }
            let key = "\(use.graph)/\(input.index)"
            if let group = indices[key] {
                groups[group].layers.append(index)
            } else {
                indices[key] = groups.count
                groups.append(InputGroup(graph: use.graph, input: input, layers: [index]))
            }
        }
    }
}

extension Graph {
    /// fp32 constants of patch projections and tables, from 64 kB on. In bfloat16 they have 54 dB, far above what int8 leaves.
    func largeConstants() throws -> [(ValueID, Constant)] {
        var found: [(ValueID, Constant)] = []
        for node in nodes
        where node.op is PatchEmbedding || node.op is Embedding || node.op is QuantizedEmbedding || node.op is Slice {
            for (index, input) in node.inputs.enumerated() {
                // A table's scales must stay exact.
                guard let input, !(node.op is QuantizedEmbedding && index == 2), let constant = constant(of: input),
                    constant.dataType == .float32, try constant.byteCount > 65_536
                else { continue }
                found.append((input, constant))
            }
        }
        return found
    }
}

extension Graph {
    /// The weight's name where it is one that people gave; exporters number what they made themselves.
    fileprivate func layerName(_ node: Node) -> String {
        guard let weight = node.input(1).map(name(of:)) else { return node.name }
        return weight.hasPrefix("onnx::") || weight.hasPrefix("val_") ? node.name : weight
    }

    /// The constant weight of a linear layer or an embedding in fp32.
    fileprivate func quantizableWeight(_ node: Node) -> (Constant, isEmbedding: Bool)? {
        guard node.op is Linear || node.op is Embedding, let weight = node.input(1).flatMap(constant(of:)),
            weight.dataType == .float32, weight.shape.count == 2, !weight.shape.contains(0)
        else { return nil }
        return (weight, node.op is Embedding)
    }

    /// The linear layers that give patch selections their keys and queries.
    fileprivate var scoringNodes: Set<NodeID> {
        var found = Set<NodeID>()
        for node in nodes where node.op is PatchSelection {
            for input in [node.input(1), node.input(2)].compactMap({ $0 }) {
                var producer = producer(of: input)
                // After the projection a gather takes the guide's row, and a product may carry it over to the rows that keys come
                // from (`scoringBySources`).
                while let node = producer, let source = node.input(0), node.op is Gather || node.op is Reshape || node.op is MatMul
                {
                    producer = self.producer(of: source)
                }
                if let producer, producer.op is Linear { found.insert(producer.id) }
            }
        }
        return found
    }
}

extension Constant {
    /// Bytes of all elements in the type in which they are stored.
    var storedByteCount: Int { get throws { try Tensors.byteCount(of: storedType, shape) } }
}
