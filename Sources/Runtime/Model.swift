import ModelGraph
import PackageFormat
import Support
import Synchronization
import Tensors

/// A converted model: its graphs and its weights. It does not change, and sessions on any threads can share it.
public final class Model: Sendable {
    /// What the package says of itself.
    public let manifest: Manifest
    /// The graphs, in the order in which they feed each other.
    public let graphs: [Graph]
    /// The tokenizer's vocabulary, uint8, UTF-8 text; nil where the package holds none.
    package let vocabulary: Constant?
    private let tokenizer = Mutex<(any Sendable)?>(nil)
    let weights: WeightStore

    /// Opens a package. Weights are read when a session first needs them.
    /// - Throws: `TripsError`: `cannotOpen`, or `data` for what is not a sound package.
    public convenience init(contentsOf path: String) throws {
        let reader = try PackageReader(path: path)
        self.init(
            graphs: try reader.graphs(), manifest: reader.manifest,
            vocabulary: try reader.manifest.vocabulary.map(reader.constant(named:)))
    }

    /// A model from graphs in memory.
    package init(
        graphs: [Graph], manifest: Manifest = Manifest(tool: .init(name: "", version: "")), vocabulary: Constant? = nil
    ) {
        self.graphs = graphs
        self.manifest = manifest
        self.vocabulary = vocabulary
        weights = WeightStore(owned: Set(graphs.flatMap(\.constantIdentities)))
    }

    /// Other graphs over the weights of a model, which are not loaded again.
    init(graphs: [Graph], sharing model: Model) {
        self.graphs = graphs
        manifest = model.manifest
        vocabulary = model.vocabulary
        weights = model.weights
    }

    /// The tokenizer of the vocabulary, of a type that the caller knows; made at the first call. Nil without a vocabulary.
    package func tokenizer<Tokenizer: Sendable>(_ make: (Constant) throws -> Tokenizer) throws -> Tokenizer? {
        guard let vocabulary else { return nil }
        if let made = tokenizer.withLock({ $0 as? Tokenizer }) { return made }
        let made = try make(vocabulary)
        tokenizer.withLock { $0 = made }
        return made
    }

    /// The names of all graphs' inputs, in order, each once.
    package var inputNames: [String] {
        var seen = Set<String>()
        return graphs.flatMap { graph in graph.inputs.map(graph.name(of:)) }.filter { seen.insert($0).inserted }
    }

    /// The graph with this name.
    public func graph(_ name: String) -> Graph? { graphs.first { $0.name == name } }

    /// Bytes of the weights that sessions have loaded so far.
    public var loadedBytes: Int { weights.byteCount }
}

extension Graph {
    fileprivate var constantIdentities: [String] {
        nodes.flatMap { $0.inputs.compactMap { $0.flatMap(constant(of:))?.identity } }
    }
}
