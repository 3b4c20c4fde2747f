import ModelGraph
import Operators
import Support
import Tensors

/// One step of a plan before memory is laid out: what it reads and writes, and how to make it run.
protocol Instruction {
    /// The name for profiles.
    var label: String { get }
    /// The operator for profiles; several joined by `+` where they were fused.
    var kind: String { get }
    var multiplyAccumulates: Int { get }
    /// Values that the step reads, without constants.
    var reads: [ValueID] { get }
    var writes: [ValueID] { get }
    /// The weights that it needs packed.
    var products: [ProductRecipe] { get }
    /// Working memory during the step.
    func scratchBytes(threads: Int) -> Int
    /// The step as a function, with all addresses resolved.
    /// - Parameter scratch: as many bytes as `scratchBytes` says, for the step alone.
    func bind(_ memory: PlanMemory, scratch: UnsafeMutableRawPointer) throws -> @Sendable (ThreadPool) throws -> Void
}

extension Instruction {
    var products: [ProductRecipe] { [] }
    func scratchBytes(threads: Int) -> Int { 0 }
}

extension Node {
    /// - Throws: `data` where the input is absent.
    func requiredInput(_ index: Int) throws -> ValueID {
        guard let value = input(index) else { throw TripsError.data("input \(index) is missing", at: name) }
        return value
    }
}

/// Any operator, computed as `Operators` computes it.
struct GenericInstruction: Instruction {
    let node: Node
    let op: any Computable
    let multiplyAccumulates: Int
    let reads: [ValueID]

    var label: String { node.name }
    var kind: String { type(of: op).name }
    var writes: [ValueID] { node.outputs }

    func bind(_ memory: PlanMemory, scratch: UnsafeMutableRawPointer) throws -> @Sendable (ThreadPool) throws -> Void {
        let inputs = try node.inputs.map { try $0.map(memory.view) }
        let outputs = try node.outputs.map(memory.mutableView)
        return { [op, node] pool in try locating(node.name) { try op.compute(inputs, into: outputs, on: pool) } }
    }
}
