import ModelGraph
import Support
import Tensors

/// A tensor of a package, with its place in the file.
public struct TensorEntry: Sendable {
    public let name: String
    /// The type in which graphs see the tensor.
    public let dataType: DataType
    /// The type in which its numbers are stored.
    public let storedType: DataType
    public let shape: [Int]
    /// Bytes of the numbers in the stored type.
    public let storedByteCount: Int
    /// Bytes that they take in the file.
    public let compressedByteCount: Int
    /// Where they begin in the file.
    public let offset: Int
}

/// Reads a `.trips` package (`formats/trips-package.md`).
public struct PackageReader: Sendable {
    public let manifest: Manifest
    /// The tensors, in the order of their data.
    public let tensors: [TensorEntry]

    /// Opens a package and checks all but the tensors' data.
    /// - Throws: `cannotOpen`; `data` where the file is not a sound package.
    public init(path: String) throws { throw TripsError.data("packages cannot be read yet") }

    /// The graphs, with constants that read their numbers when they are needed.
    /// - Throws: `data` where a graph is not legal or refers to a tensor that is not there.
    public func graphs() throws -> [Graph] { throw TripsError.data("packages cannot be read yet") }

    /// The tensor of this name; its numbers are read when they are needed.
    /// - Throws: `data` where there is none.
    public func constant(named name: String) throws -> Constant { throw TripsError.data("packages cannot be read yet") }

    /// Reads and checks every byte of the file.
    /// - Throws: `data` with the first place where something is wrong.
    public func verify(pool: ThreadPool = .shared) throws { throw TripsError.data("packages cannot be read yet") }
}
