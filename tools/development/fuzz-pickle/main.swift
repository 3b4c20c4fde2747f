import FuzzSupport
import Importers

// Opens a checkpoint of the pickle that stands behind 2 bytes of length, with the other bytes as storage "0", in an archive
// that is sound: its checksums would keep a fuzzer out.
fuzz { input in
    let (pickle, storage) = parts(input[...])
    let archive = zipArchive([("a/data.pkl", pickle), ("a/data/0", storage)])
    try withFile(archive, named: "a.pth") { path in
        let checkpoint = try Checkpoint.open(path: path)
        for (_, constant) in checkpoint.tensors { _ = try constant.load() }
        _ = try importCheckpoint(checkpoint)
    }
}
