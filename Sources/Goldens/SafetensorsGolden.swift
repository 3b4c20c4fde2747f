import Importers
import Support
import Tensors

/// Reads a safetensors file with keys `in.NAME`, `out.NAME`, `mid.NAME`; its metadata is the set's.
func loadSafetensorsGolden(path: String, name: String, needing needs: (GoldenKey) -> Bool) throws -> GoldenSet {
    let file = try SafetensorsFile(path: path)
    return try GoldenSet(
        name: name, keyed: file.tensors.map { (key: $0.name, part: $0.constant) }, metadata: GoldenMetadata(file.metadata),
        needing: needs
    ) { try $0.load() }
}
