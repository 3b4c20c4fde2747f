import ModelGraph
import Support
import Tensors

extension Graph {
    /// The guide's [CLS] row [B, D], repeated where the tower takes several images of an example as one batch.
    mutating func guideRow(_ guide: ValueID, for tower: Tower) throws -> ValueID {
        var row = guide
        if type(of: guide).rank == 3 {
            let existing = try consumers(of: guide).first { node in
                guard node.op as? Gather == Gather(axis: 1), let index = node.input(1), shape(of: index).isEmpty else {
                    return false
                }
                return try constantIntegers(index) == [0]
            }
            if let existing {
                row = existing.output
            } else {
                let index = try addConstant(Constant(integers: [0], shape: []), name: "selection.guide.index")
                row = try add(Gather(axis: 1), [guide, index], name: "selection.guide")[0]
            }
        }
        let (batch, textBatch) = (shape(of: tower.input)[0], shape(of: row)[0])
        if batch == textBatch { return row }
        // Only images that were put together example by example, one list after the other, keep the order of the texts.
        let patches = stem(of: tower.input, PatchEmbedding.self)
        guard let images = producer(of: patches?.input(0), Concat.self), images.op.axis == 0,
            images.node.inputs.allSatisfy({ $0.map { shape(of: $0)[0] } == textBatch })
        else {
            throw TripsError.usage(
                "images and texts differ in number", found: "\(batch) images, \(textBatch) texts", expected: "a text for each image"
            )
        }
        return try add(Concat(axis: 0), images.node.inputs.map { _ in row }, name: "selection.guides")[0]
    }

    mutating func insertSelection(
        _ block: TransformerBlock, _ number: Int, _ rate: Double, _ request: SelectionRequest, leading: Int, row: ValueID?,
        positions: ValueID?
    ) throws -> Node {
        guard let attention = block.selfAttention.op as? Attention, let queries = block.selfAttention.input(0),
            let keys = block.selfAttention.input(1),
            let (projection, linear) = producer(of: queries, Linear.self)
        else {
            throw TripsError.usage(
                "block \(number) has no query projection", found: block.selfAttention.name, expected: "a linear projection")
        }
        let name = "selection.\(number)"
        let query: ValueID?
        switch request.guidance {
        case .text: query = try add(linear, [row] + projection.inputs.dropFirst(), name: "\(name).query")[0]
        case .imageCLS:
            let index = try addConstant(Constant(integers: [0], shape: []), name: "\(name).index")
            query = try add(Gather(axis: 1), [queries, index], name: "\(name).query")[0]
        case .random: query = nil
        }
        let op = PatchSelection(
            heads: attention.heads, scale: attention.scale, keepRate: rate, guidance: request.guidance, fusion: request.fusion,
            order: request.order, seed: request.guidance == .random ? seed(request.seed, block: number) : 0,
            leading: leading)
        var operands = [block.residual, keys, query, positions]
        while operands.last == .some(nil) { operands.removeLast() }
        let outputs = try add(
            op, operands, name: name, outputNames: ["\(name).tokens", "\(name).indices", "\(name).scores", "\(name).positions"])
        guard let node = producer(of: outputs[0]) else { throw TripsError.data("selection \(number) was not added") }
        replace(block.residual, with: outputs[0], except: [node.id])
        return node
    }
}

/// A seed for each block, as equal seeds would draw equal scores. It is below 2^53, up to which readers of JSON are exact, if the
/// given seed is.
private func seed(_ seed: Int, block: Int) -> Int {
    var generator = SplitMix64(state: UInt64(bitPattern: Int64(block)))
    return seed ^ Int(generator.next() >> 11)
}
