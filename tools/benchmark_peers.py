"""Runs our packages and the other runtimes in turn on the same inputs, and prints who is how fast.

    python tools/benchmark_peers.py --models DIR --bin .build/release [--sizes 256,384] [--threads 2] [--batch 1]

Every contestant takes a short turn in a process of its own, all of them in every round, in an order that rotates by one each
round: neighbours in time share what else the machine does, so ratios within a round mean something where single times
do not. Printed are the median over all runs, the best run, the median over rounds of the ratio to our package of the
same precision, load time, time to the first result, and peak memory. All outputs are compared with PyTorch's first.

DIR gets, where they are missing: the models of tools/reference (checkpoint, ONNX, ONNX with selection inside), the
peers' int8 models, and our packages (`trips-convert`, `trips-quantize --int8`, both also `--mapped`). That takes minutes; a
second call finds them there. Files with selection carry blocks and keep rate in their names.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

import peers
from arguments import listed
from peers import TOOLS, Turn

sys.path.insert(0, str(TOOLS / "reference"))

REFERENCE = "torch:f32"
"""The contestant that the others' outputs are held beside."""
CONTESTANTS = ("trips:f32", "trips-mapped:f32", "trips:int8", "trips-mapped:int8", "onnxruntime:f32",
               "onnxruntime:int8", "openvino:f32", "openvino:int8", REFERENCE)


@dataclass(frozen=True)
class Column:
    """One model: a picture size, with or without selection."""

    config: str
    select: tuple[int, ...] = ()
    rate: float = 0.7

    @property
    def title(self) -> str:
        return self.config + (f" select {','.join(map(str, self.select))} @ {self.rate:g}" if self.select else "")

    @property
    def stem(self) -> str:
        """The name of its files: one for each choice of blocks and rate."""
        return f"select-{'_'.join(map(str, self.select))}-{self.rate:g}" if self.select else "model"

    @property
    def options(self) -> list:
        """How trips-convert and tools/reference/make.py are asked for its selection."""
        return ["--select", ",".join(map(str, self.select)), "--keep-rate", self.rate] if self.select else []


@dataclass
class Contestant:
    """One runtime at one precision, and what its turns have shown."""

    runtime: str
    precision: str
    model: Path
    rounds: list[list[float]] = field(default_factory=list)
    load_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    base_bytes: int = 0
    snr: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.precision}"

    @property
    def is_ours(self) -> bool:
        return self.runtime.startswith("trips")

    def add(self, turn: Turn) -> None:
        self.rounds.append(turn.times_ms)
        self.load_ms.append(turn.load_ms)
        self.first_ms.append(turn.first_ms)
        self.peak_bytes = max(self.peak_bytes, turn.peak_bytes)
        self.base_bytes = max(self.base_bytes, turn.base_bytes)

    def summary(self, ours: "Contestant | None") -> dict:
        times = [each for turn in self.rounds for each in turn]
        row = {"name": self.name, "median_ms": statistics.median(times), "best_ms": min(times),
               "load_ms": statistics.median(self.load_ms), "first_ms": statistics.median(self.first_ms),
               "peak_bytes": self.peak_bytes, "base_bytes": self.base_bytes, "snr_db": self.snr, "rounds_ms": self.rounds}
        if ours and ours.rounds:
            row["ratio"] = statistics.median(
                statistics.median(mine) / statistics.median(theirs) for mine, theirs in zip(ours.rounds, self.rounds))
        return row


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(line: list, **options) -> subprocess.CompletedProcess:
    done = subprocess.run([str(part) for part in line], capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{Path(line[0]).name}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done


# What has to lie there


def prepare_reference(column: Column, folder: Path, *more: str) -> None:
    """Makes those of checkpoint.safetensors, model.onnx and the column's own ONNX model that are missing.

    `more` are further options of tools/reference/make.py.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"checkpoint": ("checkpoint.safetensors", "checkpoint.safetensors"), "onnx": ("model.onnx", "model.onnx")}
    if column.select:
        wanted["select-onnx"] = ("select.onnx", f"{column.stem}.onnx")
    parts = {part: names for part, names in wanted.items() if not (folder / names[1]).exists()}
    if not parts:
        return
    say(f"making {', '.join(name for _, name in parts.values())} of {column.config}")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        run([sys.executable, TOOLS / "reference" / "make.py", "--config", column.config, "--out", temporary,
             "--write", ",".join(parts), "--dynamic", *column.options, *more])
        for made, name in parts.values():
            (Path(temporary) / made).rename(folder / name)


def prepare_int8(column: Column, runtime: str, folder: Path, samples: list[dict]) -> Path:
    target = folder / (f"{column.stem}-int8.onnx" if runtime == "onnxruntime" else f"{column.stem}-int8.xml")
    if not target.exists():
        quantize_peer(runtime, folder / f"{column.stem}.onnx", target, samples)
    return target


def quantize_peer(runtime: str, source: Path, target: Path, samples: list[dict]) -> dict:
    """Lets a peer quantize in a process of its own: seconds and peak memory."""
    say(f"{runtime} quantizes {source}")
    with tempfile.TemporaryDirectory() as temporary:
        files = []
        for index, sample in enumerate(samples):
            files.append(str(Path(temporary) / f"sample-{index}.npz"))
            np.savez(files[-1], **sample)
        request = Path(temporary) / "request.json"
        request.write_text(json.dumps({"target": str(target), "samples": files}))
        done = run([sys.executable, TOOLS / "peers.py", f"quantize-{runtime}", source, request])
    return json.loads(done.stdout.splitlines()[-1])


def prepare_package(column: Column, precision: str, folder: Path, binaries: Path, mapped: bool = False) -> Path:
    suffix, options = ("-mapped", ["--mapped"]) if mapped else ("", [])
    if precision == "f32":
        source, package = folder / "model.onnx", folder / f"{column.stem}{suffix}.trips"
        line, made_by = [binaries / "trips-convert", source, *column.options], binaries / "trips-convert"
    else:
        source = made_by = prepare_package(column, "f32", folder, binaries)
        package = folder / f"{column.stem}-int8{suffix}.trips"
        line = [binaries / "trips-quantize", "--int8", source]
    if not package.exists() or package.stat().st_mtime < made_by.stat().st_mtime:
        run([*line, "-o", package, "--force", "--quiet", *options])
    return package


# Turns


def bench_turn(binaries: Path, package: Path, options) -> Turn:
    """A turn of ours: trips-bench measures loading, the first result and the runs as the peers' turns do."""
    done = run([binaries / "trips-bench", package, "--threads", options.threads, "--batch", options.batch,
                "--text-length", options.text_length, "--runs", options.runs, "--json", "--quiet"])
    seen = json.loads(done.stdout)
    # Its loading ends with the first result.
    return Turn(seen["loadMilliseconds"], seen["loadMilliseconds"], seen["milliseconds"], seen["peakBytes"])


def peer_turn(contestant: Contestant, column: Column, inputs: Path, folder: Path, options, outputs: Path | None) -> Turn:
    request = {"config": column.config, "select": list(column.select), "keep_rate": [column.rate] * len(column.select),
               "threads": options.threads, "inputs": str(inputs), "runs": options.runs, "warmup": options.warmup,
               "outputs": str(outputs) if outputs else None}
    return peers.run_turn(contestant.runtime, contestant.model, request, folder)


# Agreement


def snr(found: np.ndarray, expected: np.ndarray) -> float:
    """SNR in dB: infinite where nothing differs, NaN where the shapes do or numbers are not finite."""
    if found.shape != expected.shape:
        return float("nan")
    expected = expected.astype(np.float64)
    signal, noise = np.square(expected).sum(), np.square(found - expected).sum()
    if not np.isfinite(signal + noise):
        return float("nan")
    with np.errstate(divide="ignore"):
        return float("inf") if noise == 0 else float(10 * np.log10(signal / noise))


def verified(binaries: Path, package: Path, golden: Path, *more) -> dict:
    """trips-verify's report (formats/verify-report.md) on a golden set, whatever its verdict."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        line = [binaries / "trips-verify", package, "--golden", golden, "--min-snr=-1000", "--json", report, *more, "--quiet"]
        done = subprocess.run([str(part) for part in line], capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"trips-verify: exit {done.returncode}: {done.stderr.strip()[-300:]}")
        return json.loads(report.read_text())


def reported_snr(report: dict) -> dict[str, float]:
    """SNR in dB of each output: infinite where nothing differs, NaN where the report gives none, as for another shape."""
    return {output["name"]: float(output.get("snr", "nan")) for output in report["outputs"]}


def worst(snr_db: dict[str, float]) -> float:
    """The lowest SNR; NaN where any is."""
    values = list(snr_db.values())
    return float("nan") if any(value != value for value in values) else min(values, default=float("inf"))


def check(contestants: list[Contestant], column: Column, inputs: dict, input_file: Path, folder: Path, options) -> None:
    """One turn each, whose outputs are held beside PyTorch's. What differs at f32 takes no part."""
    reference = next(each for each in contestants if f"{each.runtime}:{each.precision}" == REFERENCE)
    outputs = folder / "outputs.npz"
    quick = argparse.Namespace(**{**vars(options), "runs": 1, "warmup": 0})
    peer_turn(reference, column, input_file, folder, quick, outputs)
    expected = dict(np.load(outputs))
    golden = folder / "golden.npz"
    np.savez(golden, **{f"in.{name}": value for name, value in inputs.items()},
             **{f"out.{name}": value for name, value in expected.items()})
    for contestant in list(contestants):
        try:
            if contestant.is_ours:
                contestant.snr = reported_snr(verified(options.bin, contestant.model, golden))
            elif contestant is not reference:
                peer_turn(contestant, column, input_file, folder, quick, outputs)
                found = dict(np.load(outputs))
                contestant.snr = {name: snr(found[name], value) for name, value in expected.items()}
            lowest = worst(contestant.snr)
            if not lowest > (80 if contestant.precision == "f32" else float("-inf")):
                raise RuntimeError(f"outputs differ from PyTorch's: {lowest:.1f} dB")
        except Exception as problem:  # One contestant less is still a race.
            say(f"{column.title}: {contestant.name} takes no part: {problem}")
            contestants.remove(contestant)


def race(column: Column, options) -> list[dict]:
    import configurations
    import export
    import models
    folder = options.models / column.config
    prepare_reference(column, folder)
    config = configurations.named(column.config)
    import torch
    with torch.device("meta"):
        shell = models.make(config)
    def inputs_of(seed, batch, full):
        made = export.inputs_for(shell, seed, options.text_length, batch, full)
        return {name: value.numpy() for name, value in made.items()}
    inputs = inputs_of(100, options.batch, True)
    contestants = []
    for name in options.contestants:
        runtime, precision = name.split(":")
        try:
            if runtime.startswith("trips"):
                model = prepare_package(column, precision, folder, options.bin, mapped=runtime == "trips-mapped")
            elif runtime == "torch":
                model = folder
            elif precision == "int8":
                model = prepare_int8(column, runtime, folder, [inputs_of(200 + seed, 1, False) for seed in range(8)])
            else:
                model = folder / f"{column.stem}.onnx"
            contestants.append(Contestant(runtime, precision, model))
        except Exception as problem:
            say(f"{column.title}: {name} takes no part: {problem}")
    with tempfile.TemporaryDirectory() as temporary:
        input_file = Path(temporary) / "inputs.npz"
        np.savez(input_file, **inputs)
        check(contestants, column, inputs, input_file, Path(temporary), options)
        for number in range(options.rounds):
            turn = number % max(1, len(contestants))
            for contestant in contestants[turn:] + contestants[:turn]:
                say(f"{column.title}: round {number + 1} of {options.rounds}, {contestant.name}")
                if contestant.is_ours:
                    contestant.add(bench_turn(options.bin, contestant.model, options))
                else:
                    contestant.add(peer_turn(contestant, column, input_file, Path(temporary), options, None))
    ours = {each.precision: each for each in contestants if each.runtime == "trips"}
    return [each.summary(ours.get(each.precision)) for each in contestants]


def show(column: Column, rows: list[dict], options) -> None:
    print(f"\n{column.title}: batch {options.batch}, text {options.text_length}, {options.threads} threads")
    print(f"  {'':20}{'median ms':>11}{'best':>9}{'ours/it':>9}{'load':>9}{'first':>9}{'peak MB':>9}{'worst dB':>10}")
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        print(f"  {row['name']:20}{row['median_ms']:11.1f}{row['best_ms']:9.1f}{ratio:>9}{row['load_ms']:9.0f}"
              f"{row['first_ms']:9.0f}{row['peak_bytes'] / 1e6:9.0f}{worst(row['snr_db']):10.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of the models, made where missing")
    parser.add_argument("--bin", type=Path, default=Path(".build/release"))
    parser.add_argument("--sizes", default="256,384", help="picture sizes of albef-base; or names of configurations")
    parser.add_argument("--select", default="5,10")
    parser.add_argument("--keep-rate", type=float, default=0.7)
    parser.add_argument("--only", choices=("plain", "select"), help="only without, or only with selection")
    parser.add_argument("--contestants", type=listed(CONTESTANTS, always=[REFERENCE]), default=",".join(CONTESTANTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--text-length", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    select = tuple(map(int, options.select.split(",")))
    columns = []
    for size in options.sizes.split(","):
        config = f"albef-base-{size}" if size.isdigit() else size
        columns += [Column(config)] * (options.only != "select")
        columns += [Column(config, select, options.keep_rate)] * (options.only != "plain")
    results = []
    for column in columns:
        rows = race(column, options)
        show(column, rows, options)
        results.append({"column": asdict(column), "threads": options.threads, "batch": options.batch,
                        "text_length": options.text_length, "contestants": rows})
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
