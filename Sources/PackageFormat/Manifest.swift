import ModelGraph
import Support
import Tensors

/// What a package says of itself. It names no paths and no times, so that the same conversion gives the same bytes.
///
/// `formatVersion`, `features`, `libzstd`, `graphs` and `tensors` are filled in by the writer.
public struct Manifest: Sendable, Codable {
    /// The version of `formats/trips-package.md`.
    public internal(set) var formatVersion = 0
    /// What a reader must know to read this package; it refuses what it does not know, by name.
    public internal(set) var features: [String] = []
    /// What wrote the package.
    public var tool: Tool
    /// The version of libzstd: equal bytes are promised only for the same one.
    public internal(set) var libzstd = ""
    /// What the package was made from.
    public var source: Source?
    /// The architecture that was recognised or asked for, such as `albef-pretrain`.
    public var architecture: String?
    /// The options of the conversion, as asked for.
    public var options: [String: String] = [:]
    /// What does not follow from the checkpoint's shapes, and where it came from.
    public var settings: [Setting] = []
    /// The selection layers, in the order of their blocks.
    public var selections: [Selection] = []
    /// How the weights were brought to few bits; nil where they are as in the source.
    public var quantization: Quantization?
    /// What the source holds and the package does not.
    public var leftOut: [SkippedTensors] = []
    /// How the graphs `encode` and `decode` are meant to be run.
    public var generation: Generation?
    /// How pictures become image inputs; nil where the source does not say.
    public var preprocessing: Preprocessing?
    /// The tensor (`uint8`, UTF-8 text, one word per line) with the tokenizer's vocabulary.
    public var vocabulary: String?
    /// The graphs, in the order in which they feed each other.
    public internal(set) var graphs: [GraphDocument] = []
    /// The tensors, in the order of their data.
    public internal(set) var tensors: [TensorRecord] = []

    /// A manifest that says nothing yet but what writes it.
    package init(tool: Tool) { self.tool = tool }

    /// A program and its version.
    public struct Tool: Sendable, Codable, Equatable {
        /// Such as `trips`.
        public var name: String
        /// Such as `0.1.0`.
        public var version: String

        package init(name: String, version: String) {
            self.name = name
            self.version = version
        }
    }

    /// A file that was converted.
    public struct Source: Sendable, Codable, Equatable {
        /// The file's name, without folders.
        public var file: String
        /// Such as `onnx`, `safetensors` or `torch zip`.
        public var format: String
        /// In lowercase hexadecimal digits; of a model in several files `SHA256.hexadecimalDigest(ofFilesAt:)` of all of them,
        /// the file that names the others first.
        public var sha256: String
        /// What the file says of its making, such as `pytorch 2.4, opset 17`.
        public var producer: String?

        package init(file: String, format: String, sha256: String, producer: String? = nil) {
            self.file = file
            self.format = format
            self.sha256 = sha256
            self.producer = producer
        }
    }

    /// A selection layer in a vision block.
    public struct Selection: Sendable, Codable, Equatable {
        /// Counted from 1.
        public var block: Int
        /// Share of the image tokens that stays, in (0, 1].
        public var keepRate: Double
        /// What scores the patches.
        public var guidance: PatchSelection.Guidance
        /// What becomes of those that are dropped.
        public var fusion: PatchSelection.Fusion
        /// How those that stay are ordered.
        public var order: PatchSelection.Order
        /// Image tokens that enter, without [CLS]; a number, or a formula in the graph's symbols.
        public var tokensBefore: String
        /// Image tokens that leave, the fused one counted, without [CLS].
        public var tokensAfter: String

        package init(
            block: Int, keepRate: Double, guidance: PatchSelection.Guidance, fusion: PatchSelection.Fusion,
            order: PatchSelection.Order, tokensBefore: String, tokensAfter: String
        ) {
            self.block = block
            self.keepRate = keepRate
            self.guidance = guidance
            self.fusion = fusion
            self.order = order
            self.tokensBefore = tokensBefore
            self.tokensAfter = tokensAfter
        }
    }

    /// How weights were brought to few bits.
    public struct Quantization: Sendable, Codable {
        /// Types of weights.
        public enum Scheme: String, Sendable, NamedChoice {
            /// With a scale for each row or group of inputs.
            case int8
            case bf16
            case f16
        }

        /// The type of the weights.
        public var scheme: Scheme
        /// The whole recipe in words.
        public var summary: String
        /// What became of each layer.
        public var layers: [Layer]

        package init(scheme: Scheme, summary: String, layers: [Layer] = []) {
            self.scheme = scheme
            self.summary = summary
            self.layers = layers
        }

        /// What became of one layer.
        public struct Layer: Sendable, Codable {
            /// The weight's name, or the node's.
            public var name: String
            /// What the layer became; `float32` where it was kept.
            public var precision: WeightPrecision
            /// Inputs that share a scale.
            public var groupSize: Int?
            /// Signal to noise of the layer's output on the calibration data, in dB.
            public var snr: Double?
            /// Why it is so, in words.
            public var note: String?

            private enum CodingKeys: String, CodingKey {
                case name, precision, groupSize, note
                case snr = "signalToNoise"
            }

            package init(
                name: String, precision: WeightPrecision, groupSize: Int? = nil, snr: Double? = nil, note: String? = nil
            ) {
                self.name = name
                self.precision = precision
                self.groupSize = groupSize
                self.snr = snr
                self.note = note
            }
        }
    }

    /// How a picture becomes the image input.
    public struct Preprocessing: Sendable, Codable, Equatable {
        /// Width and height in pixels.
        public var imageSize: Int
        /// Per channel (red, green, blue), of values between 0 and 1.
        public var mean: [Double]
        /// Per channel: the mean is taken off, then the values are divided by this.
        public var deviation: [Double]
        /// How sizes are changed.
        public var resampling: Resampling

        /// A way that a package does not state.
        public init(imageSize: Int, mean: [Double], deviation: [Double], resampling: Resampling) {
            self.imageSize = imageSize
            self.mean = mean
            self.deviation = deviation
            self.resampling = resampling
        }

        /// As the released models of both families take their images: CLIP's normalisation, sizes changed bicubically.
        public static func released(imageSize: Int) -> Preprocessing {
            Preprocessing(
                imageSize: imageSize, mean: [0.48145466, 0.4578275, 0.40821073], deviation: [0.26862954, 0.26130258, 0.27577711],
                resampling: .bicubic)
        }
    }

    /// A tensor in the table.
    public struct TensorRecord: Sendable, Codable, Equatable {
        /// Unlike all others.
        public var name: String
        /// The type in which graphs see the tensor.
        public var dataType: DataType
        /// The type in which its numbers are stored; readers widen it.
        public var storedType: DataType
        /// Sizes, the slowest first.
        public var shape: [Int]
        /// How the numbers lie in the file where they are mapped; nil where they are compressed.
        public var mapped: Mapping?

        package init(name: String, dataType: DataType, storedType: DataType, shape: [Int], mapped: Mapping? = nil) {
            self.name = name
            self.dataType = dataType
            self.storedType = storedType
            self.shape = shape
            self.mapped = mapped
        }

        /// How the numbers lie in the file.
        public struct Mapping: Sendable, Codable, Equatable {
            /// Orders of a tensor's numbers.
            public enum Order: String, Sendable, NamedChoice {
                /// Row-major.
                case rows
                /// As the kernels read the weights of linear layers.
                case panels
            }

            /// Rows or panels.
            public var order: Order
            /// For int8 panels: inputs that share a scale; 0: all of an output's.
            public var group: Int?
            /// For int8 panels: the tensor of the scales, which the panels hold too.
            public var scales: String?

            package init(_ order: Order, group: Int? = nil, scales: String? = nil) {
                self.order = order
                self.group = group
                self.scales = scales
            }
        }
    }
}

/// Filters for changing a picture's size.
public enum Resampling: String, Sendable, NamedChoice {
    case bilinear
    /// Keys' cubic convolution with a = -0.5.
    case bicubic
}

/// The type of a layer's weights.
public enum WeightPrecision: String, Sendable, NamedChoice {
    case int8, bfloat16, float16, float32

    /// The precision of weights that are stored in a type; what is neither 8-bit nor half precision is computed in float32.
    package init(_ storedType: DataType) {
        switch storedType {
        case .int8, .uint8: self = .int8
        case .bfloat16: self = .bfloat16
        case .float16: self = .float16
        case .float32, .float64, .int64, .int32, .int16, .uint64, .uint32, .uint16, .bool: self = .float32
        }
    }
}
