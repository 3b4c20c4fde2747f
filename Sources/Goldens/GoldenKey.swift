/// The key of a tensor in a golden file: `in.NAME`, `out.NAME` or `mid.NAME`.
public enum GoldenKey: Hashable, Sendable {
    case input(String)
    case output(String)
    case intermediate(String)

    /// nil for any other key.
    public init?(_ key: String) {
        guard let dot = key.firstIndex(of: ".") else { return nil }
        let name = String(key[key.index(after: dot)...])
        switch key[..<dot] {
        case "in": self = .input(name)
        case "out": self = .output(name)
        case "mid": self = .intermediate(name)
        default: return nil
        }
    }

    /// The name of an input; nil for other keys.
    public var inputName: String? { if case .input(let name) = self { name } else { nil } }

    /// True for an intermediate.
    public var isIntermediate: Bool { if case .intermediate = self { true } else { false } }
}
