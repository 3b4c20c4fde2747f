import Foundation
import Support

/// Where a golden set lies. Sets are loaded one at a time, so that any number of them fits into memory.
public struct GoldenReference: Sendable, Equatable {
    enum Form: Sendable, Equatable { case safetensors, npz, onnxTestData }

    /// The file, or the folder with one set of ONNX's test data.
    public let path: String
    let form: Form

    /// The file or folder without the folders around it.
    public var name: String { fileName(of: path) }

    /// The files that the set is read from.
    public var files: [String] {
        guard form == .onnxTestData else { return [path] }
        // A folder that cannot be listed is refused where it is loaded.
        let entries = (try? folderEntries(path)) ?? []
        return entries.filter { TestDataFile($0) != nil }.map { (path as NSString).appendingPathComponent($0) }
            + [metadataFile(of: path)].compactMap { $0 }
    }

    /// The golden sets at `path`: one for a file or an ONNX test-data folder, several for a folder of such folders.
    /// - Throws: `cannotOpen` where there is none.
    public static func references(at path: String) throws -> [GoldenReference] {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
            throw TripsError(.cannotOpen, "cannot be opened: no such file or folder", at: path)
        }
        guard isFolder.boolValue else {
            return [GoldenReference(path: path, form: path.lowercased().hasSuffix(".npz") ? .npz : .safetensors)]
        }
        let entries = try folderEntries(path)
        if entries.contains(where: { TestDataFile($0)?.isInput == true }) {
            return [GoldenReference(path: path, form: .onnxTestData)]
        }
        let sets = entries.filter { $0.hasPrefix("test_data_set_") }.sorted { $0.localizedStandardCompare($1) == .orderedAscending }
        guard !sets.isEmpty else {
            throw TripsError(.cannotOpen, "no golden set in this folder", at: path, expected: "input_K.pb or test_data_set_*")
        }
        return sets.map { GoldenReference(path: (path as NSString).appendingPathComponent($0), form: .onnxTestData) }
    }

    /// Reads the set.
    /// - Parameters:
    ///   - inputNames: the model's inputs in order, for files that name none.
    ///   - outputNames: the model's outputs in order, the same.
    ///   - needs: whether to load the tensor of a key; the other keys are kept in `unread`.
    /// - Throws: `data` for what is malformed, `cannotOpen` and `inputOutput` for files.
    public func load(
        inputNames: [String] = [], outputNames: [String] = [], needing needs: (GoldenKey) -> Bool = { _ in true }
    ) throws -> GoldenSet {
        switch form {
        case .safetensors: try loadSafetensorsGolden(path: path, name: name, needing: needs)
        case .npz: try loadNPZGolden(path: path, name: name, needing: needs)
        case .onnxTestData: try loadONNXTestData(folder: path, name: name, inputNames: inputNames, outputNames: outputNames)
        }
    }
}
