import Foundation
import Synchronization

/// Worker threads that share out the tasks of one parallel loop at a time, and sleep in between.
///
/// Each thread takes neighbouring tasks one after the other, in rising order, so that a task can count on what the one
/// before it has brought into the core's cache. A thread whose own are done takes over another's, from the end.
///
/// The caller takes part in its own loop. Loops may be nested or called from several threads: one that finds the
/// workers busy runs its tasks on its own thread.
public final class ThreadPool: Sendable {
    /// As many threads as the process may use processors.
    public static let shared = ThreadPool(threads: availableProcessors)

    /// Threads that work in a loop, the caller's own counted.
    public let threads: Int
    private let state: State
    private let busy = Atomic<Bool>(false)

    /// Processors that the process may use at the same time, by its affinity mask and the quotas of its control groups.
    public static var availableProcessors: Int { Processors.available }

    /// A pool of its own threads, which end when it goes.
    /// - Parameter threads: 1 to 1024; other numbers count as the nearest of these.
    public init(threads: Int) {
        self.threads = min(max(1, threads), 1024)
        state = State(threads: self.threads)
        for number in 1..<self.threads {
            let thread = Thread { [state] in state.work(number) }
            thread.stackSize = 1 << 20
            thread.start()
        }
    }

    deinit { state.shutDown() }

    /// Runs `body` for 0 ..< count, each exactly once, in any order, and returns when all have ended.
    public func run(_ count: Int, _ body: @Sendable (Int) -> Void) {
        run(count) { index, _ in body(index) }
    }

    /// As `run`; `body` also gets the number of the thread that it runs on, in 0 ..< threads, for scratch memory.
    /// Within one loop no two tasks that run at once have the same.
    public func run(_ count: Int, _ body: @Sendable (_ index: Int, _ thread: Int) -> Void) {
        let free =
            count > 1 && count <= UInt32.max && threads > 1
            && busy.compareExchange(expected: false, desired: true, ordering: .acquiring).exchanged
        guard free else {
            for index in 0..<max(0, count) { body(index, 0) }
            return
        }
        withoutActuallyEscaping(body) { state.run(count, $0) }
        busy.store(false, ordering: .releasing)
    }

    /// As `run`, for bodies that throw: the error of the lowest index that threw is thrown. Tasks after it that
    /// have not begun are left out.
    public func tryRun(_ count: Int, _ body: @Sendable (Int) throws -> Void) throws {
        let failure = Mutex<(index: Int, error: any Error)?>(nil)
        run(count) { index in
            if let failed = failure.withLock({ $0?.index }), failed < index { return }
            do {
                try body(index)
            } catch {
                failure.withLock { if $0.map({ index < $0.index }) ?? true { $0 = (index, error) } }
            }
        }
        if let failure = failure.withLock({ $0 }) { throw failure.error }
    }
}

/// What the workers share: the current loop, and a condition on which those sleep that have had nothing to do for a while.
/// The lock is taken for sleeping and waking alone; threads that are awake use the atomic counters.
private final class State: @unchecked Sendable {
    private typealias Body = @Sendable (Int, Int) -> Void
    private let condition = NSCondition()
    private let sleepers = Atomic<Int>(0)
    /// The tasks of the current loop that no thread has taken yet, by thread.
    private let shares: [Share]
    /// Tasks of the current loop that have not ended, and workers that have not left it. While it is above 0, `body` and
    /// `shares` belong to that loop.
    private let pending = Atomic<Int>(0)
    private let generation = Atomic<Int>(0)
    private let ended = Atomic<Bool>(false)
    private var body: Body?

    /// How long to look before going to sleep: about what waking a thread costs. Steps of a model follow each
    /// other faster than that; a thread without work for longer sleeps, and leaves the processor to others.
    private static let patience = Duration.microseconds(20)

    init(threads: Int) { shares = (0..<threads).map { _ in Share() } }

    func run(_ count: Int, _ body: @escaping @Sendable (Int, Int) -> Void) {
        self.body = body
        for (thread, share) in shares.enumerated() { share.assign((0..<count).part(thread, of: shares.count)) }
        pending.store(count, ordering: .releasing)
        generation.wrappingAdd(1, ordering: .sequentiallyConsistent)
        wake()
        takeTasks(body, 0)
        wait { pending.load(ordering: .sequentiallyConsistent) > 0 }
        self.body = nil
    }

    func work(_ thread: Int) {
        var seen = 0
        while !ended.load(ordering: .acquiring) {
            wait { generation.load(ordering: .sequentiallyConsistent) == seen }
            seen = generation.load(ordering: .relaxed)
            if enter() {
                takePart(thread)
                leave()
            }
        }
    }

    func shutDown() {
        ended.store(true, ordering: .releasing)
        generation.wrappingAdd(1, ordering: .sequentiallyConsistent)
        wake()
    }

    /// Works in the current loop. The reference to its body must be gone before the worker leaves, as the body lives no
    /// longer than its loop: hence a function of its own, never inlined.
    @inline(never) private func takePart(_ thread: Int) {
        if let body { takeTasks(body, thread) }
    }

    /// Joins the current loop, which then cannot end before this worker leaves; false where it has already ended.
    private func enter() -> Bool {
        var seen = pending.load(ordering: .relaxed)
        while seen > 0 {
            let (entered, found) = pending.weakCompareExchange(expected: seen, desired: seen + 1, ordering: .acquiring)
            if entered { return true }
            seen = found
        }
        return false
    }

    /// A task has ended, or a worker has left.
    private func leave() {
        if pending.wrappingSubtract(1, ordering: .sequentiallyConsistent).newValue == 0 { wake() }
    }

    private func takeTasks(_ body: Body, _ thread: Int) {
        while let index = shares[thread].takeFirst() ?? takeOver(from: thread) {
            body(index, thread)
            leave()
        }
    }

    /// The last task of another thread's share.
    private func takeOver(from thread: Int) -> Int? {
        for other in 1..<max(1, shares.count) {
            if let index = shares[(thread + other) % shares.count].takeLast() { return index }
        }
        return nil
    }

    /// Returns when `condition` is false: looks for a while, then sleeps.
    private func wait(while condition: () -> Bool) {
        var end: ContinuousClock.Instant?
        repeat {
            for _ in 0..<1000 { guard condition() else { return } }
            end = end ?? .now + State.patience
        } while end.map { .now < $0 } ?? true
        self.condition.lock()
        sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
        while condition() { self.condition.wait() }
        sleepers.wrappingSubtract(1, ordering: .relaxed)
        self.condition.unlock()
    }

    /// Has sleepers look again. All reads and writes of what they wait for, and of `sleepers`, are in one order: either this
    /// sees the sleeper, or the sleeper sees the change.
    private func wake() {
        guard sleepers.load(ordering: .sequentiallyConsistent) > 0 else { return }
        condition.lock()
        condition.broadcast()
        condition.unlock()
    }
}

/// A range of tasks from which its owner takes the first, and others the last.
private final class Share: Sendable {
    /// Both bounds in one word, the lower one in its high half: a loop has less than 2³² tasks.
    private let bounds = Atomic<UInt64>(0)

    func assign(_ range: Range<Int>) { bounds.store(Share.word(range), ordering: .relaxed) }

    func takeFirst() -> Int? { take { ($0.lowerBound, $0.dropFirst()) } }

    func takeLast() -> Int? { take { ($0.upperBound - 1, $0.dropLast()) } }

    private func take(_ choice: (Range<Int>) -> (Int, Range<Int>)) -> Int? {
        var seen = bounds.load(ordering: .relaxed)
        while true {
            let range = Int(seen >> 32)..<Int(seen & 0xffff_ffff)
            guard !range.isEmpty else { return nil }
            let (index, rest) = choice(range)
            let (exchanged, found) = bounds.weakCompareExchange(expected: seen, desired: Share.word(rest), ordering: .relaxed)
            if exchanged { return index }
            seen = found
        }
    }

    private static func word(_ range: Range<Int>) -> UInt64 { UInt64(range.lowerBound) << 32 | UInt64(range.upperBound) }
}
