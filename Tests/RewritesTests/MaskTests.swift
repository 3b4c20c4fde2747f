import ModelGraph
import Rewrites
import Tensors
import Testing

/// The masks of attention, as exporters write them.
struct MaskTests {
    @Test(arguments: 0..<3) func paddingMasksAreFused(variant: Int) throws {
        var m = Exported()
        let mask = try m.mask("mask", [[1, 1, 0], [1, 0, 0]])
        func wide(_ x: ValueID) throws -> ValueID { try m.node(Unsqueeze(), [x, m.integers([1, 2])]) }
        func cast(_ x: ValueID) throws -> ValueID { try m.node(Cast(to: .float32), [x]) }
        func addends(_ x: ValueID) throws -> ValueID { try m.binary(.mul, m.binary(.sub, m.scalar(1), x), m.scalar(-10000)) }
        let made =
            switch variant {
            case 0: try addends(cast(wide(mask)))
            case 1: try addends(wide(cast(mask)))
            default: try wide(addends(cast(mask)))
            }
        try m.output(made)
        #expect(try m.fused() == ["PaddingMask"])
    }

    @Test func aTriangleTimesAMaskIsCausal() throws {
        var m = Exported()
        let length = Dimension(symbol: "length")
        let mask = try m.mask("mask", [[1, 1, 1, 0], [1, 1, 0, 0]], dimensions: [Dimension(symbol: "batch"), length])
        let count = try m.node(Gather(axis: 0), [m.node(Shape(), [mask]), m.integers([1], scalar: true)])
        let places = try m.node(Arange(), [m.integers([0], scalar: true), count, m.integers([1], scalar: true)])
        let lower = try m.binary(
            .lessOrEqual, m.node(Unsqueeze(), [places, m.integers([0])]), m.node(Unsqueeze(), [places, m.integers([1])]))
        let triangle = try m.node(Unsqueeze(), [m.node(Cast(to: .float32), [lower]), m.integers([0, 1])])
        let padding = try m.node(Cast(to: .float32), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
        try m.output(m.binary(.mul, m.binary(.sub, m.scalar(1), m.binary(.mul, triangle, padding)), m.scalar(-10000)))
        #expect(try m.fused() == ["PaddingMask"])
    }

    /// PyTorch's exporters write a Boolean mask so: addends, and weights of 0 for queries whose keys are all masked.
    @Test(arguments: [-Float.infinity, -.greatestFiniteMagnitude], [false, true])
    func booleanMasksAreFused(hidden: Float, guarded: Bool) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]])
        let (q, k, v) = (try m.heads(x), try m.heads(x), try m.heads(x))
        let shown = try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
        let addends = try m.node(Where(), [shown, m.scalar(0), m.scalar(hidden)])
        try m.output(
            m.attend(q, k, v, guard: guarded ? (0, false) : nil) { m, scores in
                try m.binary(.add, m.binary(.div, scores, m.scalar(2)), addends)
            })
        #expect(try m.fused() == ["Attention", "Cast", "Linear", "Linear", "Linear", "Reshape", "Where"])
    }

    /// Without a mask as well, queries may be NaN.
    @Test(arguments: [false, true]) func weightsOfNaNAreReplaced(masked: Bool) throws {
        var m = Exported()
        let (x, y) = (try m.input("x", [2, 5, 8]), try m.input("y", [2, 5, 8]))
        var numbers = try #require(m.inputs["x"]).elements(Float.self)
        numbers[11] = .nan
        m.inputs["x"] = try Tensor(numbers, shape: [2, 5, 8])
        let (q, k, v) = (try m.heads(x), try m.heads(y), try m.heads(y))
        let addends = masked ? try m.input("addends", [2, 1, 1, 5]) : nil
        try m.output(
            m.attend(q, k, v, guard: (0, false)) { m, scores in
                let scaled = try m.binary(.div, scores, m.scalar(2))
                return try addends.map { try m.binary(.add, scaled, $0) } ?? scaled
            })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    /// Another number than 0, or the weights where they are NaN.
    @Test(arguments: [(1, false), (0, true)] as [(Float, Bool)]) func weightsThatAreReplacedOtherwiseStay(
        number: Float, inverted: Bool
    ) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]])
        let (q, k, v) = (try m.heads(x), try m.heads(x), try m.heads(x))
        let shown = try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
        try m.output(
            m.attend(q, k, v, guard: (number, inverted)) { m, scores in
                try m.node(Where(), [shown, m.binary(.div, scores, m.scalar(2)), m.scalar(-.infinity)])
            })
        #expect(try !m.fused().contains("Attention"))
    }

    /// Hugging Face's BERT writes its padding mask out for each query; it hides no later keys all the same.
    @Test func aMaskWrittenOutForEachQueryIsOneRow() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [1, 0, 1, 1, 1]])
        let (q, k, v) = (try m.heads(x), try m.heads(x), try m.heads(x))
        let wide = try m.node(Expand(), [m.node(Unsqueeze(), [mask, m.integers([1, 2])]), m.integers([2, 1, 5, 5])])
        let hidden = try m.binary(.sub, m.scalar(1), m.node(Cast(to: .float32), [wide]))
        let addends = try m.node(Where(), [m.node(Cast(to: .bool), [hidden]), m.scalar(-3e38), hidden])
        try m.output(m.attend(q, k, v) { m, scores in try m.binary(.add, m.binary(.div, scores, m.scalar(2)), addends) })
        let operators = try m.fused()
        #expect(operators.contains("Attention") && !operators.contains("Expand"))
    }

    /// Hugging Face's encoders ask of each query whether its place is 0 or more, and of each key whether it is no padding.
    @Test(arguments: [false, true]) func aMaskOfQueriesThatAllCountIsOneRow(open: Bool) throws {
        var m = Exported()
        let length = open ? Dimension(symbol: "length") : 5
        let x = try m.input("x", [2, 5, 8], dimensions: [2, length, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]], dimensions: [2, length])
        let size = try m.node(Gather(axis: 0), [m.node(Shape(), [x]), m.integers([1], scalar: true)])
        let places = try m.node(Arange(), [m.integers([0], scalar: true), size, m.integers([1], scalar: true)])
        let counts = try m.node(
            Unsqueeze(), [m.binary(.greaterOrEqual, places, m.integers([0], scalar: true)), m.integers([0, 1, 3])])
        let shown = try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
        let addends = try m.node(Where(), [m.binary(.and, counts, shown), m.scalar(0), m.scalar(-.infinity)])
        func heads(_ m: inout Exported) throws -> ValueID {
            try m.transpose(m.reshape(m.linear(x, 8, 8), [2, -1, 2, 4]), [0, 2, 1, 3])
        }
        let (q, k, v) = (try heads(&m), try heads(&m), try heads(&m))
        try m.output(
            m.attend(q, k, v, guard: (0, false), length: -1) { m, scores in
                try m.binary(.add, m.binary(.div, scores, m.scalar(2)), addends)
            })
        #expect(try m.fused() == ["Attention", "Cast", "Linear", "Linear", "Linear", "Reshape", "Where"])
    }

    /// Hugging Face picks as many token types as there are tokens, by their places, from a row of zeros.
    @Test func elementsPickedFromZerosAreZeros() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5], dimensions: [2, Dimension(symbol: "length")])
        let size = try m.node(Gather(axis: 0), [m.node(Shape(), [x]), m.integers([1])])
        let places = try m.node(
            Slice(), [m.node(Unsqueeze(), [m.integers(Array(0..<9)), m.integers([0])]), m.integers([0]), size, m.integers([1])])
        let zeros = try m.node(Unsqueeze(), [m.integers(Array(repeating: 0, count: 9)), m.integers([0])])
        let picked = try m.node(GatherElements(axis: 1), [zeros, places])
        try m.output(m.binary(.add, x, m.node(Cast(to: .float32), [picked])))
        #expect(try m.fused() == [])
        // Numbers that only a double takes for the same one.
        let near = try m.node(Unsqueeze(), [m.integers((0..<9).map { $0 + 1 << 53 }), m.integers([0])])
        try m.output(m.node(GatherElements(axis: 1), [near, places]))
        #expect(try m.fused().contains("GatherElements"))
    }

    /// A mask of ones for an image's tokens, of a batch that is open.
    @Test(arguments: [1, 0]) func oneChoiceEverywhereIsKnown(condition: Int) throws {
        var m = Exported()
        let mask = try m.mask("mask", [[1, 1, 0], [1, 0, 1]], dimensions: [Dimension(symbol: "batch"), 3])
        let same = try m.node(Cast(to: .bool), [m.node(ConstantOfShape(), [m.node(Shape(), [mask]), m.integers([condition])])])
        let choice = try m.node(
            Where(), condition == 1 ? [same, m.scalar(0), m.scalar(-.infinity)] : [same, m.scalar(-.infinity), m.scalar(0)])
        try m.output(m.binary(.add, m.node(Cast(to: .float32), [mask]), choice))
        #expect(try m.fused() == ["Cast"])
    }

    /// Hugging Face writes masks as rules over places; a rule that holds everywhere leaves the padding.
    @Test func aRuleThatHoldsEverywhereIsNone() throws {
        for isStated in [true, false] {
            var m = Exported()
            let length = Dimension(symbol: "length")
            let mask = try m.mask(
                "mask", [[1, 1, 0, 1], [1, 0, 1, 1]], dimensions: isStated ? [2, 4] : [Dimension(symbol: "batch"), length])
            let rule: ValueID
            if isStated {
                let truths = try Tensor([UInt8](repeating: 1, count: 4), shape: [1, 1, 4, 1]).converted(to: .bool)
                rule = try m.graph.addConstant(Constant(truths, identity: "truths"), name: "truths")
            } else {
                let count = try m.node(Gather(axis: 0), [m.node(Shape(), [mask]), m.integers([1], scalar: true)])
                let places = try m.node(Arange(), [m.integers([0], scalar: true), count, m.integers([1], scalar: true)])
                rule = try m.binary(
                    .greaterOrEqual, m.node(Unsqueeze(), [places, m.integers([0, 1, 3])]), m.integers([0], scalar: true))
            }
            let shown = try m.binary(.and, rule, m.node(Unsqueeze(), [m.node(Cast(to: .bool), [mask]), m.integers([1, 2])]))
            try m.output(m.node(Where(), [shown, m.scalar(0), m.scalar(-1e30)]))
            #expect(try m.fused() == ["Cast", "Expand", "Reshape", "Where"])
        }
    }

    @Test func aRuleThatFailsSomewhereStays() throws {
        var m = Exported()
        let mask = try m.mask("mask", [[1, 1, 0, 1]])
        let places = try m.node(
            Arange(), [m.integers([0], scalar: true), m.integers([4], scalar: true), m.integers([1], scalar: true)])
        let rule = try m.binary(.greaterOrEqual, places, m.integers([1], scalar: true))
        try m.output(m.node(Cast(to: .float32), [m.binary(.and, rule, m.node(Cast(to: .bool), [mask]))]))
        #expect(try m.fused().contains("Binary"))
    }

    /// Hugging Face's masks read the padding at the places of the example and the key: by their sum from flattened rows, as
    /// TorchScript's exporter writes it, or by pairs of them.
    @Test(arguments: [false, true], [false, true]) func paddingThatIsReadInOrderIsAView(pairs: Bool, open: Bool) throws {
        var m = Exported()
        let mask = try m.mask(
            "mask", [[1, 1, 0, 1], [1, 0, 1, 1]],
            dimensions: open ? [Dimension(symbol: "batch"), Dimension(symbol: "length")] : nil)
        let example = try m.node(Unsqueeze(), [m.places(mask, axis: 0), m.integers([1, 2, 3])])
        let key = try m.node(Unsqueeze(), [m.places(mask, axis: 1), m.integers([0, 1, 2])])
        let read: ValueID
        if pairs {
            let shape = try m.node(
                Concat(axis: 0),
                [
                    m.node(Shape(start: 0, end: 1), [mask]), m.integers([1, 1]), m.node(Shape(start: 1, end: 2), [mask]),
                ])
            let parts = try [example, key].map { try m.node(Unsqueeze(), [m.node(Expand(), [$0, shape]), m.integers([-1])]) }
            read = try m.node(GatherND(), [mask, m.node(Concat(axis: -1), parts)])
        } else {
            let length = try m.node(Gather(axis: 0), [m.node(Shape(), [mask]), m.integers([1], scalar: true)])
            let place = try m.binary(.add, m.binary(.mul, example, length), key)
            read = try m.node(Gather(axis: 0), [m.reshape(mask, [-1]), place])
        }
        try m.output(m.node(Cast(to: .float32), [read]))
        #expect(try m.fused() == ["Cast", "Reshape"])
    }

    /// One for each query as well, whose place does not tell.
    @Test func paddingThatIsReadInOrderForEachQueryIsAView() throws {
        var m = Exported()
        let (mask, x) = (try m.mask("mask", [[1, 1, 0, 1], [1, 0, 1, 1]]), try m.input("x", [2, 3, 4]))
        let places: [Int64] = (0..<24).map { $0 / 12 * 4 + $0 % 4 }
        let read = try m.graph.addConstant(Constant(Tensor(places, shape: [2, 3, 4]), identity: "places"), name: "places")
        let padding = try m.node(Gather(axis: 0), [m.reshape(mask, [8]), read])
        try m.output(m.binary(.mul, x, m.node(Cast(to: .float32), [padding])))
        #expect(try m.fused() == ["Binary", "Cast", "Reshape"])
    }

    /// Backwards, by columns, without the first, and fewer than all.
    @Test(arguments: [[3, 2, 1, 0], [0, 2, 1, 3], [1, 2, 3, 3], [0, 1], [0, 0, 1, 1]]) func rowsInAnotherOrderStay(rows: [Int])
        throws
    {
        var m = Exported()
        let x = try m.input("x", [4, 2])
        try m.output(m.node(Gather(axis: 0), [x, m.integers(rows)]))
        #expect(try m.fused() == ["Gather"])
    }

    @Test func aMaskThatIsScaledTooStays() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.input("addends", [2, 1, 1, 5])
        let (q, k, v) = (try m.heads(x), try m.heads(x), try m.heads(x))
        try m.output(m.attend(q, k, v) { m, scores in try m.binary(.mul, m.binary(.add, scores, mask), m.scalar(0.5)) })
        #expect(try !m.fused().contains("Attention"))
    }

    /// Attention whose hidden scores are replaced by a number: of a text, and of one all of whose keys are hidden.
    private func replacing(by number: Float) throws -> Exported {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]])
        let (q, k, v) = (try m.heads(x), try m.heads(x), try m.heads(x))
        try m.output(
            m.attend(q, k, v) { m, scores in
                let shown = try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
                return try m.node(Where(), [shown, m.binary(.mul, scores, m.scalar(0.5)), m.scalar(number)])
            })
        return m
    }

    @Test(arguments: [-10_000, -1e9] as [Float]) func scoresReplacedByALargeNumberAreMasked(number: Float) throws {
        #expect(try replacing(by: number).fused() == ["Attention", "Cast", "Linear", "Linear", "Linear", "Reshape", "Where"])
    }

    @Test func scoresReplacedByASmallNumberStay() throws {
        #expect(try !replacing(by: -100).fused().contains("Attention"))
    }

    /// A mask of ones for an image's tokens.
    @Test func aReplacementOfNoScoreGoesAway() throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let (q, k, v) = (try m.heads(x), try m.heads(x), try m.heads(x))
        let none = try m.graph.addConstant(
            Constant(Tensor([Bool](repeating: false, count: 10), shape: [2, 1, 1, 5]), identity: "none"), name: "none")
        try m.output(
            m.attend(q, k, v) { m, scores in
                try m.node(Where(), [none, m.scalar(-.infinity), m.binary(.mul, scores, m.scalar(0.5))])
            })
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    /// ONNX's operator gives 0 to a query whose keys are all masked, whether by a Boolean or by -∞.
    @Test(arguments: [false, true]) func onnxAttentionWithAMaskIsFused(boolean: Bool) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]])
        let (q, k, v) = (try m.heads(x), try m.heads(x), try m.heads(x))
        let shown = try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
        let given = try boolean ? shown : m.node(Where(), [shown, m.scalar(0), m.scalar(-.infinity)])
        try m.output(m.reshape(m.transpose(m.node(OnnxAttention(), [q, k, v, given]), [0, 2, 1, 3]), [2, 5, 8]))
        #expect(try m.fused() == ["Attention", "Cast", "Linear", "Linear", "Linear", "Reshape", "Where"])
    }

    /// Such as a picture's, all of whose patches count.
    @Test(arguments: [false, true]) func aMaskThatShowsAllGoesAway(onnx: Bool) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let (q, k, v) = (try m.heads(x), try m.heads(x), try m.heads(x))
        let shown = try m.node(Cast(to: .bool), [m.node(ConstantOfShape(), [m.integers([2, 1, 1, 5]), m.integers([1])])])
        if onnx {
            try m.output(m.reshape(m.transpose(m.node(OnnxAttention(), [q, k, v, shown]), [0, 2, 1, 3]), [2, 5, 8]))
        } else {
            try m.output(
                m.attend(q, k, v) { m, scores in
                    try m.binary(
                        .add, m.binary(.div, scores, m.scalar(2)), m.node(Where(), [shown, m.scalar(0), m.scalar(-.infinity)]))
                })
        }
        #expect(try m.fused() == ["Attention", "Linear", "Linear", "Linear"])
    }

    enum Addends: CaseIterable { case positions, positionsAndHidden, hiddenThenPositions }

    /// A term for the distance of places beside the padding's; positions behind hidden scores would show those.
    @Test(arguments: Addends.allCases) func severalTermsMakeOneMask(kind: Addends) throws {
        var m = Exported()
        let x = try m.input("x", [2, 5, 8])
        let mask = try m.mask("mask", [[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]])
        let (q, k, v) = (try m.heads(x), try m.heads(x), try m.heads(x))
        let (positions, shown) = (
            try m.constant([1, 2, 5, 5]), try m.node(Cast(to: .bool), [m.node(Unsqueeze(), [mask, m.integers([1, 2])])])
        )
        try m.output(
            m.attend(q, k, v) { m, scores in
                let scores = try m.binary(.div, scores, m.scalar(2))
                switch kind {
                case .positions:
                    let addends = try m.node(Where(), [shown, m.scalar(0), m.scalar(-.greatestFiniteMagnitude)])
                    return try m.binary(.add, m.binary(.add, scores, positions), addends)
                case .positionsAndHidden: return try m.node(Where(), [shown, m.binary(.add, positions, scores), m.scalar(-1e9)])
                case .hiddenThenPositions: return try m.binary(.add, m.node(Where(), [shown, scores, m.scalar(-1e9)]), positions)
                }
            })
        #expect(try m.fused().contains("Attention") == (kind != .hiddenThenPositions))
    }
}
