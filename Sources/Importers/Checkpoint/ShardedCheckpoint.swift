import Foundation
import ModelGraph
import Support
import Tensors

/// Reads an index, such as `model.safetensors.index.json` or `pytorch_model.bin.index.json`, and the files beside it that it
/// names.
///
/// - Throws: `data` where index and shards disagree, or a shard's name leads out of the folder.
func readShards(index: ReadableFile) throws -> Checkpoint {
    try locating(index.name) {
        let document = try JSON(index, maximalSize: SafetensorsFile.maximalHeaderLength, maximalDepth: 8)
        let (shardNames, placed) = try readMap(document)
        var shardOfTensor = placed
        let folder = Support.folder(of: index.path)
        var tensors: [(name: String, constant: Constant)] = []
        var metadata: [String: String] = [:]
        var formats = Set<SourceFormat>()
        var others: [SkippedTensors] = []
        var paths: [String] = []
        for shardName in shardNames {
            let file = try openConfined(shardName, in: folder)
            paths.append(file.path)
            let shard = try Checkpoint.open(file)
            metadata.merge(shard.metadata) { first, _ in first }
            formats.insert(shard.format)
            others += shard.others
            for tensor in shard.tensors {
                guard shardOfTensor.removeValue(forKey: tensor.name) == shardName else {
                    throw TripsError.data(
                        "a tensor that the index does not place here", at: shardName, found: "\"\(tensor.name.prefix(120))\"")
                }
                tensors.append(tensor)
            }
        }
        if let missing = shardOfTensor.min(by: { $0.key < $1.key }) {
            throw TripsError.data(
                "a tensor is not in its shard", at: missing.value, found: "\(shardOfTensor.count) missing",
                expected: "\"\(missing.key.prefix(120))\"")
        }
        return Checkpoint(
            tensors: tensors, metadata: metadata, format: formats.contains(.safetensors) ? .shardedSafetensors : .shardedTorch,
            others: others, shards: paths)
    }
}

/// The shards, in the order in which the index first names them, and the one in which each tensor lies.
private func readMap(_ index: JSON) throws -> (shardNames: [String], shardOfTensor: [String: String]) {
    guard let map = index["weight_map"]?.members else {
        throw TripsError.data("weight_map", found: "none", expected: "an object of file names")
    }
    var shardNames: [String] = []
    var seen = Set<String>()
    var shardOfTensor: [String: String] = [:]
    for entry in map {
        guard let shard = entry.value.string else {
            throw TripsError.data("weight_map", at: "\"\(entry.key.prefix(120))\"", expected: "a file name")
        }
        if seen.insert(shard).inserted { shardNames.append(shard) }
        guard shardNames.count <= 1000 else { throw TripsError.data("shards", found: "more than 1000", expected: "at most 1000") }
        shardOfTensor[entry.key] = shard
    }
    return (shardNames, shardOfTensor)
}
