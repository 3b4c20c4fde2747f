import Importers
import ModelGraph
import TestSupport
import Testing

@Suite(.needsSharedFolder) struct ONNXConformanceTests {
    @Test(arguments: [
        "albef_pretrain/model_opset17", "albef_pretrain/model_opset14_nofold", "albef_trips/model_opset17",
        "mplug_vqa/encoder_opset17", "mplug_vqa/decoder_opset17",
    ])
    func modelsAreImported(model: String) throws {
        let path = "\(conformanceFolder)/\(model).onnx"
        let imported = try importONNX(path: path)
        let graph = try #require(imported.graphs.first)
        try graph.validate()
        #expect(imported.graphs.count == 1 && graph.name == "main")
        #expect(try operatorInventory(path: path).allSatisfy(\.isSupported))
    }
}
