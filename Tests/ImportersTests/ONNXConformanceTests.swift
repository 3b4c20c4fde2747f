import Foundation
import Importers
import ModelGraph
import Testing

/// Folder of the shared material; nil where it is absent, which skips what needs it.
let sharedFolder: String? = {
    let path =
        ProcessInfo.processInfo.environment["TRIPS_SHARED"]
        ?? URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../../shared").standardized.path()
    if FileManager.default.fileExists(atPath: path + "/conformance") { return path }
    print("skipped: no shared material at \(path)")
    return nil
}()

@Suite(.enabled(if: sharedFolder != nil))
struct ONNXConformanceTests {
    @Test(arguments: [
        "albef_pretrain/model_opset17", "albef_pretrain/model_opset14_nofold", "albef_trips/model_opset17",
        "mplug_vqa/encoder_opset17", "mplug_vqa/decoder_opset17",
    ])
    func imports(model: String) throws {
        let path = try #require(sharedFolder) + "/conformance/\(model).onnx"
        let imported = try importONNX(path: path)
        let graph = try #require(imported.graphs.first)
        if ProcessInfo.processInfo.environment["TRIPS_PRINT"] != nil { print(graph) }
        try graph.validate()
        #expect(imported.graphs.count == 1 && graph.name == "main")
        #expect(try operatorInventory(path: path).allSatisfy(\.isSupported))
    }
}
