import OnnxSchema
import Support

// The one place where protobuf-c's structs are read: everything that they point to is copied into Swift's.

extension ONNXModel {
    /// Reads a model's structure from its file.
    /// - Throws: `data` where the file is not an ONNX model, or holds what Trips does not read.
    init(_ file: ReadableFile) throws {
        let bytes = try WireWalker.walk(file, as: .model)
        guard let message = onnx__model_proto__unpack(nil, bytes.count, bytes) else {
            throw TripsError.data("malformed ONNX", found: "a message that does not unpack", expected: "ModelProto")
        }
        defer { onnx__model_proto__free_unpacked(message, nil) }
        let model = message.pointee
        guard let graph = model.graph else {
            throw TripsError.data("not an ONNX model", found: "no graph", expected: "ModelProto with a graph")
        }
        irVersion = model.has_ir_version != 0 ? Int(model.ir_version) : 0
        producer = text(model.producer_name)
        producerVersion = text(model.producer_version)
        operatorSets = try versions(model.opset_import, model.n_opset_import)
        self.graph = try ONNXGraph(graph.pointee)
        functions = try elements(model.functions, model.n_functions) { try ONNXFunction($0) }
    }
}

extension ONNXTensor {
    /// Reads a file that holds one serialised tensor, as ONNX's test data do.
    init(_ file: ReadableFile) throws {
        let bytes = try WireWalker.walk(file, as: .tensor)
        guard let message = onnx__tensor_proto__unpack(nil, bytes.count, bytes) else {
            throw TripsError.data("malformed ONNX", found: "a message that does not unpack", expected: "TensorProto")
        }
        defer { onnx__tensor_proto__free_unpacked(message, nil) }
        try self.init(message.pointee)
    }

    fileprivate init(_ tensor: Onnx__TensorProto) throws {
        name = text(tensor.name)
        shape = copied(tensor.dims, tensor.n_dims).map { Int($0) }
        elementType = tensor.has_data_type != 0 ? Int(tensor.data_type) : 0
        let external = elements(tensor.external_data, tensor.n_external_data) { (text($0.key), text($0.value)) }
        var payloads: [Payload] = []
        if tensor.has_payload_offset != 0, let field = ONNXDataField(rawValue: Int(tensor.payload_field)) {
            payloads.append(.place(offset: Int(tensor.payload_offset), length: Int(tensor.payload_length), field: field))
        }
        if tensor.has_raw_data != 0 { payloads.append(.raw(copied(tensor.raw_data.data, tensor.raw_data.len))) }
        if tensor.n_float_data > 0 { payloads.append(.floats(copied(tensor.float_data, tensor.n_float_data))) }
        if tensor.n_double_data > 0 { payloads.append(.doubles(copied(tensor.double_data, tensor.n_double_data))) }
        if tensor.n_int32_data > 0 {
            payloads.append(.integers(copied(tensor.int32_data, tensor.n_int32_data).map { Int64($0) }, field: .int32Data))
        }
        if tensor.n_int64_data > 0 {
            payloads.append(.integers(copied(tensor.int64_data, tensor.n_int64_data), field: .int64Data))
        }
        if tensor.n_uint64_data > 0 {
            let numbers = copied(tensor.uint64_data, tensor.n_uint64_data).map { Int64(bitPattern: $0) }
            payloads.append(.integers(numbers, field: .uint64Data))
        }
        if tensor.has_data_location != 0 && tensor.data_location != 0 {
            guard tensor.data_location == 1 else {
                throw TripsError.data("data location of tensor \"\(name)\"", found: tensor.data_location, expected: "0 or 1")
            }
            payloads.append(.external(external))
        }
        guard payloads.count <= 1 else {
            throw TripsError.data(
                "the numbers of tensor \"\(name)\" are stored in several places", found: payloads.count, expected: 1)
        }
        payload = payloads.first ?? .none
    }
}

extension ONNXGraph {
    fileprivate init(_ graph: Onnx__GraphProto) throws {
        nodes = try elements(graph.node, graph.n_node) { try ONNXNode($0) }
        initializers = try elements(graph.initializer, graph.n_initializer) { try ONNXTensor($0) }
        inputs = elements(graph.input, graph.n_input) { ONNXValue($0) }
        outputs = elements(graph.output, graph.n_output) { ONNXValue($0) }
    }
}

extension ONNXNode {
    fileprivate init(_ node: Onnx__NodeProto) throws {
        name = text(node.name)
        type = text(node.op_type)
        domain = canonicalDomain(text(node.domain))
        overload = text(node.overload)
        inputs = texts(node.input, node.n_input)
        outputs = texts(node.output, node.n_output)
        attributes = try elements(node.attribute, node.n_attribute) { try ONNXAttribute($0) }
    }
}

extension ONNXAttribute {
    fileprivate init(_ attribute: Onnx__AttributeProto) throws {
        name = text(attribute.name)
        let reference = text(attribute.ref_attr_name)
        if !reference.isEmpty {
            value = .reference(reference)
            return
        }
        switch attribute.has_type != 0 ? Int(attribute.type) : 0 {
        case 1: value = .float(attribute.f)
        case 2: value = .integer(Int(attribute.i))
        case 3: value = .string(copied(attribute.s.data, attribute.s.len))
        case 4:
            guard let tensor = attribute.t else {
                throw TripsError.data("attribute \"\(name)\"", found: "no tensor", expected: "a tensor")
            }
            value = .tensor(try ONNXTensor(tensor.pointee))
        case 6: value = .floats(copied(attribute.floats, attribute.n_floats))
        case 7: value = .integers(copied(attribute.ints, attribute.n_ints).map { Int($0) })
        case 8: value = .strings((0..<attribute.n_strings).map { copied(attribute.strings[$0].data, attribute.strings[$0].len) })
        case let number: value = .unsupported(number)
        }
    }
}

extension ONNXFunction {
    fileprivate init(_ function: Onnx__FunctionProto) throws {
        name = text(function.name)
        domain = canonicalDomain(text(function.domain))
        overload = text(function.overload)
        inputs = texts(function.input, function.n_input)
        outputs = texts(function.output, function.n_output)
        defaults = try elements(function.attribute_proto, function.n_attribute_proto) { try ONNXAttribute($0) }
        nodes = try elements(function.node, function.n_node) { try ONNXNode($0) }
        operatorSets = try versions(function.opset_import, function.n_opset_import)
    }
}

extension ONNXValue {
    fileprivate init(_ value: Onnx__ValueInfoProto) {
        name = text(value.name)
        guard let tensor = value.type?.pointee.tensor_type?.pointee else { return }
        elementType = tensor.has_elem_type != 0 ? Int(tensor.elem_type) : 0
        guard let shape = tensor.shape?.pointee else { return }
        self.shape = elements(shape.dim, shape.n_dim) { size in
            if size.has_dim_value != 0 { return .constant(Int(size.dim_value)) }
            let symbol = text(size.dim_param)
            return symbol.isEmpty ? .unknown : .symbol(symbol)
        }
    }
}

private func text(_ characters: UnsafePointer<CChar>?) -> String { characters.map { String(cString: $0) } ?? "" }

private func texts(_ pointers: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?, _ count: Int) -> [String] {
    UnsafeBufferPointer(start: pointers, count: count).map { text($0) }
}

private func copied<Element>(_ start: UnsafeMutablePointer<Element>?, _ count: Int) -> [Element] {
    Array(UnsafeBufferPointer(start: start, count: count))
}

private func elements<Message, Result>(
    _ pointers: UnsafeMutablePointer<UnsafeMutablePointer<Message>?>?, _ count: Int, _ convert: (Message) throws -> Result
) rethrows -> [Result] {
    try UnsafeBufferPointer(start: pointers, count: count).compactMap { try $0.map { try convert($0.pointee) } }
}

private func versions(
    _ sets: UnsafeMutablePointer<UnsafeMutablePointer<Onnx__OperatorSetIdProto>?>?, _ count: Int
) throws -> [String: Int] {
    var versions: [String: Int] = [:]
    for (domain, version) in elements(sets, count, { (canonicalDomain(text($0.domain)), Int($0.version)) }) {
        guard versions.updateValue(version, forKey: domain) == nil else {
            throw TripsError.data("an operator set is imported twice", found: domain.isEmpty ? "ai.onnx" : domain)
        }
    }
    return versions
}
