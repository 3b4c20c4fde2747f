extension Array {
    /// Inserts an element where it is among the `count` largest by a number, the largest first; of equal ones the earlier stays.
    @inlinable
    package mutating func insert(_ element: Element, amongLargest count: Int, by number: (Element) -> some Comparable) {
        let own = number(element)
        if self.count == count, let last, own <= number(last) { return }
        insert(element, at: firstIndex { own > number($0) } ?? self.count)
        if self.count > count { removeLast() }
    }
}
