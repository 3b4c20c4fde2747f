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
            \(styleSheet)
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

    // MARK: Sections

    private func header(_ package: PackageFacts) -> String {
        let judged = (outputs + intermediates).filter { $0.verdict != .unjudged }
        let failed = judged.filter { $0.verdict == .fail }
        let summary: String
        switch verdict {
        case .pass:
            summary =
                (judged.count == 1 ? "The one judged tensor agrees" : "All \(judged.count) judged tensors agree")
                + " with the reference over \(counted(sets.count, "golden set"))."
        case .fail:
            summary =
                "\(failed.count) of \(counted(judged.count, "judged tensor")) do not agree with the reference over \(counted(sets.count, "golden set"))."
                + (divergence?.firstFailure.map { " The first, in the model's order: \(escaped($0))." } ?? "")
        case .unjudged where sets.isEmpty: summary = "Nothing was judged."
        case .unjudged:
            summary =
                "Compared\(effect.map { " with \(escaped($0.reference))" } ?? "") over \(counted(sets.count, "golden set")); nothing was judged."
        }
        let jump =
            divergence?.firstJump.map {
                "<p>The error first jumps at <strong>\(escaped($0.name))</strong>: from \(inDecibels($0.before)) to \(inDecibels($0.after)).</p>"
            } ?? ""
        var facts = [package.manifest.architecture, "weights \(package.preset.rawValue)", byteText(package.bytes)].compactMap { $0 }
        facts += package.manifest.selections.map { "block \($0.block) keeps \(short($0.keepRate)) by \($0.guidance.rawValue)" }
        return """
            <header class="\(verdict.rawValue)">
            <p class="verdict">\(verdict == .pass ? "✓ Pass" : verdict == .fail ? "✗ Fail" : sets.isEmpty ? "≈ Measured" : "≈ Compared")</p>
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
            let (worst, metrics) = (summary.worst, summary.worst.metrics)
            let use =
                worst.toleranceUse.map {
                    "<span class=\"bar\"><i style=\"width:\(short(min(100, $0 * 100)))%\"></i></span> \(worst.toleranceText)"
                } ?? ""
            let cells = [
                "<th scope=\"row\">\(escaped(summary.name))</th>",
                "<td class=\"\(summary.verdict.rawValue)\">\(summary.verdict.rawValue)\(worst.reason.map { ": \(escaped($0))" } ?? "")</td>",
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
                "<p>\(escaped(summary.name)): the largest logit agrees in \(percent(agreement.top1)) of \(counted(agreement.rows, "row"))"
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
            <figure>\(depthPlot(shown, description: words))
            <figcaption>Signal-to-noise ratio of each intermediate against the reference, in the order of computation; higher is closer\(isExact ? ", exact ones at the upper edge" : ""). \(escaped(words)).</figcaption>
            </figure></section>
            """
    }

    private var histogramSection: String {
        // Behind a flipped selection the scores that stand side by side are of different patches: those are unjudged.
        let compared = (outputs + intermediates).filter { $0.verdict != .unjudged || verdict == .unjudged }
        let candidates = compared.filter { $0.worst.metrics.map { $0.snr.isFinite } ?? false }
        guard let worst = candidates.min(by: { ($0.worst.metrics?.snr ?? 0) < ($1.worst.metrics?.snr ?? 0) }),
            let metrics = worst.worst.metrics
        else { return "" }
        let words =
            "\(metrics.count) elements; half of the errors are at most \(short(metrics.absolute.median)), 99 % at most "
            + "\(short(metrics.absolute.percentile99)), the largest is \(short(metrics.absolute.maximum)) at \(metrics.worstIndex)"
            + (metrics.worstPair.map { ": \(short($0.value)) for \(short($0.reference))" } ?? "")
        return """
            <section><h2>Errors of \(escaped(worst.name)), the tensor of lowest SNR</h2>
            <figure>\(histogramPlot(metrics, description: words))
            <figcaption>How many elements have which absolute error (set \(escaped(worst.worstSet))); heights are square roots of the counts. \(escaped(words)).</figcaption>
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
            <span class="panel"><svg viewBox="0 0 \(columns) \(rows)" role="img" aria-label="\(escaped(label)) of \(escaped(illustration.set))">\
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
                "\(macText(effect.multiplyAccumulates)) for \(effect.examples), \(macText(effect.referenceMultiplyAccumulates)) in \(escaped(effect.reference)): \(savings)."
            )
        }
        lines.append(
            "\(milliseconds(effect.seconds)) a run of \(effect.examples), \(milliseconds(effect.referenceSeconds)) in \(escaped(effect.reference)): "
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
        return
            "<section><h2>Provenance</h2><dl>\(facts.map { "<dt>\(escaped($0.0))</dt><dd>\(escaped($0.1))</dd>" }.joined(separator: "\n"))</dl></section>"
    }

    // MARK: Plots

    private func depthPlot(_ curves: [DepthCurve], description: String) -> String {
        let names = curves.max { $0.points.count < $1.points.count }?.points.map(\.name) ?? []
        let finite = curves.flatMap { $0.points.map(\.snr) }.filter(\.isFinite)
        let (low, high) = (min(0, finite.min() ?? 0), max(finite.max() ?? 100, 20) * 1.05)
        let (left, right, top, bottom) = (48.0, 912.0, 12.0, 250.0)
        let x = { (index: Int) in left + (right - left) * (names.count > 1 ? Double(index) / Double(names.count - 1) : 0.5) }
        let y = { (snr: Double) in bottom - (bottom - top) * (snr.isNaN ? 0 : min(max(snr, low), high) - low) / (high - low) }
        var parts: [String] = []
        for tick in stride(from: 0.0, through: high, by: high > 80 ? 20 : 10) {
            parts.append(
                "<path class=\"grid\" d=\"M\(left) \(short(y(tick)))H\(right)\"/><text x=\"\(left - 6)\" y=\"\(short(y(tick) + 4))\" text-anchor=\"end\">\(Int(tick)) dB</text>"
            )
        }
        let every = max(1, names.count / 24)
        for (index, name) in names.enumerated() where index % every == 0 {
            parts.append(
                "<text class=\"tick\" transform=\"translate(\(short(x(index))) \(bottom + 12)) rotate(45)\">\(escaped(name.count > 12 ? "…" + name.suffix(11) : name))</text>"
            )
        }
        for (number, curve) in curves.enumerated() {
            let points = curve.points.compactMap { point in names.firstIndex(of: point.name).map { (x($0), y(point.snr), point) } }
            let line = points.map { "\(short($0.0)),\(short($0.1))" }.joined(separator: " ")
            parts.append("<polyline class=\"curve c\(number % 4)\" points=\"\(line)\"/>")
            parts += points.map {
                "<circle class=\"c\(number % 4)\" cx=\"\(short($0.0))\" cy=\"\(short($0.1))\" r=\"3\"><title>\(escaped("\(curve.label), \($0.2.name): \(inDecibels($0.2.snr))"))</title></circle>"
            }
            parts.append(
                "<text class=\"label c\(number % 4)\" x=\"\(left + Double(number) * (right - left) / Double(curves.count))\" y=\"334\">● \(escaped(curve.label))</text>"
            )
        }
        return
            "<svg class=\"plot\" viewBox=\"0 0 960 340\" role=\"img\" aria-label=\"\(escaped("SNR in dB along the model. " + description))\">\(parts.joined())</svg>"
    }

    private func histogramPlot(_ metrics: Metrics, description: String) -> String {
        let bins = metrics.histogram
        let most = Double(max(1, bins.max() ?? 1))
        let (left, bottom, width) = (48.0, 170.0, 864.0 / Double(bins.count))
        var parts = ["<path class=\"grid\" d=\"M48 170H912\"/>"]
        for (bin, elements) in bins.enumerated() {
            // Roots of counts: single outliers stay visible beside thousands.
            let height = elements == 0 ? 0 : max(2, 150 * (Double(elements) / most).squareRoot())
            let range = bin == 0 ? "below 1e-12" : "from \(short(Metrics.histogramEdges[bin - 1]))"
            parts.append(
                "<rect class=\"c0\" x=\"\(short(left + Double(bin) * width + 1))\" y=\"\(short(bottom - height))\" width=\"\(short(width - 2))\" height=\"\(short(height))\"><title>\(range): \(elements)</title></rect>"
            )
            if bin % 4 == 1 {
                parts.append(
                    "<text x=\"\(short(left + Double(bin) * width))\" y=\"188\" text-anchor=\"middle\">\(short(Metrics.histogramEdges[bin - 1]))</text>"
                )
            }
        }
        return
            "<svg class=\"plot\" viewBox=\"0 0 960 200\" role=\"img\" aria-label=\"\(escaped("Histogram of absolute errors. " + description))\">\(parts.joined())</svg>"
    }
}

// MARK: Words

private func titleCells(_ titles: [String]) -> String {
    let words: Set = ["", "shape", "worst in", "of tolerance", "verdict", "selection", "operators", "share"]
    return titles.map { "<th scope=\"col\"\(words.contains($0) ? "" : " class=\"number\"")>\($0)</th>" }.joined()
}

private func number(_ text: String?) -> String { "<td class=\"number\">\(text ?? "")</td>" }
private func inDecibels(_ snr: Double) -> String { snrText(snr) + (snr.isFinite ? " dB" : "") }
private func milliseconds(_ seconds: Double) -> String { "\(digits(seconds * 1000, 1)) ms" }

private let styleSheet = """
    :root { color-scheme: light dark; --text: #1c2024; --muted: #60646c; --ground: #fcfcfd; --line: #d9d9e0; --pass: #18794e; --fail: #cd2b31; --open: #946800;
      --a: #0b68cb; --b: #d9480f; --c: #2b8a3e; --d: #9c36b5; }
    @media (prefers-color-scheme: dark) { :root { --text: #edeef0; --muted: #b0b4ba; --ground: #111113; --line: #393a40; --pass: #4cc38a; --fail: #ff8b8f;
      --open: #ffca16; --a: #70b8ff; --b: #ff9e5e; --c: #71d083; --d: #d19dff; } }
    * { box-sizing: border-box; }
    body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
    main { max-width: 72rem; margin: 0 auto; padding: 1.5rem; }
    header { border-left: 6px solid var(--open); padding: .2rem 0 .2rem 1.2rem; margin-bottom: 2rem; }
    header.pass { border-color: var(--pass); } header.fail { border-color: var(--fail); }
    header .verdict { font-size: 1.6rem; font-weight: 700; margin: 0; }
    header.pass .verdict, td.pass { color: var(--pass); } header.fail .verdict, td.fail { color: var(--fail); } td.unjudged { color: var(--open); }
    h1 { font-size: 1.25rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 0 0 .6rem; } summary h2 { display: inline; }
    section { margin: 0 0 2.2rem; } .facts, figcaption, small { color: var(--muted); }
    .scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; width: 100%; }
    th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
    thead th { color: var(--muted); font-weight: 500; white-space: nowrap; } th.number { text-align: right; } td.number { text-align: right; white-space: nowrap; } td.use, td.shape { white-space: nowrap; } td.fail { min-width: 14rem; }
    .bar { display: inline-block; width: 4rem; height: .5rem; background: var(--line); border-radius: .25rem; overflow: hidden; vertical-align: middle; }
    .bar i { display: block; height: 100%; background: var(--a); } td.fail ~ .use i { background: var(--fail); }
    figure { margin: 0; } .plot { width: 100%; height: auto; } .plot text { font-size: 12px; fill: var(--muted); } .plot .tick { font-size: 10px; }
    .plot .grid { stroke: var(--line); fill: none; } .plot .curve { fill: none; stroke-width: 2; }
    .plot .curve.c0 { stroke: var(--a); } .plot .curve.c1 { stroke: var(--b); } .plot .curve.c2 { stroke: var(--c); } .plot .curve.c3 { stroke: var(--d); }
    .plot circle.c0, .plot rect.c0, .plot text.label.c0 { fill: var(--a); } .plot circle.c1, .plot text.label.c1 { fill: var(--b); }
    .plot circle.c2, .plot text.label.c2 { fill: var(--c); } .plot circle.c3, .plot text.label.c3 { fill: var(--d); }
    .pictures { margin-bottom: 1.4rem; } .panels { display: flex; flex-wrap: wrap; gap: .8rem; } .panel { display: block; width: 11rem; } .panel svg { width: 100%; display: block; border-radius: 4px; }
    .panel image { image-rendering: auto; } .panel .flip { stroke: #ff2d55; stroke-width: .12; }
    dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; } dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
    @media print { body { font-size: 11px; } main { max-width: none; padding: 0; } section { break-inside: avoid; } details > *, details::details-content { display: block; content-visibility: visible; } }
    """
