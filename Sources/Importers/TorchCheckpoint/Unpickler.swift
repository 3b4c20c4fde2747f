import Support
import Tensors

/// What a pickle holds, as far as checkpoints use it. Compound values live in the unpickler's table and are named by their
/// index there: a pickle that nests or repeats them without end costs no more than its own length.
enum PickleValue {
    case none
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case bytes(ArraySlice<UInt8>)
    case global(PickleGlobal)
    indirect case storage(TorchStorage)
    indirect case tensor(TorchTensor)
    case list(Int)
    case tuple(Int)
    case dictionary(Int)
    case set(Int)
    /// What a call of `PickleGlobal.unread` would make.
    case unread
    /// What a call of `PickleGlobal.unknown` would make, by the name of that.
    case unknown(String)

    var string: String? { if case .string(let text) = self { text } else { nil } }
    var integer: Int? { if case .integer(let number) = self { number } else { nil } }

    /// The name of the class, or of whatever else the pickle asks for, where it is not known here.
    var unknownClass: String? {
        switch self {
        case .unknown(let name), .global(.unknown(let name)): name
        default: nil
        }
    }
}

/// What the names in a checkpoint mean here. Nothing that they name is ever run.
enum PickleGlobal: Equatable {
    case orderedDictionary
    case size
    case rebuildTensor
    case rebuildParameter
    case storage(DataType)
    /// What training scripts keep beside the weights: arguments, numbers and arrays of NumPy. Its objects are not read.
    case unread
    /// Anything else, such as a class of the training program. Its objects may lie beside the model's tensors, not among them.
    case unknown(String)

    init(module: String, name: String) {
        switch (module, name) {
        case ("collections", "OrderedDict"): self = .orderedDictionary
        case ("torch", "Size"): self = .size
        case ("torch._utils", "_rebuild_tensor_v2"): self = .rebuildTensor
        case ("torch._utils", "_rebuild_parameter"): self = .rebuildParameter
        case ("torch", _):
            self = PickleGlobal.storages[name].map(PickleGlobal.storage) ?? .unknown("torch.\(name.prefix(80))")
        case ("argparse", "Namespace"), ("numpy", "dtype"), ("numpy", "ndarray"), ("_codecs", "encode"),
            ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
            ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"):
            self = .unread
        default: self = .unknown("\(module.prefix(80)).\(name.prefix(80))")
        }
    }

    private static let storages: [String: DataType] = [
        "DoubleStorage": .float64, "FloatStorage": .float32, "HalfStorage": .float16, "BFloat16Storage": .bfloat16,
        "LongStorage": .int64, "IntStorage": .int32, "ShortStorage": .int16, "CharStorage": .int8, "ByteStorage": .uint8,
        "BoolStorage": .bool,
    ]
}

/// A run of elements of one type, under the key by which the file stores it.
struct TorchStorage: Hashable {
    let dataType: DataType
    let key: String
    /// Elements.
    let count: Int
    /// Old files: elements before the view's first in the storage that the key names.
    var offset = 0
}

/// A view of a storage. Offset and strides count elements.
struct TorchTensor: Hashable {
    let storage: TorchStorage
    let offset: Int
    let shape: [Int]
    let strides: [Int]
}

/// A pickle machine (Python's pickletools, protocols 2 to 5) for the data of PyTorch checkpoints and nothing else.
struct Unpickler {
    private(set) var items: [[PickleValue]] = []
    /// Bytes of the pickle that were read.
    private(set) var position = 0

    private let bytes: [UInt8]
    private var stack: [PickleValue] = []
    private var marks: [Int] = []
    private var memo: [Int: PickleValue] = [:]
    private var heldElements = 0
    /// Bytes per element of every storage that the pickle names, by key.
    private(set) var storageWidths: [(String, Int)] = []

    /// The longest pickle that is read; those of full-size checkpoints take less than one MiB.
    static let maximalLength = 16 << 20
    /// Values that may be held at a time, so that few opcodes cannot ask for much memory.
    private static let maximalElements = 1 << 20
    /// The longest name of a tensor, a storage or a class, in bytes. A pickle may name one text any number of times.
    static let maximalNameLength = 4096

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Reads one pickle from its start to its end.
    /// - Throws: `data` where it is malformed or out of proportion.
    mutating func run() throws -> PickleValue {
        while true {
            let start = position
            let opcode = try byte()
            if opcode == Opcode.stop.rawValue { return try pop() }
            do {
                try execute(Opcode(checking: opcode))
            } catch let error as TripsError {
                throw error.inside("pickle byte \(start)")
            }
            let held = stack.count + marks.count + memo.count + heldElements + storageWidths.count
            guard held <= Unpickler.maximalElements else {
                throw TripsError.data(
                    "a pickle out of proportion", at: "pickle byte \(start)",
                    expected: "at most \(Unpickler.maximalElements) values")
            }
        }
    }

    /// Key and value of each member of a dictionary whose keys are strings, in order; a later value replaces an earlier one.
    func members(of value: PickleValue) -> [(key: String, value: PickleValue)]? {
        guard case .dictionary(let index) = value else { return nil }
        var places: [String: Int] = [:]
        var members: [(key: String, value: PickleValue)] = []
        let flat = items[index]
        for start in stride(from: 0, to: flat.count - 1, by: 2) {
            guard let key = flat[start].string else { continue }
            if let place = places[key] {
                members[place].value = flat[start + 1]
            } else {
                places[key] = members.count
                members.append((key, flat[start + 1]))
            }
        }
        return members
    }

    /// The keys of those members in which there is a tensor. What two of them share is the first one's.
    func holdingTensors(_ members: [(key: String, value: PickleValue)]) -> [String] {
        var seen = Set<Int>()
        return members.filter { member in
            var pending = [member.value]
            while let value = pending.popLast() {
                switch value {
                case .tensor: return true
                case .list(let index), .tuple(let index), .dictionary(let index), .set(let index):
                    if seen.insert(index).inserted { pending += items[index] }
                default: break
                }
            }
            return false
        }.map(\.key)
    }

    /// The elements of a list or tuple.
    func elements(of value: PickleValue) -> [PickleValue]? {
        switch value {
        case .list(let index), .tuple(let index): items[index]
        default: nil
        }
    }

    // MARK: Opcodes

    /// The opcodes that are understood, under pickletools' names.
    private enum Opcode: UInt8 {
        case mark = 0x28, emptyTuple = 0x29, stop = 0x2E, pop = 0x30, popMark = 0x31, dup = 0x32
        case binBytes = 0x42, shortBinBytes = 0x43, binFloat = 0x47, binInt = 0x4A, binInt1 = 0x4B, binInt2 = 0x4D
        case none = 0x4E, binPersID = 0x51, reduce = 0x52, binString = 0x54, shortBinString = 0x55, binUnicode = 0x58
        case emptyList = 0x5D, append = 0x61, build = 0x62, global = 0x63, dict = 0x64, appends = 0x65, binGet = 0x68
        case inst = 0x69, longBinGet = 0x6A, list = 0x6C, binPut = 0x71, longBinPut = 0x72, setItem = 0x73, tuple = 0x74
        case setItems = 0x75, emptyDict = 0x7D, proto = 0x80, newObj = 0x81, tuple1 = 0x85, tuple2 = 0x86, tuple3 = 0x87
        case newTrue = 0x88, newFalse = 0x89, long1 = 0x8A, long4 = 0x8B, shortBinUnicode = 0x8C, binUnicode8 = 0x8D
        case binBytes8 = 0x8E, emptySet = 0x8F, addItems = 0x90, frozenSet = 0x91, stackGlobal = 0x93, memoize = 0x94
        case frame = 0x95, byteArray8 = 0x96

        init(checking byte: UInt8) throws {
            guard let opcode = Opcode(rawValue: byte) else {
                throw TripsError.data(
                    "pickle opcode", found: "0x" + String(byte, radix: 16),
                    expected: "one that tensors, dictionaries, lists, numbers or strings need")
            }
            self = opcode
        }
    }

    /// Most opcodes push a value; the others arrange the stack, fill what lies there, or fill the memo.
    private mutating func execute(_ opcode: Opcode) throws {
        if let value = try literal(opcode) ?? container(opcode) ?? result(opcode) {
            stack.append(value)
        } else {
            try arrange(opcode)
        }
    }

    /// What the bytes after an opcode say.
    private mutating func literal(_ opcode: Opcode) throws -> PickleValue? {
        switch opcode {
        case .none: PickleValue.none
        case .newTrue: .bool(true)
        case .newFalse: .bool(false)
        case .binInt: .integer(Int(Int32(truncatingIfNeeded: try unsigned(4))))
        case .binInt1: .integer(Int(try unsigned(1)))
        case .binInt2: .integer(Int(try unsigned(2)))
        case .long1: try long(length(1))
        case .long4: try long(length(4))
        case .binFloat: .number(Double(bitPattern: try take(8).reduce(0) { $0 << 8 | UInt64($1) }))
        case .shortBinUnicode, .shortBinString: .string(try text(length(1)))
        case .binUnicode, .binString: .string(try text(length(4)))
        case .binUnicode8: .string(try text(length(8)))
        case .shortBinBytes: .bytes(try take(length(1)))
        case .binBytes: .bytes(try take(length(4)))
        case .binBytes8, .byteArray8: .bytes(try take(length(8)))
        default: nil
        }
    }

    /// A compound value, of what lies on the stack.
    private mutating func container(_ opcode: Opcode) throws -> PickleValue? {
        switch opcode {
        case .emptyList: .list(try hold([]))
        case .emptyTuple: .tuple(try hold([]))
        case .emptyDict: .dictionary(try hold([]))
        case .emptySet: .set(try hold([]))
        case .list: .list(try hold(popToMark()))
        case .tuple: .tuple(try hold(popToMark()))
        case .dict: .dictionary(try hold(pairs(popToMark())))
        case .frozenSet: .set(try hold(popToMark()))
        case .tuple1: .tuple(try hold(pop(1)))
        case .tuple2: .tuple(try hold(pop(2)))
        case .tuple3: .tuple(try hold(pop(3)))
        default: nil
        }
    }

    /// What is recalled, named or made.
    private mutating func result(_ opcode: Opcode) throws -> PickleValue? {
        switch opcode {
        case .dup: return try top()
        case .binGet: return try recall(length(1))
        case .longBinGet: return try recall(length(4))
        case .global: return .global(PickleGlobal(module: try line(), name: try line()))
        case .stackGlobal: return .global(try stackGlobal())
        case .inst:
            let global = PickleGlobal(module: try line(), name: try line())
            return try call(.global(global), .tuple(hold(popToMark())))
        case .reduce, .newObj:
            let operands = try pop(2)
            return try call(operands[0], operands[1])
        case .binPersID: return try persistent(pop())
        default: return nil
        }
    }

    private mutating func arrange(_ opcode: Opcode) throws {
        switch opcode {
        case .proto: try checkProtocol()
        case .frame: _ = try take(8)  // how the bytes were buffered
        case .mark: marks.append(stack.count)
        case .pop: _ = try pop()
        case .popMark: _ = try popToMark()
        case .append: try extend(pop(1), isPairs: false)
        case .appends, .addItems: try extend(popToMark(), isPairs: false)
        case .setItem: try extend(pop(2), isPairs: true)
        case .setItems: try extend(popToMark(), isPairs: true)
        case .binPut: memo[try length(1)] = try top()
        case .longBinPut: memo[try length(4)] = try top()
        case .memoize: memo[memo.count] = try top()
        case .build: try build()
        default: break  // the others push a value
        }
    }

    private mutating func checkProtocol() throws {
        let version = try byte()
        guard (2...5).contains(version) else { throw TripsError.data("pickle protocol", found: version, expected: "2 to 5") }
    }

    private mutating func stackGlobal() throws -> PickleGlobal {
        let names = try pop(2)
        guard let module = names[0].string, let name = names[1].string, Unpickler.isName(module), Unpickler.isName(name) else {
            throw TripsError.data("a global's name", expected: "two short strings")
        }
        return PickleGlobal(module: module, name: name)
    }

    private mutating func call(_ callee: PickleValue, _ arguments: PickleValue) throws -> PickleValue {
        // What a call makes may be called again, as `getattr` in the pickle of a method.
        if case .unknown = callee { return callee }
        guard case .global(let global) = callee, case .tuple(let index) = arguments else {
            throw TripsError.data("a call in the pickle", expected: "a known global and a tuple")
        }
        let operands = items[index]
        switch global {
        case .orderedDictionary:
            guard let list = operands.first else { return .dictionary(try hold([])) }
            let members = try (elements(of: list) ?? []).flatMap { pair in
                guard let pair = elements(of: pair), pair.count == 2 else {
                    throw TripsError.data("OrderedDict", expected: "pairs")
                }
                return pair
            }
            return .dictionary(try hold(pairs(members)))
        case .size:
            guard operands.count == 1, let sizes = elements(of: operands[0]) else {
                throw TripsError.data("torch.Size", expected: "a tuple")
            }
            return .tuple(try hold(sizes))
        case .rebuildTensor: return .tensor(try tensor(operands))
        case .rebuildParameter:
            guard let tensor = operands.first, case .tensor = tensor else {
                throw TripsError.data("_rebuild_parameter", expected: "a tensor")
            }
            return tensor
        case .storage: throw TripsError.data("a storage made by a call")
        case .unread: return .unread
        case .unknown(let name): return .unknown(name)
        }
    }

    /// State of an object: ordered dictionaries carry `_metadata`, versions of modules that no tensor depends on; others are
    /// not read.
    private mutating func build() throws {
        _ = try pop()
        switch try top() {
        case .dictionary, .unread, .unknown: break
        default: throw TripsError.data("state of an object", expected: "that of a dictionary")
        }
    }

    /// _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)
    private func tensor(_ operands: [PickleValue]) throws -> TorchTensor {
        guard operands.count >= 4, case .storage(let storage) = operands[0], let offset = operands[1].integer,
            let shape = integers(operands[2]), let strides = integers(operands[3]), shape.count == strides.count, shape.count <= 32
        else { throw TripsError.data("_rebuild_tensor_v2", expected: "storage, offset, size and stride") }
        return TorchTensor(storage: storage, offset: offset, shape: shape, strides: strides)
    }

    private func integers(_ value: PickleValue) -> [Int]? {
        guard let elements = elements(of: value) else { return nil }
        let integers = elements.compactMap(\.integer)
        return integers.count == elements.count ? integers : nil
    }

    /// ('storage', type, key, place, count); old files add a view of the storage: (key, offset, count).
    private mutating func persistent(_ value: PickleValue) throws -> PickleValue {
        guard let fields = elements(of: value), fields.count >= 5, fields[0].string == "storage",
            case .global(.storage(let dataType)) = fields[1], let key = fields[2].string ?? fields[2].integer.map(String.init),
            let count = fields[4].integer, count >= 0, Unpickler.isName(key)
        else {
            let type = elements(of: value)?.dropFirst().first?.unknownClass
            throw TripsError.data("a persistent id", found: type, expected: "a storage of a known type")
        }
        storageWidths.append((key, dataType.byteWidth))
        guard fields.count > 5, let view = elements(of: fields[5]) else {
            return .storage(TorchStorage(dataType: dataType, key: key, count: count))
        }
        guard view.count == 3, let offset = view[1].integer, let viewCount = view[2].integer, offset >= 0, viewCount >= 0,
            offset <= count, viewCount <= count - offset
        else { throw TripsError.data("a view of a storage", expected: "within \(count) elements") }
        return .storage(TorchStorage(dataType: dataType, key: key, count: viewCount, offset: offset))
    }

    // MARK: Stack and table

    /// Puts a compound value into the table.
    private mutating func hold(_ values: [PickleValue]) throws -> Int {
        heldElements += values.count + 1
        items.append(values)
        return items.count - 1
    }

    private mutating func extend(_ values: [PickleValue], isPairs: Bool) throws {
        switch try top() {
        case .list(let index) where !isPairs, .set(let index) where !isPairs: items[index] += values
        case .dictionary(let index) where isPairs: items[index] += try pairs(values)
        // Classes may be lists or dictionaries. Tensors in them are counted with the others that are left out.
        case .unread, .unknown: items.append(values)
        default: throw TripsError.data("what is extended", expected: isPairs ? "a dictionary" : "a list or a set")
        }
        heldElements += values.count
    }

    private func pairs(_ values: [PickleValue]) throws -> [PickleValue] {
        guard values.count % 2 == 0 else {
            throw TripsError.data("members of a dictionary", found: values.count, expected: "keys and values in pairs")
        }
        for index in stride(from: 0, to: values.count, by: 2) {
            guard let key = values[index].string, !Unpickler.isName(key) else { continue }
            throw TripsError.data(
                "a key of a dictionary", found: "\(key.utf8.count) bytes", expected: "at most \(Unpickler.maximalNameLength)")
        }
        return values
    }

    static func isName(_ text: String) -> Bool { text.utf8.count <= maximalNameLength }

    private var floor: Int { marks.last ?? 0 }

    private func top() throws -> PickleValue {
        guard stack.count > floor, let value = stack.last else { throw underflow }
        return value
    }

    private mutating func pop() throws -> PickleValue {
        guard stack.count > floor, let value = stack.popLast() else { throw underflow }
        return value
    }

    private mutating func pop(_ count: Int) throws -> [PickleValue] {
        guard stack.count - floor >= count else { throw underflow }
        defer { stack.removeLast(count) }
        return Array(stack.suffix(count))
    }

    private mutating func popToMark() throws -> [PickleValue] {
        guard let mark = marks.popLast(), mark <= stack.count else { throw TripsError.data("a mark is missing in the pickle") }
        defer { stack.removeLast(stack.count - mark) }
        return Array(stack[mark...])
    }

    private var underflow: TripsError { .data("the pickle takes more from its stack than it put there") }

    private func recall(_ key: Int) throws -> PickleValue {
        guard let value = memo[key] else { throw TripsError.data("the pickle recalls what it did not memorise", found: key) }
        return value
    }

    // MARK: Bytes

    private mutating func byte() throws -> UInt8 {
        guard position < bytes.count else { throw TripsError.data("the pickle ends too early", found: "\(position) bytes") }
        defer { position += 1 }
        return bytes[position]
    }

    private mutating func take(_ count: Int) throws -> ArraySlice<UInt8> {
        guard count >= 0, count <= bytes.count - position else {
            throw TripsError.data("the pickle ends too early", found: "\(bytes.count - position) bytes left", expected: count)
        }
        defer { position += count }
        return bytes[position..<position + count]
    }

    private mutating func unsigned(_ width: Int) throws -> UInt64 { try take(width).reversed().reduce(0) { $0 << 8 | UInt64($1) } }

    private mutating func length(_ width: Int) throws -> Int {
        let value = try unsigned(width)
        guard let length = Int(exactly: value) else { throw TripsError.data("a length in the pickle", found: value) }
        return length
    }

    /// A two's complement number; one too large for 64 bits is kept as its bytes.
    private mutating func long(_ count: Int) throws -> PickleValue {
        let digits = try take(count)
        guard count <= 8 else { return .bytes(digits) }
        let isNegative = (digits.last ?? 0) & 0x80 != 0
        return .integer(Int(truncatingIfNeeded: digits.reversed().reduce(isNegative ? UInt64.max : 0) { $0 << 8 | UInt64($1) }))
    }

    private mutating func text(_ count: Int) throws -> String {
        guard let text = String(untrusted: try take(count)) else {
            throw TripsError.data("a string in the pickle", expected: String.untrustedForm)
        }
        return text
    }

    private mutating func line() throws -> String {
        guard let end = bytes[position...].prefix(1024).firstIndex(of: UInt8(ascii: "\n")) else {
            throw TripsError.data("a line in the pickle has no end")
        }
        defer { position = end + 1 }
        return try text(end - position)
    }
}
