import Support
import Tensors

// An ONNX file's content, as Swift structs. Numbers of larger tensors are still in the file.

struct ONNXModel: Sendable {
    var irVersion: Int
    var producer: String
    var producerVersion: String
    /// Versions of operator sets by domain; the standard domain is "".
    var operatorSets: [String: Int]
    var graph: ONNXGraph
    var functions: [ONNXFunction]
}

struct ONNXGraph: Sendable {
    var nodes: [ONNXNode]
    var initializers: [ONNXTensor]
    var inputs: [ONNXValue]
    var outputs: [ONNXValue]
}

struct ONNXNode: Sendable {
    var name: String
    var type: String
    /// "" for the standard domain.
    var domain: String
    var overload: String
    /// "": an optional input that is absent.
    var inputs: [String]
    var outputs: [String]
    var attributes: [ONNXAttribute]
    /// The version of the node's operator set; 0 where the model imports none for its domain.
    var version = 0

    /// Name and domain as messages give it.
    var qualifiedType: String { domain.isEmpty ? type : "\(domain).\(type)" }

    /// The node's name, or the next best, for messages and for the graph.
    var label: String { name.isEmpty ? outputs.first { !$0.isEmpty } ?? type : name }

    /// Whether an attribute is a graph, as those of If and Loop are.
    var holdsGraph: Bool { attributes.contains { $0.value.typeName.hasPrefix("GRAPH") } }
}

struct ONNXAttribute: Sendable {
    enum Value: Sendable {
        case float(Float)
        case integer(Int)
        case string([UInt8])
        case tensor(ONNXTensor)
        case floats([Float])
        case integers([Int])
        case strings([[UInt8]])
        /// The attribute of the calling node that has this name (inside functions).
        case reference(String)
        /// A type that Trips does not read, by ONNX's number.
        case unsupported(Int)

        var typeName: String {
            switch self {
            case .float: "FLOAT"
            case .integer: "INT"
            case .string: "STRING"
            case .tensor: "TENSOR"
            case .floats: "FLOATS"
            case .integers: "INTS"
            case .strings: "STRINGS"
            case .reference: "a reference"
            case .unsupported(5): "GRAPH"
            case .unsupported(9): "TENSORS"
            case .unsupported(10): "GRAPHS"
            case .unsupported(11): "SPARSE_TENSOR"
            case .unsupported(12): "SPARSE_TENSORS"
            case .unsupported(13): "TYPE_PROTO"
            case .unsupported(14): "TYPE_PROTOS"
            case .unsupported(let number): "type \(number)"
            }
        }
    }

    var name: String
    var value: Value
}

struct ONNXFunction: Sendable {
    var name: String
    var domain: String
    var overload: String
    var inputs: [String]
    var outputs: [String]
    /// Attributes that a call may leave out.
    var defaults: [ONNXAttribute]
    var nodes: [ONNXNode]
    var operatorSets: [String: Int]
}

struct ONNXTensor: Sendable {
    enum Payload: Sendable {
        case raw([UInt8])
        case floats([Float])
        case doubles([Double])
        /// `int32_data`, `int64_data`, and the bits of `uint64_data`.
        case integers([Int64], field: ONNXDataField)
        /// In the model's file, in this field.
        case place(offset: Int, length: Int, field: ONNXDataField)
        /// In another file.
        case external([(key: String, value: String)])
        /// No data field is there: a tensor without elements.
        case none
    }

    var name: String
    var shape: [Int]
    /// ONNX's number.
    var elementType: Int
    var payload: Payload

    /// ONNX's number of the type uint8.
    static let uint8 = 2
}

/// The fields of TensorProto that hold a tensor's numbers, by their numbers in the schema.
enum ONNXDataField: Int, Sendable {
    case floatData = 4
    case int32Data = 5
    case int64Data = 7
    case rawData = 9
    case doubleData = 10
    case uint64Data = 11

    /// Whether the field may hold elements of this type, as the ONNX format states.
    func mayHold(_ dataType: DataType) -> Bool {
        switch self {
        case .floatData: dataType == .float32
        case .int32Data: [.int32, .int16, .int8, .uint16, .uint8, .float16, .bfloat16].contains(dataType)
        case .int64Data: dataType == .int64
        case .rawData: true
        case .doubleData: dataType == .float64
        case .uint64Data: dataType == .uint64 || dataType == .uint32
        }
    }

    /// Whether the elements are varints; else they lie there as in memory.
    var holdsVarints: Bool {
        switch self {
        case .int32Data, .int64Data, .uint64Data: true
        case .floatData, .rawData, .doubleData: false
        }
    }
}

/// A graph's declared input or output.
struct ONNXValue: Sendable {
    enum Size: Sendable {
        case constant(Int)
        case symbol(String)
        case unknown
    }

    var name: String
    /// ONNX's number; nil where no tensor type is declared.
    var elementType: Int?
    /// nil where even the rank is unknown.
    var shape: [Size]?
}

/// The domain as this module writes it: the standard one is "".
func canonicalDomain(_ domain: String) -> String { domain == "ai.onnx" ? "" : domain }

extension DataType {
    /// The type with this number in ONNX's files.
    /// - Throws: `data` naming a type that Trips does not know.
    init(onnx number: Int) throws {
        let known: [Int: DataType] = [
            1: .float32, 2: .uint8, 3: .int8, 4: .uint16, 5: .int16, 6: .int32, 7: .int64, 9: .bool, 10: .float16, 11: .float64,
            12: .uint32, 13: .uint64, 16: .bfloat16,
        ]
        guard let type = known[number] else {
            let others: [Int: String] = [
                0: "no type", 8: "string", 14: "complex64", 15: "complex128", 17: "float8e4m3fn", 18: "float8e4m3fnuz",
                19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1", 24: "float8e8m0", 25: "uint2",
                26: "int2",
            ]
            throw TripsError.data(
                "unsupported element type", found: others[number] ?? "type number \(number)",
                expected: "a floating point type of 16 bits or more, an integer type of 8 bits or more, or bool")
        }
        self = type
    }
}
