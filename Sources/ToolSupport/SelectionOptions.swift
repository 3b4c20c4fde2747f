import Foundation
import ModelGraph
import Trips

/// Which selection layers to insert.
public struct SelectionOptions: ParsableArguments {
    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Vision blocks that get a selection layer, counted from 1, such as 5,10.",
            discussion: "Without it, nothing is selected. Selecting changes the outputs of a model that was not trained with it.",
            valueName: "blocks"))
    public var select: String?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Share of the image tokens that a selection keeps, in (0, 1]: one for all, or one per block (0.7,0.5).",
            discussion: "Default: 0.7.", valueName: "rate"))
    public var keepRate: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "What scores the patches; random is for ablations.", discussion: "Default: text.", valueName: "guide")
    )
    public var guidance: PatchSelection.Guidance?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "How dropped tokens are fused into one; none loses them.", discussion: "Default: normalized.", valueName: "form"))
    public var fuse: PatchSelection.Fusion?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Order of kept tokens.", discussion: "Default: original.", valueName: "order"))
    public var order: PatchSelection.Order?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("Seed of random guidance.", discussion: "Default: 0.", valueName: "n"))
    public var seed: Int?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "A value inside the vision tower, where the tower is not recognised (ONNX).", valueName: "name"))
    public var visionTower: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "The hidden state whose first row guides the selection, where it is not recognised (ONNX).", valueName: "name"))
    public var textGuide: String?

    public init() {}

    public func validate() throws { _ = try request() }

    /// What is asked for; nil where nothing is selected.
    /// - Throws: `ValidationError` for values out of range, and for options that have no effect here.
    public func request() throws -> SelectionRequest? {
        guard let select else {
            let idle = [
                ("--keep-rate", keepRate != nil), ("--guidance", guidance != nil), ("--fuse", fuse != nil),
                ("--order", order != nil),
                ("--seed", seed != nil), ("--vision-tower", visionTower != nil), ("--text-guide", textGuide != nil),
            ].filter(\.1).map(\.0)
            guard idle.isEmpty else {
                throw ValidationError("\(idle.joined(separator: ", ")): nothing is selected without --select")
            }
            return nil
        }
        guard seed == nil || guidance == .random else {
            throw ValidationError("--seed: only random guidance draws numbers; expected --guidance random beside it")
        }
        guard textGuide == nil || guidance ?? .text == .text else {
            throw ValidationError("--text-guide: no text guides here; expected --guidance text beside it")
        }
        var request = SelectionRequest(
            blocks: try numbers(select, of: "--select", expected: "blocks, such as 5,10"),
            keepRates: try numbers(keepRate ?? "0.7", of: "--keep-rate", expected: "numbers, such as 0.7"),
            guidance: guidance ?? .text, fusion: fuse ?? .normalized, order: order ?? .original, seed: seed ?? 0,
            visionTower: visionTower, textGuide: textGuide)
        // In the model's order, so that the same request is recorded in the same way.
        let rates = try validating { try request.rates() }
        (request.blocks, request.keepRates) = (rates.map(\.block), rates.map(\.rate))
        return request
    }

    private func numbers<Number: LosslessStringConvertible>(_ text: String, of option: String, expected: String) throws -> [Number]
    {
        try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
            guard let number = Number(part.trimmingCharacters(in: .whitespaces)) else {
                throw ValidationError("\(option) \(text): found \"\(part)\"; expected \(expected)")
            }
            return number
        }
    }
}

extension PatchSelection.Guidance: ExpressibleByArgument {}
extension PatchSelection.Fusion: ExpressibleByArgument {}
extension PatchSelection.Order: ExpressibleByArgument {}
extension ConversionStage: ExpressibleByArgument {}
