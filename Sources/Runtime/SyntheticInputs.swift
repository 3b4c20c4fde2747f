import Foundation
import ModelGraph
import Support
import Tensors

/// The sizes of a run that packages may leave open.
public struct InputSizes: Sendable, Equatable {
    /// Examples in the batch.
    public let batch: Int
    /// Tokens of the text; nil where no input is a text.
    public let textLength: Int?
}

extension Model {
    /// The longest text that there are positions for; nil where no table limits it.
    public var maximalTextLength: Int? { graphs.compactMap(\.positionCount).min() }
}

extension Session {
    /// Inputs of the right types and shapes: ids from the vocabulary, masks of ones, images of noise. The same every time.
    /// - Parameters:
    ///   - batch: for symbols that count examples (`Graph.batchSymbols`).
    ///   - length: for all other symbols, such as the text's length; less where the model has fewer positions.
    ///   - given: outputs that are inputs instead.
    /// - Throws: `usage` where batch or length is not positive, or an output unknown; `data` where an input's size is not determined.
    public func syntheticInputs(batch: Int, length: Int, given: Set<String> = []) throws -> [String: Tensor] {
        for (name, number) in [("batch", batch), ("length", length)] where number < 1 {
            throw TripsError.usage(name, at: "synthetic inputs", found: number, expected: "1 or more")
        }
        var generator = SplitMix64(state: 1)
        let length = min(length, model.maximalTextLength ?? length)
        var inputs: [String: Tensor] = [:]
        let types = try allInputs(given: given)
        let batches = model.graphs.reduce(into: Set()) { $0.formUnion($1.batchSymbols) }
        for (name, type) in types {
            guard let shape = try type.shape(batch: batch, batches, length: length) else {
                throw TripsError.data("the size of input \(name) cannot be told", found: type)
            }
            // A package may state any size; inputs of real models are far below this limit.
            let limit = min(batch, 1 << 16) << (type.dataType.isFloatingPoint ? 27 : 20)
            guard try elementCount(of: shape) <= limit else {
                throw TripsError.data(
                    "an input out of proportion", at: name, found: "\(shape)", expected: "at most \(limit) elements")
            }
            inputs[name] = try synthetic(name, type.dataType, shape, &generator)
        }
        return inputs
    }

    private func allInputs(given: Set<String>) throws -> [(name: String, type: ValueType)] {
        try inputs(for: outputNames.filter { !given.contains($0) }, given: given)
    }

    /// The sizes that inputs for all outputs have.
    /// - Parameter given: outputs that are inputs instead.
    /// - Throws: `usage` where an input is missing.
    public func sizes(of inputs: [String: Tensor], given: Set<String> = []) throws -> InputSizes {
        let tensors = try allInputs(given: given).map { name, type in
            guard let tensor = inputs[name] else { throw TripsError.usage("input \(name) is missing", expected: type) }
            return tensor
        }
        let text = inputs["input_ids"] ?? tensors.first { $0.shape.count == 2 && $0.dataType.isInteger }
        return InputSizes(batch: tensors.first { $0.shape.count > 1 }?.shape.first ?? 1, textLength: text?.shape.last)
    }

    private func synthetic(_ name: String, _ type: DataType, _ shape: [Int], _ generator: inout SplitMix64) throws -> Tensor {
        func tensor<Element: TensorElement>(_ next: () -> Element) throws -> Tensor {
            try Tensor(Element.dataType, shape) { bytes in
                let elements = bytes.bindMemory(to: Element.self)
                for index in elements.indices { elements[index] = next() }
            }.converted(to: type)
        }
        if type.isFloatingPoint { return try tensor { generator.normal() } }
        let bound = model.graphs.compactMap { $0.vocabulary(of: name) }.min()
        return try tensor { Int64(bound.map { generator.below($0) } ?? 1) }
    }
}

extension ValueType {
    /// The shape where some symbols count examples and all others are lengths; nil where a size would be negative.
    fileprivate func shape(batch: Int, _ batches: Set<String>, length: Int) throws -> [Int]? {
        let sizes = try shape.compactMap { dimension in
            try dimension.substituting(
                Dictionary(uniqueKeysWithValues: dimension.symbols.map { ($0, batches.contains($0) ? batch : length) })
            ).constant
        }
        return sizes.count == rank && sizes.allSatisfy { $0 >= 0 } ? sizes : nil
    }
}

extension Graph {
    /// Where a size depends on the numbers of inputs, and of which; nil where none does, or where that shows in runs alone.
    package func sizeOfNumbers() -> (inputs: [String], place: String)? {
        guard nodes.contains(where: { $0.outputs.contains { shape(of: $0).contains { !$0.madeUpSymbols.isEmpty } } }) else {
            return nil
        }
        let length = min(40, positionCount ?? 40)
        var shapes: [String: [Int]] = [:]
        for input in inputs { shapes[name(of: input)] = try? type(of: input).shape(batch: 1, batchSymbols, length: length) }
        guard let graph = try? specialized(to: shapes), let open = graph.openValue else { return nil }
        return (graph.inputs(behind: [open]).map(graph.name(of:)), graph.place(of: open))
    }

    /// Positions in the smallest table from which a text's are cut or looked up by count, from the first used row on; nil where there
    /// is none.
    fileprivate var positionCount: Int? { nodes.compactMap { cutPositions($0) ?? countedPositions($0) }.min() }

    private func cutPositions(_ node: Node) -> Int? {
        let index: Int? = node.op is Embedding ? 2 : node.op is QuantizedEmbedding ? 3 : nil
        guard let positions = index.flatMap(node.input), let slice = producer(of: positions), slice.op is Slice,
            let table = slice.input(0), shape(of: table).count >= 2, let rows = shape(of: table).dropLast().last?.constant,
            let start = try? slice.input(1).flatMap({ try operand($0).constantIntegers() })?.first, start >= 0, start <= rows
        else { return nil }
        return rows - start
    }

    /// RoBERTa looks up for each token how many come before it, padding not counted, and starts at row 2.
    private func countedPositions(_ node: Node) -> Int? {
        guard let lookup = lookup(node), lookup.axis == 0, let table = lookup.table, let rows = shape(of: table).first?.constant,
            let last = lookup.indices.flatMap({ beyondCount($0) }), last >= -1, last < rows - 1
        else { return nil }
        return rows - 1 - last
    }

    /// What is added to a running count, in which each element counts up to 1; nil for other values.
    private func beyondCount(_ value: ValueID, depth: Int = 8) -> Int? {
        guard depth > 0, let node = producer(of: value), let x = node.input(0) else { return nil }
        switch node.op {
        case let sum as CumSum: return sum.exclusive ? -1 : 0
        case is Cast: return beyondCount(x, depth: depth - 1)
        case let binary as Binary where binary.kind == .mul:
            return node.inputs.lazy.compactMap { $0.flatMap { beyondCount($0, depth: depth - 1) } }.first
        case let binary as Binary where binary.kind == .add:
            guard let y = node.input(1), let added = try? operand(y).constantIntegers(), added.count == 1,
                let rest = beyondCount(x, depth: depth - 1)
            else { return nil }
            let (sum, overflow) = rest.addingReportingOverflow(added[0])
            return overflow ? nil : sum
        default: return nil
        }
    }

    /// Rows of the table in which an input's numbers are looked up.
    fileprivate func vocabulary(of input: String) -> Int? {
        guard let value = value(named: input) else { return nil }
        return consumers(of: value).compactMap { node in
            (node.op is Embedding || node.op is QuantizedEmbedding) && node.input(0) == value
                ? node.input(1).flatMap { shape(of: $0).first?.constant } : nil
        }.min()
    }
}

extension SplitMix64 {
    fileprivate mutating func below(_ bound: Int) -> Int { max(0, min(bound - 1, Int(uniform() * Double(bound)))) }

    /// Normal, by Box and Muller.
    fileprivate mutating func normal() -> Float {
        Float((-2 * log(1 - uniform())).squareRoot() * cos(2 * .pi * uniform()))
    }
}
