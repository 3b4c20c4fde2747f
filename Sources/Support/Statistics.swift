import Foundation

/// The signal-to-noise ratio of numbers beside their reference, gathered element by element.
///
/// Elements that are the same NaN or infinity on both sides are left out.
package struct SignalToNoise: Sendable {
    /// Σ g² over the elements that are finite on both sides.
    private var signal = SumOfSquares()
    /// Σ (x - g)² over the same.
    private var noise = SumOfSquares()
    /// Elements where NaN or infinity is on one side, and something else on the other.
    package private(set) var mismatches = 0
    private var isFinite = false
    private var isEmpty = true

    package init() {}

    /// Of sums that are known already.
    package init(signal: Double, noise: Double) {
        (self.signal, self.noise) = (SumOfSquares(signal), SumOfSquares(noise))
        (isFinite, isEmpty) = (true, false)
    }

    /// Takes in an element x and the reference's g.
    /// - Parameter error: |x - g|, where that is known more exactly than from the two.
    /// - Returns: whether both are finite.
    @discardableResult
    package mutating func add(_ x: Double, reference g: Double, error: Double? = nil) -> Bool {
        isEmpty = false
        guard x.isFinite && g.isFinite else {
            if !same(x, g) { mismatches += 1 }
            return false
        }
        isFinite = true
        signal.add(g)
        let error = error ?? x - g
        if error.isFinite {
            noise.add(error)
        } else {
            // Half of it is finite: (x - g)² = 4 · (x/2 - g/2)².
            for _ in 0..<4 { noise.add(x / 2 - g / 2) }
        }
        return true
    }

    /// 10 · log10(signal / noise), in dB. Infinite without noise, also where there is no signal; negative infinite for noise
    /// alone; NaN, which is worse than any number, where one side alone is not finite, where nothing is, and where a sum that
    /// was given is not finite.
    package var snr: Double {
        guard mismatches == 0, isFinite || isEmpty else { return .nan }
        if noise.mantissa == 0 { return .infinity }
        guard signal.mantissa.isFinite && noise.mantissa.isFinite else { return .nan }
        return 10 * log10(signal.mantissa / noise.mantissa) + 20 * log10(2) * Double(signal.exponent - noise.exponent)
    }
}

/// A sum of squares of finite numbers, `mantissa` · 4^`exponent`: it neither overflows nor vanishes where the squares do.
private struct SumOfSquares: Sendable {
    private(set) var mantissa: Double
    /// A multiple of 200, by the largest number; 0 for numbers of usual size.
    private(set) var exponent = 0

    init(_ sum: Double = 0) { mantissa = sum }

    mutating func add(_ number: Double) {
        if number == 0 { return }
        let own = Int(number.exponent) / 200 * 200
        if mantissa == 0 { exponent = own }
        if own > exponent {
            mantissa = scalbn(mantissa, 2 * (exponent - own))
            exponent = own
        }
        let scaled = exponent == 0 ? number : scalbn(number, -exponent)
        mantissa += scaled * scaled
    }
}

/// True for equal numbers and for two NaNs.
package func same(_ left: Double, _ right: Double) -> Bool { left == right || left.isNaN && right.isNaN }

/// log softmax of a row, x - log Σ exp x, through double precision: NaN throughout where the row holds NaN or infinity, or nothing
/// above negative infinity.
@inlinable
package func logSoftmax<Row: Collection>(_ row: Row) -> [Row.Element] where Row.Element: BinaryFloatingPoint {
    let logarithm = logarithmOfSoftmax(row)
    return row.map(logarithm)
}

/// The function that `logSoftmax` applies to each element of a row.
@inlinable
package func logarithmOfSoftmax<Row: Collection>(_ row: Row) -> (Row.Element) -> Row.Element
where Row.Element: BinaryFloatingPoint {
    let largest = Double(row.max() ?? 0)
    let logarithm = log(row.reduce(0) { $0 + exp(Double($1) - largest) })
    return { Row.Element(Double($0) - largest - logarithm) }
}
