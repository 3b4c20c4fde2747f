import Foundation
import PackageFormat
import Support

/// What is told about a package beside the verdict.
public struct PackageFacts: Sendable, Encodable {
    /// The file's name, without folders.
    public var file: String
    public var bytes: Int
    public var preset: TolerancePreset
    public var manifest: ManifestFacts
    /// By graph, for one example; a text of open length has up to 40 tokens (`Graph.exampleCost`).
    public var multiplyAccumulates: [String: Int]

    public init(file: String, bytes: Int, preset: TolerancePreset, manifest: Manifest, multiplyAccumulates: [String: Int]) {
        self.file = file
        self.bytes = bytes
        self.preset = preset
        self.manifest = ManifestFacts(manifest)
        self.multiplyAccumulates = multiplyAccumulates
    }

    /// The manifest without its graphs and tensors.
    public struct ManifestFacts: Sendable, Encodable {
        public var formatVersion: Int
        public var tool: Manifest.Tool
        public var libzstd: String
        public var source: Manifest.Source?
        public var architecture: String?
        public var options: [String: String]
        public var selections: [Manifest.Selection]
        public var quantization: String?

        init(_ manifest: Manifest) {
            formatVersion = manifest.formatVersion
            tool = manifest.tool
            libzstd = manifest.libzstd
            source = manifest.source
            architecture = manifest.architecture
            options = manifest.options
            selections = manifest.selections
            quantization = manifest.quantization.map { "\($0.scheme): \($0.summary)" }
        }
    }
}

extension VerificationReport {
    /// The whole report as JSON (`formats/verify-report.md`).
    public func json(_ package: PackageFacts) throws -> String {
        try jsonText(Document(self, package)) + "\n"
    }

    /// `pass`, `fail`, or `unjudged` where packages were only compared.
    public var verdict: Verdict {
        let verdicts = (outputs + intermediates).map(\.verdict)
        return verdicts.contains(.fail) ? .fail : verdicts.contains(.pass) ? .pass : .unjudged
    }

    /// The report for continuous integration: a test case for each tensor.
    public var junit: String {
        let cases = outputs + intermediates
        let lines = cases.map { summary -> String in
            let start = "    <testcase classname=\"\(summary.isIntermediate ? "intermediates" : "outputs")\" name=\"\(escaped(summary.name))\""
            switch summary.verdict {
            case .pass: return start + "/>"
            case .unjudged: return start + "><skipped message=\"\(escaped(summary.worst.reason ?? "unjudged"))\"/></testcase>"
            case .fail:
                return start + "><failure message=\"\(escaped(summary.worst.reason ?? "beyond tolerance"))\">"
                    + escaped("worst in \(summary.worstSet), \(summary.failedSets) of \(summary.sets) sets failed") + "</failure></testcase>"
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

/// Text as it may stand in HTML and XML.
func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "&": result += "&amp;"
        case "<": result += "&lt;"
        case ">": result += "&gt;"
        case "\"": result += "&quot;"
        case "\n", "\t": result.unicodeScalars.append(scalar)
        // Not even escaped may these stand in XML.
        case "\0"..<" ", "\u{FFFE}", "\u{FFFF}": result += "?"
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result
}

private struct Document: Encodable {
    let format = "trips-verify-report"
    let version = 1
    let verdict: Verdict
    let package: PackageFacts
    let goldenSets: [String]
    let metadata: [String: String]
    let outputs: [Entry]
    let intermediates: [Entry]
    let isolated: [Entry]?
    let selections: [Selection]
    let divergence: Place?
    let curves: [DepthCurve]
    let times: [KindTime]
    let effect: Effect?
    let accuracy: Accuracy?
    let notes: [String]

    init(_ report: VerificationReport, _ package: PackageFacts) {
        verdict = report.verdict
        self.package = package
        goldenSets = report.sets
        metadata = report.metadata
        outputs = report.outputs.map(Entry.init)
        intermediates = report.intermediates.map(Entry.init)
        isolated = report.isolated?.map(Entry.init)
        selections = report.selections.map(Selection.init)
        divergence = report.divergence.map { Place($0, report.divergenceSet) }
        curves = report.curves
        times = report.times
        effect = report.effect
        accuracy = report.accuracy
        notes = report.notes
    }

    struct Entry: Encodable {
        let name: String
        let verdict: Verdict
        let reason: String?
        let criterion: String?
        let dataType: String?
        let shape: [Int]
        let sets: Int
        let failedSets: Int
        let worstSet: String
        let toleranceUse: Double?
        let absoluteError: ErrorSpread?
        let relativeError: ErrorSpread?
        let worstIndex: [Int]?
        let worstValue: Double?
        let worstReference: Double?
        let cosine: Double?
        let snr: Double?
        let medianSNR: Double?
        let medianMaximalError: Double?
        let nonFiniteMismatches: Int?
        let histogram: [Int]?
        let agreement: Agreement?
        let alignment: String?

        init(_ summary: TensorSummary) {
            let worst = summary.worst
            let metrics = worst.metrics
            name = summary.name
            verdict = summary.verdict
            reason = worst.reason
            criterion = worst.criterion?.description
            dataType = worst.dataType?.description
            shape = worst.shape
            sets = summary.sets
            failedSets = summary.failedSets
            worstSet = summary.worstSet
            toleranceUse = worst.toleranceUse
            absoluteError = metrics?.absolute
            relativeError = metrics?.relative
            worstIndex = metrics?.worstIndex
            worstValue = metrics?.worstPair?.value
            worstReference = metrics?.worstPair?.reference
            cosine = metrics?.cosine
            snr = metrics?.snr
            medianSNR = summary.snr?.median
            medianMaximalError = summary.maximalError?.median
            nonFiniteMismatches = metrics?.nonFiniteMismatches
            histogram = metrics?.histogram
            agreement = worst.agreement
            alignment = worst.alignment?.description
        }
    }

    struct Selection: Encodable {
        let block: Int
        let sets: Int
        let setsWithFlips: Int
        let worstOverlap: Double
        let medianOverlap: Double
        let smallestMargin: Double?
        let worst: SelectionComparison

        init(_ summary: SelectionSummary) {
            block = summary.layer
            sets = summary.sets
            setsWithFlips = summary.setsWithFlips
            worstOverlap = summary.overlap.worst
            medianOverlap = summary.overlap.median
            smallestMargin = summary.smallestMargin
            worst = summary.worst
        }
    }

    struct Place: Encodable {
        let firstFailure: String?
        let firstJump: Divergence.Jump?
        let set: String?

        init(_ divergence: Divergence, _ set: String?) {
            firstFailure = divergence.firstFailure
            firstJump = divergence.firstJump
            self.set = set
        }
    }
}
