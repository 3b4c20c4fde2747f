import FuzzSupport
import Importers

// Opens a checkpoint, loads its tensors, and makes a model of it where it is one. The first byte tells which kind of file
// the others are.
fuzz { input in
    guard let kind = input.first else { return }
    let names = ["a.safetensors", "a.pth", "a.safetensors.index.json", "a.bin"]
    try withFile(Array(input.dropFirst()), named: names[Int(kind) % names.count]) { path in
        let checkpoint = try Checkpoint.open(path: path)
        for (_, constant) in checkpoint.tensors { _ = try constant.load() }
        _ = try importCheckpoint(checkpoint)
    }
}
