import Foundation
import ModelGraph

/// The place of an intermediate in the order in which models compute: text, vision with its selections, fusion, decoder.
struct TraceOrder: Comparable {
    let stage: Int
    let layer: Int
    let part: Int
    let name: String
    let selection: SelectionTrace?

    init(_ name: String) {
        self.name = name
        selection = SelectionTrace(name)
        let parts = name.split(separator: ".").map(String.init)
        let stages = ["text": 0, "vision": 1, "selection": 1, "fusion": 2, "decoder": 3]
        stage = stages[parts.first ?? ""] ?? 4
        layer = parts.count > 1 ? Int(parts[1]) ?? 0 : 0
        // A selection is inside its block: before the state that leaves it.
        part =
            switch selection?.part {
            case .scores: 0
            case .indices: 1
            case .positions: 2
            case nil: parts.last == "image" ? 4 : 3
            }
    }

    static func < (left: TraceOrder, right: TraceOrder) -> Bool {
        (left.stage, left.layer, left.part, left.name) < (right.stage, right.layer, right.part, right.name)
    }

    static func == (left: TraceOrder, right: TraceOrder) -> Bool { left.name == right.name }
}

/// The names in the order in which models compute them.
package func canonicalOrder(_ names: some Sequence<String>) -> [String] { names.map(TraceOrder.init).sorted().map(\.name) }

/// True where models compute the first of two intermediates earlier, or there is no second.
func comesEarlier(_ name: String?, _ other: String?) -> Bool {
    guard let name else { return false }
    return other.map { TraceOrder(name) < TraceOrder($0) } ?? true
}

extension Divergence {
    /// How many times the noise that entered a block may leave it. Rounding grows by less than twice per block.
    static let jumpFactor = 5.0

    /// Looks through judgements in canonical order.
    /// - Parameter noiseFloor: noise (10^(-SNR/20)) that means nothing in this arithmetic.
    package init(_ judgements: [(name: String, judgement: Judgement)], noiseFloor: Double) {
        let ordered = judgements.map { (order: TraceOrder($0.name), judgement: $0.judgement) }.sorted { $0.order < $1.order }
        firstFailure = ordered.first { $0.judgement.verdict == .fail }?.order.name
        var noise: [Int: Double] = [:]
        for (order, judgement) in ordered where order.selection == nil {
            let entered: Double
            switch order.stage {
            case 0, 1: entered = noise[order.stage] ?? 0
            default: entered = (0...order.stage).compactMap { noise[$0] }.max() ?? 0
            }
            // What could not be compared has no error; a NaN that passes is in the reference, too.
            guard let snr = judgement.metrics?.snr, !snr.isNaN || judgement.verdict == .fail else { continue }
            let left = snr.isNaN ? .infinity : pow(10, -snr / 20)
            if left > Divergence.jumpFactor * max(entered, noiseFloor) {
                firstJump = Jump(name: order.name, before: -20 * log10(entered), after: snr)
                return
            }
            noise[order.stage] = left
        }
    }
}
