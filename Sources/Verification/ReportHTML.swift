import Foundation
import Support

extension VerificationReport {
    /// The report as one HTML file that needs nothing else: no scripts, no network.
    public func html(_ package: PackageFacts) -> String {
        let title = "\(package.file): \(verdictWord)"
        let sections = [
            header(package), table("Outputs", outputs, open: true), depthSection, histogramSection, selectionSection,
            illustrationSection,
            accuracySection, effectSection, timeSection, isolatedSection,
            intermediates.isEmpty ? "" : table("Intermediates, in the model's order", intermediates, open: verdict == .fail),
            notesSection, provenance(package),
        ]
        return """
            <!DOCTYPE html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <title>\(escaped(title))</title>
            <style>
            \(reportStyle)
            </style>
            </head>
            <body>
            <main>
            \(sections.filter { !$0.isEmpty }.joined(separator: "\n"))
            </main>
            </body>
            </html>

            """
    }

    private var verdictWord: String {
        switch verdict {
        case .pass: "passes"
        case .fail: "fails"
        case .unjudged: sets.isEmpty ? "measured" : "compared"
        }
    }

    private var verdictMark: String {
        switch verdict {
        case .pass: "✓ Pass"
        case .fail: "✗ Fail"
        case .unjudged: sets.isEmpty ? "≈ Measured" : "≈ Compared"
        }
    }

    // MARK: Sections

    private func header(_ package: PackageFacts) -> String {
        let summary: String
        switch verdict {
        case .pass:
            summary =
                (judged.count == 1 ? "The one judged tensor agrees" : "All \(judged.count) judged tensors agree")
                + " with the reference over \(counted(sets.count, "golden set"))."
        case .fail:
            summary =
                "\(failed.count) of \(counted(judged.count, "judged tensor")) do not agree with the reference over "
                + "\(counted(sets.count, "golden set"))."
                + (divergence?.firstFailure.map { " The first, in the model's order: \(escaped($0))." } ?? "")
        case .unjudged where sets.isEmpty: summary = "Nothing was judged."
        case .unjudged:
            summary =
                "Compared\(effect.map { " with \(escaped($0.reference))" } ?? "") over \(counted(sets.count, "golden set")); "
                + "nothing was judged."
        }
        let jump =
            divergence?.firstJump.map {
                "<p>The error first jumps at <strong>\(escaped($0.name))</strong>: "
                    + "from \(inDecibels($0.before)) to \(inDecibels($0.after)).</p>"
            } ?? ""
        var facts = [package.manifest.architecture, "weights \(package.preset.rawValue)", byteText(package.bytes)].compactMap { $0 }
        facts += package.manifest.selections.map { "block \($0.block) keeps \(short($0.keepRate)) by \($0.guidance.rawValue)" }
        return """
            <header class="\(verdict.rawValue)">
            <p class="verdict">\(verdictMark)</p>
            <h1>\(escaped(package.file))</h1>
            <p class="facts">\(escaped(facts.joined(separator: " · ")))</p>
            <p>\(summary)</p>
            \(jump)
            </header>
            """
    }

    private var isolatedSection: String {
        guard let isolated else { return "" }
        return table("Blocks alone, fed with the reference's states", isolated, open: isolated.contains { $0.verdict == .fail })
    }

    private func table(_ title: String, _ summaries: [TensorSummary], open: Bool) -> String {
        if summaries.isEmpty { return "" }
        let several = sets.count > 1
        let usesTolerance = summaries.contains { $0.worst.toleranceUse != nil }
        let rows = summaries.map { summary -> String in
            let (worst, metrics, word) = (summary.worst, summary.worst.metrics, summary.verdict.rawValue)
            let use =
                worst.toleranceUse.map {
                    "<span class=\"bar\"><i style=\"width:\(short(min(100, $0 * 100)))%\"></i></span> \(worst.toleranceText)"
                } ?? ""
            let cells = [
                "<th scope=\"row\">\(escaped(summary.name))</th>",
                "<td class=\"\(word)\">\(word)\(worst.reason.map { ": \(escaped($0))" } ?? "")</td>",
                "<td class=\"shape\">\(worst.shape.isEmpty ? "" : "\(worst.shape)")</td>",
                number(metrics.map { short($0.absolute.maximum) }), number(metrics.map { short($0.absolute.percentile99) }),
                number(metrics.map { short($0.absolute.median) }), number(metrics.map { short($0.relative.maximum) }),
                number(metrics.map { digits($0.cosine, 6) }), number(metrics.map { snrText($0.snr) }),
                several ? number(summary.snr.map { snrText($0.median) }) + "<td>\(escaped(summary.worstSet))</td>" : "",
                usesTolerance ? "<td class=\"use\">\(use)</td>" : "",
            ]
            return "<tr>\(cells.joined())</tr>"
        }
        let titles =
            ["", "verdict", "shape", "max |Δ|", "99 % |Δ|", "median |Δ|", "max rel", "cosine", "SNR dB"]
            + (several ? ["median SNR", "worst in"] : [])
            + (usesTolerance ? ["of tolerance"] : [])
        let body = """
            <div class="scroll"><table>
            <thead><tr>\(titleCells(titles))</tr></thead>
            <tbody>
            \(rows.joined(separator: "\n"))
            </tbody></table></div>
            \(agreementLines(summaries))
            """
        if open { return "<section><h2>\(title)</h2>\n\(body)\n</section>" }
        return "<section><details><summary><h2>\(title)</h2></summary>\n\(body)\n</details></section>"
    }

    private func agreementLines(_ summaries: [TensorSummary]) -> String {
        summaries.compactMap { summary in
            summary.worst.agreement.map { agreement in
                "<p>\(escaped(summary.name)): the largest logit agrees in \(percent(agreement.top1)) "
                    + "of \(counted(agreement.rows, "row"))"
                    + (agreement.k > 1 ? ", the \(agreement.k) largest in \(percent(agreement.topK))" : "")
                    + "; KL divergence \(short(agreement.divergence)) nats.</p>"
            }
        }.joined(separator: "\n")
    }

    private var depthSection: String {
        let shown = curves.filter { $0.points.count > 1 }
        guard !shown.isEmpty else { return "" }
        let words = shown.map { curve -> String in
            let worst = curve.points.min { isWorse($0.snr, $1.snr) }
            return "\(curve.label): \(inDecibels(curve.points.first?.snr ?? 0)) at \(curve.points.first?.name ?? ""), "
                + "\(inDecibels(worst?.snr ?? 0)) at its lowest, \(worst?.name ?? "")"
        }.joined(separator: "; ")
        let isExact = shown.contains { $0.points.contains { $0.snr == .infinity } }
        return """
            <section><h2>Error along the model</h2>
            <figure>\(DepthPlot(shown).svg(description: words))
            <figcaption>Signal-to-noise ratio of each intermediate against the reference, in the order of computation; higher is \
            closer\(isExact ? ", exact ones at the upper edge" : ""). \(escaped(words)).</figcaption>
            </figure></section>
            """
    }

    private var histogramSection: String {
        // After a flipped selection the scores at one place are of different patches: those are unjudged.
        let compared = (outputs + intermediates).filter { $0.verdict != .unjudged || verdict == .unjudged }
        let differing = compared.compactMap { summary in summary.worst.metrics.map { (summary: summary, metrics: $0) } }
            .filter { $0.metrics.snr < .infinity || $0.metrics.nonFiniteMismatches > 0 }
        guard let (worst, metrics) = differing.min(by: { isWorse($0.metrics.snr, $1.metrics.snr) }) else { return "" }
        let mismatches = metrics.nonFiniteMismatches
        let unlike = mismatches > 0 ? ", NaN or infinity on one side at \(counted(mismatches, "place"))" : ""
        let words =
            "\(metrics.count) elements\(unlike); half of the errors are at most \(short(metrics.absolute.median)), 99 % at most "
            + "\(short(metrics.absolute.percentile99)), the largest is \(short(metrics.absolute.maximum))"
            + (metrics.worstPair.map { " at \(metrics.worstIndex): \(short($0.value)) for \(short($0.reference))" } ?? "")
        return """
            <section><h2>Errors of \(escaped(worst.name)), the tensor of lowest SNR</h2>
            <figure>\(histogramPlot(metrics, description: words))
            <figcaption>How many elements have which absolute error (set \(escaped(worst.worstSet))); heights are square roots of \
            the counts. \(escaped(words)).</figcaption>
            </figure></section>
            """
    }

    private var selectionSection: String {
        if selections.isEmpty { return "" }
        let rows = selections.map { selection -> String in
            let worst = selection.worst
            let cells = [
                "<th scope=\"row\">block \(selection.layer)</th>", number("\(worst.kept)"), number("\(worst.tokens)"),
                number(digits(selection.overlap.worst, 3)), number(digits(selection.overlap.median, 3)),
                number(selection.smallestMargin.map { short($0) }), number("\(selection.setsWithFlips) of \(selection.sets)"),
                "<td>\(worst.flips == 0 ? "" : escaped("\(worst.flips) flipped: \(worst.explanation)"))</td>",
            ]
            return "<tr>\(cells.joined())</tr>"
        }
        let titles = ["selection", "kept", "of", "worst overlap", "median", "smallest margin", "sets with flips", ""]
        return """
            <section><h2>Selections</h2>
            <div class="scroll"><table>
            <thead><tr>\(titleCells(titles))</tr></thead>
            <tbody>\(rows.joined(separator: "\n"))</tbody></table></div>
            <p>Overlap: kept by both of those kept by either, in original patches. Margin: the gap between the lowest kept and the highest
            dropped score of the reference, relative to the former.</p>
            </section>
            """
    }

    private var illustrationSection: String {
        if illustrations.isEmpty { return "" }
        return "<section><h2>What the selections looked at</h2>\n" + illustrations.map(figure).joined(separator: "\n") + """

            <p>Dark patches are dropped. Scores run from blue, the lowest, to red, the highest. What only the model or only the reference keeps
            has a red edge.</p>
            </section>
            """
    }

    private func figure(_ illustration: Illustration) -> String {
        let source = "data:image/png;base64," + Data(illustration.png).base64EncodedString()
        let patches = illustration.columns * illustration.rows
        let words = illustration.layers.map { "block \($0.number) keeps \($0.kept.count) of \(patches) patches" }.joined(
            separator: ", ")
        let panels =
            [panel(source, "the image", illustration) { _ in nil }]
            + illustration.layers.flatMap { layer in
                [keptPanel(source, layer, illustration), heatPanel(source, layer, illustration)]
            }
        return """
            <figure class="pictures">
            <div class="panels">\(panels.joined())</div>
            <figcaption>\(escaped(illustration.set))\(illustration.text.map { ": “\(escaped($0))”" } ?? "") — \(words).</figcaption>
            </figure>
            """
    }

    private func keptPanel(_ source: String, _ layer: Illustration.Layer, _ illustration: Illustration) -> String {
        panel(source, "kept at block \(layer.number)", illustration) { patch in
            let flipped = layer.referenceKept.map { $0.contains(patch) != layer.kept.contains(patch) } ?? false
            let edge = flipped ? " class=\"flip\"" : ""
            if layer.kept.contains(patch) { return flipped ? "fill=\"none\"\(edge)" : nil }
            return "fill=\"#000\" fill-opacity=\"0.72\"\(edge)"
        }
    }

    private func heatPanel(_ source: String, _ layer: Illustration.Layer, _ illustration: Illustration) -> String {
        let values = layer.scores.values
        let (low, high) = (values.min() ?? 0, values.max() ?? 1)
        return panel(source, "scores at block \(layer.number)", illustration) { patch in
            guard let score = layer.scores[patch] else { return "fill=\"#000\" fill-opacity=\"0.72\"" }
            let heat = high > low ? (score - low) / (high - low) : 0
            return "fill=\"hsl(\(Int(240 - 240 * heat)) 90% 50%)\" fill-opacity=\"0.55\""
        }
    }

    private func panel(_ source: String, _ label: String, _ illustration: Illustration, _ style: (Int) -> String?) -> String {
        let (columns, rows) = (illustration.columns, illustration.rows)
        let cells = (0..<columns * rows).compactMap { patch in
            style(patch).map { "<rect x=\"\(patch % columns)\" y=\"\(patch / columns)\" width=\"1\" height=\"1\" \($0)/>" }
        }
        return """
            <span class="panel"><svg viewBox="0 0 \(columns) \(rows)" role="img" \
            aria-label="\(escaped(label)) of \(escaped(illustration.set))">\
            <image href="\(source)" width="\(columns)" height="\(rows)" preserveAspectRatio="none"/>\(cells.joined())</svg>\
            <small>\(escaped(label))</small></span>
            """
    }

    private var accuracySection: String {
        guard let accuracy else { return "" }
        return """
            <section><h2>Right answers</h2>
            <p>\(accuracy.right) of \(accuracy.count) (\(percent(accuracy.share))); halves of the test set \
            \(accuracy.halves.map(percent).joined(separator: " and ")); \(milliseconds(accuracy.seconds)) an example.</p>
            </section>
            """
    }

    private var effectSection: String {
        guard let effect else { return "" }
        var lines: [String] = []
        if let savings = effect.savings {
            lines.append(
                "\(macText(effect.multiplyAccumulates)) for \(effect.examples), "
                    + "\(macText(effect.referenceMultiplyAccumulates)) in \(escaped(effect.reference)): \(savings).")
        }
        lines.append(
            "\(milliseconds(effect.seconds)) a run of \(effect.examples), "
                + "\(milliseconds(effect.referenceSeconds)) in \(escaped(effect.reference)): "
                + "\(digits(effect.referenceSeconds / max(effect.seconds, 1e-9), 2)) times as fast, run in turn.")
        return "<section><h2>What it costs</h2>\n\(lines.map { "<p>\($0)</p>" }.joined(separator: "\n"))\n</section>"
    }

    private var timeSection: String {
        let whole = times.reduce(0) { $0 + $1.milliseconds }
        guard whole > 0 else { return "" }
        let rows = times.prefix(16).map { time -> String in
            let share = time.milliseconds / whole
            let rate = time.multiplyAccumulates > 0 ? digits(Double(time.multiplyAccumulates) / time.milliseconds / 1e6, 1) : ""
            let cells = [
                "<th scope=\"row\">\(escaped(time.kind))</th>", number("\(time.steps)"), number(digits(time.milliseconds, 3)),
                "<td class=\"use\"><span class=\"bar\"><i style=\"width:\(short(share * 100))%\"></i></span> \(percent(share))</td>",
                number(time.multiplyAccumulates > 0 ? digits(Double(time.multiplyAccumulates) / 1e6, 2) : ""), number(rate),
            ]
            return "<tr>\(cells.joined())</tr>"
        }
        return """
            <section><h2>Where the time goes</h2>
            <div class="scroll"><table>
            <thead><tr>\(titleCells(["operators", "steps", "ms", "share", "MMACs", "GMAC/s"]))</tr></thead>
            <tbody>\(rows.joined(separator: "\n"))</tbody></table></div>
            <p>\(digits(whole, 1)) ms for the inputs of the first golden set.</p>
            </section>
            """
    }

    private var notesSection: String {
        notes.isEmpty ? "" : "<section><h2>Notes</h2><ul>\(notes.map { "<li>\(escaped($0))</li>" }.joined())</ul></section>"
    }

    private func provenance(_ package: PackageFacts) -> String {
        let manifest = package.manifest
        var facts: [(String, String)] = []
        if let source = manifest.source {
            facts += [("source", "\(source.file) (\(source.format))"), ("SHA-256", source.sha256)]
            if let producer = source.producer { facts.append(("made by", producer)) }
        }
        facts += manifest.options.sorted { $0.key < $1.key }.map { ("--\($0.key)", $0.value) }
        if let quantization = manifest.quantization { facts.append(("quantized", quantization)) }
        facts += package.multiplyAccumulates.sorted { $0.key < $1.key }.map {
            ("cost of \($0.key)", "\(macText($0.value)) for one example (up to 40 text tokens where their number is open)")
        }
        facts.append(
            (
                "written by",
                "\(manifest.tool.name) \(manifest.tool.version), libzstd \(manifest.libzstd), format \(manifest.formatVersion)"
            ))
        if !sets.isEmpty {
            facts.append(
                (
                    "golden sets",
                    sets.count > 12 ? "\(sets.count): \(sets.prefix(12).joined(separator: ", ")), …" : sets.joined(separator: ", ")
                ))
        }
        facts += metadata.sorted { $0.key < $1.key }.map { ("golden \($0.key)", $0.value) }
        let entries = facts.map { "<dt>\(escaped($0.0))</dt><dd>\(escaped($0.1))</dd>" }
        return "<section><h2>Provenance</h2><dl>\(entries.joined(separator: "\n"))</dl></section>"
    }
}

// MARK: Words

private func titleCells(_ titles: [String]) -> String {
    let words: Set = ["", "shape", "worst in", "of tolerance", "verdict", "selection", "operators", "share"]
    return titles.map { "<th scope=\"col\"\(words.contains($0) ? "" : " class=\"number\"")>\($0)</th>" }.joined()
}

private func number(_ text: String?) -> String { "<td class=\"number\">\(text ?? "")</td>" }
func inDecibels(_ snr: Double) -> String { snrText(snr) + (snr.isFinite ? " dB" : "") }
