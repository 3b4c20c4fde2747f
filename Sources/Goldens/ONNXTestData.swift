import Foundation
import Importers
import Support
import Tensors

/// The name of a file of ONNX's test-data layout: `input_K.pb` or `output_K.pb`.
struct TestDataFile {
    let fileName: String
    let isInput: Bool
    let number: Int

    init?(_ fileName: String) {
        guard fileName.hasSuffix(".pb") else { return nil }
        let parts = fileName.dropLast(3).split(separator: "_")
        guard parts.count == 2, parts[0] == "input" || parts[0] == "output", let number = Int(parts[1]), number >= 0 else {
            return nil
        }
        self.fileName = fileName
        isInput = parts[0] == "input"
        self.number = number
    }
}

/// The names of a folder's files and folders.
/// - Throws: `cannotOpen`.
func folderEntries(_ path: String) throws -> [String] {
    do {
        return try FileManager.default.contentsOfDirectory(atPath: path)
    } catch {
        throw TripsError(.cannotOpen, "cannot be listed", at: path)
    }
}

/// Reads one folder of ONNX test data, with `golden.json` in it or beside it.
func loadONNXTestData(folder: String, name: String, inputNames: [String], outputNames: [String]) throws -> GoldenSet {
    let files = try folderEntries(folder).compactMap(TestDataFile.init).sorted { $0.number < $1.number }
    func load(_ files: [TestDataFile], _ modelNames: [String]) throws -> [String: Tensor] {
        let tensors = try files.map { file in
            try locating("\(name)/\(file.fileName)") {
                let tensor = try readTensorProto(path: (folder as NSString).appendingPathComponent(file.fileName))
                return (name: tensor.name, number: file.number, tensor: try tensor.tensor.load())
            }
        }
        return try assign(tensors, to: modelNames, in: name)
    }
    return GoldenSet(
        name: name, inputs: try load(files.filter(\.isInput), inputNames),
        outputs: try load(files.filter { !$0.isInput }, outputNames), metadata: try metadata(of: folder))
}

/// Gives each tensor a name: its own where the model knows it, else that of its position, else its own again.
package func assign(
    _ tensors: [(name: String, number: Int, tensor: Tensor)], to modelNames: [String], in place: String
) throws -> [String: Tensor] {
    var named: [String: Tensor] = [:]
    func add(_ name: String, _ tensor: Tensor) throws {
        guard named.updateValue(tensor, forKey: name) == nil else {
            throw TripsError.data("two tensors stand for one name", at: place, found: name)
        }
    }
    for (name, _, tensor) in tensors where modelNames.contains(name) { try add(name, tensor) }
    for (name, number, tensor) in tensors where !modelNames.contains(name) {
        let positional = modelNames.indices.contains(number) && named[modelNames[number]] == nil ? modelNames[number] : nil
        try add(positional ?? (name.isEmpty ? "#\(number)" : name), tensor)
    }
    return named
}

private func metadata(of folder: String) throws -> GoldenMetadata {
    guard let path = metadataFile(of: folder) else { return GoldenMetadata() }
    let file = try ReadableFile(path: path)
    return try locating(file.name) { GoldenMetadata(try JSON(file, maximalSize: 1 << 20)) }
}

/// The `golden.json` in a folder or beside it; nil where there is none.
func metadataFile(of folder: String) -> String? {
    // The last is for "." and "..".
    let candidates = [folder, Support.folder(of: folder), folder + "/.."].map { $0 + "/golden.json" }
    return candidates.first { FileManager.default.fileExists(atPath: $0) }
}
