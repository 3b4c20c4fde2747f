import Foundation
import ModelGraph
import PackageFormat
import Tensors
import ToolSupport
import Trips

@main
struct InspectTool: Tool {
    static let configuration = CommandConfiguration(
        commandName: "trips-inspect", abstract: "Shows what a .trips package holds.", version: libraryVersion)

    @Argument(help: ArgumentHelp("The package.", valueName: "model.trips"))
    var model: String

    @Flag(name: .long, help: "Print everything as JSON.")
    var json = false

    @Flag(name: .long, help: "List the tensors.")
    var tensors = false

    @Flag(name: .long, help: "Print the graphs, block by block.")
    var graph = false

    @Flag(name: .long, help: "Read and check every byte.")
    var verify = false

    @OptionGroup var common: QuietOptions

    func run() throws {
        let reader = try PackageReader(path: model)
        if verify { try reader.verify() }
        if json { return print(try jsonText(reader.manifest)) }
        let graphs = try reader.graphs()
        var parts = [summary(reader, graphs)]
        if let selections = reader.manifest.selectionText { parts.append(selections) }
        if !reader.manifest.graphs.isEmpty { parts.append(graphs.map(interface).joined(separator: "\n")) }
        if tensors { parts.append(tensorTable(reader)) }
        if graph { parts += graphs.map(graphText) }
        if verify { parts.append("every byte read: the file is sound") }
        printText(parts.joined(separator: "\n\n"))
    }

    private func summary(_ reader: PackageReader, _ graphs: [Graph]) -> String {
        let manifest = reader.manifest
        let stored = reader.tensors.reduce(0) { $0 + $1.storedByteCount }
        let packed = reader.tensors.reduce(0) { $0 + $1.compressedByteCount }
        let types = Dictionary(grouping: reader.tensors, by: \.storedType).map {
            (type: $0.key, bytes: $0.value.reduce(0) { $0 + $1.storedByteCount })
        }
        .sorted { $0.bytes > $1.bytes }
        var lines = [
            "\(fileName(of: model)): .trips version \(manifest.formatVersion), \(manifest.tool.name) \(manifest.tool.version), libzstd \(manifest.libzstd)"
        ]
        lines += manifest.factLines
        lines.append(
            "tensors       \(reader.tensors.count), \(byteText(stored)) in \(byteText(packed))"
                + (stored > 0 ? " (\(digits(Double(packed) / Double(stored), 3)))" : "") + ": "
                + types.map { "\($0.type) \(byteText($0.bytes))" }.joined(separator: ", "))
        let mapped = reader.tensors.filter(\.isMapped)
        if !mapped.isEmpty {
            lines.append("mapped        \(mapped.count), \(byteText(mapped.reduce(0) { $0 + $1.compressedByteCount }))")
        }
        for graph in graphs {
            lines += towerLines(graph)
            if let cost = costText(graph, among: graphs) { lines.append("cost          \(graph.name): \(cost)") }
        }
        return lines.joined(separator: "\n")
    }

    private func interface(_ graph: Graph) -> String {
        var table = TextTable([("graph \(graph.name)", .left), ("", .left), ("", .left)])
        for input in graph.inputs { table.add(["  in", graph.name(of: input), graph.type(of: input).description]) }
        for (name, value) in graph.outputs { table.add(["  out", name, graph.type(of: value).description]) }
        return table.text + (graph.traces.isEmpty ? "" : "\n  intermediates: \(graph.traces.map(\.name).joined(separator: " "))")
    }

    private func tensorTable(_ reader: PackageReader) -> String {
        var table = TextTable([
            ("tensor", .left), ("type", .left), ("shape", .left), ("bytes", .right), ("in file", .right), ("ratio", .right),
            ("offset", .right),
        ])
        for tensor in reader.tensors {
            let type = tensor.storedType == tensor.dataType ? "\(tensor.dataType)" : "\(tensor.storedType) as \(tensor.dataType)"
            let ratio =
                tensor.storedByteCount == 0 ? "" : digits(Double(tensor.compressedByteCount) / Double(tensor.storedByteCount), 3)
            table.add([
                tensor.name, type + (tensor.isMapped ? ", mapped" : ""), "\(tensor.shape)", "\(tensor.storedByteCount)",
                "\(tensor.compressedByteCount)", ratio,
                "\(tensor.offset)",
            ])
        }
        return table.text
    }
}
