import ModelGraph

/// Signal-to-noise ratio along the model, in its own order.
public struct DepthCurve: Sendable, Encodable {
    /// Which model it is of.
    public var label: String
    /// In the order of computation.
    public var points: [Point]

    /// The state after one block.
    public struct Point: Sendable, Encodable {
        /// Such as `vision.3`.
        public var name: String
        /// dB; the worst set.
        public var snr: Double
    }

    init(_ label: String, _ summaries: [TensorSummary]) {
        self.label = label
        points = summaries.compactMap { summary in
            guard SelectionTrace(summary.name) == nil, let worst = summary.snr?.worst else { return nil }
            return Point(name: summary.name, snr: worst)
        }
    }
}
