import Tensors

/// The overlap of two choices of patches (Jaccard): the share of those in either that are in both; 1 where neither has any.
/// - Parameters: original patches; -1, a fused token, is none.
package func patchOverlap(_ left: [Int], _ right: [Int]) -> Double {
    let (a, b) = (Set(left).subtracting([-1]), Set(right).subtracting([-1]))
    let either = a.union(b).count
    return either == 0 ? 1 : Double(a.intersection(b).count) / Double(either)
}

/// Which tokens of two streams correspond, each to one alone: leading ones, those of the same original patch, and those of a text
/// after them.
/// - Parameters:
///   - own: original patches of one stream's image tokens, -1 for a fused one.
///   - reference: those of the other's.
///   - leading: tokens before the patches, [CLS] among them.
///   - behind: tokens of a text after them.
/// - Returns: places in both streams, in the reference's order.
package func tokenPairs(_ own: [Int], reference: [Int], leading: Int, behind: Int) -> [(own: Int, reference: Int)] {
    let (own, reference) = (tokenIdentities(own), tokenIdentities(reference))
    var places = Dictionary(own.enumerated().map { ($0.element, $0.offset) }, uniquingKeysWith: { first, _ in first })
    let image = reference.enumerated().compactMap { place, patch in
        places.removeValue(forKey: patch).map { (own: leading + $0, reference: leading + place) }
    }
    let text = (0..<behind).map { (own: leading + own.count + $0, reference: leading + reference.count + $0) }
    return (0..<leading).map { (own: $0, reference: $0) } + image + text
}

/// A number for each token of a stream, no two the same: its patch, or for fused tokens −1 for the newest, which comes last,
/// −2 for the one before it, and so on.
/// - Parameter positions: one example's, in which all fused tokens are −1.
package func tokenIdentities(_ positions: [Int]) -> [Int] {
    var fused = 0
    let backwards = positions.reversed().map { patch in
        if patch >= 0 { return patch }
        fused += 1
        return -fused
    }
    return backwards.reversed()
}

extension Graph {
    /// Outputs [B, P + T (+ L), D] of the T image tokens that the last selection leaves, behind P leading ones, whatever they are
    /// called; L is open.
    /// - Returns: by the output's name, the trace with the tokens' original positions [B, T].
    package func imageTokenOutputs(behind leading: Int) throws -> [String: String] {
        let positions = traces.last { trace in
            SelectionTrace(trace.name)?.part == .positions && type(of: trace.value).dataType == .int64
                && type(of: trace.value).rank == 2
        }
        guard let positions else { return [:] }
        return try outputs.reduce(into: [:]) { found, output in
            guard type(of: output.value).rank == 3 else { return }
            let others = try shape(of: output.value)[1].subtracting(shape(of: positions.value)[1])
            let withoutText = try others.substituting(Dictionary(uniqueKeysWithValues: others.symbols.map { ($0, Dimension(0)) }))
            if withoutText.constant == leading { found[output.name] = positions.name }
        }
    }
}
