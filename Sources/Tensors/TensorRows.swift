import Support

/// Rows of a tensor [N, ...], such as the examples of a batch.
extension Tensor {
    /// Rows [range.count, ...].
    /// - Throws: `data` where the tensor has no such rows.
    public func rows(_ range: Range<Int>) throws -> Tensor {
        guard let count = shape.first, 0 <= range.lowerBound, range.upperBound <= count else {
            throw TripsError.data("rows of a tensor", found: "\(range)", expected: "rows of \(shape)")
        }
        let bytes = byteCount / max(1, count)
        return try Tensor(dataType, [range.count] + shape.dropFirst()) { target in
            withBytes {
                target.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[range.lowerBound * bytes..<range.upperBound * bytes]))
            }
        }
    }

    /// One row [1, ...].
    /// - Throws: `data` where the tensor has no such row.
    public func row(_ index: Int) throws -> Tensor { try rows(index..<max(index, index &+ 1)) }

    /// Tensors concatenated along the first axis, such as the examples of a batch.
    /// - Throws: `data` where there are none, or where they differ in type or in another axis.
    public static func joined(_ parts: [Tensor]) throws -> Tensor {
        guard let first = parts.first, !first.shape.isEmpty,
            parts.allSatisfy({ $0.dataType == first.dataType && $0.shape.dropFirst() == first.shape.dropFirst() })
        else {
            throw TripsError.data(
                "parts of a batch", found: parts.map { "\($0.dataType)\($0.shape)" }.joined(separator: ", "),
                expected: "one type and shape")
        }
        let count = try parts.reduce(0) { total, part in
            let (sum, overflow) = total.addingReportingOverflow(part.shape[0])
            guard !overflow else { throw TripsError.data("parts of a batch", expected: "at most \(Int.max) rows") }
            return sum
        }
        return try Tensor(first.dataType, [count] + first.shape.dropFirst()) { target in
            var offset = 0
            for part in parts {
                part.withBytes { UnsafeMutableRawBufferPointer(rebasing: target[offset...]).copyMemory(from: $0) }
                offset += part.byteCount
            }
        }
    }
}
