/// How often each rewrite of a stage was applied.
public struct AuditTrail: Sendable, CustomStringConvertible {
    /// The rewrites that were applied, in the order of their first use.
    public private(set) var counts: [(rewrite: String, count: Int)] = []

    mutating func add(_ rewrite: String, _ count: Int) {
        guard count > 0 else { return }
        if let index = counts.firstIndex(where: { $0.rewrite == rewrite }) {
            counts[index].count += count
        } else {
            counts.append((rewrite, count))
        }
    }

    mutating func add(_ trail: [String: Int]) {
        for (rewrite, count) in trail.sorted(by: { $0.key < $1.key }) { add(rewrite, count) }
    }

    /// How often a rewrite was applied.
    public func count(of rewrite: String) -> Int { counts.first { $0.rewrite == rewrite }?.count ?? 0 }

    /// Adds the counts of a later stage.
    public mutating func merge(_ other: AuditTrail) {
        for (rewrite, count) in other.counts { add(rewrite, count) }
    }

    public var description: String { counts.map { "\($0.count) × \($0.rewrite)" }.joined(separator: "\n") }
}
