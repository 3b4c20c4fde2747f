/// A small generator of random numbers (Steele, Lea and Flood 2014): the same seed gives the same numbers everywhere.
package struct SplitMix64 {
    package var state: UInt64

    package init(state: UInt64) { self.state = state }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// In [0, 1), from the upper 24 bits, so that single precision holds it exactly.
    package mutating func uniform() -> Double { Double(next() >> 40) / 16_777_216 }
}
