import FuzzSupport
import Importers

// Opens what `torch.save` wrote, as a zip archive or in the older form, and loads its tensors. fuzz-pickle goes deeper into
// the pickle.
fuzz { input in
    try withFile(Array(input), named: "a.pth") { path in
        for (_, constant) in try Checkpoint.open(path: path).tensors { _ = try constant.load() }
    }
}
