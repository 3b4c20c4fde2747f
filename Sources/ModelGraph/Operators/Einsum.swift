import Support
import Tensors

/// Sums of products over named axes (Einstein's notation). Inputs: one tensor for each term of the equation.
package struct Einsum: Operator {
    package static let maximalInputs: Int? = nil
    /// Such as `bij,bjk->bik`.
    package var equation: String

    package init(equation: String) { self.equation = equation }

    /// The axes of each operand and of the result, as numbers in place of the names.
    package struct Plan: Sendable {
        /// For each operand the name of each axis.
        package var terms: [[Int]]
        package var output: [Int]
        package var names: Int
    }

    /// Reads the equation for operands of these ranks.
    /// - Throws: `data` where it is malformed or fits other operands.
    package func plan(ranks: [Int]) throws -> Plan {
        func malformed() -> TripsError {
            .data("equation", found: "\"\(equation.prefix(200))\"", expected: "one that fits ranks \(ranks)")
        }
        let text = equation.filter { !$0.isWhitespace }
        let sides = text.split(separator: "->", omittingEmptySubsequences: false)
        guard text.utf8.count <= 4096, sides.count <= 2, let left = sides.first else { throw malformed() }
        let parts = left.split(separator: ",", omittingEmptySubsequences: false).map { String($0) }
        guard parts.count == ranks.count else { throw malformed() }
        let hidden = try zip(parts, ranks).map { part, rank -> Int in
            let letters = part.filter { $0 != "." }.count
            guard part.contains("...") ? letters <= rank : letters == rank else { throw malformed() }
            return rank - letters
        }
        let ellipsis = hidden.max() ?? 0
        // Names 0 ..< ellipsis are the hidden axes; letters follow in the order of the alphabet.
        let letters = Set(left.filter { $0.isLetter }).sorted()
        func axes(_ part: String, hidden: Int) throws -> [Int] {
            guard let range = part.firstRange(of: "...") else {
                return try part.map { try letters.firstIndex(of: $0).map { $0 + ellipsis } ?? { throw malformed() }() }
            }
            guard !part[range.upperBound...].contains(".") else { throw malformed() }
            return try axes(String(part[..<range.lowerBound]), hidden: 0) + Array((ellipsis - hidden)..<ellipsis)
                + axes(String(part[range.upperBound...]), hidden: 0)
        }
        let terms = try zip(parts, hidden).map { try axes($0, hidden: $1) }
        let output: [Int]
        if sides.count == 2 {
            output = try axes(String(sides[1]), hidden: ellipsis)
        } else {
            let once = letters.filter { letter in left.count { $0 == letter } == 1 }
            output = Array(0..<ellipsis) + once.compactMap { letters.firstIndex(of: $0) }.map { $0 + ellipsis }
        }
        guard Set(output).count == output.count, Set(output).isSubset(of: terms.joined()) else { throw malformed() }
        return Plan(terms: terms, output: output, names: ellipsis + letters.count)
    }

    package func infer(_ inputs: [Operand?]) throws -> [ValueType] {
        let types = try inputs.indices.map { try inputs.required($0, "operand").type }
        guard let first = types.first, types.allSatisfy({ $0.dataType == first.dataType }), first.dataType != .bool else {
            throw TripsError.data("operands", found: "\(types)", expected: "one numeric type")
        }
        let plan = try plan(ranks: types.map(\.rank))
        let sizes = try Einsum.sizes(plan, types)
        return [ValueType(first.dataType, plan.output.map { sizes[$0] })]
    }

    private static func sizes(_ plan: Plan, _ types: [ValueType]) throws -> [Dimension] {
        var sizes = Array(repeating: Dimension(1), count: plan.names)
        for (term, type) in zip(plan.terms, types) {
            for (name, size) in zip(term, type.shape) { sizes[name] = try broadcast(sizes[name], size) }
        }
        return sizes
    }

    package func multiplyAccumulates(_ inputs: [ValueType?], _ outputs: [ValueType]) throws -> Dimension? {
        let types = inputs.compactMap { $0 }
        guard types.count > 1 else { return nil }
        return try product(Einsum.sizes(plan(ranks: types.map(\.rank)), types))
    }
}
