import ModelGraph
import Support
import Tensors

/// Writes `.trips` packages (`formats/trips-package.md`).
public enum PackageWriter {
    public struct Options: Sendable {
        /// How the weights' numbers are stored.
        public enum Storage: String, Sendable, CaseIterable {
            /// Each in its own type.
            case asIs, f32, f16, bf16
        }

        /// The zstd level; nil for the one that suits weights.
        public var level: Int?
        /// No byte planes: `zstd -dc` gives a safetensors file.
        public var plain: Bool
        public var storage: Storage
        /// Whether a file that is already there may be replaced.
        public var replacing: Bool

        public init(level: Int? = nil, plain: Bool = false, storage: Storage = .asIs, replacing: Bool = false) {
            self.level = level
            self.plain = plain
            self.storage = storage
            self.replacing = replacing
        }
    }

    /// Writes a package; it appears under its name whole or not at all.
    ///
    /// Constants are loaded one after the other, so that no more than two or three of them are in memory at a time.
    /// - Parameters:
    ///   - extraTensors: tensors that no graph refers to; they keep their names.
    ///   - manifest: what is to be said of the package; the writer fills in the tables.
    ///   - progress: called with the bytes done and the bytes in all.
    /// - Throws: `cannotCreate`, `inputOutput`; `usage` for options out of range; what loading a constant throws.
    public static func write(
        graphs: [Graph], extraTensors: [(name: String, constant: Constant)] = [], manifest: Manifest, to path: String,
        options: Options = Options(), pool: ThreadPool = .shared, progress: ((Int, Int) -> Void)? = nil
    ) throws { throw TripsError.data("packages cannot be written yet") }
}
