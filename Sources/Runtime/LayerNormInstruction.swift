import Kernels
import ModelGraph
import Operators
import Support
import Tensors

/// Layer normalisation.
struct LayerNormInstruction: Instruction {
    let node: Node
    let op: LayerNorm
    let reads: [ValueID]
    let rows: Int
    let width: Int

    var label: String { node.name }
    var kind: String { LayerNorm.name }
    var multiplyAccumulates: Int { 0 }
    var writes: [ValueID] { node.outputs }

    func bind(_ memory: PlanMemory, scratch: UnsafeMutableRawPointer) throws -> @Sendable (ThreadPool) throws -> Void {
        let distance = memory.rowDistance(node.output)
        let (work, rows) = (try rowWork(memory, distance: distance), rows)
        let target = try memory.mutableView(node.output).target(Float.self)
        return { pool in
            let step = 32
            pool.run(rows.dividedRoundingUp(by: step)) {
                work($0 * step..<min(rows, ($0 + 1) * step), target.base + $0 * step * distance)
            }
        }
    }

    /// Normalises a range of rows, and writes them to an address, `distance` elements apart.
    func rowWork(_ memory: PlanMemory, distance: Int) throws -> @Sendable (Range<Int>, UnsafeMutablePointer<Float>) -> Void {
        let source = try memory.rows(node.requiredInput(0))
        let weight = try node.input(1).map { try memory.view($0).source(Float.self) }
        let bias = try node.input(2).map { try memory.view($0).source(Float.self) }
        let (width, epsilon) = (width, op.epsilon)
        return { rows, target in
            var target = target
            for run in source.runs(rows) {
                trips_layernorm_rows(
                    target, distance, source.first.base + run.lowerBound * source.distance, source.distance, run.count, width,
                    weight?.base, bias?.base, epsilon)
                target += run.count * distance
            }
        }
    }
}
