import struct Foundation.Data
import class Foundation.JSONDecoder
import class Foundation.JSONEncoder
import ModelGraph
import Support
import Testing

struct DimensionTests {
    private let n = Dimension(symbol: "n")
    private let b = Dimension(symbol: "batch")

    @Test func addsAndMultipliesPolynomials() throws {
        let sum = try n.adding(1)
        #expect(sum.description == "n+1")
        let square = try sum.multiplied(by: n.subtracting(1))
        #expect(square.description == "n*n-1")
        #expect(try square.adding(1) == n.multiplied(by: n))
        #expect(try n.subtracting(n) == 0)
        #expect(try n.subtracting(n).constant == 0)
        #expect(try b.multiplied(by: n) == n.multiplied(by: b))
        #expect(n.constant == nil && Dimension(5).constant == 5)
        #expect(try b.multiplied(by: n).symbols == ["n", "batch"])
    }

    /// Work grows with the terms, and a few hundred bytes of a file may ask for a product of two sums.
    @Test func termsAreFew() throws {
        let sum = try (0..<64).reduce(Dimension(0)) { try $0.adding(Dimension(symbol: "s\($1)")) }
        #expect(throws: TripsError.self) { try sum.adding(n) }
        #expect(throws: TripsError.self) { try sum.multiplied(by: n.adding(1)) }
    }

    @Test func dividesExactlyOrNotAtAll() throws {
        let size = try b.multiplied(by: 12).multiplied(by: n.adding(1))
        #expect(try size.divided(exactlyBy: b.multiplied(by: 4)) == n.multiplied(by: 3).adding(3))
        #expect(size.divided(exactlyBy: 5) == nil)
        #expect(size.divided(exactlyBy: n) == nil)
        #expect(size.divided(exactlyBy: 0) == nil)
        #expect(Dimension(0).divided(exactlyBy: n) == 0)
        #expect(Dimension(.min).divided(exactlyBy: -1) == nil)
    }

    /// The quotient of what the symbols stand for, 1 or more, or none.
    @Test func dividesRoundingDownWhereThatIsCertain() throws {
        func size(_ factor: Int, _ rest: Int) throws -> Dimension {
            try n.multiplied(by: Dimension(factor)).adding(Dimension(rest))
        }
        #expect(try size(4, 2).divided(roundingDownBy: 4) == n)
        #expect(try size(4, -2).divided(roundingDownBy: 4) == n.subtracting(1))
        #expect(try size(4, -4).divided(roundingDownBy: 4) == n.subtracting(1))
        #expect(Dimension(0).divided(roundingDownBy: 4) == 0)
        #expect(try size(3, 2).divided(roundingDownBy: 2) == nil)
        // Operators round negative quotients towards 0.
        #expect(try size(4, -6).divided(roundingDownBy: 4) == nil)
        #expect(Dimension(-3).divided(roundingDownBy: 2) == nil)
        for divisor in [0, -4] { #expect(try size(4, 2).divided(roundingDownBy: divisor) == nil) }
    }

    /// The same quotient is the same symbol, however it came about.
    @Test func namesQuotients() throws {
        let (quotient, made) = (try #require(n.divided(roundingDownBy: 16)), Dimension(symbol: "?x.0"))
        #expect(quotient.description == "n//16")
        #expect(try n.subtracting(16).floor(dividedBy: 16)?.adding(1) == quotient)
        #expect(
            try b.multiplied(by: 32).adding(n).adding(48).divided(roundingDownBy: 16)
                == b.multiplied(by: 2).adding(quotient).adding(3))
        #expect(n.divided(roundingDownBy: 4)?.divided(roundingDownBy: 4) == quotient)
        #expect(quotient.symbols == ["n"])
        #expect(quotient.lowerBound == 0 && quotient.madeUpSymbols.isEmpty)
        // No polynomial in quotients: a rest, another factor, two symbols, a product; and what the graph made up, or is too large.
        #expect(try n.adding(1).divided(roundingDownBy: 16) == nil)
        #expect(try n.multiplied(by: 3).divided(roundingDownBy: 2) == nil)
        #expect(try n.adding(b).divided(roundingDownBy: 16) == nil)
        #expect(try n.multiplied(by: b).divided(roundingDownBy: 16) == nil)
        #expect(made.divided(roundingDownBy: 16) == nil)
        #expect(quotient.divided(roundingDownBy: .max) == nil)
        // Operators round negative quotients towards 0.
        #expect(try n.subtracting(16).divided(roundingDownBy: 16) == nil)
    }

    @Test func substitutesInQuotients() throws {
        let size = try #require(n.divided(roundingDownBy: 16)).multiplied(by: b).adding(1)
        #expect(try size.substituting(["n": 47]) == b.multiplied(by: 2).adding(1))
        #expect(try size.substituting(["n": 15, "batch": 3]) == 1)
        #expect(try size.substituting(["n": b.multiplied(by: 32)]) == b.multiplied(by: b).multiplied(by: 2).adding(1))
        #expect(throws: TripsError.self) { try size.substituting(["n": n.adding(1)]) }
    }

    @Test func substitutesNumbers() throws {
        let size = try b.multiplied(by: n).adding(7)
        #expect(try size.substituting(["n": 3]).description == "3*batch+7")
        #expect(try size.substituting(["n": 3, "batch": 2]) == 13)
    }

    @Test func knowsItsLowestValue() throws {
        #expect(try n.adding(1).lowerBound == 2)
        #expect(try n.subtracting(1).lowerBound == 0)
        #expect(try Dimension(5).subtracting(n).lowerBound == nil)
        #expect(Dimension(symbol: "?x.0").lowerBound == 0)
    }

    @Test(arguments: ["0", "-3", "n", "2*batch*n-n+1", "-n", "?x.0+1", "?/a//b.0", "-n+1", "_a.b/c2", "2*batch*n//16+1"])
    func readsWhatItWrites(_ text: String) throws {
        let size = try Dimension(parsing: text)
        #expect(try Dimension(parsing: size.description) == size)
        let coded = try JSONDecoder().decode(Dimension.self, from: JSONEncoder().encode(size))
        #expect(coded == size)
    }

    @Test(arguments: [
        "", "+", "n*", "*n", "n + 1", "2n", "n\n", "n(1)", "9223372036854775807*9", String(repeating: "n*", count: 40) + "n",
        "n+", "+n", "-", "n--1", "n//m", "n//0", "//2", "n//2//3", "n///2", "n?",
    ])
    func refusesOtherText(_ text: String) {
        #expect(throws: TripsError.self) { try Dimension(parsing: text) }
    }

    @Test func throwsInsteadOfOverflowing() throws {
        #expect(throws: TripsError.self) { try Dimension(.max).adding(1) }
        #expect(throws: TripsError.self) { try Dimension(.max).multiplied(by: 2) }
        #expect(throws: TripsError.self) { try Dimension(.min).subtracting(1) }
        var power = n
        for _ in 0..<15 { power = try power.multiplied(by: n) }
        #expect(throws: TripsError.self) { try power.multiplied(by: n) }
    }
}
