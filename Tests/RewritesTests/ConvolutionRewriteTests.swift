import ModelGraph
import Rewrites
import Support
import Tensors
import Testing

/// What is fused with convolutions, and what looks like it and stays; numbers are compared with those before.
struct ConvolutionRewriteTests {
    enum Padding: CaseIterable {
        case plain, withItsOwn, valid, someAxes, zeroValue, sideBySide
        case sameUpper, ofOnes, reflected, ofChannels, cutting, open, patching

        var isFused: Bool { [.plain, .withItsOwn, .valid, .someAxes, .zeroValue, .sideBySide].contains(self) }
    }

    @Test(arguments: Padding.allCases) func paddingJoinsTheConvolution(_ form: Padding) throws {
        var m = Exported()
        let x = try m.input("x", [2, 3, 6, 7])
        let pads =
            switch form {
            case .someAxes: [1, 2]
            case .ofChannels: [0, 0, 0, 0, 0, 3, 0, 0]
            case .cutting: [0, 0, -1, 1, 0, 0, 0, 0]
            case .patching: [0, 0, 1, 1, 0, 0, 1, 0]
            default: [0, 0, 0, 1, 0, 0, 2, 1]
            }
        let amounts = form == .open ? try m.node(Cast(to: .int64), [m.input("pads", [8])]) : try m.integers(pads)
        if form == .open { m.inputs["pads"] = try Tensor(repeating: Tensor(scalar: Float(0)), shape: [8]) }
        let value: ValueID? = form == .zeroValue ? try m.scalar(0) : form == .ofOnes ? try m.scalar(1) : nil
        let axes: ValueID? = form == .someAxes ? try m.integers([-1]) : nil
        let padded = try m.node(Pad(mode: form == .reflected ? .reflect : .constant), [x, amounts, value, axes])
        let channels = form == .ofChannels ? 6 : 3
        let window =
            switch form {
            case .withItsOwn: Window(strides: [2, 1], pads: [1, 0, 0, 2])
            case .valid: Window(pads: [1, 1, 1, 1], autoPad: .valid)
            case .sameUpper: Window(autoPad: .sameUpper)
            case .patching: Window(strides: [2, 2])
            case .sideBySide: Window(strides: [2, 2], pads: [1, 1, 0, 0])
            default: Window()
            }
        try m.output(m.node(Conv(window: window), [padded, m.constant([4, channels, 2, 2]), m.constant([4])]))
        #expect(try m.fused().contains("Pad") == !form.isFused)
    }

    enum Normalization: CaseIterable {
        case plain, withBias, grouped, oneAxis
        case readTwice, computedScale

        var isFused: Bool { self != .readTwice && self != .computedScale }
    }

    @Test(arguments: Normalization.allCases) func batchNormalizationJoinsTheConvolution(_ form: Normalization) throws {
        var m = Exported()
        let x = try form == .oneAxis ? m.input("x", [2, 4, 9]) : m.input("x", [2, 4, 5, 6])
        let groups = form == .grouped ? 2 : 1
        let weight = try m.constant([6, 4 / groups, 3] + (form == .oneAxis ? [] : [3]))
        let conv = try m.node(Conv(groups: groups), [x, weight] + (form == .withBias ? [m.constant([6])] : []))
        let variance = try m.graph.addConstant(
            Constant(Tensor([0.5, 1, 2, 0.25, 4, 0.75] as [Float], shape: [6]), identity: "variance"), name: "variance")
        let scale = try form == .computedScale ? m.input("scale", [6]) : m.constant([6])
        try m.output(m.node(BatchNormalization(epsilon: 1e-3), [conv, scale, m.constant([6]), m.constant([6]), variance]))
        if form == .readTwice { try m.output(conv) }
        #expect(try m.fused() == (form.isFused ? ["Conv"] : ["BatchNormalization", "Conv"]))
    }

    enum Gate: CaseIterable { case before, behind, ofAnother, readTwice, twice }

    @Test(arguments: Gate.allCases) func productsWithASigmoidAreSwish(_ form: Gate) throws {
        var m = Exported()
        let (x, other) = (try m.input("x", [3, 40]), try m.input("other", [3, 40]))
        let gate = try m.unary(.sigmoid, x)
        switch form {
        case .before: try m.output(m.binary(.mul, gate, x))
        case .behind: try m.output(m.binary(.mul, x, gate))
        case .ofAnother: try m.output(m.binary(.mul, other, gate))
        case .readTwice:
            try m.output(m.binary(.mul, x, gate))
            try m.output(gate)
        case .twice: try m.output(m.binary(.mul, gate, m.unary(.sigmoid, other)))
        }
        #expect(try (m.fused() == ["Unary"]) == (form == .before || form == .behind))
    }
}
