import Support

// Drawings of HTML reports, as SVG.

/// SNR along the model, a line for each curve.
struct DepthPlot {
    private let curves: [DepthCurve]
    /// Of the curve with most points, from left to right.
    private let names: [String]
    /// SNR at the lower and the upper edge, in dB.
    private let low, high: Double
    private let left = 48.0, right = 912.0, top = 12.0, bottom = 250.0

    init(_ curves: [DepthCurve]) {
        self.curves = curves
        names = curves.max { $0.points.count < $1.points.count }?.points.map(\.name) ?? []
        let finite = curves.flatMap { $0.points.map(\.snr) }.filter(\.isFinite)
        (low, high) = (min(0, finite.min() ?? 0), max(finite.max() ?? 100, 20) * 1.05)
    }

    func svg(description: String) -> String {
        let label = escaped("SNR in dB along the model. " + description)
        let parts = grid + ticks + curves.enumerated().flatMap { line($1, number: $0) }
        return "<svg class=\"plot\" viewBox=\"0 0 960 340\" role=\"img\" aria-label=\"\(label)\">\(parts.joined())</svg>"
    }

    private func x(_ index: Int) -> Double {
        left + (right - left) * (names.count > 1 ? Double(index) / Double(names.count - 1) : 0.5)
    }

    private func y(_ snr: Double) -> Double {
        bottom - (bottom - top) * (snr.isNaN ? 0 : min(max(snr, low), high) - low) / (high - low)
    }

    private var grid: [String] {
        stride(from: 0.0, through: high, by: high > 80 ? 20 : 10).map { tick in
            "<path class=\"grid\" d=\"M\(left) \(short(y(tick)))H\(right)\"/>"
                + "<text x=\"\(left - 6)\" y=\"\(short(y(tick) + 4))\" text-anchor=\"end\">\(Int(tick)) dB</text>"
        }
    }

    /// Names below the plot, as many as there is room for.
    private var ticks: [String] {
        stride(from: 0, to: names.count, by: max(1, names.count / 24)).map { index in
            let name = names[index].count > 12 ? "…" + names[index].suffix(11) : names[index]
            let place = "translate(\(short(x(index))) \(bottom + 12)) rotate(45)"
            return "<text class=\"tick\" transform=\"\(place)\">\(escaped(name))</text>"
        }
    }

    private func line(_ curve: DepthCurve, number: Int) -> [String] {
        let colour = "c\(number % 4)"
        let points = curve.points.compactMap { point in
            names.firstIndex(of: point.name).map { (x: short(x($0)), y: short(y(point.snr)), point) }
        }
        let circles = points.map { x, y, point in
            let title = escaped("\(curve.label), \(point.name): \(inDecibels(point.snr))")
            return "<circle class=\"\(colour)\" cx=\"\(x)\" cy=\"\(y)\" r=\"3\"><title>\(title)</title></circle>"
        }
        let path = points.map { "\($0.x),\($0.y)" }.joined(separator: " ")
        let labelX = left + Double(number) * (right - left) / Double(curves.count)
        return ["<polyline class=\"curve \(colour)\" points=\"\(path)\"/>"] + circles
            + ["<text class=\"label \(colour)\" x=\"\(labelX)\" y=\"334\">● \(escaped(curve.label))</text>"]
    }
}

/// How many elements have which absolute error.
func histogramPlot(_ metrics: Metrics, description: String) -> String {
    let bins = metrics.histogram
    let most = Double(max(1, bins.max() ?? 1))
    let (left, bottom, width) = (48.0, 170.0, 864.0 / Double(bins.count))
    var parts = ["<path class=\"grid\" d=\"M48 170H912\"/>"]
    for (bin, elements) in bins.enumerated() {
        // Roots of counts: single outliers stay visible beside thousands.
        let height = elements == 0 ? 0 : max(2, 150 * (Double(elements) / most).squareRoot())
        let x = left + Double(bin) * width
        let edge = bin == 0 ? nil : short(Metrics.histogramEdges[bin - 1])
        let title = (edge.map { "from \($0)" } ?? "below 1e-12") + ": \(elements)"
        parts.append(
            "<rect class=\"c0\" x=\"\(short(x + 1))\" y=\"\(short(bottom - height))\" width=\"\(short(width - 2))\" "
                + "height=\"\(short(height))\"><title>\(title)</title></rect>")
        if bin % 4 == 1, let edge {
            parts.append("<text x=\"\(short(x))\" y=\"188\" text-anchor=\"middle\">\(edge)</text>")
        }
    }
    let label = escaped("Histogram of absolute errors. " + description)
    return "<svg class=\"plot\" viewBox=\"0 0 960 200\" role=\"img\" aria-label=\"\(label)\">\(parts.joined())</svg>"
}
