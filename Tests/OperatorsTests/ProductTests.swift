import ModelGraph
import Tensors
import TestSupport
import Testing

import Operators

struct ProductTests {
    /// Products by their definition, in double precision.
    private func product(_ a: Tensor, _ b: Tensor) throws -> [Double] {
        let (m, k, n) = (a.shape[0], a.shape[1], b.shape[1])
        let (x, y) = (try a.numbers(), try b.numbers())
        return (0..<m * n).map { place in (0..<k).reduce(0) { $0 + x[place / n * k + $1] * y[$1 * n + place % n] } }
    }

    @Test(arguments: [(3, 4, 5), (1, 300, 1), (200, 3, 70), (70, 3, 200), (65, 129, 257)])
    func multipliesMatrices(_ m: Int, _ k: Int, _ n: Int) throws {
        let (a, b) = (try noise([m, k]), try noise([k, n], seed: 7))
        try expect(run(MatMul(), a, b), [m, n], product(a, b))
    }

    /// More factors than are packed for a kernel.
    @Test func multipliesLongRows() throws {
        let (a, b) = (try noise([3, 65_540]), try noise([65_540, 2], seed: 7))
        // Sums of so many numbers below 1 in another order.
        try expect(run(MatMul(), a, b), [3, 2], product(a, b), tolerance: 1e-4)
    }

    @Test func multipliesBatchesAndVectors() throws {
        let (a, b) = (try counting([2, 1, 2]), try counting([2, 2]))
        try expect(run(MatMul(), a, b), [2, 1, 2], [2, 3, 6, 11])
        try expect(run(MatMul(), counting([2, 1, 1, 2]), counting([3, 2, 1])), [2, 3, 1, 1], [1, 3, 5, 3, 13, 23])
        try expect(run(MatMul(), floats([1, 2]), floats([3, 4])), [], [11])
        try expect(run(MatMul(), floats([1, 2]), counting([2, 2])), [2], [4, 7])
        try expect(run(MatMul(), counting([2, 2]), floats([1, 2])), [2], [2, 8])
        try expect(run(MatMul(), floats([], [2, 0]), floats([], [0, 2])), [2, 2], [0, 0, 0, 0])
        try expectRefusal(MatMul(), counting([2, 2]), counting([3, 2]))
        try expectRefusal(MatMul(), scalar(1), floats([1]))
    }

    @Test func multipliesIntegersAndWraps() throws {
        try expect(run(MatMul(), integers([1, 2], [1, 2]), integers([3, 4], [2, 1])), [1, 1], [11])
        try expect(run(MatMul(), Tensor([Int32.max], shape: [1, 1]), Tensor([Int32(2)], shape: [1, 1])), [1, 1], [-2])
    }

    @Test func givesTheSameNumbersOnAnyNumberOfThreads() throws {
        let (a, b) = (try noise([300, 200]), try noise([200, 300], seed: 2))
        let one = try evaluate(MatMul(), [a, b], on: .init(threads: 1))[0]
        let three = try evaluate(MatMul(), [a, b], on: .init(threads: 3))[0]
        #expect(try one.numbers() == three.numbers())
    }

    @Test func combinesProductsAndAddends() throws {
        let (a, b) = (try counting([2, 3]), try counting([3, 2]))
        try expect(run(Gemm(), a, b, nil), [2, 2], [10, 13, 28, 40])
        try expect(run(Gemm(alpha: 0.5), a, b, nil), [2, 2], [5, 6.5, 14, 20])
        try expect(run(Gemm(transposeB: true), a, a, floats([1, 2])), [2, 2], [6, 16, 15, 52])
        try expect(run(Gemm(alpha: 0.5, beta: 2), a, b, floats([1, 2])), [2, 2], [7, 10.5, 16, 24])
        try expect(run(Gemm(transposeA: true, transposeB: true), a, b, scalar(1)), [3, 3], [4, 10, 16, 5, 15, 25, 6, 20, 34])
        try expect(run(Gemm(beta: 0), a, b, floats([.nan])), [2, 2], [10, 13, 28, 40])
        try expectRefusal(Gemm(), a, b, floats([1, 2, 3]))
        try expectRefusal(Gemm(), a, a)
    }

    @Test func sumsOverNamedAxes() throws {
        let (a, b) = (try counting([2, 3]), try counting([3, 2]))
        try expect(run(Einsum(equation: "ij,jk->ik"), a, b), [2, 2], [10, 13, 28, 40])
        try expect(run(Einsum(equation: "ij->ji"), a), [3, 2], [0, 3, 1, 4, 2, 5])
        try expect(run(Einsum(equation: "ii->i"), counting([2, 2])), [2], [0, 3])
        try expect(run(Einsum(equation: "ii"), counting([2, 2])), [], [3])
        // Three terms whose first two alone would make 65536 x 65536 elements.
        let long = try counting([1 << 16])
        #expect { try run(Einsum(equation: "i,j,ij->"), long, long, floats([2], [1, 1])) } throws: {
            "\($0)".contains("elements of an intermediate of Einsum; found 4294967296")
        }
        try expect(run(Einsum(equation: "i,j->ij"), floats([1, 2]), floats([3, 4])), [2, 2], [3, 4, 6, 8])
        try expect(run(Einsum(equation: "...ij,...jk->...ik"), counting([2, 1, 2]), counting([1, 2, 1])), [2, 1, 1], [1, 3])
        try expect(
            run(Einsum(equation: "bhld, bhmd -> bhlm"), counting([1, 1, 2, 2]), counting([1, 1, 1, 2])), [1, 1, 2, 1], [1, 3])
        try expect(run(Einsum(equation: "i,i,i->"), floats([1, 2]), floats([3, 4]), floats([5, 6])), [], [63])
        try expect(run(Einsum(equation: "ij,k->k"), a, floats([1, 2])), [2], [15, 30])
        for equation in [
            "ij,jk->il", "i,jk", "ij,jk->iik", "i.j,jk->ik", "ij", "", "->", "1j,jk->k", String(repeating: "i", count: 5000),
        ] {
            try expectRefusal(Einsum(equation: equation), a, b)
        }
        try expectRefusal(Einsum(equation: "ij,jk->ik"), a, a)
    }

    @Test func attendsAsONNXSays() throws {
        let q = try noise([1, 2, 3, 4]), k = try noise([1, 2, 5, 4], seed: 3), v = try noise([1, 2, 5, 4], seed: 4)
        let scores = try run(Binary(.mul), run(MatMul(), q, run(Transpose(permutation: [0, 1, 3, 2]), k)), scalar(0.5))
        let expected = try run(MatMul(), run(Softmax(), scores), v)
        try expect(run(OnnxAttention(), q, k, v), [1, 2, 3, 4], expected.numbers())
        // A query without any key in sight gives zeros.
        let masked = try Tensor(Array(repeating: false, count: 15), shape: [3, 5])
        try expect(run(OnnxAttention(), q, k, v, masked), [1, 2, 3, 4], Array(repeating: 0, count: 24))
        // More keys than there are, or fewer than none.
        try expect(
            run(OnnxAttention(causal: true), q, k, v, nil, nil, nil, integers([.max])), [1, 2, 3, 4],
            run(OnnxAttention(causal: true), q, k, v, nil, nil, nil, integers([5])).numbers())
        try expect(
            run(OnnxAttention(causal: true), q, k, v, nil, nil, nil, integers([.min])), [1, 2, 3, 4], Array(repeating: 0, count: 24)
        )
        try expectRefusal(OnnxAttention(), counting([1, 3, 4]), counting([1, 3, 4]), counting([1, 3, 4]))
        try expectRefusal(
            OnnxAttention(queryHeads: 3, keyHeads: 0), counting([1, 3, 4]), counting([1, 3, 4]), counting([1, 3, 4]))
    }
}

struct WindowTests {
    @Test func convolves() throws {
        let x = try counting([1, 1, 3, 3])
        let ones = try floats([1, 1, 1, 1], [1, 1, 2, 2])
        try expect(run(Conv(), x, ones), [1, 1, 2, 2], [8, 12, 20, 24])
        try expect(
            run(Conv(window: Window(strides: [2, 2], pads: [1, 1, 0, 0])), x, ones, floats([10])), [1, 1, 2, 2], [10, 13, 19, 34])
        try expect(run(Conv(window: Window(autoPad: .sameUpper)), x, ones), [1, 1, 3, 3], [8, 12, 7, 20, 24, 13, 13, 15, 8])
        try expect(run(Conv(window: Window(dilations: [2, 2])), x, ones), [1, 1, 1, 1], [16])
    }

    @Test func convolvesInGroupsAndInOneDimension() throws {
        let x = try counting([2, 2, 3])
        try expect(run(Conv(groups: 2), x, floats([1, 1, 1, -1], [2, 1, 2])), [2, 2, 2], [1, 3, -1, -1, 13, 15, -1, -1])
        try expect(run(Conv(), x, floats([1, 0, 0, 1], [1, 2, 2])), [2, 1, 2], [4, 6, 16, 18])
    }

    /// Against the definition, summed in double precision; sums have up to 200 products of numbers below 1, in single
    /// precision: 200 · 6e-8.
    @Test(arguments: [
        // Groups of one channel each, with all that moves windows; the second and third take several outputs for each input.
        (x: [2, 6, 9, 11], weight: [6, 1, 3, 5], Conv(window: Window(pads: [1, 2, 1, 2]), groups: 6)),
        ([2, 3, 9, 11], [6, 1, 3, 3], Conv(window: Window(strides: [2, 3], dilations: [2, 1], pads: [2, 1, 0, 3]), groups: 3)),
        ([1, 2, 8, 9], [4, 1, 2, 2], Conv(window: Window(strides: [3, 4], pads: [-1, 0, 2, -2]), groups: 2)),
        ([1, 4, 8, 8], [4, 1, 3, 3], Conv(window: Window(strides: [2, 2], autoPad: .sameUpper), groups: 4)),
        ([2, 3, 40], [3, 1, 4], Conv(window: Window(strides: [3], pads: [2, 5]), groups: 3)),
        ([1, 2, 4, 5, 6], [2, 1, 2, 3, 3], Conv(window: Window(strides: [1, 2, 1], pads: [1, 0, 1, 0, 1, 1]), groups: 2)),
        ([1, 2, 1, 1], [2, 1, 3, 3], Conv(window: Window(dilations: [4, 4], pads: [4, 4, 4, 4]), groups: 2)),
        ([1, 2, 0, 3], [2, 1, 1, 1], Conv(window: Window(pads: [1, 0, 1, 0]), groups: 2)),
        // Groups of few channels, and of many.
        ([2, 6, 7, 7], [9, 2, 3, 3], Conv(window: Window(pads: [1, 1, 1, 1]), groups: 3)),
        ([1, 4, 7, 7], [24, 2, 3, 3], Conv(window: Window(pads: [1, 1, 1, 1]), groups: 2)),
        // Without groups; what the windows read is the input itself in the first two.
        ([2, 5, 4, 6], [3, 5, 1, 1], Conv()),
        ([2, 5, 70], [3, 5, 1], Conv()),
        ([2, 5, 4, 6], [3, 5, 1, 1], Conv(window: Window(strides: [2, 1], pads: [0, 1, 0, 0]))),
        ([1, 20, 9, 9], [7, 20, 3, 3], Conv(window: Window(strides: [2, 2], pads: [1, 1, 1, 1]))),
        ([1, 2, 3, 4, 5], [2, 2, 2, 2, 2], Conv(window: Window(pads: [0, 1, 0, 1, 0, 1]))),
    ])
    func convolvesByDefinition(_ x: [Int], _ weight: [Int], _ op: Conv) throws {
        let (image, factors, bias) = (try noise(x), try noise(weight, seed: 2), try noise([weight[0]], seed: 3))
        let result = try run(op, image, factors, bias)
        try expect(result, result.shape, convolved(image, factors, bias, op, result.shape), tolerance: 1.2e-5)
        let wide = try run(op, image.converted(to: .float64), factors.converted(to: .float64), bias.converted(to: .float64))
        try expect(wide, result.shape, convolved(image, factors, bias, op, result.shape), tolerance: 1e-14)
    }

    private func convolved(_ x: Tensor, _ weight: Tensor, _ bias: Tensor, _ op: Conv, _ shape: [Int]) throws -> [Double] {
        let (numbers, factors, start) = (try x.numbers(), try weight.numbers(), try bias.numbers())
        let (sizes, kernel) = (Array(x.shape[2...]), Array(weight.shape[2...]))
        let axes = try op.window.resolved(kernel: kernel, sizes: sizes)
        func index(_ flat: Int, _ shape: [Int]) -> [Int] {
            zip(shape, denseStrides(shape)).map { flat / $1 % $0 }
        }
        return (0..<shape.reduce(1, *)).map { flat in
            let at = index(flat, shape)
            var sum = start[at[1]]
            for input in 0..<weight.shape[1] {
                for element in 0..<kernel.reduce(1, *) {
                    let place = zip(axes, zip(at[2...], index(element, kernel))).map {
                        $0.stride * $1.0 + $0.dilation * $1.1 - $0.before
                    }
                    guard zip(place, sizes).allSatisfy({ 0..<$1 ~= $0 }) else { continue }
                    let channel = at[1] / (weight.shape[0] / op.groups) * weight.shape[1] + input
                    let inside = zip(place, denseStrides(sizes)).reduce(0) { $0 + $1.0 * $1.1 }
                    sum +=
                        numbers[(at[0] * x.shape[1] + channel) * sizes.reduce(1, *) + inside]
                        * factors[(at[1] * weight.shape[1] + input) * kernel.reduce(1, *) + element]
                }
            }
            return sum
        }
    }

    @Test func transposesConvolutions() throws {
        let x = try counting([1, 1, 2, 2])
        let weight = try floats([1, 2, 3, 4], [1, 1, 2, 2])
        try expect(run(ConvTranspose(), x, weight), [1, 1, 3, 3], [0, 1, 2, 2, 10, 10, 6, 17, 12])
        let (line, ones) = (try floats([1, 2], [1, 1, 2]), try floats([1, 1, 1], [1, 1, 3]))
        let window = Window(strides: [2])
        try expect(run(ConvTranspose(window: window), line, ones, floats([10])), [1, 1, 5], [11, 11, 13, 12, 12])
        let padded = Window(strides: [2], pads: [1, 1])
        try expect(run(ConvTranspose(window: padded, outputPadding: [1]), line, ones), [1, 1, 4], [1, 3, 2, 2])
        try expect(run(ConvTranspose(window: window, outputShape: [4]), line, ones), [1, 1, 4], [1, 3, 2, 2])
        try expect(run(ConvTranspose(window: Window(strides: [2], autoPad: .sameUpper)), line, ones), [1, 1, 4], [1, 1, 3, 2])
        try expect(
            run(ConvTranspose(groups: 2), counting([1, 2, 1]), floats([1, 2, 3, 4], [2, 1, 2])), [1, 2, 2], [0, 0, 3, 4])
    }

    @Test func poolsTheLargest() throws {
        let x = try counting([1, 1, 3, 3])
        let outputs = try evaluate(MaxPool(kernelShape: [2, 2], window: Window(pads: [1, 1, 0, 0]), indices: true), [x])
        try expect(outputs[0], [1, 1, 3, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8])
        try expect(outputs[1], [1, 1, 3, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8])
        let columns = try evaluate(MaxPool(kernelShape: [2, 2], indices: true, columnMajor: true), [x])
        try expect(columns[1], [1, 1, 2, 2], [4, 7, 5, 8])
        try expect(
            run(MaxPool(kernelShape: [2, 2], window: Window(strides: [2, 2]), ceilMode: true), x), [1, 1, 2, 2], [4, 5, 7, 8])
        try expect(run(MaxPool(kernelShape: [2]), Tensor([Int8(-5), -3, -4], shape: [1, 1, 3])), [1, 1, 2], [-3, -3])
    }

    /// With their places or without, at steps that are compiled apart.
    @Test(arguments: 1...3) func poolsTheLargestAtAnyStep(step: Int) throws {
        var numbers = try noise([2, 3, 17, 40]).elements(Float.self)
        numbers[777] = .nan
        let x = try floats(numbers, [2, 3, 17, 40])
        let window = Window(strides: [step, step], pads: [1, 1, 1, 1])
        let values = try run(MaxPool(kernelShape: [3, 3], window: window), x)
        let placed = try evaluate(MaxPool(kernelShape: [3, 3], window: window, indices: true), [x])
        try expect(values, placed[0].shape, placed[0].numbers(), tolerance: 0)
        for (value, place) in try zip(values.elements(Float.self), placed[1].integers()) {
            #expect(value == numbers[place] || value.isNaN && numbers[place].isNaN)
        }
    }

    @Test func poolsTheMean() throws {
        let x = try counting([1, 1, 3, 3])
        let corner = Window(strides: [2, 2], pads: [1, 1, 0, 0])
        try expect(run(AveragePool(kernelShape: [2, 2], window: corner), x), [1, 1, 2, 2], [0, 1.5, 4.5, 6])
        try expect(
            run(AveragePool(kernelShape: [2, 2], window: corner, countPadding: true), x), [1, 1, 2, 2], [0, 0.75, 2.25, 6])
        // A window over the end counts what is there.
        try expect(
            run(
                AveragePool(kernelShape: [2], window: Window(strides: [2]), ceilMode: true, countPadding: true),
                counting([1, 1, 3])), [1, 1, 2], [0.5, 2])
        try expect(run(GlobalPool(.average), x), [1, 1, 1, 1], [4])
        try expect(run(GlobalPool(.max), x), [1, 1, 1, 1], [8])
    }

    @Test func refusesWindowsThatDoNotFit() throws {
        let x = try counting([1, 1, 3, 3])
        let weight = try counting([1, 1, 2, 2])
        for window in [
            Window(strides: [0, 1]), Window(strides: [1]), Window(dilations: [-1, 1]), Window(pads: [1, 1]),
            Window(dilations: [9, 9]),
            Window(strides: [.max, .max]), Window(pads: [.max, 0, .max, 0]), Window(pads: [.min, 0, 0, 0]),
        ] {
            try expectRefusal(Conv(window: window), x, weight)
            try expectRefusal(MaxPool(kernelShape: [2, 2], window: window), x)
        }
        try expectRefusal(Conv(groups: 0), x, weight)
        try expectRefusal(Conv(groups: 2), x, weight)
        try expectRefusal(Conv(kernelShape: [3, 3]), x, weight)
        try expectRefusal(MaxPool(kernelShape: [0, 2]), x)
        try expectRefusal(MaxPool(kernelShape: [.max, .max]), x)
        try expectRefusal(ConvTranspose(outputPadding: [-1, 0]), x, weight)
        try expectRefusal(ConvTranspose(window: Window(pads: [9, 9, 9, 9])), x, weight)
    }

    /// A mask of one column is that of all keys; one that ends before the keys hides the others.
    @Test func takesMasksOfFewerColumns() throws {
        let (q, k, v) = (try noise([1, 2, 3, 4]), try noise([1, 2, 5, 4], seed: 2), try noise([1, 2, 5, 4], seed: 3))
        let column = try noise([3, 1], seed: 4)
        let wide = try run(Expand(), column, integers([3, 5]))
        try expect(run(OnnxAttention(), q, k, v, column), [1, 2, 3, 4], run(OnnxAttention(), q, k, v, wide).numbers())
        let short = try noise([3, 4], seed: 5)
        let padded = try run(Pad(), short, integers([0, 0, 0, 1]), scalar(-.infinity))
        try expect(run(OnnxAttention(), q, k, v, short), [1, 2, 3, 4], run(OnnxAttention(), q, k, v, padded).numbers())
    }

    /// Nobody sees keys behind the stated number, and the last query sees all others, as if the first of them were of the past.
    @Test func hidesKeysThatArePadding() throws {
        let (q, k, v) = (try noise([1, 2, 3, 4]), try noise([1, 2, 5, 4], seed: 2), try noise([1, 2, 5, 4], seed: 3))
        func part(_ x: Tensor, _ start: Int64, _ end: Int64) throws -> Tensor {
            try run(Slice(), x, integers([start]), integers([end]), integers([2]))
        }
        let all = try run(OnnxAttention(), q, part(k, 0, 4), part(v, 0, 4))
        try expect(run(OnnxAttention(), q, k, v, nil, nil, nil, integers([4])), [1, 2, 3, 4], all.numbers())
        let causal = try run(OnnxAttention(causal: true), q, part(k, 1, 4), part(v, 1, 4), nil, part(k, 0, 1), part(v, 0, 1))
        try expect(run(OnnxAttention(causal: true), q, k, v, nil, nil, nil, integers([4])), [1, 2, 3, 4], causal.numbers())
    }
}
