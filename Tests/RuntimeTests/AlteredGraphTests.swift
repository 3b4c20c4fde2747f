import class Foundation.JSONDecoder
import class Foundation.JSONEncoder
import class Foundation.JSONSerialization
import ModelGraph
import PackageFormat
import Support
import Tensors
import Testing

import Runtime

/// Graph documents of a package, altered at a place or two: each ends in results or in an error of ours. A trap would end
/// the tests.
@Suite struct AlteredGraphTests {
    @Test(arguments: 0..<40) func graphsThatWereAlteredRunOrAreRefused(number: Int) throws {
        let (document, constants) = try sample()
        let whole = try JSONSerialization.jsonObject(with: JSONEncoder().encode(document))
        var generator = SplitMix64(state: UInt64(number))
        for _ in 0..<25 {
            var altered = whole
            for _ in 0...generator.below(2) { altered = alter(altered, &generator) }
            guard let data = try? JSONSerialization.data(withJSONObject: altered),
                let document = try? JSONDecoder().decode(GraphDocument.self, from: data)
            else { continue }
            do {
                let graph = try Graph(document) { name in
                    guard let constant = constants[name] else { throw TripsError.data("no such tensor", found: name) }
                    return constant
                }
                let session = Session(
                    Model(graphs: [graph], manifest: Manifest(tool: .init(name: "test", version: ""))), threads: 1)
                _ = try session.run(session.syntheticInputs(batch: 2, length: 3))
            } catch {
                #expect(error is TripsError, "\(error)")
            }
        }
    }

    /// A vision block with a selection, a text, and what exporters write around them.
    private func sample() throws -> (GraphDocument, [String: Constant]) {
        var graph = Graph(name: "main")
        var (generator, constants) = (SplitMix64(state: 7), [String: Constant]())
        func constant(_ name: String, _ shape: [Int]) throws -> ValueID {
            let numbers = (0..<shape.reduce(1, *)).map { _ in Float(generator.uniform() - 0.5) }
            constants[name] = Constant(try Tensor(numbers, shape: shape))
            return try graph.addConstant(#require(constants[name]), name: name)
        }
        func known(_ sizes: [Dimension], scalar: Bool = false) throws -> ValueID {
            try graph.addKnown(.dimensions(sizes), ValueType(.int64, scalar ? [] : [Dimension(sizes.count)]), name: "known")
        }
        func add(_ op: any Operator, _ inputs: [ValueID?]) throws -> ValueID {
            try graph.add(op, inputs, name: "\(type(of: op))")[0]
        }
        let (batch, length) = (Dimension(symbol: "batch"), Dimension(symbol: "length"))
        let image = try graph.addInput("image", ValueType(.float32, [batch, 3, 8, 8]))
        let ids = try graph.addInput("ids", ValueType(.int64, [batch, length]))
        let words = try add(
            Embedding(),
            [
                ids, constant("words", [9, 8]),
                add(Slice(), [constant("positions", [1, 6, 8]), known([0]), known([length]), known([1])]),
            ])
        let tokens = try add(
            PatchEmbedding(), [image, constant("patches", [8, 3, 2, 2]), constant("bias", [8]), constant("token", [8])])
        let normal = try add(LayerNorm(epsilon: 1e-5), [tokens, constant("norm", [8]), constant("shift", [8])])
        let (q, k, v) = (
            try add(Linear(), [normal, constant("q", [8, 8]), constant("q.bias", [8])]),
            try add(Linear(), [normal, constant("k", [8, 8])]),
            try add(Linear(), [normal, constant("v", [8, 8])])
        )
        let residual = try add(Binary(.add), [add(Attention(heads: 2), [q, k, v]), tokens])
        let guide = try add(Gather(axis: 1), [words, known([0], scalar: true)])
        let selected = try graph.add(PatchSelection(heads: 2, keepRate: 0.5), [residual, k, guide], name: "selection")
        let hidden = try add(GELU(.erf), [add(Linear(), [selected[0], constant("up", [16, 8])])])
        let states = try add(Linear(), [hidden, constant("down", [8, 16])])
        let flat = try add(Reshape(), [states, known([batch, -1])])
        let weights = try add(Softmax(), [add(MatMul(), [words, add(Transpose(permutation: [0, 2, 1]), [words])])])
        try graph.addOutput("feature", add(L2Normalize(epsilon: 1e-12), [add(Concat(axis: 1), [flat, guide])]))
        try graph.addOutput("mixed", add(MatMul(), [weights, words]))
        try graph.addOutput("best", graph.add(TopK(), [flat, known([2])], name: "best")[1])
        try graph.addOutput("indices", selected[1])
        try graph.validate()
        return (try graph.document { value, _ in graph.name(of: value) }, constants)
    }

    // MARK: Altering

    private static let numbers = [0, 1, 2, 3, 7, 8, 64, -1, -2, 1 << 20, 1 << 31, 1 << 40, 1 << 60, .max, .min]
    private static let words = [
        "batch", "length", "?", "batch-5", "2*batch", "batch*length", "F64", "F16", "I64", "I8", "BOOL", "image", "ids", "words",
        "up",
    ]

    /// The JSON value with something else in one place.
    private func alter(_ json: Any, _ generator: inout SplitMix64) -> Any {
        switch json {
        case var object as [String: Any] where !object.isEmpty:
            let key = object.keys.sorted()[generator.below(object.count)]
            object[key] = object[key].map { alter($0, &generator) }
            return object
        case var array as [Any] where !array.isEmpty:
            let index = generator.below(array.count)
            switch generator.below(12) {
            case 0: array.remove(at: index)
            case 1: array.append(array[index])
            case 2: array.swapAt(index, generator.below(array.count))
            default: array[index] = alter(array[index], &generator)
            }
            return array
        case is String: return generator.below(3) == 0 ? number(&generator) : word(&generator)
        default: return generator.below(4) == 0 ? word(&generator) : number(&generator)
        }
    }

    private func number(_ generator: inout SplitMix64) -> Any { Self.numbers[generator.below(Self.numbers.count)] }

    private func word(_ generator: inout SplitMix64) -> Any {
        let names = OperatorTable.all.map { $0.name }
        let index = generator.below(Self.words.count + names.count)
        return index < Self.words.count ? Self.words[index] : names[index - Self.words.count]
    }
}

extension SplitMix64 {
    fileprivate mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}
