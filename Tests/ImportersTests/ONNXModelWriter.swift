/// Writes protobuf's wire format, as much of it as ONNX models need.
struct WireWriter {
    var bytes: [UInt8] = []

    private mutating func varint(_ number: Int) {
        var rest = UInt64(bitPattern: Int64(number))
        while rest >= 0x80 {
            bytes.append(UInt8(rest & 0x7F) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    func int(_ field: Int, _ number: Int) -> WireWriter {
        var copy = self
        copy.varint(field << 3)
        copy.varint(number)
        return copy
    }

    func float(_ field: Int, _ number: Float) -> WireWriter {
        var copy = self
        copy.varint(field << 3 | 5)
        copy.bytes += withUnsafeBytes(of: number) { Array($0) }
        return copy
    }

    func blob(_ field: Int, _ content: [UInt8]) -> WireWriter {
        var copy = self
        copy.varint(field << 3 | 2)
        copy.varint(content.count)
        copy.bytes += content
        return copy
    }

    func text(_ field: Int, _ text: String) -> WireWriter { blob(field, Array(text.utf8)) }
    func message(_ field: Int, _ content: WireWriter) -> WireWriter { blob(field, content.bytes) }
    func messages(_ field: Int, _ contents: [WireWriter]) -> WireWriter { contents.reduce(self) { $0.message(field, $1) } }
    func texts(_ field: Int, _ contents: [String]) -> WireWriter { contents.reduce(self) { $0.text(field, $1) } }
    func ints(_ field: Int, _ numbers: [Int]) -> WireWriter { numbers.reduce(self) { $0.int(field, $1) } }

    func packedInts(_ field: Int, _ numbers: [Int]) -> WireWriter {
        var content = WireWriter()
        for number in numbers { content.varint(number) }
        return blob(field, content.bytes)
    }
}

func raw<Element>(_ numbers: [Element]) -> [UInt8] { numbers.withUnsafeBytes { Array($0) } }

enum Onnx {
    static func attribute(_ name: String, int: Int) -> WireWriter { WireWriter().text(1, name).int(3, int).int(20, 2) }
    static func attribute(_ name: String, ints: [Int]) -> WireWriter { WireWriter().text(1, name).ints(8, ints).int(20, 7) }
    static func attribute(_ name: String, float: Float) -> WireWriter { WireWriter().text(1, name).float(2, float).int(20, 1) }
    static func attribute(_ name: String, floats: [Float]) -> WireWriter {
        floats.reduce(WireWriter().text(1, name)) { $0.float(7, $1) }.int(20, 6)
    }
    static func attribute(_ name: String, text: String) -> WireWriter { WireWriter().text(1, name).text(4, text).int(20, 3) }
    static func attribute(_ name: String, tensor: WireWriter) -> WireWriter {
        WireWriter().text(1, name).message(5, tensor).int(20, 4)
    }
    static func attribute(_ name: String, reference: String, type: Int) -> WireWriter {
        WireWriter().text(1, name).int(20, type).text(21, reference)
    }

    static func node(
        _ type: String, _ inputs: [String], _ outputs: [String], _ attributes: [WireWriter] = [], domain: String = "",
        name: String = ""
    ) -> WireWriter {
        WireWriter().texts(1, inputs).texts(2, outputs).text(3, name).text(4, type).messages(5, attributes).text(7, domain)
    }

    static func tensor(_ name: String, _ shape: [Int], type: Int) -> WireWriter {
        WireWriter().ints(1, shape).int(2, type).text(8, name)
    }
    static func floats(_ name: String, _ shape: [Int], _ numbers: [Float]) -> WireWriter {
        tensor(name, shape, type: 1).blob(9, raw(numbers))
    }
    static func int64s(_ name: String, _ shape: [Int], _ numbers: [Int64]) -> WireWriter {
        tensor(name, shape, type: 7).blob(9, raw(numbers))
    }

    /// An input or output; a dimension is an Int or a String.
    static func value(_ name: String, _ shape: [Any], type: Int = 1) -> WireWriter {
        let dimensions = shape.map { size in
            if let number = size as? Int { return WireWriter().int(1, number) }
            return WireWriter().text(2, size as? String ?? "")
        }
        let tensorType = WireWriter().int(1, type).message(2, WireWriter().messages(1, dimensions))
        return WireWriter().text(1, name).message(2, WireWriter().message(1, tensorType))
    }

    static func graph(
        _ nodes: [WireWriter], inputs: [WireWriter] = [value("x", [2, 3])], outputs: [WireWriter] = [value("y", [])],
        initializers: [WireWriter] = []
    ) -> WireWriter {
        WireWriter().messages(1, nodes).text(2, "graph").messages(5, initializers).messages(11, inputs).messages(12, outputs)
    }

    static func model(_ graph: WireWriter, opset: Int = 17, ir: Int = 8, functions: [WireWriter] = []) -> WireWriter {
        WireWriter().int(1, ir).text(2, "test").message(7, graph).message(8, operatorSet("", opset))
            .message(8, operatorSet("local", 1)).messages(25, functions)
    }

    static func operatorSet(_ domain: String, _ version: Int) -> WireWriter { WireWriter().text(1, domain).int(2, version) }

    static func function(
        _ name: String, _ inputs: [String], _ outputs: [String], _ nodes: [WireWriter], attributes: [String] = [],
        defaults: [WireWriter] = []
    ) -> WireWriter {
        WireWriter().text(1, name).texts(4, inputs).texts(5, outputs).texts(6, attributes).messages(7, nodes)
            .message(9, operatorSet("", 17)).message(9, operatorSet("local", 1)).text(10, "local").messages(11, defaults)
    }
}
