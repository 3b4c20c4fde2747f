import Foundation
import Goldens
import ModelGraph
import PackageFormat
import Support
import Tensors
import TestSupport
import Testing
import ToolSupport
import Verification

@Suite(.needsTools) struct CommandTests {
    @Test(arguments: tools) func helpAndVersionSucceedOnStandardOutput(tool: String) throws {
        let help = try run(tool, ["--help"])
        let version = try run(tool, ["--version"])
        #expect(help.status == 0 && help.errors.isEmpty && help.output.contains("USAGE: \(tool)"))
        #expect(version.status == 0 && version.errors.isEmpty && version.output == "0.1.0\n")
    }

    @Test(arguments: tools) func unknownOptionsAreUsageErrorsOnStandardError(tool: String) throws {
        let outcome = try run(tool, ["x.trips", "--no-such-option"])
        #expect(outcome.status == 64 && outcome.output.isEmpty && outcome.errors.contains("Usage: \(tool)"))
    }

    @Test func theConvertersOptionsAreThoseOfTheContract() throws {
        let help = try run("trips-convert", ["--help"])
        for option in [
            "-o, --output", "--architecture", "--vision-heads", "--text-heads", "--fusion-layers", "--stride-layer", "--config",
            "--image-size",
            "--select", "--keep-rate", "--guidance", "--fuse", "--order", "--vision-tower", "--text-guide", "--weights", "--level",
            "--plain", "--mapped",
            "--until", "--list-operators", "--force", "--quiet",
        ] { #expect(help.output.contains(option), "\(option)") }
    }

    @Test(arguments: [
        ["--select", "2", "--keep-rate", "0"], ["--select", "2", "--keep-rate", "1.01"], ["--select", "2", "--keep-rate", "nan"],
        ["--select", "2", "--keep-rate=-0.5"], ["--select", "2,3", "--keep-rate", "0.5,0.6,0.7"], ["--select", "0"],
        ["--select", "2,2"],
        ["--select", "two"], ["--select", "4"], ["--keep-rate", "0.7"], ["--guidance", "telepathy"],
        ["--select", "2", "--order", "random"],
        ["--architecture", "clip"], ["--image-size", "0"], ["--level", "23"], ["--threads", "0"], ["--until", "end"],
        ["--until", "fuse", "--list-operators"], ["--weights", "int4"], ["--mapped", "--plain"], ["--mapped", "--weights", "bf16"],
    ]) func requestsOutOfRangeAreUsageErrors(arguments: [String]) throws {
        let scratch = try TemporaryFolder()
        let outcome = try run("trips-convert", [fixtures + "/albef-pretrain/checkpoint.safetensors"] + arguments, in: scratch.path)
        #expect(outcome.status == 64, "\(outcome.errors)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path).isEmpty)
    }

    @Test func filesThatAreMissingDamagedOrInTheWayHaveTheirOwnCodes() throws {
        let scratch = try TemporaryFolder()
        let (damaged, taken) = (scratch["damaged.onnx"], scratch["taken.trips"])
        try Data("not a model".utf8).write(to: URL(fileURLWithPath: damaged))
        try Data("precious".utf8).write(to: URL(fileURLWithPath: taken))
        let checkpoint = fixtures + "/albef-pretrain/checkpoint.safetensors"
        let missing = try run("trips-convert", ["nosuch.onnx"], in: scratch.path)
        let malformed = try run("trips-convert", ["damaged.onnx"], in: scratch.path)
        let occupied = try run("trips-convert", [checkpoint, "-o", taken], in: scratch.path)
        let nowhere = try run("trips-convert", [checkpoint, "-o", "no/such/folder.trips"], in: scratch.path)
        let noPackage = try run("trips-inspect", ["nosuch.trips"], in: scratch.path)
        let badPackage = try run("trips-inspect", [taken], in: scratch.path)
        #expect(missing.status == 66 && missing.errors.contains("nosuch.onnx"))
        #expect(malformed.status == 65 && malformed.errors.contains("damaged.onnx"))
        #expect(occupied.status == 73 && occupied.errors.contains("--force"))
        #expect(nowhere.status == 73 && nowhere.errors.contains("its folder does not exist"), "\(nowhere.errors)")
        #expect(noPackage.status == 66)
        #expect(badPackage.status == 65)
        #expect(try String(contentsOfFile: taken, encoding: .utf8) == "precious")
        #expect([missing, malformed, occupied, nowhere, noPackage, badPackage].allSatisfy { $0.output.isEmpty })
    }

    @Test func aCheckpointIsConvertedVerifiedAndInspected() throws {
        let scratch = try TemporaryFolder()
        let folder = fixtures + "/albef-pretrain"
        let converted = try run("trips-convert", [folder + "/checkpoint.safetensors", "--select", "2,3"], in: scratch.path)
        #expect(converted.status == 0, "\(converted.errors)")
        #expect(converted.errors.isEmpty, "progress is for terminals alone")
        #expect(converted.output.contains("block 2") && converted.output.contains("without selection"))
        let package = scratch["checkpoint.trips"]
        #expect(FileManager.default.fileExists(atPath: package))

        let verdict = try run("trips-verify", [package, "--golden", folder + "/golden-select.safetensors", "--intermediates"])
        #expect(verdict.status == 0 && verdict.output.contains("PASS"), "\(verdict.output)\(verdict.errors)")
        let other = try run("trips-verify", [package, "--golden", folder + "/golden.safetensors"])
        #expect(other.status == 1 && other.output.contains("FAIL") && other.errors.isEmpty)
        let unnamed = try run("trips-verify", [package, "--golden", folder + "/golden.safetensors", "--atol", "nosuch:1"])
        #expect(unnamed.status == 64)
        let answerless = try run("trips-verify", [package, "--golden", folder + "/golden.safetensors", "--output", "itm_logits"])
        #expect(answerless.status == 64 && answerless.errors.contains("--accuracy"))
        let absent = try run("trips-verify", [package, "--golden", folder + "/nosuch.npz"])
        #expect(absent.status == 66)

        let inspected = try run("trips-inspect", [package, "--verify", "--graph", "--tensors"])
        #expect(
            inspected.status == 0 && inspected.output.contains("PatchSelection") && inspected.output.contains("the file is sound"))
    }

    @Test func reportsComeInThreeForms() throws {
        let scratch = try TemporaryFolder()
        let folder = fixtures + "/albef-pretrain"
        let package = scratch["m.trips"]
        let converted = try run("trips-convert", [folder + "/checkpoint.safetensors", "--select", "2,3", "-o", package])
        #expect(converted.status == 0)
        let files = ["r.html", "r.json", "r.xml"].map { scratch.path + "/" + $0 }
        let arguments = [
            package, "--golden", folder + "/golden-select.safetensors", "--intermediates", "--report", files[0], "--json", files[1],
            "--junit", files[2],
        ]
        let outcome = try run("trips-verify", arguments)
        #expect(outcome.status == 0, "\(outcome.errors)")
        let html = try String(contentsOfFile: files[0], encoding: .utf8)
        #expect(html.contains("data:image/png;base64,") && html.contains("aria-label=\"SNR in dB along the model"))
        #expect(!html.contains("http://") && !html.contains("https://") && !html.contains("<script"))
        let json = try #require(
            try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: files[1]))) as? [String: Any])
        #expect(json["verdict"] as? String == "pass" && (json["outputs"] as? [Any])?.count == 5)
        #expect(try String(contentsOfFile: files[2], encoding: .utf8).contains("failures=\"0\""))
        let again = try run("trips-verify", arguments)
        #expect(again.status == 73)

        // Far beyond a tolerance, times are easier to read than percent.
        let strict = try run(
            "trips-verify", arguments.prefix(3) + ["--atol", "1e-14", "--rtol", "0", "--report", files[0], "--force"])
        let beyond = try String(contentsOfFile: files[0], encoding: .utf8)
        #expect(strict.status == 1 && beyond.contains("x</td>") && !beyond.contains(#/\d{4}\.\d %/#))

        let browser = Process()
        browser.executableURL = URL(fileURLWithPath: root + "/tools/check_report.sh")
        browser.arguments = [files[0]]
        try browser.run()
        browser.waitUntilExit()
        #expect(browser.terminationStatus == 0)
    }

    /// The 48 words that the fixtures' models have.
    private func vocabulary(in scratch: TemporaryFolder) throws -> String {
        let path = scratch["vocab.txt"]
        let words = try String(contentsOfFile: fixtures + "/preprocessing/vocab.txt", encoding: .utf8).split(separator: "\n")
            .prefix(48)
        try words.joined(separator: "\n").write(toFile: path, atomically: true, encoding: .utf8)
        return path
    }

    @Test func aPictureAndATextAreAnswered() throws {
        let scratch = try TemporaryFolder()
        let package = scratch["m.trips"]
        let vocabulary = try vocabulary(in: scratch)
        let converted = try run(
            "trips-convert",
            [fixtures + "/albef-pretrain/checkpoint.safetensors", "--select", "2,3", "--vocabulary", vocabulary, "-o", package])
        #expect(converted.status == 0, "\(converted.errors)")
        let arguments = [
            package, "--image", fixtures + "/preprocessing/colour.jpg", "--text", "the dog is on a", "--picture",
            scratch["p.png"],
        ]
        let answer = try run("trips-run", arguments)
        let wordless = try run("trips-run", [package, "--image", fixtures + "/preprocessing/colour.jpg"])
        let blind = try run("trips-run", [package, "--text", "the dog"])
        #expect(
            answer.status == 0 && answer.output.contains("match") && answer.output.contains("block 3 keeps"), "\(answer.errors)")
        #expect(FileManager.default.fileExists(atPath: scratch["p.png"]))
        #expect(wordless.status == 64 && wordless.errors.contains("--text is missing"), "\(wordless.errors)")
        #expect(blind.status == 64 && blind.errors.contains("--image is missing"), "\(blind.errors)")
        #expect(!answer.errors.contains("assumed"))

        // An ONNX model does not say how it takes pictures.
        let other = scratch["o.trips"]
        let made = try run("trips-convert", [fixtures + "/albef-pretrain/opset17.onnx", "--vocabulary", vocabulary, "-o", other])
        let assuming = try run("trips-run", [other] + arguments[1..<5])
        #expect(made.status == 0 && assuming.status == 0, "\(made.errors)\(assuming.errors)")
        #expect(assuming.errors.contains("note: the package does not say how it takes pictures"))
    }

    /// A package of ALBEF's small model, from its checkpoint or from ONNX with fixed sizes.
    private func package(_ source: String, in scratch: TemporaryFolder, _ arguments: [String] = []) throws -> String {
        let path = scratch.path + "/\((source as NSString).deletingPathExtension).trips"
        let converted = try run("trips-convert", [fixtures + "/albef-pretrain/" + source, "-o", path] + arguments)
        #expect(converted.status == 0, "\(converted.errors)")
        return path
    }

    @Test func theBenchmarkReportsWhatRan() throws {
        let scratch = try TemporaryFolder()
        let fixed = try package("opset17.onnx", in: scratch)
        let open = try package("checkpoint.safetensors", in: scratch)
        func bench(_ path: String, _ arguments: String...) throws -> Outcome {
            try run("trips-bench", [path, "--runs", "1"] + arguments)
        }
        #expect(try bench(fixed).output.hasPrefix("opset17.trips: batch 1, 9 text tokens, "))
        #expect(
            try bench(open, "--batch", "3", "--text-length", "7").output.hasPrefix("checkpoint.trips: batch 3, 7 text tokens, "))
        let json = try JSONSerialization.jsonObject(with: Data(bench(open, "--batch", "3", "--json").output.utf8)) as? [String: Any]
        #expect(json?["batch"] as? Int == 3 && json?["textLength"] as? Int == 20)
        let given = try bench(open, "--given", "image_embeds", "--steps")
        #expect(given.output.contains("text_encoder.") && !given.output.contains("visual_encoder."), "\(given.errors)")
        for (outcome, numbers) in [
            (try bench(fixed, "--batch", "64"), ("64", "1, which")), (try bench(fixed, "--text-length", "12"), ("12", "9, which")),
            (try bench(open, "--text-length", "5000"), ("5000", "at most 20")),
            (try bench(open, "--given", "embeds"), ("embeds", "itm_logits, ")),
        ] {
            #expect(outcome.status == 64 && outcome.output.isEmpty)
            #expect(
                outcome.errors.contains("found \(numbers.0)") && outcome.errors.contains("expected \(numbers.1)"),
                "\(outcome.errors)")
        }
        #expect(try bench(open, "--steps").output.split(separator: "\n").allSatisfy { $0.count <= 120 })
    }

    @Test func noInputIsReplacedByItsOutput() throws {
        let scratch = try TemporaryFolder()
        let path = try package("checkpoint.safetensors", in: scratch)
        let other = try package("opset17.onnx", in: scratch)
        let golden = scratch["golden.safetensors"]
        try FileManager.default.copyItem(atPath: fixtures + "/albef-pretrain/golden.safetensors", toPath: golden)
        try FileManager.default.copyItem(atPath: fixtures + "/albef-pretrain/test_data_set_0", toPath: scratch["set"])
        try Data("{}".utf8).write(to: URL(fileURLWithPath: scratch["golden.json"]))
        let set = scratch["set"]
        let (member, metadata) = (set + "/input_0.pb", scratch["golden.json"])
        let inputs = [path, other, golden, member, metadata].map { URL(fileURLWithPath: $0) }
        let before = try inputs.map { try Data(contentsOf: $0) }
        for (tool, arguments) in [
            ("trips-quantize", ["--int8", path, "-o", path]), ("trips-quantize", ["--int8", path, "--json", path]),
            ("trips-bench", [path, "--trace", path]), ("trips-bench", [path, "--compare", other, "--trace", other]),
            ("trips-verify", [path, "--golden", golden, "--report", path]),
            ("trips-verify", [path, "--golden", golden, "--json", golden]),
            ("trips-verify", [path, "--golden", golden, "--against", other, "--junit", other]),
            ("trips-verify", [path, "--golden", set, "--json", member]),
            ("trips-verify", [path, "--golden", set, "--json", metadata]),
            ("trips-quantize", ["--int8", path, "--calibration", set, "--json", member]),
        ] {
            let outcome = try run(tool, arguments + ["--force"], in: scratch.path)
            #expect(outcome.status == 64 && outcome.errors.contains("would replace the input"), "\(tool): \(outcome.errors)")
        }
        #expect(try inputs.map { try Data(contentsOf: $0) } == before)
        #expect(mkfifo(scratch["pipe"], 0o600) == 0)
        let special = try run("trips-quantize", ["--int8", path, "-o", scratch["pipe"], "--force"])
        #expect(special.status == 73)
    }

    /// Both graphs read the mask, which counts once among the inputs where test data give their places alone.
    @Test func calibrationReadsInputsWithoutNamesAsTheVerifierDoes() throws {
        let scratch = try TemporaryFolder()
        let (path, golden) = (scratch["vqa.trips"], fixtures + "/albef-vqa/golden.safetensors")
        #expect(try run("trips-convert", [fixtures + "/albef-vqa/checkpoint.safetensors", "-o", path]).status == 0)
        let inputs = try #require(GoldenReference.references(at: golden).first).load().inputs
        let names = ["image", "input_ids", "attention_mask", "question_states", "answer_ids", "answer_mask"]
        try FileManager.default.createDirectory(atPath: scratch["set"], withIntermediateDirectories: false)
        for (number, name) in names.enumerated() {
            if let tensor = inputs[name] { try scratch.write(serialized(tensor), "set/input_\(number).pb") }
        }
        let packages = try [golden, scratch["set"]].enumerated().map { index, calibration in
            let quantized = scratch["\(index).trips"]
            let outcome = try run("trips-quantize", ["--int8", path, "-o", quantized, "--calibration", calibration])
            #expect(outcome.status == 0 && outcome.output.contains("answer_logits"), "\(outcome.errors)")
            return try Data(contentsOf: URL(fileURLWithPath: quantized))
        }
        #expect(packages[0] == packages[1])
    }

    @Test func namesOfOneCharacterAreNames() throws {
        let scratch = try TemporaryFolder()
        let golden = scratch["g"]
        try FileManager.default.copyItem(atPath: fixtures + "/albef-pretrain/test_data_set_0", toPath: golden)
        try Data(#"{"seed": "of the folder beside"}"#.utf8).write(to: URL(fileURLWithPath: scratch["golden.json"]))
        let converted = try run(
            "trips-convert", [fixtures + "/albef-pretrain/checkpoint.safetensors", "-o", "é"], in: scratch.path)
        let fromOutside = try run("trips-verify", ["é", "--golden", "g", "--json", "-"], in: scratch.path)
        let fromInside = try run("trips-verify", ["../é", "--golden", ".", "--json", "j"], in: golden)
        for outcome in [converted, fromOutside, fromInside] { #expect(outcome.status == 0, "\(outcome.output)\(outcome.errors)") }
        for report in ["/-", "/g/j"] {
            #expect(
                try String(contentsOfFile: scratch.path + report, encoding: .utf8).contains("of the folder beside"), "\(report)")
        }
    }

    @Test func outputThatCannotBeWrittenIsAnError() throws {
        let scratch = try TemporaryFolder()
        let path = try package("checkpoint.safetensors", in: scratch)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: toolPath("trips-inspect"))
        process.arguments = [path, "--graph"]
        process.standardOutput = FileHandle(forWritingAtPath: "/dev/full")
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        #expect(process.terminationStatus == 74)
    }

    @Test func errorsThatNobodyReadsKeepTheirCode() throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: toolPath("trips-inspect"))
        process.arguments = ["nosuch.trips"]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle(forWritingAtPath: "/dev/full")
        try process.run()
        process.waitUntilExit()
        #expect(process.terminationReason == .exit && process.terminationStatus == 66)
    }

    @Test(arguments: [
        ("trips-quantize", ["--int8", "x.trips", "--threads", "-1"], "--threads -1: expected 1 to"),
        ("trips-quantize", ["--int8", "x.trips", "--calibration", "g", "--max-loss", "-5"], "--max-loss; found -5.0; expected"),
        ("trips-quantize", ["--int8", "--calibration", "g", "x.trips"], "put it before --calibration"),
        ("trips-quantize", ["--int8", "x.trips", "--max-loss", "30"], "--max-loss needs --calibration"),
        ("trips-quantize", ["--bf16", "x.trips", "--weights-only"], "only int8 has such options; found --weights-only"),
        ("trips-quantize", ["--bf16", "x.trips", "--mapped"], "--mapped: weights are to be mapped as they are read; found bf16"),
        ("trips-quantize", ["--int8", "--weights-only", "x.trips", "--mapped"], "found --weights-only"),
        ("trips-convert", ["x.safetensors", "--mapped", "--plain"], "--mapped and --plain exclude each other"),
        ("trips-verify", ["--golden", "g", "x.trips"], "put it before --golden"),
        ("trips-verify", ["x.trips"], "--golden, --accuracy, or --against"),
        ("trips-convert", ["x.onnx", "--vision-heads", "2"], "found --vision-heads"),
        ("trips-convert", ["x.onnx", "--select", "2", "--keep-rate", "-0.5"], "--keep-rate; found -0.5; expected above 0"),
        (
            "trips-convert", ["x.onnx", "--select", "2", "--keep-rate", "0.5,0.6"],
            "--keep-rate; found 2 for 1 block; expected one for all"
        ),
        ("trips-convert", ["x.onnx", "--select", "2", "--seed", "7"], "expected --guidance random"),
        ("trips-convert", ["x.onnx", "--select", "2", "--guidance", "image-cls", "--text-guide", "t"], "expected --guidance text"),
        ("trips-bench", ["x.trips", "--batch", "-1"], "--batch -1: expected 1 to"),
        ("trips-verify", ["x.trips", "--golden", "g", "--report", "r", "--json", "r"], "expected a file for each"),
        ("trips-verify", ["x.trips", "--golden", "g", "--report", "r", "--json", "./r"], "expected a file for each"),
        ("trips-quantize", ["--int8", "x.trips", "-o", "r", "--json", "folder/../r"], "name one file"),
    ]) func usageErrorsSayWhatIsExpected(tool: String, arguments: [String], message: String) throws {
        let outcome = try run(tool, arguments)
        #expect(outcome.status == 64 && outcome.errors.contains(message), "\(outcome.errors)")
    }

    @Test func longListsOfLayersAreCut() throws {
        let scratch = try TemporaryFolder()
        let path = try package("checkpoint.safetensors", in: scratch)
        let outcome = try run("trips-quantize", ["--int8", path, "--keep", "*", "-o", scratch["q.trips"]])
        #expect(outcome.status == 0 && outcome.output.contains("layers as before: kept by the pattern *\n"))
        #expect(outcome.output.contains("more; --json FILE lists all"))
    }

    @Test func notesOnQuantizedLayersAreShown() throws {
        let scratch = try TemporaryFolder()
        let path = try package("checkpoint.safetensors", in: scratch)
        let outcome = try run("trips-quantize", ["--int8", path, "-o", scratch["q.trips"]])
        #expect(outcome.status == 0 && outcome.output.contains("in int8: nothing is known of its input\n"))
    }

    @Test func keepingAllPatchesIsNotCalledASelection() throws {
        let scratch = try TemporaryFolder()
        let arguments = [fixtures + "/albef-pretrain/checkpoint.safetensors", "--select", "2", "--keep-rate"]
        let all = try run("trips-convert", arguments + ["1", "-o", scratch["a.trips"]])
        let some = try run("trips-convert", arguments + ["0.95", "-o", scratch["b.trips"]])
        #expect(!all.output.contains("depend on the text") && all.output.contains("Nothing is dropped"))
        #expect(all.output.contains("as without selection"))
        // 16 tokens: 0.95 keeps all; the remark follows the number, not the rate.
        #expect(some.output.contains("Nothing is dropped"))
    }

    @Test func aCaptionEndsWhereTheDecoderHasNoMorePositions() throws {
        let scratch = try TemporaryFolder()
        let path = scratch["caption.trips"]
        // 20 positions, fewer than a caption's released length.
        let converted = try run("trips-convert", [fixtures + "/mplug-caption/checkpoint.safetensors", "-o", path])
        #expect(converted.output.contains("up to 20 tokens"))
        let arguments = [path, "--image", fixtures + "/preprocessing/colour.png", "--vocabulary", try vocabulary(in: scratch)]
        let caption = try run("trips-run", arguments)
        #expect(caption.status == 0 && caption.output.contains("answer  "), "\(caption.errors)")
        let told = try run("trips-run", arguments + ["--json"]).output
        let json = try #require(try JSONSerialization.jsonObject(with: Data(told.utf8)) as? [String: Any])
        // The logarithm of a probability; text has no start.
        #expect(json["score"] as? Double ?? 0 < 0 && (json["text"] as? String)?.contains("[CLS]") == false)
    }

    @Test(arguments: [("mplug-vqa", 5, 10), ("mplug-caption", 5, 20), ("mplug-grounding", 1, 4), ("albef-vqa", 0, 0)])
    func theBenchmarkTimesGeneratedAnswers(_ architecture: String, beam: Int, tokens: Int) throws {
        let scratch = try TemporaryFolder()
        let path = scratch["model.trips"]
        _ = try run("trips-convert", [fixtures + "/\(architecture)/checkpoint.safetensors", "-o", path])
        func generation(_ arguments: String...) throws -> [String: Any]? {
            let told = try run("trips-bench", [path, "--runs", "1", "--json"] + arguments)
            let json = try JSONSerialization.jsonObject(with: Data(told.output.utf8)) as? [String: Any]
            #expect(json?["milliseconds"] != nil, "\(told.errors)")
            return json?["generation"] as? [String: Any]
        }
        let times = try generation()
        #expect(times?["beam"] as? Int ?? 0 == beam && times?["tokens"] as? Int ?? 0 == tokens)
        // It takes one example.
        #expect(try generation("--batch", "2") == nil)
        #expect(
            try run("trips-bench", [path, "--runs", "1"]).output.contains("\nanswer                first token after ")
                == (beam > 0))
    }

    @Test func packagesWithoutAGraphCannotBeTimed() throws {
        let scratch = try TemporaryFolder()
        let path = try package("checkpoint.safetensors", in: scratch, ["--architecture", "tensors"])
        let other = try package("opset17.onnx", in: scratch)
        for arguments in [[path], [other, "--compare", path]] {
            let outcome = try run("trips-bench", arguments)
            #expect(
                outcome.status == 64 && outcome.errors.contains("checkpoint.trips: the package holds no graph"), "\(outcome.errors)"
            )
        }
    }

    /// Nothing tells before it runs that only texts of 24 tokens fit.
    @Test func textsOfOtherLengthsPointToTheOption() throws {
        let scratch = try TemporaryFolder()
        var graph = Graph(name: "main")
        let ids = try graph.addInput("input_ids", ValueType(.int64, [Dimension(symbol: "batch"), Dimension(symbol: "length")]))
        let places = try graph.addConstant(
            Constant(Tensor((0..<24).map { Int64($0) }, shape: [1, 24]), identity: "places"), name: "places")
        try graph.addOutput("sum", graph.add(Binary(.add), [ids, places], name: "sum")[0])
        let path = scratch["fixed.trips"]
        try PackageWriter.write(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: "")), to: path)
        let wrong = try run("trips-bench", [path, "--runs", "1"])
        let right = try run("trips-bench", [path, "--runs", "1", "--text-length", "24"])
        #expect(
            wrong.status == 65 && wrong.errors.contains("fixed.trips")
                && wrong.errors.contains("with 40 text tokens, which --text-length sets"), "\(wrong.errors)")
        #expect(right.status == 0, "\(right.errors)")
        let open = try package("checkpoint.safetensors", in: scratch)
        let other = try run("trips-bench", [open, "--runs", "1", "--compare", path])
        #expect(other.status != 0 && other.errors.contains("fixed.trips with 20 text tokens"), "\(other.errors)")
    }

    @Test func whatAModelDoesNotReadIsUsage() throws {
        let scratch = try TemporaryFolder()
        let path = scratch["caption.trips"]
        let converted = try run("trips-convert", [fixtures + "/mplug-caption/checkpoint.safetensors", "-o", path])
        #expect(converted.status == 0)
        let empty = scratch["empty.txt"]
        try Data("\n".utf8).write(to: URL(fileURLWithPath: empty))
        let arguments = [path, "--image", fixtures + "/preprocessing/colour.png"]
        let text = try run("trips-run", arguments + ["--text", "a dog"])
        let answers = try run("trips-run", arguments + ["--answers", empty])
        let idle = try run("trips-run", arguments + ["--answers", fixtures + "/preprocessing/vocab.txt"])
        #expect(text.status == 64 && text.errors.contains("no input for words"))
        #expect(answers.status == 65 && answers.errors.contains("empty.txt"))
        #expect(idle.status == 64 && idle.errors.contains("--answers"))
    }
}

@Test func onlyAVerdictExitsWithOne() {
    struct Example: Tool {}
    struct Unforeseen: Error {}
    #expect(Example.failure(for: Unforeseen())?.code == 70)
    #expect(Example.failure(for: TripsError.usage("x"))?.code == 64)
    #expect(Example.failure(for: ExitCode(1)) == nil && Example.failure(for: ValidationError("x")) == nil)
}

@Test func numbersThatJSONDoesNotHaveAreWords() throws {
    let text = try jsonText(["a": Double.infinity, "b": -.infinity, "c": .nan])
    #expect(text == "{\n  \"a\" : \"inf\",\n  \"b\" : \"-inf\",\n  \"c\" : \"nan\"\n}")
}

@Test(
    .needsProgram("python3"),
    arguments: [
        (
            ["tools/benchmark_scaling.py", "--models", "nosuch", "--parts", "sweep,nosuch"],
            "found 'nosuch'; expected names out of sweep,sizes,"
        ),
        (
            ["-c", "import sys; sys.path.append('tools'); from arguments import listed; listed('abc', always='c')('a,b')"],
            "expected c among them"
        ),
    ]) func scriptsThatTakeListsSayWhatTheyExpect(arguments: [String], message: String) throws
{
    let outcome = try run("/usr/bin/env", ["python3"] + arguments, in: root)
    #expect(outcome.status != 0 && outcome.errors.contains(message), "\(outcome.errors)")
}

/// fp32 has no margin within which patches could change places.
@Test func presetsBelowFullPrecisionLetSelectionsFlip() throws {
    func tolerances(_ arguments: String...) throws -> Tolerances {
        try ToleranceOptions.parse(arguments).tolerances(fitting: .int8)
    }
    for strict in [try tolerances(), try tolerances("--preset", "f32")] { #expect(strict.preset == .f32 && !strict.allowsFlips) }
    for (name, preset) in [("f16", TolerancePreset.f16), ("bf16", .bf16), ("int8", .int8), ("auto", .int8)] {
        let coarse = try tolerances("--preset", name)
        #expect(coarse.preset == preset && coarse.allowsFlips, "\(name)")
    }
}

/// A small tensor as ONNX's TensorProto, without a name.
private func serialized(_ tensor: Tensor) -> [UInt8] {
    let numbers = tensor.withBytes { Array($0) }
    var bytes: [UInt8] = []
    for size in tensor.shape { bytes += [0x08, UInt8(size)] }
    bytes += [0x10, tensor.dataType == .int64 ? 7 : 1]
    bytes += [0x4A, UInt8(numbers.count & 127 | 128), UInt8(numbers.count >> 7)]
    return bytes + numbers
}
