"""How our packages' time follows what is asked of them: threads, batch, text, picture size, selection, other load.

    python tools/benchmark_scaling.py --models DIR --bin .build/release [--parts sweep,sizes,threads,batch,text,load]

DIR/albef-base-256/checkpoint.safetensors is the model (tools/reference/make.py makes it). Every ratio is taken of two
packages that trips-bench runs in turn in one process, or of neighbours in time, the whole list as often as --rounds
says; printed are medians. Packages are converted into DIR/scaling, and stay there.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from arguments import listed


class Bench:
    """Our tools, and the packages that they have made."""

    def __init__(self, options):
        self.bin, self.runs, self.rounds = options.bin, options.runs, options.rounds
        self.checkpoint = options.models / "albef-base-256" / "checkpoint.safetensors"
        self.folder = options.models / "scaling"
        self.folder.mkdir(parents=True, exist_ok=True)

    def tool(self, name, *arguments):
        line = [str(self.bin / name), *map(str, arguments), "--quiet"]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(line)}: exit {done.returncode}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def package(self, precision="f32", size=256, blocks=(), rate=0.7):
        """A package of these settings, made where it is missing or older than the converter."""
        name = f"{size}" + (f"-{'_'.join(map(str, blocks))}-{rate:g}" if blocks else "")
        path = self.folder / f"{name}.trips"
        if not path.exists() or path.stat().st_mtime < (self.bin / "trips-convert").stat().st_mtime:
            select = ["--select", ",".join(map(str, blocks)), "--keep-rate", rate] if blocks else []
            self.tool("trips-convert", self.checkpoint, "-o", path, "--force", "--image-size", size, *select)
        if precision == "f32":
            return path
        quantized = self.folder / f"{name}-int8.trips"
        if not quantized.exists() or quantized.stat().st_mtime < path.stat().st_mtime:
            self.tool("trips-quantize", "--int8", path, "-o", quantized, "--force")
        return quantized

    def run(self, package, *arguments, compare=None):
        """What trips-bench --json says, and this package's time over the other's."""
        turn = ["--compare", compare] if compare else []
        seen = json.loads(self.tool("trips-bench", package, "--runs", self.runs, "--json", *turn, *arguments))
        seen["median"] = statistics.median(seen["milliseconds"])
        if compare:
            seen["ratio"] = seen["median"] / statistics.median(seen["compared"]["milliseconds"])
        seen["macs"] = sum(step["multiplyAccumulates"] for step in seen["steps"])
        return seen

    def median(self, key, package, *arguments, compare=None):
        return statistics.median(self.run(package, *arguments, compare=compare)[key] for _ in range(self.rounds))


def table(title, heading, rows):
    print(f"\n{title}\n")
    print("| " + " | ".join(heading) + " |\n|" + "---|" * len(heading))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def sweep(bench):
    """Keep rates and positions: arithmetic and time, as shares of the model without selection."""
    for precision in ("f32", "int8"):
        whole = bench.package(precision)
        macs = bench.run(whole)["macs"]
        rows = []
        for blocks in ((5, 10), (3, 6), (10,)) if precision == "f32" else ((5, 10),):
            for rate in (0.9, 0.7, 0.5, 0.3):
                package = bench.package(precision, blocks=blocks, rate=rate)
                seen = [bench.run(package, compare=whole) for _ in range(bench.rounds)]
                ratio = statistics.median(each["ratio"] for each in seen)
                share = seen[0]["macs"] / macs
                rows.append([",".join(map(str, blocks)), f"{rate:g}", f"{seen[0]['macs'] / 1e9:.1f}", f"{share:.3f}",
                             f"{ratio:.3f}", f"{share / ratio:.2f}"])
        table(f"256 px, {precision}, {macs / 1e9:.1f} GMACs without selection",
              ["blocks", "keep rate", "GMACs", "arithmetic", "time", "arithmetic saved that is time saved"], rows)


def sizes(bench):
    """Picture sizes, without selection and with 5,10 at 0.7."""
    rows = []
    for precision in ("f32", "int8"):
        for size in (224, 256, 384, 512):
            whole, selected = bench.package(precision, size), bench.package(precision, size, (5, 10))
            seen = [bench.run(selected, compare=whole) for _ in range(bench.rounds)]
            alone = bench.run(whole)
            ratio = statistics.median(each["ratio"] for each in seen)
            share = seen[0]["macs"] / alone["macs"]
            rows.append([precision, str(size), f"{alone['macs'] / 1e9:.1f}", f"{alone['median']:.0f}",
                         f"{alone['macs'] / alone['median'] / 1e6:.0f}", f"{share:.3f}", f"{ratio:.3f}", f"{share / ratio:.2f}"])
    table("Picture size", ["precision", "px", "GMACs", "ms", "GMAC/s", "selected: arithmetic", "time", "of it"], rows)


def threads(bench):
    rows = []
    for precision in ("f32", "int8"):
        package = bench.package(precision)
        one, two = (bench.median("median", package, "--threads", count) for count in (1, 2))
        rows.append([precision, f"{one:.0f}", f"{two:.0f}", f"{one / two / 2:.2f}"])
    table("Threads, 256 px", ["precision", "1: ms", "2: ms", "efficiency"], rows)


def batch(bench):
    rows = []
    for precision in ("f32", "int8"):
        for blocks in ((), (5, 10)):
            package = bench.package(precision, blocks=blocks)
            rates = [count * 1e3 / bench.median("median", package, "--batch", count) for count in (1, 2, 4, 8, 16)]
            rows.append([precision, "5,10 @ 0.7" if blocks else "none", *(f"{rate:.2f}" for rate in rates)])
    table("Examples per second by batch, 256 px", ["precision", "selection", "1", "2", "4", "8", "16"], rows)


def text(bench):
    rows = []
    for precision in ("f32", "int8"):
        package = bench.package(precision)
        times = [bench.median("median", package, "--text-length", length) for length in (8, 16, 40, 64, 128)]
        rows.append([precision, *(f"{time:.0f}" for time in times)])
    table("Milliseconds by text length, 256 px", ["precision", "8", "16", "40", "64", "128"], rows)


def load(bench):
    """A process that takes a processor for itself, beside ours."""
    rows = []
    for precision in ("f32", "int8"):
        package = bench.package(precision)
        quiet, busy = [], []
        for _ in range(bench.rounds):
            quiet.append(bench.run(package)["median"])
            spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            busy.append(bench.run(package)["median"])
            spinner.kill()
            spinner.wait()
        rows.append([precision, f"{statistics.median(quiet):.0f}", f"{statistics.median(busy):.0f}",
                     f"{statistics.median(b / q for q, b in zip(quiet, busy)):.2f}"])
    table("Beside a process that spins, 2 threads on 2 processors", ["precision", "alone: ms", "beside it: ms", "ratio"], rows)


PARTS = {part.__name__: part for part in (sweep, sizes, threads, batch, text, load)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--bin", type=Path, default=Path(".build/release"))
    parser.add_argument("--parts", type=listed(PARTS), default=",".join(PARTS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prepare", action="store_true", help="only make the packages")
    options = parser.parse_args()
    bench = Bench(options)
    if options.prepare:
        bench.run = lambda *_, **__: {"macs": 1, "median": 1, "ratio": 1}
    for part in options.parts:
        PARTS[part](bench)


if __name__ == "__main__":
    main()
