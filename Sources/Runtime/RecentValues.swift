/// The values of the keys that were asked for last.
package struct RecentValues<Key: Equatable, Value> {
    /// The one asked for last at the end.
    private var entries: [(key: Key, value: Value)] = []
    private static var capacity: Int { 8 }

    package init() {}

    /// The value kept for a key, which is no longer kept then.
    package mutating func take(_ key: Key) -> Value? {
        entries.firstIndex { $0.key == key }.map { entries.remove(at: $0).value }
    }

    /// The value kept for a key.
    package mutating func value(for key: Key) -> Value? {
        guard let value = take(key) else { return nil }
        entries.append((key, value))
        return value
    }

    /// The value kept for a key; made and kept where there is none.
    package mutating func value(for key: Key, orMake make: () throws -> Value) rethrows -> Value {
        if let known = value(for: key) { return known }
        let made = try make()
        keep(made, for: key)
        return made
    }

    /// Keeps a value, in place of the one that was asked for longest ago where there are many.
    package mutating func keep(_ value: Value, for key: Key) {
        entries.append((key, value))
        if entries.count > Self.capacity { entries.removeFirst() }
    }
}
