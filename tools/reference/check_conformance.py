"""Runs the reference on checkpoints made elsewhere and compares with their goldens.

    python tools/reference/check_conformance.py FOLDER [--tolerance 1e-5]

FOLDER holds one folder per case: albef_pretrain, albef_trips, albef_vqa, mplug_vqa.
An element passes when its error is at most the tolerance times the largest number of its row (at least 1):
rows of a pre-norm tower grow with depth, and a sum's rounding error follows its largest term.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

import models
from configurations import Config
from selection import Selection

CASES = [
    ("albef_pretrain", "albef-pretrain", "golden", ("main",)),
    ("albef_pretrain", "albef-pretrain", "../albef_trips/golden", ("main",)),
    ("albef_vqa", "albef-vqa", "golden", ("encode", "decode")),
    ("mplug_vqa", "mplug-vqa", "golden_encode", ("encode",)),
    ("mplug_vqa", "mplug-vqa", "golden_decode", ("decode",)),
]


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def config_of(architecture: str, facts: dict[str, str], state: dict) -> Config:
    """Sizes from the shapes, the rest from the metadata."""
    clip = architecture.startswith("mplug")
    block = "visual_encoder.visual.transformer.resblocks.0" if clip else "visual_encoder.blocks.0"
    words = state[next(name for name in state if name.endswith("embeddings.word_embeddings.weight"))]
    places = state[next(name for name in state if name.endswith("embeddings.position_embeddings.weight"))]
    inner = next(tensor for name, tensor in state.items() if name.endswith("layer.0.intermediate.dense.weight"))
    return Config(
        architecture,
        image_size=int(facts["image"]), patch=int(facts["patch"]),
        vision_width=state[f"{block}.{'ln_1' if clip else 'norm1'}.weight"].shape[0],
        vision_layers=int(facts["vit_depth"]), vision_heads=int(facts["heads"]),
        vision_ffn=state[f"{block}.mlp.{'c_fc' if clip else 'fc1'}.weight"].shape[0],
        text_width=words.shape[1], text_heads=int(facts["heads"]), text_ffn=inner.shape[0],
        text_layers=int(facts["text_layers"]), fusion_layers=int(facts["fusion_layers"]),
        stored_fusion_layers=int(facts.get("num_hidden_layers", 0)), stride_layer=int(facts.get("stride_layer", 1)),
        decoder_layers=int(facts.get("decoder_layers", 0)), vocabulary=words.shape[0], positions=places.shape[0],
        embed_dim=state["vision_proj.weight"].shape[0] if "vision_proj.weight" in state else 0,
    )


def selection_of(facts: dict[str, str]) -> Selection:
    if "select" not in facts:
        return Selection()
    return Selection(
        tuple(map(int, facts["select"].split(","))), tuple(map(float, facts["keep_rate"].split(","))),
        facts.get("guidance", "text"))


def load(folder: Path, architecture: str, selection: Selection):
    """The checkpoint of a folder as one of our models; the tensors it had no use for."""
    path = folder / "checkpoint.safetensors"
    state = load_file(path)
    model = models.make(config_of(architecture, metadata(path), state), selection)
    missing, unused = model.load_state_dict(state, strict=False)
    if missing:
        raise SystemExit(f"{path}: tensors missing: {', '.join(missing)}")
    return model, unused


def compare(folder: Path, architecture: str, golden: str, graphs: tuple[str, ...], tolerance: float) -> list[dict]:
    path = (folder / f"{golden}.safetensors").resolve()
    expected = load_file(path)
    model, _ = load(folder, architecture, selection_of(metadata(path)))
    found, trace = {name[3:]: value for name, value in expected.items() if name.startswith("in.")}, {}
    with torch.no_grad():
        for graph in graphs:
            found |= model.run(graph, found, trace)
    rows = []
    for name, value in sorted(expected.items()):
        kind, _, key = name.partition(".")
        if kind == "in":
            continue
        ours = (found if kind == "out" else trace).get(key)
        same = ours is not None and ours.shape == value.shape
        scale = value.double().abs().amax(-1, keepdim=True).clamp(min=1)
        error = ((ours.double() - value.double()).abs() / scale).max().item() if same else float("inf")
        passed = error <= (tolerance if value.is_floating_point() else 0)
        rows.append({"golden": f"{path.parent.name}/{path.stem}", "name": name, "shape": list(value.shape),
                     "error": error, "passed": passed})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row for folder, architecture, golden, graphs in CASES
            for row in compare(options.folder / folder, architecture, golden, graphs, options.tolerance)]
    for row in rows:
        print(f"{row['golden']:30} {row['name']:28} {str(row['shape']):18} {row['error']:9.2e}"
              f"  {'ok' if row['passed'] else 'FAIL'}")
    failed = sum(not row["passed"] for row in rows)
    print(f"{len(rows)} tensors, {failed} beyond {options.tolerance:g}, worst {max(row['error'] for row in rows):.2e}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
