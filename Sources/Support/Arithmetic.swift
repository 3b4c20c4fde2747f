extension Int {
    /// The quotient of two numbers above 0, or of 0, rounded up; no sum on the way can overflow.
    package func dividedRoundingUp(by divisor: Int) -> Int { self / divisor + (self % divisor == 0 ? 0 : 1) }
}
