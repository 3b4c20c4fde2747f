import ModelGraph
import Support
import Tensors

extension PatchSelection: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let positions = try inputs.optional(3).map { try $0.integers() }
        try widened(Array(inputs.prefix(3)), outputs) { inputs, outputs in
            let tokens = try inputs.required(0)
            func run<T: Real>(_: T.Type) throws {
                let (batch, count, width) = (tokens.shape[0], tokens.shape[1] - leading, tokens.shape[2])
                let stream = Stream(
                    x: tokens.source(T.self), y: outputs[0].target(T.self), indices: outputs[1].target(),
                    scores: outputs[2].target(),
                    positions: outputs[3].target(), count: count, width: width, kept: keptCount(of: count),
                    total: streamCount(of: count))
                guard count > 0, outputs[0].shape[1] == stream.total + leading, outputs[1].shape[1] == stream.kept else {
                    throw TripsError.data(
                        "tokens", found: tokens.type, expected: "as many as were planned for: \(outputs[0].shape)")
                }
                var generator = SplitMix64(state: UInt64(bitPattern: Int64(seed)))
                let random = guidance == .random ? (0..<batch * count).map { _ in generator.uniform() } : []
                try pool.tryRun(batch) { example in
                    let scores: [Double]
                    switch guidance {
                    case .random: scores = Array(random[example * count..<(example + 1) * count])
                    case .text, .imageCLS:
                        let (query, keys) = (try inputs.required(2), try inputs.required(1))
                        let skipped = guidance == .text ? leading : 0
                        let all = attention(
                            query.source(T.self) + example * query.shape[1],
                            keys.source(T.self) + (example * (count + leading) + skipped) * keys.shape[2],
                            keys: count + leading - skipped, keyWidth: keys.shape[2], headSize: width / heads)
                        scores = Array(all.dropFirst(leading - skipped))
                    }
                    select(example, scores, stream, positions)
                }
            }
            if tokens.dataType == .float64 { try run(Double.self) } else { try run(Float.self) }
        }
    }

    /// For each key the mean over all heads of softmax(query · key · scale).
    private func attention<T: Real>(_ query: Source<T>, _ key: Source<T>, keys: Int, keyWidth: Int, headSize: Int) -> [Double] {
        let length = sharesKeys ? keyWidth : headSize
        let factor = scale.map { Double($0) } ?? 1 / Double(headSize).squareRoot()
        var means = Array(repeating: 0.0, count: keys)
        for h in 0..<heads {
            let products = (0..<keys).map { index -> Double in
                let start = index * keyWidth + (sharesKeys ? 0 : h * length)
                return (0..<length).reduce(0.0) { $0 + Double(query[h * length + $1]) * Double(key[start + $1]) } * factor
            }
            let top = products.max() ?? 0
            let powers = products.map { Double.exp($0 - top) }
            let sum = powers.reduce(0, +)
            for index in means.indices { means[index] += powers[index] / sum / Double(heads) }
        }
        return means
    }

    /// The addresses and sizes of one call.
    private struct Stream<T: Real>: Sendable {
        let x: Source<T>, y: Target<T>, indices: Target<Int64>, scores: Target<Float>, positions: Target<Int64>
        let count, width, kept, total: Int
    }

    private func select<T: Real>(_ example: Int, _ exact: [Double], _ stream: Stream<T>, _ positions: [Int]?) {
        // Tokens are chosen by the scores as they are written, rounded to fp32, so that a reader can reproduce the choice.
        let scores = exact.map { Float($0) }
        let (count, width, kept) = (stream.count, stream.width, stream.kept)
        for index in 0..<count { stream.scores[example * count + index] = scores[index] }
        let (indices, going, dropped) = choice(scores)
        for (place, index) in indices.enumerated() { stream.indices[example * kept + place] = Int64(index) }
        let first = stream.x + example * (count + leading) * width
        let start = stream.y + example * (stream.total + leading) * width
        start.base.update(from: first.base, count: leading * width)
        let (x, y) = (first + leading * width, start + leading * width)
        for (place, index) in going.enumerated() {
            (y + place * width).base.update(from: (x + index * width).base, count: width)
            stream.positions[example * stream.total + place] = Int64(positions?[example * count + index] ?? index)
        }
        guard stream.total > kept else { return }
        stream.positions[example * stream.total + kept] = -1
        fuse(dropped, scores, x, y + kept * width, width: width)
    }

    /// The image tokens that are kept, ascending; the same in the order in which they go on; and those that are dropped, ascending.
    package func choice(_ scores: [Float]) -> (kept: [Int], goingOn: [Int], dropped: [Int]) {
        var order = Array(repeating: Int32(0), count: scores.count)
        let count = keptCount(of: scores.count)
        return scores.withUnsafeBufferPointer { scores in
            order.withUnsafeMutableBufferPointer { order in
                choose(scores, into: order)
                let (kept, dropped) = (order[..<count].map { Int($0) }, order[count...].map { Int($0) })
                sort(UnsafeMutableBufferPointer(rebasing: order[..<count]), by: scores)
                return (kept, order[..<count].map { Int($0) }, dropped)
            }
        }
    }

    /// Chooses among image tokens: `order` gets those that are kept, ascending, followed by those that are dropped, ascending.
    /// The highest scores stay; among equal ones the lower index wins, and NaN counts as the largest.
    package func choose(_ scores: UnsafeBufferPointer<Float>, into order: UnsafeMutableBufferPointer<Int32>) {
        let kept = keptCount(of: scores.count)
        var (last, ties) = smallest(kept, of: scores)
        var (place, droppedPlace) = (0, kept)
        for (index, score) in scores.enumerated() {
            let rank = rank(of: score)
            if rank < last || rank == last && ties > 0 {
                order[place] = Int32(truncatingIfNeeded: index)
                place += 1
                if rank == last { ties -= 1 }
            } else {
                order[droppedPlace] = Int32(truncatingIfNeeded: index)
                droppedPlace += 1
            }
        }
    }

    /// Brings kept tokens into the order in which they go on. Where all stay, they stay as they are.
    package func sort(_ kept: UnsafeMutableBufferPointer<Int32>, by scores: UnsafeBufferPointer<Float>) {
        guard order == .score, kept.count < scores.count else { return }
        var kept = kept
        kept.sort { (rank(of: scores[Int($0)]), $0) < (rank(of: scores[Int($1)]), $1) }
    }

    /// The `place`th smallest rank of the scores, from 1, and how many of its equals are among the `place` smallest. Byte by byte
    /// from the highest: no sorting, and as long whatever the scores are.
    private func smallest(_ place: Int, of scores: UnsafeBufferPointer<Float>) -> (rank: UInt32, equals: Int) {
        // 1 KB of counts: of more, Swift asks first whether the stack has room.
        withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 256) { counts in
            var (found, known, rest) = (UInt32(0), UInt32(0), UInt32(place))
            for shift in stride(from: UInt32(24), through: 0, by: -8) {
                counts.update(repeating: 0)
                for score in scores {
                    let rank = rank(of: score)
                    if rank & known == found { counts[Int(rank >> shift & 255)] += 1 }
                }
                var byte = 0
                while byte < 255, counts[byte] < rest {
                    rest -= counts[byte]
                    byte += 1
                }
                found |= UInt32(byte) << shift
                known |= 255 << shift
            }
            return (found, Int(rest))
        }
    }

    /// An integer that falls while the score grows.
    private func rank(of score: Float) -> UInt32 {
        if score.isNaN { return 0 }
        let bits = (score == 0 ? 0 : score).bitPattern
        return bits >> 31 == 0 ? ~(bits | 1 << 31) : bits
    }

    /// What a dropped token weighs in the fused one, given the sum of all dropped ones' scores, and their number.
    package func fusionWeight(_ score: Float, of total: Double, count: Int) -> Double {
        guard fusion == .normalized else { return Double(score) }
        return total > 0 ? Double(score) / total : 1 / Double(count)
    }

    /// Puts one token in the place of the dropped ones.
    private func fuse<T: Real>(_ dropped: [Int], _ scores: [Float], _ x: Source<T>, _ y: Target<T>, width: Int) {
        var fused = Array(repeating: 0.0, count: width)
        let total = dropped.reduce(0) { $0 + Double(scores[$1]) }
        for token in dropped {
            let weight = fusionWeight(scores[token], of: total, count: dropped.count)
            for index in 0..<width { fused[index] += weight * Double(x[token * width + index]) }
        }
        for index in 0..<width { y[index] = T(fused[index]) }
    }
}
