"""Our int8 beside the other runtimes': how far from fp32, how long it takes, how large it is.

    python tools/quantization_peers.py --models DIR --bin .build/release [--config albef-base-256] [--pairs 16]

DIR gets the model of tools/reference with planted outliers (eightfold channels in LayerNorm weights and feed-forward
outputs) in a folder of its own. Peers and we are calibrated on the same inputs, which are not those judged. Printed are
the mean SNR of each output against fp32 over the pairs (matching logits pooled over --pooled pairs, as two numbers
scatter), seconds and peak memory of quantizing, and the file. With --select, the overlap (Jaccard, mean over the pairs)
of the patches that int8 and fp32 keep, in positions of the original picture. Where int8 keeps other patches, image_embeds
of the peers is compared token by token, and ours patch by patch: read the overlap there.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import onnx

from arguments import listed
from benchmark_peers import Column, prepare_reference, quantize_peer, reported_snr, run, say, snr, verified
from peers import TOOLS, onnxruntime_session, openvino_session, peak_bytes

sys.path.insert(0, str(TOOLS / "reference"))

OUTPUTS = ("image_feat", "text_feat", "image_embeds", "text_embeds")
POOLED = "itm_logits"
CALIBRATION = 16
FIRST_SEED = 1000
"""Judged inputs have seeds from here on; calibration uses those below."""


def watched(line: list) -> tuple[str, int]:
    """Runs a command: what it printed, and its peak memory as seen every 20 ms."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([str(part) for part in line], stdout=output, stderr=errors)
        peak = 0
        while process.poll() is None:
            try:
                peak = max(peak, peak_bytes(process.pid))
            except OSError:
                pass
            time.sleep(0.02)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{Path(line[0]).name}: exit {process.returncode}: {errors.read().strip()[-300:]}")
        return output.read(), peak


@dataclass
class Row:
    name: str
    seconds: float = float("nan")
    peak_bytes: int = 0
    file_bytes: int = 0
    snr_db: dict[str, float] = field(default_factory=dict)
    overlap: dict[str, float] = field(default_factory=dict)


class Material:
    """The model, its inputs and its fp32 outputs."""

    def __init__(self, options, folder: Path, column: Column):
        import configurations
        import export
        import models
        import torch
        from safetensors.torch import load_file
        from selection import Selection
        self.options, self.folder, self.column, self.export = options, folder, column, export
        self.config = configurations.named(column.config)
        self.source = folder / f"{column.stem}.onnx"
        prepare_reference(column, folder, "--planted-outliers")
        self.model = models.make(self.config, Selection(column.select, (column.rate,) * bool(column.select)))
        self.model.load_state_dict(load_file(folder / "checkpoint.safetensors"), strict=False)
        torch.set_num_threads(options.threads)

    def inputs(self, seed: int) -> dict:
        length = self.options.text_length
        return {name: value.numpy() for name, value in self.export.inputs_for(self.model, seed, length).items()}

    def expected(self, inputs: dict) -> tuple[dict, dict]:
        """Outputs, and what each selection kept in positions of the original picture."""
        import torch
        trace: dict = {}
        found = self.export.run_all(self.model, {name: torch.from_numpy(value) for name, value in inputs.items()}, trace)
        kept = [trace[f"selection.{block}.indices"].numpy() for block in self.column.select]
        return {name: value.numpy() for name, value in found.items()}, dict(zip(self.column.select, original(kept)))

    def calibration(self) -> list[dict]:
        return [self.inputs(seed) for seed in range(CALIBRATION)]

    def save_goldens(self, folder: Path, seeds) -> list[Path]:
        import torch
        paths = []
        for seed in seeds:
            inputs = {name: torch.from_numpy(value) for name, value in self.inputs(seed).items()}
            path = folder / f"golden-{seed}.safetensors"
            self.export.write_golden(path, self.export.golden(self.model, inputs, intermediates=False),
                                     self.export.metadata(self.model, seed, self.column.config))
            paths.append(path)
        return paths


def original(kept: list[np.ndarray]) -> list[set[int]]:
    """Kept positions, each among the tokens of its own stream, as sets of original patches; a fused token is -1."""
    positions, sets = None, []
    for indices in kept:
        indices = indices.reshape(-1)
        now = indices if positions is None else positions[indices]
        sets.append({int(place) for place in now if place >= 0})
        positions = np.append(now, -1)
    return sets


def jaccard(one: set, other: set) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


def judge(row: Row, material: Material, run_model, kept_names: list[str]) -> None:
    """Runs a peer's model on the judged inputs."""
    noise = {name: [] for name in OUTPUTS}
    pooled: list[tuple[np.ndarray, np.ndarray]] = []
    overlaps: dict[int, list[float]] = {block: [] for block in material.column.select}
    for index in range(max(material.options.pairs, material.options.pooled)):
        inputs = material.inputs(FIRST_SEED + index)
        expected, kept = material.expected(inputs)
        found = run_model(inputs)
        pooled.append((found[POOLED], expected[POOLED]))
        if index < material.options.pairs:
            for name in OUTPUTS:
                noise[name].append(snr(found[name], expected[name]))
            for block, ours in zip(material.column.select, original([found[name] for name in kept_names])):
                overlaps[block].append(jaccard(ours, kept[block]))
    row.snr_db = {name: float(np.mean(values)) for name, values in noise.items()}
    row.snr_db[POOLED] = snr(*(np.concatenate(part) for part in zip(*pooled)))
    row.overlap = {str(block): float(np.mean(values)) for block, values in overlaps.items() if values}


def with_selections(source: Path, target: Path, count: int) -> list[str]:
    """Adds what the selections inside a model kept to its outputs. Each ends in a sort of the kept positions."""
    model = onnx.load(source)
    sorts = [node.output[0] for node in model.graph.node if node.op_type == "TopK"][1::2][:count]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorts)
    onnx.save(model, target)
    return sorts


# Contestants


def peer(runtime: str, material: Material, folder: Path) -> Row:
    row = Row(f"{runtime} int8")
    target = folder / f"peer{'.onnx' if runtime == 'onnxruntime' else '.xml'}"
    source, kept = material.source, []
    if material.column.select and runtime == "onnxruntime":
        source = folder / "source.onnx"
        kept = with_selections(material.source, source, len(material.column.select))
    samples = material.calibration() if runtime == "openvino" else []
    cost = quantize_peer(runtime, source, target, samples)
    row.seconds, row.peak_bytes = cost["seconds"], cost["peak_bytes"]
    row.file_bytes = target.stat().st_size + (target.with_suffix(".bin").stat().st_size if runtime == "openvino" else 0)
    shapes = {name: value.shape for name, value in material.inputs(0).items()}
    session = onnxruntime_session if runtime == "onnxruntime" else openvino_session
    names = [*OUTPUTS, POOLED, *kept]
    judge(row, material, session(target, shapes, material.options.threads, names), kept)
    return row


def ours(name: str, arguments: list, calibrated: bool, material: Material, folder: Path) -> Row:
    row = Row(name)
    options = material.options
    package, quantized = folder / "model.trips", folder / "quantized.trips"
    run([options.bin / "trips-convert", material.folder / "model.onnx",
         "-o", package, "--force", "--quiet", *material.column.options])
    calibration = ["--calibration", *material.save_goldens(folder, range(CALIBRATION))] if calibrated else []
    start = time.perf_counter()
    _, row.peak_bytes = watched([options.bin / "trips-quantize", *arguments, package, "-o", quantized, "--force",
                                 "--quiet", *calibration])
    row.seconds, row.file_bytes = time.perf_counter() - start, quantized.stat().st_size
    judge_ours(row, quantized, material, folder)
    return row


def judge_ours(row: Row, package: Path, material: Material, folder: Path) -> None:
    """trips-verify's SNR of each output, averaged over the pairs; the logits' noise added up over the pool."""
    options = material.options
    values: dict[str, list[float]] = {}
    signal = noise = 0.0
    overlaps: dict[str, list[float]] = {}
    for index in range(max(options.pairs, options.pooled)):
        golden, = material.save_goldens(folder, [FIRST_SEED + index])
        report = verified(options.bin, package, golden, "--intermediates")
        for name, value in reported_snr(report).items():
            if name == POOLED:
                energy = float(np.square(material.expected(material.inputs(FIRST_SEED + index))[0][POOLED]).sum())
                signal, noise = signal + energy, noise + energy * 10 ** (-value / 10)
            elif index < options.pairs and name in OUTPUTS:
                values.setdefault(name, []).append(value)
        if index < options.pairs:
            for selected in report["selections"]:
                overlaps.setdefault(str(selected["block"]), []).append(selected["worstOverlap"])
    row.snr_db = {name: float(np.mean(each)) for name, each in values.items()}
    row.snr_db[POOLED] = float(10 * np.log10(signal / noise)) if noise else float("inf")
    row.overlap = {name: float(np.mean(each)) for name, each in overlaps.items()}


CONTESTANTS = {
    "onnxruntime": lambda material, folder: peer("onnxruntime", material, folder),
    "openvino": lambda material, folder: peer("openvino", material, folder),
    "trips": lambda material, folder: ours("trips int8", ["--int8"], False, material, folder),
    "trips-calibrated": lambda material, folder: ours("trips int8 calibrated", ["--int8"], True, material, folder),
    "trips-weights-only": lambda material, folder: ours(
        "trips int8 weights only", ["--int8", "--weights-only"], False, material, folder),
}


def show(rows: list[Row]) -> None:
    names = [*OUTPUTS, POOLED]
    print(f"  {'':26}" + "".join(f"{name:>14}" for name in names) + f"{'seconds':>9}{'peak MB':>9}{'file MB':>9}  overlap")
    for row in rows:
        numbers = "".join(f"{row.snr_db.get(name, float('nan')):14.1f}" for name in names)
        overlap = ", ".join(f"{block}: {value:.3f}" for block, value in row.overlap.items())
        print(f"  {row.name:26}{numbers}{row.seconds:9.1f}{row.peak_bytes / 1e6:9.0f}{row.file_bytes / 1e6:9.1f}  {overlap}")
    peers = [row for row in rows if not row.name.startswith("trips")]
    if not peers:
        return
    peers_best = {name: max(row.snr_db.get(name, float("-inf")) for row in peers) for name in OUTPUTS}
    for row in rows:
        if row.name.startswith("trips") and row.snr_db:
            gains = {name: row.snr_db.get(name, float("nan")) - peers_best[name] for name in OUTPUTS}
            said = ", ".join(f"{name} {gain:+.1f}" for name, gain in gains.items())
            print(f"  {row.name} over the better peer: {said}; mean {np.mean(list(gains.values())):+.1f} dB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--bin", type=Path, default=Path(".build/release"))
    parser.add_argument("--config", default="albef-base-256")
    parser.add_argument("--select", help="also with selection in these blocks, as 5,10")
    parser.add_argument("--keep-rate", type=float, default=0.7)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--pooled", type=int, default=64)
    parser.add_argument("--text-length", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contestants", type=listed(CONTESTANTS), default=",".join(CONTESTANTS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    columns = [Column(options.config)]
    if options.select:
        columns.append(Column(options.config, tuple(map(int, options.select.split(","))), options.keep_rate))
    results = []
    for column in columns:
        folder = options.models / f"{column.config}-outliers"
        material, rows = Material(options, folder, column), []
        for name in options.contestants:
            say(f"{column.title}: {name}")
            with tempfile.TemporaryDirectory() as temporary:
                try:
                    rows.append(CONTESTANTS[name](material, Path(temporary)))
                except Exception as problem:  # The others are still worth a table.
                    say(f"{column.title}: {name} takes no part: {problem}")
        print(f"\n{column.title} with planted outliers: SNR in dB against fp32, mean over {options.pairs} pairs "
              f"({POOLED}: pooled over {options.pooled})")
        show(rows)
        results.append({"column": asdict(column), "rows": [asdict(row) for row in rows]})
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
