import Goldens
import PackageFormat
import Support
import Tensors

/// What to do with a model's weights.
public struct QuantizationOptions: Sendable {
    /// Types of weights, as the manifest names them.
    public typealias Scheme = Manifest.Quantization.Scheme

    /// The type of the new weights; with int8 activations are rounded as well, unless `weightsOnly`.
    public var scheme: Scheme
    /// int8 weights, fp32 arithmetic.
    public var weightsOnly = false
    /// Layers that stay as they are: patterns of layer or weight names; `*` matches any text.
    public var keep: [String] = []
    /// Golden sets on whose inputs to calibrate; their outputs are not looked at.
    public var calibration: [GoldenSet] = []
    /// Put layers back to fp32, the most sensitive first, until every floating-point output has this signal-to-noise
    /// ratio, in dB, on each calibration input that suffices for it.
    public var minimalSNR: Double?

    /// All layers, without calibration.
    public init(_ scheme: Scheme) { self.scheme = scheme }

    /// - Throws: `usage` where options do not go together, or a number is out of range.
    public func check() throws {
        let names = (weightsOnly ? ["`weightsOnly`"] : []) + (minimalSNR == nil ? [] : ["`minimalSNR`"])
        guard scheme == .int8 || names.isEmpty else {
            throw TripsError.usage("only int8 has such options", found: names.joined(separator: ", "), expected: "none")
        }
        guard let minimalSNR else { return }
        guard minimalSNR.isFinite, minimalSNR > 0 else {
            throw TripsError.usage("`minimalSNR`", found: minimalSNR, expected: "a number of dB above 0")
        }
        guard !calibration.isEmpty else { throw TripsError.usage("`minimalSNR` needs `calibration`") }
    }

    /// - Throws: `data` where a number to calibrate on is NaN or infinite: it would outweigh all others.
    func checkCalibration() throws {
        for golden in calibration {
            for (name, tensor) in golden.inputs.sorted(by: { $0.key < $1.key })
            where tensor.dataType.isFloatingPoint && tensor.count > 0 {
                guard try tensor.converted(to: .float32).elements(Float.self).allSatisfy(\.isFinite) else {
                    throw TripsError.data(
                        "calibration input \(name)", at: golden.name, found: "NaN or infinity", expected: "finite numbers")
                }
            }
        }
    }
}

/// What was done to one layer, and what it costs.
public struct LayerReport: Sendable, Codable {
    /// The weight's, or the node's where the weight's is made up.
    public var name: String
    /// Such as `Linear 768 → 3072`.
    public var kind: String
    /// `float32` where int8 was asked for and the layer stayed as it was.
    public var precision: WeightPrecision
    /// Why it stayed, or what was done about outliers.
    public var note: String?
    /// Bytes of the weights in the type in which they are stored, before compression.
    public var bytesBefore: Int
    /// The same for the new weights.
    public var bytesAfter: Int
    /// Inputs that share a scale.
    public var groupSize: Int?
    /// SNR of the weights in dB, where each is rounded by itself.
    public var weightSNR: Double?
    /// The largest range of an input channel over the median one; from calibration, or from the normalisation before the layer.
    public var outlierRatio: Double?
    /// Exponent of the input scale; nil without one.
    public var scalingStrength: Double?
    /// SNR of the layer's products, its own bias aside, on calibration rows, in dB.
    public var outputSNR: Double?
    /// SNR of the model's worst output when only this layer is quantized, in dB.
    public var modelSNR: Double?

    private enum CodingKeys: String, CodingKey {
        case name, kind, precision, note, bytesBefore, bytesAfter, groupSize, outlierRatio, scalingStrength
        case weightSNR = "weightDecibels"
        case outputSNR = "outputDecibels"
        case modelSNR = "modelDecibels"
    }
}

/// What quantization did and what it costs.
public struct QuantizationReport: Sendable, Codable {
    /// In words.
    public var scheme: String
    /// In the model's order.
    public var layers: [LayerReport] = []
    /// Layers that came with int8 weights, and stayed as they were.
    public var quantizedBefore = 0
    /// Attentions whose products are computed in int8.
    public var attentions = 0
    /// Of all layers' weights together, in the types in which they were stored, before compression.
    public var bytesBefore = 0
    /// The same of the new weights.
    public var bytesAfter = 0
    /// With calibration: SNR of each output, in dB, over all calibration inputs together. Other inputs may lose more, as the weights
    /// were rounded for these.
    public var outputSNR: [String: Double] = [:]
    /// The same of the calibration input where it is lowest, as `verify` judges each.
    public var lowestOutputSNR: [String: Double] = [:]
    /// With calibration: outputs for which its inputs do not suffice, so that nobody knows what they lost.
    public var unmeasuredOutputs: [String] = []
    /// With calibration: mean overlap (Jaccard) of the kept patches, by selection.
    public var selectionOverlap: [String: Double] = [:]
    /// Layers that were put back to reach the wanted ratio, the most sensitive first.
    public var putBack: [String] = []
    /// Median milliseconds of one run of the package as it was, measured in turn with the new one; nil where that was not asked for.
    public var millisecondsBefore: Double?
    /// The same of the new package.
    public var millisecondsAfter: Double?

    private enum CodingKeys: String, CodingKey {
        case scheme, layers, quantizedBefore, attentions, bytesBefore, bytesAfter, unmeasuredOutputs, selectionOverlap, putBack
        case millisecondsBefore, millisecondsAfter
        case outputSNR = "outputDecibels"
        case lowestOutputSNR = "lowestOutputDecibels"
    }

    /// Takes over what is known of the outputs.
    mutating func record(_ comparison: OutputJudge.Comparison) {
        (outputSNR, lowestOutputSNR, selectionOverlap) = (comparison.pooled, comparison.lowest, comparison.overlap)
    }
}
