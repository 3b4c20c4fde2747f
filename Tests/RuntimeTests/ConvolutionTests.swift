import ModelGraph
import Tensors
import Testing

import Runtime

/// Convolutions as plans compute them, held to the operator, which multiplies copied windows.
@Suite struct ConvolutionTests {
    private static let all = [
        // One channel for each group, with all that moves windows.
        Form([2, 6, 9, 11], [6, 1, 3, 5], Conv(window: Window(pads: [1, 2, 1, 2]), groups: 6)),
        Form(
            [2, 3, 9, 11], [6, 1, 3, 3], Conv(window: Window(strides: [2, 3], dilations: [2, 1], pads: [2, 1, 0, 3]), groups: 3)),
        Form([1, 2, 8, 9], [4, 1, 2, 2], Conv(window: Window(strides: [3, 4], pads: [-1, 0, 2, -2]), groups: 2)),
        Form([1, 4, 8, 8], [4, 1, 3, 3], Conv(window: Window(strides: [2, 2], autoPad: .sameUpper), groups: 4)),
        Form([1, 37, 14, 14], [37, 1, 3, 3], Conv(window: Window(pads: [1, 1, 1, 1]), groups: 37)),
        Form([2, 20, 15, 17], [20, 1, 5, 5], Conv(window: Window(strides: [2, 2], pads: [1, 2, 2, 1]), groups: 20)),
        Form([2, 20, 7, 18], [20, 1, 5, 5], Conv(window: Window(pads: [2, 3, 4, 0]), groups: 20)),
        Form([1, 3, 12, 40], [3, 1, 7, 7], Conv(window: Window(pads: [3, -2, 3, 3]), groups: 3)),
        Form([1, 5, 3, 9], [5, 1, 3, 3], Conv(window: Window(pads: [1, 1, 1, 1]), groups: 5)),
        // Groups of several channels, more and fewer of them than threads take by themselves.
        Form([1, 12, 7, 7], [28, 3, 3, 3], Conv(window: Window(pads: [1, 1, 1, 1]), groups: 4)),
        Form([2, 40, 7, 9], [60, 2, 3, 3], Conv(window: Window(strides: [1, 2], pads: [1, 1, 1, 1]), groups: 20)),
        // No groups.
        Form([2, 5, 4, 6], [3, 5, 1, 1], Conv()),
        Form([1, 130, 3, 5], [45, 130, 1, 1], Conv(window: Window(strides: [2, 2]))),
        Form([3, 20, 9, 9], [31, 20, 3, 3], Conv(window: Window(strides: [2, 2], pads: [1, 1, 1, 1]))),
        Form([1, 7, 50, 61], [50, 7, 3, 3], Conv(window: Window(dilations: [2, 3], pads: [2, 3, 2, 3]))),
        Form([1, 3, 30, 30], [17, 3, 7, 7], Conv(window: Window(strides: [2, 2], pads: [3, 3, 3, 3]))),
        Form([1, 4, 5, 5], [6, 4, 5, 5], Conv()),
        // One axis, in pieces where it is long; three axes.
        Form([2, 5, 70], [3, 5, 1], Conv()),
        Form([1, 6, 3001], [20, 6, 3], Conv(window: Window(strides: [2], pads: [1, 1]))),
        Form([1, 2, 3, 1500], [4, 2, 3, 3], Conv(window: Window(pads: [1, 1, 1, 1]))),
        Form([2, 2, 4, 5, 6], [3, 2, 2, 3, 3], Conv(window: Window(strides: [1, 2, 1], pads: [1, 0, 1, 0, 1, 1]))),
        Form(
            [1, 20, 4, 5, 6], [20, 1, 3, 3, 3], Conv(window: Window(strides: [2, 1, 1], pads: [1, 1, 1, 1, 1, 1]), groups: 20)),
        // Left to the operator: nothing to compute, and more padding than windows.
        Form([1, 2, 0, 3], [2, 2, 1, 1], Conv(window: Window(pads: [1, 0, 1, 0]))),
        Form([1, 2, 1, 1], [2, 2, 3, 3], Conv(window: Window(dilations: [4, 4], pads: [4, 4, 4, 4]))),
    ]

    struct Form: Sendable {
        let x, weight: [Int]
        let op: Conv

        init(_ x: [Int], _ weight: [Int], _ op: Conv) { (self.x, self.weight, self.op) = (x, weight, op) }
    }

    @Test(arguments: all) func convolutionsMatchTheOperator(form: Form) throws {
        var s = Sample()
        let (x, weight) = (try s.input("x", form.x), try s.constant(form.weight))
        let plain = try s.add(form.op, [x, weight])
        let biased = try s.add(form.op, [x, weight, s.constant([form.weight[0]])])
        let shape = try #require(s.numbers[plain]).shape
        let sum = try s.add(Binary(.add), [s.add(form.op, [x, weight]), s.input("more", shape)])
        let activated = try s.add(Unary(.relu), [s.add(Binary(.add), [s.constant(shape), s.add(form.op, [x, weight])])])
        // Sums of up to 200 products of numbers below 1/2, in another order.
        try s.check([plain, biased, sum, activated], tolerance: 1e-5)
    }

    /// How the work is shared out changes no bit: all threads at one slice, or each at its own.
    @Test func resultsAreTheSameForAnyThreadCount() throws {
        var s = Sample()
        let x = try s.input("x", [3, 24, 13, 11])
        func convolved(_ weight: [Int], groups: Int = 1, strides: [Int]? = nil) throws -> ValueID {
            try s.add(Conv(window: Window(strides: strides, pads: [1, 1, 1, 1]), groups: groups), [x, s.constant(weight)])
        }
        let outputs = try [
            convolved([50, 24, 3, 3]), convolved([24, 1, 3, 3], groups: 24), convolved([24, 6, 3, 3], groups: 4, strides: [2, 2]),
            s.add(Unary(.relu), [convolved([7, 24, 1, 1])]),
        ]
        let alone = try s.results(outputs, threads: 1)
        for threads in [2, 3, 8] { #expect(try s.results(outputs, threads: threads) == alone) }
    }

    /// Each activation is fused, before and behind a residual.
    @Test func activationsAreFused() throws {
        var s = Sample()
        let (low, high) = (try s.constant(Tensor([Float(-0.1)], shape: [])), try s.constant(Tensor([Float(0.2)], shape: [])))
        let x = try s.input("x", [1, 4, 5, 6])
        let more = try s.input("more", [1, 5, 5, 6])
        let activations: [(any Operator, [ValueID?], kind: String)] = [
            (Unary(.relu), [], "Relu"), (Unary(.sigmoid), [], "Sigmoid"), (Unary(.swish), [], "Swish"),
            (Unary(.hardSwish), [], "HardSwish"),
            (Unary(.hardSigmoid, alpha: 0.3, beta: 0.4), [], "HardSigmoid"), (Clip(), [low, high], "Clip"),
            (Clip(), [nil, high], "Clip"),
            (GELU(.erf), [], "GELU"),
        ]
        var (outputs, kinds): ([ValueID], [String]) = ([], [])
        for (op, operands, kind) in activations {
            for pads in [nil, [1, 1, 1, 1]] {
                let kernel = pads == nil ? 1 : 3
                func convolved() throws -> ValueID {
                    try s.add(Conv(window: Window(pads: pads)), [x, s.constant([5, 4, kernel, kernel]), s.constant([5])])
                }
                outputs.append(try s.add(op, [convolved()] + operands))
                outputs.append(try s.add(Binary(.add), [s.add(op, [convolved()] + operands), more]))
                outputs.append(try s.add(op, [s.add(Binary(.add), [more, convolved()])] + operands))
                kinds += ["Conv+\(kind)", "Conv+\(kind)+Add", "Conv+Add+\(kind)"]
            }
        }
        try s.check(outputs)
        #expect(try s.kinds(outputs).sorted() == kinds.sorted())
    }

    /// What looks as if it could be fused, and cannot: two activations, a value that others read, sums of other shapes or of what
    /// comes later, bounds that are not known.
    @Test func whatCannotBeFusedTakesAStepOfItsOwn() throws {
        var s = Sample()
        let x = try s.input("x", [2, 4, 5, 6])
        func convolved() throws -> ValueID { try s.add(Conv(), [x, s.constant([4, 4, 1, 1])]) }
        let (twice, read, first) = (try convolved(), try convolved(), try convolved())
        let later = try s.add(Unary(.sin), [convolved()])
        let outputs = try [
            s.add(Unary(.sigmoid), [s.add(Unary(.relu), [convolved()])]), s.add(Binary(.add), [twice, twice]),
            s.add(Unary(.relu), [read]), read, s.add(Binary(.add), [convolved(), s.constant([4, 1, 1])]),
            s.add(Binary(.add), [first, later]),
            s.add(Clip(), [convolved(), s.input("low", [])]), s.add(Unary(.swish, alpha: 1.5), [convolved()]),
            s.add(Binary(.add), [s.add(Binary(.add), [convolved(), x]), x]), s.add(Binary(.sub), [convolved(), x]),
            s.add(Binary(.mul), [x, convolved()]),
        ]
        try s.check(outputs)
        let kinds = [
            ["Conv+Relu", "Unary"], ["Conv", "Binary"], ["Conv", "Unary"], ["Conv", "Binary"], ["Conv", "Conv", "Unary", "Binary"],
            ["Conv", "Clip"], ["Conv", "Unary"], ["Conv+Add", "Binary"], ["Conv", "Binary"], ["Conv", "Binary"],
        ]
        let found = try s.kinds(outputs)
        #expect(found.sorted() == kinds.joined().sorted(), "\(found)")
    }

    /// Weights that are computed, and other types.
    @Test func unsupportedOperandsFallBackToTheOperator() throws {
        var s = Sample()
        let computed = try s.add(Conv(), [s.input("x", [1, 3, 5, 5]), s.input("weight", [4, 3, 2, 2]), s.input("bias", [4])])
        let wide = try s.add(Conv(), [s.input("wide", [1, 3, 5, 5], .float64), s.constant([4, 3, 2, 2], .float64)])
        try s.check([computed, wide])
    }
}
