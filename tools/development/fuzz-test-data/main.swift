import FuzzSupport
import Importers

// Reads a single tensor of ONNX's test data.
fuzz { input in
    try withFile(Array(input), named: "input_0.pb") { _ = try readTensorProto(path: $0).tensor.load() }
}
