extension VerificationReport {
    /// The report for continuous integration: a test case for each tensor.
    public var junit: String {
        let cases = outputs + intermediates
        let lines = cases.map { summary -> String in
            let start =
                "    <testcase classname=\"\(summary.isIntermediate ? "intermediates" : "outputs")\" name=\"\(escaped(summary.name))\""
            switch summary.verdict {
            case .pass: return start + "/>"
            case .unjudged: return start + "><skipped message=\"\(escaped(summary.worst.reason ?? "unjudged"))\"/></testcase>"
            case .fail:
                return start + "><failure message=\"\(escaped(summary.worst.reason ?? "beyond tolerance"))\">"
                    + escaped("worst in \(summary.worstSet), \(summary.failedSets) of \(summary.sets) sets failed")
                    + "</failure></testcase>"
            }
        }
        let failures = cases.count { $0.verdict == .fail }
        let skipped = cases.count { $0.verdict == .unjudged }
        return """
            <?xml version="1.0" encoding="UTF-8"?>
            <testsuites>
              <testsuite name="trips-verify" tests="\(cases.count)" failures="\(failures)" skipped="\(skipped)">
            \(lines.joined(separator: "\n"))
              </testsuite>
            </testsuites>

            """
    }
}

/// Text escaped for HTML and XML.
func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "&": result += "&amp;"
        case "<": result += "&lt;"
        case ">": result += "&gt;"
        case "\"": result += "&quot;"
        case "\n", "\t": result.unicodeScalars.append(scalar)
        // XML allows these not even escaped.
        case "\0"..<" ", "\u{FFFE}", "\u{FFFF}": result += "?"
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result
}
