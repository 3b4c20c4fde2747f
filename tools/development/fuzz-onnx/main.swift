import FuzzSupport
import Importers

// Imports an ONNX model, and loads what its graphs hold.
fuzz { input in
    try withFile(Array(input), named: "a.onnx") { path in
        _ = try operatorInventory(path: path)
        try loadConstants(of: importONNX(path: path).graphs)
    }
}
