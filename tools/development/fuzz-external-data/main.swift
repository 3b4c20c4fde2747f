import FuzzSupport
import Importers

// Imports an ONNX model, behind 2 bytes of its length, whose external data `w.bin` are the other bytes, and loads what its
// graphs hold.
fuzz { input in
    let (model, data) = parts(input[...])
    try withFile(data, named: "w.bin") { _ in
        try withFile(model, named: "a.onnx") { try loadConstants(of: importONNX(path: $0).graphs) }
    }
}
