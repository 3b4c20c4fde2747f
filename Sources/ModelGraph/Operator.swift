import Support

/// What a node computes: attributes, shape rule and cost. How it computes lives in the module `Operators`.
///
/// An operator is a small struct; its stored properties are its attributes, in the package as in print.
public protocol Operator: Sendable, Hashable, Codable {
    /// The name in packages and in print; the type's own unless stated.
    static var name: String { get }

    /// The most inputs that a node has, absent ones counted: 1 unless stated; nil for any number.
    static var maximalInputs: Int? { get }

    /// The types of the outputs.
    /// - Parameter inputs: nil: an optional input that is absent.
    /// - Throws: `data` where the operator cannot take these inputs. Unknown sizes are `Dimension.unknown`.
    func infer(_ inputs: [Operand?]) throws -> [ValueType]

    /// Multiply-accumulate operations of one run; nil where the operator multiplies no matrices.
    func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension?
}

extension Operator {
    /// `String(describing:)` gives the same, but looks first whether each type describes itself: 10 ms at a program's start.
    public static var name: String { _typeName(Self.self, qualified: false) }
    /// One input.
    public static var maximalInputs: Int? { 1 }
    public func multiplyAccumulates(_: [ValueType?], _: [ValueType]) throws -> Dimension? { nil }

    package func isEqual(to other: any Operator) -> Bool { (other as? Self) == self }
}

extension Graph {
    /// Multiply-accumulate operations of one run, over all nodes.
    public func multiplyAccumulates() throws -> Dimension {
        try nodes.reduce(Dimension(0)) { sum, node in
            let cost = try node.op.multiplyAccumulates(node.inputs.map { $0.map(type(of:)) }, node.outputs.map(type(of:)))
            return try cost.map { try sum.adding($0) } ?? sum
        }
    }
}
