import ModelGraph
import Support
import Tensors

/// Inserts patch selection into the vision tower, behind the attention residual of each stated block, and lets everything
/// downstream that carried the old number of tokens follow.
/// - Throws: `usage` where the request does not suit the model: no such block, no text to guide, unequal widths, a value
///   in the way that cannot follow; the message names it.
@discardableResult
public func select(_ graph: inout Graph, options: SelectionRequest) throws -> SelectionReport {
    let anatomy = try Anatomy(of: graph)
    let tower = try visionTower(of: graph, anatomy, named: options.visionTower)
    let rates = try options.rates(blockCount: tower.blocks.count)
    guard !graph.nodes.contains(where: { $0.op is PatchSelection }) else {
        throw TripsError.usage("the model already selects patches", expected: "a model without selection")
    }
    let guide = options.guidance == .text ? try textGuide(of: graph, anatomy, tower, named: options.textGuide) : nil
    let leading = try max(1, graph.leadingTokens(of: tower.input))
    let oneExample = Dictionary(uniqueKeysWithValues: graph.batchSymbols.map { ($0, 1) })
    let costBefore = try graph.multiplyAccumulates().substituting(oneExample)

    var selected = graph
    var report = SelectionReport(
        guidance: options.guidance, blocks: [], costBefore: costBefore, costAfter: costBefore, followed: [])
    let row = try guide.map { try selected.guideRow($0, for: tower) }
    var positions: ValueID?
    for (block, rate) in rates {
        let node = try selected.insertSelection(
            tower.blocks[block - 1], block, rate, options, leading: leading, row: row, positions: positions)
        positions = node.outputs[3]
        for name in try selected.follow(node) where !report.followed.contains(name) { report.followed.append(name) }
    }
    selected.prune()
    try selected.validate()
    try selected.nameIntermediates()
    for (block, rate) in rates {
        let residual = tower.blocks[block - 1].residual
        guard let node = selected.consumers(of: residual).first(where: { $0.op is PatchSelection }) else { continue }
        report.blocks.append(
            .init(
                block: block, keepRate: rate, tokensBefore: selected.shape(of: node.outputs[2])[1],
                tokensAfter: selected.shape(of: node.outputs[3])[1]))
    }
    report.costAfter = try selected.multiplyAccumulates().substituting(oneExample)
    graph = selected
    return report
}

// MARK: Finding

private func visionTower(of graph: Graph, _ anatomy: Anatomy, named name: String?) throws -> Tower {
    guard let name else {
        guard anatomy.vision.count <= 1 else {
            let names = anatomy.vision.map { graph.name(of: $0.input) }
            throw TripsError.usage(
                "several vision towers", found: names.joined(separator: ", "), expected: "one of them, named by --vision-tower")
        }
        guard let tower = anatomy.vision.first else {
            let states = try graph.towers().filter { $0.blocks[0].form == .preNorm }.map { graph.name(of: $0.input) }
            throw TripsError.usage(
                "no vision tower was recognised", at: graph.name,
                found: states.isEmpty ? nil : "pre-norm transformer blocks behind \(states.joined(separator: ", "))",
                expected: "pre-norm transformer blocks behind a patch embedding; --vision-tower names the state that enters them")
        }
        if try graph.leadingTokens(of: tower.input) == 0, let patches = graph.stem(of: tower.input, PatchEmbedding.self) {
            throw TripsError.usage(
                "the vision tower has no class token", at: graph.name, found: "patches alone behind \(patches.name)",
                expected:
                    "a first token that every selection keeps; --vision-tower \(graph.name(of: tower.input)) takes the first patch for it"
            )
        }
        return tower
    }
    let towers = try graph.towers().filter { $0.blocks[0].form == .preNorm }
    let found = towers.first { tower in
        graph.name(of: tower.input) == name
            || graph.stem(of: tower.input, PatchEmbedding.self).map { $0.name == name || graph.name(of: $0.output) == name } == true
            || tower.blocks.contains { $0.selfAttention.name == name || graph.name(of: $0.output) == name }
    }
    guard let found else {
        let names = towers.map { graph.name(of: $0.input) }
        throw TripsError.usage(
            "no vision tower of that name", found: name,
            expected: names.isEmpty ? "none was recognised" : names.joined(separator: ", "))
    }
    return found
}

/// The text state whose first row guides, or that row itself.
private func textGuide(of graph: Graph, _ anatomy: Anatomy, _ tower: Tower, named name: String?) throws -> ValueID {
    let guide: ValueID
    if let name {
        guard
            let value = graph.value(named: name) ?? graph.outputs.first(where: { $0.name == name })?.value
                ?? graph.traces.first(where: { $0.name == name })?.value, (2...3).contains(graph.type(of: value).rank)
        else {
            throw TripsError.usage(
                "no text guide of that name", found: name, expected: "a value [batch, length, width] or [batch, width]")
        }
        guard !graph.dependents(of: [tower.input]).contains(value) else {
            throw TripsError.usage("the text guide depends on the image", found: name, expected: "a text-only state")
        }
        guide = value
    } else {
        // A tower that only its name tells as one of an image has not been counted among what fusion layers see.
        let seeing = graph.dependents(of: [tower.input])
        let texts = anatomy.texts.map { Tower(blocks: Array($0.blocks.prefix { !seeing.contains($0.output) })) }.filter {
            !$0.blocks.isEmpty
        }
        guard let text = texts.first else {
            throw TripsError.usage(
                "text guidance needs a text encoder that does not see the image", found: "none in graph \(graph.name)",
                expected: "guidance image-cls; --text-guide names its last state where it is not recognised")
        }
        guard texts.count == 1 else {
            let names = texts.map { graph.name(of: graph.finalState(of: $0)) }
            throw TripsError.usage(
                "several text encoders", found: names.joined(separator: ", "), expected: "one of them, named by --text-guide")
        }
        guide = graph.finalState(of: text)
    }
    let (textWidth, width) = (graph.shape(of: guide).last ?? 0, graph.shape(of: tower.input)[2])
    guard textWidth == width else {
        throw TripsError.usage(
            "text guidance needs one width for text and vision, as they share the query projection",
            found: "text \(textWidth), vision \(width)", expected: "guidance image-cls (or random), or a model of equal widths")
    }
    return guide
}

extension Graph {
    /// The state behind the last layer; in pre-norm towers behind the last norm.
    fileprivate func finalState(of tower: Tower) -> ValueID {
        guard tower.blocks[0].form == .preNorm else { return tower.output }
        return consumers(of: tower.output).first { $0.op is LayerNorm && !beginsLayer($0) }?.output ?? tower.output
    }

    // MARK: Inserting

    /// The guide's [CLS] row [B, D], repeated where the tower takes several images of an example as one batch.
    fileprivate mutating func guideRow(_ guide: ValueID, for tower: Tower) throws -> ValueID {
        var row = guide
        if type(of: guide).rank == 3 {
            let existing = try consumers(of: guide).first { node in
                guard let gather = node.op as? Gather, gather.axis == 1, let index = node.input(1), shape(of: index).isEmpty else {
                    return false
                }
                return try operand(index).constantIntegers() == [0]
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
        // Only images that were put together example by example, one list behind the other, keep the order of the texts.
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

    fileprivate mutating func insertSelection(
        _ block: TransformerBlock, _ number: Int, _ rate: Double, _ options: SelectionRequest, leading: Int, row: ValueID?,
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
        switch options.guidance {
        case .text: query = try add(linear, [row] + projection.inputs.dropFirst(), name: "\(name).query")[0]
        case .imageCLS:
            let index = try addConstant(Constant(integers: [0], shape: []), name: "\(name).index")
            query = try add(Gather(axis: 1), [queries, index], name: "\(name).query")[0]
        case .random: query = nil
        }
        let op = PatchSelection(
            heads: attention.heads, scale: attention.scale, keepRate: rate, guidance: options.guidance, fusion: options.fusion,
            order: options.order, seed: options.guidance == .random ? seed(options.seed, block: number) : 0,
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

/// A seed of its own for each block, or all of them would draw the same numbers. Below 2^53, which any reader of JSON
/// keeps, as long as the seed that was asked for is.
private func seed(_ seed: Int, block: Int) -> Int {
    var generator = SplitMix64(state: UInt64(bitPattern: Int64(block)))
    return seed ^ Int(generator.next() >> 11)
}
