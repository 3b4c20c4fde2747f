import ModelGraph
import Support
import Tensors

/// A run of tokens, before and after a selection.
private struct Segment: Equatable {
    var old: Dimension
    var new: Dimension
    /// How many of the first tokens are not patches; a selection keeps them in their places.
    var leading = 0

    var isChanged: Bool { old != new }

    /// True for a range of tokens that are all leading ones.
    func isLeading(_ start: Dimension, _ end: Dimension) -> Bool {
        guard let start = start.constant, let end = end.constant else { return false }
        return 0...leading ~= start && end <= leading
    }

    /// True for a place in the segment whose token is still there after the selection, at the same place.
    func keeps(_ place: Dimension) throws -> Bool {
        if isChanged { return place.constant.map { 0..<leading ~= $0 } ?? false }
        return try place == 0 || (place.lowerBound ?? -1) >= 0 && (old.subtracting(place).lowerBound ?? 0) > 0
    }

    /// Where segments side by side begin, and where the last ends.
    static func borders(of segments: [Segment]) throws -> [(old: Dimension, new: Dimension)] {
        var borders = [(old: Dimension(0), new: Dimension(0))]
        for (index, segment) in segments.enumerated() {
            borders.append((try borders[index].old.adding(segment.old), try borders[index].new.adding(segment.new)))
        }
        return borders
    }

    /// The range that a slice takes after the selection, and its segments; nil where it ends inside a segment. It may leave out
    /// leading tokens of the first.
    static func cut(
        _ segments: [Segment], from start: Dimension, to end: Dimension
    ) throws -> (start: Dimension, end: Dimension, parts: [Segment])? {
        let borders = try borders(of: segments)
        if let first = borders.firstIndex(where: { $0.old == start }), let last = borders.firstIndex(where: { $0.old == end }) {
            return (borders[first].new, borders[last].new, first < last ? Array(segments[first..<last]) : [])
        }
        guard let image = segments.first, let skipped = start.constant, 0...image.leading ~= skipped, end == image.old
        else { return nil }
        let (old, new) = (try image.old.subtracting(start), try image.new.subtracting(start))
        return (start, image.new, [Segment(old: old, new: new, leading: image.leading - skipped)])
    }

    /// The segments put together to parts of these sizes; nil where a part ends inside a segment.
    static func grouped(_ segments: [Segment], _ sizes: [Dimension]) throws -> [Segment]? {
        var rest = segments[...]
        let groups = try sizes.map { size in
            var group = Segment(old: 0, new: 0)
            while group.old != size, let next = rest.popFirst() {
                group = Segment(old: try group.old.adding(next.old), new: try group.new.adding(next.new))
            }
            return group
        }
        return rest.isEmpty && groups.map(\.old) == sizes ? groups : nil
    }
}

/// Adapts what is downstream of selections to a new number of tokens.
///
/// Where image and text tokens are side by side, the token axis of a state is a list of segments. Slices that end at
/// the border of a segment, masks that are the same for a whole segment, and reshapes that keep the axis are adapted;
/// anything else that holds the old number is in the way.
private struct Following {
    private var segments: [ValueID: [Segment]] = [:]
    private var followed: [String] = []
    /// The graph with the selections as they are now, and the sizes downstream still as they were.
    private let old: Graph

    init(old: Graph) { self.old = old }

    /// - Parameter selections: those that changed, and how many tokens there were behind each.
    /// - Returns: the names of the values that were adapted.
    mutating func run(_ graph: inout Graph, behind selections: [NodeID: Dimension]) throws -> [String] {
        for visited in try graph.topologicalOrder() {
            guard let node = graph.node(visited.id) else { continue }
            if let before = selections[node.id], let selection = node.op as? PatchSelection {
                try graph.inferAgain(node)
                segments[node.output] = [
                    Segment(old: before, new: graph.shape(of: node.output)[1], leading: selection.leading)
                ]
                continue
            }
            do {
                try restate(node, &graph)
                if let restated = graph.node(visited.id) { try graph.inferAgain(restated) }
            } catch let error as TripsError {
                throw TripsError.usage(
                    "a value holds the number of image tokens and cannot follow the selection", at: node.name,
                    found: "\(node.outputs.map { graph.name(of: $0) }.joined(separator: ", ")): \(error)",
                    expected: "a graph where only masks, slices and concatenations count tokens")
            }
            if let node = graph.node(visited.id) { note(node, graph) }
        }
        try restateLooseMasks(&graph)
        return followed
    }

    // MARK: Segments

    /// More than any model has side by side; joined to themselves again and again, they would soon fill the memory.
    private static let mostSegments = 1024

    private func segments(of value: ValueID, _ graph: Graph) -> [Segment]? {
        if let known = segments[value] { return known }
        guard graph.type(of: value).rank == 3 || graph.type(of: value).rank == 2 else { return nil }
        return [Segment(old: old.shape(of: value)[1], new: graph.shape(of: value)[1])]
    }

    /// What the node's result is made of along the token axis.
    private mutating func note(_ node: Node, _ graph: Graph) {
        guard let output = node.outputs.first, graph.type(of: output).rank == 3, let x = node.input(0) else { return }
        switch node.op {
        case let concat as Concat where concat.axis == 1 || concat.axis == -2:
            let parts = node.inputs.compactMap { $0.flatMap { segments(of: $0, graph) } }
            let count = parts.reduce(0) { $0 + $1.count }
            if count <= Following.mostSegments, parts.joined().contains(where: \.isChanged) {
                segments[output] = Array(parts.joined())
            }
        case is Linear, is LayerNorm, is GELU, is Unary, is Attention, is L2Normalize, is Cast, is Identity:
            segments[output] = segments[x]
        case is Concat, is Split:
            if let parts = segments[x], parts.contains(where: \.isChanged), graph.shape(of: output)[1] == graph.shape(of: x)[1] {
                for output in node.outputs { segments[output] = parts }
            }
        case is Binary:
            segments[output] = node.inputs.compactMap { $0.flatMap { segments[$0] } }.first { parts in
                (try? parts.reduce(Dimension(0)) { try $0.adding($1.new) }) == graph.shape(of: output)[1]
            }
        default: break
        }
    }

    // MARK: Adapting

    private mutating func restate(_ node: Node, _ graph: inout Graph) throws {
        switch node.op {
        case is Slice: try restateSlice(node, &graph)
        case is Attention: try restateMask(node, &graph)
        case is Reshape: try restateReshape(node, &graph)
        case let gather as Gather: try restateGather(gather, node, &graph)
        case is Expand, is Tile, is Pad, is Resize, is Conv, is ConvTranspose:
            guard let x = node.input(0), old.shape(of: x) == graph.shape(of: x) else {
                throw TripsError.data(
                    "sizes of \(Swift.type(of: node.op).name)", found: "\(graph.type(of: node.inputs[0] ?? node.output))")
            }
        default: break
        }
    }

    private mutating func restateSlice(_ node: Node, _ graph: inout Graph) throws {
        guard let x = node.input(0), old.shape(of: x) != graph.shape(of: x) else { return }
        guard let ranges = try old.sliceRanges(node) else { throw TripsError.data("a slice whose range is not known") }
        guard let parts = segments[x] else { throw TripsError.data("a slice of tokens", found: "\(graph.type(of: x))") }
        for range in ranges where range.axis != 1 && old.shape(of: x)[range.axis] != graph.shape(of: x)[range.axis] {
            throw TripsError.data("a slice along axis \(range.axis)")
        }
        guard let range = ranges.first(where: { $0.axis == 1 }) else {
            segments[node.output] = parts
            return
        }
        guard ranges.count == 1 else { throw TripsError.data("a slice along several axes") }
        let (start, end) = (range.start, try range.start.adding(range.count))
        if let image = parts.first, image.isLeading(start, end) { return try graph.setTokens(of: node, from: start, to: end) }
        guard let cut = try Segment.cut(parts, from: start, to: end) else {
            let borders = try Segment.borders(of: parts).map { "\($0.old)" }.joined(separator: ", ")
            throw TripsError.data("a slice of tokens", found: "\(start) ..< \(end)", expected: "ends at \(borders)")
        }
        try graph.setTokens(of: node, from: cut.start, to: cut.end)
        followed.append(graph.name(of: node.output))
        if !cut.parts.isEmpty { segments[node.output] = cut.parts }
    }

    /// The mask of an attention follows its keys.
    private mutating func restateMask(_ node: Node, _ graph: inout Graph) throws {
        guard let mask = node.input(3), let k = node.input(1), let q = node.input(0), let size = graph.shape(of: mask).last else {
            return
        }
        let (keys, queries) = (graph.shape(of: k)[1], graph.shape(of: q)[1])
        if let rows = graph.shape(of: mask).dropLast().last, rows != 1, rows != queries {
            throw TripsError.data(
                "the mask \(graph.name(of: mask)) has a number for each pair of tokens, as a bias of relative positions does, and a fused "
                    + "token has no place in it", found: "\(graph.type(of: mask))", expected: "\(queries) rows")
        }
        if size == 1 || size == keys { return }
        let (source, between) = graph.alongLastAxis(mask)
        guard let parts = segments[k], let (concat, groups) = try joined(source, alike: parts, graph) else {
            throw TripsError.data("mask \(graph.name(of: mask))", found: "\(graph.type(of: mask))", expected: "\(keys) keys")
        }
        try restate(concat, axis: graph.type(of: source).rank - 1, groups, &graph)
        for node in between.reversed() {
            if node.op is Reshape {
                try graph.setShape(of: node, graph.shape(of: node.output).dropLast() + [keys])
            }
            if let restated = graph.node(node.id) { try graph.inferAgain(restated) }
        }
    }

    /// The concatenation along the last axis that makes a value of parts, and the segments in each; nil where a part
    /// ends inside a segment.
    private func joined(_ value: ValueID, alike segments: [Segment], _ graph: Graph) throws -> (concat: Node, groups: [Segment])? {
        let axis = graph.type(of: value).rank - 1
        guard let (concat, op) = graph.producer(of: value, Concat.self), try resolveAxis(op.axis, rank: axis + 1) == axis,
            let groups = try Segment.grouped(segments, concat.inputs.compactMap { $0 }.map { graph.shape(of: $0)[axis] })
        else { return nil }
        return (concat, groups)
    }

    /// Gives the known operands of a concatenation the new sizes of the segments that they cover.
    private mutating func restate(_ concat: Node, axis: Int, _ parts: [Segment], _ graph: inout Graph) throws {
        var inputs = concat.inputs
        for (index, part) in parts.enumerated() where part.isChanged {
            guard let operand = inputs[index] else { continue }
            if graph.shape(of: operand)[axis] == part.new { continue }
            guard let scalar = try graph.uniformNumber(operand), graph.shape(of: operand)[axis] == part.old else {
                throw TripsError.data(
                    "part \(index) of \(graph.name(of: concat.output))", found: "\(graph.type(of: operand))",
                    expected: "\(part.new)")
            }
            var type = graph.type(of: operand)
            type.shape[axis] = part.new
            inputs[index] = try graph.addKnown(.splat(scalar), type, name: graph.name(of: operand))
        }
        guard inputs != concat.inputs else { return }
        try graph.setInputs(of: concat.id, inputs)
        followed.append(graph.name(of: concat.output))
        if let restated = graph.node(concat.id) { try graph.inferAgain(restated) }
    }

    /// Masks that no attention here reads, such as outputs. Where the parts of one have the sizes of a state's segments, it follows
    /// that state.
    private mutating func restateLooseMasks(_ graph: inout Graph) throws {
        var changed = false
        let lists = segments.values.filter { $0.count > 1 && $0.contains(where: \.isChanged) }
        let states = Dictionary(lists.map { ($0.map(\.old), $0) }, uniquingKeysWith: { first, _ in first })
        for node in graph.nodes {
            guard let concat = node.op as? Concat, !followed.contains(graph.name(of: node.output)),
                node.inputs.contains(where: { $0.map { graph.content(of: $0) != nil } ?? false })
            else { continue }
            let axis = try resolveAxis(concat.axis, rank: graph.type(of: node.output).rank)
            let sizes = node.inputs.compactMap { $0 }.map { graph.shape(of: $0)[axis] }
            guard graph.type(of: node.output).rank == 2 || graph.type(of: node.output).rank == 4,
                let parts = states[sizes]
            else { continue }
            try restate(node, axis: axis, parts, &graph)
            changed = true
        }
        if changed { try graph.inferAgain() }
    }

    private mutating func restateReshape(_ node: Node, _ graph: inout Graph) throws {
        guard let x = node.input(0), old.shape(of: x) != graph.shape(of: x) else { return }
        let target = old.shape(of: node.output)
        guard let layout = try ViewLayout(of: old.shape(of: x)).reshaped(target) else {
            throw TripsError.data("a reshape that mixes tokens")
        }
        let sizes = try layout.axes.map { runs in
            try runs.reduce(Dimension(1)) { size, run in
                let (before, after) = (old.shape(of: x)[run.axis], graph.shape(of: x)[run.axis])
                guard before != after else { return try size.multiplied(by: run.size) }
                guard run.stride == 1, run.size == before else {
                    throw TripsError.data("a reshape that splits the tokens", found: "\(graph.type(of: x))")
                }
                return try size.multiplied(by: after)
            }
        }
        try graph.setShape(of: node, sizes)
        followed.append(graph.name(of: node.output))
    }

    /// A row keeps its place in its segment: leading ones such as [CLS], and others where nothing was dropped.
    private mutating func restateGather(_ gather: Gather, _ node: Node, _ graph: inout Graph) throws {
        guard let x = node.input(0), old.shape(of: x) != graph.shape(of: x) else { return }
        let axis = try resolveAxis(gather.axis, rank: graph.type(of: x).rank)
        guard old.shape(of: x)[axis] != graph.shape(of: x)[axis] else { return }
        guard axis == 1, let parts = segments[x], let index = node.input(1), let stated = try graph.operand(index).integers(),
            stated.count == 1,
            var row = stated.first
        else { throw TripsError.data("tokens are read by their numbers", found: "\(graph.type(of: x))", expected: "one row") }
        if let image = parts.first, let place = row.constant, 0..<(image.isChanged ? image.leading : 1) ~= place { return }
        if (row.constant ?? 0) < 0 { row = try old.shape(of: x)[1].adding(row) }
        for (part, start) in zip(parts, try Segment.borders(of: parts)) {
            let place = try row.subtracting(start.old)
            guard try part.keeps(place) else { continue }
            let type = graph.type(of: index)
            let moved = try graph.addKnown(Content(sizes: [start.new.adding(place)], type), type, name: graph.name(of: index))
            try graph.setInputs(of: node.id, [x, moved])
            followed.append(graph.name(of: node.output))
            return
        }
        throw TripsError.data(
            "a token is read by its number", found: "\(row)", expected: "[CLS], or a token that is not selected from")
    }
}

extension Graph {
    /// Adapts what is downstream of a selection that was just inserted to its number of tokens.
    /// - Returns: the names of the values that were adapted.
    /// - Throws: `usage` naming the value that cannot follow.
    mutating func follow(_ selection: Node) throws -> [String] {
        var following = Following(old: self)
        let before = selection.input(0).map { shape(of: $0)[1] }
        return try following.run(&self, behind: before.map { [selection.id: $0] } ?? [:])
    }

    /// The same graph with selections that keep everything.
    /// - Throws: `usage` naming a value that cannot follow.
    package func withoutSelection() throws -> Graph {
        var graph = self
        var before: [NodeID: Dimension] = [:]
        for node in nodes {
            guard var selection = node.op as? PatchSelection else { continue }
            selection.keepRate = 1
            graph.setOperator(of: node.id, selection)
            before[node.id] = shape(of: node.output)[1]
        }
        var following = Following(old: self)
        _ = try following.run(&graph, behind: before)
        return graph
    }

    private mutating func addSizes(_ sizes: [Dimension], name: String) throws -> ValueID {
        try addKnown(Content(sizes: sizes, scalar: false), ValueType(.int64, [Dimension(sizes.count)]), name: name)
    }

    /// Makes a slice take these tokens.
    fileprivate mutating func setTokens(of slice: Node, from start: Dimension, to end: Dimension) throws {
        let range = try [start, end, 1].map { try addSizes([$0], name: "\(slice.name).range") }
        try setInputs(of: slice.id, [slice.inputs[0]] + range)
    }

    /// Makes a reshape give these sizes.
    fileprivate mutating func setShape(of reshape: Node, _ sizes: [Dimension]) throws {
        try setInputs(of: reshape.id, [reshape.inputs[0], addSizes(sizes, name: "\(reshape.name).shape")])
    }

    /// The value from which another is computed element by element along the last axis, with nothing but known numbers beside it;
    /// and the operators in between, the last first.
    fileprivate func alongLastAxis(_ value: ValueID) -> (source: ValueID, operators: [Node]) {
        var (source, operators) = (value, [Node]())
        while content(of: source) == nil, let node = producer(of: source) {
            let open = node.inputs.compactMap { $0 }.filter {
                content(of: $0) == nil || node.op.isElementwise && shape(of: $0).contains { $0 != 1 }
            }
            guard open.count == 1, content(of: open[0]) == nil, let last = shape(of: source).last, shape(of: open[0]).last == last,
                node.op.isElementwise
                    ? shape(of: open[0]) == shape(of: source)
                    : (node.op is Reshape || node.op is PaddingMask) && last != 1
                        && shape(of: open[0]).filter({ $0 != 1 }) == shape(of: source).filter({ $0 != 1 })
            else { break }
            source = open[0]
            operators.append(node)
        }
        return (source, operators)
    }
}
