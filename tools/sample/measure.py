"""Measures the trained models through trips-convert, trips-quantize, trips-verify and trips-bench.

    python tools/sample/measure.py accuracy --work DIR --tools .build/release
    python tools/sample/measure.py times    --work DIR --tools .build/release

Writes DIR/accuracy.json and DIR/times.json, which tables.py turns into tables and plots. `accuracy` answers every
question of --scenes test scenes with each variant; `times` runs each variant in turn with the unselected model, so keep
the machine quiet.
"""

import argparse
import itertools
import json
import statistics
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

import questions
import ship
import test_set
from ship import export
from train import BLOCKS, FIRST_STAGES, RATES, RUNS

SELECTED = ",".join(map(str, BLOCKS))
GUIDANCES = ("text", "image-cls", "random")
BATCH, LENGTH = 8, 9


def variants() -> list[dict]:
    """Everything that the tables hold: run (whose weights), and how it is converted."""
    def one(table: str, run: str, rate: float = 1, guidance: str = "text", fuse: str = "normalized", **more) -> dict:
        return {"table": table, "run": run, "rate": rate, "guidance": guidance, "fuse": fuse, "select": SELECTED} | more

    found = [one("reference", "none")] + [one("reference", run) for run in RUNS if run not in (*FIRST_STAGES, "none")]
    for rate, guidance, fuse in itertools.product(RATES[1:], GUIDANCES, ("normalized", "none")):
        run = "text-drop" if (guidance, fuse) == ("text", "none") else guidance
        found.append(one("trained", run, rate, guidance, fuse))
    for rate, guidance in itertools.product(RATES[1:], GUIDANCES):
        found.append(one("untrained", "none", rate, guidance))
        if guidance == "image-cls" and rate <= 0.5:
            found.append(one("swapped", "text", rate, guidance))
    found += [one("swapped", "text", rate, fuse="none") for rate in (0.5, 0.3)]
    found += [one("positions", "text", 0.5, select=blocks) for blocks in ("1,3", "2,4", "3,5", "4,6", "2", "4", "2,3,4,5")]
    found += [one("resolution", run, rate, size=size)
              for size, run, rate in ((96, "none", 1), (128, "none", 1), (160, "none", 1), (160, "text", 0.7), (160, "text", 0.5),
                                      (160, "text", 0.3))]
    found += [one("int8", "none", weights="int8"), *(one("int8", "text", rate, weights="int8") for rate in RATES)]
    return found


def name_of(variant: dict) -> str:
    parts = [variant["run"], variant.get("size", 128), variant["select"], variant["rate"], variant["guidance"],
             variant["fuse"], variant.get("weights", "f32")]
    return "_".join(map(str, parts)).replace(",", "-")


class Tools:
    def __init__(self, folder: Path, work: Path):
        self.folder, self.packages = folder, work / "packages"
        self.packages.mkdir(exist_ok=True)
        self.work = work

    def call(self, tool: str, *arguments) -> str:
        command = [str(self.folder / tool), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def package(self, variant: dict) -> Path:
        """The variant's package, made where it is not there yet."""
        path = self.packages / f"{name_of(variant)}.trips"
        if path.exists():
            return path
        if variant.get("weights") == "int8":
            whole = self.package({key: value for key, value in variant.items() if key != "weights"})
            calibration = self.packages / "calibration.safetensors"
            self.call("trips-quantize", "--int8", whole, "--calibration", calibration, "-o", path, "--quiet")
            return path
        options = ["--image-size", variant["size"]] if variant.get("size", 128) != 128 else []
        if variant["rate"] < 1:
            options += ["--select", variant["select"], "--keep-rate", variant["rate"], "--guidance", variant["guidance"],
                        "--fuse", variant["fuse"]]
        self.call("trips-convert", self.packages / f"{variant['run']}.safetensors", *options, "-o", path, "--quiet")
        return path

    def answered(self, package: Path, questions: Path) -> dict:
        report = self.packages / f"{package.stem}-{questions.stem}.json"
        self.call("trips-verify", package, "--accuracy", questions, "--json", report, "--force", "--quiet", "--threads", 1)
        return json.loads(report.read_text())


def multiplied(report: dict) -> int:
    """Multiply-accumulates of one example."""
    return sum(report["package"]["multiplyAccumulates"].values())


def measure_accuracy(tools: Tools, scenes: int) -> None:
    path = tools.work / "accuracy.json"
    done = json.loads(path.read_text()) if path.exists() else []
    known = {entry["name"] for entry in done}
    print(f"the commonest answer to each question, without a picture: {majority(tools.work, scenes):.4f}")
    waiting = [variant for variant in variants() if variant["table"] + name_of(variant) not in known
               and (tools.packages / f"{variant['run']}.safetensors").exists()]
    for variant in waiting:
        tools.package(variant)
    with ThreadPoolExecutor(2) as pool:
        for entry in pool.map(lambda variant: measured(tools, variant), waiting):
            done.append(entry)
            path.write_text(json.dumps(done, indent=1))
            print(entry["name"], f"{share(entry):.4f}", entry["halves"], f"{entry['macs'] / 1e6:.1f} M", flush=True)


def measured(tools: Tools, variant: dict) -> dict:
    package = tools.package(variant)
    report = tools.answered(package, tools.work / f"test{variant.get('size', 128)}.safetensors")
    entry = variant | {"name": variant["table"] + name_of(variant), "macs": multiplied(report), "bytes": report["package"]["bytes"]}
    if variant["table"] == "reference" or variant["run"] == "text" and variant["table"] == "trained":
        entry["sorts"] = [share(tools.answered(package, tools.work / f"test-{sort}.safetensors")["accuracy"])
                          for sort in questions.SORTS]
    if variant["table"] == "reference":
        entry["other_pictures"] = share(tools.answered(package, tools.work / "test-other.safetensors")["accuracy"])
    return entry | report["accuracy"]


def majority(work: Path, scenes: int) -> float:
    """Right answers without a picture: to each question the answer that training scenes give most often."""
    counts: dict[bytes, Counter] = {}
    rng = np.random.default_rng(0)
    for objects in np.load(work / "scenes" / "train-objects.npy")[:5000]:
        for sort, subject, answer, _ in test_set.all_questions(objects, "train", rng):
            counts.setdefault(questions.TABLE[sort, subject][0].tobytes(), Counter())[answer] += 1
    found = test_set.make("test", scenes, 0)
    guesses = [counts[ids.tobytes()].most_common(1)[0][0] for ids in found["in.input_ids"].numpy()]
    return float((np.array(guesses) == found["labels"].numpy()).mean())


def share(accuracy: dict) -> float:
    return accuracy["right"] / accuracy["count"]


def benched(tools: Tools, runs: int, package: Path, *more) -> dict:
    return json.loads(tools.call("trips-bench", package, *more, "--batch", BATCH, "--text-length", LENGTH, "--runs", runs,
                                 "--json", "--quiet"))


def measure_times(tools: Tools, runs: int) -> None:
    """Median milliseconds of a batch, and the median of the ratios to the unselected model's run beside it.

    A package for another size of picture cannot run in turn with that model: it runs before it.
    """
    found, plain = [], tools.package({"run": "text", "rate": 1, "guidance": "text", "fuse": "normalized", "select": SELECTED})
    for variant in variants():
        if variant["table"] not in ("trained", "int8", "resolution") or not (tools.packages / f"{variant['run']}.safetensors").exists():
            continue
        same = variant.get("size", 128) == 128
        report = benched(tools, runs, tools.package(variant), *(["--compare", plain] if same else []))
        own = report["milliseconds"]
        other = (report["compared"] if same else benched(tools, runs, plain))["milliseconds"]
        found.append({"table": variant["table"], "name": variant["table"] + name_of(variant), "ms": statistics.median(own),
                      "ratio": statistics.median(a / b for a, b in zip(other, own))})
        print(found[-1], flush=True)
    (tools.work / "times.json").write_text(json.dumps(found, indent=1))


def prepare(tools: Tools, scenes: int) -> None:
    """Checkpoints in fp32, calibration data, and the test sets."""
    for run in RUNS:
        state, log = tools.work / f"{run}.pt", tools.work / f"{run}.log"
        out = tools.packages / f"{run}.safetensors"
        if run not in FIRST_STAGES and state.exists() and log.exists() and '"validation"' in log.read_text().splitlines()[-1]:
            if not out.exists() or out.stat().st_mtime < state.stat().st_mtime:
                ship.write_checkpoint(tools.work, run, out, torch.float32)
    if not (tools.packages / "calibration.safetensors").exists():
        ship.write_golden(ship.trained(tools.work, "text"), tools.packages / "calibration.safetensors")
    for size in (96, 128, 160):
        if not (tools.work / f"test{size}.safetensors").exists():
            found = test_set.make("test", scenes, 0, size)
            export.save_file(found, tools.work / f"test{size}.safetensors", {})
    if not (tools.work / "test-other.safetensors").exists():
        export.save_file(test_set.make("test", scenes, 0, without_picture=True), tools.work / "test-other.safetensors", {})
        for number, sort in enumerate(questions.SORTS):
            export.save_file(test_set.only(test_set.make("test", scenes, 0), number), tools.work / f"test-{sort}.safetensors", {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "accuracy", "times"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    tools = Tools(options.tools, options.work)
    if options.what != "times":
        prepare(tools, options.scenes)
    if options.what == "accuracy":
        measure_accuracy(tools, options.scenes)
    if options.what == "times":
        measure_times(tools, options.runs)


if __name__ == "__main__":
    main()
