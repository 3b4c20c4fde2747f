import Foundation
import Importers
import PackageFormat
import Support
import Tensors

// benchmark-format FILE.safetensors FOLDER THREADS [plain] [level=N]
// Writes the file's tensors, already in memory, as a package into FOLDER, reads them back, and prints sizes and times.
let arguments = CommandLine.arguments
guard arguments.count >= 4, let threads = Int(arguments[3]) else {
    print("usage: benchmark-format FILE.safetensors FOLDER THREADS [plain] [level=N]")
    exit(64)
}

/// Seconds that pass, and seconds of processor time that all threads take together.
struct Cost {
    var wall = Double.infinity
    var processor = Double.infinity

    mutating func measure(_ body: () throws -> Void) rethrows {
        let (wallStart, processorStart) = (now(CLOCK_MONOTONIC), now(CLOCK_PROCESS_CPUTIME_ID))
        try body()
        wall = min(wall, now(CLOCK_MONOTONIC) - wallStart)
        processor = min(processor, now(CLOCK_PROCESS_CPUTIME_ID) - processorStart)
    }

    private func now(_ clock: clockid_t) -> Double {
        var time = timespec()
        clock_gettime(clock, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }

    var json: String { #"{"wall": \#(wall), "processor": \#(processor)}"# }
}

let tensors = try SafetensorsFile(path: arguments[1]).tensors.map { (name: $0.name, constant: Constant(try $0.constant.load(), identity: $0.name)) }
let byteCount = try tensors.reduce(0) { try $0 + $1.constant.byteCount }
let level = arguments.dropFirst(4).first { $0.hasPrefix("level=") }.flatMap { Int($0.dropFirst(6)) }
let options = PackageWriter.Options(level: level, plain: arguments.contains("plain"), replacing: true)
let path = (arguments[2] as NSString).appendingPathComponent("benchmark.trips")
let pool = ThreadPool(threads: threads)
let manifest = Manifest(tool: .init(name: "benchmark-format", version: "1"))

var (write, read, verify) = (Cost(), Cost(), Cost())
for _ in 0..<5 {
    try write.measure {
        try PackageWriter.write(graphs: [], extraTensors: tensors, manifest: manifest, to: path, options: options, pool: pool)
    }
    let package = try PackageReader(path: path)
    try read.measure {
        try pool.tryRun(package.tensors.count) { _ = try package.constant(named: package.tensors[$0].name).load() }
    }
    try verify.measure { try package.verify(pool: pool) }
}
let size = try ReadableFile(path: path).size
try FileManager.default.removeItem(atPath: path)
print(#"{"bytes": \#(byteCount), "size": \#(size), "write": \#(write.json), "read": \#(read.json), "verify": \#(verify.json)}"#)
