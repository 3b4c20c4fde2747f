import Foundation
import PackageFormat
import Support
import Tensors

extension Resampling {
    /// How far from its centre the filter reaches, in source pixels when enlarging.
    fileprivate var support: Double { self == .bilinear ? 1 : 2 }

    fileprivate func weight(_ distance: Double) -> Double {
        let x = abs(distance)
        switch self {
        case .bilinear: return x < 1 ? 1 - x : 0
        case .bicubic:
            let a = -0.5
            if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
            if x < 2 { return (((x - 5) * x + 8) * x - 4) * a }
            return 0
        }
    }
}

extension Picture {
    /// The picture at another size, bit for bit what Pillow 13's `resize` gives: the filter is widened when shrinking,
    /// sums are in fixed point with 22 fractional bits and rounded to bytes after each of the two passes. Rows are
    /// filtered before columns, unless the height shrinks by more than twice what the width does.
    public func resized(width newWidth: Int, height newHeight: Int, _ filter: Resampling) throws -> Picture {
        guard newWidth > 0, newHeight > 0, newWidth <= Picture.maximalSide, newHeight <= Picture.maximalSide,
            newWidth * newHeight <= Picture.maximalArea
        else {
            throw TripsError.usage(
                "size of a picture", found: "\(newWidth) x \(newHeight)",
                expected: "sides of 1 to \(Picture.maximalSide), at most \(Picture.maximalArea) pixels in all")
        }
        if height > newHeight && height - newHeight > 2 * (width - newWidth) {
            return try withHeight(newHeight, filter).withWidth(newWidth, filter)
        }
        return try withWidth(newWidth, filter).withHeight(newHeight, filter)
    }

    private func withWidth(_ newWidth: Int, _ filter: Resampling) throws -> Picture {
        if newWidth == width { return self }
        let taps = taps(from: width, to: newWidth, filter)
        let rows = Lines(count: height, stride: 3 * width, step: 3, newStride: 3 * newWidth, newStep: 3)
        return try Picture(width: newWidth, height: height, pixels: convolve(pixels, taps, rows))
    }

    private func withHeight(_ newHeight: Int, _ filter: Resampling) throws -> Picture {
        if newHeight == height { return self }
        let taps = taps(from: height, to: newHeight, filter)
        let columns = Lines(count: width, stride: 3, step: 3 * width, newStride: 3, newStep: 3 * width)
        return try Picture(width: width, height: newHeight, pixels: convolve(pixels, taps, columns))
    }
}

/// Rows or columns to filter: how far apart they lie, and their pixels, in bytes, before and after.
private struct Lines {
    let count: Int
    let stride: Int
    let step: Int
    let newStride: Int
    let newStep: Int
}

/// The source pixels that make one target pixel, with their weights in fixed point.
private struct Taps {
    let first: Int
    let weights: [Int32]
}

private let fractionBits = 22

private func taps(from size: Int, to newSize: Int, _ filter: Resampling) -> [Taps] {
    let scale = Double(size) / Double(newSize)
    let widening = max(scale, 1)
    let support = filter.support * widening
    return (0..<newSize).map { target in
        let center = (Double(target) + 0.5) * scale
        let first = max(0, Int(center - support + 0.5))
        let end = min(size, Int(center + support + 0.5))
        let weights = (first..<end).map { filter.weight((Double($0) - center + 0.5) / widening) }
        let sum = weights.reduce(0, +)
        return Taps(
            first: first,
            weights: weights.map { weight in
                let fixed = (sum == 0 ? weight : weight / sum) * Double(1 << fractionBits)
                return Int32(fixed < 0 ? fixed - 0.5 : fixed + 0.5)
            })
    }
}

/// Filters every line of RGB pixels.
private func convolve(_ source: [UInt8], _ taps: [Taps], _ lines: Lines) -> [UInt8] {
    var target = [UInt8](repeating: 0, count: lines.count * taps.count * 3)
    for line in 0..<lines.count {
        for (place, tap) in taps.enumerated() {
            let start = line * lines.stride + tap.first * lines.step
            let output = line * lines.newStride + place * lines.newStep
            for channel in 0..<3 {
                var sum = Int32(1) << Int32(fractionBits - 1)
                var index = start + channel
                for weight in tap.weights {
                    sum &+= Int32(source[index]) &* weight
                    index += lines.step
                }
                target[output + channel] = UInt8(clamping: sum >> Int32(fractionBits))
            }
        }
    }
    return target
}

extension Picture {
    /// The image input of a model: resized to a square, scaled to 0 ... 1, less the mean, divided by the deviation.
    /// - Parameters:
    ///   - mean, deviation: by channel.
    /// - Returns: float32 [1, 3, size, size].
    public func modelInput(size: Int, mean: [Double], deviation: [Double], _ filter: Resampling) throws -> Tensor {
        guard mean.count == 3, deviation.count == 3, deviation.allSatisfy({ $0 > 0 }) else {
            throw TripsError.data(
                "mean and deviation", found: "\(mean), \(deviation)", expected: "three numbers each, deviations above 0")
        }
        let square = try resized(width: size, height: size, filter)
        var values = [Float](repeating: 0, count: 3 * size * size)
        for channel in 0..<3 {
            let (center, spread) = (Float(mean[channel]), Float(deviation[channel]))
            for pixel in 0..<size * size {
                values[channel * size * size + pixel] = (Float(square.pixels[pixel * 3 + channel]) / 255 - center) / spread
            }
        }
        return try Tensor(values, shape: [1, 3, size, size])
    }

    /// The image input of a model as its package says: float32 [1, 3, size, size].
    /// - Throws: `data` where the package states a size, mean or deviation that cannot be.
    public func modelInput(_ preprocessing: Manifest.Preprocessing) throws -> Tensor {
        let size = preprocessing.imageSize
        guard 1...Picture.maximalSide ~= size, size * size <= Picture.maximalArea else {
            throw TripsError.data(
                "size of images", found: size, expected: "1 to \(Picture.maximalSide), at most \(Picture.maximalArea) pixels in all"
            )
        }
        return try modelInput(size: size, mean: preprocessing.mean, deviation: preprocessing.deviation, preprocessing.resampling)
    }

    /// The picture that a model input shows.
    /// - Parameters:
    ///   - image: float32 [B, 3, H, W]; without mean and deviation its range is stretched to that of a picture.
    ///   - example: which of the batch, from 0.
    /// - Throws: `data` where the tensor is no such input or has no such example.
    public init(modelInput image: Tensor, example: Int = 0, mean: [Double]?, deviation: [Double]?) throws {
        guard image.shape.count == 4, image.shape[1] == 3, (0..<image.shape[0]).contains(example), image.shape[2] > 0,
            image.shape[3] > 0
        else {
            throw TripsError.data(
                "an image input", found: "\(image.shape), example \(example)",
                expected: "[batch, 3, height, width], an example of it")
        }
        let (height, width) = (image.shape[2], image.shape[3])
        let area = height * width
        let all = try image.converted(to: .float32).elements(Float.self)
        let values = all[example * 3 * area..<(example + 1) * 3 * area].map { $0.isFinite ? $0 : 0 }
        let (low, high) = (values.min() ?? 0, values.max() ?? 1)
        var pixels = [UInt8](repeating: 0, count: 3 * area)
        for channel in 0..<3 {
            for pixel in 0..<area {
                let value = values[channel * area + pixel]
                let share =
                    if let mean, let deviation, mean.count == 3, deviation.count == 3 {
                        value * Float(deviation[channel]) + Float(mean[channel])
                    } else {
                        high > low ? (value - low) / (high - low) : 0.5
                    }
                pixels[pixel * 3 + channel] = UInt8(max(0, min(255, (share * 255).rounded())))
            }
        }
        try self.init(width: width, height: height, pixels: pixels)
    }
}
