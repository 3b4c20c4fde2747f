import ModelGraph

/// A graph that is built in stages, each of which reads others by name. Stages are in their normal form until they are replaced,
/// so that what differs in one of them is written alone.
protocol Staged {
    var m: Exported { get set }
    /// What the stages made.
    var made: [AnyKeyPath: ValueID] { get set }
}

extension Staged {
    typealias Stage = (inout Self) throws -> ValueID

    /// What a stage makes, once for all that read it.
    mutating func make(_ stage: KeyPath<Self, Stage>) throws -> ValueID {
        if let value = made[stage] { return value }
        let build = self[keyPath: stage]
        let value = try build(&self)
        made[stage] = value
        return value
    }

    mutating func part(_ value: ValueID, _ start: Int, _ end: Int) throws -> ValueID {
        try m.node(Slice(), [value, m.integers([start]), m.integers([end]), m.integers([1])])
    }
}
