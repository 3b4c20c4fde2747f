/// The name of what a selection layer puts out besides its tokens: `selection.L.indices`, `.scores` or `.positions`, where L is
/// the block's number, from 1 on.
package struct SelectionTrace: Hashable, Sendable {
    /// In the order of `PatchSelection`'s outputs.
    package enum Part: String, Sendable, CaseIterable { case indices, scores, positions }

    package let layer: Int
    package let part: Part

    package init(layer: Int, _ part: Part) {
        self.layer = layer
        self.part = part
    }

    /// nil where the name is no such one.
    package init?(_ name: String) {
        let words = name.split(separator: ".")
        guard words.count == 3, let layer = Int(words[1]), layer > 0, let part = Part(rawValue: String(words[2])) else {
            return nil
        }
        self.init(layer: layer, part)
        guard self.name == name else { return nil }
    }

    package var name: String { "selection.\(layer).\(part)" }
}
