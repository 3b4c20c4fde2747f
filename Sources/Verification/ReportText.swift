import Support

extension VerificationReport {
    /// The report as text: a table of outputs, one of intermediates where they are judged, selections, and the verdict.
    public var text: String {
        var parts: [String] = []
        if !outputs.isEmpty { parts.append(table("output", outputs)) }
        if !intermediates.isEmpty { parts.append(table("intermediate", intermediates)) }
        if let isolated, !isolated.isEmpty {
            parts.append("each block fed with the reference's own states:\n" + table("block", isolated))
        }
        if !selections.isEmpty { parts.append(selectionTable) }
        if !agreementLines.isEmpty { parts.append(agreementLines.joined(separator: "\n")) }
        if !effectLines.isEmpty { parts.append(effectLines.joined(separator: "\n")) }
        if let lines = divergenceLines { parts.append(lines) }
        if !notes.isEmpty { parts.append(notes.map { "note: \($0)" }.joined(separator: "\n")) }
        parts.append(verdictLine)
        return parts.joined(separator: "\n\n")
    }

    /// The verdict in one line.
    public var verdictLine: String {
        let count = counted(sets.count, "golden set")
        if judged.isEmpty && outputs.isEmpty { return "DONE  nothing judged" }
        if judged.isEmpty {
            let compared = outputs.count { $0.snr != nil }
            return "COMPARED  \(counted(compared, "output")) over \(count), nothing judged"
        }
        if failed.isEmpty {
            let counts = [(judged.count { !$0.isIntermediate }, "output"), (judged.count(where: \.isIntermediate), "intermediate")]
            return "PASS  \(counts.filter { $0.0 > 0 }.map(counted).joined(separator: " and ")) over \(count)"
        }
        let names = failed.prefix(8).map(\.name).joined(separator: ", ") + (failed.count > 8 ? ", …" : "")
        return "FAIL  \(failed.count) of \(judged.count) over \(count): \(names)"
    }

    private func table(_ title: String, _ summaries: [TensorSummary]) -> String {
        let several = sets.count > 1
        var columns: [(title: String, alignment: TextTable.Alignment)] = [
            (title, .left), ("shape", .left), ("max |Δ|", .right), ("at", .left), ("max rel", .right), ("cosine", .right),
            ("SNR dB", .right),
        ]
        if several { columns += [("median", .right), ("worst in", .left)] }
        columns += [("of tol.", .right), ("verdict", .left)]
        var table = TextTable(columns)
        for summary in summaries {
            let judgement = summary.worst
            let metrics = judgement.metrics
            var cells = [summary.name, judgement.shape.isEmpty ? "" : "\(judgement.shape)"]
            if let metrics {
                let place = metrics.absolute.maximum == 0 ? "" : "\(metrics.worstIndex)"
                cells += [short(metrics.absolute.maximum), place, short(metrics.relative.maximum)]
                cells += [digits(metrics.cosine, 6), snrText(metrics.snr)]
            } else {
                cells += ["", "", "", "", ""]
            }
            if several { cells += [summary.snr.map { snrText($0.median) } ?? "", summary.worstSet] }
            let failures = several && summary.failedSets > 0 ? " (\(summary.failedSets) of \(summary.sets))" : ""
            let reason = judgement.reason.map { ": \($0)" } ?? ""
            cells += [judgement.toleranceText, mark(summary.verdict) + failures + reason]
            table.add(cells)
        }
        return table.text
    }

    private var selectionTable: String {
        var table = TextTable([
            ("selection", .left), ("kept", .right), ("of", .right), ("overlap", .right), ("margin", .right), ("flipped", .left),
        ])
        for selection in selections {
            let worst = selection.worst
            let flips = sets.count > 1 ? "in \(selection.setsWithFlips) of \(selection.sets) sets" : "\(worst.flips)"
            table.add([
                "block \(selection.layer)", "\(worst.kept)", "\(worst.tokens)", digits(worst.overlap, 3),
                selection.smallestMargin.map(short) ?? "", worst.flips == 0 ? flips : "\(flips): \(worst.explanation)",
            ])
        }
        return table.text
    }

    private var agreementLines: [String] {
        outputs.compactMap { output in
            output.worst.agreement.map { agreement in
                "\(output.name): top-1 agrees in \(percent(agreement.top1)) of \(counted(agreement.rows, "row")), "
                    + (agreement.k > 1 ? "top-\(agreement.k) in \(percent(agreement.topK)), " : "")
                    + "KL \(short(agreement.divergence)) (worst \(short(agreement.worstDivergence)))"
            }
        }
    }

    private var effectLines: [String] {
        var lines: [String] = []
        if let effect {
            if let savings = effect.savings {
                lines.append(
                    "cost      \(macText(effect.multiplyAccumulates)), \(macText(effect.referenceMultiplyAccumulates)) in "
                        + "\(effect.reference), for \(effect.examples): \(savings)")
            }
            let ratio = effect.referenceSeconds / max(effect.seconds, 1e-9)
            lines.append(
                "time      \(milliseconds(effect.seconds)), \(milliseconds(effect.referenceSeconds)) in "
                    + "\(effect.reference), for \(effect.examples): \(digits(ratio, 2))x as fast")
        }
        if let accuracy {
            let halves = accuracy.halves.map { digits($0 * 100, 2) }.joined(separator: ", ")
            lines.append(
                "accuracy  \(accuracy.right) of \(accuracy.count) right, \(digits(accuracy.share * 100, 2)) % "
                    + "(halves \(halves)), \(milliseconds(accuracy.seconds)) each")
        }
        return lines
    }

    private var divergenceLines: String? {
        guard let divergence else { return nil }
        func place(_ set: String?) -> String { sets.count > 1 ? set.map { " (\($0))" } ?? "" : "" }
        let lines = [
            divergence.firstFailure.map { "first to fail, in the model's order: \($0)\(place(failureSet))" },
            divergence.firstJump.map {
                "first block whose error jumps: \($0.name), SNR \(snrText($0.before)) -> \(snrText($0.after)) dB"
                    + place(jumpSet)
            },
        ].compactMap { $0 }
        return lines.isEmpty ? nil : lines.joined(separator: "\n")
    }
}

private func mark(_ verdict: Verdict) -> String {
    switch verdict {
    case .pass: "pass"
    case .fail: "FAIL"
    case .unjudged: "unjudged"
    }
}
