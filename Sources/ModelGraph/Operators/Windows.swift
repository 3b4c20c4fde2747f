import Support
import Tensors

/// How windows slide over the spatial axes of [B, C, ...]: what convolutions and pools share.
package struct Window: Sendable, Hashable, Codable {
    /// How paddings are found where they are not stated.
    package enum AutoPad: String, Sendable, Hashable, NamedChoice {
        case notSet = "NOTSET"
        case sameUpper = "SAME_UPPER"
        case sameLower = "SAME_LOWER"
        case valid = "VALID"

        /// True where sizes decide the paddings.
        package var isSame: Bool { self == .sameUpper || self == .sameLower }

        /// The paddings before and after of a total; `sameUpper` puts the odd element at the end, all others at the beginning.
        func split(_ total: Int) -> (before: Int, after: Int) {
            let less = total / 2
            return self == .sameUpper ? (less, total - less) : (total - less, less)
        }
    }
    /// nil: 1 for each axis.
    package var strides: [Int]?
    /// nil: 1 for each axis.
    package var dilations: [Int]?
    /// All begins, then all ends; nil: 0.
    package var pads: [Int]?
    /// `pads` counts only where this is `notSet`.
    package var autoPad: AutoPad

    package init(strides: [Int]? = nil, dilations: [Int]? = nil, pads: [Int]? = nil, autoPad: AutoPad = .notSet) {
        self.strides = strides
        self.dilations = dilations
        self.pads = pads
        self.autoPad = autoPad
    }

    /// The largest kernel (all of its elements), stride, dilation or padding that is taken; nothing that computes needs more,
    /// and products of three of them stay far from overflow.
    package static let limit = 1 << 20

    /// Stride, dilation and paddings of one axis.
    package struct Axis: Sendable {
        package var kernel, stride, dilation, before, after: Int
        /// From the first to the last element that the window reads, both counted.
        package var extent: Int { (kernel - 1) * dilation + 1 }
    }

    /// The axes for a kernel.
    /// - Throws: `data` where numbers of entries differ or values are out of range.
    package func axes(kernel: [Int]) throws -> [Axis] {
        let rank = kernel.count
        func checked(_ values: [Int]?, _ name: String, count: Int, default: Int, minimum: Int) throws -> [Int] {
            guard let values, !values.isEmpty else { return Array(repeating: `default`, count: count) }
            guard values.count == count, values.allSatisfy({ $0 >= minimum && $0 <= Window.limit }) else {
                throw TripsError.data(name, found: "\(values)", expected: "\(count) numbers in \(minimum) ... \(Window.limit)")
            }
            return values
        }
        let elements = try checked(kernel, "kernel shape", count: rank, default: 1, minimum: 1).reduce(1) {
            min($0 * $1, Window.limit + 1)
        }
        guard elements <= Window.limit else {
            throw TripsError.data("kernel shape", found: "\(kernel)", expected: "at most \(Window.limit) elements")
        }
        let strides = try checked(strides, "strides", count: rank, default: 1, minimum: 1)
        let dilations = try checked(dilations, "dilations", count: rank, default: 1, minimum: 1)
        let pads = try checked(autoPad == .notSet ? pads : nil, "pads", count: 2 * rank, default: 0, minimum: -Window.limit)
        return (0..<rank).map {
            Axis(kernel: kernel[$0], stride: strides[$0], dilation: dilations[$0], before: pads[$0], after: pads[$0 + rank])
        }
    }

    /// The paddings of each axis once the input's sizes are known.
    package func resolved(kernel: [Int], sizes: [Int]) throws -> [Axis] {
        var axes = try axes(kernel: kernel)
        guard autoPad.isSame else { return axes }
        for index in axes.indices {
            let (size, stride) = (sizes[index], axes[index].stride)
            let total = max(0, (size.dividedRoundingUp(by: stride) - 1) * stride + axes[index].extent - size)
            (axes[index].before, axes[index].after) = autoPad.split(total)
        }
        return axes
    }

    /// The number of windows along each axis.
    func outputSizes(kernel: [Int], sizes: [Dimension], ceilMode: Bool = false) throws -> [Dimension] {
        guard kernel.count == sizes.count else {
            throw TripsError.data("kernel shape", found: "\(kernel)", expected: "\(sizes.count) sizes")
        }
        return try zip(axes(kernel: kernel), sizes).map { axis, size in
            if autoPad.isSame {
                guard let size = size.constant else { return size.divided(exactlyBy: Dimension(axis.stride)) ?? .unknown }
                return Dimension(size.dividedRoundingUp(by: axis.stride))
            }
            let room = try size.adding(Dimension(axis.before + axis.after - axis.extent))
            guard let constant = room.constant, let size = size.constant else {
                let steps = ceilMode ? room.divided(exactlyBy: Dimension(axis.stride)) : room.floor(dividedBy: axis.stride)
                return try steps?.adding(1) ?? .unknown
            }
            guard constant >= 0 else {
                throw TripsError.data(
                    "window", found: "extent \(axis.extent) over \(size), padded by \(axis.before) and \(axis.after)",
                    expected: "one that fits")
            }
            var count = constant / axis.stride + 1
            if ceilMode, constant % axis.stride != 0 {
                count += 1
                // A window that would begin in the padding after the end is left out.
                if (count - 1) * axis.stride >= size + axis.before { count -= 1 }
            }
            return Dimension(count)
        }
    }
}

extension Operand {
    /// The spatial sizes of an operand [B, C, ...].
    fileprivate func spatial(_ name: String) throws -> [Dimension] {
        guard type.rank >= 3 else { throw TripsError.data("rank of \(name)", found: type, expected: "3 or more") }
        // Far from overflow where it is multiplied by a stride.
        guard type.shape[2...].allSatisfy({ ($0.constant ?? 0) <= 1 << 40 }) else {
            throw TripsError.data("spatial sizes of \(name)", found: type, expected: "at most 2^40")
        }
        return Array(type.shape[2...])
    }

    /// The constant spatial sizes of a weight [A, B, ...].
    fileprivate func kernel(stated: [Int]?) throws -> [Int] {
        let sizes = try spatial("weight").compactMap(\.constant)
        guard sizes.count == type.rank - 2, stated == nil || stated == sizes else {
            throw TripsError.data("kernel shape", found: type, expected: stated.map { "\($0)" } ?? "constant sizes")
        }
        return sizes
    }
}

/// Inputs: x [B, C, ...]; weight [O, C / groups, ...]; optional bias [O]. Output [B, O, ...].
package struct Conv: Operator {
    package static let maximalInputs: Int? = 3
    /// How the kernel slides.
    package var window: Window
    /// Groups of channels that are convolved apart.
    package var groups: Int
    /// nil: the weight's.
    package var kernelShape: [Int]?

    package init(window: Window = Window(), groups: Int = 1, kernelShape: [Int]? = nil) {
        self.window = window
        self.groups = groups
        self.kernelShape = kernelShape
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x")
        let weight = try inputs.required(1, "weight").typed(x.type.dataType, "weight").ranked(x.type.rank, "weight")
        let sizes = try window.outputSizes(kernel: weight.kernel(stated: kernelShape), sizes: x.spatial("x"))
        let outputs = weight.type.shape[0]
        guard groups > 0, groups <= Window.limit, outputs.constant.map({ $0 % groups == 0 }) ?? true,
            mayBeEqual(x.type.shape[1], try weight.type.shape[1].multiplied(by: Dimension(groups)))
        else {
            throw TripsError.data(
                "channels", found: "\(x.type) and weight \(weight.type)", expected: "channels in \(groups) groups")
        }
        try inputs.optional(2)?.typed(x.type.dataType, "bias").shaped([outputs], "bias")
        return [ValueType(x.type.dataType, [x.type.shape[0], outputs] + sizes)]
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard let weight = inputs[1], let y = outputs.first else { return nil }
        return try product(y.shape).multiplied(by: product(weight.shape[1...]))
    }
}

/// The transpose of a convolution. Inputs: x [B, C, ...]; weight [C, O / groups, ...]; optional bias [O]. Output [B, O, ...].
package struct ConvTranspose: Operator {
    package static let maximalInputs: Int? = 3
    /// That of the convolution whose transpose it is.
    package var window: Window
    /// Groups of channels that are convolved apart.
    package var groups: Int
    /// nil: the weight's.
    package var kernelShape: [Int]?
    /// Added to the sizes, at the end; nil: 0.
    package var outputPadding: [Int]?
    /// The sizes of the output; paddings follow from them. nil: they follow from the paddings.
    package var outputShape: [Int]?

    package init(
        window: Window = Window(), groups: Int = 1, kernelShape: [Int]? = nil, outputPadding: [Int]? = nil,
        outputShape: [Int]? = nil
    ) {
        self.window = window
        self.groups = groups
        self.kernelShape = kernelShape
        self.outputPadding = outputPadding
        self.outputShape = outputShape
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x")
        let weight = try inputs.required(1, "weight").typed(x.type.dataType, "weight").ranked(x.type.rank, "weight")
        let kernel = try weight.kernel(stated: kernelShape)
        let sizes = try sizes(kernel: kernel, x.spatial("x"))
        guard groups > 0, groups <= Window.limit, mayBeEqual(x.type.shape[1], weight.type.shape[0]),
            weight.type.shape[0].constant.map({ $0 % groups == 0 }) ?? true
        else {
            throw TripsError.data("channels", found: "\(x.type) and weight \(weight.type)", expected: "equal, in \(groups) groups")
        }
        let outputs = try weight.type.shape[1].multiplied(by: Dimension(groups))
        try inputs.optional(2)?.typed(x.type.dataType, "bias").shaped([outputs], "bias")
        return [ValueType(x.type.dataType, [x.type.shape[0], outputs] + sizes)]
    }

    private func sizes(kernel: [Int], _ sizes: [Dimension]) throws -> [Dimension] {
        let axes = try window.axes(kernel: kernel)
        let extra = try self.extra(count: axes.count)
        if let outputShape, !outputShape.isEmpty {
            guard outputShape.count == axes.count, outputShape.allSatisfy({ $0 >= 0 && $0 <= Window.limit }) else {
                throw TripsError.data("output shape", found: "\(outputShape)", expected: "\(axes.count) sizes")
            }
            return outputShape.map { Dimension($0) }
        }
        return try axes.indices.map { index in
            let axis = axes[index]
            let scaled = try sizes[index].multiplied(by: Dimension(axis.stride))
            if window.autoPad.isSame { return scaled }
            let rest = axis.extent - axis.stride + extra[index] - axis.before - axis.after
            return try checkedSize(scaled.adding(Dimension(rest)), "size of the output")
        }
    }

    private func extra(count: Int) throws -> [Int] {
        guard let outputPadding, !outputPadding.isEmpty else { return Array(repeating: 0, count: count) }
        guard outputPadding.count == count, outputPadding.allSatisfy({ $0 >= 0 && $0 <= Window.limit }) else {
            throw TripsError.data("output padding", found: "\(outputPadding)", expected: "\(count) numbers of 0 or more")
        }
        return outputPadding
    }

    /// The axes with the paddings that give the output these sizes.
    package func resolved(kernel: [Int], sizes: [Int], outputs: [Int]) throws -> [Window.Axis] {
        var axes = try window.axes(kernel: kernel)
        let stated = !(outputShape ?? []).isEmpty
        guard stated || window.autoPad.isSame else { return axes }
        let extra = try extra(count: axes.count)
        for index in axes.indices {
            let total = max(0, axes[index].stride * (sizes[index] - 1) + extra[index] + axes[index].extent - outputs[index])
            (axes[index].before, axes[index].after) = window.autoPad.split(total)
        }
        return axes
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        guard let x = inputs[0], let weight = inputs[1] else { return nil }
        return try product(x.shape).multiplied(by: product(weight.shape[1...]))
    }
}

/// The largest element of each window. Input: x [B, C, ...]. Outputs: the elements; with `indices` also where in x they
/// are, as int64 places in the flattened x.
package struct MaxPool: Operator {
    package var kernelShape: [Int]
    package var window: Window
    /// A last window that reaches beyond the end counts.
    package var ceilMode: Bool
    /// Places are an output, too.
    package var indices: Bool
    /// Places count down the columns of the spatial axes.
    package var columnMajor: Bool

    package init(
        kernelShape: [Int], window: Window = Window(), ceilMode: Bool = false, indices: Bool = false, columnMajor: Bool = false
    ) {
        self.kernelShape = kernelShape
        self.window = window
        self.ceilMode = ceilMode
        self.indices = indices
        self.columnMajor = columnMajor
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x")
        guard x.type.dataType != .bool else { throw TripsError.data("data type of x", found: x.type, expected: "numbers") }
        let sizes = try window.outputSizes(kernel: kernelShape, sizes: x.spatial("x"), ceilMode: ceilMode)
        let shape = x.type.shape[..<2] + sizes
        return [ValueType(x.type.dataType, Array(shape))] + (indices ? [ValueType(.int64, Array(shape))] : [])
    }
}

/// The mean of each window. Input: x [B, C, ...].
package struct AveragePool: Operator {
    package var kernelShape: [Int]
    package var window: Window
    /// A last window that reaches beyond the end counts.
    package var ceilMode: Bool
    /// Elements of the padding count, as zeros.
    package var countPadding: Bool

    package init(kernelShape: [Int], window: Window = Window(), ceilMode: Bool = false, countPadding: Bool = false) {
        self.kernelShape = kernelShape
        self.window = window
        self.ceilMode = ceilMode
        self.countPadding = countPadding
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x")
        let sizes = try window.outputSizes(kernel: kernelShape, sizes: x.spatial("x"), ceilMode: ceilMode)
        return [ValueType(x.type.dataType, x.type.shape[..<2] + sizes)]
    }
}

/// Mean or maximum over all spatial axes, which stay with size 1. Input: x [B, C, ...].
package struct GlobalPool: Operator {
    package enum Kind: String, Sendable, Hashable, NamedChoice { case average, max }
    package var kind: Kind

    package init(_ kind: Kind) { self.kind = kind }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").floating("x")
        let sizes = try x.spatial("x")
        return [ValueType(x.type.dataType, x.type.shape[..<2] + sizes.map { _ in 1 })]
    }
}
