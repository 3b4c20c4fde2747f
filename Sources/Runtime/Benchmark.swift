import Kernels
import Tensors

/// The time that one step of a plan takes.
public struct StepTime: Sendable, Codable {
    /// The nodes that the step computes.
    public let label: String
    /// Their operators, joined by `+` where they are fused.
    public let kind: String
    /// Multiply-accumulate operations of one run.
    public let multiplyAccumulates: Int
    /// Median over the runs.
    public let milliseconds: Double
}

/// The time that one kind of operator takes in a run.
public struct KindTime: Sendable, Encodable {
    /// The operator, such as `Linear`.
    public var kind: String
    /// Steps of the run that are of this kind.
    public var steps: Int
    /// Of all these steps together.
    public var milliseconds: Double
    /// Multiply-accumulate operations of all these steps together.
    public var multiplyAccumulates: Int
}

extension [StepTime] {
    /// Sums by kind of operator, the longest first.
    public var byKind: [KindTime] {
        Dictionary(grouping: self, by: \.kind).map { kind, steps in
            KindTime(
                kind: kind, steps: steps.count, milliseconds: steps.reduce(0) { $0 + $1.milliseconds },
                multiplyAccumulates: steps.reduce(0) { $0 + $1.multiplyAccumulates })
        }.sorted { $0.milliseconds > $1.milliseconds }
    }
}

/// How long an answer takes that is generated token by token.
public struct GenerationTime: Sendable, Encodable {
    /// Hypotheses that are continued side by side.
    public let beam: Int
    /// The tokens of the longest answer.
    public let tokens: Int
    /// Until the first token is known, encoders included: median over the runs.
    public let firstMilliseconds: Double
    /// For each token after it: median over all of them.
    public let tokenMilliseconds: Double
}

extension Session {
    /// Generates answers of the longest length for one example and takes the time of each token.
    /// - Parameter runs: runs to take the medians of, after one that is not counted.
    /// - Returns: nil where the package generates no text.
    /// - Throws: as `generate`; inputs of other names are ignored.
    public func generationTime(_ inputs: [String: Tensor], runs: Int = 5) throws -> GenerationTime? {
        guard var generation = model.manifest.generation, generation.method == .beam || generation.firstTargetID != nil else {
            return nil
        }
        if generation.firstTargetID != nil { (generation.beam, generation.maximalLength) = (1, Session.coordinates) }
        // The end is suppressed, so that all runs have the same length. Any start does, and a small vocabulary may lack the usual one.
        (generation.minimalLength, generation.startID) = (generation.maximalLength, 0)
        let clock = ContinuousClock()
        var (first, others): ([Double], [Double]) = ([], [])
        for number in 0...max(1, runs) {
            var times = [clock.now]
            _ = try generate(inputs, generation) { times.append(clock.now) }
            guard number > 0 else { continue }
            let spent = zip(times, times.dropFirst()).map { $0.duration(to: $1).milliseconds }
            first += spent.prefix(1)
            others += spent.dropFirst()
        }
        return GenerationTime(
            beam: generation.beam, tokens: generation.maximalLength, firstMilliseconds: median(first),
            tokenMilliseconds: median(others))
    }

    /// The instruction set whose kernels run on this processor, such as `avx512vnni`.
    public static var kernelPath: String { String(cString: trips_path_name(trips_kernels_path())) }

    /// Runs and takes the time of each step.
    /// - Parameter runs: runs to take the median of, after one that is not counted.
    /// - Throws: as `run`; inputs of other names are ignored.
    public func profile(_ inputs: [String: Tensor], outputs: [String]? = nil, runs: Int = 5) throws -> [StepTime] {
        var places: [StepPlace] = []
        var steps: [StepPlace: (label: String, kind: String, cost: Int)] = [:]
        var times: [StepPlace: [Double]] = [:]
        for number in 0...max(1, runs) {
            var spent: [StepPlace: Double] = [:]
            _ = try compute(inputs, outputs: outputs) { place, step, time in
                spent[place, default: 0] += time.milliseconds
                guard number == 0 else { return }
                if steps[place] == nil { places.append(place) }
                steps[place, default: (step.label, step.kind, 0)].cost += step.multiplyAccumulates
            }
            if number > 0 { for (place, time) in spent { times[place, default: []].append(time) } }
        }
        return places.compactMap { place in
            steps[place].map {
                StepTime(label: $0.label, kind: $0.kind, multiplyAccumulates: $0.cost, milliseconds: median(times[place] ?? []))
            }
        }
    }
}

/// Milliseconds of each run of each session on the same inputs, in turn so that all see the machine in the same state.
/// - Throws: as `Session.run`.
package func measureInTurn(
    _ sessions: [Session], _ inputs: [String: Tensor], outputs: [String]? = nil, runs: Int
) throws -> [[Double]] {
    let clock = ContinuousClock()
    var times = sessions.map { _ in [Double]() }
    for _ in 0..<max(0, runs) {
        for (index, session) in sessions.enumerated() {
            times[index].append(try clock.measure { _ = try session.compute(inputs, outputs: outputs) }.milliseconds)
        }
    }
    return times
}

/// Median milliseconds of two models on the same inputs, run in turn.
/// - Throws: as `Session.run`.
package func compareTimes(
    _ first: Model, _ second: Model, inputs: [String: Tensor], threads: Int? = nil
) throws -> (first: Double, second: Double) {
    let sessions = [Session(first, threads: threads), Session(second, threads: threads)]
    // The first runs also make plans.
    let times = try measureInTurn(sessions, inputs, runs: 8).map { median(Array($0.dropFirst())) }
    return (times[0], times[1])
}

/// The middle of the sorted numbers; 0 for none.
package func median(_ numbers: [Double]) -> Double {
    let sorted = numbers.sorted()
    guard !sorted.isEmpty else { return 0 }
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

extension Duration {
    /// The duration in milliseconds.
    package var milliseconds: Double { Double(components.seconds) * 1e3 + Double(components.attoseconds) * 1e-15 }
}
