import Support
import Tensors

/// A graph as the package's manifest holds it. Types of computed values are not written: the shape rules give them again.
///
/// Values are referred to by their name. Constants name the tensor of the package that holds their numbers, or state
/// small contents in place.
public struct GraphDocument: Sendable, Codable {
    /// A value that is given to each run.
    public struct Input: Sendable, Codable {
        /// Unlike all other values' of the graph.
        public var name: String
        /// Data type and shape, whose sizes may be open.
        public var type: ValueType
    }

    /// A value that is known before the model runs; exactly one of `tensor`, `sizes` and `splat` is present.
    public struct Known: Sendable, Codable {
        /// Unlike all other values' of the graph.
        public var name: String
        /// Data type and shape.
        public var type: ValueType
        /// The name of the package's tensor.
        public var tensor: String?
        /// The elements, where they are computed from open sizes.
        public var sizes: [Dimension]?
        /// The number that all elements have.
        public var splat: Splat?
    }

    /// A number of any data type, with all its bits.
    public enum Splat: Sendable, Hashable, Codable, CustomStringConvertible {
        case real(Double)
        case integer(Int64)
        /// Beyond the largest `Int64`.
        case large(UInt64)

        public var description: String {
            switch self {
            case .real(let number): "\(number)"
            case .integer(let number): "\(number)"
            case .large(let number): "\(number)"
            }
        }

        public func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            switch self {
            case .real(let number): try container.encode(number)
            case .integer(let number): try container.encode(number)
            case .large(let number): try container.encode(number)
            }
        }

        public init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            let number = try container.decode(Double.self)
            if number.magnitude < 0x1p53 {
                self = .real(number)
            } else if let integer = try? container.decode(Int64.self) {
                self = .integer(integer)
            } else if let integer = try? container.decode(UInt64.self) {
                self = .large(integer)
            } else {
                self = .real(number)
            }
        }

        /// - Parameter scalar: of rank 0.
        /// - Throws: as converting does.
        init(_ scalar: Tensor) throws {
            if scalar.dataType == .uint64, let number = try scalar.elements(UInt64.self).first, number > UInt64(Int64.max) {
                self = .large(number)
            } else if scalar.dataType.isInteger {
                self = .integer(try scalar.converted(to: .int64).elements(Int64.self)[0])
            } else {
                self = .real(try scalar.numbers()[0])
            }
        }

        /// The number as a tensor of rank 0.
        /// - Throws: `data` where the type has no such number; a floating-point type has all in its range.
        func tensor(_ type: DataType) throws -> Tensor {
            let tensor =
                switch self {
                case .real(let number): try Tensor(scalar: number).converted(to: type)
                case .integer(let number): try Tensor(scalar: number).converted(to: type)
                case .large(let number): try Tensor(scalar: number).converted(to: type)
                }
            guard try isHeld(by: tensor) else { throw TripsError.data("a number of \(type)", found: self) }
            return tensor
        }

        private func isHeld(by tensor: Tensor) throws -> Bool {
            guard tensor.dataType.isFloatingPoint else { return try whole.map { try $0 == Splat(tensor).whole } ?? false }
            if case .real(let number) = self, number.isInfinite { return true }
            return try !tensor.numbers()[0].isInfinite
        }

        /// nil for fractions and what is not finite.
        private var whole: Int128? {
            switch self {
            case .real(let number): Int128(exactly: number)
            case .integer(let number): Int128(number)
            case .large(let number): Int128(number)
            }
        }
    }

    /// An operator at work.
    public struct Step: Sendable, Codable {
        /// The node's name, for people.
        public var name: String
        /// The operator with its attributes.
        public var op: OperatorBox
        /// Names of the values that it reads; nil where an optional one is absent.
        public var inputs: [String?]
        /// Names of the values that it computes.
        public var outputs: [String]
    }

    /// A name that a value has outside the graph.
    public struct Binding: Sendable, Codable {
        /// The name outside.
        public var name: String
        /// The value's name in the graph.
        public var value: String
    }

    /// Such as `main`, `encode` or `decode`.
    public var name: String
    /// What each run is given, in the order of the signature.
    public var inputs: [Input]
    /// What is known before the model runs.
    public var constants: [Known]
    /// The operators, each after those whose values it reads.
    public var nodes: [Step]
    /// What a run gives.
    public var outputs: [Binding]
    /// Intermediates that can be asked for, under their canonical names.
    public var traces: [Binding]
}

extension Graph {
    /// This graph for the manifest.
    /// - Parameter tensorName: the package's name for the constant that a value is.
    /// - Throws: `data` where there is a cycle.
    public func document(tensorName: (ValueID, Constant) throws -> String) throws -> GraphDocument {
        let order = try topologicalOrder()
        var knownValues: [ValueID] = []
        var seen = Set<ValueID>()
        for value in order.flatMap({ $0.inputs.compactMap { $0 } }) + outputs.map(\.value) + traces.map(\.value)
        where content(of: value) != nil && seen.insert(value).inserted { knownValues.append(value) }
        return GraphDocument(
            name: name,
            inputs: inputs.map { .init(name: name(of: $0), type: type(of: $0)) },
            constants: try knownValues.map { try known($0, tensorName) },
            nodes: order.filter { !$0.outputs.allSatisfy { content(of: $0) != nil } }.map { node in
                .init(
                    name: node.name, op: OperatorBox(node.op), inputs: node.inputs.map { $0.map(name(of:)) },
                    outputs: node.outputs.map(name(of:)))
            },
            outputs: outputs.map { .init(name: $0.name, value: name(of: $0.value)) },
            traces: traces.map { .init(name: $0.name, value: name(of: $0.value)) })
    }

    private func known(_ value: ValueID, _ tensorName: (ValueID, Constant) throws -> String) throws -> GraphDocument.Known {
        var known = GraphDocument.Known(name: name(of: value), type: type(of: value))
        switch content(of: value) {
        case .tensor(let constant): known.tensor = try tensorName(value, constant)
        case .dimensions(let sizes): known.sizes = sizes
        case .splat(let scalar): known.splat = try .init(scalar)
        case nil: break
        }
        return known
    }

    /// The graph that a document describes, checked.
    /// - Parameter constant: the constant of a tensor name.
    /// - Throws: `data` where names are unknown or used twice, or the graph is not legal.
    public init(_ document: GraphDocument, constant: (String) throws -> Constant) throws {
        self.init(name: document.name)
        var named: [String: ValueID] = [:]
        func define(_ name: String, _ value: ValueID) throws {
            guard named.updateValue(value, forKey: name) == nil else {
                throw TripsError.data("two values have one name", found: name)
            }
        }
        func lookUp(_ name: String) throws -> ValueID {
            guard let value = named[name] else { throw TripsError.data("a value is read before it is defined", found: name) }
            return value
        }
        for input in document.inputs { try define(input.name, addInput(input.name, input.type)) }
        let inputSizes = document.inputs.flatMap(\.type.shape)
        let given = Set(inputSizes.flatMap { size in size.symbols.filter { size == Dimension(symbol: $0) } })
        for known in document.constants {
            try locating("constant \"\(known.name)\"") {
                try known.checkSymbols(given)
                try define(known.name, addKnown(content(known, constant), known.type, name: known.name))
            }
        }
        for step in document.nodes {
            let results = try add(
                step.op.op, step.inputs.map { try $0.map(lookUp) }, name: step.name, outputNames: step.outputs)
            guard results.count == step.outputs.count else {
                throw TripsError.data("number of outputs", at: step.name, found: step.outputs.count, expected: results.count)
            }
            for (name, value) in zip(step.outputs, results) { try define(name, value) }
        }
        guard document.traces.count <= Graph.maximalOutputs else {
            throw TripsError.data("number of traces", found: document.traces.count, expected: "at most \(Graph.maximalOutputs)")
        }
        guard Set(document.traces.map(\.name)).count == document.traces.count else {
            throw TripsError.data("two traces have one name")
        }
        for output in document.outputs { try addOutput(output.name, lookUp(output.value)) }
        for trace in document.traces { addTrace(trace.name, try lookUp(trace.value)) }
        try validate()
    }

    private func content(_ known: GraphDocument.Known, _ constant: (String) throws -> Constant) throws -> Content {
        switch (known.tensor, known.sizes, known.splat) {
        case (let tensor?, nil, nil):
            let constant = try constant(tensor)
            guard let shape = known.type.constantShape, shape == constant.shape, known.type.dataType == constant.dataType else {
                throw TripsError.data(
                    "type of tensor \(tensor)", found: "\(constant.dataType)\(constant.shape)", expected: known.type)
            }
            return .tensor(constant)
        case (nil, let sizes?, nil):
            guard let shape = known.type.constantShape, try elementCount(of: shape) == sizes.count, known.type.dataType.isInteger
            else {
                throw TripsError.data("sizes", found: "\(sizes.count) for \(known.type)", expected: "one integer for each element")
            }
            for number in sizes.compactMap(\.constant) {
                _ = try GraphDocument.Splat.integer(Int64(number)).tensor(known.type.dataType)
            }
            return .dimensions(sizes)
        case (nil, nil, let number?):
            return .splat(try number.tensor(known.type.dataType))
        default:
            throw TripsError.data("a constant states its content in more or fewer than one way")
        }
    }
}

extension GraphDocument.Known {
    /// - Parameter given: the symbols that are sizes of inputs.
    /// - Throws: `data` where a size is known neither from the inputs' nor, made up, from a value's that is computed.
    fileprivate func checkSymbols(_ given: Set<String>) throws {
        let symbols = (type.shape + (sizes ?? [])).flatMap(\.symbols)
        if let unknown = symbols.first(where: { !$0.hasPrefix("?") && !given.contains($0) }) {
            throw TripsError.data(
                "a symbol that is no input's size", found: unknown, expected: given.sorted().joined(separator: ", "))
        }
    }
}
