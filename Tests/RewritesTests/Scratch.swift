import Foundation
import Testing
import Importers
import ModelGraph
import Rewrites
import Support

@Test func scratch() throws {
    for path in (ProcessInfo.processInfo.environment["SCRATCH"] ?? "").split(separator: ",") { do { try dump(String(path)) } catch { print("FAILED", path, error) } }
}
func dump(_ path: String) throws {
    let start = Date()
    var graphs = path.hasSuffix(".onnx") ? try importONNX(path: path).graphs : try importCheckpoint(path: path).graphs
    for index in graphs.indices {
        print("imported", graphs[index].nodes.count, -start.timeIntervalSinceNow)
        print(try fold(&graphs[index]))
        print("folded", graphs[index].nodes.count, -start.timeIntervalSinceNow)
        if ProcessInfo.processInfo.environment["UNTIL"] == "fold" { print(graphs[index]); continue }
        print(try fuse(&graphs[index]))
        print("fused", graphs[index].nodes.count, -start.timeIntervalSinceNow)
        try graphs[index].validate()
        try graphs[index].nameIntermediates()
        if ProcessInfo.processInfo.environment["UNTIL"] == "fuse" { print(graphs[index]) }
        print(Dictionary(graphs[index].nodes.map { ("\(type(of: $0.op))", 1) }, uniquingKeysWith: +).sorted { $0.key < $1.key })
        print(graphs[index].traces.map(\.name))
        try graphs[index].structure.write(toFile: "/tmp/structure.\(path.split(separator: "/").suffix(2).joined(separator: "_")).\(index)", atomically: true, encoding: .utf8)
    }
}
