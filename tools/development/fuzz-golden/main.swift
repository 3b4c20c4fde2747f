import FuzzSupport
import Goldens

// Loads a golden set. The first byte tells what the others are: an .npz (0), a .safetensors (1), or one array that is put
// into an .npz here (others), whose checksum would keep a fuzzer out.
fuzz { input in
    guard let kind = input.first else { return }
    var bytes = Array(input.dropFirst())
    if kind > 1 { bytes = zipArchive([("in.x.npy", bytes)]) }
    try withFile(bytes, named: kind == 1 ? "a.safetensors" : "a.npz") { path in
        for reference in try GoldenReference.references(at: path) { _ = try reference.load(inputNames: ["x"], outputNames: ["y"]) }
    }
}
