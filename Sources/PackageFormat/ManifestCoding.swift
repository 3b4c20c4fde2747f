import Foundation
import ModelGraph
import Support
import Synchronization
import Tensors

extension Manifest {
    /// The manifest's JSON.
    func json() throws -> [UInt8] { try Array(jsonText(self, pretty: false).utf8) }

    /// Parses and checks a manifest.
    init(parsing json: [UInt8]) throws {
        // The strict parser refuses what JSONDecoder lets pass: keys twice, deep nesting, text after the end. It runs beside
        // it, and what it finds counts first.
        let decoded = Mutex<Manifest?>(nil)
        try ThreadPool.shared.tryRun(2) { task in
            if task == 0 {
                _ = try JSON(parsing: json)
            } else {
                let manifest = try decoding { try Manifest.decoder.decode(Manifest.self, from: Data(json)) }
                decoded.withLock { $0 = manifest }
            }
        }
        guard let manifest = decoded.withLock({ $0 }) else { throw TripsError.data("malformed manifest") }
        self = manifest
        let unknown = features.filter { !Layout.knownFeatures.contains($0) }
        guard unknown.isEmpty else {
            throw TripsError.data("the package requires what this version does not know", found: unknown.joined(separator: ", "))
        }
        try check()
    }

    /// - Throws: `data` for what a package cannot hold.
    func check() throws {
        var names = Set<String>()
        for tensor in tensors {
            try locating("tensor \"\(tensor.name.prefix(80))\"") {
                try tensor.check()
                guard names.insert(tensor.name).inserted else { throw TripsError.data("two tensors have one name") }
            }
        }
        try checkMappings()
        try checkGraphs()
        try generation?.check()
        try preprocessing?.check()
        guard let vocabulary else { return }
        guard let tensor = tensors.first(where: { $0.name == vocabulary }) else {
            throw TripsError.data("the vocabulary's tensor is not there", found: vocabulary)
        }
        guard tensor.dataType == .uint8, tensor.shape.count == 1 else {
            throw TripsError.data("type of the vocabulary", found: "\(tensor.dataType)\(tensor.shape)", expected: "uint8 of rank 1")
        }
    }

    /// Scales in panels are those of a tensor that stands in the table, too.
    private func checkMappings() throws {
        let mapped = tensors.filter { $0.mapped != nil }
        guard mapped.isEmpty || features.contains(Layout.mapped) else {
            throw TripsError.data("mapped tensors", found: mapped.count, expected: "the feature \(Layout.mapped)")
        }
        let shapes = Dictionary(uniqueKeysWithValues: tensors.filter { $0.dataType == .float32 }.map { ($0.name, $0.shape) })
        for tensor in mapped {
            try locating("tensor \"\(tensor.name)\"") {
                guard case .int8(let group) = try tensor.panelLayout() else { return }
                let expected = [tensor.shape[0], group == 0 ? 1 : tensor.shape[1].dividedRoundingUp(by: group)]
                guard let name = tensor.mapped?.scales, shapes[name] == expected else {
                    throw TripsError.data(
                        "scales", found: tensor.mapped?.scales ?? "none", expected: "the name of a tensor float32\(expected)")
                }
            }
        }
    }

    /// Graphs feed each other by the names of outputs, and results are asked for by name whatever the graph.
    private func checkGraphs() throws {
        guard Set(graphs.map(\.name)).count == graphs.count else { throw TripsError.data("two graphs have one name") }
        var (results, read) = (Set<String>(), Set<String>())
        for graph in graphs {
            for name in (graph.outputs + graph.traces).map(\.name) where !results.insert(name).inserted {
                throw TripsError.data("two outputs or traces have one name", at: "graph \"\(graph.name)\"", found: name)
            }
            if let name = graph.outputs.map(\.name).first(where: read.contains) {
                throw TripsError.data(
                    "a graph before this one reads its output", at: "graph \"\(graph.name)\"", found: name,
                    expected: "graphs in the order in which they feed each other")
            }
            read.formUnion(graph.inputs.map(\.name))
        }
    }

    private static var decoder: JSONDecoder {
        let decoder = JSONDecoder()
        decoder.nonConformingFloatDecodingStrategy = .convertFromString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        return decoder
    }
}

extension Manifest.Preprocessing {
    /// The largest width and height of images.
    private static let largestSize = 10_000

    fileprivate func check() throws {
        guard 1...Self.largestSize ~= imageSize else {
            throw TripsError.data("imageSize", at: "preprocessing", found: imageSize, expected: "1 to \(Self.largestSize)")
        }
        guard mean.count == 3, deviation.count == 3, (mean + deviation).allSatisfy(\.isFinite), deviation.allSatisfy({ $0 > 0 })
        else {
            throw TripsError.data(
                "mean and deviation", at: "preprocessing", found: "\(mean), \(deviation)",
                expected: "three numbers each, deviations above 0")
        }
    }
}

extension Manifest.TensorRecord {
    /// - Throws: `data` for what a package cannot hold.
    func check() throws {
        guard !name.isEmpty, name.utf8.count <= Layout.maximalNameLength else {
            throw TripsError.data("length of a name", found: name.utf8.count, expected: "1 to \(Layout.maximalNameLength)")
        }
        guard shape.count <= Layout.maximalRank else {
            throw TripsError.data("rank", found: shape.count, expected: "at most \(Layout.maximalRank)")
        }
        _ = try byteCount(of: dataType, shape)
        let narrowed = dataType.isFloatingPoint && storedType.isFloatingPoint && storedType.byteWidth < dataType.byteWidth
        guard storedType == dataType || narrowed else {
            throw TripsError.data("stored type", found: storedType, expected: "\(dataType) or a narrower floating-point type")
        }
        guard mapped == nil || storedType == dataType && dataType != .bool else {
            throw TripsError.data("type of a mapped tensor", found: storedType, expected: "\(dataType), not bool")
        }
    }
}

extension Manifest.TensorRecord {
    /// The layout of the panels; nil where the numbers are in rows.
    /// - Throws: `data` where the kernels take no such tensor.
    func panelLayout() throws -> PanelLayout? {
        guard let mapped, mapped.order == .panels else { return nil }
        guard shape.count == 2, shape.allSatisfy({ $0 > 0 }) else {
            throw TripsError.data("panels", found: "\(shape)", expected: "a matrix")
        }
        let layout: PanelLayout? =
            switch (dataType, mapped.group, mapped.scales) {
            case (.float32, nil, nil): .float
            case (.int8, let group?, _?) where 0..<shape[1] ~= group: .int8(group: group)
            default: nil
            }
        guard let layout, layout.takes(inputs: shape[1]) else {
            throw TripsError.data(
                "panels", found: "\(dataType)\(shape), groups of \(mapped.group.map { "\($0)" } ?? "none")",
                expected: "float32, or int8 with scales, in groups of a multiple of 4 inputs, at most 65536 in all")
        }
        return layout
    }
}

/// The header of the safetensors file that a plain package holds, with the manifest in its metadata.
enum SafetensorsHeader {
    static let manifestKey = "trips"

    private struct Tensor: Codable {
        var dtype: DataType
        var shape: [Int]
        var dataOffsets: [Int]
        private enum CodingKeys: String, CodingKey { case dtype, shape, dataOffsets = "data_offsets" }
    }

    private enum Entry: Encodable {
        case metadata([String: String])
        case tensor(Tensor)

        func encode(to encoder: any Encoder) throws {
            switch self {
            case .metadata(let texts): try texts.encode(to: encoder)
            case .tensor(let tensor): try tensor.encode(to: encoder)
            }
        }
    }

    /// Length, JSON and spaces up to a multiple of eight bytes.
    static func bytes(_ manifest: [UInt8], _ tensors: [Manifest.TensorRecord]) throws -> [UInt8] {
        var entries: [String: Entry] = [:]
        for (name, tensor) in try table(tensors) { entries[name] = .tensor(tensor) }
        let metadata = Entry.metadata([manifestKey: String(decoding: manifest, as: UTF8.self)])
        guard entries.updateValue(metadata, forKey: "__metadata__") == nil else {
            throw TripsError.usage("a plain package cannot hold a tensor of this name", found: "__metadata__")
        }
        var json = Array(try jsonText(entries, pretty: false).utf8)
        while json.count % 8 != 0 { json.append(UInt8(ascii: " ")) }
        var bytes: [UInt8] = []
        bytes.append(littleEndian: UInt64(json.count))
        return bytes + json
    }

    /// The manifest in a header, which must describe the same tensors.
    static func manifest(in bytes: [UInt8]) throws -> Manifest {
        var cursor = ByteCursor(bytes)
        let length = try cursor.integer(UInt64.self)
        guard length == cursor.remaining else {
            throw TripsError.data("length of the safetensors header", found: length, expected: cursor.remaining)
        }
        let json = try JSON(parsing: Array(cursor.take(cursor.remaining)))
        guard let text = json["__metadata__"]?[manifestKey]?.string else {
            throw TripsError.data("the safetensors header holds no manifest", expected: "__metadata__.\(manifestKey)")
        }
        let manifest = try Manifest(parsing: Array(text.utf8))
        try check(json, against: manifest)
        return manifest
    }

    private static func check(_ json: JSON, against manifest: Manifest) throws {
        guard let members = json.members, members.count == manifest.tensors.count + 1 else {
            throw TripsError.data("the safetensors header lists other tensors than the manifest")
        }
        let entries = Dictionary(uniqueKeysWithValues: members.map { ($0.key, $0.value) })
        for (name, tensor) in try table(manifest.tensors) {
            let entry = entries[name]
            guard entry?["dtype"]?.string == tensor.dtype.rawValue, entry?["shape"]?.array?.map(\.integer) == tensor.shape,
                entry?["data_offsets"]?.array?.map(\.integer) == tensor.dataOffsets
            else { throw TripsError.data("the safetensors header describes a tensor unlike the manifest", at: name) }
        }
    }

    private static func table(_ tensors: [Manifest.TensorRecord]) throws -> [(String, Tensor)] {
        var offset = 0
        return try tensors.map { record in
            let start = offset
            let (end, overflow) = offset.addingReportingOverflow(try byteCount(of: record.storedType, record.shape))
            guard !overflow else { throw TripsError.data("the tensors' bytes overflow") }
            offset = end
            return (record.name, Tensor(dtype: record.storedType, shape: record.shape, dataOffsets: [start, end]))
        }
    }
}

/// Runs a JSON decoder; its errors become ours, with the path in the document as the place.
private func decoding<Value>(_ body: () throws -> Value) throws -> Value {
    do {
        return try body()
    } catch let error as DecodingError {
        let (context, message) =
            switch error {
            case .typeMismatch(_, let context), .valueNotFound(_, let context): (context, context.debugDescription)
            case .keyNotFound(let key, let context): (context, "\"\(key.stringValue)\" is missing")
            case .dataCorrupted(let context): (context, context.debugDescription)
            @unknown default: (DecodingError.Context(codingPath: [], debugDescription: ""), "\(error)")
            }
        throw TripsError.data("malformed manifest: \(message)", at: context.codingPath.isEmpty ? nil : context.codingPath.place)
    }
}
