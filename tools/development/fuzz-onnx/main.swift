import FuzzSupport
import Importers
import Rewrites

// Imports an ONNX model, loads what its graphs hold, and fuses them.
fuzz { input in
    try withFile(Array(input), named: "a.onnx") { path in
        _ = try operatorInventory(path: path)
        var graphs = try importONNX(path: path).graphs
        try loadConstants(of: graphs)
        for index in graphs.indices {
            try graphs[index].fold()
            try graphs[index].fuse(validating: true)
        }
    }
}
