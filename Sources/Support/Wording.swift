/// A number of things, such as `1 block` and `2 blocks`.
public func counted(_ count: Int, _ thing: String) -> String { "\(count) \(thing)\(count == 1 ? "" : "s")" }
