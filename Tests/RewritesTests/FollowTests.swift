import ModelGraph
import Rewrites
import Support
import Tensors
import TestSupport
import Testing

/// What reads the states of a vision tower with a selection: it follows the number of tokens, or the selection is refused.
struct FollowTests {
    /// A tower of one block over [CLS] and four patches, and a text of three tokens.
    private struct Model {
        var m: Exported
        let states: ValueID
        let text: ValueID
        let textMask: ValueID

        init(positions: Positions = .constant, front: Front? = nil) throws {
            var m = Exported()
            let image = try m.input("image", [2, 3, 8, 8])
            func linear(_ x: ValueID, _ from: Int = 8, _ to: Int = 8) throws -> ValueID {
                try m.node(Linear(), [x, m.constant([to, from]), m.constant([to])])
            }
            func norm(_ x: ValueID) throws -> ValueID { try m.node(LayerNorm(epsilon: 1e-6), [x, m.constant([8])]) }
            let patches = try [image, m.constant([8, 3, 4, 4]), m.constant([8]), m.constant([8])]
            var x =
                switch positions {
                case .constant: try m.node(PatchEmbedding(), patches + [m.constant([1, 5, 8])])
                // Such as those resized to the picture; folding would tell these.
                case .computed: try m.binary(.add, m.node(PatchEmbedding(), patches), m.node(Unary(.neg), [m.constant([1, 5, 8])]))
                case .given:
                    try m.binary(.add, m.node(Unary(.neg), [m.input("positions", [1, 5, 8])]), m.node(PatchEmbedding(), patches))
                }
            func part(_ start: Int, _ end: Int) throws -> ValueID {
                try m.node(Slice(), [x, m.integers([start]), m.integers([end]), m.integers([1])])
            }
            switch front {
            case .distilled:
                let alone = try m.node(PatchEmbedding(), Array(patches[..<3]))
                let token = try m.node(Expand(), [m.constant([1, 1, 8]), m.integers([2, 1, 8])])
                let all = try m.node(Concat(axis: 1), [token, m.constant([2, 1, 8]), alone])
                x = try m.binary(.add, all, m.constant([1, 6, 8]))
            case .registers, .registersAlone:
                let first = front == .registers ? [try part(0, 1)] : []
                x = try norm(m.node(Concat(axis: 1), first + [m.constant([2, 3, 8]), part(1, 5)]))
            case nil: break
            }
            let normal = try norm(x)
            let attended = try m.node(Attention(heads: 2), [linear(normal), linear(normal), linear(normal)])
            let residual = try m.binary(.add, linear(attended), x)
            states = try m.binary(.add, linear(m.node(GELU(.erf), [linear(norm(residual), 8, 16)]), 16, 8), residual)
            text = try m.input("text", [2, 3, 8])
            textMask = try m.input("mask", [2, 1, 1, 3])
            self.m = m
        }

        mutating func integers(_ numbers: Int...) throws -> ValueID { try m.integers(numbers) }

        mutating func slice(_ x: ValueID, _ start: Int, _ end: Int, axis: Int = 1) throws -> ValueID {
            try m.node(Slice(), [x, integers(start), integers(end), integers(axis)])
        }

        mutating func row(_ x: ValueID, _ index: Int) throws -> ValueID {
            try m.node(Gather(axis: 1), [x, m.integers([index], scalar: true)])
        }

        mutating func joint(axis: Int = 1, textFirst: Bool = false) throws -> ValueID {
            try m.node(Concat(axis: axis), textFirst ? [text, states] : [states, text])
        }

        /// Numbers that are all the same, of the image's tokens.
        mutating func even(_ shape: [Int], _ number: Float = 1) throws -> ValueID {
            try m.graph.addKnown(.splat(Tensor(scalar: number)), ValueType(.float32, shape.map { Dimension($0) }), name: "even")
        }

        /// The outputs with half of the patches and one fused of the others: four tokens for five.
        func selected(_ change: (inout [String: Tensor]) throws -> Void = { _ in }) throws -> [String: Tensor] {
            var (graph, inputs) = (m.graph, m.inputs)
            try graph.select(SelectionRequest(blocks: [1], keepRates: [0.5], guidance: .imageCLS))
            let whole = try outputs(graph.withoutSelection(), inputs), plain = try outputs(m.graph, inputs)
            for (name, tensor) in plain { #expect(try whole[name]?.elements(Float.self) == tensor.elements(Float.self), "\(name)") }
            try change(&inputs)
            return try outputs(graph, inputs)
        }

        func refusal() throws -> String {
            let error = try #require(#expect(throws: TripsError.self) { try selected() })
            #expect(error.kind == .usage && "\(error)".contains("cannot follow"), "\(error)")
            return "\(error)"
        }
    }

    enum Positions { case constant, computed, given }
    /// What stands in front of the patches: a token of distillation behind [CLS], registers put between, registers alone.
    enum Front: CaseIterable { case distilled, registers, registersAlone }

    @Test(arguments: Front.allCases) func tokensBesideTheClassTokenStay(front: Front) throws {
        var a = try Model(front: front)
        let count =
            switch front {
            case .distilled: 2
            case .registers: 4
            case .registersAlone: 3
            }
        let all = a.states
        for value in try [all, a.slice(all, 0, count), a.slice(all, count, count + 4), a.row(all, 1)] { try a.m.output(value) }
        var graph = a.m.graph
        let report = try graph.select(SelectionRequest(blocks: [1], keepRates: [0.5], guidance: .imageCLS))
        #expect(report.blocks[0].tokensBefore == 4 && report.blocks[0].tokensAfter == 3)
        #expect(graph.nodes.compactMap { ($0.op as? PatchSelection)?.leading } == [count])
        let found = try outputs(graph, a.m.inputs)
        let numbers = try (0..<4).map { try #require(found["y\($0)"]).elements(Float.self) }
        #expect(
            found["y0"]?.shape == [2, count + 3, 8] && found["y1"]?.shape == [2, count, 8] && found["y2"]?.shape == [2, 3, 8])
        #expect(numbers[0].prefix((count + 3) * 8) == numbers[1].prefix(count * 8) + numbers[2].prefix(24))
        #expect(numbers[0][8..<16] == numbers[3][..<8])
    }

    /// Tokens that are made of the input are no part of what stays.
    @Test func otherTokensInFrontOfPatchesMakeNoTower() throws {
        var m = Exported()
        let patches = try m.node(PatchEmbedding(), [m.input("image", [2, 3, 8, 8]), m.constant([8, 3, 4, 4])])
        let x = try m.node(Concat(axis: 1), [m.node(Unary(.neg), [m.input("text", [2, 3, 8])]), patches])
        func linear(_ x: ValueID) throws -> ValueID { try m.node(Linear(), [x, m.constant([8, 8])]) }
        let normal = try m.node(LayerNorm(epsilon: 1e-6), [x, m.constant([8])])
        let residual = try m.binary(.add, linear(m.node(Attention(heads: 2), [linear(normal), linear(normal), linear(normal)])), x)
        try m.output(m.binary(.add, linear(m.node(LayerNorm(epsilon: 1e-6), [residual, m.constant([8])])), residual))
        #expect { try m.graph.select(SelectionRequest(blocks: [1], guidance: .imageCLS)) } throws: {
            "\($0)".contains("no vision tower was recognised")
        }
    }

    @Test func positionsMayBeComputed() throws {
        var a = try Model(positions: .computed)
        try a.m.output(a.states)
        #expect(try a.selected()["y0"]?.shape == [2, 4, 8])
        var b = try Model(positions: .given)
        try b.m.output(b.states)
        #expect { try b.selected() } throws: { "\($0)".contains("no vision tower was recognised") }
    }

    /// Such as a bias of relative positions.
    @Test func aMaskOfPairsOfTokensIsRefused() throws {
        var a = try Model()
        try a.m.output(a.m.node(Attention(heads: 2), [a.states, a.states, a.states, a.m.constant([1, 2, 5, 5])]))
        #expect(try a.refusal().contains("a number for each pair of tokens"))
    }

    @Test func patchesWithoutTheClassTokenFollow() throws {
        var a = try Model()
        try a.m.output(a.slice(a.states, 1, 5))
        try a.m.output(a.m.reshape(a.states, [10, 8]))
        try a.m.output(a.row(a.states, 0))
        try a.m.output(a.m.reshape(a.states, [2, 5, 2, 4]))
        try a.m.output(a.m.node(Gather(axis: 2), [a.states, a.m.integers([3], scalar: true)]))
        try a.m.output(a.slice(a.states, -5, -4))
        let found = try a.selected()
        #expect(
            found["y0"]?.shape == [2, 3, 8] && found["y1"]?.shape == [8, 8] && found["y3"]?.shape == [2, 4, 2, 4]
                && found["y4"]?.shape == [2, 4])
        let (rows, all, first) = try (
            #require(found["y0"]).elements(Float.self), #require(found["y1"]).elements(Float.self),
            #require(found["y2"]).elements(Float.self)
        )
        #expect(all[8..<32].elementsEqual(rows[..<24]) && all[..<8].elementsEqual(first[..<8]))
        #expect(try #require(found["y5"]).elements(Float.self) == first)
    }

    enum Reading: CaseIterable {
        case patch, lastPatch, twoRows, somePatches, patchesOfSomeChannels, patchesFromTheSecond, allAsOneRow, mixed, tiled, padded,
            expanded, otherMask, maskOfEach
    }

    @Test(arguments: Reading.allCases) func tokensThatAreReadByTheirNumbersAreRefused(form: Reading) throws {
        var a = try Model()
        let x = a.states
        let y =
            switch form {
            case .patch: try a.row(x, 2)
            case .lastPatch: try a.row(x, -1)
            case .twoRows: try a.m.node(Gather(axis: 1), [x, a.integers(0, 1)])
            case .somePatches: try a.slice(x, 1, 3)
            case .patchesOfSomeChannels: try a.m.node(Slice(), [x, a.integers(1, 2), a.integers(5, 6), a.integers(1, 2)])
            case .patchesFromTheSecond: try a.slice(x, 2, 5)
            case .allAsOneRow: try a.m.node(Linear(), [a.m.reshape(x, [2, 40]), a.m.constant([3, 40])])
            case .mixed: try a.m.reshape(x, [4, 20])
            case .tiled: try a.m.node(Tile(), [x, a.integers(1, 1, 2)])
            case .padded: try a.m.node(Pad(), [x, a.integers(0, 0, 0, 0, 0, 1)])
            case .expanded: try a.m.node(Expand(), [x, a.integers(2, 5, 8)])
            case .otherMask: try a.m.node(Attention(heads: 2), [x, x, x, a.m.constant([1, 1, 1, 5])])
            case .maskOfEach: try a.m.node(Attention(heads: 2), [a.text, x, x, a.m.constant([1, 1, 3, 5])])
            }
        try a.m.output(y)
        _ = try a.refusal()
    }

    @Test(arguments: [1, -2], [(5, 0), (6, 1), (7, 2), (-1, 2), (-3, 0)]) func rowsOfATextBehindTheImageKeepTheirPlaces(
        axis: Int, row: (index: Int, ofText: Int)
    ) throws {
        var a = try Model()
        let joint = try a.joint(axis: axis)
        try a.m.output(a.row(joint, row.index))
        try a.m.output(a.row(a.text, row.ofText))
        try a.m.output(a.slice(joint, 5, 8))
        try a.m.output(a.slice(joint, 0, 5))
        let found = try a.selected()
        #expect(try found["y0"]?.elements(Float.self) == found["y1"]?.elements(Float.self))
        #expect(try found["y2"]?.elements(Float.self) == a.m.inputs["text"]?.elements(Float.self))
        #expect(found["y3"]?.shape == [2, 4, 8])
    }

    @Test(arguments: [2, 4, -4, -7]) func rowsOfPatchesBesideATextAreRefused(index: Int) throws {
        var a = try Model()
        try a.m.output(a.row(a.joint(), index))
        #expect(try a.refusal().contains("a token is read by its number"))
    }

    /// The text goes first: its rows stay where they are, and with the patches come others.
    @Test(arguments: [(0, true), (2, true), (3, true), (4, false), (7, false), (-1, false)])
    func rowsOfATextInFrontOfTheImageKeepTheirPlaces(
        index: Int, isKnown: Bool
    ) throws {
        var a = try Model()
        try a.m.output(a.row(a.joint(textFirst: true), index))
        guard isKnown else {
            #expect(try a.refusal().contains("a token is read by its number"))
            return
        }
        try a.m.output(index < 3 ? a.row(a.text, index) : a.row(a.states, 0))
        let found = try a.selected()
        #expect(try found["y0"]?.elements(Float.self) == found["y1"]?.elements(Float.self))
    }

    @Test func partsOfTokensAndChannelsAndTokensThatAreSplitAreRefused() throws {
        var a = try Model()
        try a.m.output(a.m.node(Slice(), [a.joint(), a.integers(0, 0), a.integers(5, 4), a.integers(1, 2)]))
        #expect(try a.refusal().contains("several axes"))
        a = try Model()
        try a.m.output(a.m.reshape(a.joint(), [2, 2, 4, 8]))
        #expect(try a.refusal().contains("splits the tokens"))
    }

    @Test(arguments: [(0, 6), (4, 8), (1, 8)]) func partsAcrossTheBorderAreRefused(start: Int, end: Int) throws {
        var a = try Model()
        try a.m.output(a.slice(a.joint(), start, end))
        #expect(try a.refusal().contains("a slice of tokens"))
    }

    /// A mask of addends, one of ones and zeros that is turned into addends by primitives, and one by a block.
    enum MaskForm: CaseIterable { case addends, primitives, block }

    /// A text token that the mask hides is not seen, and one that it shows is.
    @Test(arguments: MaskForm.allCases) func masksOfImageAndTextFollow(form: MaskForm) throws {
        var a = try Model()
        let joint = try a.joint()
        let mask: ValueID
        switch form {
        case .addends: mask = try a.m.node(Concat(axis: -1), [a.even([2, 1, 1, 5], 0), a.textMask])
        case .primitives:
            let kept = try a.m.node(Concat(axis: 3), [a.even([2, 1, 1, 5]), a.textMask])
            mask = try a.m.binary(.mul, a.m.binary(.sub, a.m.scalar(1), kept), a.m.scalar(-10000))
        case .block:
            let kept = try a.m.node(Concat(axis: 1), [a.even([2, 5]), a.m.reshape(a.textMask, [2, 3])])
            mask = try a.m.node(PaddingMask(maskedValue: -10000), [kept])
        }
        a.m.inputs["mask"] = try Tensor(
            (0..<2).flatMap { _ in form == .addends ? [0, -10000, 0] : [1, 0, 1] as [Float] }, shape: [2, 1, 1, 3])
        try a.m.output(a.slice(a.m.node(Attention(heads: 2), [joint, joint, joint, mask]), 0, 5))
        func altered(_ token: Int) throws -> [Float]? {
            try a.selected { inputs in
                let numbers = try #require(inputs["text"]).elements(Float.self)
                inputs["text"] = try Tensor(
                    numbers.indices.map { $0 / 8 % 3 == token ? numbers[$0] + 1 : numbers[$0] }, shape: [2, 3, 8])
            }["y0"]?.elements(Float.self)
        }
        let found = try a.selected()["y0"]
        #expect(found?.shape == [2, 4, 8])
        #expect(try altered(1) == found?.elements(Float.self))
        #expect(try altered(2) != found?.elements(Float.self))
    }

    @Test(arguments: 0..<3) func masksOfOtherPartsAreRefused(form: Int) throws {
        var a = try Model()
        let joint = try a.joint()
        let parts =
            switch form {
            case 0: [try a.m.constant([2, 1, 1, 5]), a.textMask]
            case 1: [try a.even([2, 1, 1, 2]), try a.even([2, 1, 1, 3]), a.textMask]
            default: [a.textMask, try a.even([2, 1, 1, 5])]
            }
        try a.m.output(a.m.node(Attention(heads: 2), [joint, joint, joint, a.m.node(Concat(axis: 3), parts)]))
        _ = try a.refusal()
    }

    /// A mask beside the states, for another graph that reads them.
    @Test func masksThatArePutOutFollowTheStates() throws {
        var a = try Model()
        let rows = try a.m.input("rows", [2, 3])
        try a.m.output(a.joint())
        try a.m.output(a.m.node(Concat(axis: 1), [a.even([2, 5]), rows]))
        try a.m.output(a.m.node(Concat(axis: 1), [a.even([2, 6]), rows]))
        let found = try a.selected()
        #expect(found["y0"]?.shape == [2, 7, 8] && found["y1"]?.shape == [2, 7] && found["y2"]?.shape == [2, 9])
    }

    /// As many as a file may hold: time must not grow with the square of their number.
    @Test func manySelectionsAreTakenOut() throws {
        var graph = Graph(name: "main")
        var tokens = try graph.addInput("tokens", ValueType(.float32, [1, 20_001, 4]))
        let guide = try graph.addInput("guide", ValueType(.float32, [1, 4]))
        for number in 0..<10_000 {
            let selection = PatchSelection(heads: 1, keepRate: 0.9999)
            tokens = try graph.add(selection, [tokens, tokens, guide], name: "selection \(number)")[0]
        }
        try graph.addOutput("y", graph.add(Unary(.relu), [tokens], name: "relu")[0])
        let time = try processorSeconds {
            let (few, all) = (graph.outputs[0].value, try graph.withoutSelection())
            #expect(graph.shape(of: few)[1] != 20_001 && all.shape(of: all.outputs[0].value)[1] == 20_001)
        }
        #expect(time < 30, "one second, or minutes")
    }

    /// States that are joined to themselves again and again: their segments would fill the memory.
    @Test func statesThatAreJoinedOverAndOverAreFollowedUpToALimit() throws {
        var a = try Model()
        var joint = a.states
        for _ in 0..<36 { joint = try a.m.node(Concat(axis: 1), [joint, joint]) }
        try a.m.output(a.slice(joint, 0, 5))
        var graph = a.m.graph
        #expect { try graph.select(SelectionRequest(blocks: [1], keepRates: [0.5], guidance: .imageCLS)) } throws: {
            "\($0)".contains("a slice of tokens")
        }
    }
}
