extension Int {
    /// The quotient of two numbers above 0, or of 0, rounded up; no sum on the way can overflow.
    package func dividedRoundingUp(by divisor: Int) -> Int { self / divisor + (self % divisor == 0 ? 0 : 1) }

    /// This number of bytes rounded up to whole cache lines, 64 bytes each.
    package var inWholeCacheLines: Int { (self + 63) & ~63 }
}

extension Range<Int> {
    /// As many parts, of sizes as even as can be.
    package func split(into parts: Int) -> [Range<Int>] { (0..<parts).map { part($0, of: parts) } }

    /// One of the parts of `split(into:)`.
    package func part(_ index: Int, of parts: Int) -> Range<Int> {
        lowerBound + count * index / parts..<lowerBound + count * (index + 1) / parts
    }
}

extension Array {
    /// As many rows of equal length, one after the other.
    package func rows(_ count: Int) -> [[Element]] {
        let width = self.count / Swift.max(1, count)
        return (0..<count).map { Array(self[$0 * width..<($0 + 1) * width]) }
    }
}
