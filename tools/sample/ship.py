"""Makes the sample in Tests/Fixtures/scenes out of trained weights.

    python tools/sample/ship.py --work DIR --out Tests/Fixtures/scenes

Writes checkpoint.safetensors (bfloat16, with the facts of its making), golden-select.safetensors (what the PyTorch
reference computes of these weights for eight questions under selection), test-set.safetensors, vocab.txt, answers.txt,
and scene.png with scene.txt, its caption.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))

import configurations
import export
import models
from selection import Selection

import questions
import test_set
from scenes import caption, scene
from train import BLOCKS, normalised

GOLDEN_RATE = 0.5
SCENES = 80


def trained(work: Path, name: str) -> dict[str, torch.Tensor]:
    """The model's own tensors out of a training's state."""
    state = torch.load(work / f"{name}.pt")["trainee"]
    return {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}


def facts(work: Path, name: str) -> dict[str, str]:
    """How the weights were made, from the logs of the three stages."""
    stages = {stage: [json.loads(line) for line in open(work / f"{stage}.log")] for stage in ("patches", "answers", name)}
    validation = next(entry["validation"] for entry in reversed(stages[name]) if "validation" in entry)
    return {"training": " ".join(f"{stage}:{entries[-1]['step']}" for stage, entries in stages.items()) + " steps of tools/sample/train.py",
            "processor_seconds": str(sum(entries[-1]["seconds"] for entries in stages.values())),
            "training_seed": "0", "data": "20000 scenes of tools/sample/scenes.py, seed 0",
            "validation_accuracy": json.dumps({rate: found[0] for rate, found in validation.items()})}


def write_checkpoint(work: Path, name: str, path: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    config = configurations.named("scenes")
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in trained(work, name).items()}
    export.save_file(state, path, config.metadata | facts(work, name))
    return state


def write_golden(state: dict, path: Path) -> None:
    """Eight questions about four validation scenes, on the rounded weights, without intermediates."""
    model = models.make(configurations.named("scenes"), Selection(BLOCKS, (GOLDEN_RATE,)))
    model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    found = test_set.make("validation", 4, seed=0)
    chosen = torch.cat([(found["index.image"] == number).nonzero()[:2, 0] for number in range(4)])
    inputs = {"image": normalised(found["in.image"].numpy())[found["index.image"][chosen]],
              "input_ids": found["in.input_ids"][chosen], "attention_mask": found["in.attention_mask"][chosen]}
    export.write_golden(path, export.golden(model, inputs, intermediates=False), export.metadata(model, 0, "scenes"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--run", default="text")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    state = write_checkpoint(options.work, options.run, options.out / "checkpoint.safetensors", torch.bfloat16)
    write_golden(state, options.out / "golden-select.safetensors")
    tensors = test_set.make("test", SCENES, seed=0)
    export.save_file(tensors, options.out / "test-set.safetensors",
                     {"split": "test", "scenes": str(SCENES), "seed": "0", "sorts": ",".join(questions.SORTS)})
    (options.out / "vocab.txt").write_text("\n".join(questions.WORDS) + "\n")
    (options.out / "answers.txt").write_text("\n".join(questions.ANSWERS) + "\n")
    image, things = scene(0, "test", 0)
    Image.fromarray(image).save(options.out / "scene.png", optimize=True)
    (options.out / "scene.txt").write_text(caption(things) + "\n")


if __name__ == "__main__":
    main()
