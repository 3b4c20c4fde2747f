import Importers
import Support
import Tensors

/// Reads a safetensors file with keys `in.NAME`, `out.NAME`, `mid.NAME`; its metadata is the set's.
func loadSafetensorsGolden(path: String, name: String) throws -> GoldenSet {
    let file = try SafetensorsFile(path: path)
    let tensors = try file.tensors.filter { isGoldenKey($0.name) }.map { (key: $0.name, tensor: try $0.constant.load()) }
    return try GoldenSet(name: name, keyed: tensors, metadata: GoldenMetadata(file.metadata))
}

func isGoldenKey(_ key: String) -> Bool { ["in.", "out.", "mid."].contains { key.hasPrefix($0) } }
