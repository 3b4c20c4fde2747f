import ModelGraph
import Support

/// What patch selection to insert (TRIPS, arXiv 2403.07883, and its variants).
public struct SelectionRequest: Sendable, Hashable, Codable {
    /// The vision blocks that get a selection, counted from 1.
    public var blocks: [Int]
    /// One rate for all blocks, or one for each.
    public var keepRates: [Double]
    /// What scores the patches.
    public var guidance: PatchSelection.Guidance
    /// What becomes of the dropped tokens.
    public var fusion: PatchSelection.Fusion
    /// The order of the kept tokens.
    public var order: PatchSelection.Order
    /// For random guidance; each block draws numbers of its own from it.
    public var seed: Int
    /// A name of the vision tower: its patch embedding, a block's node, or the state that enters it; nil: the only one.
    public var visionTower: String?
    /// The name of the value [B, L, D] whose first row guides, or of that row [B, D]; nil: the last text-only hidden state.
    public var textGuide: String?

    /// As the paper selects, unless it is said otherwise; towers are recognised.
    public init(
        blocks: [Int], keepRates: [Double] = [0.7], guidance: PatchSelection.Guidance = .text,
        fusion: PatchSelection.Fusion = .normalized, order: PatchSelection.Order = .original, seed: Int = 0,
        visionTower: String? = nil, textGuide: String? = nil
    ) {
        self.blocks = blocks
        self.keepRates = keepRates
        self.guidance = guidance
        self.fusion = fusion
        self.order = order
        self.seed = seed
        self.visionTower = visionTower
        self.textGuide = textGuide
    }

    /// - Parameter blockCount: the number of blocks that there are; nil: not known yet.
    /// - Throws: `usage` where no block is given, one twice or one that is not there, or a rate is out of range.
    public func check(blockCount: Int? = nil) throws {
        let expected = blockCount.map { "1 ... \($0), the vision tower's blocks" } ?? "numbers from 1 on"
        guard !blocks.isEmpty else { throw TripsError.usage("`blocks`", found: "none", expected: expected) }
        for block in blocks where block < 1 || block > blockCount ?? .max {
            throw TripsError.usage("`blocks`", found: block, expected: expected)
        }
        guard Set(blocks).count == blocks.count else {
            throw TripsError.usage("`blocks`", found: "\(blocks)", expected: "each block once")
        }
        guard keepRates.count == 1 || keepRates.count == blocks.count else {
            throw TripsError.usage(
                "`keepRates`", found: "\(keepRates.count) for \(counted(blocks.count, "block"))",
                expected: "one for all, or one for each block")
        }
        for rate in keepRates where !(rate > 0 && rate <= 1) {
            throw TripsError.usage("`keepRates`", found: rate, expected: "above 0, at most 1")
        }
    }

    /// The blocks, ascending, each with its rate.
    /// - Throws: as `check`.
    package func rates(blockCount: Int? = nil) throws -> [(block: Int, rate: Double)] {
        try check(blockCount: blockCount)
        return blocks.enumerated().map { ($1, keepRates.count == 1 ? keepRates[0] : keepRates[$0]) }.sorted { $0.0 < $1.0 }
    }
}

/// What patch selection did to a graph.
public struct SelectionReport: Sendable {
    /// One of the inserted layers.
    public struct Block: Sendable {
        /// Counted from 1.
        public var block: Int
        /// Share of the image tokens that stays, in (0, 1].
        public var keepRate: Double
        /// Image tokens that enter, without leading ones such as [CLS]; a fused one counts.
        public var tokensBefore: Dimension
        /// Image tokens that leave, counted alike.
        public var tokensAfter: Dimension
    }

    /// What scores the patches.
    public var guidance: PatchSelection.Guidance
    /// The inserted layers, in the order of their blocks.
    public var blocks: [Block]
    /// Multiply-accumulate operations for one example without selection; symbols are other sizes that inputs leave open.
    public var costBefore: Dimension
    /// The same with selection.
    public var costAfter: Dimension
    /// Names of the values that were adapted to the smaller number of tokens.
    public var followed: [String]
}
