import FuzzSupport
import Importers

// Imports an ONNX model, and loads what its graphs hold; the first byte 1 stands for a single tensor of ONNX's test data.
fuzz { input in
    guard let kind = input.first else { return }
    let bytes = Array(input.dropFirst())
    if kind == 1 {
        try withFile(bytes, named: "input_0.pb") { _ = try readTensorProto(path: $0).tensor.load() }
    } else {
        try withFile(bytes, named: "a.onnx") { path in
            _ = try operatorInventory(path: path)
            _ = try importONNX(path: path)
        }
    }
}
