import Foundation
import TestSupport
import Testing
import Trips

private let sample = fixtures + "/scenes"

/// The trained sample through conversion, selection and quantization, judged by its right answers.
@Suite struct TrainedSample {
    /// Questions of the test set that are asked: they give the share of right answers within some 2 points.
    static let questions = 200
    /// Above what a text alone can give: guessing within the kind of answer asked for is right in a third of them.
    static let least = 0.85
    /// What selection or int8 may cost on so few questions.
    static let mostLost = 0.03

    private static func convert(to path: String, keepRate: Double? = nil) throws {
        var options = ConversionOptions()
        if let keepRate { options.selection = SelectionRequest(blocks: [2, 4], keepRates: [keepRate]) }
        try Trips.convert("\(sample)/checkpoint.safetensors", to: path, options)
    }

    private static func share(_ path: String) throws -> Double {
        let testSet = try TestSet(path: "\(sample)/test-set.safetensors").prefix(questions)
        return try Accuracy.measure(Model(contentsOf: path), on: testSet, output: "prediction", threads: 2).share
    }

    @Test func keepsItsAccuracyUnderSelectionAndInt8() throws {
        let scratch = try TemporaryFolder()
        let (whole, selected, int8) = (
            scratch["whole.trips"], scratch["selected.trips"], scratch["int8.trips"]
        )
        try Self.convert(to: whole)
        try Self.convert(to: selected, keepRate: 0.5)
        var quantization = QuantizationOptions(.int8)
        quantization.calibration = try GoldenReference.references(at: "\(sample)/golden-select.safetensors").map {
            try $0.load()
        }
        try quantize(selected, to: int8, quantization, measuring: false)

        let before = try Self.share(whole)
        #expect(before > Self.least)
        #expect(try Self.share(selected) > before - Self.mostLost)
        #expect(try Self.share(int8) > before - Self.mostLost)
    }

    /// fp32 on the checkpoint's bfloat16 weights against PyTorch's, selections included.
    @Test func givesTheReferenceNumbers() throws {
        let scratch = try TemporaryFolder()
        let path = scratch["selected.trips"]
        try Self.convert(to: path, keepRate: 0.5)
        let goldens = try GoldenReference.references(at: "\(sample)/golden-select.safetensors")
        #expect(try verify(Model(contentsOf: path), against: goldens, options: VerificationOptions(), threads: 2).passes)
    }
}
