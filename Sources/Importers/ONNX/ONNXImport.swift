import Foundation
import ModelGraph
import Support
import Tensors

/// How an ONNX model is read.
public struct ONNXImportOptions: Sendable {
    /// External data may lie outside the model's folder, behind links (as caches made of links have it).
    public var followsLinks: Bool

    /// Links out of the folder are refused unless it is said otherwise.
    public init(followsLinks: Bool = false) { self.followsLinks = followsLinks }
}

/// The IR versions (of the file format) and versions of the standard operator set that are read. What came with IR versions 12 to
/// 14 are element types, which are refused by name where a model has them.
private let supportedIRVersions = 4...14
private let supportedOperatorSets = 11...27

/// Imports an ONNX model as the graph `main`. Weights stay in the model's files.
///
/// IR versions 4 to 14, versions 11 to 27 of the standard operator set (onnx.ai). Element types stay as the file has them.
/// - Throws: `cannotOpen` where a file cannot be opened; `data` where the model is malformed, of another version, or has
///   operators that Trips does not know: all of them, in one error.
public func importONNX(path: String, options: ONNXImportOptions = .init()) throws -> ImportedModel {
    let file = try ReadableFile(path: path)
    return try locating(file.name) {
        let model = try ONNXModel(file)
        try checkVersions(model)
        let nodes = try ordered(ONNXInliner.inlined(model), for: model.graph)
        try checkOperators(nodes)
        let tensors = ONNXTensorReader(file, followsLinks: options.followsLinks)
        let graph = try ONNXGraphBuilder(model.graph, tensors: tensors).build(nodes)
        let producer = [model.producer, model.producerVersion].filter { !$0.isEmpty }.joined(separator: " ")
        let sets = model.operatorSets.sorted { $0.key < $1.key }.map { "\($0.key.isEmpty ? "ai.onnx" : $0.key) \($0.value)" }
        return ImportedModel(
            graphs: [graph], format: .onnx,
            producer: [
                ("producer", producer), ("IR version", "\(model.irVersion)"), ("operator sets", sets.joined(separator: ", ")),
            ], weightFiles: tensors.externalPaths)
    }
}

/// An operator of a model, and how often it is used.
public struct OperatorCount: Sendable, Hashable {
    /// ONNX's name of the operator.
    public var name: String
    /// `ai.onnx` is the standard one.
    public var domain: String
    /// Version of the domain's operator set, 0 where the model imports none.
    public var version: Int
    /// Nodes that use it.
    public var count: Int
    /// The name of the first of them.
    public var firstNode: String
    /// Why it is refused; nil where it is supported.
    public var refusal: String?

    /// True where nothing is refused.
    public var isSupported: Bool { refusal == nil }
}

/// The operators of an ONNX model, sorted by domain and name; functions that the model defines are taken apart.
/// - Throws: `cannotOpen` or `data` where the file is no ONNX model.
public func operatorInventory(path: String) throws -> [OperatorCount] {
    let file = try ReadableFile(path: path)
    return try locating(file.name) { count(try ONNXInliner.inlined(try ONNXModel(file))) }
}

/// Reads a file with one serialised TensorProto, as ONNX's test data sets have them.
/// - Throws: `cannotOpen`, or `data` where the file is malformed or the element type unsupported.
package func readTensorProto(path: String) throws -> (name: String, tensor: Constant) {
    let file = try ReadableFile(path: path)
    return try locating(file.name) {
        let tensor = try ONNXTensor(file)
        return (tensor.name, try ONNXTensorReader(file, followsLinks: false).constant(tensor))
    }
}

private func checkVersions(_ model: ONNXModel) throws {
    guard supportedIRVersions.contains(model.irVersion) else {
        throw TripsError.data(
            "IR version of the file", found: model.irVersion,
            expected: "\(supportedIRVersions.lowerBound) to \(supportedIRVersions.upperBound)")
    }
    guard let version = model.operatorSets[""] else {
        throw TripsError.data("the model imports no standard operator set", expected: "ai.onnx")
    }
    guard supportedOperatorSets.contains(version) else {
        throw TripsError.data(
            "version of the operator set ai.onnx", found: version,
            expected: "\(supportedOperatorSets.lowerBound) to \(supportedOperatorSets.upperBound)")
    }
}

private func count(_ nodes: [ONNXNode]) -> [OperatorCount] {
    var counts: [String: OperatorCount] = [:]
    for node in nodes {
        let refusal = refusal(of: node)
        let key = "\(node.domain) \(node.type) \(node.version) \(refusal ?? "")"
        counts[
            key,
            default: OperatorCount(
                name: node.type, domain: node.domain.isEmpty ? "ai.onnx" : node.domain, version: node.version, count: 0,
                firstNode: node.label, refusal: refusal)
        ].count += 1
    }
    return counts.values.sorted {
        ($0.domain, $0.name, $0.version, $0.refusal ?? "") < ($1.domain, $1.name, $1.version, $1.refusal ?? "")
    }
}

private func checkOperators(_ nodes: [ONNXNode]) throws {
    let refused = count(nodes).filter { !$0.isSupported }
    guard refused.isEmpty else {
        let lines = refused.map { entry in
            "  \(entry.name) (\(entry.domain) \(entry.version)), \(entry.count) of them, first \"\(entry.firstNode)\": \(entry.refusal ?? "")"
        }
        throw TripsError.data("unsupported operators\n" + lines.joined(separator: "\n"))
    }
}

/// Why a node is refused; nil where it is not.
private func refusal(of node: ONNXNode) -> String? {
    guard node.domain != "com.microsoft.nchwc" else {
        return "a layout for one machine: save the model at ONNX Runtime's extended level of optimization"
    }
    guard node.domain.isEmpty || node.domain == contributedDomain else { return "unknown domain" }
    guard let rule = ONNXRules.rule(for: node) else { return node.holdsGraph ? "subgraphs are not read" : "unknown operator" }
    guard node.domain.isEmpty else { return rule.refusal(node) }
    guard supportedOperatorSets.contains(node.version) else { return "unsupported version of the operator set" }
    guard rule.since <= node.version else { return "not in the operator set before version \(rule.since)" }
    return rule.refusal(node)
}
