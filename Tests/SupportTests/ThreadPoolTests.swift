import Synchronization
import Testing

import Support

@Suite struct ThreadPoolTests {
    @Test(arguments: [1, 2, 5]) func runsEachTaskOnce(threads: Int) {
        let pool = ThreadPool(threads: threads)
        // Many short loops in a row: a worker that wakes up late must not take tasks of the next one.
        for count in [0, 1, 2, 3, 17, 1000] + Array(repeating: 5, count: 500) {
            let runs = Mutex([Int](repeating: 0, count: count))
            pool.run(count) { index, thread in
                runs.withLock { $0[index] += 1 }
                #expect((0..<threads).contains(thread))
            }
            #expect(runs.withLock { $0.allSatisfy { $0 == 1 } })
        }
    }

    @Test(
        arguments: [
            ("max 100000\n", nil), ("100000 100000\n", 1), ("150000 100000", 2), ("1000 100000", 1), ("0 100000", nil),
            ("100000 0", nil), ("100000", nil), ("a b", nil), ("", nil),
        ] as [(String, Int?)]) func aQuotaOfTimeIsAsManyProcessors(text: String, expected: Int?)
    {
        #expect(Processors.processors(forQuota: text) == expected)
    }

    @Test(
        arguments: [
            ("\t0\n", 1), ("0-3,8", 5), ("2,4-5", 3), ("", nil), ("3-1", nil), ("0-", nil), ("-1", nil), ("1-2-3", nil), ("x", nil),
            ("0-9223372036854775807", nil),
        ] as [(String, Int?)]) func listsOfProcessorsAreCounted(text: String, expected: Int?)
    {
        #expect(Processors.processors(inList: text) == expected)
    }

    @Test func thereIsAProcessorToRunOn() { #expect((1...1024).contains(ThreadPool.availableProcessors)) }

    @Test(arguments: [(Int.min, 1), (0, 1), (1, 1), (2, 2)]) func thereIsAlwaysAThread(asked: Int, threads: Int) {
        #expect(ThreadPool(threads: asked).threads == threads)
    }

    @Test func loopsMayBeNested() {
        let pool = ThreadPool(threads: 3)
        let sum = Atomic<Int>(0)
        pool.run(8) { outer in
            pool.run(8) { inner in sum.wrappingAdd(outer * inner, ordering: .relaxed) }
        }
        #expect(sum.load(ordering: .relaxed) == 28 * 28)
    }

    @Test func theFirstErrorIsThrown() {
        let pool = ThreadPool(threads: 4)
        #expect { try pool.tryRun(100) { if $0 % 7 == 3 { throw TripsError.data("task \($0)") } } } throws: {
            ($0 as? TripsError)?.message == "task 3"
        }
    }

    /// Also where a later task fails first, or both at once.
    @Test func theErrorOfTheLowestTaskIsThrown() {
        let hasFailed = Atomic(false)
        #expect {
            try ThreadPool(threads: 2).tryRun(2) { index in
                while index == 0 && !hasFailed.load(ordering: .acquiring) {}
                hasFailed.store(true, ordering: .releasing)
                throw TripsError.data("task \(index)")
            }
        } throws: {
            ($0 as? TripsError)?.message == "task 0"
        }
    }

    @Test func behindAnErrorNoTaskBegins() {
        let runs = Atomic<Int>(0)
        #expect(throws: TripsError.self) {
            try ThreadPool(threads: 1).tryRun(100) { index in
                runs.wrappingAdd(1, ordering: .relaxed)
                if index == 3 { throw TripsError.data("task 3") }
            }
        }
        #expect(runs.load(ordering: .relaxed) == 4)
    }
}
