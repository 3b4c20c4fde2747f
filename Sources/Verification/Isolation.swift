import Goldens
import ModelGraph
import PackageFormat
import Runtime
import Support
import Tensors

/// A model whose blocks are cut apart: each reads the reference's states where it would read its predecessor's, so
/// that an error stays in the block that makes it.
struct IsolatedModel {
    private let session: Session
    /// What blocks compute: intermediates, and outputs.
    private let results: [String]

    /// The name under which a state is given to the graph that is cut there.
    private static func input(_ state: String) -> String { "reference.\(state)" }

    /// - Parameters:
    ///   - whole: runs the model; its weights are shared.
    ///   - states: names of intermediates that are the reference's.
    ///   - results: names of intermediates and outputs to compute.
    init(_ whole: Session, states: Set<String>, results names: Set<String>) throws {
        var cut: [Graph] = []
        for original in whole.model.graphs {
            var graph = original
            let wanted = (graph.traces + graph.outputs).filter { names.contains($0.name) }
            for (name, value) in graph.traces
            where states.contains(name) && graph.producer(of: value) != nil && SelectionTrace(name) == nil {
                guard !graph.consumers(of: value).isEmpty else { continue }
                let given = try graph.addInput(IsolatedModel.input(name), graph.type(of: value))
                graph.replace(value, with: given)
            }
            // Results stay what the blocks compute: `replace` has moved them to what is given.
            try graph.selectOutputs([])
            graph.removeTraces()
            for (name, value) in wanted { try graph.addOutput(name, value) }
            graph.prune()
            graph.removeUnusedInputs()
            if !graph.outputs.isEmpty { cut.append(graph) }
        }
        session = whole.sharing(cut)
        results = session.outputNames
    }

    /// What each block makes of the reference's states.
    func run(_ golden: GoldenSet) throws -> [String: Tensor] {
        var inputs = golden.inputs
        for (name, tensor) in golden.intermediates { inputs[IsolatedModel.input(name)] = tensor }
        return try session.compute(inputs, outputs: results.filter { golden.intermediates[$0] != nil || golden.outputs[$0] != nil })
    }
}
