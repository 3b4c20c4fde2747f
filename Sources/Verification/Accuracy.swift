import Goldens
import Preprocessing
import Runtime
import Support
import Tensors

/// How often a model's answer is the right one.
public struct Accuracy: Sendable, Encodable, Equatable {
    /// Examples answered rightly.
    public var right: Int
    /// Examples asked.
    public var count: Int
    /// The share of right answers in each half of the test set.
    public var halves: [Double]
    /// Median time of an example in seconds.
    public var seconds: Double

    package init(right: Int, count: Int, halves: [Double], seconds: Double) {
        (self.right, self.count, self.halves, self.seconds) = (right, count, halves, seconds)
    }

    /// Right answers of all, 0 to 1.
    public var share: Double { count == 0 ? 0 : Double(right) / Double(count) }
}

extension Accuracy {
    /// Runs a model over a test set; its answer is the place of the largest element of the output's last axis. Rows of NaN answer
    /// nothing.
    /// - Parameters:
    ///   - output: the name of an output [B, classes].
    ///   - progress: called with the examples done.
    /// - Throws: `usage` where the output does not exist or has no classes; `data` for what the test set holds.
    public static func measure(
        _ model: Model, on testSet: TestSet, output: String, threads: Int? = nil, progress: (Int) -> Void = { _ in }
    ) throws -> Accuracy {
        let session = Session(model, threads: threads)
        let batch = try batchSize(of: session, for: output)
        let clock = ContinuousClock()
        var (right, seconds): ([Bool], [Double]) = ([], [])
        var start = 0
        while start < testSet.count {
            // The last batch begins earlier: a package may take batches of one size alone.
            let range = max(0, min(start, testSet.count - batch))..<min(start + batch, testSet.count)
            let inputs = try testSet.batch(range).mapValues { try preprocessed($0, for: model) }
            var results: [String: Tensor] = [:]
            let time = try clock.measure { results = try asDataErrors { try session.compute(inputs, outputs: [output]) } }
            guard let logits = results[output], logits.shape.count == 2, logits.shape[0] == range.count, logits.shape[1] > 0 else {
                throw TripsError.usage(
                    "accuracy of \(output)", found: "\(results[output]?.shape ?? [])", expected: "[batch, classes]")
            }
            let (values, classes) = (try logits.numbers(), logits.shape[1])
            for row in start - range.lowerBound..<range.count {
                let label = try testSet.label(of: range.lowerBound + row, among: classes)
                let scores = values[row * classes..<(row + 1) * classes]
                let best = scores.indices.filter { !scores[$0].isNaN }.max { scores[$0] < scores[$1] }
                right.append(best.map { $0 - row * classes } == label)
            }
            seconds.append(time.milliseconds / 1e3 / Double(range.count))
            start = range.upperBound
            progress(start)
        }
        let middle = right.count / 2
        let share = { (part: ArraySlice<Bool>) in part.isEmpty ? 0 : Double(part.count { $0 }) / Double(part.count) }
        return Accuracy(
            right: right.count { $0 }, count: right.count, halves: [share(right[..<middle]), share(right[middle...])],
            seconds: median(seconds))
    }

    /// Pictures, uint8 [B, height, width, 3], as the package takes its images; other inputs as they are.
    private static func preprocessed(_ input: Tensor, for model: Model) throws -> Tensor {
        guard input.dataType == .uint8, input.shape.count == 4 else { return input }
        guard input.shape[3] == 3, let preprocessing = model.manifest.preprocessing else {
            throw TripsError.data(
                "pictures of a test set", found: "U8 \(input.shape)",
                expected: "[pictures, height, width, 3], and a package that says how it takes them")
        }
        let (height, width) = (input.shape[1], input.shape[2])
        let images = try input.withBytes { bytes in
            try (0..<input.shape[0]).map { row in
                let pixels = Array(bytes[row * height * width * 3..<(row + 1) * height * width * 3])
                return try Picture(width: width, height: height, pixels: pixels).modelInput(preprocessing)
            }
        }
        return try Tensor.joined(images)
    }

    /// As many examples as the model's inputs are made for, else eight.
    private static func batchSize(of session: Session, for output: String) throws -> Int {
        max(1, try session.inputs(for: [output]).compactMap { $0.type.shape.first?.constant }.max() ?? 8)
    }
}
