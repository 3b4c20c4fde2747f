import Support

/// Types that follow from the operators' shape rules, and the symbols in them.
extension Graph {
    /// Runs the shape rules again, in order, so that types follow what was changed upstream.
    /// - Throws: what a shape rule throws, with node and operator as the place.
    package mutating func inferAgain() throws {
        for node in try topologicalOrder() { try inferAgain(node) }
    }

    /// Runs one node's shape rule again. A size that was unknown before and is known now is replaced wherever it is used.
    /// - Returns: whether a type changed.
    @discardableResult
    package mutating func inferAgain(_ node: Node) throws -> Bool {
        var changed = false
        var determined: [String: Dimension] = [:]
        for (output, type) in zip(node.outputs, try inferTypes(node.op, node.inputs, name: node.name))
        where content(of: output) == nil {
            let named = naming(type, after: values[output.index].name)
            guard values[output.index].type != named else { continue }
            for (old, new) in zip(values[output.index].type.shape, named.shape) where old.isMadeUp && new.madeUpSymbols.isEmpty {
                if let symbol = old.symbols.first { determined[symbol] = new }
            }
            values[output.index].type = named
            noteMentions(in: output)
            changed = true
        }
        if !determined.isEmpty { try substitute(determined) }
        return changed
    }

    /// States what a value holds, as `setContent`, and replaces sizes of it that were unknown before wherever they are used.
    package mutating func determine(_ value: ValueID, _ content: Content) throws {
        if case .tensor(let constant) = content {
            var determined: [String: Dimension] = [:]
            for (old, new) in zip(shape(of: value), constant.shape) where old.isMadeUp {
                if let symbol = old.symbols.first { determined[symbol] = Dimension(new) }
            }
            if !determined.isEmpty { try substitute(determined) }
        }
        setContent(content, of: value)
    }

    /// Replaces symbols by numbers in the inputs' types and in what is known, and runs the shape rules again.
    package mutating func bind(_ symbols: [String: Int]) throws { try bind(symbols.mapValues { Dimension($0) }) }

    /// The same, for sizes that follow from other symbols.
    package mutating func bind(_ symbols: [String: Dimension]) throws {
        try substitute(symbols)
        try inferAgain()
    }

    private mutating func substitute(_ symbols: [String: Dimension]) throws {
        // The inputs' own symbols are in most values.
        let areMadeUp = symbols.keys.allSatisfy { $0.hasPrefix("?") }
        let places = areMadeUp ? Set(symbols.keys.flatMap { mentions[$0] ?? [] }).sorted() : values.indices.map { ValueID($0) }
        for symbol in symbols.keys { mentions[symbol] = nil }
        for value in places {
            let index = value.index
            if values[index].type.shape.contains(where: { $0.constant == nil }) {
                values[index].type.shape = try values[index].type.shape.map { try $0.substituting(symbols) }
            }
            if case .dimensions(let dimensions) = values[index].content {
                values[index].content = .dimensions(try dimensions.map { try $0.substituting(symbols) })
            }
            noteMentions(in: value)
        }
    }

    /// Keeps `mentions` up to date where a value's type or content is set.
    mutating func noteMentions(in value: ValueID) {
        var sizes = values[value.index].type.shape
        if case .dimensions(let dimensions) = values[value.index].content { sizes += dimensions }
        for size in sizes where size.constant == nil {
            for symbol in size.madeUpSymbols { mentions[symbol, default: []].insert(value) }
        }
    }

    /// Gives values the names that were wanted for them, where a number had to be appended to a name and the other value of that
    /// name is gone. Symbols that were made up for their sizes follow: a reader of the graph makes them from the names.
    /// - Throws: `data` where a size overflows.
    package mutating func tidyNames() throws {
        let used = Set(
            inputs + outputs.map(\.value) + traces.map(\.value) + nodes.flatMap { $0.inputs.compactMap { $0 } + $0.outputs })
        (names, lastNumbers) = ([:], [:])
        for value in used { names[values[value.index].name] = value }
        var symbols: [String: Dimension] = [:]
        for value in used.sorted() {
            let (name, shape) = (values[value.index].name, values[value.index].type.shape)
            guard let wanted = values[value.index].wantedName, names[wanted] == nil else { continue }
            names[name] = nil
            values[value.index].name = wanted
            names[wanted] = value
            for axis in shape.indices where shape[axis] == Dimension(symbol: madeUpSymbol(name, axis)) {
                symbols[madeUpSymbol(name, axis)] = Dimension(symbol: madeUpSymbol(wanted, axis))
            }
        }
        if !symbols.isEmpty { try substitute(symbols) }
    }

    /// Symbols of the inputs' sizes that count examples: those whose name says so, and those in the first size of an input of rank
    /// 2 or more, as sources name their sizes as they like.
    package var batchSymbols: Set<String> {
        inputs.reduce(into: []) { symbols, input in
            let shape = shape(of: input)
            if shape.count > 1 { symbols.formUnion(shape[0].symbols) }
            symbols.formUnion(shape.flatMap(\.symbols).filter { $0.lowercased().contains("batch") })
        }
    }

    func inferTypes(_ op: any Operator, _ inputs: [ValueID?], name: String) throws -> [ValueType] {
        try locating("\(Swift.type(of: op).name) \"\(name)\"") {
            if let most = Swift.type(of: op).maximalInputs, inputs.count > most {
                throw TripsError.data("number of inputs", found: inputs.count, expected: "at most \(most)")
            }
            let types = try op.infer(inputs.map { $0.map(operand) })
            try types.forEach(checkType)
            return types
        }
    }

    /// NumPy's limit. Without one, indices of indices double the rank with each operator.
    package static let maximalRank = 64

    func checkType(_ type: ValueType) throws {
        guard type.rank <= Graph.maximalRank, type.shape.allSatisfy({ ($0.constant ?? 0) >= 0 }) else {
            throw TripsError.data("shape", found: type, expected: "at most \(Graph.maximalRank) sizes of 0 or more")
        }
    }

    /// Unknown sizes become symbols that are named after the value and the axis.
    func naming(_ type: ValueType, after valueName: String) -> ValueType {
        var type = type
        for (axis, size) in type.shape.enumerated() where size.symbols.contains("?") {
            type.shape[axis] = Dimension(symbol: madeUpSymbol(valueName, axis))
        }
        return type
    }

    /// Other names give other symbols: what a symbol cannot hold is written as its number.
    private func madeUpSymbol(_ valueName: String, _ axis: Int) -> String {
        let safe = valueName.map { character in
            if character.isLetter || character.isNumber || "_./".contains(character) { return String(character) }
            return "?\(character.unicodeScalars.map { String($0.value, radix: 16) }.joined(separator: "?"))?"
        }
        return "?\(safe.joined()).\(axis)"
    }
}
