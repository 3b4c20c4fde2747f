"""Holds the names, shapes and types of our released states beside lists of released checkpoints.

    python tools/reference/check_layouts.py FOLDER      FOLDER: one JSON list per released layout
"""

import argparse
import json
import sys
from pathlib import Path

import torch

import configurations
import models
import weights

LAYOUTS = {
    "albef_pretrain": "base-albef-pretrain", "albef_retrieval": "base-albef-retrieval",
    "albef_vqa": "base-albef-vqa", "albef_nlvr2": "base-albef-nlvr2", "albef_ve": "base-albef-ve",
    "mplug_base_vqa": "base-mplug-vqa", "mplug_base_caption": "base-mplug-caption",
    "mplug_base_retrieval": "base-mplug-retrieval", "mplug_base_grounding": "base-mplug-grounding",
    "mplug_large_retrieval": "large-mplug-retrieval", "mplug_large_grounding": "large-mplug-grounding",
}


def layout(config) -> dict:
    """Names to (shape, type), without making a single number: everything is on the meta device."""
    with torch.device("meta"):
        model = models.make(config)
        weights.normal = lambda name, shape, seed: torch.empty(shape)
        state = weights.released_state(model, 0)
    return {name: (list(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in state.items()}


def main(folder: Path) -> int:
    wrong = 0
    for file, name in LAYOUTS.items():
        listed = json.loads((folder / f"{file}.json").read_text())["tensors_list"]
        expected = {name: (shape, kind) for name, shape, kind in listed}
        found = layout(configurations.named(name))
        different = {key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)}
        wrong += bool(different)
        print(f"{file:24} {len(expected):5} tensors  {'the same' if not different else f'{len(different)} differ'}")
        for key in sorted(different)[:8]:
            print(f"    {key}: listed {expected.get(key)}, ours {found.get(key)}")
    return min(wrong, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    sys.exit(main(parser.parse_args().folder))
