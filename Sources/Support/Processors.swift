import Foundation

/// Processors that the process may use at the same time.
package enum Processors {
    /// Those of the affinity mask, or fewer where the process's control groups give it less time.
    static var available: Int {
        let limits = [ProcessInfo.processInfo.activeProcessorCount, affine, quota].compactMap { $0 }
        return max(1, limits.min() ?? 1)
    }

    /// The processors of the affinity mask, which `taskset` and CPU sets narrow.
    private static var affine: Int? {
        let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        let title = "Cpus_allowed_list:"
        return status?.split(separator: "\n").first { $0.hasPrefix(title) }
            .flatMap { processors(inList: $0.dropFirst(title.count)) }
    }

    /// The smallest quota among the process's control group and those that hold it (cgroup v2; Foundation reads those of v1).
    private static var quota: Int? {
        guard let groups = try? String(contentsOfFile: "/proc/self/cgroup", encoding: .utf8),
            let own = groups.split(separator: "\n").first(where: { $0.hasPrefix("0::/") })
        else { return nil }
        var folder = URL(filePath: "/sys/fs/cgroup" + own.dropFirst(3), directoryHint: .isDirectory).standardized
        var quotas: [Int] = []
        while folder.path().hasPrefix("/sys/fs/cgroup/") {
            let file = try? String(contentsOf: folder.appending(path: "cpu.max"), encoding: .utf8)
            if let quota = file.flatMap(processors(forQuota:)) { quotas.append(quota) }
            folder.deleteLastPathComponent()
        }
        return quotas.min()
    }

    /// The length of a list such as "0-3,8".
    /// - Returns: nil for what is no such list.
    package static func processors(inList text: some StringProtocol) -> Int? {
        var count = 0
        for part in text.trimmingCharacters(in: .whitespacesAndNewlines).split(separator: ",", omittingEmptySubsequences: false) {
            let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
            guard (1...2).contains(ends.count), let first = ends[0], let last = ends[ends.count - 1], 0...last ~= first,
                last < 1 << 20
            else { return nil }
            count += last - first + 1
        }
        return count
    }

    /// Processors that `cpu.max` comes to, rounded up: "150000 100000" are 150 ms of processor time in each 100 ms.
    /// - Returns: nil for "max", which is no limit, and for what is no quota.
    package static func processors(forQuota text: String) -> Int? {
        let numbers = text.split(whereSeparator: \.isWhitespace).map { Int($0) }
        guard numbers.count == 2, let quota = numbers[0], let period = numbers[1], quota > 0, period > 0 else { return nil }
        return quota.dividedRoundingUp(by: period)
    }
}
