import Foundation
import PackageFormat
import Runtime
import Support

/// What a report states about a package besides the verdict.
public struct PackageFacts: Sendable, Encodable {
    /// The file's name, without folders.
    public var file: String
    /// The file's size.
    public var bytes: Int
    /// Of its coarsest weights.
    public var preset: TolerancePreset
    /// What the package says of itself.
    public var manifest: ManifestFacts
    /// By graph, for one example; a text of open length has up to 40 tokens.
    public var multiplyAccumulates: [String: Int]

    /// Those of a model that was opened.
    /// - Parameter path: the package that it was read from.
    /// - Throws: `cannotOpen`.
    public init(_ model: Model, path: String) throws {
        let costs = try model.graphs.compactMap { graph in
            try graph.fed(by: model.graphs).exampleCost().map { (graph.name, $0.multiplyAccumulates) }
        }
        self.init(
            file: fileName(of: path), bytes: try ReadableFile(path: path).size, preset: TolerancePreset(fitting: model.manifest),
            manifest: model.manifest, multiplyAccumulates: Dictionary(uniqueKeysWithValues: costs))
    }

    package init(file: String, bytes: Int, preset: TolerancePreset, manifest: Manifest, multiplyAccumulates: [String: Int]) {
        self.file = file
        self.bytes = bytes
        self.preset = preset
        self.manifest = ManifestFacts(manifest)
        self.multiplyAccumulates = multiplyAccumulates
    }

    /// The manifest without its graphs and tensors.
    public struct ManifestFacts: Sendable, Encodable {
        /// The version of `formats/trips-package.md`.
        public var formatVersion: Int
        /// What wrote the package.
        public var tool: Manifest.Tool
        /// The version of libzstd that wrote it.
        public var libzstd: String
        /// What the package was made from.
        public var source: Manifest.Source?
        /// Such as `albef-pretrain`; nil for ONNX models.
        public var architecture: String?
        /// The options of the conversion.
        public var options: [String: String]
        /// The selection layers, in the order of their blocks.
        public var selections: [Manifest.Selection]
        /// The scheme and the recipe, in words; nil where the weights are as in the source.
        public var quantization: String?

        init(_ manifest: Manifest) {
            formatVersion = manifest.formatVersion
            tool = manifest.tool
            libzstd = manifest.libzstd
            source = manifest.source
            architecture = manifest.architecture
            options = manifest.options
            selections = manifest.selections
            quantization = manifest.quantization.map { "\($0.scheme.rawValue): \($0.summary)" }
        }
    }
}

extension VerificationReport {
    /// The whole report as JSON (`formats/verify-report.md`).
    public func json(_ package: PackageFacts) throws -> String {
        try jsonText(Document(self, package)) + "\n"
    }
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
        divergence = report.divergence.map { Place($0, failureSet: report.failureSet, jumpSet: report.jumpSet) }
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
        let firstJump: Jump?
        let set: String?

        struct Jump: Encodable {
            let name: String
            let before: Double
            let after: Double
            let set: String?
        }

        init(_ divergence: Divergence, failureSet: String?, jumpSet: String?) {
            firstFailure = divergence.firstFailure
            firstJump = divergence.firstJump.map { Jump(name: $0.name, before: $0.before, after: $0.after, set: jumpSet) }
            set = failureSet ?? jumpSet
        }
    }
}
