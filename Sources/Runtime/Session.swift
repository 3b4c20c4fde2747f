import ModelGraph
import Support
import Tensors

/// Runs a model. A session keeps the plans and the memory of its last runs; it is used by one thread at a time.
public final class Session {
    /// What it runs.
    public let model: Model
    let pool: ThreadPool
    private var plans = RecentValues<PlanKey, Plan>()
    private var routes = RecentValues<Request, Route>()
    private var inputsByRequest = RecentValues<InputRequest, [(name: String, type: ValueType)]>()
    private var graphsByGiven = RecentValues<GivenOutputs, Graph>()
    private lazy var inputNames = model.inputNames
    private var examplesAtOnce = RecentValues<PlanKey, Int>()
    private var decodingParts: DecodingParts?

    /// The names of a run's inputs and of the requested results.
    private struct Request: Equatable {
        let inputs: Set<String>
        let outputs: [String]?
        let traces: [String]
    }

    private struct InputRequest: Equatable {
        let results: [String]
        let given: Set<String>
    }

    /// Outputs of a graph that are its inputs instead.
    private struct GivenOutputs: Equatable {
        let graph: String
        let names: Set<String>
    }

    /// How a request is answered.
    private struct Route {
        let wanted: Set<String>
        let stages: [Stage]
    }

    private struct PlanKey: Equatable {
        let graph: String
        /// Of the inputs, by which the graph is told from one that takes other outputs.
        let shapes: [String: [Int]]
        let results: [String]
        /// Numbers of the inputs that the plan takes as constants.
        var known: [String: [UInt8]] = [:]
        var continuation: Continuation?
    }

    /// A session that has planned nothing yet.
    /// - Parameter threads: threads of its own, 1 to 1024, the one that calls `run` counted; nil: as many as there are processors,
    ///   shared by all sessions that state no number.
    public init(_ model: Model, threads: Int? = nil) {
        self.model = model
        pool = threads.map { ThreadPool(threads: $0) } ?? .shared
    }

    private init(_ model: Model, _ pool: ThreadPool) {
        self.model = model
        self.pool = pool
    }

    /// A session over other graphs with the same weights and threads.
    package func sharing(_ graphs: [Graph]) -> Session { Session(Model(graphs: graphs, sharing: model), pool) }

    /// The `decode` graph, made ready for a loop; made once.
    func decoding() throws -> DecodingParts {
        if let decodingParts { return decodingParts }
        let parts = try DecodingParts(self)
        decodingParts = parts
        return parts
    }

    /// All outputs of all graphs.
    public var outputNames: [String] { model.graphs.flatMap { $0.outputs.map(\.name) } }

    /// All intermediates that can be asked for, under their canonical names.
    public var traceNames: [String] { model.graphs.flatMap { $0.traces.map(\.name) } }

    /// The inputs that are needed to compute these outputs and intermediates, with their types.
    /// - Parameter given: other outputs that will be given instead of being computed; where they are needed, they are listed.
    /// - Throws: `usage` where a name is unknown.
    public func inputs(for results: [String], given: Set<String> = []) throws -> [(name: String, type: ValueType)] {
        if let unknown = given.subtracting(outputNames).min() {
            throw TripsError.usage("no such output", found: unknown, expected: outputNames.joined(separator: ", "))
        }
        return try inputsByRequest.value(for: InputRequest(results: results, given: given)) {
            var seen = Set<String>()
            return try stages(for: results, given: given).flatMap { stage in
                stage.inputs.map { (name: stage.graph.name(of: $0), type: stage.graph.type(of: $0)) }
            }.filter { input in (!isOutput(input.name) || given.contains(input.name)) && seen.insert(input.name).inserted }
        }
    }

    /// The outputs that other graphs of the package read.
    package var statesBetweenGraphs: [String] { outputNames.filter(Set(inputNames).contains) }

    /// Those of these outputs and intermediates that can be computed from the given inputs.
    /// - Throws: `usage` where a name is unknown.
    package func reachable(_ results: [String], from given: Set<String>) throws -> [String] {
        try results.filter { result in
            try stages(for: [result], given: given).allSatisfy { stage in
                stage.inputs.map(stage.graph.name(of:)).allSatisfy { given.contains($0) || isOutput($0) }
            }
        }
    }

    private func isOutput(_ name: String) -> Bool { model.graphs.contains { $0.outputs.contains { $0.name == name } } }

    /// Computes outputs and intermediates, and only what they need.
    /// - Parameters:
    ///   - inputs: by name; those that the results do not need may be left out. An input that another graph of the
    ///     package computes is computed, unless it is given. An output that is given is not computed: a model that has
    ///     `image_embeds` from an earlier run needs no image. An input of a narrower type, such as int32 ids, masks of Booleans
    ///     or a picture in half precision, is widened.
    ///   - outputs: names; nil: all that the given inputs allow.
    ///   - traces: names of intermediates.
    /// - Returns: tensors by name.
    /// - Throws: `usage` for unknown inputs and outputs, missing inputs, inputs that suffice for no output, wrong types and
    ///   shapes, and ids out of range; `data` where the package is damaged; `CancellationError` soon after the task that calls
    ///   was cancelled. The session can be used again then.
    public func run(
        _ inputs: [String: Tensor], outputs: [String]? = nil, traces: [String] = []
    ) throws -> [String: Tensor] {
        if let unknown = inputs.keys.filter({ !inputNames.contains($0) && !isOutput($0) }).min() {
            let names = inputNames.filter { !isOutput($0) }
            throw TripsError.usage("no such input", found: unknown, expected: names.joined(separator: ", "))
        }
        return try compute(inputs, outputs: outputs, traces: traces)
    }

    /// As `run`; inputs of other names are ignored, as files may hold them.
    package func compute(
        _ inputs: [String: Tensor], outputs: [String]? = nil, traces: [String] = []
    ) throws -> [String: Tensor] {
        try compute(inputs, outputs: outputs, traces: traces, observe: nil)
    }

    func compute(
        _ inputs: [String: Tensor], outputs: [String]?, traces: [String] = [], observe: Observer?
    ) throws -> [String: Tensor] {
        try Task.checkCancellation()
        let request = Request(inputs: Set(inputs.keys), outputs: outputs, traces: traces)
        // Kept, as traversing a large graph takes as long as running some of its layers.
        let route = try routes.value(for: request) { try self.route(request) }
        var known = inputs
        for stage in route.stages {
            let results = try runStage(
                stage, known, observe.map { observe in { observe(StepPlace(graph: stage.graph.name, index: $0), $1, $2) } })
            known.merge(results) { _, new in new }
        }
        return known.filter { route.wanted.contains($0.key) }
    }

    /// Called after each step of a run with its duration.
    typealias Observer = (StepPlace, Plan.Step, Duration) -> Void

    /// Identifies a step of a run. The parts of a batch share their steps.
    struct StepPlace: Hashable {
        let graph: String
        let index: Int
    }

    private func route(_ request: Request) throws -> Route {
        let wanted = try (request.outputs ?? reachable(outputNames, from: request.inputs)) + request.traces
        guard !wanted.isEmpty || request.outputs != nil else {
            guard !outputNames.isEmpty else { throw TripsError.usage("the package holds no graph") }
            throw TripsError.usage(
                "the inputs suffice for no output",
                found: request.inputs.isEmpty ? "none" : request.inputs.sorted().joined(separator: ", "),
                expected: try inputs(for: outputNames).map(\.name).joined(separator: ", "))
        }
        let stages = try stages(for: wanted, given: request.inputs).map { stage in
            var stage = stage
            let graph = try stage.graph.reduced(to: stage.results)
            stage.separable = try graph.separableBatch().map { (graph, $0) }
            stage.indexLimits = graph.indexLimits()
            return stage
        }
        return Route(wanted: Set(wanted), stages: stages)
    }

    /// A graph to run, with the requested results.
    private struct Stage {
        let graph: Graph
        var results: [String]
        var inputs: [ValueID]
        /// Where a batch may be run in parts: the subgraph that computes the results, and its symbol for the batch.
        var separable: (graph: Graph, batch: String)?
        var indexLimits: [IndexLimit] = []
    }

    /// The graphs to run, in order.
    private func stages(for wanted: [String], given: Set<String>) throws -> [Stage] {
        var missing = Set(wanted)
        var stages: [Stage] = []
        for graph in model.graphs.reversed() {
            let results = (graph.outputs + graph.traces).map(\.name).filter {
                missing.contains($0) && !(given.contains($0) && !wanted.contains($0))
            }
            guard !results.isEmpty else { continue }
            missing.subtract(results)
            let graph = try self.graph(graph, taking: given.subtracting(wanted))
            let inputs = graph.inputs(behind: results.compactMap(graph.value(ofResult:)))
            missing.formUnion(inputs.map(graph.name(of:)).filter { !given.contains($0) && isOutput($0) })
            stages.insert(Stage(graph: graph, results: results, inputs: inputs), at: 0)
        }
        if let unknown = missing.min() {
            throw TripsError.usage(
                "no such output or trace", found: unknown, expected: (outputNames + traceNames).joined(separator: ", "))
        }
        return stages
    }

    /// The graph with those of its outputs that are given as inputs.
    private func graph(_ graph: Graph, taking given: Set<String>) throws -> Graph {
        let computed = graph.outputs.filter { graph.producer(of: $0.value) != nil }.map(\.name)
        let outputs = GivenOutputs(graph: graph.name, names: given.intersection(computed))
        guard !outputs.names.isEmpty else { return graph }
        return try graphsByGiven.value(for: outputs) {
            var changed = graph
            for name in outputs.names.sorted() { try changed.takeOutput(name) }
            return changed
        }
    }

    private func runStage(_ stage: Stage, _ known: [String: Tensor], _ observe: Plan.Observer?) throws -> [String: Tensor] {
        let tensors = try stage.graph.accept(known, for: stage.inputs, stage.indexLimits)
        do {
            return try run(stage, tensors, observe)
        } catch let error as TripsError where error.kind == .data || error.kind == .usage {
            // Operators say what they miss, such as a first row, and not that it was never given.
            throw stage.graph.refusalOfEmptyInputs(tensors.mapValues(\.shape)) ?? error
        }
    }

    private func run(_ stage: Stage, _ tensors: [String: Tensor], _ observe: Plan.Observer?) throws -> [String: Tensor] {
        let parts = try parts(of: stage, tensors)
        guard parts.count > 1 else { return try plan(stage, tensors).run(tensors, on: pool, observe: observe) }
        let results = try parts.map { range in
            let part = try tensors.mapValues { try $0.rows(range) }
            return try plan(stage, part).run(part, on: pool, observe: observe)
        }
        return try Dictionary(
            uniqueKeysWithValues: stage.results.map { name in (name, try Tensor.joined(results.compactMap { $0[name] })) })
    }

    /// Parts for large batches; empty where the batch is run whole.
    private func parts(of stage: Stage, _ inputs: [String: Tensor]) throws -> [Range<Int>] {
        guard let separable = stage.separable, let count = inputs.values.first?.shape.first, count > 1,
            inputs.values.allSatisfy({ $0.shape.first == count })
        else { return [] }
        let key = PlanKey(graph: stage.graph.name, shapes: inputs.mapValues(\.shape), results: stage.results)
        let atOnce = try examplesAtOnce.value(for: key) { try separable.graph.examplesAtOnce(separable.batch, key.shapes) }
        let parts = count.dividedRoundingUp(by: atOnce)
        return (0..<count).split(into: parts)
    }

    /// A plan for these inputs. Where sizes depend on the numbers of small inputs (a shape, a count of repetitions), it is
    /// one for these numbers.
    private func plan(_ stage: Stage, _ inputs: [String: Tensor]) throws -> Plan {
        let shapes = inputs.mapValues(\.shape)
        let small = inputs.filter { $0.value.count <= Graph.smallInput }
        var key = PlanKey(graph: stage.graph.name, shapes: shapes, results: stage.results)
        var pinnedKey = key
        pinnedKey.known = small.mapValues { $0.withBytes { Array($0) } }
        if let plan = plans.value(for: key) ?? plans.value(for: pinnedKey) { return plan }
        let reduced = try stage.graph.reduced(to: stage.results)
        var graph = try reduced.specialized(toGiven: shapes)
        if graph.openValue != nil, !small.isEmpty {
            graph = try reduced.specialized(to: shapes, knowing: small)
            key = pinnedKey
        }
        let plan = try Plan(graph, weights: model.weights, threads: pool.threads)
        plans.keep(plan, for: key)
        return plan
    }

    /// A plan whose runs continue each other. It is the caller's alone until it is given back.
    package func takePlan(_ graph: Graph, _ shapes: [String: [Int]], _ continuation: Continuation) throws -> Plan {
        try plans.take(planKey(graph, shapes, continuation))
            ?? Plan(graph.specialized(toGiven: shapes), weights: model.weights, threads: pool.threads, continuation)
    }

    /// Keeps a plan that was taken for the next one who asks for its like.
    package func giveBack(_ plan: Plan, of graph: Graph, _ shapes: [String: [Int]]) {
        plans.keep(plan, for: planKey(graph, shapes, plan.continuation))
    }

    private func planKey(_ graph: Graph, _ shapes: [String: [Int]], _ continuation: Continuation?) -> PlanKey {
        PlanKey(graph: graph.name, shapes: shapes, results: graph.outputs.map(\.name), continuation: continuation)
    }

    /// Runs a plan that was taken.
    /// - Parameter continuing: as `Plan.run` has it.
    package func run(_ plan: Plan, _ tensors: [String: Tensor], continuing: Bool) throws -> [String: Tensor] {
        try Task.checkCancellation()
        return try plan.run(tensors, on: pool, continuing: continuing)
    }
}

extension Graph {
    /// The tensors for inputs, in the inputs' types.
    /// - Throws: `usage` where one is missing, its type does not fit, or an index is out of range.
    func accept(_ known: [String: Tensor], for inputs: [ValueID], _ limits: [IndexLimit]) throws -> [String: Tensor] {
        var tensors: [String: Tensor] = [:]
        for input in inputs {
            let (name, type) = (name(of: input), type(of: input))
            guard let given = known[name] else {
                throw TripsError.usage(
                    "input \(name) is missing", found: known.isEmpty ? "none" : known.keys.sorted().joined(separator: ", "),
                    expected: type)
            }
            guard given.dataType.isExact(in: type.dataType) else {
                throw TripsError.usage("data type of input \(name)", found: given.dataType, expected: type.dataType)
            }
            tensors[name] = try given.converted(to: type.dataType)
        }
        for limit in limits {
            let name = name(of: limit.input)
            try tensors[name].map { try limit.check($0, name: name) }
        }
        return tensors
    }
}
