import FuzzSupport
import Importers

// Opens a safetensors file (first byte 0), or an index of shards beside one (others), loads its tensors, and makes a model
// of it where it is one. With an index, 2 bytes length stand before it, and the shard `a.safetensors` behind it.
fuzz { input in
    guard let kind = input.first else { return }
    if kind == 0 {
        try withFile(Array(input.dropFirst()), named: "a.safetensors") { try read($0) }
    } else {
        let (index, shard) = parts(input.dropFirst())
        try withFile(shard, named: "a.safetensors") { _ in
            try withFile(index, named: "a.safetensors.index.json") { try read($0) }
        }
    }
}

private func read(_ path: String) throws {
    let checkpoint = try Checkpoint.open(path: path)
    for (_, constant) in checkpoint.tensors { _ = try constant.load() }
    _ = try importCheckpoint(checkpoint)
}
