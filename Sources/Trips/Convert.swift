import Foundation
import Importers
import ModelGraph
import PackageFormat
import Rewrites
import Support
import Tensors

/// A source on its way to a package: imported, and rewritten as far as was asked for.
public struct PreparedModel: Sendable {
    /// What the importer made of the source, with the graphs as they were rewritten.
    public var imported: ImportedModel
    /// As they were rewritten.
    public var graphs: [Graph] { imported.graphs }
    /// What the rewrites did, by graph.
    public var trails: [(graph: String, trail: AuditTrail)] = []
    /// What was selected; nil where no selection was asked for.
    public var selection: SelectionReport?

    package init(imported: ImportedModel) { self.imported = imported }
}

/// What a conversion did.
public struct ConversionReport: Sendable {
    /// The model as it was written; without graphs where tensors were packed as they are.
    public let model: PreparedModel
    /// The package's.
    public let manifest: Manifest
    /// Size of the source, with all the files that hold its weights, in bytes.
    public let sourceBytes: Int
    /// Size of the package, in bytes.
    public let packageBytes: Int
}

/// Imports a model and rewrites it: folded, fused, and with selection layers where the options ask for them.
/// - Parameters:
///   - source: an ONNX model, a safetensors file or the index of several, or a PyTorch checkpoint.
///   - options: what to import and where to select.
///   - lastStage: where to stop.
/// - Throws: `TripsError`; see the importers and the rewrites.
public func prepare(
    _ source: String, _ options: ConversionOptions = ConversionOptions(), until lastStage: ConversionStage = .select
) throws -> PreparedModel {
    try options.check(for: source)
    guard !options.tensorsOnly else {
        throw TripsError.usage(
            "the tensors are packed as they are", found: "a request for a graph", expected: "another architecture")
    }
    var model = PreparedModel(imported: try importModel(source, options))
    var arithmetic: [SourceArithmetic] = []
    for index in model.imported.graphs.indices {
        var graph = model.imported.graphs[index]
        var trail = try graph.fold()
        arithmetic.append(SourceArithmetic(of: graph))
        if lastStage != .fold { trail.merge(try graph.fuse()) }
        if model.imported.format == .onnx && lastStage != .fold { try graph.nameIntermediates() }
        model.imported.graphs[index] = graph
        model.trails.append((graph.name, trail))
    }
    if lastStage == .select {
        if let request = options.selection { try insertSelection(request, into: &model) }
        for index in model.trails.indices {
            model.trails[index].trail.merge(try model.imported.graphs[index].readScaledIntegers(arithmetic: arithmetic[index]))
        }
    }
    for graph in model.imported.graphs { try graph.validate() }
    return model
}

/// Selects in the graph that looks at images: the first one that embeds patches.
private func insertSelection(_ request: SelectionRequest, into model: inout PreparedModel) throws {
    let index = model.imported.graphs.firstIndex { $0.nodes.contains { $0.op is PatchEmbedding } } ?? 0
    guard model.imported.graphs.indices.contains(index) else { throw TripsError.usage("there is no graph to select in") }
    model.selection = try model.imported.graphs[index].select(request)
}

/// Converts a model to a `.trips` package.
/// - Parameters:
///   - source: as for `prepare`.
///   - path: where the package goes; it appears there whole or not at all.
///   - options: what to import, to select and to keep, and how the package is written.
///   - progress: called with the bytes of weights written and their number.
/// - Throws: `TripsError` of any kind.
@discardableResult
public func convert(
    _ source: String, to path: String, _ options: ConversionOptions = ConversionOptions(), progress: ((Int, Int) -> Void)? = nil
) throws -> ConversionReport {
    try options.check(for: source)
    try AtomicFile.checkTarget(path, isNot: source)
    if options.tensorsOnly { return try packTensors(source, to: path, options, progress) }
    let model = try prepare(source, options)
    for file in model.imported.weightFiles { try AtomicFile.checkTarget(path, isNot: file) }
    var manifest = try manifest(source, options, model.imported)
    manifest.quantization = model.quantization
    manifest.selections = try model.graphs.flatMap(selections)
    var extra: [(name: String, constant: Constant)] = []
    if let vocabulary = try options.vocabulary.map(readVocabulary) {
        manifest.vocabulary = vocabulary.name
        extra.append(vocabulary)
    }
    manifest = try PackageWriter.write(
        graphs: model.graphs, extraTensors: extra, manifest: manifest, to: path, options: options.writing, progress: progress)
    return try report(source, path, model, manifest)
}

extension PreparedModel {
    /// What a source that is quantized became; nil where it is not.
    package var quantization: Manifest.Quantization? {
        let rounded = trails.reduce(0) { $0 + $1.trail.count(of: fixedRoundings) }
        let layers = graphs.flatMap(\.nodes).filter { $0.op.isQuantized }
        let widened = graphs.reduce(0) { sum, graph in
            sum + graph.nodes.count { $0.op is Linear && $0.input(1).flatMap(graph.constant(of:))?.scaledIntegers != nil }
        }
        guard rounded > 0 || widened > 0 || !layers.isEmpty else { return nil }
        var parts = [layers.isEmpty ? "weights in fp32" : "weights as the source has them"]
        if widened > 0 { parts.append("linear layers in fp32 whose integers are not around 0: \(widened)") }
        if rounded > 0 {
            let rows = layers.contains { ($0.op as? QuantizedLinear)?.activations == .int8 }
            parts.append("activations \(rows ? "rounded by rows" : "in fp32") in place of \(rounded) fixed roundings")
        }
        return .init(scheme: .int8, summary: parts.joined(separator: ", "))
    }
}

/// The selection layers of a graph, inserted here or found in the source.
private func selections(_ graph: Graph) throws -> [Manifest.Selection] {
    try graph.traces.compactMap { trace in
        guard let name = SelectionTrace(trace.name), name.part == .indices, let node = graph.producer(of: trace.value),
            let op = node.op as? PatchSelection, let tokens = node.input(0)
        else { return nil }
        func count(_ value: ValueID) throws -> String {
            try graph.shape(of: value)[1].subtracting(Dimension(op.leading)).description
        }
        return Manifest.Selection(
            block: name.layer, keepRate: op.keepRate, guidance: op.guidance, fusion: op.fusion,
            order: op.order, tokensBefore: try count(tokens), tokensAfter: try count(node.output))
    }
}

/// Packs the tensors of a checkpoint as they are, without a graph.
private func packTensors(
    _ source: String, to path: String, _ options: ConversionOptions, _ progress: ((Int, Int) -> Void)?
) throws -> ConversionReport {
    let checkpoint = try Checkpoint.open(path: source)
    let model = ImportedModel(graphs: [], format: checkpoint.format, weightFiles: checkpoint.shards)
    for file in model.weightFiles { try AtomicFile.checkTarget(path, isNot: file) }
    let manifest = try PackageWriter.write(
        graphs: [], extraTensors: checkpoint.tensors, manifest: manifest(source, options, model), to: path,
        options: options.writing, progress: progress)
    return try report(source, path, PreparedModel(imported: model), manifest)
}

private func isONNX(_ source: String) -> Bool { source.lowercased().hasSuffix(".onnx") }

private func importModel(_ source: String, _ options: ConversionOptions) throws -> ImportedModel {
    if isONNX(source) {
        return try importONNX(path: source, options: ONNXImportOptions(followsLinks: options.followsLinks))
    }
    return try importCheckpoint(path: source, options: options.checkpoint)
}

private func manifest(_ source: String, _ options: ConversionOptions, _ model: ImportedModel) throws -> Manifest {
    var manifest = Manifest(tool: .init(name: "trips", version: libraryVersion))
    let producer = model.producer.filter { !$0.value.isEmpty }.map { "\($0.name) \($0.value)" }.joined(separator: ", ")
    manifest.source = .init(
        file: fileName(of: source), format: model.format.rawValue,
        sha256: try SHA256.hexadecimalDigest(ofFilesAt: [source] + model.weightFiles),
        producer: producer.isEmpty ? nil : producer)
    manifest.architecture = model.architecture?.rawValue
    manifest.options = options.recorded
    manifest.settings = model.settings
    manifest.leftOut = model.leftOut
    manifest.generation = model.generation
    if model.architecture != nil { manifest.preprocessing = imageSize(model.graphs).map(Manifest.Preprocessing.released) }
    return manifest
}

/// Pixels along a side of the first image input.
private func imageSize(_ graphs: [Graph]) -> Int? {
    for graph in graphs {
        for input in graph.inputs where graph.name(of: input).hasPrefix("image") && graph.shape(of: input).count == 4 {
            return graph.shape(of: input)[3].constant
        }
    }
    return nil
}

/// A WordPiece vocabulary as a tensor of its bytes.
private func readVocabulary(_ path: String) throws -> (name: String, constant: Constant) {
    let file = try ReadableFile(path: path), text = try file.text(of: "vocabulary")
    try locating(file.name) { _ = try WordPiece(vocabulary: text) }
    let bytes = Array(text.utf8)
    return ("vocabulary", Constant(try Tensor(bytes, shape: [bytes.count]), identity: "vocabulary"))
}

private func report(_ source: String, _ path: String, _ model: PreparedModel, _ manifest: Manifest) throws -> ConversionReport {
    let sizes = try ([source] + model.imported.weightFiles).map { try ReadableFile(path: $0).size }
    return ConversionReport(
        model: model, manifest: manifest, sourceBytes: sizes.reduce(0, +),
        packageBytes: try ReadableFile(path: path).size)
}

extension CheckpointOptions {
    /// Names of the properties that are set.
    fileprivate var given: [String] {
        let options: [(name: String, isGiven: Bool)] = [
            ("architecture", architecture != nil), ("visionHeads", visionHeads != nil), ("textHeads", textHeads != nil),
            ("fusionLayers", fusionLayers != nil), ("strideLayer", strideLayer != nil),
            ("configurationPath", configurationPath != nil),
            ("imageSize", imageSize != nil), ("leftOut", !leftOut.isEmpty),
        ]
        return options.filter(\.isGiven).map(\.name)
    }
}

extension ConversionOptions {
    /// Refuses what would do nothing.
    fileprivate func check(for source: String) throws {
        if isONNX(source) {
            return try refuse(
                (tensorsOnly ? ["tensorsOnly"] : []) + checkpoint.given, "an ONNX model states this itself",
                expected: "a checkpoint, or a graph exported again")
        }
        try refuse(followsLinks ? ["followsLinks"] : [], "a checkpoint has no external data", expected: "an ONNX model")
        guard tensorsOnly else { return }
        try refuse(
            checkpoint.given + (selection == nil ? [] : ["selection"]) + (vocabulary == nil ? [] : ["vocabulary"]),
            "the tensors are packed as they are", expected: "an architecture with a graph")
    }

    private func refuse(_ given: [String], _ reason: String, expected: String) throws {
        guard given.isEmpty else {
            throw TripsError.usage(reason, found: given.map { "`\($0)`" }.joined(separator: ", "), expected: expected)
        }
    }

    /// The options as they were asked for, for the manifest. Paths stay out of it.
    fileprivate var recorded: [String: String] {
        var recorded: [String: String] = [:]
        recorded["architecture"] = tensorsOnly ? "tensors" : checkpoint.architecture?.rawValue
        recorded["image-size"] = checkpoint.imageSize.map(String.init)
        if !checkpoint.leftOut.isEmpty { recorded["leave-out"] = checkpoint.leftOut.joined(separator: ",") }
        if let selection {
            recorded["select"] = selection.blocks.map(String.init).joined(separator: ",")
            recorded["keep-rate"] = selection.keepRates.map { "\($0)" }.joined(separator: ",")
            recorded["guidance"] = selection.guidance.rawValue
            recorded["fuse"] = selection.fusion.rawValue
            recorded["order"] = selection.order.rawValue
            if selection.guidance == .random { recorded["seed"] = "\(selection.seed)" }
            recorded["vision-tower"] = selection.visionTower
            recorded["text-guide"] = selection.textGuide
        }
        if writing.storage != .asIs { recorded["weights"] = writing.storage.rawValue }
        if writing.plain { recorded["plain"] = "true" }
        if writing.mapped { recorded["mapped"] = "true" }
        if let level = writing.level { recorded["level"] = "\(level)" }
        return recorded
    }
}
