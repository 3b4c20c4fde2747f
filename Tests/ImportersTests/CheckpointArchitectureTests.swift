import Foundation
import Importers
import ModelGraph
import Support
import Tensors
import TestSupport
import Testing

/// A checkpoint of a released layout, without numbers.
private func checkpoint(of layout: String) throws -> Checkpoint {
    try Checkpoint(tensors: releasedTensors(layout), format: .torchZip)
}

private func count(_ model: ImportedModel, _ type: any Operator.Type) -> Int {
    model.graphs.flatMap(\.nodes).count { Swift.type(of: $0.op) == type }
}

@Suite(.needsSharedFolder) struct ReleasedLayouts {
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
        .init(
            file: "albef_pretrain", architecture: .albefPretrain, attentions: 12 + 6 + 12, imageSize: 256,
            settings: ["vision_heads": "12", "text_heads": "12"]),
        .init(file: "albef_retrieval", architecture: .albefRetrieval, attentions: 12 + 6 + 12, imageSize: 384, settings: [:]),
        .init(file: "albef_vqa", architecture: .albefVQA, attentions: 12 + 6 + 12 + 12, imageSize: 384, settings: [:]),
        .init(file: "albef_nlvr2", architecture: .albefNLVR2, attentions: 12 + 6 + 24, imageSize: 384, settings: [:]),
        .init(file: "albef_ve", architecture: .albefVE, attentions: 12 + 6 + 12, imageSize: 384, settings: [:]),
        .init(
            file: "mplug_base_vqa", architecture: .mplugVQA, attentions: 12 + 6 + 11 + 24, imageSize: 384,
            settings: ["fusion_layers": "6", "stride_layer": "3"]),
        .init(file: "mplug_base_caption", architecture: .mplugCaption, attentions: 12 + 24, imageSize: 384, settings: [:]),
        .init(
            file: "mplug_base_retrieval", architecture: .mplugRetrieval, attentions: 12 + 6 + 12, imageSize: 384,
            settings: ["stride_layer": "6"]),
        .init(
            file: "mplug_base_grounding", architecture: .mplugGrounding, attentions: 12 + 6 + 12 + 24, imageSize: 384, settings: [:]
        ),
        .init(
            file: "mplug_large_grounding", architecture: .mplugGrounding, attentions: 24 + 6 + 12 + 24, imageSize: 336,
            settings: ["vision_heads": "16"]),
        .init(
            file: "mplug_large_retrieval", architecture: .mplugRetrieval, attentions: 24 + 6 + 12, imageSize: 336,
            settings: ["text_heads": "12"]),
    ]

    @Test(arguments: released) func isRecognised(_ expected: Expectation) throws {
        let model = try importCheckpoint(checkpoint(of: expected.file))
        #expect(model.architecture == expected.architecture)
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
        expectFailure(.data, "albef_pretrain_nlvr2", "ta_head") { try importCheckpoint(checkpoint(of: "albef_pretrain_nlvr2")) }
    }

    @Test func whatIsLeftOutIsSummedUp() throws {
        let leftOut = try importCheckpoint(checkpoint(of: "mplug_base_vqa")).leftOut
        let reasons = Dictionary(uniqueKeysWithValues: leftOut.map { ($0.reason, $0) })
        #expect(reasons["momentum twins"]?.count == 1047)
        #expect(reasons["fusion layers that do not run"]?.count == 6 * 26)
        #expect(reasons["CLIP's text tower and projections"]?.count == 12 * 12 + 7)
        #expect(reasons["cross-attention of connected layers"]?.count == 10)
        #expect((reasons["momentum twins"]?.bytes ?? 0) > 1 << 30)
    }
}

@Suite struct SmallCheckpoints {
    @Test(arguments: Architecture.allCases) func fixtureBecomesLegalGraphs(_ architecture: Architecture) throws {
        let folder = "\(fixtures)/\(architecture.rawValue)"
        let model = try importCheckpoint(path: "\(folder)/checkpoint.safetensors")
        #expect(model.architecture == architecture)
        #expect(model.format == .safetensors)
        for graph in model.graphs { try graph.validate() }
        // Names and shapes of what the graphs take, give and trace are those of the reference's goldens.
        let golden = try SafetensorsFile(path: "\(folder)/golden.safetensors")
        var expected = Dictionary(uniqueKeysWithValues: golden.tensors.map { ($0.name, $0.constant) })
        var shared = Set<String>(), outputs = Set<String>()
        for graph in model.graphs {
            let traces = graph.traces.map { ("mid.\($0.name)", $0.value) }
            for (key, value) in graph.inputs.map({ ("in.\(graph.name(of: $0))", $0) })
                + graph.outputs.map({ ("out.\($0.name)", $0.value) }) + traces
            {
                if key.hasPrefix("out.") { outputs.insert(String(key.dropFirst(4))) }
                // What one graph hands to the other, or both take, stands there once.
                guard let constant = expected.removeValue(forKey: key) else {
                    let name = String(key.dropFirst(3))
                    #expect(
                        key.hasPrefix("in.") && (shared.contains(name) || outputs.contains(name)), "\(key) is not in the golden")
                    continue
                }
                if key.hasPrefix("in.") { shared.insert(String(key.dropFirst(3))) }
                let type = graph.type(of: value)
                #expect(type.dataType == constant.dataType, "\(key)")
                #expect(type.rank == constant.shape.count, "\(key)")
                for (size, stated) in zip(type.shape, constant.shape) {
                    #expect(mayBeEqual(size, Dimension(stated)), "\(key): \(type) \(constant.shape)")
                }
            }
        }
        #expect(expected.isEmpty, "\(expected.keys.sorted())")
    }

    @Test(arguments: [
        (
            Architecture.albefPretrain,
            ["temperature": 1, "position indices": 1, "masked-language-modelling head": 7, "queues": 3]
        ),
        (
            .mplugVQA,
            [
                "position indices": 3, "unused embeddings": 5, "fusion layers that do not run": 26,
                "cross-attention of connected layers": 10, "copies of tied tensors": 2, "CLIP's text tower and projections": 19,
            ]
        ),
        (
            .mplugCaption,
            [
                "position indices": 3, "copies of tied tensors": 2, "CLIP's text tower and projections": 19,
                "text and fusion encoders, which captioning does not run (the architecture mplug-vqa does)": 104,
            ]
        ),
    ]) func whatIsLeftOutIsSummedUp(_ architecture: Architecture, _ reasons: [String: Int]) throws {
        let path = "\(fixtures)/\(architecture.rawValue)/checkpoint.safetensors"
        let leftOut = try importCheckpoint(path: path).leftOut
        #expect(Dictionary(uniqueKeysWithValues: leftOut.map { ($0.reason, $0.count) }) == reasons)
    }

    @Test func idsOfCoordinatesAreConsecutive() throws {
        let file = try SafetensorsFile(path: "\(fixtures)/mplug-grounding/checkpoint.safetensors")
        let ids = try #require(file.tensors.first { $0.name == "target_ids" }).constant
        var changed = try ids.load().converted(to: .int64).elements(Int64.self)
        changed[1] += 1
        let gap = Constant(try Tensor(changed, shape: ids.shape), identity: "gap")
        let tensors = file.tensors.map { (name: $0.name, constant: $0.name == "target_ids" ? gap : $0.constant) }
        expectFailure(.data, "consecutive ids") { try importCheckpoint(Checkpoint(tensors: tensors, metadata: ["heads": "2"])) }
    }

    @Test func captioningTakesNoFusionLayers() {
        let path = "\(fixtures)/mplug-caption/checkpoint.safetensors"
        expectFailure(.usage, "fusion_layers", "mplug-vqa") { try importCheckpoint(path: path, options: .init(fusionLayers: 2)) }
        expectFailure(.usage, "stride_layer", "mplug-vqa") { try importCheckpoint(path: path, options: .init(strideLayer: 1)) }
    }

    @Test func torchFilesHoldTheSameTensors() throws {
        let folder = "\(fixtures)/albef-ve"
        let reference = try Checkpoint.open(path: "\(folder)/checkpoint.safetensors")
        for (file, format) in [("checkpoint.pth", SourceFormat.torchZip), ("checkpoint-older.pt", .torchLegacy)] {
            let checkpoint = try Checkpoint.open(path: "\(folder)/\(file)")
            #expect(checkpoint.format == format)
            let constants = Dictionary(uniqueKeysWithValues: checkpoint.tensors.map { ($0.name, $0.constant) })
            #expect(Set(constants.keys) == Set(reference.tensors.map(\.name)))
            for (name, expected) in reference.tensors {
                let constant = try #require(constants[name])
                #expect(constant.shape == expected.shape && constant.dataType == expected.dataType, "\(name)")
                let (found, stated) = (try constant.load(), try expected.load())
                #expect(found.withBytes { Array($0) } == stated.withBytes { Array($0) }, "\(name)")
            }
        }
    }

    @Test(
        .needsSharedFolder,
        arguments: [("albef_pretrain", Architecture.albefPretrain), ("albef_vqa", .albefVQA), ("mplug_vqa", .mplugVQA)])
    func conformanceCheckpointIsRecognised(_ folder: String, _ architecture: Architecture) throws {
        let model = try importCheckpoint(path: "\(conformanceFolder)/\(folder)/checkpoint.safetensors")
        #expect(model.architecture == architecture)
        #expect(model.settings.contains(Setting("vision_heads", "4", from: .metadata)))
        for graph in model.graphs { try graph.validate() }
    }
}

/// A model of few tensors: one vision block, one text and one fusion layer.
private func tinyVE(width: Int = 8, change: (inout [(name: String, constant: Constant)]) -> Void = { _ in }) -> [(
    name: String, constant: Constant
)] {
    var tensors: [(name: String, constant: Constant)] = []
    func add(_ name: String, _ shape: [Int]) { tensors.append((name, emptyConstant(name, shape))) }
    func pair(_ name: String, _ outputs: Int, _ inputs: Int) {
        add("\(name).weight", [outputs, inputs])
        add("\(name).bias", [outputs])
    }
    func norm(_ name: String) {
        add("\(name).weight", [width])
        add("\(name).bias", [width])
    }
    add("visual_encoder.cls_token", [1, 1, width])
    add("visual_encoder.pos_embed", [1, 5, width])
    add("visual_encoder.patch_embed.proj.weight", [width, 3, 4, 4])
    add("visual_encoder.patch_embed.proj.bias", [width])
    norm("visual_encoder.blocks.0.norm1")
    pair("visual_encoder.blocks.0.attn.qkv", 3 * width, width)
    pair("visual_encoder.blocks.0.attn.proj", width, width)
    norm("visual_encoder.blocks.0.norm2")
    pair("visual_encoder.blocks.0.mlp.fc1", 12, width)
    pair("visual_encoder.blocks.0.mlp.fc2", width, 12)
    norm("visual_encoder.norm")
    add("text_encoder.embeddings.word_embeddings.weight", [20, width])
    add("text_encoder.embeddings.position_embeddings.weight", [10, width])
    add("text_encoder.embeddings.token_type_embeddings.weight", [2, width])
    norm("text_encoder.embeddings.LayerNorm")
    for layer in 0..<2 {
        for kind in layer == 0 ? ["attention"] : ["attention", "crossattention"] {
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                pair("text_encoder.encoder.layer.\(layer).\(kind).\(part)", width, width)
            }
            norm("text_encoder.encoder.layer.\(layer).\(kind).output.LayerNorm")
        }
        pair("text_encoder.encoder.layer.\(layer).intermediate.dense", 12, width)
        pair("text_encoder.encoder.layer.\(layer).output.dense", width, 12)
        norm("text_encoder.encoder.layer.\(layer).output.LayerNorm")
    }
    pair("cls_head.0", width, width)
    pair("cls_head.2", 3, width)
    change(&tensors)
    return tensors
}

@Suite struct CheckpointImport {
    @Test func recognisesAndBuilds() throws {
        let model = try importCheckpoint(Checkpoint(tensors: tinyVE(), metadata: ["heads": "2"]))
        #expect(model.architecture == .albefVE)
        let graph = try #require(model.graphs.first)
        try graph.validate()
        #expect(
            graph.inputs.map { "\(graph.name(of: $0)) \(graph.type(of: $0))" } == [
                "image float32[batch, 3, 8, 8]", "input_ids int64[batch, text_length]", "attention_mask int64[batch, text_length]",
            ])
        #expect(graph.outputs.map { "\($0.name) \(graph.type(of: $0.value))" } == ["prediction float32[batch, 3]"])
        #expect(graph.traces.map(\.name) == ["vision.0", "vision.1", "text.0", "text.1", "fusion.0", "fusion.1"])
        #expect(
            count(model, Attention.self) == 4 && count(model, LayerNorm.self) == 3 + 1 + 5 && count(model, PaddingMask.self) == 1)
    }

    @Test func packedProjectionsAreReadByRows() throws {
        let numbers = (0..<24 * 8).map { Float($0) }
        let packed = Constant(try Tensor(numbers, shape: [24, 8]), identity: "packed")
        let tensors = tinyVE { $0 = $0.map { $0.name == "visual_encoder.blocks.0.attn.qkv.weight" ? ($0.name, packed) : $0 } }
        let graph = try #require(try importCheckpoint(Checkpoint(tensors: tensors, metadata: ["heads": "2"])).graphs.first)
        for (index, part) in ["q", "k", "v"].enumerated() {
            let value = try #require(graph.value(named: "visual_encoder.blocks.0.attn.\(part).weight"))
            let constant = try #require(graph.constant(of: value))
            #expect(try constant.load().elements(Float.self) == Array(numbers[index * 64..<(index + 1) * 64]))
        }
    }

    @Test func oneErrorListsAllTensorsThatDoNotFit() {
        let tensors = tinyVE { tensors in
            tensors.removeAll { $0.name.hasSuffix("norm1.weight") || $0.name == "cls_head.0.bias" }
            tensors = tensors.map { $0.name == "visual_encoder.norm.bias" ? ($0.name, emptyConstant("x", [9])) : $0 }
            tensors = tensors.map { $0.name == "visual_encoder.norm.weight" ? ($0.name, emptyConstant("x", [8], .int64)) : $0 }
            tensors.append(("surprise.weight", emptyConstant("y", [3])))
        }
        expectFailure(
            .data, "albef-ve", "5 missing, unexpected or misshapen", "missing: visual_encoder.blocks.0.norm1.weight [8]",
            "missing: cls_head.0.bias [8]",
            "misshapen: visual_encoder.norm.bias, found float32 [9], expected [8]", "visual_encoder.norm.weight, found int64",
            "unexpected: surprise.weight [3]"
        ) { try importCheckpoint(Checkpoint(tensors: tensors, metadata: ["heads": "2"])) }
    }

    @Test(arguments: ["module.", "model.", "module.model.", "_orig_mod.module.", "albef."])
    func namesOfWrappersAreNoneOfTheModels(prefix: String) throws {
        let tensors = tinyVE().map { ("\(prefix)\($0.name)", $0.constant) }
        #expect(try importCheckpoint(Checkpoint(tensors: tensors, metadata: ["heads": "2"])).architecture == .albefVE)
    }

    @Test func wrappersHideNothingBesideWhatStaysBehind() throws {
        let tensors = tinyVE().map { ("model.\($0.name)", $0.constant) } + [("loss.weight", emptyConstant("l", [3]))]
        expectFailure(.data, "not recognised", "tensors of model, loss") { try importCheckpoint(Checkpoint(tensors: tensors)) }
        let model = try importCheckpoint(
            Checkpoint(tensors: tensors, metadata: ["heads": "2"]), options: .init(leftOut: ["loss.*"]))
        #expect(model.architecture == .albefVE && model.leftOut.map(\.count) == [1])
        // A name that stands with and without the wrapper is two tensors.
        let twice = tensors.dropLast() + [("visual_encoder.norm.bias", emptyConstant("t", [8]))]
        expectFailure(.data, "not recognised") {
            try importCheckpoint(Checkpoint(tensors: Array(twice)), options: .init(leftOut: ["visual_encoder.norm.bias"]))
        }
    }

    @Test func unknownTensorsStayBehindWhereAsked() throws {
        let checkpoint = Checkpoint(
            tensors: tinyVE {
                $0 += [("aux_head.0.weight", emptyConstant("a", [3])), ("aux_head.0.bias", emptyConstant("b", [1]))]
            },
            metadata: ["heads": "2"])
        expectFailure(.data, "2 missing, unexpected or misshapen", "unexpected: aux_head.0.weight [3]", "`leftOut`") {
            try importCheckpoint(checkpoint)
        }
        let leftOut = try importCheckpoint(checkpoint, options: .init(leftOut: ["aux_head.*"])).leftOut
        #expect(leftOut.map(\.reason) == ["unknown, as asked for"] && leftOut.map(\.count) == [2] && leftOut.map(\.bytes) == [16])
        expectFailure(.data, "1 missing, unexpected or misshapen") {
            try importCheckpoint(checkpoint, options: .init(leftOut: ["*.bias"]))
        }
        // What the model needs is not left out, and what matches nothing is a mistake.
        expectFailure(.usage, "cls_head.*") {
            try importCheckpoint(checkpoint, options: .init(leftOut: ["aux_head.*", "cls_head.*"]))
        }
    }

    @Test func unknownModelsAreRefused() {
        expectFailure(.data, "not recognised", "albef-pretrain") {
            try importCheckpoint(Checkpoint(tensors: [("a.b", emptyConstant("a.b", [1]))]))
        }
        expectFailure(.data, "not recognised") { try importCheckpoint(Checkpoint(tensors: [])) }
    }

    @Test func aNameThatOtherProgramsGaveDoesNotHideTheTensors() throws {
        let model = try importCheckpoint(Checkpoint(tensors: tinyVE(), metadata: ["architecture": "ALBEF", "heads": "2"]))
        #expect(model.settings.contains(Setting("architecture", "albef-ve", from: .tensors)))
    }

    @Test func errorsNameTheFileThatTheyAreIn() throws {
        let folder = try TemporaryFolder()
        let header = #"{"visual_encoder.blocks.0.x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#
        let model = try folder.write(safetensors(header), "model.safetensors")
        expectFailure(.data, "model.safetensors: the architecture is not recognised") { try importCheckpoint(path: model) }
        expectFailure(.data, "model.safetensors: albef-ve: the patch embedding") {
            try importCheckpoint(path: model, options: .init(architecture: .albefVE))
        }
        // The option is a guess, here of another family.
        expectFailure(.data, "mplug-vqa (the tensors look like albef-ve): the patch embedding") {
            try importCheckpoint(Checkpoint(tensors: tinyVE()), options: .init(architecture: .mplugVQA))
        }
        func fails(_ text: String, _ words: String...) throws {
            let path = try folder.write(Array(text.utf8), "my-config.json")
            for word in ["my-config.json"] + words {
                expectFailure(.data, word) {
                    try importCheckpoint(Checkpoint(tensors: tinyVE(width: 64)), options: .init(configurationPath: path))
                }
            }
        }
        try fails(#"{"num_attention_heads": "four"}"#, #"found "four""#)
        try fails(#"{"num_attention_heads": 3}"#, "found 3")
        try fails(#"{"layer_norm_eps": [1e-6]}"#, "found [1e-06]")
        try fails("[1]", "a JSON object")
    }

    @Test func packagesAreNotTakenForCheckpoints() throws {
        let folder = try TemporaryFolder()
        let package = try folder.write(
            littleEndian(UInt32(0x184D_2A54)) + littleEndian(UInt32(32)) + Array("TRIPSPKG".utf8), "m.trips")
        expectFailure(.data, "m.trips: this is a .trips package already") { try Checkpoint.open(path: package) }
    }

    @Test func settingsComeFromOptionThenConfigurationThenMetadataThenRelease() throws {
        let folder = try TemporaryFolder()
        let config = try folder.write(Array("{\"num_attention_heads\": 4, \"layer_norm_eps\": 1e-6}".utf8), "bert_config.json")
        func settings(_ options: CheckpointOptions, _ metadata: [String: String] = [:]) throws -> [Setting] {
            try importCheckpoint(Checkpoint(tensors: tinyVE(width: 64), metadata: metadata), options: options).settings
        }
        func heads(_ settings: [Setting]) -> Setting? { settings.first { $0.name == "text_heads" } }
        let metadata = ["heads": "8", "text_heads": "16"]
        #expect(
            heads(try settings(.init(textHeads: 2, configurationPath: config), metadata))
                == Setting("text_heads", "2", from: .option))
        #expect(heads(try settings(.init(configurationPath: config), metadata)) == Setting("text_heads", "4", from: .configuration))
        #expect(heads(try settings(.init(), metadata)) == Setting("text_heads", "16", from: .metadata))
        #expect(heads(try settings(.init())) == Setting("text_heads", "1", from: .released))
        #expect(try settings(.init(), metadata).contains(Setting("vision_heads", "8", from: .metadata)))
        #expect(
            try settings(.init(configurationPath: config)).contains(
                Setting("text_layer_norm_epsilon", "1e-06", from: .configuration)))
        for epsilon in ["0", "-1e-6", "1", "\"small\""] {
            let config = try folder.write(Array("{\"layer_norm_eps\": \(epsilon)}".utf8), "epsilon.json")
            expectFailure(.data, "layer_norm_eps", "epsilon.json") { try settings(.init(configurationPath: config)) }
        }
        let vast = try folder.write(Array("{\"hidden_size\": 64}".utf8) + [UInt8](repeating: 0x20, count: 1 << 20), "vast.json")
        expectFailure(.data, "size of a JSON file") { try settings(.init(configurationPath: vast)) }
        expectFailure(.usage, "text_heads", "found 3") { try settings(.init(textHeads: 3)) }
        expectFailure(.usage, "vision_heads", "found 0") { try settings(.init(visionHeads: 0)) }
        expectFailure(.data, "checkpoint metadata", "found -1") { try settings(.init(), ["heads": "-1"]) }
        expectFailure(.data, "checkpoint metadata", "two") { try settings(.init(), ["heads": "two"]) }
        expectFailure(.usage, "fusion layers") { try settings(.init(fusionLayers: 7)) }
        expectFailure(.usage, "stride_layer") { try settings(.init(strideLayer: 2)) }
    }

    @Test func halfPrecisionIsWidened() throws {
        let tensors = tinyVE().map { ($0.name, emptyConstant($0.name, $0.constant.shape, .bfloat16)) }
        let graph = try #require(try importCheckpoint(Checkpoint(tensors: tensors, metadata: ["heads": "2"])).graphs.first)
        try graph.validate()
        for node in graph.nodes {
            for case let value? in node.inputs
            where graph.constant(of: value) != nil && graph.type(of: value).dataType.isFloatingPoint {
                #expect(graph.type(of: value).dataType == .float32, "\(graph.name(of: value))")
            }
        }
    }

    @Test func imageSizeResamplesThePositions() throws {
        // Made with torch.nn.functional.interpolate(…, align_corners=False).
        let grid: [Float] = [1, -2, 0.5, 3, 0.25, -1, 2, 4, -0.75]
        let bicubic: [Float] = [
            1.098304, -0.571232, -2.216, -0.683407, 0.91856, 2.15952, 0.495556, -1.396999, -0.836875, 0.024511, 3.264, 2.022999,
            0.25, -0.713,
            -1.12, 2.5152, 2.863563, 2.707, 0.478456, -1.306552, 1.668225, 3.22312, 4.360001, 1.4242, -1.214256,
        ]
        let positions = try Tensor([7] + grid, shape: [1, 10, 1]).elements(Float.self).flatMap { [Float](repeating: $0, count: 8) }
        let constant = Constant(try Tensor(positions, shape: [1, 10, 8]), identity: "positions")
        let tensors = tinyVE { $0 = $0.map { $0.name == "visual_encoder.pos_embed" ? ($0.name, constant) : $0 } }
        let checkpoint = Checkpoint(tensors: tensors, metadata: ["heads": "2"])
        let graph = try #require(try importCheckpoint(checkpoint, options: .init(imageSize: 20)).graphs.first)
        #expect(graph.type(of: graph.inputs[0]).shape.suffix(2) == [20, 20])
        let value = try #require(graph.value(named: "visual_encoder.pos_embed"))
        let resampled: [Float] = try #require(graph.constant(of: value)).load().elements()
        #expect(resampled.count == 26 * 8)
        #expect(resampled.prefix(8).allSatisfy { $0 == 7 })
        for (index, expected) in bicubic.enumerated() {
            // Ten roundings of numbers below 8: 1e-5 is three times what they can come to.
            #expect(abs(resampled[8 * (index + 1) + index % 8] - expected) < 1e-5, "\(index)")
        }
        let same = try #require(try importCheckpoint(checkpoint, options: .init(imageSize: 12)).graphs.first)
        let untouched = try #require(same.value(named: "visual_encoder.pos_embed").flatMap(same.constant(of:)))
        #expect(untouched.identity == "positions")
        for size in [0, -4, 10, 1 << 20] {
            expectFailure(.usage, "image size") { try importCheckpoint(checkpoint, options: .init(imageSize: size)) }
        }
    }

    @Test func layersThatMakeNoModelAreRefused() {
        func refuses(
            _ words: String, _ architecture: Architecture? = nil,
            change: (inout [(name: String, constant: Constant)]) -> Void = { _ in }
        ) {
            let checkpoint = Checkpoint(tensors: tinyVE(change: change), metadata: ["heads": "2"])
            expectFailure(.data, words) { try importCheckpoint(checkpoint, options: .init(architecture: architecture)) }
        }
        refuses("1 without and 0 with cross-attention") { $0.removeAll { $0.name.hasPrefix("text_encoder.encoder.layer.1.") } }
        refuses("0 without and 1 with cross-attention") { tensors in
            tensors.removeAll { $0.name.hasPrefix("text_encoder.encoder.layer.0.") }
            tensors = tensors.map { ($0.name.replacingOccurrences(of: "layer.1.", with: "layer.0."), $0.constant) }
        }
        refuses("0 layers, 2 heads") { $0.removeAll { $0.name.hasPrefix("text_encoder.encoder.") } }
        refuses("an even number", .albefNLVR2)
        refuses("albef_pretrain_nlvr2") { $0.append(("ta_head.weight", emptyConstant("t", [1]))) }
    }

    @Test func moreLayersThanAnyModelHasAreRefused() {
        let tensors = tinyVE { tensors in
            for layer in 1...1024 { tensors.append(("visual_encoder.blocks.\(layer).norm1.bias", emptyConstant("b", [8]))) }
        }
        expectFailure(.data, "visual_encoder.blocks.*", "found 1025") { try importCheckpoint(Checkpoint(tensors: tensors)) }
    }

    @Test func oddSizesAreRefused() {
        func changed(_ name: String, _ shape: [Int]) -> Checkpoint {
            Checkpoint(
                tensors: tinyVE { $0 = $0.map { $0.name == name ? (name, emptyConstant(name, shape)) : $0 } },
                metadata: ["heads": "2"])
        }
        expectFailure(.data, "[1, 7, 8]", "square number") { try importCheckpoint(changed("visual_encoder.pos_embed", [1, 7, 8])) }
        for shape in [[], [0, .max, 8], [1, 1, 8], [1, 5, 9]] {
            expectFailure(.data, "position embedding") { try importCheckpoint(changed("visual_encoder.pos_embed", shape)) }
        }
        expectFailure(.data, "patch embedding") {
            try importCheckpoint(changed("visual_encoder.patch_embed.proj.weight", [8, 3, 4, 5]))
        }
        expectFailure(.data, "patch embedding") {
            try importCheckpoint(changed("visual_encoder.patch_embed.proj.weight", [0, 3, 4, 4]))
        }
        expectFailure(.data, "patch size; found 8193") {
            try importCheckpoint(changed("visual_encoder.patch_embed.proj.weight", [8, 3, 8193, 8193]))
        }
        expectFailure(.data, "embedding") { try importCheckpoint(changed("text_encoder.embeddings.word_embeddings.weight", [20])) }
        expectFailure(.data, "text width") {
            try importCheckpoint(changed("text_encoder.embeddings.position_embeddings.weight", []))
        }
    }
}
