"""Runs ONNX models here and in ONNX Runtime, in turn, and prints the processor time of a run of each.

    python tools/benchmark_onnx.py MODEL.onnx... --bin .build/release [--threads 1] [--runs 50] [--rounds 3]

Processor time, of all threads, rather than time by the clock: on one thread it is the same but where other programs have the
processor. What loading takes is measured by itself and subtracted. Open sizes are 1; integers of inputs are ones.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

FIRST = 5
"""Runs of the turn that is subtracted: trips-bench profiles as many as it times, up to five."""
NUMBERS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


def processor_ms(command: list[str]) -> float:
    """What a process takes of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()[-400:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def run_onnxruntime(model: str, threads: int, runs: int) -> None:
    """One turn, in this process."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    random, inputs = np.random.default_rng(0), {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in value.shape]
        kind = NUMBERS[value.type]
        inputs[value.name] = random.standard_normal(shape).astype(kind) if np.issubdtype(kind, np.floating) else np.ones(shape, kind)
    for _ in range(runs):
        session.run(None, inputs)


def main() -> int:
    if sys.argv[1:2] == ["--turn"]:
        run_onnxruntime(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--bin", type=Path, default=Path(".build/release"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    threads = str(options.threads)
    print("ms of the processor for a run, medians of rounds\n\nmodel, Trips, ONNX Runtime, ratio")
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            package = str(Path(folder) / f"{model.stem}.trips")
            processor_ms([str(options.bin / "trips-convert"), str(model), "-o", package])

            def ours(runs: int) -> float:
                return processor_ms([str(options.bin / "trips-bench"), package, "--threads", threads, "--runs", str(runs)])

            def theirs(runs: int) -> float:
                return processor_ms([sys.executable, __file__, "--turn", str(model), threads, str(runs)])

            rounds = [[(turn(options.runs + FIRST) - turn(FIRST)) / options.runs for turn in (ours, theirs)]
                      for _ in range(options.rounds)]
            columns = [statistics.median(times) for times in zip(*rounds)]
            ratio = statistics.median(first / second for first, second in rounds)
            print(f"{model.stem}, {columns[0]:.2f}, {columns[1]:.2f}, {ratio:.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
