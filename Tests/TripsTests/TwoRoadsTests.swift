import Foundation
import Importers
import ModelGraph
import Rewrites
import Support
import Testing

/// One model, two roads, one graph: the export and the checkpoint of the same weights end as the same blocks.
@Suite struct TwoRoads {
    private static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Fixtures").path

    @Test(arguments: [
        ("sample", "albef.onnx", 0), ("albef-pretrain", "opset17.onnx", 0), ("albef-pretrain", "dynamo.onnx", 0),
        ("mplug-vqa", "encode.onnx", 0),
    ]) func endInOneGraph(_ folder: String, _ export: String, _ index: Int) throws {
        var exported = try #require(try importONNX(path: "\(Self.fixtures)/\(folder)/\(export)").graphs.first)
        var built = try importCheckpoint(path: "\(Self.fixtures)/\(folder)/checkpoint.safetensors").graphs[index]
        try prepare(&exported)
        try prepare(&built)
        // Sizes that are open in one and static in the other are bound to numbers in both.
        var symbols: [[String: Int]] = [[:], [:]]
        for input in built.inputs {
            let twin = try #require(exported.inputs.first { exported.name(of: $0) == built.name(of: input) })
            for (left, right) in zip(exported.shape(of: twin), built.shape(of: input)) {
                let size = left.constant ?? right.constant ?? (right == Dimension(symbol: "batch") ? 2 : 9)
                if left.constant == nil { symbols[0][left.description] = size }
                if right.constant == nil { symbols[1][right.description] = size }
            }
        }
        try exported.bind(symbols[0])
        try built.bind(symbols[1])
        try prepare(&exported)
        try prepare(&built)
        let (left, right) = (exported.structure.split(separator: "\n"), built.structure.split(separator: "\n"))
        let difference = zip(left, right).first { $0 != $1 }
        let isEqual = left == right
        #expect(isEqual, "\(difference.map { "\($0.0) / \($0.1)" } ?? "\(left.count) and \(right.count) lines")")
    }

    private func prepare(_ graph: inout Graph) throws {
        try fold(&graph)
        try fuse(&graph)
    }
}
