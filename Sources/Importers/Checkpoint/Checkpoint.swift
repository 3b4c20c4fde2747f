import ModelGraph
import Support
import Tensors

/// The named tensors of a model file. They stay in the file until their numbers are needed.
public struct Checkpoint: Sendable {
    /// In the order of the file.
    public let tensors: [(name: String, constant: Constant)]
    /// The text entries that a safetensors file has beside its tensors; empty for PyTorch's formats.
    public let metadata: [String: String]
    /// The form of the file.
    public let format: SourceFormat
    /// Tensors that are not the model's, such as an optimizer's: one entry, with their number and size, for each file that has any.
    public let others: [SkippedTensors]
    /// Paths of the other files that hold tensors: an index's shards, in its order.
    public let shards: [String]

    package init(
        tensors: [(name: String, constant: Constant)], metadata: [String: String] = [:], format: SourceFormat = .safetensors,
        others: [SkippedTensors] = [], shards: [String] = []
    ) {
        self.tensors = tensors
        self.metadata = metadata
        self.format = format
        self.others = others
        self.shards = shards
    }

    /// Opens a safetensors file, what `torch.save` wrote, or the index of several such files (by its name, `….json`).
    /// - Throws: `cannotOpen`, or `data` where the file is malformed or holds anything but tensors and plain data.
    public static func open(path: String) throws -> Checkpoint {
        let file = try ReadableFile(path: path)
        return path.hasSuffix(".json") ? try readShards(index: file) : try open(file)
    }

    /// Opens a file that holds tensors itself; its content decides which kind it is.
    static func open(_ file: ReadableFile) throws -> Checkpoint {
        let start = try file.bytes(at: 0, count: min(4, file.size))
        if try file.bytes(at: 0, count: min(16, file.size)).dropFirst(8).elementsEqual("TRIPSPKG".utf8) {
            throw TripsError.data("this is a .trips package already", at: file.name, expected: "a checkpoint or an ONNX model")
        }
        let isTorchName = [".pth", ".pt", ".bin"].contains { file.path.hasSuffix($0) }
        if start == [0x50, 0x4B, 3, 4] { return try readTorchZip(file) }
        if start == [0x80, 2, 0x8A, 0x0A] || isTorchName && start.first == 0x80 { return try readLegacyTorch(file) }
        if isTorchName {
            throw TripsError.data(
                "no PyTorch checkpoint", at: file.name,
                found: start.isEmpty ? "an empty file" : "bytes " + start.map { String($0, radix: 16) }.joined(separator: " "),
                expected: "a zip archive or a pickle, as torch.save writes them")
        }
        let safetensors = try SafetensorsFile(file)
        return Checkpoint(tensors: safetensors.tensors, metadata: safetensors.metadata, format: .safetensors)
    }
}
