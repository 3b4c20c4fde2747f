import Support
import Tensors

/// Changes sizes by interpolation.
///
/// Inputs: x; optional roi (for tfCropAndResize); optional scales; optional sizes: one of the two, for each of the axes.
package struct Resize: Operator {
    package static let maximalInputs: Int? = 4
    /// How elements of x are combined.
    package enum Mode: String, Sendable, Hashable, NamedChoice { case nearest, linear, cubic }
    /// Which place of x a place of the output stands for; names and formulas are ONNX's.
    package enum Coordinates: String, Sendable, Hashable, NamedChoice {
        case halfPixel = "half_pixel"
        case halfPixelSymmetric = "half_pixel_symmetric"
        case pytorchHalfPixel = "pytorch_half_pixel"
        case alignCorners = "align_corners"
        case asymmetric
        case tfHalfPixelForNearest = "tf_half_pixel_for_nn"
        case tfCropAndResize = "tf_crop_and_resize"
    }
    /// Which neighbour `nearest` takes.
    package enum Nearest: String, Sendable, Hashable, NamedChoice {
        case roundPreferFloor = "round_prefer_floor"
        case roundPreferCeil = "round_prefer_ceil"
        case floor, ceil
    }
    /// How stated sizes are read: as they are, or as bounds for a picture that keeps its proportions.
    package enum AspectRatio: String, Sendable, Hashable, NamedChoice {
        case stretch
        case notLarger = "not_larger"
        case notSmaller = "not_smaller"
    }

    package var mode: Mode
    package var coordinates: Coordinates
    package var nearest: Nearest
    /// Of the cubic convolution (Keys 1981).
    package var cubicCoefficient: Float
    /// Weights of samples outside are 0, and the others add up to 1.
    package var excludeOutside: Bool
    /// The filter is widened when shrinking.
    package var antialias: Bool
    /// The number outside of x, for tfCropAndResize.
    package var extrapolation: Float
    /// How sizes are read.
    package var aspectRatio: AspectRatio
    /// nil: all axes, in order.
    package var axes: [Int]?

    package init(
        mode: Mode = .nearest, coordinates: Coordinates = .halfPixel, nearest: Nearest = .roundPreferFloor,
        cubicCoefficient: Float = -0.75, excludeOutside: Bool = false, antialias: Bool = false, extrapolation: Float = 0,
        aspectRatio: AspectRatio = .stretch, axes: [Int]? = nil
    ) {
        self.mode = mode
        self.coordinates = coordinates
        self.nearest = nearest
        self.cubicCoefficient = cubicCoefficient
        self.excludeOutside = excludeOutside
        self.antialias = antialias
        self.extrapolation = extrapolation
        self.aspectRatio = aspectRatio
        self.axes = axes
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let x = try inputs.required(0, "x").type
        let axes = try resolveAxes(axes ?? Array(x.shape.indices), rank: x.rank)
        let scales = try stated(inputs.optional(2), "scales", count: axes.count)
        let sizes = try stated(inputs.optional(3), "sizes", count: axes.count)
        guard (scales == nil) != (sizes == nil) else {
            throw TripsError.data(
                "resizing", found: scales == nil ? "neither scales nor sizes" : "scales and sizes", expected: "one of the two")
        }
        var shape = x.shape
        let roi = try inputs.optional(1)?.constantNumbers()
        for (index, axis) in axes.enumerated() {
            if let scales {
                let extent: Double? =
                    coordinates == .tfCropAndResize
                    ? roi.flatMap { $0.count == 2 * axes.count ? $0[index + axes.count] - $0[index] : nil } : 1
                shape[axis] = try Resize.size(shape[axis], scale: scales.constantNumbers()?[index], extent: extent)
            } else if let sizes {
                shape[axis] = try sizes.integers().map { try checkedSize($0[index], "size") } ?? .unknown
            }
        }
        if sizes != nil, aspectRatio != .stretch { try keepAspectRatio(x.shape, axes, &shape) }
        return [ValueType(x.dataType, shape)]
    }

    /// The operand, nil where it is absent or, as older models write it, empty.
    private func stated(_ operand: Operand?, _ name: String, count: Int) throws -> Operand? {
        guard let operand else { return nil }
        let length = try operand.length(name)
        if length == 0 && count != 0 { return nil }
        guard length == count else { throw TripsError.data("length of \(name)", found: length, expected: "\(count)") }
        return operand
    }

    /// floor(size · extent · scale), in single precision as exporters compute it.
    private static func size(_ size: Dimension, scale: Double?, extent: Double?) throws -> Dimension {
        guard let scale, let extent else { return .unknown }
        guard scale > 0, scale.isFinite, extent.isFinite else { throw TripsError.data("scale", found: scale, expected: "above 0") }
        guard let constant = size.constant else {
            let factor = scale * extent
            return factor == factor.rounded() && 0..<65536 ~= factor ? try size.multiplied(by: Dimension(Int(factor))) : .unknown
        }
        let scaled = (Float(constant) * Float(extent) * Float(scale)).rounded(.down)
        guard scaled >= 0, scaled < 0x1p62 else { throw TripsError.data("scaled size", found: scaled, expected: "0 or more") }
        return Dimension(Int(scaled))
    }

    private func keepAspectRatio(_ from: [Dimension], _ axes: [Int], _ shape: inout [Dimension]) throws {
        let ratios = axes.compactMap { axis -> Double? in
            guard let size = from[axis].constant, size > 0, let target = shape[axis].constant else { return nil }
            return Double(target) / Double(size)
        }
        guard ratios.count == axes.count, let scale = aspectRatio == .notLarger ? ratios.min() : ratios.max() else {
            for axis in axes { shape[axis] = .unknown }
            return
        }
        for axis in axes {
            let size = (scale * Double(from[axis].constant ?? 0) + 0.5).rounded(.down)
            guard size < 0x1p62 else { throw TripsError.data("scaled size", found: size, expected: "less") }
            shape[axis] = Dimension(Int(size))
        }
    }
}
