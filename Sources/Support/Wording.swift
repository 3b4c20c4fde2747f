import Foundation

/// A number of things, such as `1 block` and `2 blocks`.
package func counted(_ count: Int, _ thing: String) -> String { "\(count) \(thing)\(count == 1 ? "" : "s")" }

/// A number in few characters, such as `0.001` or `3.2e-06`.
package func short(_ number: Double) -> String { significant(number, 3) }

/// Two numbers as `short` writes them, with as many digits more as tell them apart.
package func apart(_ left: Double, _ right: Double) -> (left: String, right: String) {
    let pairs = (3...17).lazy.map { (left: significant(left, $0), right: significant(right, $0)) }
    return pairs.first { $0.left != $0.right } ?? (short(left), short(right))
}

/// A number with at most `count` significant digits.
private func significant(_ number: Double, _ count: Int) -> String {
    if number.isNaN { return "nan" }
    if number.isInfinite { return number > 0 ? "∞" : "-∞" }
    return String(format: "%.\(count)g", number)
}

/// A number with a fixed count of decimals.
package func digits(_ number: Double, _ count: Int) -> String { String(format: "%.\(count)f", number) }

/// A share of 1, such as `99.5 %`.
package func percent(_ share: Double) -> String { "\(digits(share * 100, share == 1 ? 0 : 1)) %" }

/// A signal-to-noise ratio without its unit; `exact` where there is no noise.
package func snrText(_ ratio: Double) -> String {
    ratio.isNaN ? "nan" : ratio.isFinite ? digits(ratio, 1) : ratio > 0 ? "exact" : "-∞"
}

/// A number of bytes in decimal units.
package func byteText(_ count: Int) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"]
    var (size, unit) = (Double(count), 0)
    while size >= 999.5 && unit < units.count - 1 { (size, unit) = (size / 1000, unit + 1) }
    return unit == 0 ? "\(count) B" : "\(digits(size, size < 9.995 ? 2 : size < 99.95 ? 1 : 0)) \(units[unit])"
}

/// A number of multiply-accumulate operations.
package func macText(_ count: Int) -> String {
    count >= 1_000_000_000 ? "\(digits(Double(count) / 1e9, 2)) GMACs" : "\(digits(Double(count) / 1e6, 2)) MMACs"
}

/// A value as JSON: keys sorted, numbers that are not finite as strings.
package func jsonText(_ value: some Encodable, pretty: Bool = true) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    if pretty { encoder.outputFormatting.insert(.prettyPrinted) }
    encoder.nonConformingFloatEncodingStrategy = .convertToString(positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    return String(decoding: try encoder.encode(value), as: UTF8.self)
}

/// A text as people may see it: names in files may hold what a terminal takes for a command, or what turns lines round. Line feeds
/// stay.
package func printable(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: isCommand) else { return text }
    var shown = String.UnicodeScalarView()
    for scalar in text.unicodeScalars { shown.append(isCommand(scalar) ? "\u{FFFD}" : scalar) }
    return String(shown)
}

private func isCommand(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x0A: false
    case 0..<0x20, 0x7F..<0xA0, 0x202A...0x202E, 0x2066...0x2069: true
    default: false
    }
}
