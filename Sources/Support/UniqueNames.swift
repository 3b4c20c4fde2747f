/// Names of which no two are equal: one that is taken already gets a number.
package struct UniqueNames: Sendable {
    private let separator: String
    private var taken: Set<String>
    /// The last number that each name was given: a file may repeat one name as often as it likes.
    private var numbers: [String: Int] = [:]

    /// - Parameters:
    ///   - separator: stands between a name and its number.
    ///   - taken: names that are in use.
    package init(separator: String, taken: some Sequence<String> = []) {
        self.separator = separator
        self.taken = Set(taken)
    }

    /// Takes a name as it is. Returns whether it was free.
    package mutating func take(_ name: String) -> Bool { taken.insert(name).inserted }

    /// Takes the name, or where it is taken the name with the lowest number from 2 on that is free.
    package mutating func unique(_ base: String) -> String {
        if taken.insert(base).inserted { return base }
        var (name, number) = (base, numbers[base] ?? 1)
        repeat {
            number += 1
            name = "\(base)\(separator)\(number)"
        } while !taken.insert(name).inserted
        numbers[base] = number
        return name
    }
}
