import FuzzSupport
import Goldens

// Loads a golden set; the first byte tells in which form: 0 for .npz, others for .safetensors.
fuzz { input in
    guard let kind = input.first else { return }
    try withFile(Array(input.dropFirst()), named: kind == 0 ? "a.npz" : "a.safetensors") { path in
        for reference in try GoldenReference.references(at: path) { _ = try reference.load(inputNames: ["x"], outputNames: ["y"]) }
    }
}
