import ModelGraph
import Support

/// A `bert_config.json`.
struct Configuration {
    /// The file's name, for messages.
    let name: String
    private let values: JSON

    /// - Throws: `cannotOpen`; `data` where the file is no JSON object.
    init(path: String) throws {
        let file = try ReadableFile(path: path)
        name = file.name
        values = try locating(file.name) {
            let values = try JSON(file, maximalSize: 1 << 20)
            guard values.members != nil else {
                throw TripsError.data("the config file", found: "\(values)".prefix(60), expected: "a JSON object")
            }
            return values
        }
    }

    subscript(key: String) -> JSON? { values[key] }
}

/// Finds what does not follow from shapes: an option, else the config file, else the checkpoint's metadata, else the
/// released value.
struct Settings {
    let configuration: Configuration?
    let metadata: [String: String]
    private(set) var list: [Setting] = []

    init(configuration: Configuration?, metadata: [String: String]) {
        self.configuration = configuration
        self.metadata = metadata
    }

    mutating func note(_ name: String, _ value: String, from source: Setting.Source) {
        list.append(Setting(name, value, from: source))
    }

    /// - Parameters:
    ///   - configurationKey: its name in the config file.
    ///   - metadataKeys: its names in the metadata; the first that is there counts.
    ///   - isValid: what values the tensors allow; `expected` says so in words.
    /// - Throws: `usage` where an option, `data` where a file gives another value.
    mutating func integer(
        _ name: String, option: Int?, configurationKey: String?, metadataKeys: [String], released: Int, expected: String,
        isValid: (Int) -> Bool
    ) throws -> Int {
        let (value, source) = try find(option, configurationKey, metadataKeys, released)
        guard isValid(value) else {
            throw TripsError(
                source == .option ? .usage : .data, name, at: source == .option ? nil : place(of: source), found: value,
                expected: expected)
        }
        note(name, "\(value)", from: source)
        return value
    }

    /// The number of attention heads, which must divide the width; the released models have one for 64 columns.
    mutating func heads(_ name: String, option: Int?, configurationKey: String? = nil, width: Int) throws -> Int {
        try integer(
            name, option: option, configurationKey: configurationKey, metadataKeys: [name, "heads"], released: max(1, width / 64),
            expected: "a divisor of the width \(width)"
        ) { $0 > 0 && width % $0 == 0 }
    }

    /// LayerNorm's epsilon of the text towers.
    mutating func textEpsilon() throws -> Float {
        guard let stated = configuration?["layer_norm_eps"] else {
            note("text_layer_norm_epsilon", "1e-12", from: .released)
            return 1e-12
        }
        guard let number = stated.double, number > 0, number < 1 else {
            throw TripsError.data(
                "layer_norm_eps", at: place(of: .configuration), found: "\(stated)".prefix(60),
                expected: "a number between 0 and 1")
        }
        note("text_layer_norm_epsilon", "\(number)", from: .configuration)
        return Float(number)
    }

    private func place(of source: Setting.Source) -> String {
        source == .configuration ? configuration?.name ?? source.rawValue : source.rawValue
    }

    private func find(_ option: Int?, _ configurationKey: String?, _ metadataKeys: [String], _ released: Int) throws -> (
        Int, Setting.Source
    ) {
        if let option { return (option, .option) }
        if let key = configurationKey, let stated = configuration?[key] {
            guard let number = stated.integer else {
                throw TripsError.data(
                    key, at: place(of: .configuration), found: "\(stated)".prefix(60), expected: "an integer")
            }
            return (number, .configuration)
        }
        if let key = metadataKeys.first(where: { metadata[$0] != nil }), let text = metadata[key] {
            guard let number = Int(text) else {
                throw TripsError.data(key, at: Setting.Source.metadata.rawValue, found: text.prefix(40), expected: "an integer")
            }
            return (number, .metadata)
        }
        return (released, .released)
    }
}
