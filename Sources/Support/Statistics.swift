import Foundation

/// The signal-to-noise ratio of numbers beside their reference, gathered element by element.
///
/// Elements that are the same NaN or infinity on both sides are left out.
package struct SignalToNoise: Sendable {
    /// Σ g² over the elements that are finite on both sides.
    package private(set) var signal = 0.0
    /// Σ (x - g)² over the same.
    package private(set) var noise = 0.0
    /// Elements where NaN or infinity is on one side, and something else on the other.
    package private(set) var mismatches = 0
    private var isFinite = false
    private var isEmpty = true

    package init() {}

    /// Of sums that are known already.
    package init(signal: Double, noise: Double) {
        (self.signal, self.noise) = (signal, noise)
        (isFinite, isEmpty) = (true, false)
    }

    /// Takes in an element x and the reference's g.
    /// - Returns: whether both are finite.
    @discardableResult
    package mutating func add(_ x: Double, reference g: Double) -> Bool {
        isEmpty = false
        guard x.isFinite && g.isFinite else {
            if !same(x, g) { mismatches += 1 }
            return false
        }
        isFinite = true
        signal += g * g
        noise += (x - g) * (x - g)
        return true
    }

    /// 10 · log10(signal / noise), in dB. Infinite without noise, also where there is no signal; negative infinite for noise
    /// alone; NaN, which is worse than any number, where one side alone is not finite, where nothing is, and where a sum is
    /// too large for a number.
    package var snr: Double {
        guard mismatches == 0, isFinite || isEmpty else { return .nan }
        if noise == 0 { return .infinity }
        return signal.isFinite && noise.isFinite ? 10 * log10(signal / noise) : .nan
    }
}

/// True for equal numbers and for two NaNs.
package func same(_ left: Double, _ right: Double) -> Bool { left == right || left.isNaN && right.isNaN }

/// log softmax of a row, x - log Σ exp x, through double precision: NaN throughout where the row holds NaN or infinity, or nothing
/// above negative infinity.
@inlinable
package func logSoftmax<Row: Collection>(_ row: Row) -> [Row.Element] where Row.Element: BinaryFloatingPoint {
    let largest = Double(row.max() ?? 0)
    let logarithm = log(row.reduce(0) { $0 + exp(Double($1) - largest) })
    return row.map { Row.Element(Double($0) - largest - logarithm) }
}
