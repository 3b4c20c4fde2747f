import Support
import Tensors

// Primitive operators mirror ONNX's, in the form of the newest operator set: what older ones state as attributes is an
// operand here. Families that share a rule share a file. ONNX's operator documents define what each computes; the
// comments here give the operands in order.

extension OperatorTable {
    static let primitives: [any Operator.Type] = [
        // Elementwise
        Unary.self, Binary.self, Where.self, Clip.self, Cast.self, Identity.self,
        // Shape
        Shape.self, Size.self, ConstantOfShape.self, Arange.self, Expand.self, Tile.self, Reshape.self, Flatten.self,
        Squeeze.self, Unsqueeze.self, Transpose.self, Concat.self, Split.self, Slice.self, Pad.self, Resize.self,
        // Indexing
        Gather.self, GatherElements.self, GatherND.self, ScatterElements.self, ScatterND.self, TopK.self, OneHot.self,
        NonZero.self, Trilu.self,
        // Reductions and normalisations
        Reduce.self, ArgReduce.self, CumSum.self, Softmax.self, LogSoftmax.self, BatchNormalization.self,
        LayerNormalization.self, RMSNormalization.self, GroupNormalization.self, InstanceNormalization.self,
        LpNormalization.self,
        // Products and windows
        MatMul.self, Gemm.self, Einsum.self, OnnxAttention.self, Conv.self, ConvTranspose.self, MaxPool.self,
        AveragePool.self, GlobalPool.self,
        // Integers that stand for numbers
        QuantizeLinear.self, DequantizeLinear.self, DynamicQuantizeLinear.self, MatMulInteger.self, ConvInteger.self,
    ]
}

/// The index of an axis that may be counted from the end.
/// - Throws: `data` where it is out of range.
package func resolveAxis(_ axis: Int, rank: Int) throws -> Int {
    guard axis >= -rank, axis < rank else {
        throw TripsError.data("axis out of range", found: axis, expected: rank == 0 ? "none: it is a scalar" : "-\(rank) ..< \(rank)")
    }
    return axis < 0 ? axis + rank : axis
}

/// The indices of distinct axes, in the order given.
/// - Throws: `data` where one is out of range or given twice.
package func resolveAxes(_ axes: [Int], rank: Int) throws -> [Int] {
    let resolved = try axes.map { try resolveAxis($0, rank: rank) }
    guard Set(resolved).count == resolved.count else { throw TripsError.data("an axis is given twice", found: "\(axes)") }
    return resolved
}

extension Operand {
    /// The numbers of a small operand, nil where they are known only when the model runs.
    package func constantNumbers() throws -> [Double]? {
        if type.dataType.isInteger || type.dataType == .bool { return try constantIntegers()?.map { Double($0) } }
        switch content {
        case .tensor(let constant):
            guard try elementCount(of: constant.shape) <= 4096 else {
                throw TripsError.data("an operand that states sizes", found: type, expected: "at most 4096 elements")
            }
            return try constant.load().converted(to: .float64).elements()
        case .splat(let scalar):
            guard let shape = type.constantShape, try elementCount(of: shape) <= 4096 else { return nil }
            let number: [Double] = try scalar.converted(to: .float64).elements()
            return try Array(repeating: number.first ?? 0, count: elementCount(of: shape))
        case .dimensions, nil: return nil
        }
    }

    /// How many elements an operand of rank 1 (or a scalar: one) has.
    /// - Throws: `data` where that cannot be told; the rank of an output would be unknown.
    package func length(_ name: String) throws -> Int {
        guard type.rank <= 1, let count = try product(type.shape).constant, 0...4096 ~= count else {
            throw TripsError.data("length of \(name)", found: type, expected: "rank 1 and a constant size of at most 4096")
        }
        return count
    }

    /// The axes that an operand states.
    /// - Throws: `data` where they are known only when the model runs, or are no axes.
    package func constantAxes(rank: Int) throws -> [Int] {
        guard let axes = try constantIntegers() else {
            throw TripsError.data("axes are known only when the model runs", found: type, expected: "constant axes")
        }
        return try resolveAxes(axes, rank: rank)
    }

    /// Checks the element type.
    @discardableResult
    package func typed(_ dataType: DataType, _ name: String) throws -> Operand {
        guard type.dataType == dataType else {
            throw TripsError.data("data type of \(name)", found: type, expected: "\(dataType)")
        }
        return self
    }

    /// Checks that the element type is floating-point.
    @discardableResult
    package func floating(_ name: String) throws -> Operand {
        guard type.dataType.isFloatingPoint else {
            throw TripsError.data("data type of \(name)", found: type, expected: "floating point")
        }
        return self
    }

    /// Checks that the element type is an integer that indexes.
    @discardableResult
    package func indexing(_ name: String) throws -> Operand {
        guard type.dataType == .int64 || type.dataType == .int32 else {
            throw TripsError.data("data type of \(name)", found: type, expected: "int64 or int32")
        }
        return self
    }
}

/// A size that must not be negative.
package func checkedSize(_ size: Dimension, _ name: String) throws -> Dimension {
    if let constant = size.constant, constant < 0 { throw TripsError.data(name, found: constant, expected: "0 or more") }
    return size
}
