import Foundation
import ModelGraph
import Operators
import PackageFormat
import Support
import Tensors
import TestSupport
import Testing

import Runtime

/// ids -> a table's rows -> a layer in fp32 -> two in int8, with and without groups.
private func graph() throws -> Graph {
    var graph = Graph(name: "main")
    func constant(_ tensor: Tensor, _ name: String) throws -> ValueID {
        try graph.addConstant(Constant(tensor, identity: name), name: name)
    }
    let ids = try graph.addInput("ids", ValueType(.int64, [Dimension(symbol: "batch"), 5]))
    var x = try graph.add(Embedding(), [ids, constant(noise([1400, 96], seed: 1), "table")], name: "words")[0]
    x = try graph.add(
        Linear(), [x, constant(noise([100, 96], seed: 2), "float"), constant(noise([100], seed: 3), "bias")], name: "float")[0]
    for (name, outputs, inputs, group) in [("grouped", 70, 100, 64), ("whole", 33, 70, 70)] {
        let weight = try noise([outputs, inputs], seed: 4, scale: 127).converted(to: .int8)
        let scales = try noise([outputs, inputs.dividedRoundingUp(by: group)], seed: 5, scale: 0.01)
        let op = QuantizedLinear(groupSize: group, activations: .int8)
        x = try graph.add(op, [x, constant(weight, name), constant(scales, "\(name).scales")], name: name)[0]
    }
    try graph.addOutput("y", x)
    return graph
}

/// A package of the graph, and the model that opens it.
private func model(_ graph: Graph, mapped: Bool, in folder: TemporaryFolder) throws -> Model {
    let path = folder["\(mapped).trips"]
    try PackageWriter.write(
        graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: "1")), to: path, options: .init(mapped: mapped))
    return try Model(contentsOf: path)
}

@Test func mappedWeightsGiveTheSameNumbers() throws {
    let folder = try TemporaryFolder()
    let inputs = ["ids": try Tensor((0..<10).map { Int64($0 * 131) }, shape: [2, 5])]
    var results: [[Float]] = []
    for mapped in [false, true] {
        let model = try model(graph(), mapped: mapped, in: folder)
        results.append(try #require(try Session(model).run(inputs)["y"]).elements(Float.self))
        #expect(model.loadedBytes > 1400 * 96 * 4)
    }
    #expect(results[0] == results[1] && results[0].contains { $0 != 0 })
}

/// Ones when they are loaded, and twos in panels: which of them are used shows in the sum.
private struct TwoFacedSource: ConstantSource {
    let scales: Constant?
    /// Whose scales the panels hold.
    let panelScales: String?

    func load(_ dataType: DataType, _ shape: [Int]) throws -> Tensor {
        try Tensor([Float](repeating: 1, count: elementCount(of: shape)), shape: shape).converted(to: dataType)
    }

    func panels() throws -> Panels? {
        let layout = scales == nil ? PanelLayout.float : .int8(group: 0)
        let memory = try MemoryPart(byteCount: layout.byteCount(outputs: 8, inputs: 12))
        let twos = try Tensor([Float](repeating: 2, count: 96), shape: [8, 12]).converted(to: scales == nil ? .float32 : .int8)
        try layout.pack(Constant(twos), scales: scales, into: memory)
        return Panels(layout, scales: panelScales, bytes: UnsafeRawBufferPointer(memory.bytes), owner: memory, check: {})
    }
}

/// The kernels read panels where they are; those whose scales are not the layer's are left alone.
@Test(arguments: [(false, nil, 2), (true, "scales", 2), (true, "others", 1), (false, "scales", 1)] as [(Bool, String?, Float)])
func panelsAreUsedWhereTheySuit(quantized: Bool, panelScales: String?, expected: Float) throws {
    let scales = Constant(try Tensor([Float](repeating: 1, count: 8), shape: [8, 1]), identity: "scales")
    let weight = Constant(
        quantized ? .int8 : .float32, [8, 12], identity: "weight",
        source: TwoFacedSource(scales: quantized ? scales : nil, panelScales: panelScales))
    var graph = Graph(name: "main")
    var inputs: [ValueID?] = [
        try graph.addInput("x", ValueType(.float32, [1, 12])), try graph.addConstant(weight, name: "weight"),
    ]
    if quantized { inputs.append(try graph.addConstant(scales, name: "scales")) }
    let op: any Operator = quantized ? QuantizedLinear(groupSize: 12, activations: .int8) : Linear()
    try graph.addOutput("y", graph.add(op, inputs, name: "y")[0])
    let x = try Tensor([Float](repeating: 1, count: 12), shape: [1, 12])
    let y = try #require(try Session(Model(graphs: [graph])).run(["x": x])["y"]).elements(Float.self)
    // Rounding a row of ones to int8 is exact but for its scale.
    #expect(y.allSatisfy { abs($0 - 12 * expected) < 1e-4 }, "\(y)")
}

@Test func damageInMappedWeightsIsFoundBeforeTheyAreUsed() throws {
    let folder = try TemporaryFolder()
    _ = try model(graph(), mapped: true, in: folder)
    let whole = try #require(try PackageReader(path: folder["true.trips"]).tensors.first { $0.name == "whole" })
    var bytes = try Array(Data(contentsOf: URL(fileURLWithPath: folder["true.trips"])))
    bytes[whole.offset + whole.compressedByteCount - 1] ^= 1
    try folder.write(bytes, "damaged.trips")
    let session = Session(try Model(contentsOf: folder["damaged.trips"]))
    let error = #expect(throws: TripsError.self) {
        try session.run(["ids": try Tensor([Int64](repeating: 0, count: 5), shape: [1, 5])])
    }
    #expect(error?.kind == .data && error?.description.contains("whole") == true)
}
