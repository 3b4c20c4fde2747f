import Foundation
import Preprocessing
import Runtime
import Support
import ToolSupport
import Trips

@main
struct RunTool: Tool {
    static let configuration = CommandConfiguration(
        commandName: "trips-run", abstract: "Runs a .trips package on a picture and a text.", version: libraryVersion)

    @Argument(help: ArgumentHelp("The package.", valueName: "model.trips"))
    var model: String

    @OptionGroup var example: ExampleOptions

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Answers, one per line: to rank (ALBEF's visual question answering), or the names of the classes.", valueName: "file"))
    var answers: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Write the picture with the kept patches bright, and the box where there is one.", valueName: "out.png"))
    var picture: String?

    @Flag(name: .long, help: "Print everything as JSON.")
    var json = false

    @OptionGroup var replacing: ReplacingOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !example.isGiven { throw ValidationError("nothing to look at: expected --image, and --text for most models") }
        if picture != nil && example.image.isEmpty {
            throw ValidationError("--picture has no picture to draw on: expected --image")
        }
    }

    func run() throws {
        if let picture {
            try replacing.checkOutput(picture, besides: [model] + example.image + [answers, example.vocabulary].compactMap { $0 })
        }
        let package = try Model(contentsOf: model)
        let tokenizer = try example.tokenizer(of: package)
        let inputs = try example.inputs(for: package, tokenizer: tokenizer)
        let answer = try Session(package, threads: common.threads).answer(
            inputs, tokenizer: tokenizer, candidates: try answers.map(lines) ?? [])
        if json {
            print(try jsonText(answer))
        } else {
            printText(answer.lines.joined(separator: "\n"))
        }
        if let picture, let path = example.image.first {
            try replacing.write(answer.illustrated(Picture(path: path)).png(), to: picture)
        }
    }

    private func lines(of path: String) throws -> [String] {
        let file = try ReadableFile(path: path)
        let lines = try file.text(of: "a list of answers").split(whereSeparator: \.isNewline)
            .map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
        guard !lines.isEmpty else {
            throw TripsError.data("a list of answers", at: file.name, found: "none", expected: "one per line")
        }
        return lines
    }
}
