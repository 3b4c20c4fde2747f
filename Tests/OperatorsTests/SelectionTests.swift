import ModelGraph
import Operators
import Support
import Testing

@Suite struct SelectionChoiceTests {
    /// Beside sorting by falling score and rising index; scores with many ties, zeros of both signs, infinities and NaN.
    @Test(arguments: [PatchSelection.Order.original, .score])
    func theBestAreChosen(_ order: PatchSelection.Order) {
        var random = SplitMix64(state: 11)
        for count in [1, 2, 7, 64, 257] {
            for rate in [0.01, 0.3, 0.5, 0.99, 1] {
                let scores = (0..<count).map { _ -> Float in
                    switch random.next() % 12 {
                    case 0: .nan
                    case 1: -0.0
                    case 2: 0
                    case 3: .infinity
                    case 4: -.infinity
                    default: Float(Int(random.next() % 9) - 4) / 8
                    }
                }
                let op = PatchSelection(heads: 1, keepRate: rate, order: order)
                let choice = op.choice(scores)
                func isBefore(_ left: Int, _ right: Int) -> Bool {
                    let (a, b) = (scores[left], scores[right])
                    if a.isNaN || b.isNaN { return a.isNaN && (!b.isNaN || left < right) }
                    return a == b ? left < right : a > b
                }
                let best = scores.indices.sorted(by: isBefore).prefix(op.keptCount(of: count))
                #expect(choice.kept == best.sorted())
                #expect(choice.dropped == scores.indices.filter { !best.contains($0) })
                #expect(choice.goingOn == (order == .original || best.count == count ? best.sorted() : Array(best)))
            }
        }
    }
}
