import ModelGraph
import PackageFormat
import Support

extension Manifest {
    /// What the package was made from and how, a line for each fact.
    public var factLines: [String] {
        var lines: [String] = []
        if let source {
            lines.append("source        \(source.file) (\(source.format)), SHA-256 \(source.sha256)")
            if let producer = source.producer { lines.append("made by       \(producer)") }
        }
        if let architecture { lines.append("architecture  \(architecture)") }
        if !options.isEmpty {
            lines.append(
                "options       " + options.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        }
        for (index, setting) in settings.enumerated() {
            let title = index == 0 ? "settings      " : "              "
            lines.append("\(title)\(setting.name) \(setting.value) (\(setting.source.rawValue))")
        }
        for left in leftOut {
            lines.append("left out      \(left.reason): \(counted(left.count, "tensor")), \(byteText(left.bytes))")
        }
        if let quantization { lines.append("quantized     \(quantization.scheme.rawValue): \(quantization.summary)") }
        if let preprocessing {
            lines.append(
                "images        \(preprocessing.imageSize) px, \(preprocessing.resampling.rawValue), mean "
                    + preprocessing.mean.map { digits($0, 4) }.joined(separator: " ") + ", deviation "
                    + preprocessing.deviation.map { digits($0, 4) }.joined(separator: " "))
        }
        if let generation {
            lines.append(
                "generates     by \(generation.method.rawValue)" + (generation.method == .beam ? " \(generation.beam)" : "")
                    + ", up to \(counted(generation.maximalLength, "token"))")
        }
        return lines
    }

    /// The selection layers as a table; nil where there are none.
    public var selectionText: String? {
        guard !selections.isEmpty else { return nil }
        var table = TextTable([
            ("selection", .left), ("keep rate", .right), ("guidance", .left), ("dropped are", .left), ("order", .left),
            ("image tokens", .left),
        ])
        for selection in selections {
            table.add([
                "block \(selection.block)", "\(selection.keepRate)", selection.guidance.rawValue,
                selection.fusion == .none ? "lost" : "fused, \(selection.fusion)", selection.order.rawValue,
                "\(selection.tokensBefore) -> \(selection.tokensAfter)",
            ])
        }
        return table.text
    }
}
