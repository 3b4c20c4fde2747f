import Foundation
import Importers
import PackageFormat
import Support
import Tensors

// benchmark-format FILE.safetensors FOLDER THREADS [plain] [level=N] [storage=TYPE] [from-file]
// Writes the file's tensors, already in memory unless told otherwise, as a package into FOLDER, reads them back, and
// prints sizes, times, and the most memory that it ever held.
let arguments = CommandLine.arguments
guard arguments.count >= 4, let threads = Int(arguments[3]) else {
    print("usage: benchmark-format FILE.safetensors FOLDER THREADS [plain] [level=N] [storage=TYPE] [from-file]")
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

/// The most resident memory so far, in bytes.
func peakMemory() -> Int {
    let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") } ?? ""
    return (line.split(separator: " ").compactMap { Int($0) }.first ?? 0) * 1024
}

func value(_ name: String) -> String? {
    arguments.first { $0.hasPrefix(name + "=") }.map { String($0.dropFirst(name.count + 1)) }
}

var tensors = try SafetensorsFile(path: arguments[1]).tensors
if !arguments.contains("from-file") {
    tensors = try tensors.map { ($0.name, Constant(try $0.constant.load(), identity: $0.name)) }
}
let byteCount = try tensors.reduce(0) { try $0 + $1.constant.byteCount }
let storage = value("storage").flatMap { PackageWriter.Options.Storage(rawValue: $0) } ?? .asIs
let options = PackageWriter.Options(
    level: value("level").flatMap { Int($0) }, plain: arguments.contains("plain"), storage: storage, replacing: true)
let path = (arguments[2] as NSString).appendingPathComponent("benchmark.trips")
let pool = ThreadPool(threads: threads)
let manifest = Manifest(tool: .init(name: "benchmark-format", version: "1"))

var (write, read, verify) = (Cost(), Cost(), Cost())
var memory = 0
for _ in 0..<5 {
    try write.measure {
        try PackageWriter.write(graphs: [], extraTensors: tensors, manifest: manifest, to: path, options: options, pool: pool)
    }
    memory = max(memory, peakMemory())
    let package = try PackageReader(path: path)
    try read.measure {
        try pool.tryRun(package.tensors.count) { _ = try package.constant(named: package.tensors[$0].name).load() }
    }
    try verify.measure { try package.verify(pool: pool) }
}
let size = try ReadableFile(path: path).size
try FileManager.default.removeItem(atPath: path)
print(
    #"{"bytes": \#(byteCount), "size": \#(size), "memory": \#(memory), "write": \#(write.json), "read": \#(read.json), "verify": \#(verify.json)}"#
)
