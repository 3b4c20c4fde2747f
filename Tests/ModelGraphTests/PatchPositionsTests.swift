import ModelGraph
import Testing

@Suite struct PatchPositionsTests {
    private static let choices: [([Int], [Int], Double)] = [
        ([1, 2, 3], [3, 2, 1], 1), ([1, 2, 3], [3, 4, 5], 0.2), ([1], [2], 0), ([], [], 1), ([1], [], 0),
        // A fused token is no patch.
        ([1, 2, -1], [2, 3, 4, -1], 0.25), ([1, -1], [1, 2], 0.5), ([-1], [-1], 1),
    ]

    @Test(arguments: choices) func overlapIsOfPatches(left: [Int], right: [Int], expected: Double) {
        #expect(patchOverlap(left, right) == expected && patchOverlap(right, left) == expected)
    }

    @Test func tokensOfOnePatchBelongTogether() {
        // Two leading tokens, three patches and a fused token, one word.
        let pairs = tokenPairs([4, 0, 7, -1], reference: [0, 1, 7, -1], leading: 2, behind: 1)
        #expect(pairs.map(\.reference) == [0, 1, 2, 4, 5, 6])
        #expect(pairs.map(\.own) == [0, 1, 3, 4, 5, 6])
    }

    @Test func streamsMayBeOfOtherLengths() {
        let pairs = tokenPairs([5], reference: [4, 5, 6], leading: 1, behind: 2)
        #expect(pairs.map(\.reference) == [0, 2, 4, 5] && pairs.map(\.own) == [0, 1, 2, 3])
    }

    @Test func aTokenBelongsToOneAlone() {
        let pairs = tokenPairs([4, 6, 9, -1], reference: [4, 4, 6, -1], leading: 0, behind: 0)
        #expect(pairs.map(\.reference) == [0, 2, 3] && pairs.map(\.own) == [0, 1, 3])
    }

    @Test func fusedTokensAreToldApartFromTheEnd() {
        #expect(tokenIdentities([4, 7, -1, -1]) == [4, 7, -2, -1])
        // Without the older one, the newest is still the same.
        #expect(tokenIdentities([4, 7, 9, -1]) == [4, 7, 9, -1])
        #expect(tokenIdentities([]) == [])
    }
}
