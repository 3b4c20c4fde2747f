/// The tools' options by the properties that they set: the library's messages name those, in backticks.
private let flags = [
    "architecture": "--architecture", "blocks": "--select", "calibration": "--calibration", "candidates": "--answers",
    "configurationPath": "--config", "followsLinks": "--follow-links", "fusionLayers": "--fusion-layers",
    "images": "--image", "imageSize": "--image-size", "intermediates": "--intermediates", "keep": "--keep",
    "keepRates": "--keep-rate", "leftOut": "--leave-out", "mapped": "--mapped", "maximalLength": "--text-length",
    "minimalSNR": "--max-loss",
    "plain": "--plain", "preset": "--preset", "replacing": "--force", "selection": "--select", "strideLayer": "--stride-layer",
    "tensorsOnly": "--architecture tensors",
    "text": "--text", "textGuide": "--text-guide", "textHeads": "--text-heads", "visionHeads": "--vision-heads",
    "visionTower": "--vision-tower", "vocabulary": "--vocabulary", "weightsOnly": "--weights-only",
]

/// A message of the library as users of the tools read it: `minimalSNR` in backticks becomes `--max-loss`.
public func spellingFlags(_ message: String) -> String {
    message.replacing(#/`(\w+)`/#) { flags[String($0.output.1)] ?? String($0.output.0) }
}
