"""Times answers that are generated token by token, here and in PyTorch and ONNX Runtime, in turn.

    python tools/benchmark_generation.py --models DIR --bin .build/release [--configs base-mplug-vqa,…] [--threads 2]

Every contestant takes its turns in a process of its own, all of them in every round. A turn loads the model and generates
answers of the longest length, with the beam of the architecture (grounding: four tokens, one hypothesis). The peers run the
decoder over the whole prefix at each step, as mPLUG's own code does. Printed are medians over all turns: time until the first
token is known (encoders included), time of each token after it, time from opening the files to the first token, peak memory.

DIR gets, where they are missing, the models of tools/reference and our packages.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from arguments import listed
from benchmark_peers import run, say
from peers import TOOLS, Turn, peak_bytes

sys.path.insert(0, str(TOOLS / "reference"))

CONTESTANTS = ("trips:f32", "trips:int8", "onnxruntime:f32", "torch:f32")
LENGTHS = {"mplug-vqa": (5, 10), "mplug-caption": (5, 25), "mplug-grounding": (1, 4)}
"""Beam and tokens of an architecture's answers."""


def prepare(name: str, config, folder: Path, binaries: Path, contestants) -> None:
    parts = {"checkpoint": ["checkpoint.safetensors"], "onnx": ["encode.onnx", "decode.onnx"]}
    if not any(each.startswith("onnxruntime") for each in contestants):
        del parts["onnx"]
    missing = [part for part, files in parts.items() if not all((folder / file).exists() for file in files)]
    if missing:
        say(f"making {', '.join(missing)} of {name}")
        run([sys.executable, TOOLS / "reference" / "make.py", "--config", name, "--out", folder, "--write", ",".join(missing),
             "--dynamic"])
    package, small = folder / "model.trips", folder / "model-int8.trips"
    if not package.exists():
        run([binaries / "trips-convert", folder / "checkpoint.safetensors", "-o", package, "--architecture", config.architecture])
    if not small.exists():
        run([binaries / "trips-quantize", "--int8", package, "-o", small])


def our_turn(binaries: Path, package: Path, options) -> Turn:
    done = run([binaries / "trips-bench", package, "--threads", options.threads, "--text-length", options.text_length,
                "--runs", options.runs, "--json", "--quiet"])
    seen = json.loads(done.stdout)
    times = seen["generation"]
    # Its loading ends with a run of the decoder over one token for one hypothesis.
    return Turn(seen["loadMilliseconds"], times["firstMilliseconds"], [times["tokenMilliseconds"]], seen["peakBytes"])


def torch_graphs(folder: Path, config, threads: int):
    import models
    import torch
    from safetensors.torch import load_file
    torch.set_num_threads(threads)
    with torch.device("meta"):
        model = models.make(config)
    model.load_state_dict(load_file(folder / "checkpoint.safetensors"), strict=False, assign=True)

    def graph(name):
        def compute(inputs):
            with torch.inference_mode():
                return model.run(name, inputs)
        return compute

    return graph("encode"), graph("decode")


def onnxruntime_graphs(folder: Path, config, threads: int):
    import onnxruntime
    import torch

    def graph(name):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        # As ours and PyTorch's, which need no logits of earlier tokens.
        outputs = [value.name for value in session.get_outputs() if value.name != "logits"]

        def compute(inputs):
            found = session.run(outputs, {name: np.ascontiguousarray(inputs[name].numpy()) for name in names})
            return {name: torch.from_numpy(value) for name, value in zip(outputs, found)}

        return compute

    return graph("encode"), graph("decode")


GRAPHS = {"torch": torch_graphs, "onnxruntime": onnxruntime_graphs}


def peer_turn(runtime: str, folder: Path, request: dict) -> Turn:
    """A turn in this process."""
    import configurations
    import export
    import generation
    import models
    import torch
    config = configurations.named(request["config"])
    with torch.device("meta"):
        shell = models.make(config)
    inputs = export.inputs_for(shell, 100, request["text_length"], 1, True)
    start = time.perf_counter()
    encode, decode = GRAPHS[runtime](folder, config, request["threads"])
    width, length = LENGTHS[config.architecture]
    stamps: list[float] = []

    def answer() -> None:
        stamps[:] = [time.perf_counter()]
        encoded = encode(inputs)

        def next_logits(prefixes):
            fed = {name: value.expand(len(prefixes), *value.shape[1:]) for name, value in encoded.items()}
            logits = decode(fed | {"decoder_ids": prefixes})["next_logits"]
            stamps.append(time.perf_counter())
            return logits

        generation.beam_search(next_logits, generation.Beam(width, length, length))

    answer()
    load = (stamps[1] - start) * 1e3
    first, others = [], []
    for _ in range(request["runs"]):
        answer()
        spent = [(after - before) * 1e3 for before, after in zip(stamps, stamps[1:])]
        first.append(spent[0])
        others += spent[1:]
    return Turn(load, statistics.median(first), [statistics.median(others)], peak_bytes())


def peer_process(runtime: str, folder: Path, config: str, options) -> Turn:
    request = {"config": config, "threads": options.threads, "text_length": options.text_length, "runs": options.runs}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(request, file)
        file.flush()
        done = run([sys.executable, __file__, "turn", runtime, folder, file.name])
    return Turn(**json.loads(done.stdout.splitlines()[-1]))


def race(name: str, options) -> None:
    import configurations
    config, folder = configurations.named(name), options.models / name
    folder.mkdir(parents=True, exist_ok=True)
    prepare(name, config, folder, options.bin, options.contestants)
    turns: dict[str, list[Turn]] = {each: [] for each in options.contestants}
    for number in range(options.rounds):
        for each in options.contestants[number % len(turns):] + options.contestants[:number % len(turns)]:
            say(f"{name}: round {number + 1} of {options.rounds}, {each}")
            runtime, precision = each.split(":")
            if runtime == "trips":
                package = folder / ("model.trips" if precision == "f32" else "model-int8.trips")
                turns[each].append(our_turn(options.bin, package, options))
            else:
                turns[each].append(peer_process(runtime, folder, name, options))
    beam, tokens = LENGTHS[config.architecture]
    print(f"\n{name}: beam {beam}, {tokens} tokens, {options.threads} threads; milliseconds")
    print(f"  {'':18}{'first token':>13}{'each further':>14}{'whole answer':>14}{'from opening':>14}{'peak MB':>9}")
    for each, seen in turns.items():
        first, token, load = (statistics.median(values) for values in zip(
            *((turn.first_ms, turn.times_ms[0], turn.load_ms) for turn in seen)))
        peak = max(turn.peak_bytes for turn in seen)
        print(f"  {each:18}{first:13.1f}{token:14.2f}{first + (tokens - 1) * token:14.0f}{load:14.0f}{peak / 1e6:9.0f}", flush=True)


def main() -> int:
    if sys.argv[1:2] == ["turn"]:
        runtime, folder, asked = sys.argv[2:5]
        print(json.dumps(vars(peer_turn(runtime, Path(folder), json.loads(Path(asked).read_text())))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of the models, made where missing")
    parser.add_argument("--bin", type=Path, default=Path(".build/release"))
    parser.add_argument("--configs", default="base-mplug-vqa,base-mplug-caption,base-mplug-grounding")
    parser.add_argument("--contestants", type=listed(CONTESTANTS), default=",".join(CONTESTANTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--text-length", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    for name in options.configs.split(","):
        race(name, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
