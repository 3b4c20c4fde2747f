"""Exports one small model in every way that exporters know, and compares the block graphs that trips-convert makes of them.

    python tools/onnx_export_matrix.py --bin .build/release [--config tiny-albef-pretrain] [--graph main] [--json FILE]

Both of torch's exporters (TorchScript's at opsets 11 to 20; the newer one writes 18 and above), static and dynamic axes,
fp16, and cleaned by onnxsim and onnxslim. Every file is first held beside the model with ONNX Runtime. The graphs are what `trips-convert --until fuse` prints, with
names, sizes and constants left out; the plain export (TorchScript, opset 17, static) is what the others are held to.
The exit status is 0 when all are one graph.
"""

import argparse
import json
import logging
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent / "reference"))

import configurations  # noqa: E402
import export  # noqa: E402
import models  # noqa: E402
import weights  # noqa: E402

OPSETS = {"torchscript": (11, 13, 14, 16, 17, 18, 20), "dynamo": (18, 20, 21, 23, 24)}
LENGTH = 9


@dataclass
class Way:
    """One way to export."""

    exporter: str
    opset: int
    dynamic: bool
    half: bool = False
    cleaner: str = ""
    error: float | None = None
    """Largest difference from the model in ONNX Runtime."""
    verdict: str = ""
    blocks: int = 0

    @property
    def name(self) -> str:
        parts = [self.exporter, f"opset{self.opset}", "dynamic" if self.dynamic else "static"]
        return "-".join(parts + ["fp16"] * self.half + [self.cleaner] * bool(self.cleaner))


def ways() -> list[Way]:
    plain = [Way(exporter, opset, dynamic) for exporter in OPSETS
             for opset in OPSETS[exporter] for dynamic in (False, True)]
    half = [Way("torchscript", 17, False, half=True), Way("dynamo", 18, False, half=True)]
    cleaned = [Way(exporter, opset, dynamic, cleaner=cleaner) for cleaner in ("onnxsim", "onnxslim")
               for exporter, opset in (("torchscript", 17), ("dynamo", 18)) for dynamic in (False, True)]
    plain.sort(key=lambda way: way.name != "torchscript-opset17-static")
    return plain + half + cleaned


def exported(way: Way, config, graph: str, path: Path) -> None:
    model = models.make(config)
    weights.initialise(model, 1)
    batch = 2 if way.exporter == "dynamo" and way.dynamic else 1
    inputs = export.inputs_for(model, 1, LENGTH, batch)
    if way.half:
        model.half()
        inputs = {name: value.half() if value.is_floating_point() else value for name, value in inputs.items()}
    export.write_onnx(model, graph, inputs, path, way.opset, way.dynamic, way.exporter == "dynamo")
    if way.cleaner:
        clean(way.cleaner, path)
    written = max(entry.version for entry in onnx.load(path).opset_import if not entry.domain)
    if written != way.opset:
        raise ValueError(f"the exporter wrote opset {written}")
    way.error = difference(model, graph, inputs, path)


def clean(cleaner: str, path: Path) -> None:
    file = onnx.load(path)
    if cleaner == "onnxsim":
        import onnxsim
        file, sound = onnxsim.simplify(file)
        if not sound:
            raise ValueError("onnxsim's result differs from its input")
    else:
        import onnxslim
        file = onnxslim.slim(file)
    onnx.save(file, path)


def difference(model, graph: str, inputs: dict, path: Path) -> float:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    known = inputs | export.run_all(model, inputs)
    names, outputs = model.graphs[graph]
    wanted = {value.name for value in session.get_inputs()}
    found = session.run(list(outputs), {name: known[name].numpy() for name in names if name in wanted})
    return max(float(np.abs(value.astype(np.float64) - known[name].double().numpy()).max())
               for name, value in zip(outputs, found))


# The printed graph


def split(text: str) -> list[str]:
    """Splits at commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return parts + [text[start:].strip()] if text.strip() else []


def structure(printed: str) -> list[str]:
    """The printed graph without names, sizes and constants, in an order that follows from its outputs alone."""
    inputs, outputs, nodes = [], [], {}
    for line in printed.splitlines():
        line = line.strip()
        if match := re.match(r"in\s+(\S+):", line):
            inputs.append(match[1])
        elif match := re.match(r"out\s+(\S+) = (\S+):", line):
            outputs.append((match[1], match[2]))
        elif match := re.match(r"(.+?) = (\w+)\((.*)\)( \{.*\})?$", line):
            results = [re.sub(r": .*", "", result) for result in split(match[1])]
            for index, result in enumerate(results):
                nodes[result] = (index, results[0], match[2], split(match[3]), match[4] or "")
    numbers: dict[str, str] = {name: f"${name}" for name in inputs}
    lines: list[str] = []
    pending = [(name, False) for _, name in reversed(outputs)]
    while pending:
        name, expanded = pending.pop()
        if name in numbers or name not in nodes:
            continue
        _, first, kind, arguments, attributes = nodes[name]
        if not expanded:
            pending.append((name, True))
            pending += [(argument, False) for argument in reversed(arguments)]
            continue
        for result, node in nodes.items():
            if node[1] == first:
                numbers[result] = f"%{len(lines)}" + (f".{node[0]}" if node[0] else "")
        shown = [numbers.get(argument, "_" if argument == "_" else "constant") for argument in arguments]
        if all(argument in ("constant", "_") for argument in shown):
            numbers[first] = "constant"  # part of a table, as long as a text whose length is open
            continue
        if kind == "Cast" and re.search(r"to: b?float", attributes):
            numbers[first] = shown[0]  # a 16-bit export's inputs and outputs
            continue
        lines.append(f"%{len(lines)} = {kind}({', '.join(shown)}){attributes}")
    return lines + [f"{label} = {numbers.get(name, '?')}" for label, name in outputs]


def kinds(lines: list[str]) -> Counter:
    return Counter(match[1] for line in lines if (match := re.match(r"%\d+ = (\w+)", line)))


def block_graph(path: Path, binaries: Path) -> list[str]:
    done = subprocess.run([binaries / "trips-convert", path, "--until", "fuse", "--quiet"],
                          capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise ValueError(f"trips-convert: exit {done.returncode}: {(done.stderr or done.stdout).strip()[:200]}")
    lines = structure(done.stdout)
    if not kinds(lines):
        raise ValueError("trips-convert printed no graph")
    return lines


def compare(way: Way, found: list[str], plain: list[str]) -> str:
    if found == plain:
        return "the same graph"
    more, fewer = kinds(found) - kinds(plain), kinds(plain) - kinds(found)
    if not more and not fewer:
        place = next((index for index, pair in enumerate(zip(found, plain)) if pair[0] != pair[1]), None)
        if place is None:
            return f"{len(found)} lines instead of {len(plain)}"
        return f"same blocks, joined otherwise, first at {found[place]} instead of {plain[place]}"
    said = [f"+{count} {kind}" for kind, count in more.items()] + [f"-{count} {kind}" for kind, count in fewer.items()]
    return "differs: " + ", ".join(said)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=Path(".build/release"))
    parser.add_argument("--config", default="tiny-albef-pretrain")
    parser.add_argument("--graph", default="main")
    parser.add_argument("--boolean-masks", action="store_true", help="PyTorch's own attention, with masks of Booleans (opset 14 and above)")
    parser.add_argument("--match", default="", help="only exports whose names hold this, beside the plain one")
    parser.add_argument("--keep", type=Path, help="leave the files in this folder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    config = replace(configurations.named(options.config), boolean_masks=options.boolean_masks)
    plain: list[str] = []
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{'export':44}{'ONNX Runtime':>13}{'nodes':>7}  block graph")
        for index, way in enumerate(ways()):
            if index and (options.match not in way.name or options.boolean_masks and way.opset < 14):
                continue
            path = folder / f"{way.name}.onnx"
            try:
                exported(way, config, options.graph, path)
                lines = block_graph(path, options.bin)
                way.blocks = sum(kinds(lines).values())
                plain = plain or lines
                way.verdict = compare(way, lines, plain)
            except Exception as problem:  # The table says what failed and goes on.
                way.verdict = f"{type(problem).__name__}: {str(problem).strip().splitlines()[0][:160] if str(problem).strip() else ''}"
            error = "" if way.error is None else f"{way.error:.1e}"
            print(f"{way.name:44}{error:>13}{way.blocks:7}  {way.verdict}", flush=True)
            rows.append(way)
    same = sum(way.verdict == "the same graph" for way in rows)
    print(f"{same} of {len(rows)} are the plain export's graph")
    if options.json:
        options.json.write_text(json.dumps([asdict(way) | {"name": way.name} for way in rows], indent=1))
    return int(same < len(rows))


if __name__ == "__main__":
    sys.exit(main())
