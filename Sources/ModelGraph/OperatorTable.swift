import Support

/// An operator with its name, so that any of the known operators can be written and read.
public struct OperatorBox: Sendable, Codable {
    /// The operator with its attributes.
    public var op: any Operator

    /// Boxes an operator.
    public init(_ op: any Operator) { self.op = op }

    private enum Key: String, CodingKey { case name, attributes }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(type(of: op).name, forKey: .name)
        try op.encode(to: container.superEncoder(forKey: .attributes))
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: Key.self)
        let name = try container.decode(String.self, forKey: .name)
        guard let type = OperatorTable.types[name] else {
            throw TripsError.data("unknown operator", at: decoder.codingPath.place, found: name)
        }
        let attributes = try container.superDecoder(forKey: .attributes)
        op = try type.init(from: attributes)
        try refuseUnknownKeys(of: attributes, decodedAs: op)
    }
}

/// A key as it stands in the document.
private struct AnyKey: CodingKey {
    let stringValue: String
    let intValue: Int? = nil

    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}

/// A misspelt attribute would be read as one that is absent.
/// - Parameter value: whose stored properties are all keys that there may be.
private func refuseUnknownKeys(of decoder: any Decoder, decodedAs value: Any) throws {
    let container = try decoder.container(keyedBy: AnyKey.self)
    let properties = Mirror(reflecting: value).children
    for key in container.allKeys {
        guard let property = properties.first(where: { $0.label == key.stringValue }) else {
            throw TripsError.data(
                "unknown attribute", at: decoder.codingPath.place, found: "\"\(key.stringValue.prefix(60))\"",
                expected: properties.compactMap(\.label).joined(separator: ", "))
        }
        if property.value is Window || property.value is Conv {
            try refuseUnknownKeys(of: container.superDecoder(forKey: key), decodedAs: property.value)
        }
    }
}

/// All operators that a package can hold.
package enum OperatorTable {
    /// Their types: blocks, then primitives.
    package static let all: [any Operator.Type] = blocks + primitives

    static let blocks: [any Operator.Type] = [
        PatchEmbedding.self, Linear.self, QuantizedLinear.self, LayerNorm.self, Attention.self, GELU.self, Embedding.self,
        QuantizedEmbedding.self, L2Normalize.self, PaddingMask.self, PatchSelection.self,
    ]

    // ONNX's, in the form of the newest operator set: what older ones state as attributes is an operand here. ONNX's operator
    // documents define what each computes; the comments give the operands in order. The groups are files of the same names, here
    // and in the module Operators.
    static let primitives: [any Operator.Type] = [
        // Unary, Binary, Elementwise
        Unary.self, Binary.self, Where.self, Clip.self, Cast.self, Identity.self,
        // Movement
        Shape.self, Size.self, ConstantOfShape.self, Arange.self, Expand.self, Tile.self, Reshape.self, Flatten.self,
        Squeeze.self, Unsqueeze.self, Transpose.self, Concat.self, Split.self, Slice.self, Pad.self,
        // Indexing
        Gather.self, GatherElements.self, GatherND.self, ScatterElements.self, ScatterND.self, TopK.self, OneHot.self,
        NonZero.self, Trilu.self,
        // Reductions
        Reduce.self, ArgReduce.self, CumSum.self, Softmax.self, LogSoftmax.self,
        // Normalizations
        BatchNormalization.self, LayerNormalization.self, RMSNormalization.self, GroupNormalization.self,
        InstanceNormalization.self, LpNormalization.self,
        // Products, Einsum, OnnxAttention
        MatMul.self, Gemm.self, Einsum.self, OnnxAttention.self,
        // Windows, Resizing
        Conv.self, ConvTranspose.self, MaxPool.self, AveragePool.self, GlobalPool.self, Resize.self,
        // Quantization
        QuantizeLinear.self, DequantizeLinear.self, DynamicQuantizeLinear.self, MatMulInteger.self, ConvInteger.self,
    ]

    static let types: [String: any Operator.Type] = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })
}
