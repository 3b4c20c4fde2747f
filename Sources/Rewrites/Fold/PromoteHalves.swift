import ModelGraph
import Support
import Tensors

extension Graph {
    /// Lets a graph of 16-bit floating point compute in float32. Weights stay narrow where they lie and are widened when
    /// they are loaded; inputs and outputs keep their types. The results are at least as exact as the source's.
    /// - Returns: how many nodes were widened.
    mutating func promoteHalves() throws -> Int {
        let halves = nodes.count { node in node.outputs.contains { type(of: $0).dataType.isHalf } }
        guard halves > 0 || inputs.contains(where: { type(of: $0).dataType.isHalf }) else { return 0 }
        var wide = Graph(name: name)
        var twins: [ValueID: ValueID] = [:]
        for input in inputs {
            let twin = try wide.addInput(name(of: input), type(of: input))
            twins[input] =
                type(of: input).dataType.isHalf
                ? try wide.add(Cast(to: .float32), [twin], name: "\(name(of: input)).wide")[0] : twin
        }
        func twin(of value: ValueID) throws -> ValueID {
            if let known = twins[value] { return known }
            guard let content = content(of: value) else {
                throw TripsError.data("a value is read before it is computed", found: name(of: value))
            }
            var type = type(of: value)
            if type.dataType.isHalf { type.dataType = .float32 }
            let made =
                switch content {
                case .tensor(let constant): try wide.addConstant(constant.converted(to: type.dataType), name: name(of: value))
                case .splat(let scalar): try wide.addKnown(.splat(scalar.converted(to: type.dataType)), type, name: name(of: value))
                case .dimensions: try wide.addKnown(content, type, name: name(of: value))
                }
            twins[value] = made
            return made
        }
        for node in try topologicalOrder() where !node.outputs.allSatisfy({ content(of: $0) != nil }) {
            let op: any Operator = (node.op as? Cast).map { Cast(to: $0.to.isHalf ? .float32 : $0.to) } ?? node.op
            let made = try wide.add(
                op, node.inputs.map { try $0.map(twin) }, name: node.name, outputNames: node.outputs.map(name(of:)))
            for (output, result) in zip(node.outputs, made) { twins[output] = result }
        }
        for (outputName, value) in outputs {
            let (result, type) = (try twin(of: value), type(of: value).dataType)
            try wide.addOutput(
                outputName, type.isHalf ? wide.add(Cast(to: type), [result], name: "\(outputName).narrow")[0] : result)
        }
        for (traceName, value) in traces { wide.addTrace(traceName, try twin(of: value)) }
        self = wide
        return halves
    }
}
