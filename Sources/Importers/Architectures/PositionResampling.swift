import Operators
import Support
import Tensors

/// How position embeddings follow another image size: torch's `interpolate` with `align_corners=False`.
package enum Interpolation: String {
    case bilinear
    /// Keys' cubic convolution with a = -0.75.
    case bicubic

    /// The source rows and their weights for each row of the target.
    func taps(from count: Int, to newCount: Int) -> [[(index: Int, weight: Float)]] {
        let scale = Double(count) / Double(newCount)
        return (0..<newCount).map { target in
            let center = (Double(target) + 0.5) * scale - 0.5
            switch self {
            case .bilinear:
                let place = max(0, center)
                let first = min(Int(place), count - 1)
                let fraction = place - Double(first)
                return [(first, Float(1 - fraction)), (min(first + 1, count - 1), Float(fraction))]
            case .bicubic:
                let first = Int(center.rounded(.down))
                let fraction = center - Double(first)
                return (-1...2).map { step in
                    (min(max(first + step, 0), count - 1), Float(cubicConvolution(abs(fraction - Double(step)), -0.75)))
                }
            }
        }
    }
}

extension Constant {
    /// Positions [1, 1 + grid², D] for another grid; the first row, [CLS], stays as it is.
    package func resampled(grid: Int, to newGrid: Int, _ interpolation: Interpolation) throws -> Constant {
        if grid == newGrid { return self }
        guard let width = shape.last, shape == [1, 1 + grid * grid, width] else {
            throw TripsError.data("positions", found: "\(shape)", expected: "[1, \(1 + grid * grid), width]")
        }
        let newShape = [1, 1 + newGrid * newGrid, width]
        return .derived("\(interpolation) \(newGrid)", from: [self], .float32, newShape) { inputs in
            let source: [Float] = try inputs[0].converted(to: .float32).elements()
            let taps = interpolation.taps(from: grid, to: newGrid)
            var target = Array(source.prefix(width))
            target.reserveCapacity((1 + newGrid * newGrid) * width)
            for rowTaps in taps {
                for columnTaps in taps {
                    var sum = [Float](repeating: 0, count: width)
                    for row in rowTaps {
                        for column in columnTaps {
                            let start = (1 + row.index * grid + column.index) * width
                            for channel in 0..<width { sum[channel] += row.weight * column.weight * source[start + channel] }
                        }
                    }
                    target += sum
                }
            }
            return try Tensor(target, shape: newShape)
        }
    }
}
