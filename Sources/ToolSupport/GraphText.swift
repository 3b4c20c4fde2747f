import Foundation
import ModelGraph
import Rewrites
import Support
import Tensors
import Verification

/// The towers of a graph in a few lines, as far as its intermediates name them: blocks, widths, heads, token counts.
public func towerSummary(_ graph: Graph) -> [String] {
    ["text", "vision", "fusion", "decoder"].compactMap { tower in
        let states = graph.traces.compactMap { trace -> (layer: Int, type: ValueType)? in
            let parts = trace.name.split(separator: ".")
            guard parts.count == 2, parts[0] == tower, let layer = Int(parts[1]) else { return nil }
            let type = graph.type(of: trace.value)
            return type.rank == 3 ? (layer, type) : nil
        }.sorted { $0.layer < $1.layer }
        guard let last = states.last, states.count > 1 || last.layer > 0 else { return nil }
        let tokens = states.map { $0.type.shape[1].description }
        let counts = tokens.enumerated().filter { $0.offset == 0 || tokens[$0.offset - 1] != $0.element }.map(\.element)
        let heads = headCounts(in: graph, tower: tower).map { ", \($0) \($0 == "1" ? "head" : "heads")" } ?? ""
        // A size that is left open may itself be called so.
        let length = counts == ["tokens"] ? "any number of tokens" : "tokens \(counts.joined(separator: " -> "))"
        return "\(tower): \(counted(last.layer, "block")), width \(last.type.shape[2])\(heads), \(length)"
    }
}

/// The towers of a graph as lines of a list of facts.
public func towerLines(_ graph: Graph) -> [String] {
    towerSummary(graph).map { "tower         \(graph.name == "main" ? "" : "\(graph.name): ")\($0)" }
}

/// The heads of the attentions that compute a tower's last state from its first.
private func headCounts(in graph: Graph, tower: String) -> String? {
    let states = graph.traces.filter { $0.name.hasPrefix(tower + ".") }
    guard let last = states.last?.value else { return nil }
    let edges = Set(graph.traces.filter { !$0.name.hasPrefix(tower + ".") }.map(\.value)).subtracting(states.map(\.value))
    var heads = Set<Int>()
    var seen = Set<ValueID>()
    var pending = [last]
    while let value = pending.popLast() {
        guard seen.insert(value).inserted, !edges.contains(value), let node = graph.producer(of: value) else { continue }
        if let attention = node.op as? Attention { heads.insert(attention.heads) }
        pending += node.inputs.compactMap { $0 }
    }
    return heads.isEmpty ? nil : heads.sorted().map(String.init).joined(separator: " or ")
}

/// A graph as people read it: its towers, then a line for each operator.
public func graphText(_ graph: Graph) -> String {
    (towerSummary(graph).map { "# \($0)" } + [graph.description]).joined(separator: "\n")
}

/// What a graph of a package costs, and what it would without its selections; nil where sizes stay unknown.
public func costText(_ graph: Graph, among graphs: [Graph]) -> String? {
    guard let graph = try? graph.fed(by: graphs), let (cost, length) = try? graph.exampleCost() else { return nil }
    let example = "one example" + (graph.hasOpenLength ? " with \(counted(length, "text token"))" : "")
    guard graph.nodes.contains(where: { $0.op is PatchSelection }), let all = try? graph.withoutSelection(),
        let whole = try? all.multiplyAccumulates(textLength: length), cost > 0
    else { return "\(macText(cost)) for \(example)" }
    if whole == cost { return "\(macText(cost)) for \(example), as without selection" }
    return
        "\(macText(whole)) without selection -> \(macText(cost)) (\(digits(Double(whole) / Double(cost), 2))× fewer) for \(example)"
}
