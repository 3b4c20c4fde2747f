"""The other runtimes that our packages are held beside, each in a process of its own.

    python tools/peers.py RUNTIME MODEL REQUEST.json      one turn, as benchmark_peers.py asks for it

A turn loads a model, runs it once, then as often as asked, and writes what it saw as JSON to standard output:
`load_ms` (until it can run), `first_ms` (until the first result, loading included), `times_ms`, `peak_bytes`,
`base_bytes` (the interpreter with its imports, before the model). Outputs go to a file if one is named.
"""

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TOOLS = Path(__file__).resolve().parent


@dataclass
class Turn:
    """What one process saw."""

    load_ms: float
    first_ms: float
    times_ms: list[float]
    peak_bytes: int
    base_bytes: int = 0


def peak_bytes(process: str | int = "self") -> int:
    """The peak of a process's resident memory. (ru_maxrss would count the parent it was forked from.)"""
    status = Path(f"/proc/{process}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) * 1024 if match else 0


# Loading: each gives a function from inputs to outputs, both by name.


def onnxruntime_session(model: Path, shapes: dict, threads: int, outputs=None):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name("batch", shapes["image"][0])
    if "input_ids" in shapes:
        options.add_free_dimension_override_by_name("text_length", shapes["input_ids"][1])
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = outputs or [value.name for value in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs)))


def openvino_session(model: Path, shapes: dict, threads: int, outputs=None):
    import openvino
    core = openvino.Core()
    read = core.read_model(model)
    read.reshape({name: list(shape) for name, shape in shapes.items()})
    compiled = core.compile_model(read, "CPU", {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    names = outputs or [next(iter(port.get_names())) for port in compiled.outputs]

    def run(inputs):
        request.infer(inputs)
        return {name: request.get_tensor(name).data.copy() for name in names}

    return run


def torch_session(model: Path, shapes: dict, threads: int, outputs=None):
    """`model` is a folder with checkpoint.safetensors; CONFIG and selection stand in its request."""
    import torch
    sys.path.insert(0, str(TOOLS / "reference"))
    import configurations
    import models
    from safetensors.torch import load_file
    from selection import Selection
    torch.set_num_threads(threads)
    request = json.loads(Path(sys.argv[3]).read_text())
    blocks, rates = request.get("select", []), request.get("keep_rate", [])
    config = configurations.named(request["config"])
    with torch.device("meta"):
        reference = models.make(config, Selection(tuple(blocks), tuple(rates)))
    reference.load_state_dict(load_file(model / "checkpoint.safetensors"), strict=False, assign=True)
    for name, buffer in [*reference.named_buffers()]:
        if buffer.is_meta:
            raise SystemExit(f"{name} is not in the checkpoint")

    def run(inputs):
        with torch.inference_mode():
            found = reference.run("main", {name: torch.from_numpy(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in found.items()}

    return run


SESSIONS = {"onnxruntime": onnxruntime_session, "openvino": openvino_session, "torch": torch_session}


def turn(runtime: str, model: Path, request: dict) -> Turn:
    """One turn in this process."""
    __import__(runtime)
    with np.load(request["inputs"]) as file:
        inputs = {name: file[name] for name in file.files}
    base = peak_bytes()
    start = time.perf_counter()
    run = SESSIONS[runtime](model, {name: value.shape for name, value in inputs.items()}, request["threads"])
    loaded = time.perf_counter()
    outputs = run(inputs)
    first = time.perf_counter()
    for _ in range(request.get("warmup", 1)):
        run(inputs)
    times = []
    for _ in range(request["runs"]):
        before = time.perf_counter()
        run(inputs)
        times.append((time.perf_counter() - before) * 1e3)
    if request.get("outputs"):
        np.savez(request["outputs"], **outputs)
    return Turn((loaded - start) * 1e3, (first - start) * 1e3, times, peak_bytes(), base)


def run_turn(runtime: str, model: Path, request: dict, folder: Path) -> Turn:
    """One turn in a process of its own."""
    asked = folder / "request.json"
    asked.write_text(json.dumps(request))
    done = subprocess.run([sys.executable, __file__, runtime, str(model), str(asked)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{runtime} on {model}: {done.stderr.strip()[-400:]}")
    return Turn(**json.loads(done.stdout.splitlines()[-1]))


# Their int8


def quantize_onnxruntime(source: Path, target: Path) -> None:
    """Dynamic quantization, weights per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True,
                     extra_options={"DefaultTensorType": 1})


def quantize_openvino(source: Path, target: Path, samples: list[dict]) -> None:
    """NNCF's post-training quantization for transformers."""
    import nncf
    import openvino
    model = openvino.Core().read_model(source)
    model.reshape({name: list(value.shape) for name, value in samples[0].items()})
    quantized = nncf.quantize(model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER,
                              subset_size=len(samples))
    openvino.save_model(quantized, target, compress_to_fp16=False)


def main() -> int:
    runtime, model, asked = sys.argv[1:4]
    if runtime.startswith("quantize-"):
        request = json.loads(Path(asked).read_text())
        start = time.perf_counter()
        if runtime == "quantize-onnxruntime":
            quantize_onnxruntime(Path(model), Path(request["target"]))
        else:
            samples = [dict(np.load(file)) for file in request["samples"]]
            quantize_openvino(Path(model), Path(request["target"]), samples)
        print(json.dumps({"seconds": time.perf_counter() - start, "peak_bytes": peak_bytes()}))
        return 0
    print(json.dumps(vars(turn(runtime, Path(model), json.loads(Path(asked).read_text())))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
