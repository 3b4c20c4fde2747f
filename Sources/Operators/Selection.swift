import ModelGraph
import Support
import Tensors

extension PatchSelection: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        let positions = try inputs.optional(3).map { try $0.integers() }
        try widened(Array(inputs.prefix(3)), outputs) { inputs, outputs in
            let tokens = try inputs.required(0)
            func run<T: Real>(_: T.Type) throws {
                let (batch, count, width) = (tokens.shape[0], tokens.shape[1] - leadingCount, tokens.shape[2])
                let stream = Stream(
                    x: tokens.source(T.self), y: outputs[0].target(T.self), indices: outputs[1].target(), scores: outputs[2].target(),
                    positions: outputs[3].target(), count: count, width: width, kept: keptCount(of: count), total: streamCount(of: count))
                guard count > 0, outputs[0].shape[1] == stream.total + leadingCount, outputs[1].shape[1] == stream.kept else {
                    throw TripsError.data("tokens", found: tokens.type, expected: "as many as were planned for: \(outputs[0].shape)")
                }
                var generator = SplitMix64(state: UInt64(bitPattern: Int64(seed)))
                let random = guidance == .random ? (0..<batch * count).map { _ in generator.uniform() } : []
                try pool.tryRun(batch) { example in
                    let scores: [Double]
                    switch guidance {
                    case .random: scores = Array(random[example * count..<(example + 1) * count])
                    case .text, .imageCLS:
                        let (query, keys) = (try inputs.required(2), try inputs.required(1))
                        let skipped = guidance == .text ? leadingCount : 0
                        let all = attention(
                            query.source(T.self) + example * query.shape[1],
                            keys.source(T.self) + (example * (count + leadingCount) + skipped) * keys.shape[2],
                            keys: count + leadingCount - skipped, keyWidth: keys.shape[2], headSize: width / heads)
                        scores = Array(all.dropFirst(leadingCount - skipped))
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

    /// Where one call reads and writes.
    private struct Stream<T: Real>: Sendable {
        let x: Source<T>, y: Target<T>, indices: Target<Int64>, scores: Target<Float>, positions: Target<Int64>
        let count, width, kept, total: Int
    }

    private func select<T: Real>(_ example: Int, _ exact: [Double], _ stream: Stream<T>, _ positions: [Int]?) {
        // The scores that are put out are those that decide, so that a reader can retrace the choice.
        let scores = exact.map { Float($0) }
        let (count, width, kept) = (stream.count, stream.width, stream.kept)
        for index in 0..<count { stream.scores[example * count + index] = scores[index] }
        let choice = scores.withUnsafeBufferPointer(choose)
        for (place, index) in choice.kept.enumerated() { stream.indices[example * kept + place] = Int64(index) }
        let first = stream.x + example * (count + leadingCount) * width
        let start = stream.y + example * (stream.total + leadingCount) * width
        start.base.update(from: first.base, count: leadingCount * width)
        let (x, y) = (first + leadingCount * width, start + leadingCount * width)
        for (place, index) in choice.stream.enumerated() {
            (y + place * width).base.update(from: (x + index * width).base, count: width)
            stream.positions[example * stream.total + place] = Int64(positions?[example * count + index] ?? index)
        }
        guard stream.total > kept else { return }
        stream.positions[example * stream.total + kept] = -1
        fuse(choice.dropped, scores, x, y + kept * width, width: width)
    }

    /// What becomes of the image tokens of one example.
    package struct Choice: Sendable {
        /// Ascending.
        package let kept: [Int]
        /// The kept ones in the order in which they go on.
        package let stream: [Int]
        /// Ascending.
        package let dropped: [Int]
    }

    /// Chooses by falling score; among equal scores the lower index wins, and NaN counts as the largest. Where all stay,
    /// they stay as they are.
    package func choose(_ scores: UnsafeBufferPointer<Float>) -> Choice {
        let ranks = scores.map { UInt32.max - ascending($0) }
        let count = keptCount(of: scores.count)
        let (last, equals) = smallest(count, of: ranks)
        var ties = equals
        var kept: [Int] = [], dropped: [Int] = []
        kept.reserveCapacity(count)
        dropped.reserveCapacity(ranks.count - count)
        for (index, rank) in ranks.enumerated() {
            if rank < last || rank == last && ties > 0 {
                kept.append(index)
                if rank == last { ties -= 1 }
            } else {
                dropped.append(index)
            }
        }
        let isRanked = order == .score && !dropped.isEmpty
        return Choice(kept: kept, stream: isRanked ? kept.sorted { (ranks[$0], $0) < (ranks[$1], $1) } : kept, dropped: dropped)
    }

    /// The `place`th smallest number, from 1, and how many of its equals are among the `place` smallest. Byte by byte from the
    /// highest: no sorting, and as long whatever the numbers are.
    private func smallest(_ place: Int, of numbers: [UInt32]) -> (number: UInt32, equals: Int) {
        var (number, known, rest) = (UInt32(0), UInt32(0), place)
        for shift in [24, 16, 8, 0] as [UInt32] {
            var counts = Array(repeating: 0, count: 256)
            for other in numbers where other & known == number { counts[Int(other >> shift & 255)] += 1 }
            var byte = 0
            while byte < 255, counts[byte] < rest {
                rest -= counts[byte]
                byte += 1
            }
            number |= UInt32(byte) << shift
            known |= 255 << shift
        }
        return (number, rest)
    }

    /// An integer that grows with the number.
    private func ascending(_ number: Float) -> UInt32 {
        if number.isNaN { return .max }
        let bits = (number == 0 ? 0 : number).bitPattern
        return bits >> 31 == 0 ? bits | 1 << 31 : ~bits
    }

    /// What each dropped token weighs in the fused one.
    package func fusionWeights(_ scores: [Float]) -> [Double] {
        let weights = scores.map { Double($0) }
        guard fusion == .normalized else { return weights }
        let total = weights.reduce(0, +)
        return weights.map { total > 0 ? $0 / total : 1 / Double(weights.count) }
    }

    /// The token that stands for the dropped ones.
    private func fuse<T: Real>(_ dropped: [Int], _ scores: [Float], _ x: Source<T>, _ y: Target<T>, width: Int) {
        var fused = Array(repeating: 0.0, count: width)
        for (token, weight) in zip(dropped, fusionWeights(dropped.map { scores[$0] })) {
            for index in 0..<width { fused[index] += weight * Double(x[token * width + index]) }
        }
        for index in 0..<width { y[index] = T(fused[index]) }
    }
}
