import ModelGraph
import Support
import Tensors

extension Einsum: Computable {
    package func compute(_ inputs: [TensorView?], into outputs: [MutableTensorView], on pool: ThreadPool) throws {
        try widened(inputs, outputs) { inputs, outputs in
            let operands = try inputs.indices.map { try inputs.required($0) }
            let plan = try plan(ranks: operands.map(\.shape.count))
            var sizes = Array(repeating: 1, count: plan.names)
            for (term, operand) in zip(plan.terms, operands) {
                for (name, size) in zip(term, operand.shape) where size != 1 { sizes[name] = size }
            }
            let elements = operands.reduce(outputs[0].count) { $0 + $1.count }
            var terms = try zip(plan.terms, operands).map { try Term(tensor: $1.tensor(), names: $0) }
            var result = try terms.removeFirst().withoutRepeats(sizes, on: pool)
            while !terms.isEmpty {
                let next = try terms.removeFirst().withoutRepeats(sizes, on: pool)
                let needed = Set(plan.output).union(terms.flatMap(\.names))
                result = try result.times(next, keeping: needed, sizes, limit: Einsum.maximalGrowth * elements, on: pool)
            }
            result = try result.summed(keeping: Set(plan.output), on: pool).ordered(plan.output, sizes, on: pool)
            withExtendedLifetime(result.tensor) { outputs[0].copy(from: result.tensor.view) }
        }
    }
}

extension Einsum {
    /// How many elements may be held in between for each one of the operands and the result. The product of two of several terms
    /// may be larger than all of them, but 'i,j,ij->' with a last term of one element would take the product of their sizes.
    fileprivate static let maximalGrowth = 1024
}

/// A tensor whose axes have names.
private struct Term {
    var tensor: Tensor
    var names: [Int]

    /// One axis for each name of `order`, in this order: of axes with equal names the diagonal is taken, missing and unit axes are
    /// repeated.
    func ordered(_ order: [Int], _ sizes: [Int], on pool: ThreadPool) throws -> Term {
        if names == order, tensor.shape == order.map({ sizes[$0] }) { return self }
        let dense = denseStrides(tensor.shape)
        let strides = order.map { name in
            names.indices.filter { names[$0] == name && tensor.shape[$0] != 1 }.reduce(0) { $0 + dense[$1] }
        }
        let moved = try Tensor.zeroed(tensor.dataType, order.map { sizes[$0] }) { view in
            withExtendedLifetime(tensor) { view.copy(from: tensor.view, strides: strides, on: pool) }
        }
        return Term(tensor: moved, names: order)
    }

    func withoutRepeats(_ sizes: [Int], on pool: ThreadPool) throws -> Term {
        let distinct = names.indices.filter { names.firstIndex(of: names[$0]) == $0 }.map { names[$0] }
        var own = sizes.map { _ in 1 }
        for (name, size) in zip(names, tensor.shape) where size != 1 { own[name] = size }
        return distinct.count == names.count ? self : try ordered(distinct, own, on: pool)
    }

    /// The sum over all other axes.
    func summed(keeping needed: Set<Int>, on pool: ThreadPool) throws -> Term {
        let axes = names.indices.filter { !needed.contains(names[$0]) }
        if axes.isEmpty { return self }
        let reduced = try evaluate(
            Reduce(.sum, keepDimensions: false), [tensor, Tensor(axes.map { Int64($0) }, shape: [axes.count])], on: pool)
        return Term(tensor: reduced[0], names: names.filter { needed.contains($0) })
    }

    /// The product with another term as a batch of matrix products.
    /// - Throws: `data` where that takes more than `limit` elements.
    func times(_ other: Term, keeping needed: Set<Int>, _ sizes: [Int], limit: Int, on pool: ThreadPool) throws -> Term {
        let left = try summed(keeping: needed.union(other.names), on: pool)
        let right = try other.summed(keeping: needed.union(names), on: pool)
        let shared = left.names.filter { right.names.contains($0) }
        let (batch, inner) = (shared.filter { needed.contains($0) }, shared.filter { !needed.contains($0) })
        let rows = left.names.filter { !shared.contains($0) }
        let columns = right.names.filter { !shared.contains($0) }
        for names in [batch + rows + inner, batch + inner + columns, batch + rows + columns] {
            let count = try elementCount(of: names.map { sizes[$0] })
            guard count <= limit else {
                throw TripsError.data("elements of an intermediate of Einsum", found: count, expected: "at most \(limit)")
            }
        }
        func extent(_ names: [Int]) -> Int { names.reduce(1) { $0 * sizes[$1] } }
        let a = try left.ordered(batch + rows + inner, sizes, on: pool)
        let b = try right.ordered(batch + inner + columns, sizes, on: pool)
        let (count, m, k, n) = (extent(batch), extent(rows), extent(inner), extent(columns))
        let product = try evaluate(MatMul(), [a.tensor.reshaped([count, m, k]), b.tensor.reshaped([count, k, n])], on: pool)
        let names = batch + rows + columns
        return Term(tensor: try product[0].reshaped(names.map { sizes[$0] }), names: names)
    }
}
