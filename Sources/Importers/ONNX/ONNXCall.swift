import ModelGraph
import Support
import Tensors

/// A node of the file on its way into the graph: its operands as values, its attributes, which must all be read.
final class ONNXCall {
    let node: ONNXNode
    let inputs: [ValueID?]
    private let builder: ONNXGraphBuilder
    private var unread: [String: ONNXAttribute.Value] = [:]

    init(_ node: ONNXNode, inputs: [ValueID?], builder: ONNXGraphBuilder) throws {
        self.node = node
        self.inputs = inputs
        self.builder = builder
        for attribute in node.attributes {
            guard unread.updateValue(attribute.value, forKey: attribute.name) == nil else {
                throw TripsError.data("an attribute is given twice", found: attribute.name)
            }
        }
    }

    /// The version of the node's operator set.
    var version: Int { node.version }

    // MARK: Attributes

    func integer(_ name: String) throws -> Int? {
        guard let value = unread.removeValue(forKey: name) else { return nil }
        guard case .integer(let number) = value else { throw unsuitable(name, value, "INT") }
        return number
    }

    func flag(_ name: String, default absent: Bool = false) throws -> Bool { try integer(name).map { $0 != 0 } ?? absent }

    func float(_ name: String) throws -> Float? {
        guard let value = unread.removeValue(forKey: name) else { return nil }
        guard case .float(let number) = value else { throw unsuitable(name, value, "FLOAT") }
        return number
    }

    func integers(_ name: String) throws -> [Int]? {
        guard let value = unread.removeValue(forKey: name) else { return nil }
        guard case .integers(let numbers) = value else { throw unsuitable(name, value, "INTS") }
        return numbers
    }

    func floats(_ name: String) throws -> [Float]? {
        guard let value = unread.removeValue(forKey: name) else { return nil }
        guard case .floats(let numbers) = value else { throw unsuitable(name, value, "FLOATS") }
        return numbers
    }

    func text(_ name: String) throws -> String? {
        guard let value = unread.removeValue(forKey: name) else { return nil }
        guard case .string(let bytes) = value, let text = String(untrusted: bytes) else {
            throw unsuitable(name, value, "STRING")
        }
        return text
    }

    /// An attribute that is one of the words that `Choice` has as raw values.
    func choice<Choice: RawRepresentable & CaseIterable>(_ name: String, default absent: Choice) throws -> Choice
    where Choice.RawValue == String {
        guard let word = try text(name) else { return absent }
        guard let choice = Choice(rawValue: word) else { throw unknown(word, name, Choice.allCases.map(\.rawValue)) }
        return choice
    }

    /// What one of several words stands for.
    func choice<Value>(_ name: String, in choices: KeyValuePairs<String, Value>, default absent: String = "") throws -> Value {
        let word = try text(name) ?? absent
        guard let choice = choices.first(where: { $0.key == word }) else { throw unknown(word, name, choices.map(\.key)) }
        return choice.value
    }

    private func unknown(_ word: String, _ name: String, _ known: [String]) -> TripsError {
        .data("attribute \(name)", found: "\"\(word.prefix(80))\"", expected: known.joined(separator: ", "))
    }

    /// An attribute that must be there.
    /// - Parameter read: such as `integer`.
    func required<Value>(_ name: String, _ read: (String) throws -> Value?) throws -> Value {
        guard let value = try read(name) else { throw TripsError.data("attribute \(name) is missing") }
        return value
    }

    /// For flags that ask for what no rule here does.
    func refuse(flag name: String) throws {
        if try flag(name) { throw TripsError.data("attribute \(name)", found: 1, expected: 0) }
    }

    /// For operands that ask for what no rule here does.
    func refuse(_ index: Int, _ name: String) throws {
        guard input(index) == nil else { throw TripsError.data("operand \(index)", found: name, expected: "none") }
    }

    /// The attributes of a Gemm.
    func gemm() throws -> Gemm {
        Gemm(
            alpha: try float("alpha") ?? 1, beta: try float("beta") ?? 1, transposeA: try flag("transA"),
            transposeB: try flag("transB"))
    }

    func dataType(_ name: String) throws -> DataType? { try integer(name).map { try DataType(onnx: $0) } }

    func tensor(_ name: String) throws -> Constant? {
        guard let value = unread.removeValue(forKey: name) else { return nil }
        guard case .tensor(let tensor) = value else { throw unsuitable(name, value, "TENSOR") }
        return try builder.tensors.constant(tensor)
    }

    /// For attributes that change nothing here.
    func ignore(_ names: String...) { for name in names { unread[name] = nil } }

    private func unsuitable(_ name: String, _ value: ONNXAttribute.Value, _ expected: String) -> TripsError {
        .data("attribute \(name)", found: value.typeName, expected: expected)
    }

    /// - Throws: `data` where an attribute is left that no rule has read.
    func checkAttributes() throws {
        if let name = unread.keys.min() {
            throw TripsError.data(
                "unknown attribute", found: name.prefix(80), expected: "attributes of \(node.type) (ai.onnx \(version))")
        }
    }

    // MARK: Operands

    func input(_ index: Int) -> ValueID? { index < inputs.count ? inputs[index] : nil }

    func required(_ index: Int) throws -> ValueID {
        guard let value = input(index) else { throw TripsError.data("input \(index) is missing") }
        return value
    }

    func type(_ value: ValueID) -> ValueType { builder.graph.type(of: value) }
    func operand(_ value: ValueID) -> Operand { builder.graph.operand(value) }

    /// Integers that the newest operator set has as an operand, as int64 of rank 1.
    func constant(_ numbers: [Int], _ name: String) throws -> ValueID {
        try add(Constant(integers: numbers, shape: [numbers.count]), name)
    }

    /// A number of rank 0.
    func constant(_ number: Double, _ dataType: DataType, _ name: String) throws -> ValueID {
        try add(Constant(Tensor(scalar: number).converted(to: dataType)), name)
    }

    /// Begins the names of what the node becomes beside its outputs. Nodes may share a name, outputs do not.
    private var prefix: String { node.outputs.first { !$0.isEmpty } ?? node.label }

    // MARK: Results

    /// The node's own operator, whose outputs bear the names of the file.
    func add(_ op: any Operator, _ operands: [ValueID?]? = nil) throws -> [ValueID] {
        try builder.add(op, operands ?? inputs, name: node.label, outputNames: node.outputs.map { $0.isEmpty ? nil : $0 })
    }

    /// An operator on the way to the node's own.
    func step(_ op: any Operator, _ operands: [ValueID?], _ name: String) throws -> ValueID { try steps(op, operands, name)[0] }

    /// One with several results.
    func steps(_ op: any Operator, _ operands: [ValueID?], _ name: String) throws -> [ValueID] {
        try builder.add(op, operands, name: "\(prefix).\(name)")
    }

    func add(_ constant: Constant, _ name: String) throws -> ValueID {
        try builder.graph.addConstant(constant, name: "\(prefix).\(name)")
    }

    /// A constant under the name of the node's output.
    func output(_ constant: Constant) throws -> [ValueID] {
        [try builder.graph.addConstant(constant, name: prefix)]
    }

    /// A value of this type that is the same number everywhere.
    func add(splat number: Double, _ type: ValueType, _ name: String) throws -> ValueID {
        try add(.splat(Tensor(scalar: number).converted(to: type.dataType)), type, name)
    }

    func add(_ content: Content, _ type: ValueType, _ name: String) throws -> ValueID {
        try builder.graph.addKnown(content, type, name: "\(prefix).\(name)")
    }

    /// Sizes as an operand, int64 of rank 1.
    func sizes(_ sizes: [Dimension], _ name: String) throws -> ValueID {
        let type = ValueType(.int64, [Dimension(sizes.count)])
        return try add(Content(sizes: sizes, type), type, name)
    }
}
