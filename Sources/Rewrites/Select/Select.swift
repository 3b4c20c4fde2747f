import ModelGraph
import Support

extension Graph {
    /// Inserts patch selection into the vision tower, after the attention residual of each stated block, and lets everything
    /// downstream that carried the old number of tokens follow. Where it throws, the graph stays as it is.
    /// - Throws: `usage` where the request does not suit the model: no such block, no text to guide, unequal widths, a value
    ///   in the way that cannot follow; the message names it.
    @discardableResult
    package mutating func select(_ request: SelectionRequest) throws -> SelectionReport {
        let anatomy = try Anatomy(of: self)
        let tower = try visionTower(anatomy, named: request.visionTower)
        let rates = try request.rates(blockCount: tower.blocks.count)
        guard !nodes.contains(where: { $0.op is PatchSelection }) else {
            throw TripsError.usage("the model already selects patches", expected: "a model without selection")
        }
        let guide = request.guidance == .text ? try textGuide(anatomy, tower, named: request.textGuide) : nil
        let leading = try max(1, leadingTokens(of: tower.input))

        var selected = self
        var followed: [String] = []
        let row = try guide.map { try selected.guideRow($0, for: tower) }
        var positions: ValueID?
        for (block, rate) in rates {
            let node = try selected.insertSelection(
                tower.blocks[block - 1], block, rate, request, leading: leading, row: row, positions: positions)
            positions = node.outputs[3]
            for name in try selected.follow(node) where !followed.contains(name) { followed.append(name) }
        }
        selected.prune()
        try selected.validate()
        try selected.nameIntermediates()
        let report = SelectionReport(
            guidance: request.guidance, blocks: selected.selectionBlocks(tower, rates), costBefore: try costOfOneExample(),
            costAfter: try selected.costOfOneExample(), followed: followed)
        self = selected
        return report
    }

    private func costOfOneExample() throws -> Dimension {
        try multiplyAccumulates().substituting(Dictionary(uniqueKeysWithValues: batchSymbols.map { ($0, 1) }))
    }

    /// What became of the tokens in the blocks of a tower that select now.
    private func selectionBlocks(_ tower: Tower, _ rates: [(block: Int, rate: Double)]) -> [SelectionReport.Block] {
        rates.compactMap { block, rate in
            guard let node = selection(in: tower.blocks[block - 1]) else { return nil }
            return .init(
                block: block, keepRate: rate, tokensBefore: shape(of: node.outputs[2])[1],
                tokensAfter: shape(of: node.outputs[3])[1])
        }
    }

    // MARK: Finding

    private func visionTower(_ anatomy: Anatomy, named name: String?) throws -> Tower {
        try name.map(visionTower(named:)) ?? onlyVisionTower(anatomy)
    }

    private func visionTower(named name: String) throws -> Tower {
        let towers = try towers().filter { $0.blocks[0].form == .preNorm }
        let found = towers.first { tower in
            self.name(of: tower.input) == name
                || stem(of: tower.input, PatchEmbedding.self).map { $0.name == name || self.name(of: $0.output) == name } == true
                || tower.blocks.contains { $0.selfAttention.name == name || self.name(of: $0.output) == name }
        }
        guard let found else {
            let names = towers.map { self.name(of: $0.input) }
            throw TripsError.usage(
                "no vision tower of that name", found: name,
                expected: names.isEmpty ? "none was recognised" : names.joined(separator: ", "))
        }
        return found
    }

    private func onlyVisionTower(_ anatomy: Anatomy) throws -> Tower {
        guard anatomy.vision.count <= 1 else {
            let names = anatomy.vision.map { name(of: $0.input) }
            throw TripsError.usage(
                "several vision towers", found: names.joined(separator: ", "), expected: "one of them, named by `visionTower`")
        }
        guard let tower = anatomy.vision.first else {
            let states = try towers().filter { $0.blocks[0].form == .preNorm }.map { name(of: $0.input) }
            throw TripsError.usage(
                "no vision tower was recognised", at: name,
                found: states.isEmpty ? nil : "pre-norm transformer blocks behind \(states.joined(separator: ", "))",
                expected: "pre-norm transformer blocks behind a patch embedding; `visionTower` names the state that enters them")
        }
        if try leadingTokens(of: tower.input) == 0, let patches = stem(of: tower.input, PatchEmbedding.self) {
            throw TripsError.usage(
                "the vision tower has no class token", at: name, found: "patches alone behind \(patches.name)",
                expected:
                    "a first token that every selection keeps; `visionTower` \(name(of: tower.input)) takes the first patch for it"
            )
        }
        return tower
    }

    /// The text state whose first row guides, or that row itself.
    private func textGuide(_ anatomy: Anatomy, _ tower: Tower, named name: String?) throws -> ValueID {
        let guide = try name.map { try textGuide(named: $0, tower) } ?? recognizedTextGuide(anatomy, tower)
        let (textWidth, width) = (shape(of: guide).last ?? 0, shape(of: tower.input)[2])
        guard textWidth == width else {
            throw TripsError.usage(
                "text guidance needs one width for text and vision, as they share the query projection",
                found: "text \(textWidth), vision \(width)", expected: "guidance image-cls (or random), or a model of equal widths")
        }
        return guide
    }

    private func textGuide(named name: String, _ tower: Tower) throws -> ValueID {
        let value = value(named: name) ?? (outputs + traces).first { $0.name == name }?.value
        guard let value, (2...3).contains(type(of: value).rank) else {
            throw TripsError.usage(
                "no text guide of that name", found: name, expected: "a value [batch, length, width] or [batch, width]")
        }
        guard !dependents(of: [tower.input]).contains(value) else {
            throw TripsError.usage("the text guide depends on the image", found: name, expected: "a text-only state")
        }
        return value
    }

    private func recognizedTextGuide(_ anatomy: Anatomy, _ tower: Tower) throws -> ValueID {
        // Layers that see a tower which the request had to name were not recognised as layers that see an image.
        let seeing = dependents(of: [tower.input])
        let texts = anatomy.texts.map { Tower(blocks: Array($0.blocks.prefix { !seeing.contains($0.output) })) }.filter {
            !$0.blocks.isEmpty
        }
        guard let text = texts.first else {
            if let causal = anatomy.decoder, !seeing.contains(causal.blocks[0].output) {
                throw TripsError.usage(
                    "text guidance needs a text encoder whose first token sees the text",
                    found: "a causal one, which ends in \(name(of: finalState(of: causal)))",
                    expected: "guidance image-cls; `textGuide` names a row [batch, width] that sees the text")
            }
            throw TripsError.usage(
                "text guidance needs a text encoder that does not see the image", found: "none in graph \(name)",
                expected: "guidance image-cls; `textGuide` names its last state where it is not recognised")
        }
        guard texts.count == 1 else {
            throw TripsError.usage(
                "several text encoders", found: texts.map { name(of: finalState(of: $0)) }.joined(separator: ", "),
                expected: "one of them, named by `textGuide`")
        }
        return finalState(of: text)
    }

    /// The state after the last layer; in pre-norm towers after the last norm.
    private func finalState(of tower: Tower) -> ValueID {
        guard tower.blocks[0].form == .preNorm else { return tower.output }
        return consumers(of: tower.output).first { $0.op is LayerNorm && !beginsLayer($0) }?.output ?? tower.output
    }
}
