import Tensors

// Bare pointers that tasks of a parallel loop share. Whoever makes one ensures that the memory outlives the loop, and that no task
// writes what another one reads or writes.

/// Elements that tasks of a parallel loop read.
package struct Source<Element>: @unchecked Sendable {
    package let base: UnsafePointer<Element>

    package init(base: UnsafePointer<Element>) { self.base = base }

    subscript(index: Int) -> Element { @inline(__always) get { base[index] } }

    static func + (source: Source, offset: Int) -> Source { Source(base: source.base + offset) }
}

/// Elements that tasks of a parallel loop write, each its own.
package struct Target<Element>: @unchecked Sendable {
    package let base: UnsafeMutablePointer<Element>

    package init(base: UnsafeMutablePointer<Element>) { self.base = base }

    subscript(index: Int) -> Element {
        @inline(__always) get { base[index] }
        @inline(__always) nonmutating set { base[index] = newValue }
    }

    static func + (target: Target, offset: Int) -> Target { Target(base: target.base + offset) }

    var source: Source<Element> { Source(base: base) }
}

extension TensorView {
    /// The elements as numbers of this width, which must be the data type's.
    package func source<Element>(_: Element.Type = Element.self) -> Source<Element> {
        Source(base: bytes.assumingMemoryBound(to: Element.self))
    }
}

extension MutableTensorView {
    /// As `TensorView.source`.
    package func target<Element>(_: Element.Type = Element.self) -> Target<Element> {
        Target(base: bytes.assumingMemoryBound(to: Element.self))
    }
}
