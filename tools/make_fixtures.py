"""Makes Tests/Fixtures out of tools/reference: the same files from the same versions of the packages.

    python tools/make_fixtures.py [--out Tests/Fixtures]
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "reference"))

import configurations  # noqa: E402
import export  # noqa: E402
import models  # noqa: E402
import weights  # noqa: E402
from generation import Beam  # noqa: E402
from make import select  # noqa: E402
from selection import Selection  # noqa: E402

TEXT_LENGTH = 9
SEED = 1
END_BIAS = 1.5
"""Random decoders hardly ever end a sentence by themselves."""


def made(config):
    model = models.make(config)
    weights.initialise(model, SEED)
    if config.architecture in ("mplug-vqa", "mplug-caption"):
        with torch.no_grad():
            model.text_decoder.cls.predictions.bias[config.end_id] += END_BIAS
    return model


def with_boolean_masks(model):
    """The same model, its text's attention being PyTorch's own."""
    other = models.make(replace(model.config, boolean_masks=True))
    other.load_state_dict(model.state_dict())
    return other


def save_golden(model, folder: Path, name: str, source: str, seed: int = SEED, intermediates: bool = True,
                length: int = TEXT_LENGTH, batch: int = 1) -> dict:
    inputs = export.inputs_for(model, seed, length, batch)
    tensors = export.golden(model, inputs, intermediates)
    export.write_golden(folder / name, tensors, export.metadata(model, seed, source))
    return tensors


def save_onnx(model, graph: str, path: Path, length: int = TEXT_LENGTH, **options) -> None:
    """Exports a graph, and holds the file beside the model with ONNX Runtime."""
    inputs = export.inputs_for(model, SEED, length)
    # The newer exporter takes a dimension of size 1 for a constant, so an open batch is shown as 2.
    shown = export.inputs_for(model, SEED, length, 2) if options.get("dynamo") and options.get("dynamic") else inputs
    export.write_onnx(model, graph, shown, path, **options)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for fed in [inputs] + ([export.inputs_for(model, SEED, length + 3, 3)] if options.get("dynamic") else []):
        known = fed | export.run_all(model, fed)
        names, outputs = model.graphs[graph]
        found = session.run(list(outputs), {name: known[name].numpy() for name in names})
        for name, value in zip(outputs, found):
            np.testing.assert_allclose(value, known[name].numpy(), atol=1e-5, rtol=1e-4, err_msg=f"{path.name}: {name}")


def save_quantized(model, source: Path, path: Path, golden: Path, length: int) -> None:
    """A graph as ONNX Runtime's dynamic quantization leaves it, and what ONNX Runtime computes with it."""
    quantize_dynamic(source, path, weight_type=QuantType.QInt8)
    names, outputs = model.graphs["main"]
    inputs = export.inputs_for(model, SEED, length)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(list(outputs), {name: inputs[name].numpy() for name in names})
    tensors = {f"in.{name}": inputs[name] for name in names}
    tensors |= {f"out.{name}": torch.from_numpy(value) for name, value in zip(outputs, found)}
    export.write_golden(golden, tensors, export.metadata(model, SEED, "sample"))


class Calibration(CalibrationDataReader):
    """The inputs of some seeds."""

    def __init__(self, model, length: int):
        names, _ = model.graphs["main"]
        made = [export.inputs_for(model, seed, length) for seed in range(SEED, SEED + 4)]
        self.rest = iter([{name: inputs[name].numpy() for name in names} for inputs in made])

    def get_next(self) -> dict | None:
        return next(self.rest, None)


def save_static(model, source: Path, path: Path, length: int) -> None:
    """A graph as ONNX Runtime's static quantization leaves it, with operators of integers."""
    quantize_static(source, path, Calibration(model, length), quant_format=QuantFormat.QOperator,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


def architecture(folder: Path, name: str) -> None:
    """Checkpoint, and goldens with and without selection."""
    config = configurations.named(f"tiny-{name}")
    plain = made(config)
    guidance = "image-cls" if name == "mplug-caption" else "text"
    selecting = select(plain, Selection((2, 3), (0.7,), guidance))
    folder.mkdir(parents=True, exist_ok=True)
    export.write_checkpoint(plain, folder / "checkpoint.safetensors", SEED, unused=True)
    save_golden(plain, folder, "golden.safetensors", name)
    save_golden(selecting, folder, "golden-select.safetensors", name)
    task(plain, folder, name)
    more = globals().get(name.replace("-", "_"))
    if more:
        more(folder, plain, selecting)


def task(model, folder: Path, name: str) -> None:
    inputs = export.inputs_for(model, SEED, TEXT_LENGTH)
    facts = export.metadata(model, SEED, name)
    config = model.config
    if name in ("mplug-vqa", "mplug-caption"):
        for kind, width, shortest in (("beam", 5, 3), ("greedy", 1, 1)):
            inputs, seed = telling_example(model, width, shortest)
            beam = Beam(width, shortest, 8, config.start_id, config.end_id)
            tensors, extra, _ = export.generated(model, inputs, beam)
            export.write_golden(folder / f"golden-{kind}.safetensors", tensors,
                                facts | extra | {"seed": str(seed)})
    if name == "albef-vqa":
        tensors, extra = export.ranked(model, inputs, candidates=12, length=6, k=5, seed=SEED)
        export.write_golden(folder / "golden-ranking.safetensors", tensors, facts | extra)
    if name == "mplug-grounding":
        export.write_golden(folder / "golden-box.safetensors", export.grounded(model, inputs), facts)


def telling_example(model, width: int, shortest: int) -> tuple[dict, int]:
    """The first inputs whose search ends by its end token, after one that ended lower in the beam."""
    config = model.config
    for seed in range(SEED, SEED + 200):
        inputs = export.inputs_for(model, seed, TEXT_LENGTH)
        beam = Beam(width, shortest, 8, config.start_id, config.end_id)
        tensors, _, finished = export.generated(model, inputs, beam)
        ids = tensors["out.ids"].tolist()
        last = max(hypothesis.step for hypothesis in finished)
        earlier = [hypothesis for hypothesis in finished if hypothesis.step < last]
        if ids[-1] == config.end_id and len(ids) < beam.max_length + 1 and (width == 1 or earlier):
            return inputs, seed
    raise SystemExit(f"no telling example for {config.architecture} with beam {width}")


def albef_pretrain(folder: Path, plain, selecting) -> None:
    save_onnx(plain, "main", folder / "opset17.onnx")
    save_onnx(plain, "main", folder / "dynamo.onnx", opset=18, dynamic=True, dynamo=True)
    save_onnx(selecting, "main", folder / "select.onnx")
    save_onnx(with_boolean_masks(plain), "main", folder / "boolean-masks.onnx", dynamic=True)
    inputs = export.inputs_for(plain, SEED, TEXT_LENGTH)
    tensors = export.golden(plain, inputs)
    export.write_golden(folder / "golden.npz", tensors, {})
    export.write_onnx_test_data(folder, tensors, export.metadata(plain, SEED, "albef-pretrain"), plain.graphs["main"])
    options = {"weighted": Selection((1, 3), (0.5, 0.9), fuse="weighted"),
               "none-score": Selection((2, 3), (0.5,), fuse="none", order="score"),
               "image-cls": Selection((2, 3), (0.7,), "image-cls")}
    for name, selection in options.items():
        save_golden(select(plain, selection), folder, f"golden-{name}.safetensors", "albef-pretrain")
    save_golden(models.resized(plain, 24), folder, "golden-24px.safetensors", "albef-pretrain")
    save_golden(plain, folder, "golden-batch3.safetensors", "albef-pretrain", SEED + 1, False, TEXT_LENGTH + 3, batch=3)


def albef_ve(folder: Path, plain, selecting) -> None:
    export.write_checkpoint(plain, folder / "checkpoint.pth")
    older = folder / "checkpoint-older.pt"
    # Torch's older form holds memory addresses: made again, the same state has other bytes.
    if not (older.exists() and same_state(torch.load(older)["model"], plain.state_dict())):
        export.write_checkpoint(plain, older)
    rounded = made(plain.config).bfloat16().float()
    export.write_shards(rounded, folder / "sharded-bf16", torch.bfloat16)
    save_golden(rounded, folder / "sharded-bf16", "golden.safetensors", "albef-ve")


def same_state(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def mplug_vqa(folder: Path, plain, selecting) -> None:
    save_onnx(plain, "encode", folder / "encode.onnx")
    save_onnx(plain, "decode", folder / "decode.onnx", dynamic=True)
    save_onnx(with_boolean_masks(plain), "encode", folder / "boolean-masks.onnx")
    save_golden(models.resized(plain, 24), folder, "golden-24px.safetensors", "mplug-vqa")


def sample(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain = made(configurations.sample())
    selecting = select(plain, Selection((2, 5), (0.7,)))
    export.write_checkpoint(plain, folder / "checkpoint.safetensors", SEED)
    save_onnx(plain, "main", folder / "albef.onnx", length=12, dynamic=True)
    save_quantized(plain, folder / "albef.onnx", folder / "albef-int8.onnx", folder / "golden-int8.safetensors", length=12)
    save_static(plain, folder / "albef.onnx", folder / "albef-static.onnx", length=12)
    save_golden(plain, folder, "golden.safetensors", "sample", intermediates=False, length=12)
    save_golden(selecting, folder, "golden-select.safetensors", "sample", length=12)


class Command:
    """Pickled, this calls os.system when it is read."""

    def __reduce__(self):
        return os.system, ("touch checkpoint-code-was-run",)


def hostile(folder: Path) -> None:
    """Torch files that run a command in readers that let pickles call what they name."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": {"temp": torch.tensor(0.07), "command": Command()}}
    torch.save(state, folder / "os-system.pth")
    torch.save({"model": {"command": Command()}}, folder / "os-system-older.pt", _use_new_zipfile_serialization=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parent / "Tests" / "Fixtures")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    sample(out / "sample")
    hostile(out / "hostile")
    for name in configurations.ARCHITECTURES:
        architecture(out / name, name)
    total = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {total / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
