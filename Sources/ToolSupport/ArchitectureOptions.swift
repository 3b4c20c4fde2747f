import Importers
import Trips

/// What a checkpoint's tensors do not determine.
public struct ArchitectureOptions: ParsableArguments {
    /// The value of --architecture for tensors without a graph.
    private static let withoutGraph = "tensors"
    private static let architectures = Architecture.allCases.map(\.rawValue) + [withoutGraph]

    @Option(
        name: .long,
        help: ArgumentHelp(
            "The checkpoint's architecture: \(architectures.dropLast().joined(separator: ", ")); or tensors: packed as they are, without a graph.",
            discussion: "Default: recognised from the tensors' names and shapes.", valueName: "name"))
    public var architecture: String?

    @Option(name: .long, parsing: .unconditional, help: ArgumentHelp("Attention heads of the vision tower.", valueName: "n"))
    public var visionHeads: Int?

    @Option(name: .long, parsing: .unconditional, help: ArgumentHelp("Attention heads of the text layers.", valueName: "n"))
    public var textHeads: Int?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("How many of the stored fusion layers run (mPLUG).", valueName: "n"))
    public var fusionLayers: Int?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("Every N-th fusion layer attends to image and text together (mPLUG).", valueName: "n"))
    public var strideLayer: Int?

    @Option(name: .long, help: ArgumentHelp("A bert_config.json, used for values not given as options.", valueName: "file"))
    public var config: String?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Resample the position embedding for images of this many pixels per side.",
            discussion: "Checkpoints only; an ONNX graph is exported again instead.", valueName: "pixels"))
    public var imageSize: Int?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Leave out a tensor that the architecture does not know, such as a training head; * in the name matches any text.",
            discussion: "Repeatable. Without it, unknown tensors are an error.", valueName: "pattern"))
    public var leaveOut: [String] = []

    public init() {}

    public func validate() throws {
        if let architecture, !Self.architectures.contains(architecture) {
            throw ValidationError(
                "--architecture: found \(architecture); expected one of \(Self.architectures.joined(separator: ", "))")
        }
        try checkRange("--vision-heads", visionHeads, 1...1024)
        try checkRange("--text-heads", textHeads, 1...1024)
        try checkRange("--fusion-layers", fusionLayers, 1...1024)
        try checkRange("--stride-layer", strideLayer, 1...1024)
        try checkRange("--image-size", imageSize, 1...8192)
    }

    /// Writes what was asked for into the options of a conversion.
    public func apply(to options: inout ConversionOptions) {
        options.tensorsOnly = architecture == Self.withoutGraph
        options.checkpoint = CheckpointOptions(
            architecture: architecture.flatMap(Architecture.init), visionHeads: visionHeads, textHeads: textHeads,
            fusionLayers: fusionLayers, strideLayer: strideLayer, configurationPath: config, imageSize: imageSize, leftOut: leaveOut
        )
    }
}
