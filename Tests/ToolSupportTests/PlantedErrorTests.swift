import Foundation
import Goldens
import ModelGraph
import Runtime
import Support
import Tensors
import TestSupport
import Testing
import Trips
import Verification

/// A model with a mistake in one block, as a converter might make it.
enum Mistake: String, CaseIterable, CustomTestStringConvertible {
    case oneWeight, swappedBias, droppedMask, wrongEpsilon, none
    var testDescription: String { rawValue }

    /// The state that leaves the block with the mistake.
    var state: String? {
        switch self {
        case .oneWeight, .swappedBias: "vision.2"
        case .droppedMask: "text.1"
        case .wrongEpsilon: "fusion.2"
        case .none: nil
        }
    }

    private var entering: String {
        switch self {
        case .droppedMask: "text.0"
        case .wrongEpsilon: "fusion.1"
        default: "vision.1"
        }
    }

    func plant(in graph: inout Graph) throws {
        guard let state else { return }
        let values = Dictionary(graph.traces.map { ($0.name, $0.value) }, uniquingKeysWith: { first, _ in first })
        let block = try #require(values[state])
        let start = try #require(values[entering])
        for node in nodes(of: graph, between: start, and: block) {
            guard let (op, inputs) = try change(node, in: &graph) else { continue }
            let made = try graph.add(op, inputs, name: node.name + ".mistaken")
            graph.replace(node.output, with: made[0])
            return
        }
        Issue.record("no place for \(self)")
    }

    /// The nodes of a block, the last first.
    private func nodes(of graph: Graph, between start: ValueID, and end: ValueID) -> [Node] {
        var (found, seen, pending): ([Node], Set<ValueID>, [ValueID]) = ([], [start], [end])
        while let value = pending.popLast() {
            guard seen.insert(value).inserted, let node = graph.producer(of: value) else { continue }
            found.append(node)
            pending += node.inputs.compactMap { $0 }
        }
        return found
    }

    private func change(_ node: Node, in graph: inout Graph) throws -> (any ModelGraph.Operator, [ValueID?])? {
        var inputs = node.inputs
        switch (self, node.op) {
        case (.oneWeight, let op as Linear):
            let constant = try #require(inputs[1].flatMap { graph.constant(of: $0) })
            var numbers = try constant.load().elements(Float.self)
            numbers[3] += 0.05
            inputs[1] = try graph.addConstant(
                Constant(Tensor(numbers, shape: constant.shape), identity: "mistake"), name: "mistake")
            return (op, inputs)
        case (.swappedBias, let op as Linear):
            guard inputs.count > 2, let constant = inputs[2].flatMap({ graph.constant(of: $0) }) else { return nil }
            let numbers = try Array(constant.load().elements(Float.self).reversed())
            inputs[2] = try graph.addConstant(
                Constant(Tensor(numbers, shape: constant.shape), identity: "mistake"), name: "mistake")
            return (op, inputs)
        case (.droppedMask, let op as Attention):
            guard inputs.count > 3, inputs[3] != nil else { return nil }
            inputs[3] = nil
            return (op, inputs)
        case (.wrongEpsilon, let op as LayerNorm):
            return (LayerNorm(epsilon: op.epsilon + 1e-3), inputs)
        default: return nil
        }
    }
}

@Test(arguments: Mistake.allCases) func aPlantedMistakeIsFoundInItsBlock(mistake: Mistake) throws {
    let folder = fixtures + "/albef-pretrain"
    let package = try prepare(folder + "/checkpoint.safetensors")
    var graph = try #require(package.graphs.first)
    try mistake.plant(in: &graph)
    try graph.validate()
    let model = Model(graphs: [graph], manifest: .init(tool: .init(name: "test", version: "0")))
    var options = VerificationOptions()
    options.intermediates = true
    let report = try verify(
        model, against: GoldenReference.references(at: folder + "/golden.safetensors"), options: options, isolating: true)
    // A wrong epsilon stays within the tolerance here; that the error jumps in its block is seen all the same.
    if mistake != .wrongEpsilon { #expect(report.passes == (mistake == .none)) }
    #expect(report.divergence?.firstJump?.name == mistake.state)
    // Fed with the reference's states, the block stands out alone.
    let noise = try #require(report.isolated).filter { !$0.isIntermediate || !$0.name.hasPrefix("selection") }.compactMap {
        summary in
        summary.snr.map { (name: summary.name, snr: $0.worst) }
    }.sorted { $0.snr < $1.snr }
    if let state = mistake.state {
        #expect(noise.first { !["fusion.0", "text_embeds"].contains($0.name) }?.name == state)
    } else {
        #expect(try #require(noise.first).snr > 110)
    }
}
