import Foundation
import Importers
import ModelGraph
import Support
import Tensors
import Testing

/// The tensors of a released layout, without numbers.
private func layout(_ name: String) throws -> Checkpoint? {
    guard let path = sharedFile("models/\(name).json") else { return nil }
    let document = try JSON(parsing: Array(Data(contentsOf: URL(fileURLWithPath: path))))
    let tensors = try #require(document["tensors_list"]?.array).map { entry -> (name: String, constant: Constant) in
        let fields = try #require(entry.array)
        let tensor = try #require(fields[0].string), shape = try #require(fields[1].array).compactMap(\.integer)
        // The ids of a grounding model are read as it is imported.
        if tensor == "prefix_ids" { return (tensor, Constant(try Tensor([Int64(344)], shape: [1]), identity: tensor)) }
        if tensor == "target_ids" {
            return (tensor, Constant(try Tensor((0..<Int64(shape[0])).map { 345 + $0 }, shape: shape), identity: tensor))
        }
        return (tensor, emptyConstant(tensor, shape, fields[2].string == "int64" ? .int64 : .float32))
    }
    return Checkpoint(tensors: tensors, format: .torchZip)
}

private func count(_ model: ImportedModel, _ type: any Operator.Type) -> Int {
    model.graphs.flatMap(\.nodes).count { Swift.type(of: $0.op) == type }
}

@Suite struct ReleasedLayouts {
    struct Expectation: Sendable, CustomTestStringConvertible {
        let file: String
        let architecture: Architecture
        /// Attention nodes of all graphs: vision, text, fusion, decoder.
        let attentions: Int
        let imageSize: Int
        let settings: [String: String]
        var testDescription: String { file }
    }

    static let released: [Expectation] = [
        .init(file: "albef_pretrain", architecture: .albefPretrain, attentions: 12 + 6 + 12, imageSize: 256, settings: ["vision_heads": "12", "text_heads": "12"]),
        .init(file: "albef_retrieval", architecture: .albefRetrieval, attentions: 12 + 6 + 12, imageSize: 384, settings: [:]),
        .init(file: "albef_vqa", architecture: .albefVQA, attentions: 12 + 6 + 12 + 12, imageSize: 384, settings: [:]),
        .init(file: "albef_nlvr2", architecture: .albefNLVR2, attentions: 12 + 6 + 24, imageSize: 384, settings: [:]),
        .init(file: "albef_ve", architecture: .albefVE, attentions: 12 + 6 + 12, imageSize: 384, settings: [:]),
        .init(
            file: "mplug_base_vqa", architecture: .mplugVQA, attentions: 12 + 6 + 11 + 24, imageSize: 384,
            settings: ["fusion_layers": "6", "stride_layer": "3"]),
        .init(file: "mplug_base_caption", architecture: .mplugCaption, attentions: 12 + 24, imageSize: 384, settings: [:]),
        .init(file: "mplug_base_retrieval", architecture: .mplugRetrieval, attentions: 12 + 6 + 12, imageSize: 384, settings: ["stride_layer": "6"]),
        .init(file: "mplug_base_grounding", architecture: .mplugGrounding, attentions: 12 + 6 + 12 + 24, imageSize: 384, settings: [:]),
        .init(file: "mplug_large_grounding", architecture: .mplugGrounding, attentions: 24 + 6 + 12 + 24, imageSize: 336, settings: ["vision_heads": "16"]),
        .init(file: "mplug_large_retrieval", architecture: .mplugRetrieval, attentions: 24 + 6 + 12, imageSize: 336, settings: ["text_heads": "12"]),
    ]

    @Test(arguments: released) func isRecognised(_ expected: Expectation) throws {
        guard let checkpoint = try layout(expected.file) else { return }
        let model = try importCheckpoint(checkpoint)
        #expect(model.architecture == expected.architecture.rawValue)
        for graph in model.graphs { try graph.validate() }
        #expect(count(model, Attention.self) == expected.attentions)
        let image = try #require(model.graphs[0].inputs.first.map { model.graphs[0].type(of: $0) })
        #expect(image.shape.suffix(2) == [Dimension(expected.imageSize), Dimension(expected.imageSize)])
        for (name, value) in expected.settings {
            let setting = model.settings.first { $0.name == name }
            #expect(setting?.value == value)
            #expect(setting?.source == .released)
        }
    }

    @Test func nlvr2PretrainingIsRefusedByName() throws {
        guard let checkpoint = try layout("albef_pretrain_nlvr2") else { return }
        expectFailure(.data, "albef_pretrain_nlvr2", "ta_head") { try importCheckpoint(checkpoint) }
    }

    @Test func whatIsLeftOutIsSummedUp() throws {
        guard let checkpoint = try layout("mplug_base_vqa") else { return }
        let leftOut = try importCheckpoint(checkpoint).leftOut
        let reasons = Dictionary(uniqueKeysWithValues: leftOut.map { ($0.reason, $0) })
        #expect(reasons["momentum twins"]?.count == 1047)
        #expect(reasons["fusion layers that do not run"]?.count == 6 * 26)
        #expect(reasons["CLIP's text tower and projections"]?.count == 12 * 12 + 7)
        #expect(reasons["cross-attention of connected layers"]?.count == 10)
        #expect((reasons["momentum twins"]?.bytes ?? 0) > 1 << 30)
    }
}
