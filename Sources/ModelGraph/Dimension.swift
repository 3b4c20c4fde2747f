import Support

/// A size of a tensor: an integer polynomial in named symbols, such as `197`, `batch` or `2*batch*text_length+1`, and in their
/// quotients by numbers, rounded down, such as `height//16`.
public struct Dimension: Hashable, Sendable, CustomStringConvertible {
    /// A product of symbols, sorted; the empty product is the constant term's.
    private typealias Monomial = [String]
    /// Sorted by monomial, without zero coefficients.
    private var terms: [Term]

    private struct Term: Hashable, Sendable {
        var symbols: [String]
        var coefficient: Int
    }

    /// A size that is a number.
    public init(_ constant: Int) {
        terms = constant == 0 ? [] : [Term(symbols: [], coefficient: constant)]
    }

    /// A size that each run may choose, such as `batch`.
    public init(symbol: String) {
        terms = [Term(symbols: [symbol], coefficient: 1)]
    }

    /// A size that the shape rule does not know; the graph gives it a symbol of its own.
    public static let unknown = Dimension(symbol: "?")

    /// The number, where no symbol is in it.
    public var constant: Int? {
        if terms.isEmpty { return 0 }
        return terms.count == 1 && terms[0].symbols.isEmpty ? terms[0].coefficient : nil
    }

    /// A lower bound, where there is one. Symbols are 1 or more; those that the graph made up for unknown sizes, and
    /// quotients, are 0 or more.
    package var lowerBound: Int? {
        var sum = 0
        for term in terms {
            guard term.symbols.isEmpty || term.coefficient > 0 else { return nil }
            if term.symbols.contains(where: { $0.hasPrefix("?") || Quotient($0) != nil }) { continue }
            let (next, overflow) = sum.addingReportingOverflow(term.coefficient)
            guard !overflow else { return nil }
            sum = next
        }
        return sum
    }

    /// The symbols that the graph made up for sizes that no shape rule knows.
    package var madeUpSymbols: [String] { symbols.filter { $0.hasPrefix("?") } }

    /// True for such a symbol alone.
    var isMadeUp: Bool {
        terms.count == 1 && terms[0].coefficient == 1 && terms[0].symbols.count == 1 && terms[0].symbols[0].hasPrefix("?")
            && Quotient(terms[0].symbols[0]) == nil
    }

    /// All symbols in it, in quotients too.
    public var symbols: Set<String> { Set(terms.flatMap { $0.symbols.map { Quotient($0)?.dividend ?? $0 } }) }

    /// The sum.
    /// - Throws: `data` where a coefficient overflows.
    public func adding(_ other: Dimension) throws -> Dimension { try Dimension(collecting: terms + other.terms) }

    /// The difference.
    public func subtracting(_ other: Dimension) throws -> Dimension { try adding(other.multiplied(by: Dimension(-1))) }

    /// The product.
    public func multiplied(by other: Dimension) throws -> Dimension {
        var products: [Term] = []
        for left in terms {
            for right in other.terms {
                let (coefficient, overflow) = left.coefficient.multipliedReportingOverflow(by: right.coefficient)
                guard !overflow, left.symbols.count + right.symbols.count <= Dimension.maximalDegree else {
                    throw TripsError.data("a dimension overflows", found: "(\(self)) * (\(other))")
                }
                products.append(Term(symbols: (left.symbols + right.symbols).sorted(), coefficient: coefficient))
            }
        }
        return try Dimension(collecting: products)
    }

    /// The quotient where division by `other` leaves no rest, else nil. `other` is one term, such as `12` or `batch`.
    public func divided(exactlyBy other: Dimension) -> Dimension? {
        guard other.terms.count == 1, let divisor = other.terms.first else { return nil }
        var quotients: [Term] = []
        for term in terms {
            guard divisor.coefficient != -1 || term.coefficient != .min, term.coefficient % divisor.coefficient == 0 else {
                return nil
            }
            var symbols = term.symbols
            for symbol in divisor.symbols {
                guard let index = symbols.firstIndex(of: symbol) else { return nil }
                symbols.remove(at: index)
            }
            quotients.append(Term(symbols: symbols, coefficient: term.coefficient / divisor.coefficient))
        }
        return try? Dimension(collecting: quotients)
    }

    /// `floor(dividedBy:)` of a size that is certainly 0 or more, for operators that round towards zero: both are the same there.
    /// nil for other sizes.
    package func divided(roundingDownBy divisor: Int) -> Dimension? {
        (lowerBound ?? -1) >= 0 ? floor(dividedBy: divisor) : nil
    }

    /// The quotient, rounded down; nil where it is no polynomial. All terms must be multiples of the divisor but one, which may be
    /// a number or a single symbol.
    package func floor(dividedBy divisor: Int) -> Dimension? {
        guard divisor > 0 else { return nil }
        let odd = terms.filter { $0.coefficient % divisor != 0 }
        guard odd.count <= 1 else { return nil }
        var quotients: [Term] = []
        for term in terms {
            let (quotient, rest) = term.coefficient.quotientAndRemainder(dividingBy: divisor)
            if rest == 0 || term.symbols.isEmpty {
                quotients.append(Term(symbols: term.symbols, coefficient: rest < 0 ? quotient - 1 : quotient))
            } else {
                guard term.coefficient == 1, term.symbols.count == 1, let symbol = Quotient(of: term.symbols[0], by: divisor)
                else { return nil }
                quotients.append(Term(symbols: [symbol.name], coefficient: 1))
            }
        }
        return try? Dimension(collecting: quotients)
    }

    /// A symbol that is another's quotient by a number, rounded down: the same quotient is the same symbol.
    private struct Quotient {
        let dividend: String
        let divisor: Int

        var name: String { "\(dividend)//\(divisor)" }

        /// What a symbol's name says; nil where it is no quotient's.
        init?(_ name: String) {
            guard name.utf8.contains(UInt8(ascii: "/")), let mark = name.ranges(of: "//").last, mark.lowerBound > name.startIndex,
                let divisor = Int(name[mark.upperBound...]), divisor > 0
            else { return nil }
            (dividend, self.divisor) = (String(name[..<mark.lowerBound]), divisor)
        }

        /// The quotient of a quotient is the quotient by the product of both divisors. A symbol that the graph made up has none:
        /// its size is known by the time that it is needed.
        init?(of symbol: String, by divisor: Int) {
            let inner = Quotient(symbol)
            let (product, overflow) = (inner?.divisor ?? 1).multipliedReportingOverflow(by: divisor)
            guard !overflow, !symbol.hasPrefix("?") else { return nil }
            (dividend, self.divisor) = (inner?.dividend ?? symbol, product)
        }
    }

    /// The same polynomial with the given symbols replaced by numbers.
    public func substituting(_ bindings: [String: Int]) throws -> Dimension {
        try substituting(bindings.mapValues { Dimension($0) })
    }

    /// The same polynomial with the given symbols replaced by others.
    package func substituting(_ bindings: [String: Dimension]) throws -> Dimension {
        if symbols.allSatisfy({ bindings[$0] == nil }) { return self }
        var sum = Dimension(0)
        for term in terms {
            var product = Dimension(term.coefficient)
            for symbol in term.symbols {
                product = try product.multiplied(by: Dimension.value(of: symbol, bindings))
            }
            sum = try sum.adding(product)
        }
        return sum
    }

    private static func value(of symbol: String, _ bindings: [String: Dimension]) throws -> Dimension {
        guard let quotient = Quotient(symbol), let dividend = bindings[quotient.dividend] else {
            return bindings[symbol] ?? Dimension(symbol: symbol)
        }
        guard let value = dividend.floor(dividedBy: quotient.divisor) else {
            throw TripsError.data("a size that is no polynomial", found: "(\(dividend))//\(quotient.divisor)")
        }
        return value
    }

    public var description: String {
        if terms.isEmpty { return "0" }
        var text = ""
        for term in terms.sorted(by: { $0.symbols.count > $1.symbols.count }) {
            let sign = term.coefficient < 0 ? "-" : text.isEmpty ? "" : "+"
            var factors = term.symbols
            if term.coefficient.magnitude != 1 || factors.isEmpty { factors.insert("\(term.coefficient.magnitude)", at: 0) }
            text += sign + factors.joined(separator: "*")
        }
        return text
    }

    /// Reads what `description` writes.
    /// - Throws: `data` where the text is something else.
    public init(parsing text: String) throws {
        func malformed() -> TripsError { .data("not a dimension", found: "\"\(text.prefix(60))\"") }
        guard text.utf8.count <= 4096 else { throw malformed() }
        var sum: [Term] = []
        let signed = text.replacing("-", with: "+-")
        for part in signed.split(separator: "+", omittingEmptySubsequences: false).dropFirst(text.hasPrefix("-") ? 1 : 0) {
            var term = Term(symbols: [], coefficient: part.hasPrefix("-") ? -1 : 1)
            for factor in part.drop(while: { $0 == "-" }).split(separator: "*", omittingEmptySubsequences: false) {
                if let number = Int(factor) {
                    let (product, overflow) = term.coefficient.multipliedReportingOverflow(by: number)
                    guard !overflow else { throw malformed() }
                    term.coefficient = product
                } else if Dimension.isSymbol(factor) {
                    term.symbols.append(String(factor))
                } else {
                    throw malformed()
                }
            }
            guard term.symbols.count <= Dimension.maximalDegree else { throw malformed() }
            sum.append(Term(symbols: term.symbols.sorted(), coefficient: term.coefficient))
        }
        try self.init(collecting: sum)
    }

    /// Letters, digits and `_ . /`, no digit in front. `//` is for quotients of symbols without it. Symbols that the graph made up
    /// from a value's name begin with `?`, and may hold more of them, and `//`.
    private static func isSymbol(_ text: Substring) -> Bool {
        guard let first = text.first, !first.isNumber else { return false }
        let others = first == "?" ? "_./?" : "_./"
        guard text.allSatisfy({ $0.isLetter || $0.isNumber || others.contains($0) }) else { return false }
        if first == "?" || !text.contains("//") { return true }
        return Quotient(String(text)).map { !$0.dividend.contains("//") } ?? false
    }

    private static let maximalDegree = 16
    private static let maximalTerms = 64

    private init(collecting unsorted: [Term]) throws {
        var coefficients: [Monomial: Int] = [:]
        for term in unsorted {
            let (sum, overflow) = coefficients[term.symbols, default: 0].addingReportingOverflow(term.coefficient)
            guard !overflow else { throw TripsError.data("a dimension overflows") }
            coefficients[term.symbols] = sum
        }
        guard coefficients.count <= Dimension.maximalTerms else {
            throw TripsError.data(
                "a dimension has too many terms", found: coefficients.count, expected: "at most \(Dimension.maximalTerms)")
        }
        terms = coefficients.filter { $0.value != 0 }.map { Term(symbols: $0.key, coefficient: $0.value) }
            .sorted { $0.symbols.lexicographicallyPrecedes($1.symbols) }
    }
}

extension Dimension: ExpressibleByIntegerLiteral {
    /// A size that is a number.
    public init(integerLiteral value: Int) { self.init(value) }
}

extension Dimension: Codable {
    /// A constant is written as a number, everything else as text.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let constant { try container.encode(constant) } else { try container.encode(description) }
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let number = try? container.decode(Int.self) {
            self.init(number)
        } else {
            self = try locating(decoder.codingPath.place) { try Dimension(parsing: container.decode(String.self)) }
        }
    }
}

/// The product of all dimensions.
package func product(_ dimensions: some Sequence<Dimension>) throws -> Dimension {
    try dimensions.reduce(Dimension(1)) { try $0.multiplied(by: $1) }
}
