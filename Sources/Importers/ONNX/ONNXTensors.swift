import Foundation
import Support
import Tensors

/// Makes constants of a model's tensors, without reading the numbers of those that lie in files.
final class ONNXTensorReader {
    private let file: ReadableFile
    private let followsLinks: Bool
    private var externalFiles: [String: (path: String, size: Int)] = [:]
    /// Paths of the files with external data, in the order in which tensors name them.
    private(set) var externalPaths: [String] = []

    init(_ file: ReadableFile, followsLinks: Bool) {
        self.file = file
        self.followsLinks = followsLinks
    }

    /// - Throws: `data` where the type is unsupported or the payload does not fill the shape, and what opening an
    ///   external file throws.
    func constant(_ tensor: ONNXTensor) throws -> Constant {
        try locating("tensor \"\(tensor.name.prefix(200))\"") {
            let dataType = try DataType(onnx: tensor.elementType)
            if dataType == .bool {
                // A file's bytes may be other than 0 and 1; conversion from integers makes them so.
                var bytes = tensor
                bytes.elementType = ONNXTensor.uint8
                return try constant(bytes).converted(to: .bool)
            }
            let shape = tensor.shape
            let (count, bytes) = (try elementCount(of: shape), try byteCount(of: dataType, shape))
            switch tensor.payload {
            case .none:
                try check(0, count, "elements")
                return Constant(try Tensor(dataType, shape) { _ in })
            case .raw(let data):
                try check(data.count, bytes, "bytes")
                return Constant(try Tensor(dataType, shape) { $0.copyBytes(from: data) })
            case .floats(let numbers):
                try allow(dataType, in: .floatData)
                try check(numbers.count, count, "elements")
                return Constant(try Tensor(numbers, shape: shape))
            case .doubles(let numbers):
                try allow(dataType, in: .doubleData)
                try check(numbers.count, count, "elements")
                return Constant(try Tensor(numbers, shape: shape))
            case .integers(let numbers, let field):
                try allow(dataType, in: field)
                try check(numbers.count, count, "elements")
                return Constant(try integers(numbers, dataType, shape))
            case .place(let offset, let length, let field):
                return try constant(dataType, shape, count, at: offset, length: length, field: field)
            case .external(let entries):
                return try external(entries, dataType, shape, bytes)
            }
        }
    }

    private func check(_ found: Int, _ expected: Int, _ what: String) throws {
        guard found == expected else {
            throw TripsError.data("the numbers do not fill the shape", found: "\(found) \(what)", expected: "\(expected)")
        }
    }

    private func allow(_ dataType: DataType, in field: ONNXDataField) throws {
        guard field.mayHold(dataType) else {
            throw TripsError.data("the element type does not suit the data field", found: "\(dataType) in field \(field.rawValue)")
        }
    }

    private func constant(
        _ dataType: DataType, _ shape: [Int], _ count: Int, at offset: Int, length: Int, field: ONNXDataField
    ) throws -> Constant {
        try allow(dataType, in: field)
        guard field.holdsVarints else {
            try check(length, byteCount(of: dataType, shape), "bytes")
            return Constant(dataType, shape, in: file, at: offset)
        }
        // Each varint takes one to ten bytes.
        guard count <= length, length / 10 <= count else {
            throw TripsError.data(
                "the numbers do not fill the shape", found: "\(length) bytes of varints", expected: "\(count) elements")
        }
        return Constant(
            dataType, shape, identity: "\(file.path)@\(offset):varints:\(dataType.rawValue)\(shape)",
            source: VarintSource(file: file, offset: offset, length: length))
    }

    // MARK: External data

    private func external(
        _ entries: [(key: String, value: String)], _ dataType: DataType, _ shape: [Int], _ bytes: Int
    ) throws -> Constant {
        func number(_ key: String) throws -> Int? {
            guard let text = entries.first(where: { $0.key == key })?.value else { return nil }
            guard !text.isEmpty, text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let number = Int(text) else {
                throw TripsError.data("\(key) of external data", found: "\"\(text.prefix(80))\"", expected: "a number, 0 or more")
            }
            return number
        }
        let location = entries.first { $0.key == "location" }?.value ?? ""
        return try locating("external data \"\(location.prefix(200))\"") {
            let offset = try number("offset") ?? 0
            if let length = try number("length") { try check(length, bytes, "bytes") }
            let (path, size) = try externalFile(location)
            guard offset <= size, bytes <= size - offset else {
                throw TripsError.data("the file is too short", found: "\(size) bytes", expected: "\(bytes) at \(offset)")
            }
            return Constant(
                dataType, shape, identity: "\(path)@\(offset):\(dataType.rawValue)\(shape)",
                source: ExternalSource(path: path, offset: offset))
        }
    }

    private func externalFile(_ location: String) throws -> (path: String, size: Int) {
        if let known = externalFiles[location] { return known }
        // Bytes: a slash and a mark that combines with it are one character, but divide names nevertheless.
        let components = location.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        let leadsUp = components.contains { $0.elementsEqual("..".utf8) }
        guard !location.isEmpty, !location.hasPrefix("/"), !location.contains("\\"), !leadsUp else {
            throw TripsError.data(
                "location of external data", found: "\"\(location.prefix(200))\"", expected: "a path inside the model's folder")
        }
        let folder = Support.folder(of: file.path)
        // The path that was checked is the one that is opened, now and later.
        let path = try followsLinks ? folder + "/" + location : confinedPath(location, in: folder)
        let found = (path, try ReadableFile(path: path).size)
        externalFiles[location] = found
        externalPaths.append(path)
        return found
    }
}

/// A tensor whose integers are stored as varints, as `int32_data`, `int64_data` and `uint64_data` are.
private struct VarintSource: ConstantSource {
    let file: ReadableFile
    let offset: Int
    let length: Int

    func load(_ dataType: DataType, _ shape: [Int]) throws -> Tensor {
        let count = try elementCount(of: shape)
        let end = offset + length
        var reader = WireReader(file)
        try reader.skip(offset, end: file.size)
        var numbers: [Int64] = []
        numbers.reserveCapacity(count)
        while reader.position < end {
            guard numbers.count < count else {
                throw TripsError.data("the numbers do not fill the shape", at: file.name, found: "more", expected: "\(count)")
            }
            numbers.append(Int64(bitPattern: try reader.varint(end: end)))
        }
        guard numbers.count == count else {
            throw TripsError.data("the numbers do not fill the shape", at: file.name, found: numbers.count, expected: count)
        }
        return try integers(numbers, dataType, shape)
    }
}

/// A region of another file. The file is opened for each reading, as a model may have more of them than a process may open.
private struct ExternalSource: ConstantSource {
    let path: String
    let offset: Int

    func load(_ dataType: DataType, _ shape: [Int]) throws -> Tensor {
        let file = try ReadableFile(path: path)
        return try Tensor(dataType, shape) { try file.read(into: $0, at: offset) }
    }
}

/// A tensor of integers, or of 16-bit floating-point numbers whose bit patterns are given.
private func integers(_ numbers: [Int64], _ dataType: DataType, _ shape: [Int]) throws -> Tensor {
    try Tensor(dataType, shape) { bytes in
        let width = dataType.byteWidth
        for (index, number) in numbers.enumerated() {
            withUnsafeBytes(of: number.littleEndian) {
                UnsafeMutableRawBufferPointer(rebasing: bytes[index * width..<(index + 1) * width]).copyMemory(
                    from: .init(rebasing: $0.prefix(width)))
            }
        }
    }
}
