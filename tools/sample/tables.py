"""Turns what measure.py found into the tables of docs/sample.md, and draws its plots.

    python tools/sample/tables.py --work DIR --out docs

Prints the tables as Markdown, and writes OUT/sample-accuracy.png and OUT/sample-cost.png.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

COLORS = {"text": "#0a7d5a", "image-cls": "#c2571a", "random": "#7a7a7a"}


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def share(entry: dict) -> float:
    return entry["right"] / entry["count"]


def with_halves(entry: dict) -> str:
    return f"{percent(share(entry))} ({', '.join(percent(half) for half in entry['halves'])})"


def line(*cells) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def header(*cells) -> str:
    return line(*cells) + "\n" + line(*(["---"] * len(cells)))


class Findings:
    def __init__(self, work: Path):
        self.entries = json.loads((work / "accuracy.json").read_text())
        times = work / "times.json"
        self.times = {entry["name"]: entry for entry in json.loads(times.read_text())} if times.exists() else {}

    def of(self, table: str, **wanted) -> list[dict]:
        return [entry for entry in self.entries if entry["table"] == table
                and all(entry.get(key) == value for key, value in wanted.items())]

    def ratio(self, entry: dict) -> str:
        found = self.times.get(entry["name"])
        return f"{found['ratio']:.2f}" if found else "–"


def reference(found: Findings) -> None:
    print("### Without selection\n")
    print(header("weights of", "accuracy (halves), %", "colour", "thing", "existence", "with another scene's picture"))
    for entry in found.of("reference"):
        print(line(entry["run"], with_halves(entry), *map(percent, entry["sorts"]), percent(entry["other_pictures"])))


def trained(found: Findings) -> None:
    print("\n### Keep rate, guidance, fused token\n")
    print(header("keep rate", "guidance", "dropped are", "weights of", "accuracy (halves), %", "colour", "thing", "existence",
                 "MMACs", "time, times faster"))
    for entry in sorted(found.of("trained"), key=lambda entry: (-entry["rate"], entry["fuse"] == "none")):
        print(line(entry["rate"], entry["guidance"], {"normalized": "fused", "none": "dropped"}[entry["fuse"]], entry["run"],
                   with_halves(entry), *map(percent, entry["sorts"]) if "sorts" in entry else ("",) * 3, f"{entry['macs'] / 1e6:.1f}", found.ratio(entry)))


def by_rate(found: Findings, title: str, table: str) -> None:
    rows = {}
    for entry in found.of(table):
        rows.setdefault((entry["run"], entry["guidance"], entry["fuse"]), {})[entry["rate"]] = entry
    rates = sorted({entry["rate"] for entry in found.of(table)}, reverse=True)
    print(f"\n### {title}\n")
    print(header("weights of", "guidance", "dropped are", *rates))
    for (run, guidance, fuse), entries in rows.items():
        print(line(run, guidance, {"normalized": "fused", "none": "dropped"}[fuse], *(with_halves(entries[rate]) if rate in entries else "" for rate in rates)))


def positions(found: Findings) -> None:
    print("\n### Positions\n")
    print(header("blocks", "keep rate", "accuracy (halves), %", "MMACs"))
    for entry in found.of("positions"):
        print(line(entry["select"], entry["rate"], with_halves(entry), f"{entry['macs'] / 1e6:.1f}"))


def resolution(found: Findings) -> None:
    print("\n### Resolution\n")
    print(header("picture", "weights of", "keep rate", "accuracy (halves), %", "MMACs", "time, times faster"))
    for entry in sorted(found.of("resolution"), key=lambda entry: entry["macs"]):
        print(line(f"{entry['size']} px", entry["run"], entry["rate"], with_halves(entry), f"{entry['macs'] / 1e6:.1f}", found.ratio(entry)))


def precision(found: Findings) -> None:
    print("\n### Numbers\n")
    print(header("weights of", "keep rate", "fp32, %", "int8, %", "fp32, MB", "int8, MB", "int8: times faster than fp32 unselected"))
    for entry in found.of("int8"):
        same = [other for other in found.entries if other["run"] == entry["run"] and other["rate"] == entry["rate"]
                and other["guidance"] == "text" and other["fuse"] == "normalized" and other["table"] in ("reference", "trained")]
        print(line(entry["run"], entry["rate"], with_halves(same[0]) if same else "–", with_halves(entry),
                   f"{same[0]['bytes'] / 1e6:.2f}" if same else "–", f"{entry['bytes'] / 1e6:.2f}", found.ratio(entry)))


def plain_axes(axes, title: str, x: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def spread(entry: dict) -> list[list[float]]:
    middle = share(entry)
    return [[100 * (middle - min(entry["halves"]))], [100 * (max(entry["halves"]) - middle)]]


def draw(found: Findings, x, label: str, path: Path, invert: bool) -> None:
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axes, fuse, title in zip(panels, ("normalized", "none"), ("dropped patches fused into one", "dropped patches gone")):
        for guidance, color in COLORS.items():
            run = "text-drop" if (guidance, fuse) == ("text", "none") else guidance
            points = found.of("reference", run=run) + sorted(found.of("trained", guidance=guidance, fuse=fuse), key=lambda e: -e["rate"])
            if not points:
                continue
            axes.plot([x(e) for e in points], [100 * share(e) for e in points], color=color, label=guidance, linewidth=1.6)
            for entry in points:
                axes.errorbar(x(entry), 100 * share(entry), yerr=spread(entry), color=color, marker="o", markersize=4, capsize=2)
        for entry in found.of("reference", run="none"):
            axes.axhline(100 * share(entry), color="black", linestyle=":", linewidth=1, label="no selection")
        plain_axes(axes, title, label)
        if invert:
            axes.invert_xaxis()
    panels[0].set_ylabel("right answers, %")
    panels[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    save(figure, path)


def save(figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = Findings(options.work)
    reference(found)
    trained(found)
    by_rate(found, "Weights trained without selection, selected afterwards", "untrained")
    by_rate(found, "Text-guided weights under other guidance, or without the fused token", "swapped")
    positions(found)
    resolution(found)
    precision(found)
    draw(found, lambda entry: entry["rate"], "keep rate in blocks 2 and 4", options.out / "sample-accuracy.png", True)
    draw(found, lambda entry: entry["macs"] / 1e6, "million multiply-accumulates per question", options.out / "sample-cost.png", False)


if __name__ == "__main__":
    main()
