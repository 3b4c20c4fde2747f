import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

private extension Exported {
    mutating func norm(_ x: ValueID) throws -> ValueID {
        try node(LayerNorm(epsilon: 1e-6), [x, constant([8]), constant([8])])
    }

    mutating func attention(_ x: ValueID) throws -> ValueID {
        let attended = try attend(heads(x), heads(x), heads(x)) { m, scores in try m.binary(.div, scores, m.scalar(2)) }
        return try linear(attended, 8, 8)
    }

    mutating func feedForward(_ x: ValueID, _ activation: TowerTests.Activation = .relu) throws -> ValueID {
        let hidden = try linear(x, 8, activation == .swiglu ? 24 : 12)
        switch activation {
        case .relu: return try linear(unary(.relu, hidden), 12, 8)
        case .silu: return try linear(binary(.mul, hidden, unary(.sigmoid, hidden)), 12, 8)
        case .swiglu:
            let halves = try graph.add(Split(axis: -1, outputs: 2), [hidden, integers([12, 12])], name: "halves")
            return try linear(binary(.mul, binary(.mul, halves[0], unary(.sigmoid, halves[0])), halves[1]), 12, 8)
        }
    }

    /// A layer over words whose positions are looked up as they are.
    mutating func text(_ ids: ValueID) throws -> ValueID {
        let places = try mask("places of \(graph.name(of: ids))", [[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]])
        let words = try node(Gather(axis: 0), [constant([10, 8]), ids])
        return try layer(norm(binary(.add, words, node(Gather(axis: 0), [constant([10, 8]), places]))))
    }

    mutating func layer(_ x: ValueID) throws -> ValueID {
        let y = try norm(binary(.add, attention(x), x))
        return try norm(binary(.add, feedForward(y), y))
    }

    /// A layer over a class token and four patches.
    mutating func vision(_ activation: TowerTests.Activation = .relu, of name: String = "image") throws -> ValueID {
        let image = try input(name, [2, 3, 8, 8])
        let map = try node(Conv(window: Window(strides: [4, 4])), [image, constant([8, 3, 4, 4]), constant([8])])
        let patches = try transpose(reshape(map, [2, 8, 4]), [0, 2, 1])
        let token = try node(Expand(), [constant([1, 1, 8]), integers([2, 1, 8])])
        let x = try node(Concat(axis: 1), [token, patches])
        let y = try binary(.add, x, attention(norm(x)))
        return try binary(.add, y, feedForward(norm(y), activation))
    }

    /// The names of the states between layers of the towers that are recognised.
    mutating func layers() throws -> [String] {
        try graph.fold()
        try graph.fuse(validating: true)
        try graph.nameIntermediates()
        return graph.traces.map(\.name)
    }
}

struct TowerTests {
    enum Activation: CaseIterable { case relu, silu, swiglu }

    @Test(arguments: Activation.allCases) func layersWithGatesAreATower(activation: Activation) throws {
        var m = Exported()
        try m.output(m.vision(activation))
        #expect(try m.layers() == ["vision.0", "vision.1"])
    }

    @Test func sumsOfEmbeddingsEnterATextTower() throws {
        var m = Exported()
        try m.output(m.text(m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]])))
        #expect(try m.layers() == ["text.0", "text.1"])
    }

    /// MPNet's layers add a term for the distance of places to each head's scores, which does not make them a decoder's.
    @Test(arguments: [false, true]) func layersWithTermsForDistances(causal: Bool) throws {
        var m = Exported()
        let ids = try m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]])
        let x = try m.norm(m.binary(.add, m.node(Gather(axis: 0), [m.constant([10, 8]), ids]), m.constant([5, 8])))
        let triangle = (0..<25).map { Float($0 % 5 <= $0 / 5 ? 0 : -10000) }
        let later = try m.graph.addConstant(Constant(Tensor(triangle, shape: [1, 1, 5, 5]), identity: "later"), name: "later")
        let attended = try m.attend(m.heads(x), m.heads(x), m.heads(x)) { m, scores in
            let scores = try m.binary(.add, m.binary(.div, scores, m.scalar(2)), m.constant([1, 2, 5, 5]))
            return try causal
                ? m.binary(
                    .add, scores,
                    m.binary(.mul, later, m.node(Cast(to: .float32), [m.reshape(m.mask("ones", [[1]]), [1, 1, 1, 1])]))) : scores
        }
        let y = try m.norm(m.binary(.add, m.linear(attended, 8, 8), x))
        try m.output(m.norm(m.binary(.add, m.feedForward(y), y)))
        let kind = causal ? "decoder" : "text"
        #expect(try m.layers() == ["\(kind).0", "\(kind).1"])
    }

    /// A second road through the layers behind one of them.
    @Test func aForkIsNoOtherText() throws {
        var m = Exported()
        let state = try m.text(m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]]))
        for _ in 0..<2 { try m.output(m.layer(state)) }
        #expect(try m.layers() == ["text.0", "text.1", "text.2"])
    }

    /// Features of regions, which nothing tells from others, and a layer behind the text that sees them.
    @Test func layersThatSeeANamedTowerDoNotGuideIt() throws {
        var m = Exported()
        let token = try m.node(Expand(), [m.constant([1, 1, 8]), m.integers([2, 1, 8])])
        let x = try m.node(Concat(axis: 1), [token, m.linear(m.input("regions", [2, 4, 6]), 6, 8)])
        let y = try m.binary(.add, x, m.attention(m.norm(x)))
        let image = try m.binary(.add, y, m.feedForward(m.norm(y)))
        let state = try m.text(m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]]))
        let read = try m.norm(m.binary(.add, m.attention(state), state))
        let seen = try m.attend(m.heads(read), m.heads(image), m.heads(image)) { m, scores in
            try m.binary(.div, scores, m.scalar(2))
        }
        let joined = try m.norm(m.binary(.add, m.linear(seen, 8, 8), read))
        try m.output(m.norm(m.binary(.add, m.feedForward(joined), joined)))
        try m.graph.fold()
        try m.graph.fuse(validating: true)
        let entering = try #require(m.graph.nodes.first { $0.op is Concat })
        try m.graph.select(SelectionRequest(blocks: [1], keepRates: [0.5], visionTower: m.graph.name(of: entering.output)))
        let selection = try #require(m.graph.nodes.first { $0.op is PatchSelection })
        let query = try #require(selection.input(2))
        let regions = m.graph.inputs.filter { m.graph.name(of: $0) == "regions" }
        #expect(!m.graph.dependents(of: regions).contains(query))
    }

    @Test func aSelectionInOneOfTwoTowersHasItsName() throws {
        var m = Exported()
        for name in ["left", "right"] { try m.output(m.vision(of: name)) }
        #expect(try m.layers() == ["vision0.0", "vision0.1", "vision1.0", "vision1.1"])
        let right = try #require(m.graph.traces.first { $0.name == "vision1.0" }).value
        try m.graph.select(
            SelectionRequest(
                blocks: [1], keepRates: [0.5], guidance: .imageCLS, visionTower: m.graph.name(of: right)))
        let names = m.graph.traces.map(\.name).filter { $0.hasPrefix("selection") }
        #expect(names == SelectionTrace.Part.allCases.map { SelectionTrace(layer: 1, $0).name })
    }

    /// A layer over a token of its own, the image and the text, as FLAVA's: its mask, ones for both of the former in one part
    /// beside the text's, gets its axes behind that.
    @Test func aMaskOfFewerPartsThanItsKeysFollowsTheSelection() throws {
        func joint(masked: Bool) throws -> [String: Tensor] {
            var m = Exported()
            let (image, words) = (try m.vision(), try m.text(m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]])))
            let token = try m.node(Expand(), [m.constant([1, 1, 8]), m.integers([2, 1, 8])])
            let x = try m.node(Concat(axis: 1), [token, m.node(Concat(axis: 1), [image, words])])
            let (q, k, v) = (try m.heads(x, 11), try m.heads(x, 11), try m.heads(x, 11))
            let ones = try m.node(ConstantOfShape(), [m.integers([2, 6]), m.integers([1])])
            let shown = try m.node(
                Cast(to: .bool), [m.node(Concat(axis: 1), [ones, m.mask("mask", [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]])])])
            let addends = try m.node(Where(), [m.node(Unsqueeze(), [shown, m.integers([1, 2])]), m.scalar(0), m.scalar(-1e30)])
            try m.output(
                m.node(
                    Gather(axis: 1),
                    [
                        m.attend(q, k, v, length: 11) { m, scores in
                            try masked
                                ? m.binary(.add, m.binary(.div, scores, m.scalar(2)), addends) : m.binary(.div, scores, m.scalar(2))
                        }, m.integers([0], scalar: true),
                    ]))
            try m.graph.fold()
            try m.graph.fuse(validating: true)
            try m.graph.select(SelectionRequest(blocks: [1], keepRates: [0.5]))
            return try outputs(m.graph, m.inputs)
        }
        #expect(try excess(joint(masked: true)["y0"], joint(masked: false)["y0"], 1e-6, 1e-6) <= 0)
    }

    /// Without [CLS], the first patch would stand for it.
    @Test func patchesWithoutAClassTokenAreNoTowerToSelectIn() throws {
        var m = Exported()
        let image = try m.input("image", [2, 3, 20, 4])
        let map = try m.node(Conv(window: Window(strides: [4, 4])), [image, m.constant([8, 3, 4, 4]), m.constant([8])])
        let x = try m.transpose(m.reshape(map, [2, 8, 5]), [0, 2, 1])
        let y = try m.binary(.add, x, m.attention(m.norm(x)))
        try m.output(m.binary(.add, y, m.feedForward(m.norm(y))))
        try m.graph.fold()
        try m.graph.fuse(validating: true)
        let options = SelectionRequest(blocks: [1], keepRates: [0.5], guidance: .imageCLS)
        let error = try #require(#expect(throws: TripsError.self) { try m.graph.select(options) })
        #expect(error.kind == .usage && "\(error)".contains("no class token") && "\(error)".contains("`visionTower`"), "\(error)")
    }

    /// Two pictures: in which of them to select must be said, by a name of the tower's patches or layers.
    @Test func oneOfSeveralTowersIsSelectedInByName() throws {
        var m = Exported()
        for name in ["left", "right"] { try m.output(m.vision(of: name)) }
        try m.graph.fold()
        try m.graph.fuse(validating: true)
        func options(_ name: String?) -> SelectionRequest {
            SelectionRequest(blocks: [1], keepRates: [0.5], guidance: .imageCLS, visionTower: name)
        }
        let error = try #require(#expect(throws: TripsError.self) { try m.graph.select(options(nil)) })
        #expect(
            error.kind == .usage && "\(error)".contains("several vision towers") && "\(error)".contains("`visionTower`"),
            "\(error)")
        func isRight(_ value: ValueID, _ graph: Graph) -> Bool {
            graph.dependents(of: graph.inputs.filter { graph.name(of: $0) == "right" }).contains(value)
        }
        let entering = try #require(m.graph.nodes.first { $0.op is PatchEmbedding && isRight($0.output, m.graph) })
        for value in [entering.output, m.graph.outputs[1].value] {
            var graph = m.graph
            try graph.select(options(graph.name(of: value)))
            let selections = graph.nodes.filter { $0.op is PatchSelection }
            #expect(selections.count == 1 && isRight(selections[0].output, graph), "\(m.graph.name(of: value))")
        }
        #expect(throws: TripsError.self) { try m.graph.select(options("middle")) }
    }

    /// The text's query goes through the tower's own projection.
    @Test func guidesOfAnotherWidthOrRankAreRefused() throws {
        var m = Exported()
        try m.output(m.vision())
        let state = try m.text(m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]]))
        try m.output(m.linear(state, 8, 12))
        try m.output(m.reshape(state, [2, 5, 2, 4]))
        try m.output(m.node(Gather(axis: 1), [state, m.integers([0], scalar: true)]))
        try m.graph.fold()
        try m.graph.fuse(validating: true)
        func refusal(_ guide: String) throws -> String {
            var graph = m.graph
            let options = SelectionRequest(blocks: [1], keepRates: [0.5], textGuide: guide)
            return "\(try #require(#expect(throws: TripsError.self) { try graph.select(options) }))"
        }
        let widths = try refusal("y1")
        #expect(widths.contains("text 12, vision 8") && widths.contains("image-cls"), "\(widths)")
        #expect(try refusal("y2").contains("no text guide of that name"))
        // A row that was read already is as good as the states.
        try m.graph.select(SelectionRequest(blocks: [1], keepRates: [0.5], textGuide: "y3"))
        #expect(m.graph.nodes.contains { $0.op is PatchSelection })
    }

    /// Behind pre-norm layers the last norm's rows guide, if there is one. A norm that begins the first fusion layer is none.
    @Test(arguments: [false, true]) func preNormTextsGuideByTheirLastState(hasLastNorm: Bool) throws {
        var m = Exported()
        let image = try m.vision()
        let words = try m.node(Gather(axis: 0), [m.constant([10, 8]), m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]])])
        let x = try m.binary(.add, words, m.constant([1, 5, 8]))
        let y = try m.binary(.add, x, m.attention(m.norm(x)))
        let last = try m.binary(.add, y, m.feedForward(m.norm(y)))
        let state = try hasLastNorm ? m.norm(last) : last
        let fused = try m.binary(.add, state, m.attention(m.norm(state)))
        let seen = try m.attend(m.heads(m.norm(fused)), m.heads(image), m.heads(image)) { m, scores in
            try m.binary(.div, scores, m.scalar(2))
        }
        try m.output(m.binary(.add, fused, m.linear(seen, 8, 8)))
        try m.output(state)
        try m.graph.fold()
        try m.graph.fuse(validating: true)
        func selected(_ guide: String?) throws -> Tensor? {
            var graph = m.graph
            try graph.select(SelectionRequest(blocks: [1], keepRates: [0.5], textGuide: guide))
            return try outputs(graph, m.inputs)["y0"]
        }
        #expect(try excess(selected(nil), selected("y1"), 1e-6, 1e-6) <= 0)
    }

    /// The first token of a causal text, as CLIP's is, sees no other.
    @Test func aCausalTextDoesNotGuide() throws {
        var m = Exported()
        try m.output(m.vision())
        let ids = try m.mask("ids", [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]])
        let x = try m.norm(m.binary(.add, m.node(Gather(axis: 0), [m.constant([10, 8]), ids]), m.constant([5, 8])))
        let triangle = (0..<25).map { Float($0 % 5 <= $0 / 5 ? 0 : -10000) }
        let later = try m.graph.addConstant(Constant(Tensor(triangle, shape: [1, 1, 5, 5]), identity: "later"), name: "later")
        let attended = try m.attend(m.heads(x), m.heads(x), m.heads(x)) { m, scores in
            try m.binary(.add, m.binary(.div, scores, m.scalar(2)), later)
        }
        let y = try m.norm(m.binary(.add, m.linear(attended, 8, 8), x))
        try m.output(m.norm(m.binary(.add, m.feedForward(y), y)))
        try m.graph.fold()
        try m.graph.fuse(validating: true)
        let error = #expect(throws: TripsError.self) { try m.graph.select(SelectionRequest(blocks: [1], keepRates: [0.5])) }
        #expect(error?.kind == .usage && String(describing: error).contains("whose first token sees the text; found a causal one"))
    }

    /// Two texts, such as a question and a candidate: which of them guides must be said.
    @Test func oneOfSeveralTextsGuidesByName() throws {
        var m = Exported()
        try m.output(m.vision())
        for name in ["question", "answer"] { try m.output(m.text(m.mask(name, [[3, 1, 4, 1, 5], [5, 9, 2, 6, 5]]))) }
        try m.graph.fold()
        try m.graph.fuse(validating: true)
        let error = try #require(
            #expect(throws: TripsError.self) { try m.graph.select(SelectionRequest(blocks: [1], keepRates: [0.5])) })
        #expect(
            error.kind == .usage && "\(error)".contains("several text encoders") && "\(error)".contains("`textGuide`"), "\(error)")
        try m.graph.select(SelectionRequest(blocks: [1], keepRates: [0.5], textGuide: "y1"))
        let selection = try #require(m.graph.nodes.first { $0.op is PatchSelection })
        let query = try #require(selection.input(2))
        let reads = { (name: String) in
            m.graph.dependents(of: m.graph.inputs.filter { m.graph.name(of: $0) == name }).contains(query)
        }
        #expect(reads("question") && !reads("answer"))
    }
}
