import Support

/// Rewrites an ONNX file into a small message of the schema in `formats/onnx.proto`: fields that the schema does not
/// know are dropped, and tensor payloads above 1 KB are replaced by their place in the file.
///
/// The tables below are the schema again, so the walk is as deep as the schema is and no deeper, whatever the file nests.
struct WireWalker {
    /// Payloads up to this size stay in the message.
    static let inlineLimit = 1024
    /// Bytes that a model may take in memory besides its weights, and about how many of them a part takes there at least, whose
    /// size in the file may be next to nothing.
    private static let structureLimit = 512 << 20
    private static let messageSize = 512
    private static let textSize = 128
    private static let numberSize = 32
    /// A text lies in the message, in what protobuf-c makes of it, and in strings made of that.
    private static let textCopies = 4
    /// The longest text, in bytes: a name appears in messages.
    private static let textLimit = 4096
    /// Stands for all fields that hold a tensor's numbers.
    private static let anyPayload = -1

    /// The fields of TensorProto that are Trips' own (`formats/onnx.proto`): where a payload lies.
    private enum PlaceField: Int {
        case offset = 1001
        case length = 1002
        case field = 1003
    }

    private var reader: WireReader
    /// Bytes that what was read takes in memory.
    private var taken = 0

    /// The small message for a file that holds `kind`.
    /// - Throws: `data` where the file is malformed or holds what Trips does not read.
    static func walk(_ file: ReadableFile, as kind: WireMessage) throws -> [UInt8] {
        var walker = WireWalker(reader: WireReader(file))
        return try walker.message(kind, end: file.size)
    }

    private init(reader: WireReader) { self.reader = reader }

    private mutating func take(_ count: Int, of size: Int = 1) throws {
        guard count <= (WireWalker.structureLimit - taken) / size else {
            throw TripsError.data(
                "the model is too large without its weights", at: "byte \(reader.position)", found: "more than \(taken) bytes",
                expected: "at most \(WireWalker.structureLimit) bytes in memory")
        }
        taken += count * size
    }

    private mutating func message(_ kind: WireMessage, end: Int) throws -> [UInt8] {
        try take(1, of: WireWalker.messageSize)
        var result: [UInt8] = []
        var seen = Set<Int>()
        while reader.position < end {
            let start = reader.position
            let (field, type) = try reader.key(end: end)
            guard let rule = kind.fields[field] else {
                try skip(type, end: end)
                continue
            }
            try value(rule, field, type, end: end, named: "\(kind.name), field \(field), byte \(start)", &seen, &result)
        }
        return result
    }

    private mutating func skip(_ type: WireType, end: Int) throws {
        switch type {
        case .varint: _ = try reader.varint(end: end)
        case .fixed64: try reader.skip(8, end: end)
        case .fixed32: try reader.skip(4, end: end)
        case .delimited:
            let fieldEnd = try reader.delimitedEnd(end: end)
            try reader.skip(fieldEnd - reader.position, end: fieldEnd)
        }
    }

    private mutating func value(
        _ rule: WireRule, _ field: Int, _ type: WireType, end: Int, named place: @autoclosure () -> String, _ seen: inout Set<Int>,
        _ result: inout [UInt8]
    ) throws {
        guard type == rule.type || (type == .delimited && rule.mayBePacked) else {
            throw TripsError.data(
                "malformed protobuf", at: place(), found: "wire type \(type.rawValue)", expected: "\(rule.type.rawValue)")
        }
        guard type == .delimited else { return try scalar(field, type, end: end, &result) }
        let fieldEnd = try reader.delimitedEnd(end: end)
        let count = fieldEnd - reader.position
        switch rule {
        case .refused(let what):
            throw TripsError.data("unsupported", at: place(), found: what)
        case .one(let kind), .many(let kind):
            if case .one = rule, !seen.insert(field).inserted {
                throw TripsError.data("malformed ONNX", at: place(), found: "a second \(kind.name)", expected: "one")
            }
            result.appendDelimited(field, try message(kind, end: fieldEnd))
        case .text:
            guard count <= WireWalker.textLimit else {
                throw TripsError.data(
                    "a long name", at: place(), found: "\(count) bytes", expected: "at most \(WireWalker.textLimit)")
            }
            try take(WireWalker.textSize + WireWalker.textCopies * count)
            let bytes = try reader.bytes(count, end: fieldEnd)
            // protobuf-c gives text as C strings, which a zero byte would cut short.
            guard String(untrusted: bytes) != nil, !bytes.contains(0) else {
                throw TripsError.data(
                    "malformed ONNX", at: place(), found: "text with a zero byte or invalid UTF-8", expected: String.untrustedForm)
            }
            result.appendDelimited(field, bytes)
        case .payload where count > WireWalker.inlineLimit:
            guard seen.insert(WireWalker.anyPayload).inserted else {
                throw TripsError.data("a tensor's numbers are stored in several places", at: place())
            }
            for (number, value) in [(PlaceField.offset, reader.position), (.length, count), (.field, field)] {
                result.appendKey(number.rawValue, .varint)
                result.appendVarint(UInt64(value))
            }
            try reader.skip(count, end: fieldEnd)
        case .payload, .bytes, .integers, .floats, .doubles:
            try take(rule.type == .varint ? count : count / 4, of: WireWalker.numberSize)
            try take(WireWalker.textSize)
            result.appendDelimited(field, try reader.bytes(count, end: fieldEnd))
        }
    }

    private mutating func scalar(_ field: Int, _ type: WireType, end: Int, _ result: inout [UInt8]) throws {
        try take(WireWalker.numberSize)
        result.appendKey(field, type)
        switch type {
        case .varint: result.appendVarint(try reader.varint(end: end))
        case .fixed32: result += try reader.bytes(4, end: end)
        case .fixed64, .delimited: result += try reader.bytes(8, end: end)
        }
    }
}

/// What the walker does with a field.
enum WireRule: Sendable {
    /// Integers, alone or packed.
    case integers
    case floats
    case doubles
    case text
    case bytes
    /// A tensor's numbers; the wire type is that of one of them.
    case payload(WireType)
    case one(WireMessage)
    case many(WireMessage)
    /// Part of ONNX, but not of what Trips reads.
    case refused(String)

    /// The wire type of one value.
    var type: WireType {
        switch self {
        case .integers: .varint
        case .floats: .fixed32
        case .doubles: .fixed64
        case .payload(let type): type
        case .text, .bytes, .one, .many, .refused: .delimited
        }
    }

    var mayBePacked: Bool {
        switch self {
        case .integers, .floats, .doubles, .payload: true
        case .text, .bytes, .one, .many, .refused: false
        }
    }
}

/// The fields of a message that are kept.
struct WireMessage: Sendable {
    let name: String
    let fields: [Int: WireRule]

    static let entry = WireMessage(name: "StringStringEntryProto", fields: [1: .text, 2: .text])

    static let operatorSet = WireMessage(name: "OperatorSetIdProto", fields: [1: .text, 2: .integers])

    static let tensor = WireMessage(
        name: "TensorProto",
        fields: [
            1: .integers, 2: .integers, 3: .refused("a tensor in segments"), 4: .payload(.fixed32), 5: .payload(.varint),
            7: .payload(.varint), 8: .text, 9: .payload(.delimited), 10: .payload(.fixed64), 11: .payload(.varint),
            13: .many(entry),
            14: .integers,
        ])

    // Attributes that hold graphs, sparse tensors or types are left empty: no operator that Trips knows has such a one,
    // and the operator is reported by its name.
    static let attribute = WireMessage(
        name: "AttributeProto",
        fields: [
            1: .text, 2: .floats, 3: .integers, 4: .bytes, 5: .one(tensor), 7: .floats, 8: .integers, 9: .bytes, 20: .integers,
            21: .text,
        ])

    static let node = WireMessage(
        name: "NodeProto",
        fields: [
            1: .text, 2: .text, 3: .text, 4: .text, 5: .many(attribute), 7: .text, 8: .text,
        ])

    static let dimension = WireMessage(name: "TensorShapeProto.Dimension", fields: [1: .integers, 2: .text])

    static let shape = WireMessage(name: "TensorShapeProto", fields: [1: .many(dimension)])

    static let tensorType = WireMessage(name: "TypeProto.Tensor", fields: [1: .integers, 2: .one(shape)])

    static let type = WireMessage(
        name: "TypeProto",
        fields: [
            1: .one(tensorType), 4: .refused("a sequence"), 5: .refused("a map"), 7: .refused("an opaque type"),
            8: .refused("a sparse tensor"), 9: .refused("an optional type"),
        ])

    static let valueInfo = WireMessage(name: "ValueInfoProto", fields: [1: .text, 2: .one(type)])

    static let graph = WireMessage(
        name: "GraphProto",
        fields: [
            1: .many(node), 2: .text, 5: .many(tensor), 11: .many(valueInfo), 12: .many(valueInfo),
            15: .refused("a sparse initializer"),
        ])

    static let function = WireMessage(
        name: "FunctionProto",
        fields: [
            1: .text, 4: .text, 5: .text, 6: .text, 7: .many(node), 9: .many(operatorSet), 10: .text, 11: .many(attribute),
            13: .text,
        ])

    static let model = WireMessage(
        name: "ModelProto",
        fields: [
            1: .integers, 2: .text, 3: .text, 7: .one(graph), 8: .many(operatorSet), 25: .many(function),
        ])
}
